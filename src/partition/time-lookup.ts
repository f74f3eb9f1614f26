import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  baseOffsetOf,
  maxTimestampOf,
  NO_TIMESTAMP,
  newestRecordTimeOf,
  nextOffsetOf,
  sizeInBytesOf,
} from '../batch/layout.js';
import { openRecords, type RecordCursor } from '../batch/records.js';
import { LogError } from '../core/errors.js';
import { type Offset, toOffset } from '../core/types.js';
import type { LogSlice, PartitionLog, SegmentInfo } from '../storage/engine.js';

export interface RecordPosition {
  readonly offset: Offset;
  readonly timestampMs: number;
}

/** The record looked for is nearly always in the first batch read: more would be read in vain. */
const SLICE_BYTES = 64 * 1024;
/** For going through a whole segment. */
const SCAN_BYTES = 1024 * 1024;
/** Records looked at before others get a turn: some milliseconds of work at the most. */
const RECORDS_PER_TURN = 32_768;

/**
 * The first record at or above the log start offset and below `upTo` whose timestamp is `>= timestampMs`.
 * Timestamps need not rise with offsets: "first" is by offset. Where the records that a batch claims the time by lie below
 * the log start offset, the search goes on behind it, by headers, in reads of 64 KiB.
 */
export async function findRecordByTime(
  log: PartitionLog,
  upTo: Offset,
  timestampMs: number,
): Promise<RecordPosition | undefined> {
  const start = await log.batchForTime(timestampMs);
  if (start === undefined) return undefined;
  for await (const batch of batchesFrom(log, start, upTo, SLICE_BYTES)) {
    if (newestRecordTimeOf(batch, 0) < timestampMs) continue;
    const found = await findInBatch(batch, log.startOffset, timestampMs);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * The first record below `upTo` that holds the largest timestamp of the records there, if any has one.
 *
 * Costs one batch where the batch that claims the largest timestamp holds a record with it. Where it does not - because
 * compaction has taken that record, or the log start offset lies behind it - segments are gone through, those that claim
 * the largest timestamp first, until none of the others can hold a newer record: usually one segment, in reads of 1 MiB,
 * opening only batches that claim more than was found.
 */
export async function findNewestRecord(log: PartitionLog, upTo: Offset): Promise<RecordPosition | undefined> {
  const from = await log.batchForMaxTimestamp(upTo);
  if (from === undefined) return undefined;
  for await (const batch of batchesFrom(log, from, upTo, 1)) {
    const newest = await newestInBatch(batch, log.startOffset);
    if (newest !== undefined && newest.timestampMs >= newestRecordTimeOf(batch, 0)) return newest;
    break;
  }
  return await findNewestBySegments(log, upTo);
}

async function findNewestBySegments(log: PartitionLog, upTo: Offset): Promise<RecordPosition | undefined> {
  const newestFirst = [...log.segments()].sort(
    (a, b) => b.maxTimestamp - a.maxTimestamp || a.baseOffset - b.baseOffset,
  );
  let newest: RecordPosition | undefined;
  for (const segment of newestFirst) {
    if (segment.maxTimestamp < (newest?.timestampMs ?? 0)) break;
    if (segment.baseOffset < upTo) newest = newerOf(newest, await newestInSegment(log, segment, upTo, newest));
  }
  return newest;
}

/** The newest record of a segment, unless `known` is newer; on equal timestamps the first one by offset. */
async function newestInSegment(
  log: PartitionLog,
  segment: SegmentInfo,
  upTo: Offset,
  known: RecordPosition | undefined,
): Promise<RecordPosition | undefined> {
  const end = toOffset(Math.min(segment.nextOffset, upTo));
  let newest = known;
  for await (const batch of batchesFrom(log, segment.baseOffset, end, SCAN_BYTES)) {
    if (!mayHoldNewer(batch, newest)) continue;
    newest = newerOf(newest, await newestInBatch(batch, log.startOffset));
  }
  return newest;
}

/** Whether the batch claims a record that `newerOf` would prefer. */
function mayHoldNewer(batch: Buffer, newest: RecordPosition | undefined): boolean {
  const claimedMs = newestRecordTimeOf(batch, 0);
  if (newest === undefined) return claimedMs > NO_TIMESTAMP;
  return claimedMs > newest.timestampMs || (claimedMs === newest.timestampMs && baseOffsetOf(batch, 0) < newest.offset);
}

function newerOf(a: RecordPosition | undefined, b: RecordPosition | undefined): RecordPosition | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  if (a.timestampMs !== b.timestampMs) return a.timestampMs > b.timestampMs ? a : b;
  return a.offset <= b.offset ? a : b;
}

/** The batches from `from`, or the log start offset if it has passed that, up to `to`, each as a view of its own. */
async function* batchesFrom(log: PartitionLog, from: Offset, to: Offset, maxBytes: number): AsyncGenerator<Buffer> {
  let next = from;
  for (;;) {
    next = toOffset(Math.max(next, log.startOffset));
    if (next >= to) return;
    const slice: LogSlice = await log.read(next, to, maxBytes);
    if (slice.byteLength === 0) return;
    for (const chunk of slice.chunks) {
      for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
        yield chunk.subarray(at, at + sizeInBytesOf(chunk, at));
      }
    }
    next = slice.nextOffset;
    // What is read may all lie in memory: the loop must not keep others waiting.
    await nextTurn();
  }
}

/** The batch's first record at or above `startOffset` whose timestamp is `>= timestampMs`. */
async function findInBatch(
  batch: Buffer,
  startOffset: Offset,
  timestampMs: number,
): Promise<RecordPosition | undefined> {
  return await searchBatch(batch, startOffset, (cursor) => (cursor.timestampMs >= timestampMs ? 'final' : undefined));
}

/** The batch's first record at or above `startOffset` with the largest timestamp of those, if any has one. */
async function newestInBatch(batch: Buffer, startOffset: Offset): Promise<RecordPosition | undefined> {
  let newestMs: number = NO_TIMESTAMP;
  return await searchBatch(batch, startOffset, ({ timestampMs }) => {
    if (timestampMs <= newestMs) return undefined;
    newestMs = timestampMs;
    return 'best yet';
  });
}

type Verdict = 'final' | 'best yet' | undefined;

/** The record at or above `startOffset` that `judge` calls final, or else the last one that it calls the best yet. */
async function searchBatch(
  batch: Buffer,
  startOffset: Offset,
  judge: (cursor: RecordCursor) => Verdict,
): Promise<RecordPosition | undefined> {
  if (nextOffsetOf(batch, 0) <= startOffset) return undefined;
  let found: RecordPosition | undefined;
  try {
    const cursor = await openRecords(batch);
    for (let seen = 1; cursor.next(); seen++) {
      if (seen % RECORDS_PER_TURN === 0) await nextTurn();
      const verdict = cursor.offset >= startOffset ? judge(cursor) : undefined;
      if (verdict === undefined) continue;
      found = { offset: toOffset(cursor.offset), timestampMs: cursor.timestampMs };
      if (verdict === 'final') break;
    }
    return found;
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    // A batch whose records cannot be opened here (a codec that is not installed): its start is a safe answer,
    // because a reader that begins there misses nothing.
    const offset = Math.max(baseOffsetOf(batch, 0), startOffset);
    return { offset: toOffset(offset), timestampMs: maxTimestampOf(batch, 0) };
  }
}
