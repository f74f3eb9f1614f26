import { describe, expect, test } from 'vitest';
import { type Offset, toOffset } from '../../src/core/types.js';
import type { Partition } from '../../src/partition/partition.js';
import { planRetention, type RetentionInput, type RetentionLimits } from '../../src/partition/retention.js';
import type { SegmentInfo } from '../../src/storage/engine.js';
import { ManualClock } from '../support/manual-clock.js';
import { fc } from '../support/properties.js';
import { recordingLogger } from '../support/recording-logger.js';
import { batchOf, CONFIG, keyedBatch, openPartition } from './support.js';

const NOW = 1_700_000_000_000;
const DAY = 86_400_000;
const WRITTEN = { acks: 'written' } as const;
const DURABLE = { acks: 'durable' } as const;

const NEVER: RetentionLimits = { cleanupDelete: true, retentionMs: -1, retentionBytes: -1, retentionRecords: -1 };

/** Segments of 10 offsets and 100 bytes each, one for each age in ms; undefined: without timestamps. */
function segmentsOf(...ages: (number | undefined)[]): SegmentInfo[] {
  return ages.map((age, i) => ({
    baseOffset: toOffset(i * 10),
    nextOffset: toOffset(i * 10 + 10),
    sizeInBytes: 100,
    firstTimestamp: age === undefined ? -1 : NOW - age,
    maxTimestamp: age === undefined ? -1 : NOW - age,
    createdMs: NOW - DAY,
    modifiedMs: NOW - DAY,
    hasProducers: false,
  }));
}

function emptyAt(offset: number): SegmentInfo {
  const at = toOffset(offset);
  const none = { sizeInBytes: 0, firstTimestamp: -1, maxTimestamp: -1, createdMs: 0, modifiedMs: 0 };
  return { baseOffset: at, nextOffset: at, ...none, hasProducers: false };
}

function planOf(
  segments: readonly SegmentInfo[],
  limits: Partial<RetentionLimits>,
  at: { logStartOffset?: number; lastStableOffset?: number } = {},
): ReturnType<typeof planRetention> {
  const end = segments.at(-1)?.nextOffset ?? 0;
  return planRetention({
    segments,
    logStartOffset: toOffset(at.logStartOffset ?? 0),
    lastStableOffset: toOffset(at.lastStableOffset ?? end),
    limits: { ...NEVER, ...limits },
    nowMs: NOW,
  });
}

describe('the policy', () => {
  test('a segment goes when its largest timestamp is older than retention.ms, and not a ms before', () => {
    const segments = segmentsOf(1001, 1000, 0);
    const plan = planOf(segments, { retentionMs: 1000 });
    expect(plan).toMatchObject({ newStartOffset: 10, segmentCount: 1, rollFirst: false, nextDueMs: NOW + 1 });
    expect([...plan.reasons]).toEqual([['retention.ms', 1]]);
  });

  test('a segment without timestamps counts by its last append', () => {
    const segments = segmentsOf(undefined, 0);
    expect(planOf(segments, { retentionMs: DAY - 1 }).segmentCount).toBe(1);
    expect(planOf(segments, { retentionMs: DAY }).segmentCount).toBe(0);
  });

  test('a record dated in the future keeps its segment and all after it', () => {
    expect(planOf(segmentsOf(5000, -5000, 5000, 0), { retentionMs: 1000 }).segmentCount).toBe(1);
  });

  test('by size, the rest still holds retention.bytes', () => {
    const segments = segmentsOf(0, 0, 0, 0);
    expect(planOf(segments, { retentionBytes: 200 })).toMatchObject({ newStartOffset: 20, segmentCount: 2 });
    expect(planOf(segments, { retentionBytes: 201 })).toMatchObject({ newStartOffset: 10, segmentCount: 1 });
  });

  test('by records, the rest still spans retention.records', () => {
    const segments = segmentsOf(0, 0, 0, 0);
    expect(planOf(segments, { retentionRecords: 20 })).toMatchObject({ newStartOffset: 20, segmentCount: 2 });
    expect(planOf(segments, { retentionRecords: 21 })).toMatchObject({ newStartOffset: 10, segmentCount: 1 });
  });

  test('nothing at or above the last stable offset goes', () => {
    const segments = segmentsOf(5000, 5000, 5000);
    expect(planOf(segments, { retentionMs: 1000 }, { lastStableOffset: 19 }).segmentCount).toBe(1);
  });

  test('the last segment must be rolled first, and only when all of it has expired', () => {
    const all = planOf(segmentsOf(5000, 5000), { retentionMs: 1000 });
    expect(all).toMatchObject({ newStartOffset: 10, segmentCount: 1, rollFirst: true });
    expect(planOf(segmentsOf(5000, 0), { retentionMs: 1000 }).rollFirst).toBe(false);
    const emptyLast = planOf([...segmentsOf(5000), emptyAt(10)], { retentionMs: 1000 });
    expect(emptyLast).toMatchObject({ newStartOffset: 10, segmentCount: 1, rollFirst: false });
  });

  test('without delete in cleanup.policy only what lies below the log start goes', () => {
    const limits = { cleanupDelete: false, retentionMs: 0, retentionBytes: 0, retentionRecords: 0 };
    expect(planOf(segmentsOf(5000, 5000), limits).segmentCount).toBe(0);
    const plan = planOf(segmentsOf(5000, 5000, 5000), limits, { logStartOffset: 15 });
    expect(plan).toMatchObject({ newStartOffset: 15, segmentCount: 1, rollFirst: false });
    expect([...plan.reasons]).toEqual([['log start offset', 1]]);
    expect(planOf(segmentsOf(5000), limits, { logStartOffset: 10 }).rollFirst).toBe(true);
  });
});

