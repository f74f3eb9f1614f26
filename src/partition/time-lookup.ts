import { baseOffsetOf, maxTimestampOf, nextOffsetOf, sizeInBytesOf } from '../batch/layout.js';
import { openRecords } from '../batch/records.js';
import { LogError } from '../core/errors.js';
import { type Offset, toOffset } from '../core/types.js';
import type { PartitionLog } from '../storage/engine.js';

export interface RecordPosition {
  readonly offset: Offset;
  readonly timestampMs: number;
}

const READ_BYTES = 1024 * 1024;

/**
 * The first record at or above the log start offset and below `upTo` whose timestamp is `>= timestampMs`.
 * Timestamps need not rise with offsets: "first" is by offset.
 */
export async function findRecordByTime(
  log: PartitionLog,
  upTo: Offset,
  timestampMs: number,
): Promise<RecordPosition | undefined> {
  let from = await log.batchForTime(timestampMs);
  while (from !== undefined && from < upTo) {
    const slice = await log.read(from, upTo, READ_BYTES);
    if (slice.byteLength === 0) return undefined;
    for (const chunk of slice.chunks) {
      for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
        if (maxTimestampOf(chunk, at) < timestampMs) continue;
        const batch = chunk.subarray(at, at + sizeInBytesOf(chunk, at));
        const found = await findInBatch(batch, log.startOffset, timestampMs);
        if (found !== undefined) return found;
      }
    }
    from = slice.nextOffset;
  }
  return undefined;
}

/** The first record below `upTo` that holds the largest timestamp of the records there, if any has one. */
export async function findNewestRecord(log: PartitionLog, upTo: Offset): Promise<RecordPosition | undefined> {
  const from = await log.batchForMaxTimestamp(upTo);
  if (from === undefined) return undefined;
  const slice = await log.read(from, upTo, 1);
  const batch = slice.chunks[0];
  if (batch === undefined) return undefined;
  return await findInBatch(batch.subarray(0, sizeInBytesOf(batch, 0)), log.startOffset, maxTimestampOf(batch, 0));
}

async function findInBatch(
  batch: Buffer,
  startOffset: Offset,
  timestampMs: number,
): Promise<RecordPosition | undefined> {
  if (nextOffsetOf(batch, 0) <= startOffset) return undefined;
  try {
    const cursor = await openRecords(batch);
    while (cursor.next()) {
      if (cursor.offset >= startOffset && cursor.timestampMs >= timestampMs) {
        return { offset: toOffset(cursor.offset), timestampMs: cursor.timestampMs };
      }
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    // A batch whose records cannot be opened here (a codec that is not installed): its start is a safe answer,
    // because a reader that begins there misses nothing.
    const offset = Math.max(baseOffsetOf(batch, 0), startOffset);
    return { offset: toOffset(offset), timestampMs: maxTimestampOf(batch, 0) };
  }
}
