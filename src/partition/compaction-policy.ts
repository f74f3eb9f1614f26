/** When a partition is to be compacted and how far: the policy alone, without its execution. */
import { NO_TIMESTAMP } from '../batch/layout.js';
import { type Offset, toOffset } from '../core/types.js';
import type { SegmentInfo } from '../storage/engine.js';
import type { PartitionConfig } from './partition-config.js';
import { newestMs } from './retention.js';

/** The part of the configuration that the policy obeys. */
export type CompactionLimits = Pick<
  PartitionConfig,
  'segmentMs' | 'minCleanableDirtyRatio' | 'minCompactionLagMs' | 'maxCompactionLagMs'
>;

/** The state of a log that the policy judges. */
export interface CompactionInput {
  /** Ascending; the last one takes the appends. */
  readonly segments: readonly SegmentInfo[];
  readonly logStartOffset: Offset;
  /** Everything below was compacted. */
  readonly cleanedOffset: Offset;
  /** Nothing at or above it is touched. */
  readonly lastStableOffset: Offset;
  readonly limits: CompactionLimits;
  /** Wall clock, ms since the epoch. */
  readonly nowMs: number;
}

/** What makes a compaction due. */
export type CompactionReason = 'min.cleanable.dirty.ratio' | 'max.compaction.lag.ms';

export interface CompactionPlan {
  /** End of the last segment that may be compacted; the first dirty offset when there is none. */
  readonly upTo: Offset;
  /** Size of the segments that were compacted before. */
  readonly cleanBytes: number;
  /** Size of the segments that were not, and may be. */
  readonly cleanableBytes: number;
  /** Share of the cleanable bytes in both, 0 to 1. */
  readonly dirtyRatio: number;
  /** Why a compaction is due; undefined when it is not. */
  readonly why: CompactionReason | undefined;
  /** The last segment is old enough to be closed, without which its records would never be compacted. */
  readonly rollFirst: boolean;
  /** When time alone may change this plan, ms since the epoch; Infinity for never. */
  readonly nextChangeMs: number;
}

/**
 * Due when there is something cleanable and either its share exceeds min.cleanable.dirty.ratio or the oldest of it has
 * waited longer than max.compaction.lag.ms. Cleanable is what lies between the part that was compacted and the first
 * segment that must be left alone: the last one, one that reaches above the last stable offset, or one with records
 * younger than min.compaction.lag.ms. A segment that was compacted in part counts as dirty.
 */
export function planCompaction(input: CompactionInput): CompactionPlan {
  const { segments, logStartOffset, limits, nowMs } = input;
  const active = segments[segments.length - 1]!;
  const firstDirty = firstDirtyOffset(input, active.baseOffset);
  let cleanBytes = 0;
  let cleanableBytes = 0;
  let upTo: number = firstDirty;
  let oldestDirtyMs = Number.POSITIVE_INFINITY;
  let youngEnoughAtMs = Number.POSITIVE_INFINITY;
  for (let i = 0; i < segments.length - 1; i++) {
    const segment = segments[i]!;
    const end = segments[i + 1]!.baseOffset;
    if (end <= logStartOffset) continue; // about to be deleted
    if (end <= firstDirty) {
      cleanBytes += segment.sizeInBytes;
      continue;
    }
    if (end > input.lastStableOffset) break;
    youngEnoughAtMs = lagPassedMs(segment, limits);
    if (nowMs < youngEnoughAtMs) break;
    youngEnoughAtMs = Number.POSITIVE_INFINITY;
    cleanableBytes += segment.sizeInBytes;
    upTo = end;
    oldestDirtyMs = Math.min(oldestDirtyMs, oldestMs(segment));
  }
  const dirtyRatio = cleanableBytes === 0 ? 0 : cleanableBytes / (cleanBytes + cleanableBytes);
  const overdueAtMs = oldestDirtyMs + limits.maxCompactionLagMs + 1;
  const rollAtMs = rollDueMs(active, limits);
  return {
    upTo: toOffset(upTo),
    cleanBytes,
    cleanableBytes,
    dirtyRatio,
    why: reasonToCompact(cleanableBytes, dirtyRatio, nowMs >= overdueAtMs, limits),
    rollFirst: nowMs >= rollAtMs,
    nextChangeMs: Math.min(youngEnoughAtMs, overdueAtMs, rollAtMs),
  };
}

/** A cleaned offset beyond the closed segments, or below the log start, says nothing about this log. */
function firstDirtyOffset({ cleanedOffset, logStartOffset }: CompactionInput, activeBase: Offset): Offset {
  return cleanedOffset < logStartOffset || cleanedOffset > activeBase ? logStartOffset : cleanedOffset;
}

function reasonToCompact(
  cleanableBytes: number,
  dirtyRatio: number,
  isOverdue: boolean,
  { minCleanableDirtyRatio }: CompactionLimits,
): CompactionReason | undefined {
  if (cleanableBytes === 0) return undefined;
  if (isOverdue) return 'max.compaction.lag.ms';
  return dirtyRatio > minCleanableDirtyRatio ? 'min.cleanable.dirty.ratio' : undefined;
}

/**
 * From when on no record of the segment is younger than the least lag. Without a lag, timestamps are not looked at: a
 * record dated in the future must not keep its segment, and all after it, from compaction.
 */
function lagPassedMs(segment: SegmentInfo, { minCompactionLagMs }: CompactionLimits): number {
  return minCompactionLagMs === 0 ? Number.NEGATIVE_INFINITY : newestMs(segment) + minCompactionLagMs;
}

function oldestMs({ firstTimestamp, createdMs }: SegmentInfo): number {
  return firstTimestamp === NO_TIMESTAMP ? createdMs : firstTimestamp;
}

/** The segment that takes the appends is closed by its age in wall-clock time: no record may come to do it. */
function rollDueMs(active: SegmentInfo, { segmentMs, maxCompactionLagMs }: CompactionLimits): number {
  if (active.sizeInBytes === 0) return Number.POSITIVE_INFINITY;
  return active.createdMs + Math.min(segmentMs, maxCompactionLagMs) + 1;
}
