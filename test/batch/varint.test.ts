import { describe, expect, it } from 'vitest';
import {
  readVarint,
  readVarlong,
  varintEnd,
  varintSize,
  varlongSize,
  writeVarint,
  writeVarlong,
} from '../../src/batch/varint.js';
import { fc } from '../support/properties.js';
import { hex } from './support.js';

const VECTORS: readonly (readonly [number, string])[] = [
  [0, '00'],
  [-1, '01'],
  [1, '02'],
  [-2, '03'],
  [63, '7e'],
  [-64, '7f'],
  [64, '8001'],
  [300, 'd804'],
  [-300, 'd704'],
  [2147483647, 'feffffff0f'],
  [-2147483648, 'ffffffff0f'],
];

function written(write: (buf: Buffer, at: number, value: number) => number, value: number): Buffer {
  const buf = Buffer.alloc(12, 0xee);
  return buf.subarray(1, write(buf, 1, value));
}

/** The encoding by its definition, in bigint arithmetic. */
function reference(value: bigint): Buffer {
  let zigzag = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
  const bytes: number[] = [];
  while (zigzag > 0x7fn) {
    bytes.push(Number(zigzag & 0x7fn) | 0x80);
    zigzag >>= 7n;
  }
  bytes.push(Number(zigzag));
  return Buffer.from(bytes);
}

describe('varints', () => {
  it.each(VECTORS)('writes and reads %d as %s', (value, digits) => {
    for (const write of [writeVarint, writeVarlong]) expect(written(write, value).toString('hex')).toBe(digits);
    expect(varintSize(value)).toBe(digits.length / 2);
    expect(varlongSize(value)).toBe(digits.length / 2);
    expect(readVarint(hex(digits), 0)).toBe(value);
    expect(readVarlong(hex(digits), 0)).toBe(value);
    expect(varintEnd(hex(digits), 0)).toBe(digits.length / 2);
  });

  it('write every 32-bit integer as the definition says', () => {
    fc.assert(
      fc.property(fc.integer(), (value) => {
        const bytes = written(writeVarint, value);
        expect(bytes).toEqual(reference(BigInt(value)));
        expect(varintSize(value)).toBe(bytes.length);
        expect(readVarint(bytes, 0)).toBe(value);
      }),
      { numRuns: 2_000 },
    );
  });

  it('write every safe integer as the definition of the 64-bit form says', () => {
    const edges = [2 ** 31, -(2 ** 31) - 1, 2 ** 32, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER];
    fc.assert(
      fc.property(fc.oneof(fc.maxSafeInteger(), fc.constantFrom(...edges)), (value) => {
        const bytes = written(writeVarlong, value);
        expect(bytes).toEqual(reference(BigInt(value)));
        expect(varlongSize(value)).toBe(bytes.length);
        expect(readVarlong(bytes, 0)).toBe(value);
      }),
      { numRuns: 2_000 },
    );
  });

  it('read 64-bit values beyond the safe integers rounded, with the right sign', () => {
    expect(readVarlong(reference(2n ** 63n - 1n), 0)).toBe(2 ** 63);
    expect(readVarlong(reference(-(2n ** 63n)), 0)).toBe(-(2 ** 63));
  });

  it('refuse more than 5 bytes, the 64-bit form more than 10', () => {
    expect(readVarint(hex('808080808000'), 0)).toBeUndefined();
    expect(readVarlong(hex('8080808080808080808000'), 0)).toBeUndefined();
    expect(readVarlong(hex('80808080808080808000'), 0)).toBe(0);
  });

  it('read bytes beyond the buffer as zero', () => {
    expect(readVarint(hex('80'), 0)).toBe(0);
    expect(varintEnd(hex('80'), 0)).toBe(2);
  });
});
