/** Writing a batch anew with some of its records: what compaction leaves of it. */
import { compressBatch } from '../../batch/compression.js';
import {
  ATTRIBUTES_AT,
  attributesOf,
  BASE_TIMESTAMP_AT,
  BATCH_LENGTH_AT,
  baseOffsetOf,
  baseTimestampOf,
  CODEC_MASK,
  codecOf,
  DELETE_HORIZON_BIT,
  isLogAppendTime,
  LOG_OVERHEAD,
  MAX_TIMESTAMP_AT,
  maxTimestampOf,
  NO_TIMESTAMP,
  RECORD_BATCH_OVERHEAD,
  RECORD_COUNT_AT,
  writeCrc,
  writeInt32,
  writeInt64,
} from '../../batch/layout.js';
import type { RecordCursor } from '../../batch/records.js';
import {
  MAX_VARINT_BYTES,
  MAX_VARLONG_BYTES,
  varintSize,
  varlongSize,
  writeVarint,
  writeVarlong,
} from '../../batch/varint.js';

/** What the length and the deltas of a record take at most, with its attributes. */
const MAX_PREFIX_BYTES: number = 2 * MAX_VARINT_BYTES + MAX_VARLONG_BYTES + 1;

/**
 * The header that stands for a batch whose records are gone: it keeps the offsets, and what is remembered of the
 * producer. In new memory.
 */
export function emptied(batch: Buffer): Buffer {
  const header = Buffer.from(batch.subarray(0, RECORD_BATCH_OVERHEAD));
  header[ATTRIBUTES_AT + 1] = header[ATTRIBUTES_AT + 1]! & ~(CODEC_MASK | DELETE_HORIZON_BIT);
  writeInt64(header, BASE_TIMESTAMP_AT, NO_TIMESTAMP);
  writeInt32(header, RECORD_COUNT_AT, 0);
  return finished(header, RECORD_BATCH_OVERHEAD);
}

/**
 * The batch with the records that `keep` has a 1 for, at least one. Offsets, times and codec stay; the header says what
 * the records say. At once unless the batch is compressed.
 * @param cursor over its records, rewound
 * @param horizonMs from when on its tombstones or its marker may go; undefined leaves what the batch says of that
 */
export function rewrite(
  batch: Buffer,
  cursor: RecordCursor,
  keep: Uint8Array,
  horizonMs: number | undefined,
): Buffer | Promise<Buffer> {
  const attributes = attributesOf(batch, 0);
  const baseOffset = baseOffsetOf(batch, 0);
  const baseTimestampMs = horizonMs ?? baseTimestampOf(batch, 0);
  const { count, bytes } = sizeOfKept(cursor, keep);
  const out = Buffer.allocUnsafeSlow(RECORD_BATCH_OVERHEAD + bytes + count * MAX_PREFIX_BYTES);
  batch.copy(out, 0, 0, RECORD_BATCH_OVERHEAD);
  let maxTimestampMs: number = NO_TIMESTAMP;
  let at = RECORD_BATCH_OVERHEAD;
  cursor.rewind();
  for (let i = 0; cursor.next(); i++) {
    if (keep[i] === 0) continue;
    if (cursor.timestampMs > maxTimestampMs) maxTimestampMs = cursor.timestampMs;
    at = writeRecord(out, at, cursor, cursor.timestampMs - baseTimestampMs, cursor.offset - baseOffset);
  }
  out[ATTRIBUTES_AT + 1] = (attributes & ~CODEC_MASK & 0xff) | (horizonMs === undefined ? 0 : DELETE_HORIZON_BIT);
  writeInt64(out, BASE_TIMESTAMP_AT, baseTimestampMs);
  writeInt64(out, MAX_TIMESTAMP_AT, isLogAppendTime(attributes) ? maxTimestampOf(batch, 0) : maxTimestampMs);
  writeInt32(out, RECORD_COUNT_AT, count);
  const rewritten = finished(out, at);
  const codec = codecOf(attributes) ?? 'none';
  return codec === 'none' ? rewritten : compressBatch(rewritten, codec);
}

function sizeOfKept(cursor: RecordCursor, keep: Uint8Array): { readonly count: number; readonly bytes: number } {
  let count = 0;
  let bytes = 0;
  cursor.rewind();
  for (let i = 0; cursor.next(); i++) {
    if (keep[i] === 0) continue;
    count++;
    bytes += cursor.payloadEnd - cursor.payloadStart;
  }
  return { count, bytes };
}

/** Key, value and headers are copied as they are; what stands before them is relative to the batch. */
function writeRecord(
  out: Buffer,
  start: number,
  { buffer, payloadStart, payloadEnd }: RecordCursor,
  timestampDelta: number,
  offsetDelta: number,
): number {
  const payloadBytes = payloadEnd - payloadStart;
  const bodyBytes = 1 + varlongSize(timestampDelta) + varintSize(offsetDelta) + payloadBytes;
  let at = writeVarint(out, start, bodyBytes);
  out[at++] = 0;
  at = writeVarlong(out, at, timestampDelta);
  at = writeVarint(out, at, offsetDelta);
  buffer.copy(out, at, payloadStart, payloadEnd);
  return at + payloadBytes;
}

function finished(out: Buffer, size: number): Buffer {
  writeInt32(out, BATCH_LENGTH_AT, size - LOG_OVERHEAD);
  const batch = out.subarray(0, size);
  writeCrc(batch, 0);
  return batch;
}
