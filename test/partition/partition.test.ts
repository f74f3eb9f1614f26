import { describe, expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { baseOffsetOf, leaderEpochOf, maxTimestampOf } from '../../src/batch/layout.js';
import { openRecords } from '../../src/batch/records.js';
import { checkBatch } from '../../src/batch/validate.js';
import { LogError } from '../../src/core/errors.js';
import { toOffset } from '../../src/core/types.js';
import { AppendLane } from '../../src/partition/append-lane.js';
import type { Partition } from '../../src/partition/partition.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { ManualClock } from '../support/manual-clock.js';
import { recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { GatedLog } from './gated-log.js';
import { batchOf, openPartition, overriding } from './support.js';

const DURABLE = { acks: 'durable' } as const;
const WRITTEN = { acks: 'written' } as const;

async function valuesOf(partition: Partition, from = 0): Promise<string[]> {
  const values: string[] = [];
  let offset = toOffset(from);
  for (;;) {
    const slice = await partition.read(offset, 1024);
    if (slice.byteLength === 0) return values;
    for (const chunk of slice.chunks) {
      const cursor = await openRecords(chunk);
      while (cursor.next()) values.push(`${cursor.offset}:${cursor.value}`);
    }
    offset = slice.nextOffset;
  }
}

describe('appending', () => {
  test('offsets are dense and follow the order of the calls (invariant 4)', async () => {
    const { partition } = await openPartition();
    const results = await Promise.all(
      ['a', 'b', 'c'].map((value) => partition.append([batchOf([value, `${value}2`])], DURABLE)),
    );
    expect(results.map((result) => [result.baseOffset, result.lastOffset])).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
    ]);
    expect(await valuesOf(partition)).toEqual(['0:a', '1:a2', '2:b', '3:b2', '4:c', '5:c2']);
  });

  test('every batch of a request gets its own offset (invariant 4)', async () => {
    const { partition } = await openPartition();
    const batches = [['a', 'b'], ['c'], ['d', 'e', 'f']].map((values) => batchOf(values));
    expect(await partition.append(batches, DURABLE)).toMatchObject({ baseOffset: 0, lastOffset: 5 });
    expect(await valuesOf(partition)).toEqual(['0:a', '1:b', '2:c', '3:d', '4:e', '5:f']);
  });

  test('only base offset and leader epoch of a batch are changed', async () => {
    const { partition } = await openPartition();
    await partition.append([batchOf(['first'])], DURABLE);
    const sent = batchOf(['second']);
    const before = Buffer.from(sent);
    await partition.append([sent], DURABLE);
    const [stored] = (await partition.read(toOffset(1), 1024)).chunks;
    if (stored === undefined) throw new Error('nothing was read');
    expect(baseOffsetOf(stored, 0)).toBe(1);
    expect(leaderEpochOf(stored, 0)).toBe(1);
    expect(stored.subarray(8, 12)).toEqual(before.subarray(8, 12));
    expect(stored.subarray(16)).toEqual(before.subarray(16));
  });

  test('everything that waits is written with one append to the log', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    await Promise.all(Array.from({ length: 50 }, (_, i) => partition.append([batchOf([`${i}`])], WRITTEN)));
    expect(gated.appends).toBe(1);
  });

  test('an append with a wrong expected offset changes nothing and tells the right one', async () => {
    const { partition } = await openPartition();
    await partition.append([batchOf(['a'])], DURABLE);
    const error = await rejection(
      partition.append([batchOf(['b'])], { ...DURABLE, expectedOffset: 0 }),
      'WRONG_OFFSET',
    );
    expect(error.metadata).toMatchObject({ expected_offset: '0', log_end_offset: '1' });
    expect(partition.logEndOffset).toBe(1);
    expect(await partition.append([batchOf(['b'])], { ...DURABLE, expectedOffset: 1 })).toMatchObject({
      baseOffset: 1,
    });
  });

  test('a LogAppendTime topic stamps its own time and a new CRC', async () => {
    const { partition } = await openPartition({ logAppendTime: true });
    const before = Date.now();
    const result = await partition.append([batchOf(['old'], 1000)], DURABLE);
    expect(result.logAppendTimeMs).toBeGreaterThanOrEqual(before);
    const [stored] = (await partition.read(toOffset(0), 1024)).chunks;
    if (stored === undefined) throw new Error('nothing was read');
    expect(maxTimestampOf(stored, 0)).toBe(result.logAppendTimeMs);
    expect(checkBatch(stored, 0, stored.length)).toBeUndefined();
  });
});

