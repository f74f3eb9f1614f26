import { describe, expect, it } from 'vitest';
import { compressBatch } from '../../src/batch/compression.js';
import { setLogAppendTime, stampBatch, writeInt32, writeInt64 } from '../../src/batch/layout.js';
import {
  type AppendLimits,
  checkBatch,
  checkFraming,
  splitBatches,
  validateForAppend,
  validateProducer,
} from '../../src/batch/validate.js';
import { altered, batchOf, errorOf, reasonOf, T0, VECTORS, withSection } from './support.js';

const HOUR = 3_600_000;
const LIMITS: AppendLimits = {
  maxBatchBytes: 1_048_588,
  nowMs: T0,
  timestampAfterMaxMs: HOUR,
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  logAppendTime: false,
};

describe('checkBatch', () => {
  it.each(Object.entries(VECTORS))('finds test vector %s intact, also inside a larger buffer', (_name, batch) => {
    expect(checkBatch(batch, 0, batch.length)).toBeUndefined();
    const padded = Buffer.concat([Buffer.alloc(7), batch, Buffer.alloc(9)]);
    expect(checkBatch(padded, 7, padded.length)).toBeUndefined();
  });

  it('finds every flipped bit, except in the fields outside the CRC', () => {
    const batch = VECTORS.B;
    const unnoticed = new Set<number>();
    for (let at = 0; at < batch.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const flipped = Buffer.from(batch);
        flipped[at]! ^= 1 << bit;
        if (checkBatch(flipped, 0, flipped.length) === undefined) unnoticed.add(at);
      }
    }
    // Base offset and leader epoch; a base offset beyond 2^53 is noticed, one below is not.
    expect([...unnoticed]).toEqual([1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]);
  });

  it('finds every truncation', () => {
    for (let end = 0; end < VECTORS.B.length; end++) expect(checkBatch(VECTORS.B, 0, end)).toBeTypeOf('string');
  });

  it('says what is wrong', () => {
    const reasonFor = (change: (copy: Buffer) => void): string | undefined => {
      const copy = Buffer.from(VECTORS.B);
      change(copy);
      return checkFraming(copy, 0, copy.length);
    };
    expect(reasonFor((b) => b.writeInt8(1, 16))).toBe('the magic is 1, not 2');
    expect(reasonFor((b) => b.writeInt32BE(48, 8))).toBe('the batch length is 48, below the least possible, 49');
    expect(reasonFor((b) => b.writeInt32BE(-1, 8))).toMatch('below the least possible');
    expect(reasonFor((b) => b.writeInt32BE(80, 8))).toBe('the batch takes 92 bytes, but 91 are left');
    expect(reasonFor((b) => b.writeInt32BE(-1, 23))).toMatch('last offset delta -1');
    expect(reasonFor((b) => b.writeInt32BE(3, 57))).toMatch('record count of 3');
    expect(reasonFor((b) => b.writeInt32BE(-1, 57))).toMatch('record count of -1');
    expect(reasonFor((b) => b.writeInt8(-1, 0))).toMatch('out of range');
    expect(reasonFor((b) => writeInt64(b, 0, 2 ** 53 - 2))).toMatch('beyond the largest offset');
    expect(reasonFor((b) => [23, 57].map((at) => b.writeInt32BE(5, at)))).toMatch('5 records cannot fit in 30 bytes');
    expect(checkFraming(VECTORS.B, 0, 60)).toMatch('60 bytes are left');
    expect(checkFraming(VECTORS.B, 31, 91)).toMatch('60 bytes are left');
    const flipped = Buffer.from(VECTORS.A);
    flipped[69] = 1;
    expect(checkFraming(flipped, 0, 70)).toBeUndefined();
    expect(checkBatch(flipped, 0, 70)).toMatch(/^the CRC is [0-9a-f]{8}, but the header says e99b8dd8$/);
  });
});

