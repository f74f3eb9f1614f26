/**
 * Signed variable-length integers of the record format: zigzag, then groups of 7 bits, least significant first, the high
 * bit of a byte saying "more follows". (The unsigned varints of Kafka's wire protocol are another thing.)
 *
 * zigzag puts the sign into bit 0: 0, -1, 1, -2 become 0, 1, 2, 3.
 */

/** Most bytes that a 32-bit varint takes. */
export const MAX_VARINT_BYTES = 5;
/** Most bytes that a 64-bit varlong takes. */
export const MAX_VARLONG_BYTES = 10;

/** Bytes that a 32-bit integer takes as a varint. */
export function varintSize(value: number): number {
  const zigzag = ((value << 1) ^ (value >> 31)) >>> 0;
  if (zigzag < 0x80) return 1;
  if (zigzag < 0x4000) return 2;
  if (zigzag < 0x20_0000) return 3;
  if (zigzag < 0x1000_0000) return 4;
  return 5;
}

/** Writes a 32-bit integer and returns the position after it. */
export function writeVarint(buf: Buffer, at: number, value: number): number {
  let rest = ((value << 1) ^ (value >> 31)) >>> 0;
  let next = at;
  while (rest > 0x7f) {
    buf[next++] = rest | 0x80;
    rest >>>= 7;
  }
  buf[next++] = rest;
  return next;
}

/** Bytes that a safe integer takes as a varlong. */
export function varlongSize(value: number): number {
  if ((value | 0) === value) return varintSize(value);
  let size = 1;
  // Without the sign bit the first byte holds 6 bits, each further one 7.
  for (let rest = Math.floor(magnitude(value) / 0x40); rest > 0; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

/** Writes a safe integer and returns the position after it. */
export function writeVarlong(buf: Buffer, at: number, value: number): number {
  if ((value | 0) === value) return writeVarint(buf, at, value);
  const whole = magnitude(value);
  const sign = value < 0 ? 1 : 0;
  let group = (whole % 0x40) * 2 + sign;
  let rest = Math.floor(whole / 0x40);
  let next = at;
  while (rest > 0) {
    buf[next++] = group | 0x80;
    group = rest % 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buf[next++] = group;
  return next;
}

/** The zigzag value without its sign bit: exact for every safe integer, where doubling it would not be. */
function magnitude(value: number): number {
  return value < 0 ? -value - 1 : value;
}

/**
 * Reads a varint; `varintEnd` tells where it ends. A byte beyond the buffer counts as 0: the caller checks the end
 * against its limit. Undefined when more than 5 bytes belong to it.
 */
export function readVarint(buf: Buffer, at: number): number | undefined {
  let zigzag = 0;
  for (let i = 0; i < MAX_VARINT_BYTES; i++) {
    const byte = buf[at + i]!;
    zigzag |= (byte & 0x7f) << (7 * i);
    if (!(byte & 0x80)) return (zigzag >>> 1) ^ -(zigzag & 1);
  }
  return undefined;
}

/**
 * Reads a varlong; as `readVarint`, with at most 10 bytes. Exact within the safe integers and rounded beyond them.
 */
export function readVarlong(buf: Buffer, at: number): number | undefined {
  const first = buf[at]!;
  let whole = (first & 0x7f) >>> 1;
  let byte = first;
  let scale = 0x40;
  for (let i = 1; byte & 0x80; i++) {
    if (i === MAX_VARLONG_BYTES) return undefined;
    byte = buf[at + i]!;
    whole += (byte & 0x7f) * scale;
    scale *= 0x80;
  }
  return first & 1 ? -whole - 1 : whole;
}

/** Position after the varint or varlong at `at`, found by its high bits. */
export function varintEnd(buf: Buffer, at: number): number {
  let next = at;
  while (buf[next]! & 0x80) next++;
  return next + 1;
}
