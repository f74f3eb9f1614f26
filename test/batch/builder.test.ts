import { describe, expect, it } from 'vitest';
import { BatchBuilder, encodeBatch, type RecordHeader, type RecordInput } from '../../src/batch/builder.js';
import {
  maxTimestampOf,
  RECORD_BATCH_OVERHEAD,
  recordCountOf,
  setLogAppendTime,
  sizeInBytesOf,
} from '../../src/batch/layout.js';
import { checkBatch, validateForAppend } from '../../src/batch/validate.js';
import { fc } from '../support/properties.js';
import { batchOf, errorOf, hex, latin1, type PlainRecord, readAll, reasonOf, record, T0, VECTORS } from './support.js';

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

describe('encodeBatch', () => {
  it('writes test vector A: one record without a producer', () => {
    expect(encodeBatch([{ timestampMs: T0, key: bytes('k'), value: bytes('v') }], { leaderEpoch: 0 })).toEqual(
      VECTORS.A,
    );
  });

  it('writes test vector B: a transactional batch with nulls, headers and a producer', () => {
    const headers: RecordHeader[] = [
      { key: 'h', value: bytes('1') },
      { key: 'n', value: null },
    ];
    const records: RecordInput[] = [
      { timestampMs: T0, key: null, value: bytes('hello') },
      { timestampMs: T0 + 7, key: bytes('key2'), value: null, headers },
    ];
    const producer = { producerId: 4242, producerEpoch: 3, baseSequence: 10, transactional: true };
    expect(encodeBatch(records, { ...producer, baseOffset: 5, leaderEpoch: 2 })).toEqual(VECTORS.B);
  });

  it.each([
    ['C, a COMMIT marker', '00000001', VECTORS.C],
    ['D, an ABORT marker', '00000000', VECTORS.D],
  ])('writes test vector %s', (_name, key, vector) => {
    const marker = { timestampMs: T0, key: hex(key), value: hex('000000000005') };
    const producer = { producerId: 4242, producerEpoch: 3, transactional: true, control: true };
    expect(encodeBatch([marker], { ...producer, baseOffset: 7, leaderEpoch: 0 })).toEqual(vector);
  });

  it('writes test vector F, as kafkajs sends it', () => {
    const timestampMs = maxTimestampOf(VECTORS.F, 0);
    const records: RecordInput[] = [
      { timestampMs, key: bytes('k'), value: bytes('v1'), headers: [{ key: 'h', value: bytes('x') }] },
      { timestampMs, key: null, value: bytes('v2') },
    ];
    expect(encodeBatch(records, { leaderEpoch: 0, producerEpoch: 0, baseSequence: 0 })).toEqual(VECTORS.F);
  });

  it('refuses to make a batch of nothing', async () => {
    expect(await reasonOf(() => encodeBatch([]))).toBe('INVALID_RECORD');
  });

  it('refuses timestamps that no reader could show', async () => {
    for (const timestampMs of [-2, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 8.64e15 + 1]) {
      expect(await reasonOf(() => encodeBatch([record('a', { timestampMs })]))).toBe('INVALID_TIMESTAMP');
    }
  });

  it('gives back what went in, whatever it is', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyRecord, { minLength: 1, maxLength: 40 }), async (records) => {
        const batch = encodeBatch(records);
        expect(checkBatch(batch, 0, batch.length)).toBeUndefined();
        expect(await readAll(batch)).toEqual(records.map(plain));
        expect(maxTimestampOf(batch, 0)).toBe(Math.max(...records.map((r) => r.timestampMs)));
      }),
      { numRuns: 300 },
    );
  });
});

