/** How a start scans a segment that no checkpoint vouches for. */
import type { SegmentRecord } from './checkpoint.js';
import type { EpochAt } from './epoch-runs.js';
import { readOffsetIndex, type SegmentScan, scanSegment } from './index-cache.js';
import type { EngineContext } from './log-state.js';
import { ASCENDING, DENSE, IndexedSequence, type OffsetSequence } from './offset-sequence.js';
import type { Segment } from './segment.js';

/** A `.log` file as found. */
export interface UnscannedSegment {
  readonly segment: Segment;
  readonly fileSize: number;
  /** What the checkpoint says of it, if anything. */
  readonly record: SegmentRecord | undefined;
}

export type ScanContext = Pick<EngineContext, 'fs' | 'files'> & {
  readonly indexIntervalBytes: number;
  /** Whether the log has a checkpoint at all. */
  readonly hasCheckpoint: boolean;
  /** What is known of the leader epochs in the segment. */
  readonly epochAt: EpochAt;
};

/**
 * Compaction writes a checkpoint, so that a segment without a record in one was never compacted. Without any checkpoint
 * the offsets tell. Where they are not dense, and the index has an entry for the first batch, as only compaction writes
 * it, it may be that; but such an index may also be zeros that a power cut has left: it is believed only where it
 * explains more of the file.
 */
export async function scanUnvouched(context: ScanContext, found: UnscannedSegment): Promise<SegmentScan> {
  const { record } = found;
  if (record?.cleaned) return scan(context, found, (await indexedSequence(context, found)) ?? ASCENDING);
  const dense = await scan(context, found, DENSE);
  if (context.hasCheckpoint || unexplainedBytes(dense, found) === 0) return dense;
  const sequence = await indexedSequence(context, found);
  if (!sequence) return dense;
  const indexed = await scan(context, found, sequence);
  return unexplainedBytes(indexed, found) < unexplainedBytes(dense, found) ? indexed : dense;
}

function scan(context: ScanContext, found: UnscannedSegment, sequence: OffsetSequence): Promise<SegmentScan> {
  const { fs, files, indexIntervalBytes, epochAt } = context;
  const { segment, fileSize } = found;
  const settings = { endPosition: fileSize, indexIntervalBytes, epochAt, sequence };
  return scanSegment(fs, files, segment, settings);
}

/** The sequence in the offset index, if it is one that compaction wrote. */
async function indexedSequence(
  { fs }: ScanContext,
  { segment, record }: UnscannedSegment,
): Promise<OffsetSequence | undefined> {
  const index = await readOffsetIndex(fs, segment.offsetIndexPath, record?.offsetIndexCrc);
  return index?.isComplete ? new IndexedSequence(segment.baseOffset, index) : undefined;
}

/** Bytes of the file that are no intact batches. */
function unexplainedBytes({ contents, damages, tail }: SegmentScan, { fileSize }: UnscannedSegment): number {
  const damaged = damages.reduce((sum, { position, endPosition }) => sum + endPosition - position, 0);
  return damaged + (tail ? fileSize - contents.sizeInBytes : 0);
}
