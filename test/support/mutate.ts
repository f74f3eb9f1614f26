/** Broken inputs for decoders, made from valid ones so that they get past the first checks. */

/** Interesting values for a byte: ends of ranges, flags, continuation bits. */
const BYTES = [0x00, 0x01, 0x7e, 0x7f, 0x80, 0xfe, 0xff];

/**
 * A copy of `valid` with one to four changes: bytes changed, cut off, repeated or left out. Never empty.
 *
 * @param valid at least one byte
 * @param below an integer from 0 up to but excluding its argument, such as {@link Programme.below}
 */
export function mutate(valid: Buffer, below: (limit: number) => number): Buffer {
  let bytes: Buffer = Buffer.from(valid);
  for (let change = below(4); change >= 0; change--) {
    const at = below(bytes.length);
    const kind = below(6);
    if (kind === 0) bytes[at] = below(256);
    else if (kind === 1) bytes[at] = BYTES[below(BYTES.length)]!;
    else if (kind === 2) bytes[at]! ^= 1 << below(8);
    else if (kind === 3) bytes = bytes.subarray(0, Math.max(1, at));
    else if (kind === 4) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - below(20)))]);
    else bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + below(4)), Buffer.alloc(1)]);
  }
  return bytes;
}
