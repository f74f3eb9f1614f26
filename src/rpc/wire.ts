/**
 * The protobuf wire format, as far as the hand-written codecs need it: varints, length-delimited fields, skipping.
 * Numbers are JavaScript numbers; int64 values outside the safe integers are refused, not rounded.
 */
import { LogError } from '../core/errors.js';

const WIRE_VARINT = 0;
const WIRE_FIXED64 = 1;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;
const TWO_32 = 4294967296;
/** A 64-bit varint is at most ten groups of seven bits; negative numbers always take all of them. */
const MAX_VARINT_BYTES = 10;

export function varintTag(field: number): number {
  return (field << 3) | WIRE_VARINT;
}

export function bytesTag(field: number): number {
  return (field << 3) | WIRE_BYTES;
}

/** Encoded size of a safe integer as an int32/int64 varint. */
export function varintSize(value: number): number {
  if (value < 0) return MAX_VARINT_BYTES;
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Writes a safe integer as an int32/int64 varint and returns the position after it. */
export function writeVarint(target: Buffer, at: number, value: number): number {
  if (value < 0) return writeNegativeVarint(target, at, value);
  let rest = value;
  let position = at;
  while (rest >= 2147483648) {
    target[position++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  while (rest >= 128) {
    target[position++] = (rest & 127) | 128;
    rest >>>= 7;
  }
  target[position++] = rest;
  return position;
}

function writeNegativeVarint(target: Buffer, at: number, value: number): number {
  let rest = BigInt.asUintN(64, BigInt(value));
  let position = at;
  while (rest >= 128n) {
    target[position++] = Number(rest & 127n) | 128;
    rest >>= 7n;
  }
  target[position++] = Number(rest);
  return position;
}

/** Sizes and writers of fields with numbers up to 15, whose tag is one byte; what is 0 or empty is left out. */
export function stringFieldSize(byteLength: number): number {
  return byteLength === 0 ? 0 : 1 + varintSize(byteLength) + byteLength;
}

export function intFieldSize(value: number): number {
  return value === 0 ? 0 : 1 + varintSize(value);
}

export function writeIntField(target: Buffer, at: number, field: number, value: number): number {
  if (value === 0) return at;
  target[at] = varintTag(field);
  return writeVarint(target, at + 1, value);
}

export function writeStringField(target: Buffer, at: number, field: number, value: string, byteLength: number): number {
  if (byteLength === 0) return at;
  target[at] = bytesTag(field);
  const start = writeVarint(target, at + 1, byteLength);
  target.write(value, start, 'utf8');
  return start + byteLength;
}

/** Bytes of the values of a packed field. */
function packedSize(values: readonly number[]): number {
  let size = 0;
  for (const value of values) size += varintSize(value);
  return size;
}

export function packedFieldSize(values: readonly number[]): number {
  return stringFieldSize(packedSize(values));
}

export function writePackedField(target: Buffer, at: number, field: number, values: readonly number[]): number {
  if (values.length === 0) return at;
  target[at] = bytesTag(field);
  let position = writeVarint(target, at + 1, packedSize(values));
  for (const value of values) position = writeVarint(target, position, value);
  return position;
}

function malformed(what: string): LogError {
  return new LogError('INVALID_REQUEST', `The message is not valid protobuf: ${what}.`);
}

/** Walks the fields of one message. Every length is checked against the end of the message. */
export class WireReader {
  readonly bytes: Buffer;
  position: number;
  readonly end: number;
  #wireType = 0;

  constructor(bytes: Buffer, position = 0, end: number = bytes.length) {
    this.bytes = bytes;
    this.position = position;
    this.end = end;
  }

  /** Number of the next field, or 0 at the end of the message. */
  nextField(): number {
    if (this.position >= this.end) return 0;
    const tag = this.varint();
    this.#wireType = tag & 7;
    const field = Math.floor(tag / 8);
    if (field === 0) throw malformed('field number 0');
    return field;
  }

  /** An int32/int64/enum field's value. */
  int(): number {
    this.#expect(WIRE_VARINT);
    return this.varint();
  }

  /** Appends what is in a repeated int32/int64 field, packed or not: at most one number a byte. */
  ints(into: number[]): void {
    if (this.#wireType !== WIRE_BYTES) {
      into.push(this.int());
      return;
    }
    const packed = this.message();
    while (packed.position < packed.end) into.push(packed.varint());
  }

  /** A bytes field as a view on the message. */
  slice(): Buffer {
    this.#expect(WIRE_BYTES);
    const start = this.#enterLength();
    return this.bytes.subarray(start, this.position);
  }

  string(): string {
    this.#expect(WIRE_BYTES);
    const start = this.#enterLength();
    return this.bytes.toString('utf8', start, this.position);
  }

  /** A reader for an embedded message. */
  message(): WireReader {
    this.#expect(WIRE_BYTES);
    const start = this.#enterLength();
    return new WireReader(this.bytes, start, this.position);
  }

  /** Moves past the field, whatever its value. Returns by how many bytes. */
  skip(): number {
    const start = this.position;
    if (this.#wireType === WIRE_VARINT) this.#skipVarint();
    else if (this.#wireType === WIRE_BYTES) this.#enterLength();
    else if (this.#wireType === WIRE_FIXED64) this.#advance(8);
    else if (this.#wireType === WIRE_FIXED32) this.#advance(4);
    else throw malformed(`wire type ${this.#wireType}`);
    return this.position - start;
  }

  #skipVarint(): void {
    const last = Math.min(this.position + MAX_VARINT_BYTES, this.end);
    while (this.position < last) {
      if ((this.bytes[this.position++] as number) < 128) return;
    }
    throw malformed('a number does not end');
  }

  varint(): number {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.position >= this.end) throw malformed('a number is cut short');
      const byte = this.bytes[this.position++] as number;
      const bits = byte & 127;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else if (shift < 63) high |= bits << (shift - 32);
      else high |= (bits & 1) << 31;
      if (byte < 128) {
        const value = high * TWO_32 + (low >>> 0);
        if (!Number.isSafeInteger(value)) throw malformed('a number is outside -(2^53-1)..2^53-1');
        return value;
      }
    }
    throw malformed('a number is longer than ten bytes');
  }

  #expect(wireType: number): void {
    if (this.#wireType !== wireType) throw malformed(`wire type ${this.#wireType} where ${wireType} belongs`);
  }

  /** Reads a length, moves past that many bytes, and returns where they began. */
  #enterLength(): number {
    const length = this.varint();
    const start = this.position;
    this.#advance(length);
    return start;
  }

  #advance(count: number): void {
    if (count < 0 || this.position + count > this.end) throw malformed('a field is longer than the message');
    this.position += count;
  }
}
