/** Batches made from batches: emptied, thinned out, given a delete horizon. What the CRC covers is always new memory. */
import { compressBatch } from '../../batch/compression.js';
import {
  ATTRIBUTES_AT,
  attributesOf,
  BASE_TIMESTAMP_AT,
  BATCH_LENGTH_AT,
  baseOffsetOf,
  CODEC_MASK,
  codecOf,
  DELETE_HORIZON_BIT,
  isLogAppendTime,
  LOG_OVERHEAD,
  MAX_TIMESTAMP_AT,
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
  varintEnd,
  varintSize,
  varlongSize,
  writeVarint,
  writeVarlong,
} from '../../batch/varint.js';
import { LogError } from '../../core/errors.js';

/** What a record may grow by when its time is told relative to another base: its delta, and its length for that. */
const MAX_GROWTH_BYTES: number = MAX_VARINT_BYTES + MAX_VARLONG_BYTES;

/** Which records of a batch stay. */
export interface Selection {
  /** By index among the batch's records, 1 for those that stay; longer than needed. */
  readonly keep: Uint8Array;
  /** How many stay, at least one, and how many bytes they take, uncompressed. */
  readonly keptCount: number;
  readonly keptBytes: number;
  /** Largest timestamp of those that stay. */
  readonly maxTimestamp: number;
  /** The new delete horizon, ms since the epoch; undefined to leave it as it is. */
  readonly horizonMs: number | undefined;
}

/**
 * The 61-byte header that stands for a batch whose records are gone: it holds the batch's place in the log and its
 * producer's last sequence. Codec, delete horizon and base timestamp go with the records; maxTimestamp stays.
 * @returns `batch` itself when it is empty already
 */
export function emptied(batch: Buffer): Buffer {
  if (batch.length === RECORD_BATCH_OVERHEAD) return batch;
  const header = Buffer.from(batch.subarray(0, RECORD_BATCH_OVERHEAD));
  writeInt32(header, BATCH_LENGTH_AT, RECORD_BATCH_OVERHEAD - LOG_OVERHEAD);
  header[ATTRIBUTES_AT + 1] = header[ATTRIBUTES_AT + 1]! & ~(CODEC_MASK | DELETE_HORIZON_BIT);
  writeInt64(header, BASE_TIMESTAMP_AT, NO_TIMESTAMP);
  writeInt32(header, RECORD_COUNT_AT, 0);
  writeCrc(header, 0);
  return header;
}

/**
 * `batch` with the selected records alone, in its own codec; everything that compaction has no say in stays.
 * `cursor` is open on `batch`. The result can be larger than `batch`: by a new horizon, or when the producer compressed
 * harder.
 * @throws LogError CORRUPT_MESSAGE (a timestamp that cannot be told anew), UNSUPPORTED_COMPRESSION_TYPE (a codec that
 *   can only be read here)
 */
export function thinnedOut(batch: Buffer, cursor: RecordCursor, selection: Selection): Buffer | Promise<Buffer> {
  const { keptCount, keptBytes, horizonMs } = selection;
  const growth = horizonMs === undefined ? 0 : keptCount * MAX_GROWTH_BYTES;
  const roomy = Buffer.allocUnsafe(RECORD_BATCH_OVERHEAD + keptBytes + growth);
  const end =
    horizonMs === undefined
      ? copyRecords(roomy, cursor, selection)
      : moveRecords(roomy, cursor, baseOffsetOf(batch, 0), selection);
  const uncompressed = roomy.subarray(0, end);
  writeHeader(uncompressed, batch, selection);
  const codec = codecOf(attributesOf(batch, 0)) ?? 'none';
  return codec === 'none' ? uncompressed : compressBatch(uncompressed, codec);
}

/** Copies the kept records as they are, neighbours at once, to behind the header. Returns the position after them. */
function copyRecords(target: Buffer, cursor: RecordCursor, { keep }: Selection): number {
  let at = RECORD_BATCH_OVERHEAD;
  let runStart = 0;
  let runEnd = 0;
  cursor.rewind();
  for (let i = 0; cursor.next(); i++) {
    if (keep[i] === 0) continue;
    if (cursor.recordStart !== runEnd) {
      at += cursor.buffer.copy(target, at, runStart, runEnd);
      runStart = cursor.recordStart;
    }
    runEnd = cursor.payloadEnd;
  }
  return at + cursor.buffer.copy(target, at, runStart, runEnd);
}

/** Copies the kept records with their times relative to the new horizon. Returns the position after them. */
function moveRecords(
  target: Buffer,
  cursor: RecordCursor,
  baseOffset: number,
  { keep, horizonMs = 0 }: Selection,
): number {
  let at = RECORD_BATCH_OVERHEAD;
  cursor.rewind();
  for (let i = 0; cursor.next(); i++) {
    if (keep[i] === 1) at = moveRecord(target, at, cursor, baseOffset, horizonMs);
  }
  return at;
}

function moveRecord(
  target: Buffer,
  start: number,
  cursor: RecordCursor,
  baseOffset: number,
  horizonMs: number,
): number {
  const { buffer, recordStart, payloadStart, payloadEnd } = cursor;
  const attributesAt = varintEnd(buffer, recordStart);
  const timestampDelta = cursor.timestampMs - horizonMs;
  if (!Number.isSafeInteger(timestampDelta)) {
    throw new LogError('CORRUPT_MESSAGE', `The record at offset ${cursor.offset} has a time beyond all others.`);
  }
  const offsetDelta = cursor.offset - baseOffset;
  const bodySize = 1 + varlongSize(timestampDelta) + varintSize(offsetDelta) + payloadEnd - payloadStart;
  let at = writeVarint(target, start, bodySize);
  target[at++] = buffer[attributesAt]!;
  at = writeVarlong(target, at, timestampDelta);
  at = writeVarint(target, at, offsetDelta);
  return at + buffer.copy(target, at, payloadStart, payloadEnd);
}

/** Writes the header of `original` before the uncompressed records in `target`, with what has changed. */
function writeHeader(target: Buffer, original: Buffer, selection: Selection): void {
  const { keptCount, maxTimestamp, horizonMs } = selection;
  original.copy(target, 0, 0, RECORD_BATCH_OVERHEAD);
  writeInt32(target, BATCH_LENGTH_AT, target.length - LOG_OVERHEAD);
  writeInt32(target, RECORD_COUNT_AT, keptCount);
  let attributes = target[ATTRIBUTES_AT + 1]! & ~CODEC_MASK;
  if (horizonMs !== undefined) {
    attributes |= DELETE_HORIZON_BIT;
    writeInt64(target, BASE_TIMESTAMP_AT, horizonMs);
  }
  target[ATTRIBUTES_AT + 1] = attributes;
  if (!isLogAppendTime(attributes)) {
    if (!Number.isSafeInteger(maxTimestamp)) {
      throw new LogError('CORRUPT_MESSAGE', `The batch at offset ${baseOffsetOf(original, 0)} has times beyond all.`);
    }
    writeInt64(target, MAX_TIMESTAMP_AT, maxTimestamp);
  }
  writeCrc(target, 0);
}
