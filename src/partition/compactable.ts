/** What a compacted topic asks of a produced batch beyond what its header shows. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { attributesOf, codecOf, recordCountOf } from '../batch/layout.js';
import { openRecords, type RecordCursor } from '../batch/records.js';
import { LogError, toLogError } from '../core/errors.js';
import { Semaphore } from '../core/semaphore.js';

/** Records looked at before others get a turn: some milliseconds of work at the most. */
const RECORDS_PER_TURN = 32_768;
/**
 * Batches that are unpacked at once in this process, each to 64 MiB at the most. The appends that wait for their check
 * could together unpack to many times the memory that they came in.
 */
const unpacking = new Semaphore(4);

/**
 * Checks that every record has a key and that the records are what the header says: compaction will rely on both. Their
 * offset deltas then are 0 to n-1, because a cursor accepts rising ones up to the header's last only.
 * @returns undefined when all is well; a promise of the refusal, or of undefined, where that takes time
 * @throws LogError INVALID_RECORD (a record without a key, with its batch_index and record_index), CORRUPT_MESSAGE; the
 *   promise, which never rejects, also gives MESSAGE_TOO_LARGE (unpacked) and UNSUPPORTED_COMPRESSION_TYPE
 */
export function checkCompactable(batches: readonly Buffer[]): Promise<LogError | undefined> | undefined {
  if (!areQuick(batches)) return refusalOf(batches);
  for (const [index, batch] of batches.entries()) {
    const cursor = openRecords(batch);
    if (cursor instanceof Promise) return refusalOf(batches);
    for (let record = 0; cursor.next(); record++) checkKey(cursor, index, record);
  }
  return undefined;
}

/** Whether the records lie open and are few. */
function areQuick(batches: readonly Buffer[]): boolean {
  let recordCount = 0;
  for (const batch of batches) {
    if (codecOf(attributesOf(batch, 0)) !== 'none') return false;
    recordCount += recordCountOf(batch, 0);
  }
  return recordCount <= RECORDS_PER_TURN;
}

async function refusalOf(batches: readonly Buffer[]): Promise<LogError | undefined> {
  try {
    for (const [index, batch] of batches.entries()) await unpacking.run(() => checkInTurns(batch, index));
    return undefined;
  } catch (error) {
    return toLogError(error);
  }
}

async function checkInTurns(batch: Buffer, index: number): Promise<void> {
  const cursor = await openRecords(batch);
  for (let record = 0; cursor.next(); record++) {
    checkKey(cursor, index, record);
    if (record % RECORDS_PER_TURN === RECORDS_PER_TURN - 1) await nextTurn();
  }
}

function checkKey(cursor: RecordCursor, batchIndex: number, recordIndex: number): void {
  if (cursor.keyLength >= 0) return;
  throw new LogError(
    'INVALID_RECORD',
    `Record ${recordIndex} of batch ${batchIndex} has no key. This topic is compacted: every record needs one.`,
    { metadata: { batch_index: batchIndex, record_index: recordIndex } },
  );
}