describe('splitBatches', () => {
  it('gives a view of each batch', () => {
    const blob = Buffer.concat([VECTORS.A, VECTORS.E, VECTORS.B]);
    const batches = splitBatches(blob);
    expect(batches).toEqual([VECTORS.A, VECTORS.E, VECTORS.B]);
    expect(batches[2]?.buffer).toBe(blob.buffer);
    expect(splitBatches(Buffer.alloc(0))).toEqual([]);
  });

  it('refuses bytes that do not divide into whole batches, and says where', async () => {
    const blob = Buffer.concat([VECTORS.A, VECTORS.B]);
    for (const broken of [blob.subarray(0, 160), blob.subarray(0, 71), blob.subarray(1), Buffer.alloc(200)]) {
      expect(await reasonOf(() => splitBatches(broken))).toBe('CORRUPT_MESSAGE');
    }
    const error = await errorOf(() => splitBatches(blob.subarray(0, 160)));
    expect(error.metadata).toEqual({ position: '70' });
  });
});

describe('validateForAppend', () => {
  const check = (batch: Buffer, limits: Partial<AppendLimits> = {}): void =>
    validateForAppend(batch, { ...LIMITS, ...limits });

  it('accepts what producers send: ours, kafkajs, and compressed batches', async () => {
    const ours = batchOf(['a', 'b']);
    for (const batch of [VECTORS.A, ours, await compressBatch(ours, 'gzip')]) expect(check(batch)).toBeUndefined();
    expect(check(VECTORS.F, { nowMs: 1_795_468_352_921 })).toBeUndefined();
  });

  type Case = [what: string, reason: string, text: string, batch: Buffer, limits?: Partial<AppendLimits>];
  const refused: Case[] = [
    ['fewer bytes than a header', 'CORRUPT_MESSAGE', '60 bytes are left', VECTORS.A.subarray(0, 60)],
    ['no bytes', 'CORRUPT_MESSAGE', '0 bytes are left', Buffer.alloc(0)],
    ['an old magic', 'CORRUPT_MESSAGE', 'the magic is 1', altered(VECTORS.A, (b) => b.writeInt8(1, 16))],
    ['a base offset', 'INVALID_RECORD', 'base offset is 5', batchOf(['a'], { baseOffset: 5 })],
    ['a length beyond the end', 'CORRUPT_MESSAGE', 'the batch takes 70', VECTORS.A.subarray(0, 69)],
    ['bytes behind it', 'CORRUPT_MESSAGE', '1 bytes follow', Buffer.concat([VECTORS.A, Buffer.alloc(1)])],
    ['a second batch behind it', 'CORRUPT_MESSAGE', '70 bytes follow', Buffer.concat([VECTORS.A, VECTORS.A])],
    ['too many bytes', 'MESSAGE_TOO_LARGE', 'at most 69', VECTORS.A, { maxBatchBytes: 69 }],
    ['a wrong CRC', 'CORRUPT_MESSAGE', 'the CRC is', flipByte(VECTORS.A, 66)],
    ['an unknown codec', 'UNSUPPORTED_COMPRESSION_TYPE', 'type 5', altered(VECTORS.A, (b) => b.writeInt8(5, 22))],
    ['no record', 'INVALID_RECORD', 'record count is 0', withSection(altered(VECTORS.A, count(0)), Buffer.alloc(0))],
    ['a negative count', 'INVALID_RECORD', 'record count is -1', altered(VECTORS.A, count(-1))],
    [
      'a count that is not its offsets',
      'INVALID_RECORD',
      'does not go with',
      altered(VECTORS.A, (b) => writeInt32(b, 57, 2)),
    ],
    ['more records than fit', 'INVALID_RECORD', 'cannot fit', altered(VECTORS.A, count(2))],
    ['more records than allowed', 'INVALID_RECORD', 'at most 1000000', altered(VECTORS.A, count(1_000_001))],
    ['a control batch', 'INVALID_RECORD', 'control', batchOf(['a'], { control: true })],
    ['a delete horizon', 'INVALID_RECORD', 'delete horizon', altered(VECTORS.A, (b) => b.writeInt8(0x40, 22))],
    ['a time too late', 'INVALID_TIMESTAMP', `lies after ${T0 - 1}`, VECTORS.A, { nowMs: T0 - HOUR - 1 }],
    [
      'a time too early',
      'INVALID_TIMESTAMP',
      `lies before ${T0 + 1}`,
      VECTORS.A,
      { nowMs: T0 + 11, timestampBeforeMaxMs: 10 },
    ],
    ['a negative time', 'INVALID_TIMESTAMP', '-2', altered(VECTORS.A, times(-2, T0))],
    ['a time that no date holds', 'INVALID_TIMESTAMP', '8640000000000001', altered(VECTORS.A, times(T0, 8.64e15 + 1))],
    ['a largest time before the first', 'INVALID_TIMESTAMP', 'before its first', altered(VECTORS.A, times(T0, T0 - 1))],
    ['the append-time bit', 'INVALID_TIMESTAMP', 'LogAppendTime', appendTime()],
    [
      'the append-time bit under append time',
      'INVALID_TIMESTAMP',
      'LogAppendTime',
      appendTime(),
      { logAppendTime: true },
    ],
  ];

  it.each(refused)('refuses %s with %s', async (_what, reason, text, batch, limits) => {
    const before = Buffer.from(batch);
    const error = await errorOf(() => check(batch, limits));
    expect(error.reason).toBe(reason);
    expect(error.message).toContain(text);
    expect(batch).toEqual(before);
  });

  it('refuses a compressed batch without any bytes of records', async () => {
    const compressed = await compressBatch(VECTORS.A, 'lz4');
    expect(await reasonOf(() => check(withSection(compressed, Buffer.alloc(0))))).toBe('INVALID_RECORD');
  });

  it('tells the actual size and the limit', async () => {
    const error = await errorOf(() => check(VECTORS.A, { maxBatchBytes: 69 }));
    expect(error.metadata).toEqual({ actual_bytes: '70', max_bytes: '69' });
  });

  it('accepts times at the limits, and any time where the broker sets it', () => {
    expect(check(VECTORS.A, { nowMs: T0 - HOUR })).toBeUndefined();
    expect(check(VECTORS.A, { nowMs: T0 + 10, timestampBeforeMaxMs: 10 })).toBeUndefined();
    expect(check(VECTORS.A, { nowMs: 0, logAppendTime: true })).toBeUndefined();
    expect(check(altered(VECTORS.A, times(-1, -1)), { timestampBeforeMaxMs: 10 })).toBeUndefined();
  });

  it('checks in the order of its table: the envelope before the content before the time', async () => {
    const worst = altered(batchOf(['a'], { control: true }), (b) => b.writeInt8(0x2d, 22));
    expect(await reasonOf(() => check(worst, { nowMs: 0 }))).toBe('UNSUPPORTED_COMPRESSION_TYPE');
    worst[60]! ^= 1;
    expect(await reasonOf(() => check(worst, { nowMs: 0 }))).toBe('CORRUPT_MESSAGE');
    expect(await reasonOf(() => check(worst, { nowMs: 0, maxBatchBytes: 10 }))).toBe('MESSAGE_TOO_LARGE');
    stampBatch(worst, 0, 1, 0);
    expect(await reasonOf(() => check(worst, { nowMs: 0, maxBatchBytes: 10 }))).toBe('INVALID_RECORD');
  });

  it('tells whether a batch has a producer, by its id alone', () => {
    const idempotent = batchOf(['a'], { producerId: 0, producerEpoch: 0, baseSequence: 0 });
    expect(validateProducer(idempotent)).toBe(true);
    expect(validateProducer(VECTORS.B)).toBe(true);
    // Epoch 0 and sequence 0 without an id, as kafkajs sends them, are not idempotence.
    expect(validateProducer(VECTORS.F)).toBe(false);
    expect(validateProducer(VECTORS.A)).toBe(false);
  });

  it.each([
    ['transactional without a producer id', { transactional: true }],
    ['a producer id without an epoch', { producerId: 1, baseSequence: 0 }],
    ['a producer id without a sequence', { producerId: 1, producerEpoch: 0 }],
    ['a producer id that no broker gives', { producerId: 2 ** 60, producerEpoch: 0, baseSequence: 0 }],
  ])('refuses a batch with %s', async (_, options) => {
    expect(await reasonOf(() => validateProducer(batchOf(['a'], options)))).toBe('INVALID_RECORD');
  });
});

function count(records: number): (batch: Buffer) => void {
  return (batch) => {
    writeInt32(batch, 57, records);
    writeInt32(batch, 23, records - 1);
  };
}

function times(base: number, max: number): (batch: Buffer) => void {
  return (batch) => {
    writeInt64(batch, 27, base);
    writeInt64(batch, 35, max);
  };
}

function appendTime(): Buffer {
  const batch = batchOf(['a']);
  setLogAppendTime(batch, 0, T0);
  return batch;
}

function flipByte(batch: Buffer, at: number): Buffer {
  const copy = Buffer.from(batch);
  copy[at]! ^= 0xff;
  return copy;
}
