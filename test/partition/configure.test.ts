/** Every value of a partition's configuration acts from its next use on. */
import { describe, expect, test } from 'vitest';
import { maxTimestampOf } from '../../src/batch/layout.js';
import { toOffset } from '../../src/core/types.js';
import { ManualClock } from '../support/manual-clock.js';
import { rejection } from '../support/rejection.js';
import { batchOf, CONFIG, keyedBatch, type OpenPartition, openPartition } from './support.js';

const NOW = 1_700_000_000_000;
const WRITTEN = { acks: 'written' } as const;

async function open(clock: ManualClock, overrides: Partial<typeof CONFIG> = {}): Promise<OpenPartition> {
  return await openPartition(overrides, (log) => log, undefined, clock);
}

describe('a changed configuration', () => {
  test('flush.ms acts on what waits for it already', async () => {
    const clock = new ManualClock(NOW);
    const { partition } = await open(clock, { flushMs: 1_000_000 });
    await partition.append([batchOf(['a'], NOW)], WRITTEN);
    expect(clock.nextTimerMs).toBe(1_000_000);
    partition.configure({ ...CONFIG, flushMs: 10 });
    expect([clock.timerCount, clock.nextTimerMs]).toEqual([1, 10]);
    clock.advance(10);
    await expect.poll(() => partition.highWatermark).toBe(1);
    partition.configure({ ...CONFIG, flushMs: 20 });
    expect(clock.timerCount).toBe(0);
    await partition.append([batchOf(['b'], NOW)], WRITTEN);
    expect(clock.nextTimerMs).toBe(20);
  });

  test('starts no timer on a closed partition', async () => {
    const clock = new ManualClock(NOW);
    const { partition } = await open(clock, { flushMs: 1000 });
    await partition.append([batchOf(['a'], NOW)], WRITTEN);
    await partition.close();
    partition.configure(CONFIG);
    expect(clock.timerCount).toBe(0);
  });

  test('a flush.ms beyond what a timer takes still waits', async () => {
    const clock = new ManualClock(NOW);
    const { partition } = await open(clock, { flushMs: Number.MAX_SAFE_INTEGER });
    await partition.append([batchOf(['a'], NOW)], WRITTEN);
    expect(clock.nextTimerMs).toBe(2 ** 31 - 1);
  });

  test('max.message.bytes and segment.bytes limit the next append', async () => {
    const { partition } = await open(new ManualClock(NOW));
    const batch = (): Buffer => batchOf(['x'.repeat(1000)], NOW);
    for (const limit of [{ maxMessageBytes: 1000 }, { segmentBytes: 1000 }]) {
      await partition.append([batch()], WRITTEN);
      partition.configure({ ...CONFIG, ...limit });
      await rejection(partition.append([batch()], WRITTEN), 'MESSAGE_TOO_LARGE');
      partition.configure(CONFIG);
    }
    expect(partition.logEndOffset).toBe(2);
  });

  test('segment.bytes decides when the next segment begins', async () => {
    const { partition, log } = await open(new ManualClock(NOW));
    for (let i = 0; i < 3; i++) await partition.append([batchOf(['x'.repeat(500)], NOW)], WRITTEN);
    expect(log.segments()).toHaveLength(1);
    partition.configure({ ...CONFIG, segmentBytes: 1000 });
    for (let i = 0; i < 3; i++) await partition.append([batchOf(['x'.repeat(500)], NOW)], WRITTEN);
    expect(log.segments()).toHaveLength(4);
  });

  test('the limits on timestamps judge the next append', async () => {
    const { partition } = await open(new ManualClock(NOW));
    await partition.append([batchOf(['a'], NOW + 1000)], WRITTEN);
    partition.configure({ ...CONFIG, timestampAfterMaxMs: 999 });
    await rejection(partition.append([batchOf(['a'], NOW + 1000)], WRITTEN), 'INVALID_TIMESTAMP');
    await partition.append([batchOf(['a'], NOW - 1000)], WRITTEN);
    partition.configure({ ...CONFIG, timestampBeforeMaxMs: 999 });
    await rejection(partition.append([batchOf(['a'], NOW - 1000)], WRITTEN), 'INVALID_TIMESTAMP');
  });

  test('the timestamp type acts on the next append, not on one that was accepted before', async () => {
    const { partition } = await open(new ManualClock(NOW));
    const accepted = partition.append([batchOf(['a'], NOW - 5)], WRITTEN);
    partition.configure({ ...CONFIG, logAppendTime: true });
    const next = partition.append([batchOf(['b'], NOW - 5)], WRITTEN);
    expect([(await accepted).logAppendTimeMs, (await next).logAppendTimeMs]).toEqual([-1, NOW]);
    const { chunks } = await partition.log.read(toOffset(0), toOffset(2), 1000);
    expect(chunks.map((chunk) => maxTimestampOf(chunk, 0))).toEqual([NOW - 5, NOW]);
  });

  test.each([{ retentionMs: 999 }, { retentionBytes: 0 }, { retentionRecords: 1 }])(
    'the limits of retention act at the next check: %o',
    async (limits) => {
      const clock = new ManualClock(NOW);
      const { partition, log } = await open(clock);
      await partition.append([batchOf(['a'], NOW)], { acks: 'durable' });
      await log.roll();
      await partition.append([batchOf(['b'], NOW + 1000)], { acks: 'durable' });
      clock.advance(1000);
      expect(partition.lifecycle.planRetention()).toBeUndefined();
      partition.configure({ ...CONFIG, ...limits });
      expect(partition.lifecycle.planRetention()?.segmentCount).toBe(1);
      partition.configure({ ...CONFIG, ...limits, cleanupDelete: false });
      expect(partition.lifecycle.planRetention()).toBeUndefined();
    },
  );

  test('cleanup.policy, dirty ratio and lags act at the next look of the cleaner', async () => {
    const clock = new ManualClock(NOW);
    const { partition, log } = await open(clock);
    await partition.append([keyedBatch([['k', 'v']], NOW)], { acks: 'durable' });
    await log.roll();
    clock.advance(1000);
    const compacted = { ...CONFIG, cleanupCompact: true };
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
    partition.configure(compacted);
    expect(partition.lifecycle.planCompaction()?.why).toBe('min.cleanable.dirty.ratio');
    partition.configure({ ...compacted, minCleanableDirtyRatio: 1 });
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
    partition.configure({ ...compacted, minCleanableDirtyRatio: 1, maxCompactionLagMs: 999 });
    expect(partition.lifecycle.planCompaction()?.why).toBe('max.compaction.lag.ms');
    partition.configure({ ...compacted, minCompactionLagMs: 1001 });
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
    partition.configure(CONFIG);
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
  });
});
