/**
 * Judging batches by their headers, without opening a record: what recovery and reading need (`checkFraming`,
 * `checkBatch`), and what a producer's batch must satisfy before it is given an offset (`validateForAppend`).
 */
import { LogError } from '../core/errors.js';
import { computeBatchCrc } from './crc32c.js';
import {
  attributesOf,
  baseOffsetOf,
  baseSequenceOf,
  baseTimestampOf,
  CODEC_MASK,
  codecOf,
  hasDeleteHorizon,
  isControl,
  isLogAppendTime,
  isTransactional,
  LOG_OVERHEAD,
  lastOffsetDeltaOf,
  MAGIC,
  MAX_RECORDS_PER_BATCH,
  MAX_TIMESTAMP_MS,
  MIN_RECORD_BYTES,
  magicOf,
  maxTimestampOf,
  NO_TIMESTAMP,
  nextOffsetOf,
  producerEpochOf,
  producerIdOf,
  RECORD_BATCH_OVERHEAD,
  recordCountOf,
  sizeInBytesOf,
  storedCrcOf,
} from './layout.js';

/** Why the bytes `[at, end)` do not begin with a whole batch of format version 2, judged by size and magic alone. */
function checkSizeAndMagic(buf: Buffer, at: number, end: number): string | undefined {
  const available = end - at;
  if (available < RECORD_BATCH_OVERHEAD) {
    return `${available} bytes are left, fewer than a batch header of ${RECORD_BATCH_OVERHEAD}`;
  }
  // Magic first: it stands at the same place in every version of the format, and gives meaning to the rest.
  const magic = magicOf(buf, at);
  if (magic !== MAGIC) return `the magic is ${magic}, not ${MAGIC}`;
  const size = sizeInBytesOf(buf, at);
  if (size < RECORD_BATCH_OVERHEAD) {
    return `the batch length is ${size - LOG_OVERHEAD}, below the least possible, ${RECORD_BATCH_OVERHEAD - LOG_OVERHEAD}`;
  }
  if (size > available) return `the batch takes ${size} bytes, but ${available} are left`;
  return undefined;
}

/** Why that many records cannot be in a batch of `size` bytes, whatever the records are. */
function checkRecordsFit(buf: Buffer, at: number, size: number): string | undefined {
  const count = recordCountOf(buf, at);
  const sectionBytes = size - RECORD_BATCH_OVERHEAD;
  const compressed = (attributesOf(buf, at) & CODEC_MASK) !== 0;
  const leastBytes = compressed ? Math.min(count, 1) : count * MIN_RECORD_BYTES;
  if (leastBytes <= sectionBytes) return undefined;
  return `${count} records cannot fit in ${sectionBytes} bytes`;
}

/**
 * Why the bytes at `at` are not a whole batch that could be intact: size, magic, and counts and offsets that no writer
 * produces. Does not compute the CRC. Undefined when nothing speaks against it.
 */
export function checkFraming(buf: Buffer, at: number, end: number): string | undefined {
  const broken = checkSizeAndMagic(buf, at, end);
  if (broken !== undefined) return broken;
  const baseOffset = baseOffsetOf(buf, at);
  if (baseOffset < 0 || !Number.isSafeInteger(baseOffset)) return `the base offset ${baseOffset} is out of range`;
  const lastOffsetDelta = lastOffsetDeltaOf(buf, at);
  if (lastOffsetDelta < 0) return `the last offset delta ${lastOffsetDelta} is negative`;
  if (!Number.isSafeInteger(nextOffsetOf(buf, at))) return `the batch ends beyond the largest offset`;
  const count = recordCountOf(buf, at);
  // Fewer records than slots is what compaction leaves behind; more is impossible.
  if (count < 0 || count > lastOffsetDelta + 1) {
    return `a record count of ${count} does not go with a last offset delta of ${lastOffsetDelta}`;
  }
  return checkRecordsFit(buf, at, sizeInBytesOf(buf, at));
}