/** What may go, said naively: each rule by itself over the segments that are left. */
function naiveKeep({ segments, logStartOffset, lastStableOffset, limits, nowMs }: RetentionInput): SegmentInfo[] {
  let left = [...segments];
  const end = (left.at(-1) as SegmentInfo).nextOffset;
  const mayDrop = (): boolean => {
    const first = left[0];
    if (first === undefined) return false;
    const next = left[1]?.baseOffset ?? first.nextOffset;
    if (next > lastStableOffset || (left.length === 1 && first.sizeInBytes === 0)) return false;
    if (next <= logStartOffset) return true;
    if (!limits.cleanupDelete) return false;
    const restBytes = left.slice(1).reduce((sum, segment) => sum + segment.sizeInBytes, 0);
    const newest = first.maxTimestamp === -1 ? first.modifiedMs : first.maxTimestamp;
    return (
      (limits.retentionMs !== -1 && nowMs - newest > limits.retentionMs) ||
      (limits.retentionBytes !== -1 && restBytes >= limits.retentionBytes) ||
      (limits.retentionRecords !== -1 && end - next >= limits.retentionRecords)
    );
  };
  while (mayDrop()) left = left.slice(1);
  return left;
}

const limit = (max: number): fc.Arbitrary<number> => fc.oneof(fc.constant(-1), fc.integer({ min: 0, max }));

const INPUT: fc.Arbitrary<RetentionInput> = fc
  .record({
    sizes: fc.array(
      fc.record({
        offsets: fc.integer({ min: 1, max: 20 }),
        bytes: fc.integer({ min: 1, max: 50 }),
        age: fc.option(fc.integer({ min: -50, max: 100 })),
        idleMs: fc.integer({ min: 0, max: 100 }),
      }),
      { minLength: 1, maxLength: 8 },
    ),
    base: fc.integer({ min: 0, max: 30 }),
    emptyLast: fc.boolean(),
    start: fc.nat({ max: 200 }),
    durable: fc.nat({ max: 200 }),
    limits: fc.record({
      cleanupDelete: fc.boolean(),
      retentionMs: limit(100),
      retentionBytes: limit(200),
      retentionRecords: limit(100),
    }),
  })
  .map(({ sizes, base, emptyLast, start, durable, limits }) => {
    let at = base;
    const segments = sizes.map(({ offsets, bytes, age, idleMs }): SegmentInfo => {
      const baseOffset = toOffset(at);
      at += offsets;
      const time = age === null ? -1 : NOW - age;
      const modifiedMs = NOW - idleMs;
      const times = { firstTimestamp: time, maxTimestamp: time, createdMs: modifiedMs, modifiedMs };
      return { baseOffset, nextOffset: toOffset(at), sizeInBytes: bytes, ...times, hasProducers: false };
    });
    if (emptyLast) segments.push(emptyAt(at));
    const logStartOffset = toOffset(Math.min(base + start, at));
    const lastStableOffset: Offset = toOffset(Math.min(logStartOffset + durable, at));
    return { segments, logStartOffset, lastStableOffset, limits, nowMs: NOW };
  });

test('retention never removes more than the policy says, never the active segment unless rolled (invariant 16)', () => {
  fc.assert(
    fc.property(INPUT, (input) => {
      const { segments, logStartOffset } = input;
      const plan = planRetention(input);
      const kept = naiveKeep(input);
      const droppedCount = segments.length - kept.length;
      expect(plan.rollFirst).toBe(kept.length === 0);
      expect(plan.segmentCount).toBe(Math.min(droppedCount, segments.length - 1));
      expect([...plan.reasons.values()].reduce((sum, count) => sum + count, 0)).toBe(plan.segmentCount);
      expect(plan.newStartOffset).toBe(Math.max(logStartOffset, segments[plan.segmentCount]?.baseOffset ?? -1));
    }),
  );
});