describe('what is refused', () => {
  test.each([
    ['CORRUPT_MESSAGE', () => flip(batchOf(['x']), 65)],
    ['CORRUPT_MESSAGE', () => flip(batchOf(['x']), 16)],
    ['CORRUPT_MESSAGE', () => batchOf(['x']).subarray(0, 60)],
    ['CORRUPT_MESSAGE', () => Buffer.concat([batchOf(['x']), Buffer.alloc(3)])],
    ['MESSAGE_TOO_LARGE', () => batchOf(['x'.repeat(70_000)])],
    ['INVALID_TIMESTAMP', () => batchOf(['x'], Date.now() + 2 * 3_600_000)],
    ['INVALID_RECORD', () => encodeBatch([record('x')], { producerId: 7, producerEpoch: 0 })],
    ['INVALID_RECORD', () => encodeBatch([record('x')], { transactional: true })],
    ['INVALID_RECORD', () => encodeBatch([record('x')], { control: true })],
  ] as const)('%s, and nothing is appended (%#)', async (reason, make) => {
    const { partition } = await openPartition();
    await rejection(partition.append([make()], DURABLE), reason);
    expect(partition.logEndOffset).toBe(0);
    await partition.append([batchOf(['good'])], DURABLE);
    expect(await valuesOf(partition)).toEqual(['0:good']);
  });

  test('one bad batch refuses the whole request', async () => {
    const { partition } = await openPartition();
    await rejection(partition.append([batchOf(['good']), flip(batchOf(['bad']), 65)], DURABLE), 'CORRUPT_MESSAGE');
    expect(partition.logEndOffset).toBe(0);
  });

  test('a request without a batch', async () => {
    const { partition } = await openPartition();
    await rejection(partition.append([], DURABLE), 'INVALID_RECORD');
  });
});

function record(value: string): { timestampMs: number; key: null; value: Buffer } {
  return { timestampMs: Date.now(), key: null, value: Buffer.from(value) };
}

function flip(batch: Buffer, at: number): Buffer {
  batch[at] = (batch[at] ?? 0) ^ 1;
  return batch;
}

describe('acknowledgement', () => {
  test('a durable append is acknowledged only after the sync, a written one before it (invariants 1, 2)', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    let durable = false;
    const waiting = partition.append([batchOf(['d'])], DURABLE).then(() => {
      durable = true;
    });
    await partition.append([batchOf(['w'])], WRITTEN);
    expect(gated.flushes).toBe(1);
    expect(durable).toBe(false);
    expect(partition.highWatermark).toBe(0);
    gated.gates[0]?.open();
    await waiting;
    expect(partition.highWatermark).toBe(2);
  });

  test('appends that arrive during a sync share the next one', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const first = partition.append([batchOf(['1'])], DURABLE);
    await until(() => gated.flushes === 1, 'the first sync began');
    let acknowledged = 0;
    const later = Array.from({ length: 20 }, async (_, i) => {
      await partition.append([batchOf([`${i}`])], DURABLE);
      acknowledged++;
    });
    await until(() => gated.appends === 2, 'the later appends were written');
    gated.gates[0]?.open();
    await first;
    await until(() => gated.flushes === 2, 'the second sync began');
    expect(acknowledged).toBe(0);
    gated.gates[1]?.open();
    await Promise.all(later);
    expect(gated.flushes).toBe(2);
  });

  test('a failed sync acknowledges nothing and is not tried again (invariant 3)', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const waiting = partition.append([batchOf(['d'])], DURABLE);
    await until(() => gated.flushes === 1, 'the sync began');
    gated.gates[0]?.fail(new LogError('STORAGE_ERROR', 'EIO'));
    const error = await rejection(waiting, 'STORAGE_ERROR');
    expect(error.outcome).toBe('unknown');
    expect(gated.flushes).toBe(1);
    expect(partition.highWatermark).toBe(0);
  });

  test('written data is synced by itself after flush.ms', async () => {
    const { partition } = await openPartition({ flushMs: 5 });
    await partition.append([batchOf(['w'])], WRITTEN);
    await until(() => partition.highWatermark === 1, 'the sync by time');
  });

  test('written data is synced at once while a reader listens at the tail', async () => {
    const { partition } = await openPartition({ flushMs: 1_000_000 });
    let woken = 0;
    const stop = partition.onAdvance(() => woken++);
    await partition.append([batchOf(['w'])], WRITTEN);
    await until(() => woken === 1, 'the reader was woken');
    expect(partition.highWatermark).toBe(1);
    stop();
  });
});