describe('BatchBuilder', () => {
  it('builds what the broker accepts, and is then ready for the next batch', async () => {
    const builder = new BatchBuilder(1024);
    const limits = {
      maxBatchBytes: 1024,
      nowMs: T0,
      timestampAfterMaxMs: 10,
      timestampBeforeMaxMs: 10,
      logAppendTime: false,
    };
    for (const round of ['one', 'two', 'three']) {
      expect(builder.tryAppend(T0 + 5, bytes('k'), bytes(round))).toBe(true);
      expect(builder.tryAppend(T0, null, null)).toBe(true);
      const batch = builder.build();
      expect(validateForAppend(batch, limits)).toBeUndefined();
      expect((await readAll(batch)).map((r) => [r.offset, r.timestampMs, r.key, r.value])).toEqual([
        [0, T0 + 5, 'k', round],
        [1, T0, null, null],
      ]);
      expect(builder).toMatchObject({ recordCount: 0, sizeInBytes: RECORD_BATCH_OVERHEAD });
    }
  });

  it('does not touch a batch that it has handed out', async () => {
    const builder = new BatchBuilder(200);
    builder.tryAppend(T0, null, bytes('first'));
    const first = builder.build();
    builder.tryAppend(T0, null, bytes('other'));
    setLogAppendTime(builder.build(), 0, 1);
    expect((await readAll(first)).map((r) => r.value)).toEqual(['first']);
    expect(checkBatch(first, 0, first.length)).toBeUndefined();
  });

  it('copies what it takes', async () => {
    const value = bytes('before');
    const long = bytes('before'.repeat(20));
    const builder = new BatchBuilder(1024);
    builder.tryAppend(T0, value, long);
    value.fill('x');
    long.fill('x');
    expect(await readAll(builder.build())).toMatchObject([{ key: 'before', value: 'before'.repeat(20) }]);
  });

  it('always knows the exact size of its batch, and stays within its capacity', () => {
    fc.assert(
      fc.property(
        fc.array(anyRecord, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 61, max: 900 }),
        (records, capacity) => {
          const builder = new BatchBuilder(capacity);
          for (const { timestampMs, key, value, headers } of records) {
            const { recordCount, sizeInBytes } = builder;
            if (!builder.tryAppend(timestampMs, key, value, headers)) {
              expect(builder).toMatchObject({ recordCount, sizeInBytes });
              expect(recordCount).toBeGreaterThan(0);
              const batch = builder.build();
              expect(batch.length).toBe(sizeInBytes);
              expect(recordCountOf(batch, 0)).toBe(recordCount);
              // What did not fit must have had a reason not to.
              expect(
                sizeInBytes + encodeBatch([{ timestampMs, key, value, headers: headers ?? [] }]).length - 61 + 20,
              ).toBeGreaterThan(capacity);
              expect(builder.tryAppend(timestampMs, key, value, headers)).toBe(true);
            }
            if (builder.recordCount > 1) expect(builder.sizeInBytes).toBeLessThanOrEqual(capacity);
          }
          const size = builder.sizeInBytes;
          const batch = builder.build();
          expect(batch.length).toBe(size);
          expect(sizeInBytesOf(batch, 0)).toBe(size);
          expect(checkBatch(batch, 0, batch.length)).toBeUndefined();
        },
      ),
      { numRuns: 300 },
    );
  });

  it('fills its capacity to the last byte and no further', () => {
    const size = batchOf(['0123456789']).length - RECORD_BATCH_OVERHEAD;
    const exact = new BatchBuilder(RECORD_BATCH_OVERHEAD + 2 * size);
    const short = new BatchBuilder(RECORD_BATCH_OVERHEAD + 2 * size - 1);
    for (const [builder, second] of [
      [exact, true],
      [short, false],
    ] as const) {
      expect(builder.tryAppend(T0, null, bytes('0123456789'))).toBe(true);
      expect(builder.tryAppend(T0, null, bytes('0123456789'))).toBe(second);
    }
    expect(exact.sizeInBytes).toBe(RECORD_BATCH_OVERHEAD + 2 * size);
    expect(exact.tryAppend(T0, null, null)).toBe(false);
  });

  it('takes one record of any size when it is empty, and nothing beside it', async () => {
    const builder = new BatchBuilder(100);
    const large = Buffer.alloc(300_000, 'x');
    expect(builder.tryAppend(T0, null, large)).toBe(true);
    expect(builder.tryAppend(T0, null, null)).toBe(false);
    const batch = builder.build();
    expect((await readAll(batch))[0]?.value).toBe(large.toString('latin1'));
    expect(builder.tryAppend(T0, null, bytes('small'))).toBe(true);
  });

  it('takes memory as records come, not for its whole capacity', () => {
    const builder = new BatchBuilder(1024 * 1024);
    builder.tryAppend(T0, null, bytes('x'));
    // Small buffers are cut from Node's pool, of 8 or 64 KiB.
    expect(builder.build().buffer.byteLength).toBeLessThan(100 * 1024);
    for (let i = 0; i < 1_000; i++) builder.tryAppend(T0, null, Buffer.alloc(100));
    const batch = builder.build();
    expect(batch.buffer.byteLength).toBeLessThan(2.1 * batch.length);
    // A steady load finds its room at once.
    for (let i = 0; i < 1_000; i++) builder.tryAppend(T0, null, Buffer.alloc(100));
    expect(builder.build().buffer.byteLength).toBeLessThan(1.2 * batch.length);
  });

  it('closes a batch at a million records', () => {
    const builder = new BatchBuilder(64 * 1024 * 1024);
    let count = 0;
    while (builder.tryAppend(-1, null, null)) count++;
    expect(count).toBe(1_000_000);
    expect(recordCountOf(builder.build(), 0)).toBe(1_000_000);
  });

  it('does not build a batch of nothing', async () => {
    expect(await reasonOf(() => new BatchBuilder(100).build())).toBe('INTERNAL');
  });

  it('is unchanged by a record that it refuses', async () => {
    const builder = new BatchBuilder(200);
    builder.tryAppend(T0, null, bytes('kept'));
    await errorOf(() => builder.tryAppend(Number.NaN, null, bytes('bad')));
    expect(builder.tryAppend(T0, null, Buffer.alloc(200))).toBe(false);
    builder.tryAppend(T0 + 1, null, bytes('too'));
    expect((await readAll(builder.build())).map((r) => r.value)).toEqual(['kept', 'too']);
  });
});

const anyBytes = fc.oneof(
  fc.constant(null),
  fc.uint8Array({ maxLength: 40 }),
  fc.constantFrom(0, 31, 32, 63, 64, 127, 128, 1_000, 9_000, 70_000).map((length) => Buffer.alloc(length, 'z')),
);

const anyTimestamp = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: T0 - 1_000, max: T0 + 1_000 }) },
  fc.constantFrom(-1, 0, T0 - 2 ** 31, T0 + 2 ** 31, 8.64e15),
);

const anyHeader = fc.record({ key: fc.string({ unit: 'grapheme', maxLength: 12 }), value: anyBytes });

const anyRecord = fc.record(
  {
    timestampMs: anyTimestamp,
    key: anyBytes,
    value: anyBytes,
    headers: fc.array(anyHeader, { maxLength: 4 }),
  },
  { requiredKeys: ['timestampMs', 'key', 'value'] },
);

function plain(input: RecordInput, index: number): PlainRecord {
  return {
    offset: index,
    timestampMs: input.timestampMs,
    key: latin1(input.key),
    value: latin1(input.value),
    headers: (input.headers ?? []).map(({ key, value }) => [key, latin1(value)] as const),
  };
}