/** Why the bytes at `at` are not an intact batch: `checkFraming`, then the CRC. Undefined when they are. */
export function checkBatch(buf: Buffer, at: number, end: number): string | undefined {
  const broken = checkFraming(buf, at, end);
  if (broken !== undefined) return broken;
  return checkCrc(buf, at, sizeInBytesOf(buf, at));
}

function checkCrc(buf: Buffer, at: number, size: number): string | undefined {
  const stored = storedCrcOf(buf, at);
  const computed = computeBatchCrc(buf, at, size);
  if (stored === computed) return undefined;
  return `the CRC is ${hex32(computed)}, but the header says ${hex32(stored)}`;
}

function hex32(value: number): string {
  return value.toString(16).padStart(8, '0');
}

/**
 * Splits concatenated batches, as they lie in a log or a fetch response, into views of one batch each. Looks at size
 * and magic only: an intact batch with senseless content is for `validateForAppend` or `checkBatch` to judge.
 * @throws LogError CORRUPT_MESSAGE when the bytes do not divide into whole batches
 */
export function splitBatches(blob: Buffer): Buffer[] {
  const batches: Buffer[] = [];
  let at = 0;
  while (at < blob.length) {
    const broken = checkSizeAndMagic(blob, at, blob.length);
    if (broken !== undefined) {
      throw new LogError('CORRUPT_MESSAGE', `There is no whole record batch at byte ${at}: ${broken}.`, {
        metadata: { position: at },
      });
    }
    const next = at + sizeInBytesOf(blob, at);
    batches.push(blob.subarray(at, next));
    at = next;
  }
  return batches;
}

/** What a partition accepts. Times in ms since the epoch, spans in ms. */
export interface AppendLimits {
  /** Largest batch as it lies on the wire, compressed if it is (`max.message.bytes`). */
  readonly maxBatchBytes: number;
  readonly nowMs: number;
  /** How far a timestamp may lie in the future (`message.timestamp.after.max.ms`). */
  readonly timestampAfterMaxMs: number;
  /** How far a timestamp may lie in the past (`message.timestamp.before.max.ms`). */
  readonly timestampBeforeMaxMs: number;
  /** The broker sets the time (`message.timestamp.type=LogAppendTime`): the producer's is not judged. */
  readonly logAppendTime: boolean;
}

/**
 * Judges one batch of a producer, filling `batch` exactly, by its header; records are not opened. The checks and their
 * order are Kafka's.
 * @throws LogError CORRUPT_MESSAGE (size, magic, CRC), MESSAGE_TOO_LARGE, INVALID_RECORD, INVALID_TIMESTAMP,
 *   UNSUPPORTED_COMPRESSION_TYPE
 */
export function validateForAppend(batch: Buffer, limits: AppendLimits): void {
  validateEnvelope(batch, limits.maxBatchBytes);
  validateContent(batch);
  validateTimestamps(batch, limits);
}

/** Whether the bytes are what the producer sent, and not too many. */
function validateEnvelope(batch: Buffer, maxBatchBytes: number): void {
  const broken = checkSizeAndMagic(batch, 0, batch.length);
  if (broken !== undefined) throw corrupt(broken);
  if (baseOffsetOf(batch, 0) !== 0) {
    throw invalidRecord(`the base offset is ${baseOffsetOf(batch, 0)}; a producer sends 0 and the broker assigns it`);
  }
  const size = sizeInBytesOf(batch, 0);
  if (size !== batch.length) throw corrupt(`${batch.length - size} bytes follow the batch`);
  if (size > maxBatchBytes) {
    throw new LogError(
      'MESSAGE_TOO_LARGE',
      `The record batch takes ${size} bytes; this topic accepts at most ${maxBatchBytes}. ` +
        'Send smaller records or batches, or raise max.message.bytes of the topic.',
      { metadata: { actual_bytes: size, max_bytes: maxBatchBytes } },
    );
  }
  const crcMismatch = checkCrc(batch, 0, size);
  if (crcMismatch !== undefined) throw corrupt(crcMismatch);
}

