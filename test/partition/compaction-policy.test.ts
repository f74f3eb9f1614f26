import { describe, expect, test } from 'vitest';
import { toOffset } from '../../src/core/types.js';
import { type CompactionInput, type CompactionLimits, planCompaction } from '../../src/partition/compaction-policy.js';
import type { SegmentInfo } from '../../src/storage/engine.js';
import { ManualClock } from '../support/manual-clock.js';
import { fc } from '../support/properties.js';
import { keyedBatch, openPartition, overriding } from './support.js';

const NOW = 1_700_000_000_000;
const HOUR = 3_600_000;
const DURABLE = { acks: 'durable' } as const;

const LIMITS: CompactionLimits = {
  segmentMs: 24 * HOUR,
  minCleanableDirtyRatio: 0.5,
  minCompactionLagMs: 0,
  maxCompactionLagMs: Number.MAX_SAFE_INTEGER,
};

interface Piece {
  readonly bytes: number;
  /** Age of all its records, in ms; undefined for none with a timestamp. */
  readonly age?: number | undefined;
  readonly createdAge?: number;
}

/** Segments of 10 offsets each; the last one is the active one. */
function segmentsOf(...pieces: readonly Piece[]): SegmentInfo[] {
  return pieces.map(({ bytes, age, createdAge }, i) => ({
    baseOffset: toOffset(i * 10),
    nextOffset: toOffset(bytes === 0 ? i * 10 : i * 10 + 10),
    sizeInBytes: bytes,
    firstTimestamp: age === undefined ? -1 : NOW - age,
    maxTimestamp: age === undefined ? -1 : NOW - age,
    createdMs: NOW - (createdAge ?? HOUR),
    modifiedMs: NOW - (createdAge ?? HOUR),
    hasProducers: false,
  }));
}

function inputOf(
  segments: readonly SegmentInfo[],
  options: Partial<CompactionLimits> & { start?: number; cleaned?: number; stable?: number } = {},
): CompactionInput {
  const { start = 0, cleaned = 0, stable, ...limits } = options;
  return {
    segments,
    logStartOffset: toOffset(start),
    cleanedOffset: toOffset(cleaned),
    lastStableOffset: toOffset(stable ?? segments.at(-1)?.nextOffset ?? 0),
    limits: { ...LIMITS, ...limits },
    nowMs: NOW,
  };
}

const OLD = { bytes: 100, age: HOUR };

describe('the policy', () => {
  test('a log with its active segment alone has nothing to compact', () => {
    const plan = planCompaction(inputOf(segmentsOf(OLD)));
    expect(plan).toMatchObject({ upTo: 0, cleanableBytes: 0, dirtyRatio: 0, why: undefined, rollFirst: false });
  });

  test('what was never compacted is due up to the active segment', () => {
    const plan = planCompaction(inputOf(segmentsOf(OLD, OLD, OLD)));
    expect(plan).toMatchObject({ upTo: 20, cleanBytes: 0, cleanableBytes: 200, dirtyRatio: 1 });
    expect(plan.why).toBe('min.cleanable.dirty.ratio');
  });

  test('the ratio must be exceeded, not reached', () => {
    const segments = segmentsOf(OLD, OLD, OLD);
    expect(planCompaction(inputOf(segments, { cleaned: 10 }))).toMatchObject({ dirtyRatio: 0.5, why: undefined });
    const lower = planCompaction(inputOf(segments, { cleaned: 10, minCleanableDirtyRatio: 0.49 }));
    expect(lower).toMatchObject({ cleanBytes: 100, cleanableBytes: 100, why: 'min.cleanable.dirty.ratio' });
    expect(planCompaction(inputOf(segments, { cleaned: 20, minCleanableDirtyRatio: 0 })).why).toBeUndefined();
  });

  test('a segment that was compacted in part counts as dirty', () => {
    const plan = planCompaction(inputOf(segmentsOf(OLD, OLD, OLD), { cleaned: 15 }));
    expect(plan).toMatchObject({ cleanBytes: 100, cleanableBytes: 100 });
  });

  test('a cleaned offset outside of the log is not believed', () => {
    expect(planCompaction(inputOf(segmentsOf(OLD, OLD, OLD), { cleaned: 25 })).cleanableBytes).toBe(200);
    expect(planCompaction(inputOf(segmentsOf(OLD, OLD, OLD), { start: 10, cleaned: 5 }))).toMatchObject({
      cleanBytes: 0,
      cleanableBytes: 100,
    });
  });

  test('nothing that reaches above the last stable offset is touched', () => {
    expect(planCompaction(inputOf(segmentsOf(OLD, OLD, OLD), { stable: 19 }))).toMatchObject({
      upTo: 10,
      cleanableBytes: 100,
    });
  });

  test('nothing younger than min.compaction.lag.ms is touched, nor what follows it', () => {
    const segments = segmentsOf(OLD, { bytes: 100, age: 10 }, OLD, OLD);
    const plan = planCompaction(inputOf(segments, { minCompactionLagMs: 11 }));
    expect(plan).toMatchObject({ upTo: 10, cleanableBytes: 100 });
    expect(plan.nextChangeMs).toBe(NOW + 1);
    expect(planCompaction(inputOf(segments, { minCompactionLagMs: 10 }))).toMatchObject({ upTo: 30 });
    const timeless = segmentsOf({ bytes: 100, createdAge: 10 }, OLD);
    expect(planCompaction(inputOf(timeless, { minCompactionLagMs: 11 })).cleanableBytes).toBe(0);
    expect(planCompaction(inputOf(timeless, { minCompactionLagMs: 10 })).cleanableBytes).toBe(100);
  });

  test('without a minimum lag, a record dated in the future keeps nothing from compaction', () => {
    expect(planCompaction(inputOf(segmentsOf({ bytes: 100, age: -HOUR }, OLD, OLD))).cleanableBytes).toBe(200);
  });

  test('what has waited longer than max.compaction.lag.ms is due whatever the ratio', () => {
    const segments = segmentsOf({ bytes: 1000, age: 2 * HOUR }, OLD, OLD);
    const quiet = { cleaned: 10, maxCompactionLagMs: HOUR };
    const plan = planCompaction(inputOf(segments, quiet));
    expect(plan).toMatchObject({ why: undefined, nextChangeMs: NOW + 1 });
    const overdue = planCompaction(inputOf(segments, { ...quiet, maxCompactionLagMs: HOUR - 1 }));
    expect(overdue.why).toBe('max.compaction.lag.ms');
  });

  test('an idle active segment is rolled after the lesser of segment.ms and max.compaction.lag.ms', () => {
    const segments = segmentsOf({ bytes: 100, age: 0, createdAge: HOUR });
    expect(planCompaction(inputOf(segments, { segmentMs: HOUR })).rollFirst).toBe(false);
    expect(planCompaction(inputOf(segments, { segmentMs: HOUR - 1 })).rollFirst).toBe(true);
    expect(planCompaction(inputOf(segments, { maxCompactionLagMs: HOUR - 1 })).rollFirst).toBe(true);
    const empty = segmentsOf(OLD, { bytes: 0, createdAge: HOUR });
    expect(planCompaction(inputOf(empty, { segmentMs: 1 })).rollFirst).toBe(false);
  });

  test('a plan stands until the time that it names, when nothing but time changes', () => {
    const piece = fc.record({
      bytes: fc.integer({ min: 1, max: 100 }),
      age: fc.option(fc.integer({ min: -50, max: 100 }), { nil: undefined }),
      createdAge: fc.integer({ min: 0, max: 100 }),
    });
    const lag = fc.integer({ min: 0, max: 150 });
    fc.assert(
      fc.property(
        fc.array(piece, { minLength: 1, maxLength: 6 }),
        fc.nat({ max: 60 }),
        fc.nat({ max: 60 }),
        lag,
        lag,
        lag,
        (pieces, cleaned, stable, minCompactionLagMs, maxCompactionLagMs, segmentMs) => {
          const options = { cleaned, stable, minCompactionLagMs, maxCompactionLagMs, segmentMs };
          const input = inputOf(segmentsOf(...pieces), options);
          const plan = planCompaction(input);
          expect(plan.upTo).toBeLessThanOrEqual(Math.max(stable, cleaned));
          if (plan.why !== undefined || plan.rollFirst) return;
          expect(plan.nextChangeMs).toBeGreaterThan(NOW);
          const nowMs = Math.min(plan.nextChangeMs - 1, NOW + 1000);
          expect(planCompaction({ ...input, nowMs })).toEqual(plan);
        },
      ),
    );
  });
});

