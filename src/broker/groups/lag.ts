/** How far behind a group is in time: how long its next record has been waiting. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { attributesOf, isControl, NO_TIMESTAMP, nextOffsetOf, sizeInBytesOf } from '../../batch/layout.js';
import { openRecords } from '../../batch/records.js';
import { LogError } from '../../core/errors.js';
import { toOffset } from '../../core/types.js';
import type { Partition } from '../../partition/partition.js';

/** The record looked for is nearly always in the first batch read: more would be read in vain. */
const SLICE_BYTES = 64 * 1024;
/** The search is given up after so much, about. */
const MAX_BYTES = 1024 * 1024;
/** Records looked at before others get a turn: some milliseconds of work at the most. */
const RECORDS_PER_TURN = 32_768;

/**
 * The age of the first record at or above `from`, or the log start offset if that is higher: ms between its timestamp
 * and `nowMs`, both of the wall clock; 0 when no record waits there, or its timestamp lies ahead. Undefined: it has no
 * timestamp, cannot be read, or did not turn up within the first MiB.
 */
export async function waitingMs(partition: Partition, from: number, nowMs: number): Promise<number | undefined> {
  try {
    const first = await firstRecord(partition, from);
    if (first === 'none') return 0;
    if (first === 'not found' || first.timestampMs === NO_TIMESTAMP) return undefined;
    return Math.max(0, nowMs - first.timestampMs);
  } catch (error) {
    // Corrupt, trimmed meanwhile, or of a codec that is not installed here: the figure is no reason to fail.
    if (error instanceof LogError) return undefined;
    throw error;
  }
}

type FirstRecord = { readonly timestampMs: number } | 'none' | 'not found';

async function firstRecord(partition: Partition, from: number): Promise<FirstRecord> {
  let readBytes = 0;
  let next = Math.max(from, partition.logStartOffset);
  while (next < partition.highWatermark) {
    if (readBytes >= MAX_BYTES) return 'not found';
    const { chunks, byteLength, nextOffset } = await partition.read(toOffset(next), SLICE_BYTES);
    if (byteLength === 0) return 'none';
    const found = await firstIn(chunks, next);
    if (found !== undefined) return found;
    readBytes += byteLength;
    next = nextOffset;
  }
  return 'none';
}

async function firstIn(chunks: readonly Buffer[], from: number): Promise<{ readonly timestampMs: number } | undefined> {
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
      const batch = chunk.subarray(at, at + sizeInBytesOf(chunk, at));
      if (nextOffsetOf(batch, 0) <= from || isControl(attributesOf(batch, 0))) continue;
      const cursor = await openRecords(batch);
      for (let seen = 1; cursor.next(); seen++) {
        if (cursor.offset >= from) return { timestampMs: cursor.timestampMs };
        if (seen % RECORDS_PER_TURN === 0) await nextTurn();
      }
    }
  }
  return undefined;
}
