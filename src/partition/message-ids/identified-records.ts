/**
 * Records that came with message ids. In the log the id of a record is its last header, and the batch says in its
 * attributes that its records have one: so a start finds the ids again, and only there looks into records.
 */
import type { RecordHeader, RecordInput } from '../../batch/builder.js';
import {
  attributesOf,
  BATCH_LENGTH_AT,
  baseTimestampOf,
  carriesMessageIds,
  LAST_OFFSET_DELTA_AT,
  LOG_OVERHEAD,
  MAX_TIMESTAMP_AT,
  NO_TIMESTAMP,
  RECORD_BATCH_OVERHEAD,
  RECORD_COUNT_AT,
  writeCrc,
  writeInt32,
  writeInt64,
} from '../../batch/layout.js';
import { openRecords, RecordCursor } from '../../batch/records.js';
import { varintSize, varlongSize, writeVarint, writeVarlong } from '../../batch/varint.js';
import { assert } from '../../core/assert.js';
import { LogError } from '../../core/errors.js';

/** The key of the header that holds the id. */
export const MESSAGE_ID_HEADER = 'tidelog-message-id';

/** The record with its id. */
export function withMessageId(record: RecordInput, id: string): RecordInput {
  const header: RecordHeader = { key: MESSAGE_ID_HEADER, value: Buffer.from(id) };
  return { ...record, headers: [...(record.headers ?? []), header] };
}

/**
 * Only the broker makes batches of records with ids: what a start would find in others, nobody has checked.
 * @throws LogError INVALID_RECORD
 */
export function checkMessageIdBit(batch: Buffer, messageIds: readonly string[] = []): void {
  if (carriesMessageIds(attributesOf(batch, 0)) === messageIds.length > 0) return;
  throw new LogError(
    'INVALID_RECORD',
    'The record batch is not acceptable: bit 8 of its attributes is set by the broker alone. Send message_ids with plain records.',
  );
}

/** Calls `found` for each record of a batch that came with message ids, in the order of offsets. */
export function forEachMessageId(batch: Buffer, found: (id: string, offset: number) => void): void {
  if (!carriesMessageIds(attributesOf(batch, 0))) return;
  const cursor = openPlain(batch);
  while (cursor.next()) {
    const header = cursor.headers.at(-1);
    if (header?.key === MESSAGE_ID_HEADER && header.value !== null) {
      found(Buffer.from(header.value).toString('utf8'), cursor.offset);
    }
  }
}

/**
 * A batch of the selected records alone, never larger than `batch`: times stay relative to that of its first record.
 * @param indexes ascending, at least one
 */
export function keepRecords(batch: Buffer, indexes: readonly number[]): Buffer {
  const cursor = openPlain(batch);
  const target = Buffer.allocUnsafe(batch.length);
  batch.copy(target, 0, 0, RECORD_BATCH_OVERHEAD);
  const baseTimestampMs = baseTimestampOf(batch, 0);
  let at = RECORD_BATCH_OVERHEAD;
  let count = 0;
  let maxTimestampMs = NO_TIMESTAMP;
  for (let index = 0; cursor.next() && count < indexes.length; index++) {
    if (index !== indexes[count]) continue;
    at = writeRecord(target, at, cursor, cursor.timestampMs - baseTimestampMs, count);
    maxTimestampMs = Math.max(maxTimestampMs, cursor.timestampMs);
    count++;
  }
  assert(count > 0 && count === indexes.length, 'the records to keep are there');
  const kept = target.subarray(0, at);
  writeInt32(kept, BATCH_LENGTH_AT, at - LOG_OVERHEAD);
  writeInt32(kept, LAST_OFFSET_DELTA_AT, count - 1);
  writeInt64(kept, MAX_TIMESTAMP_AT, maxTimestampMs);
  writeInt32(kept, RECORD_COUNT_AT, count);
  writeCrc(kept, 0);
  return kept;
}

/** Writes the record that `cursor` stands on with another offset, and returns the position after it. */
function writeRecord(
  target: Buffer,
  start: number,
  { buffer, payloadStart, payloadEnd }: RecordCursor,
  timestampDelta: number,
  offsetDelta: number,
): number {
  const bodySize = 1 + varlongSize(timestampDelta) + varintSize(offsetDelta) + payloadEnd - payloadStart;
  let at = writeVarint(target, start, bodySize);
  target[at++] = 0;
  at = writeVarlong(target, at, timestampDelta);
  at = writeVarint(target, at, offsetDelta);
  return at + buffer.copy(target, at, payloadStart, payloadEnd);
}

/** The broker made it, so it is not compressed. */
function openPlain(batch: Buffer): RecordCursor {
  const cursor = openRecords(batch);
  if (cursor instanceof RecordCursor) return cursor;
  throw new LogError('CORRUPT_MESSAGE', 'A record batch with message ids is compressed.');
}