test('failing appends are logged once, and so is their end', async () => {
  const gated = new GatedLog();
  const lines: string[] = [];
  const log = (_fields: object, message: string): void => void lines.push(message);
  const logger = { debug: log, info: log, warn: log, error: log };
  const { partition } = await openPartition({}, (inner) => gated.wrap(inner), logger);
  for (let i = 0; i < 3; i++) {
    gated.failNextAppend = new LogError('STORAGE_FULL', 'no room');
    await rejection(partition.append([batchOf(['x'])], WRITTEN), 'STORAGE_FULL');
  }
  await partition.append([batchOf(['x'])], WRITTEN);
  await partition.append([batchOf(['x'])], WRITTEN);
  expect(lines).toEqual(['appends fail', 'appends work again']);
});

test('a defect keeps nobody waiting: what was to be written is refused, and so is all that comes', async () => {
  const logger = recordingLogger();
  const wrap = (log: PartitionLog): PartitionLog =>
    overriding(log, {
      get epoch(): never {
        throw new Error('of the test');
      },
    });
  const { partition } = await openPartition({}, wrap, logger);
  const appends = [WRITTEN, DURABLE].map((options) =>
    rejection(partition.append([batchOf(['x'])], options), 'INTERNAL'),
  );
  for (const error of await Promise.all(appends)) expect(error).toMatchObject({ outcome: 'unknown', retryable: false });
  await rejection(partition.append([batchOf(['x'])], WRITTEN), 'INTERNAL');
  expect(logger.lines.map(({ level }) => level)).toEqual(['error']);
  await partition.close();
});

describe('a sync for which there is no file handle', () => {
  const NO_HANDLE = new LogError('RESOURCE_LIMIT', 'no handle', { outcome: 'unknown' });

  test('fails those who wait for it, and is tried again a second later, whatever flush.ms says', async () => {
    const clock = new ManualClock(Date.now());
    const gated = new GatedLog();
    const logger = recordingLogger();
    const wrap = (log: PartitionLog): PartitionLog => gated.wrap(log);
    const { partition } = await openPartition({ flushMs: 1_000_000 }, wrap, logger, clock);
    const append = partition.append([batchOf(['x'])], DURABLE);
    await until(() => gated.flushes === 1, 'the sync has begun');
    gated.gates[0]!.fail(NO_HANDLE);
    expect(await rejection(append, 'RESOURCE_LIMIT')).toMatchObject({ outcome: 'unknown' });
    expect(logger.lines.map(({ level }) => level)).toEqual(['warn']);
    await until(() => clock.nextTimerMs === 1000, 'the next one is planned');
    clock.advance(1000);
    await until(() => gated.flushes === 2, 'the next one has begun');
    gated.gates[1]!.open();
    await until(() => partition.highWatermark === 1, 'the record is durable');
  });

  test('leaves no timer behind when the partition closes', async () => {
    const clock = new ManualClock(Date.now());
    const gated = new GatedLog();
    const wrap = (log: PartitionLog): PartitionLog => gated.wrap(log);
    const { partition } = await openPartition({ flushMs: 1_000_000 }, wrap, recordingLogger(), clock);
    await partition.append([batchOf(['x'])], WRITTEN);
    const closed = partition.close();
    await until(() => gated.flushes === 1, 'the last sync has begun');
    gated.gates[0]!.fail(NO_HANDLE);
    await closed;
    expect(clock.timerCount).toBe(0);
  });
});