describe('on a partition', () => {
  test('a topic that is not compacted has no plan', async () => {
    const { partition, log } = await openPartition();
    await partition.append([keyedBatch([['k', 'v']])], DURABLE);
    await log.roll();
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
  });

  test('closing tells a compaction under way to end', async () => {
    let signal: AbortSignal | undefined;
    const { partition, log } = await openPartition({ cleanupCompact: true }, (inner) =>
      overriding(inner, {
        compact: (options) => {
          signal = options.signal;
          return new Promise((_, reject) => {
            options.signal?.addEventListener('abort', () => reject(options.signal?.reason));
          });
        },
      }),
    );
    await partition.append([keyedBatch([['k', 'v']])], DURABLE);
    await log.roll();
    const plan = partition.lifecycle.planCompaction();
    if (plan === undefined) throw new Error('nothing is due');
    const run = { maxMapBytes: 1024, signal: new AbortController().signal };
    const compacting = partition.lifecycle.compact(plan, run);
    await Promise.all([expect(compacting).rejects.toThrow(), partition.close()]);
    expect(signal?.aborted).toBe(true);
  });

  test('a compaction that was planned before its partition closed is stopped from the beginning', async () => {
    let signal: AbortSignal | undefined;
    const { partition, log } = await openPartition({ cleanupCompact: true }, (inner) =>
      overriding(inner, {
        compact: (options) => {
          signal = options.signal;
          return inner.compact(options);
        },
      }),
    );
    await partition.append([keyedBatch([['k', 'v']])], DURABLE);
    await log.roll();
    const plan = partition.lifecycle.planCompaction();
    partition.retire();
    const run = { maxMapBytes: 1024, signal: new AbortController().signal };
    expect(await partition.lifecycle.compact(plan!, run)).toMatchObject({ passCount: 0 });
    expect(signal?.aborted).toBe(true);
  });

  test('an idle active segment becomes cleanable by being rolled', async () => {
    const clock = new ManualClock(NOW);
    const { partition } = await openPartition(
      { cleanupCompact: true, segmentMs: HOUR },
      (log) => log,
      undefined,
      clock,
    );
    await partition.append([keyedBatch([['k', 'v']], NOW)], DURABLE);
    clock.advance(HOUR);
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
    clock.advance(1);
    expect(partition.lifecycle.planCompaction()).toMatchObject({ rollFirst: true, why: undefined });
    await partition.lifecycle.rollForCompaction();
    expect(partition.lifecycle.planCompaction()).toMatchObject({ rollFirst: false, upTo: 1, dirtyRatio: 1 });
  });
});
