/** What retention may delete of one partition: the policy alone, without its execution. */
import { NO_TIMESTAMP } from '../batch/layout.js';
import { type Offset, toOffset } from '../core/types.js';
import type { SegmentInfo } from '../storage/engine.js';
import type { PartitionConfig } from './partition-config.js';

/** What condemns a segment. The first means that all of it lies below the log start offset. */
export type RetentionReason = 'log start offset' | 'retention.ms' | 'retention.bytes' | 'retention.records';

/** The part of the configuration that retention obeys. */
export type RetentionLimits = Pick<
  PartitionConfig,
  'cleanupDelete' | 'retentionMs' | 'retentionBytes' | 'retentionRecords'
>;

/** The state of a log that retention judges. */
export interface RetentionInput {
  /** Ascending; the last one takes the appends. */
  readonly segments: readonly SegmentInfo[];
  readonly logStartOffset: Offset;
  /** Nothing at or above it is deleted: it is not durable, or of a transaction that is open. */
  readonly lastStableOffset: Offset;
  readonly limits: RetentionLimits;
  /** Wall clock, ms since the epoch. */
  readonly nowMs: number;
}

export interface RetentionPlan {
  /** Where the log start may move: the beginning of the first segment that stays. Never below the log start. */
  readonly newStartOffset: Offset;
  /** How many segments, oldest first, this lets go of; never the last one. */
  readonly segmentCount: number;
  /** For each reason how many segments it condemned. */
  readonly reasons: ReadonlyMap<RetentionReason, number>;
  /** The last segment is condemned too: when it was rolled, a new plan tells whether that still holds. */
  readonly rollFirst: boolean;
  /** When the first segment that stays becomes due by time alone, ms since the epoch; Infinity for never. */
  readonly nextDueMs: number;
}

/**
 * Condemns segments from the oldest on, up to the first that must stay: whole ones only, and only what lies below the last
 * stable offset. The last segment is condemned only with all others, and only when there is something in it.
 */
export function planRetention(input: RetentionInput): RetentionPlan {
  const { segments, logStartOffset, limits } = input;
  const last = segments.length - 1;
  const reasons = new Map<RetentionReason, number>();
  let bytesLeft = segments.reduce((sum, segment) => sum + segment.sizeInBytes, 0);
  let count = 0;
  for (; count <= last; count++) {
    const segment = segments[count]!;
    bytesLeft -= segment.sizeInBytes;
    const reason = reasonToDelete(input, count, bytesLeft);
    if (reason === undefined) break;
    if (count < last) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
  const rollFirst = count > last;
  const segmentCount = Math.min(count, last);
  const firstKept = segments[segmentCount]!;
  return {
    newStartOffset: toOffset(Math.max(logStartOffset, firstKept.baseOffset)),
    segmentCount,
    reasons,
    rollFirst,
    nextDueMs: firstKept.sizeInBytes === 0 ? Number.POSITIVE_INFINITY : dueMs(firstKept, limits),
  };
}

/** @param bytesLeft what the log holds after this segment and all before it are gone */
function reasonToDelete(input: RetentionInput, index: number, bytesLeft: number): RetentionReason | undefined {
  const { segments, logStartOffset, lastStableOffset, limits, nowMs } = input;
  const segment = segments[index]!;
  const end = segments[index + 1]?.baseOffset ?? segment.nextOffset;
  const isEmptyLast = index === segments.length - 1 && segment.sizeInBytes === 0;
  if (isEmptyLast || end > lastStableOffset) return undefined;
  if (end <= logStartOffset) return 'log start offset';
  if (!limits.cleanupDelete) return undefined;
  if (nowMs >= dueMs(segment, limits)) return 'retention.ms';
  if (limits.retentionBytes >= 0 && bytesLeft >= limits.retentionBytes) return 'retention.bytes';
  const offsetsLeft = segments[segments.length - 1]!.nextOffset - end;
  if (limits.retentionRecords >= 0 && offsetsLeft >= limits.retentionRecords) return 'retention.records';
  return undefined;
}

/** The first ms at which all records of the segment are older than retention.ms. */
function dueMs(segment: SegmentInfo, { cleanupDelete, retentionMs }: RetentionLimits): number {
  if (!cleanupDelete || retentionMs < 0) return Number.POSITIVE_INFINITY;
  return newestMs(segment) + retentionMs + 1;
}

/** The largest record timestamp, or the time of the last append where no record has one. */
export function newestMs({ maxTimestamp, modifiedMs }: SegmentInfo): number {
  return maxTimestamp === NO_TIMESTAMP ? modifiedMs : maxTimestamp;
}