describe('order within a stream', () => {
  test('after a failed append the later ones of its lane are not tried, those of others are', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const lane = new AppendLane();
    gated.failNextAppend = new LogError('STORAGE_FULL', 'no room');
    const failed = partition.append([batchOf(['1'])], { ...WRITTEN, place: lane.enter() });
    await rejection(failed, 'STORAGE_FULL');
    const later = await rejection(
      partition.append([batchOf(['2'])], { ...WRITTEN, place: lane.enter() }),
      'PRECEDING_APPEND_FAILED',
    );
    expect(later.metadata).toMatchObject({ cause_reason: 'STORAGE_FULL' });
    expect(later.outcome).toBe('none');
    await partition.append([batchOf(['other stream'])], WRITTEN);
    expect(partition.logEndOffset).toBe(1);
  });

  test('an invalid append stops those behind it and none before it', async () => {
    const { partition } = await openPartition();
    const lane = new AppendLane();
    const good = partition.append([batchOf(['1'])], { ...WRITTEN, place: lane.enter() });
    const bad = partition.append([flip(batchOf(['2']), 65)], { ...WRITTEN, place: lane.enter() });
    const after = partition.append([batchOf(['3'])], { ...WRITTEN, place: lane.enter() });
    await rejection(bad, 'CORRUPT_MESSAGE');
    await rejection(after, 'PRECEDING_APPEND_FAILED');
    expect((await good).baseOffset).toBe(0);
    expect(partition.logEndOffset).toBe(1);
  });
});

describe('reading', () => {
  test('an offset below the start or above the end is refused with the valid range', async () => {
    const { partition, log } = await openPartition();
    for (const value of ['a', 'b', 'c']) await partition.append([batchOf([value])], DURABLE);
    await log.trim(toOffset(1));
    const below = await rejection(partition.read(toOffset(0), 100), 'OFFSET_OUT_OF_RANGE');
    expect(below.metadata).toMatchObject({ log_start_offset: '1', high_watermark: '3', offset: '0' });
    expect(below.message).toContain('deleted');
    const above = await rejection(partition.read(toOffset(4), 100), 'OFFSET_OUT_OF_RANGE');
    expect(above.message).toContain('ends at 3');
    expect((await partition.read(toOffset(3), 100)).byteLength).toBe(0);
  });

  test('records above the high watermark are not served', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({ flushMs: 1_000_000 }, (log) => gated.wrap(log));
    await partition.append([batchOf(['unsynced'])], WRITTEN);
    expect(partition.logEndOffset).toBe(1);
    expect((await partition.read(toOffset(0), 100)).byteLength).toBe(0);
  });

  test('a time is found at the record, not at its batch, and timestamps may be out of order', async () => {
    const { partition } = await openPartition();
    await partition.append([batchOf(['a', 'b', 'c'], 1000)], DURABLE);
    await partition.append([batchOf(['late'], 500)], DURABLE);
    await partition.append([batchOf(['d'], 2000)], DURABLE);
    expect(await partition.findByTime(1001)).toEqual({ offset: 1, timestampMs: 1001 });
    expect(await partition.findByTime(400)).toEqual({ offset: 0, timestampMs: 1000 });
    expect(await partition.findByTime(1500)).toEqual({ offset: 4, timestampMs: 2000 });
    expect(await partition.findByTime(2001)).toBeUndefined();
  });
});

describe('closing', () => {
  test('what was accepted is finished and synced, what comes later is refused', async () => {
    const { partition } = await openPartition({ flushMs: 1_000_000 });
    const durable = partition.append([batchOf(['d'])], DURABLE);
    const written = partition.append([batchOf(['w'])], WRITTEN);
    const closing = partition.close();
    await rejection(partition.append([batchOf(['late'])], WRITTEN), 'UNKNOWN_TOPIC_OR_PARTITION');
    await Promise.all([durable, written, closing]);
    expect(partition.highWatermark).toBe(2);
    await partition.close();
  });
});
