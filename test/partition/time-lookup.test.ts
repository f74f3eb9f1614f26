import { describe, expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import {
  BATCH_LENGTH_AT,
  LAST_OFFSET_DELTA_AT,
  LOG_OVERHEAD,
  MAX_TIMESTAMP_AT,
  RECORD_BATCH_OVERHEAD,
  RECORD_COUNT_AT,
  setLogAppendTime,
  writeCrc,
  writeInt32,
  writeInt64,
} from '../../src/batch/layout.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import { findNewestRecord, findRecordByTime } from '../../src/partition/time-lookup.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { fc } from '../support/properties.js';
import { CONFIG, overriding, TOPIC_ID } from './support.js';

interface Shape {
  /** Timestamps of the slots that still hold a record, from the first on; undefined: without records. */
  readonly times: readonly number[];
  /** Slots without a record behind those. */
  readonly holes?: number;
  /** What the header claims, where it is not the largest of `times`. */
  readonly claimed?: number;
  readonly valueBytes?: number;
  /** Every record carries this time instead. */
  readonly appendTime?: number;
}

/** A batch as compaction may leave it, at `baseOffset`. */
function batchAt(baseOffset: number, { times, holes = 0, claimed, valueBytes = 1, appendTime }: Shape): Buffer {
  const value = Buffer.alloc(valueBytes);
  const records = (times.length === 0 ? [-1] : times).map((timestampMs) => ({ timestampMs, key: null, value }));
  let batch = encodeBatch(records, { baseOffset });
  if (times.length === 0) batch = Buffer.from(batch.subarray(0, RECORD_BATCH_OVERHEAD));
  writeInt32(batch, BATCH_LENGTH_AT, batch.length - LOG_OVERHEAD);
  writeInt32(batch, RECORD_COUNT_AT, times.length);
  writeInt32(batch, LAST_OFFSET_DELTA_AT, times.length + holes - 1);
  if (claimed !== undefined) writeInt64(batch, MAX_TIMESTAMP_AT, claimed);
  writeCrc(batch, 0);
  if (appendTime !== undefined) setLogAppendTime(batch, 0, appendTime);
  return batch;
}

/** A log of batches of these shapes; 'roll' ends a segment. All of it is durable. */
async function logOf(...shapes: readonly (Shape | 'roll')[]): Promise<PartitionLog> {
  const engine = openMemoryEngine();
  const config = { ...CONFIG, segmentBytes: 1024 * 1024 * 1024 };
  const log = await engine.open({ topicId: TOPIC_ID, partition: 0 }, toEpoch(1), config);
  for (const shape of shapes) {
    if (shape === 'roll') await log.roll();
    else await log.append([batchAt(log.endOffset, shape)], log.endOffset);
  }
  await log.flush(log.endOffset);
  return log;
}

/** The log, with a list of what was read from it, in bytes. */
function counting(log: PartitionLog): { log: PartitionLog; reads: number[] } {
  const reads: number[] = [];
  const read: PartitionLog['read'] = async (from, to, maxBytes) => {
    const slice = await log.read(from, to, maxBytes);
    reads.push(slice.byteLength);
    return slice;
  };
  return { log: overriding(log, { read }), reads };
}

describe('the first record at or after a time', () => {
  test('a record deep in a large log costs one read of 64 KiB at the most', async () => {
    const shapes = Array.from({ length: 300 }, (_, i) => ({ times: [1000 + i], valueBytes: 10_000 }));
    const { log, reads } = counting(await logOf(...shapes));
    expect(await findRecordByTime(log, log.endOffset, 1200)).toEqual({ offset: 200, timestampMs: 1200 });
    expect(reads).toHaveLength(1);
    expect(reads[0]).toBeLessThanOrEqual(64 * 1024);
  });

  test('batches that claim the time without a record of it are passed over, in several reads', async () => {
    const claiming = Array.from({ length: 3000 }, () => ({ times: [1000], holes: 1, claimed: 5000 }));
    const { log, reads } = counting(await logOf({ times: [1000] }, ...claiming, { times: [4000, 6000, 7000] }));
    expect(await findRecordByTime(log, log.endOffset, 4500)).toEqual({ offset: 6002, timestampMs: 6000 });
    expect(reads.length).toBeGreaterThan(1);
    expect(Math.max(...reads)).toBeLessThanOrEqual(64 * 1024);
  });

  test('nothing is found when only an emptied batch claims the time', async () => {
    const log = await logOf({ times: [1000] }, { times: [], holes: 1, claimed: 5000 }, { times: [2000] });
    expect(await findRecordByTime(log, log.endOffset, 3000)).toBeUndefined();
  });

  test('what lies at or above the high watermark is not found', async () => {
    const log = await logOf({ times: [1000] }, { times: [2000] });
    expect(await findRecordByTime(log, toOffset(1), 1500)).toBeUndefined();
    expect(await findRecordByTime(log, toOffset(2), 1500)).toEqual({ offset: 1, timestampMs: 2000 });
  });

  test('what lies below the log start is not found, in the middle of a batch too', async () => {
    const log = await logOf({ times: [5000, 1000, 6000] }, { times: [7000] });
    await log.trim(toOffset(1));
    expect(await findRecordByTime(log, log.endOffset, 2000)).toEqual({ offset: 2, timestampMs: 6000 });
    await log.trim(toOffset(3));
    expect(await findRecordByTime(log, log.endOffset, 2000)).toEqual({ offset: 3, timestampMs: 7000 });
  });

  test('with LogAppendTime the time of the append counts', async () => {
    const log = await logOf({ times: [1, 2], appendTime: 1000 }, { times: [9, 9], appendTime: 2000 });
    expect(await findRecordByTime(log, log.endOffset, 1500)).toEqual({ offset: 2, timestampMs: 2000 });
    expect(await findRecordByTime(log, log.endOffset, 5)).toEqual({ offset: 0, timestampMs: 1000 });
  });
});

describe('the newest record', () => {
  test('is found with one batch read where it is still there', async () => {
    const { log, reads } = counting(await logOf({ times: [1000] }, { times: [5000, 9000, 9000] }, { times: [2000] }));
    expect(await findNewestRecord(log, log.endOffset)).toEqual({ offset: 2, timestampMs: 9000 });
    expect(reads).toHaveLength(1);
  });

  test('is the newest that is left when compaction has emptied the batch that claims more', async () => {
    const log = await logOf(
      { times: [3000] },
      { times: [], holes: 1, claimed: 9000 },
      'roll',
      { times: [1000, 4000, 2000] },
      'roll',
      { times: [3500] },
    );
    expect(await findNewestRecord(log, log.endOffset)).toEqual({ offset: 3, timestampMs: 4000 });
  });

  test('is searched in no segment that cannot hold it', async () => {
    const large = { times: [100], valueBytes: 500_000 };
    const { log, reads } = counting(
      await logOf(
        large,
        large,
        large,
        'roll',
        { times: [], holes: 1, claimed: 9000 },
        { times: [4000] },
        'roll',
        large,
      ),
    );
    expect(await findNewestRecord(log, log.endOffset)).toEqual({ offset: 4, timestampMs: 4000 });
    expect(reads.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(1000);
  });

  test('is not one below the log start, nor one at or above the high watermark', async () => {
    const log = await logOf({ times: [9000, 1000, 2000] }, { times: [1500] }, { times: [8000] });
    await log.trim(toOffset(1));
    expect(await findNewestRecord(log, toOffset(4))).toEqual({ offset: 2, timestampMs: 2000 });
  });

  test('is none where no record has a timestamp', async () => {
    const log = await logOf({ times: [-1] }, { times: [], holes: 1, claimed: 5000 });
    expect(await findNewestRecord(log, log.endOffset)).toBeUndefined();
    expect(await findNewestRecord(await logOf(), toOffset(0))).toBeUndefined();
  });
});

const time = fc.integer({ min: -1, max: 12 });
const shape: fc.Arbitrary<Shape | 'roll'> = fc.oneof(
  { weight: 1, arbitrary: fc.constant('roll' as const) },
  {
    weight: 4,
    arbitrary: fc
      .record({
        times: fc.array(time, { maxLength: 3 }),
        holes: fc.integer({ min: 1, max: 3 }),
        extra: fc.integer({ min: 0, max: 4 }),
        appendTime: fc.option(fc.nat({ max: 12 }), { nil: undefined, freq: 4 }),
      })
      .map(({ times, holes, extra, appendTime }) => {
        const claimed = Math.max(-1, ...times) + extra;
        return appendTime === undefined ? { times, holes, claimed } : { times, holes, appendTime };
      }),
  },
);

test('both lookups agree with a look at every record, whatever is out of order, missing or emptied', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(shape, { maxLength: 10 }),
      fc.nat({ max: 30 }),
      fc.nat({ max: 10 }),
      time,
      async (shapes, start, unstable, wanted) => {
        const log = await logOf(...shapes);
        const bases: number[] = [];
        const records: { offset: number; timestampMs: number }[] = [];
        let at = 0;
        for (const item of shapes) {
          if (item === 'roll') continue;
          bases.push(at);
          for (const [i, timestampMs] of item.times.entries()) {
            records.push({ offset: at + i, timestampMs: item.appendTime ?? timestampMs });
          }
          at += item.times.length + (item.holes ?? 0);
        }
        await log.trim(toOffset(Math.min(start, at)));
        // The high watermark never lies inside of a batch.
        const upTo = toOffset(Math.max(log.startOffset, [...bases, at].at(-1 - unstable) ?? 0));
        const readable = records.filter(({ offset }) => offset >= log.startOffset && offset < upTo);
        const byTime = readable.find(({ timestampMs }) => timestampMs >= wanted);
        const largest = Math.max(-1, ...readable.map(({ timestampMs }) => timestampMs));
        const newest = readable.find(({ timestampMs }) => timestampMs === largest && largest >= 0);
        const isWholeBatches = bases.includes(upTo) || upTo === at;
        fc.pre(isWholeBatches);
        expect(await findRecordByTime(log, upTo, wanted)).toEqual(byTime);
        expect(await findNewestRecord(log, upTo)).toEqual(newest);
      },
    ),
  );
});