test('nothing more is due before the time that a plan names, when nothing but time changes', () => {
  fc.assert(
    fc.property(INPUT, fc.nat({ max: 1_000_000 }), (drawn, retentionMs) => {
      const input = { ...drawn, limits: { ...drawn.limits, cleanupDelete: true, retentionMs } };
      const plan = planRetention(input);
      fc.pre(Number.isFinite(plan.nextDueMs) && plan.nextDueMs > NOW);
      const before = planRetention({ ...input, nowMs: plan.nextDueMs - 1 });
      expect(before.segmentCount).toBe(plan.segmentCount);
      expect(before.rollFirst).toBe(plan.rollFirst);
    }),
  );
});

async function retain(partition: Partition): Promise<boolean> {
  const plan = partition.lifecycle.planRetention();
  if (plan === undefined) return false;
  return (await partition.lifecycle.applyRetention(plan)) !== undefined;
}

describe('its execution', () => {
  test('segments expire with time; the last one is rolled when all has expired, and the end stays', async () => {
    const clock = new ManualClock(NOW);
    const logger = recordingLogger();
    const { partition, log } = await openPartition({ retentionMs: 1000 }, (l) => l, logger, clock);
    await partition.append([batchOf(['a'], NOW)], DURABLE);
    await log.roll();
    await partition.append([batchOf(['b'], NOW + 500)], DURABLE);
    expect(await retain(partition)).toBe(false);
    clock.advance(1001);
    expect(await retain(partition)).toBe(true);
    expect([partition.logStartOffset, log.segments().length]).toEqual([1, 1]);
    expect(await retain(partition)).toBe(false);
    clock.advance(500);
    expect(await retain(partition)).toBe(true);
    expect([partition.logStartOffset, partition.logEndOffset, log.stats().sizeInBytes]).toEqual([2, 2, 0]);
    expect(await retain(partition)).toBe(false);
    expect((await partition.append([batchOf(['c'], clock.now())], DURABLE)).baseOffset).toBe(2);
    const lines = logger.lines.filter(({ message }) => message === 'retention deleted segments');
    expect(lines.map(({ fields }) => fields)).toMatchObject([
      { topic: 't', partition: 0, oldStartOffset: 0, newStartOffset: 1, segmentCount: 1, why: { 'retention.ms': 1 } },
      { oldStartOffset: 1, newStartOffset: 2, segmentCount: 1, why: { 'retention.ms': 1 } },
    ]);
  });

  test('records that arrive while the last segment is rolled are judged anew', async () => {
    const clock = new ManualClock(NOW);
    const { partition, log } = await openPartition({ retentionMs: 1000 }, (l) => l, undefined, clock);
    await partition.append([batchOf(['old'], NOW)], DURABLE);
    clock.advance(1001);
    const plan = partition.lifecycle.planRetention();
    if (plan === undefined) throw new Error('nothing is due');
    expect(plan.rollFirst).toBe(true);
    await partition.append([batchOf(['new'], clock.now())], DURABLE);
    expect(await partition.lifecycle.applyRetention(plan)).toBeUndefined();
    expect([partition.logStartOffset, partition.logEndOffset]).toEqual([0, 2]);
    expect(log.segments().map(({ baseOffset }) => baseOffset)).toEqual([0, 2]);
  });

  test('what is not durable stays', async () => {
    const clock = new ManualClock(NOW);
    const { partition } = await openPartition({ retentionMs: 1000, flushMs: 5000 }, (l) => l, undefined, clock);
    await partition.append([batchOf(['a'], NOW)], WRITTEN);
    clock.advance(2000);
    expect(await retain(partition)).toBe(false);
    clock.advance(3000);
    await expect.poll(() => partition.highWatermark).toBe(1);
    expect(await retain(partition)).toBe(true);
  });

  test('records deleted on request give back their space at once, on a compacted topic too', async () => {
    const { partition, log } = await openPartition({ cleanupDelete: false, cleanupCompact: true });
    await partition.append([keyedBatch([['k', 'v']])], DURABLE);
    expect(await retain(partition)).toBe(false);
    await partition.deleteRecords(-1);
    expect([partition.logStartOffset, log.stats().sizeInBytes]).toEqual([1, 0]);
    expect(await retain(partition)).toBe(false);
  });

  test('a log where nothing has changed is not asked for its segments again', async () => {
    const clock = new ManualClock(NOW);
    let asked = 0;
    const { partition } = await openPartition(
      { retentionMs: DAY },
      (log) => {
        const segments = log.segments.bind(log);
        log.segments = () => {
          asked++;
          return segments();
        };
        return log;
      },
      undefined,
      clock,
    );
    await partition.append([batchOf(['a'], NOW)], DURABLE);
    // Opening has looked once.
    asked = 0;
    for (let i = 0; i < 10; i++) expect(partition.lifecycle.planRetention()).toBeUndefined();
    expect(asked).toBe(1);
    partition.configure({ ...CONFIG, retentionMs: DAY / 2 });
    partition.lifecycle.planRetention();
    expect(asked).toBe(2);
    clock.advance(DAY / 2);
    expect(partition.lifecycle.planRetention()).toBeUndefined();
    clock.advance(1);
    expect(partition.lifecycle.planRetention()).toMatchObject({ rollFirst: true });
  });
});
