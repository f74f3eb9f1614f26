import { crc32c as javascriptCrc32c } from '@aws-crypto/crc32c';
import { describe, expect, it } from 'vitest';
import { computeBatchCrc, crc32c, crc32cImplementation, selectCrc32c } from '../../src/batch/crc32c.js';
import { storedCrcOf } from '../../src/batch/layout.js';
import { fc } from '../support/properties.js';
import { VECTORS } from './support.js';

const broken = () => {
  throw new Error('no addon for this platform');
};

describe('crc32c', () => {
  it.each([
    ['123456789', 0xe3069283],
    ['Some String', 608512271],
    ['', 0],
  ])('has the check value of %j in both implementations', (text, expected) => {
    expect(crc32c(Buffer.from(text))).toBe(expected);
    expect(selectCrc32c(broken).compute(Buffer.from(text))).toBe(expected);
  });

  it('uses native code where its addon loads', () => {
    expect(crc32cImplementation).toBe('@node-rs/crc32');
    expect(selectCrc32c().implementation).toBe('@node-rs/crc32');
  });

  it('falls back to JavaScript when the addon cannot be loaded', () => {
    expect(selectCrc32c(broken).implementation).toBe('@aws-crypto/crc32c');
  });

  it('falls back to JavaScript when the addon computes something else', () => {
    const wrong = selectCrc32c(() => ({ crc32c: () => 1 }));
    expect(wrong.implementation).toBe('@aws-crypto/crc32c');
    expect(wrong.compute(Buffer.from('123456789'))).toBe(0xe3069283);
  });

  it('is the same in both implementations for any bytes, also for views into larger memory', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, skip) => {
        const view = bytes.subarray(Math.min(skip, bytes.length));
        expect(crc32c(view)).toBe(javascriptCrc32c(view));
      }),
      { numRuns: 300 },
    );
  });

  it('of a batch is computed wherever the batch lies in a buffer', () => {
    const padded = Buffer.concat([Buffer.alloc(5, 0xff), VECTORS.B, Buffer.alloc(3, 0xff)]);
    expect(computeBatchCrc(padded, 5, VECTORS.B.length)).toBe(storedCrcOf(VECTORS.B, 0));
  });
});