function validateContent(batch: Buffer): void {
  const attributes = attributesOf(batch, 0);
  if (codecOf(attributes) === undefined) {
    throw new LogError(
      'UNSUPPORTED_COMPRESSION_TYPE',
      `The record batch names compression type ${attributes & CODEC_MASK}, which does not exist.`,
    );
  }
  const count = recordCountOf(batch, 0);
  if (count <= 0) throw invalidRecord(`the record count is ${count}; a produced batch holds at least one record`);
  const lastOffsetDelta = lastOffsetDeltaOf(batch, 0);
  if (lastOffsetDelta + 1 !== count) {
    throw invalidRecord(`the last offset delta ${lastOffsetDelta} does not go with a record count of ${count}`);
  }
  if (count > MAX_RECORDS_PER_BATCH) {
    throw invalidRecord(`it claims ${count} records; a batch holds at most ${MAX_RECORDS_PER_BATCH}`);
  }
  const misfit = checkRecordsFit(batch, 0, batch.length);
  if (misfit !== undefined) throw invalidRecord(misfit);
  if (isControl(attributes)) throw invalidRecord('control batches are written by the broker alone');
  if (hasDeleteHorizon(attributes)) throw invalidRecord('a delete horizon is set by compaction alone');
}

/**
 * Timestamps by the header: the largest one stands for all records, so that none needs to be opened. A batch without
 * a timestamp (-1) is accepted, as Kafka does.
 */
function validateTimestamps(batch: Buffer, limits: AppendLimits): void {
  if (isLogAppendTime(attributesOf(batch, 0))) {
    throw invalidTimestamp('the timestamp type LogAppendTime is set; only the broker sets it');
  }
  const base = baseTimestampOf(batch, 0);
  const max = maxTimestampOf(batch, 0);
  if (!isTimestamp(base) || !isTimestamp(max)) {
    throw invalidTimestamp(
      `its timestamps ${base} and ${max} are not both from ${NO_TIMESTAMP} to ${MAX_TIMESTAMP_MS} ms`,
    );
  }
  if (limits.logAppendTime) return;
  if (max < base) throw invalidTimestamp(`its largest timestamp ${max} lies before its first, ${base}`);
  if (max === NO_TIMESTAMP) return;
  const latest = limits.nowMs + limits.timestampAfterMaxMs;
  if (max > latest) {
    throw invalidTimestamp(`its largest timestamp ${max} lies after ${latest}, the latest that this topic accepts now`);
  }
  const earliest = limits.nowMs - limits.timestampBeforeMaxMs;
  if (max < earliest) {
    throw invalidTimestamp(
      `its largest timestamp ${max} lies before ${earliest}, the earliest that this topic accepts now`,
    );
  }
}

function isTimestamp(value: number): boolean {
  return value >= NO_TIMESTAMP && value <= MAX_TIMESTAMP_MS;
}

/**
 * Judges what a batch says of its producer. The id alone decides whether it has one: some clients send epoch 0 and sequence
 * 0 without being idempotent.
 * @returns whether it has one
 * @throws LogError INVALID_RECORD
 */
export function validateProducer(batch: Buffer): boolean {
  const producerId = producerIdOf(batch, 0);
  if (producerId < 0) {
    if (!isTransactional(attributesOf(batch, 0))) return false;
    throw invalidRecord('it is transactional and has no producer id');
  }
  if (!Number.isSafeInteger(producerId))
    throw invalidRecord(`its producer id ${producerId} is none that a broker gives`);
  const epoch = producerEpochOf(batch, 0);
  if (epoch < 0) throw invalidRecord(`it has producer id ${producerId} and the epoch ${epoch}`);
  const sequence = baseSequenceOf(batch, 0);
  if (sequence < 0) throw invalidRecord(`it has producer id ${producerId} and the sequence ${sequence}`);
  return true;
}

function corrupt(detail: string): LogError {
  return new LogError('CORRUPT_MESSAGE', `The record batch is corrupt: ${detail}.`);
}

function invalidRecord(detail: string): LogError {
  return new LogError('INVALID_RECORD', `The record batch is not acceptable: ${detail}.`);
}

function invalidTimestamp(detail: string): LogError {
  return new LogError('INVALID_TIMESTAMP', `The record batch is not acceptable: ${detail}.`);
}
