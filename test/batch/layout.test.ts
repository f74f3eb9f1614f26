import { describe, expect, it } from 'vitest';
import {
  attributesOf,
  baseOffsetOf,
  baseSequenceOf,
  baseTimestampOf,
  CODECS,
  codecOf,
  hasDeleteHorizon,
  isControl,
  isLogAppendTime,
  isTransactional,
  lastOffsetDeltaOf,
  leaderEpochOf,
  magicOf,
  maxTimestampOf,
  nextOffsetOf,
  producerEpochOf,
  producerIdOf,
  recordCountOf,
  setLogAppendTime,
  sizeInBytesOf,
  stampBatch,
  storedCrcOf,
  writeInt64,
} from '../../src/batch/layout.js';
import { checkBatch } from '../../src/batch/validate.js';
import { batchOf, readAll, T0, VECTORS } from './support.js';

function header(buf: Buffer, at: number) {
  const attributes = attributesOf(buf, at);
  return {
    baseOffset: baseOffsetOf(buf, at),
    size: sizeInBytesOf(buf, at),
    leaderEpoch: leaderEpochOf(buf, at),
    magic: magicOf(buf, at),
    crc: storedCrcOf(buf, at).toString(16).padStart(8, '0'),
    codec: codecOf(attributes),
    flags: [
      isTransactional(attributes) && 'transactional',
      isControl(attributes) && 'control',
      isLogAppendTime(attributes) && 'logAppendTime',
      hasDeleteHorizon(attributes) && 'deleteHorizon',
    ].filter(Boolean),
    lastOffsetDelta: lastOffsetDeltaOf(buf, at),
    nextOffset: nextOffsetOf(buf, at),
    baseTimestamp: baseTimestampOf(buf, at),
    maxTimestamp: maxTimestampOf(buf, at),
    producerId: producerIdOf(buf, at),
    producerEpoch: producerEpochOf(buf, at),
    baseSequence: baseSequenceOf(buf, at),
    recordCount: recordCountOf(buf, at),
  };
}

describe('batch headers', () => {
  it('are read field by field, wherever the batch lies', () => {
    const log = Buffer.concat([VECTORS.A, VECTORS.B]);
    expect(header(log, VECTORS.A.length)).toEqual({
      baseOffset: 5,
      size: 91,
      leaderEpoch: 2,
      magic: 2,
      crc: '23e9c40d',
      codec: 'none',
      flags: ['transactional'],
      lastOffsetDelta: 1,
      nextOffset: 7,
      baseTimestamp: T0,
      maxTimestamp: T0 + 7,
      producerId: 4242,
      producerEpoch: 3,
      baseSequence: 10,
      recordCount: 2,
    });
  });

  it('of a marker and of an emptied batch have negative fields and holes', () => {
    expect(header(VECTORS.C, 0)).toMatchObject({
      flags: ['transactional', 'control'],
      baseSequence: -1,
      nextOffset: 8,
    });
    expect(header(VECTORS.E, 0)).toMatchObject({ size: 61, recordCount: 0, baseTimestamp: -1, nextOffset: 25 });
    expect(header(VECTORS.A, 0)).toMatchObject({ producerId: -1, producerEpoch: -1, baseSequence: -1 });
  });

  it('name codecs by number, and none for the numbers 5 to 7', () => {
    expect([0, 1, 2, 3, 4].map(codecOf)).toEqual(CODECS);
    expect([5, 6, 7].map(codecOf)).toEqual([undefined, undefined, undefined]);
    expect(codecOf(0x10 | 4)).toBe('zstd');
  });

  it('hold any safe integer in their 64-bit fields', () => {
    const buf = Buffer.alloc(8);
    for (const value of [0, 1, -1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, -(2 ** 32) - 5, 2 ** 53 - 1, -(2 ** 53) + 1]) {
      writeInt64(buf, 0, value);
      expect(Number(buf.readBigInt64BE(0))).toBe(value);
      expect(baseOffsetOf(buf, 0)).toBe(value);
    }
  });

  it('take an offset and an epoch in bytes 0-7 and 12-15 only, under an unchanged CRC', () => {
    const batch = Buffer.concat([Buffer.alloc(3), VECTORS.A]);
    stampBatch(batch, 3, 2 ** 40 + 17, 9);
    expect(baseOffsetOf(batch, 3)).toBe(2 ** 40 + 17);
    expect(leaderEpochOf(batch, 3)).toBe(9);
    expect(batch.subarray(3 + 8, 3 + 12)).toEqual(VECTORS.A.subarray(8, 12));
    expect(batch.subarray(3 + 16)).toEqual(VECTORS.A.subarray(16));
    expect(checkBatch(batch, 3, batch.length)).toBeUndefined();
  });

  it('refuse offsets and epochs that do not fit', () => {
    const batch = Buffer.from(VECTORS.A);
    for (const [offset, epoch] of [
      [-1, 0],
      [2 ** 53, 0],
      [0.5, 0],
      [0, 2 ** 31],
    ] as const) {
      expect(() => stampBatch(batch, 0, offset, epoch)).toThrow('Broken invariant');
    }
    expect(batch).toEqual(VECTORS.A);
  });

  it('take the append time, which then is the time of every record', async () => {
    const batch = batchOf(['a', 'b', 'c']);
    setLogAppendTime(batch, 0, T0 + 99);
    expect(checkBatch(batch, 0, batch.length)).toBeUndefined();
    expect(header(batch, 0)).toMatchObject({ flags: ['logAppendTime'], baseTimestamp: T0, maxTimestamp: T0 + 99 });
    expect((await readAll(batch)).map((r) => r.timestampMs)).toEqual([T0 + 99, T0 + 99, T0 + 99]);
  });
});
