/**
 * Encoding records into batches. `BatchBuilder` is the producer's inner loop: one buffer per batch, varints written in
 * place, no object and no closure per record.
 */
import { assert } from '../core/assert.js';
import { LogError } from '../core/errors.js';
import type { BufferPool } from './buffer-pool.js';
import {
  ATTRIBUTES_AT,
  BASE_SEQUENCE_AT,
  BASE_TIMESTAMP_AT,
  BATCH_LENGTH_AT,
  CONTROL_BIT,
  LAST_OFFSET_DELTA_AT,
  LOG_OVERHEAD,
  MAGIC,
  MAGIC_AT,
  MAX_RECORDS_PER_BATCH,
  MAX_TIMESTAMP_AT,
  MAX_TIMESTAMP_MS,
  MESSAGE_IDS_BIT,
  NO_LEADER_EPOCH,
  NO_PRODUCER_EPOCH,
  NO_PRODUCER_ID,
  NO_SEQUENCE,
  NO_TIMESTAMP,
  PRODUCER_EPOCH_AT,
  PRODUCER_ID_AT,
  RECORD_BATCH_OVERHEAD,
  RECORD_COUNT_AT,
  stampBatch,
  TRANSACTIONAL_BIT,
  writeCrc,
  writeInt32,
  writeInt64,
} from './layout.js';
import { varintSize, varlongSize, writeVarint, writeVarlong } from './varint.js';

/** One header of a record. Keys may repeat; order is kept. */
export interface RecordHeader {
  readonly key: string;
  readonly value: Uint8Array | null;
}

/** One record to encode. */
export interface RecordInput {
  /** ms since the epoch, or -1 for none. */
  readonly timestampMs: number;
  readonly key: Uint8Array | null;
  /** null is a tombstone on a compacted topic. */
  readonly value: Uint8Array | null;
  readonly headers?: readonly RecordHeader[];
}

/** Header fields of a batch beyond what its records say. */
export interface BatchOptions {
  /** Default 0, as a producer sends it. */
  readonly baseOffset?: number;
  /** Default -1, as a producer sends it. */
  readonly leaderEpoch?: number;
  /** Default -1: not idempotent. */
  readonly producerId?: number;
  readonly producerEpoch?: number;
  readonly baseSequence?: number;
  readonly transactional?: boolean;
  readonly control?: boolean;
  /** Whether each record carries its message id: only the broker says so. */
  readonly messageIds?: boolean;
}

const NO_OPTIONS: BatchOptions = {};
const NO_HEADERS: readonly RecordHeader[] = [];
const NO_BUFFER: Buffer = Buffer.alloc(0);

/** Largest batch that the format's 32-bit length can describe. */
const MAX_FORMAT_BYTES = 0x7fff_ffff;
/** Memory that an empty builder takes for its first batch, unless told what to expect. */
const FIRST_BUFFER_BYTES = 1024;
/** Below this, a loop over bytes is faster than the call to copy them. */
const LOOP_COPY_BYTES = 32;

/**
 * Collects records into one uncompressed batch.
 *
 * Invariants: `sizeInBytes` is the exact size of the batch that `build` would return; it exceeds the capacity only when
 * a single record does. Memory follows use: none when empty, and at most twice what the records take.
 */
export class BatchBuilder {
  readonly #capacityBytes: number;
  readonly #pool: BufferPool | undefined;
  #buffer: Buffer = NO_BUFFER;
  /** Size for the next buffer, by what the last batch needed. */
  #expectedBytes: number;
  #size = RECORD_BATCH_OVERHEAD;
  #recordCount = 0;
  #baseTimestamp = NO_TIMESTAMP;
  #maxTimestamp = NO_TIMESTAMP;

  /**
   * @param capacityBytes size, header included, that a batch of more than one record stays within
   * @param expectedBytes likely size of the first batch; only a hint
   * @param pool where buffers come from; whoever is done with a batch may give it back there
   */
  constructor(capacityBytes: number, expectedBytes: number = FIRST_BUFFER_BYTES, pool?: BufferPool) {
    this.#capacityBytes = Math.min(capacityBytes, MAX_FORMAT_BYTES);
    this.#expectedBytes = expectedBytes;
    this.#pool = pool;
  }

  get recordCount(): number {
    return this.#recordCount;
  }

  /** Size of the batch so far, its header included. */
  get sizeInBytes(): number {
    return this.#size;
  }

  /**
   * Appends one record; key, value and header values are copied.
   * @returns false when the record does not fit beside the others: the builder is unchanged, build it first. An empty
   *   builder takes a record of any size.
   * @throws LogError INVALID_TIMESTAMP, MESSAGE_TOO_LARGE (beyond what the format can describe)
   */
  tryAppend(
    timestampMs: number,
    key: Uint8Array | null,
    value: Uint8Array | null,
    headers: readonly RecordHeader[] = NO_HEADERS,
  ): boolean {
    if (!Number.isSafeInteger(timestampMs) || timestampMs < NO_TIMESTAMP || timestampMs > MAX_TIMESTAMP_MS) {
      throw invalidTimestamp(timestampMs);
    }
    const offsetDelta = this.#recordCount;
    if (offsetDelta === MAX_RECORDS_PER_BATCH) return false;
    const timestampDelta = offsetDelta === 0 ? 0 : timestampMs - this.#baseTimestamp;
    const bodySize =
      1 +
      varlongSize(timestampDelta) +
      varintSize(offsetDelta) +
      fieldSize(key) +
      fieldSize(value) +
      (headers.length === 0 ? 1 : headersSize(headers));
    const end = this.#size + varintSize(bodySize) + bodySize;
    if (end > this.#buffer.length && !this.#makeRoom(end)) return false;

    const buf = this.#buffer;
    let at = writeVarint(buf, this.#size, bodySize);
    buf[at++] = 0;
    at = writeVarlong(buf, at, timestampDelta);
    at = writeVarint(buf, at, offsetDelta);
    at = writeField(buf, at, key);
    at = writeField(buf, at, value);
    if (headers.length === 0) buf[at] = 0;
    else writeHeaders(buf, at, headers);

    if (offsetDelta === 0) {
      this.#baseTimestamp = timestampMs;
      this.#maxTimestamp = timestampMs;
    } else if (timestampMs > this.#maxTimestamp) {
      this.#maxTimestamp = timestampMs;
    }
    this.#recordCount = offsetDelta + 1;
    this.#size = end;
    return true;
  }

  /**
   * The finished, uncompressed batch with its CRC. The builder is empty afterwards and takes a new buffer for what comes
   * next, so the batch is the caller's. There must be at least one record.
   */
  build(options: BatchOptions = NO_OPTIONS): Buffer {
    assert(this.#recordCount > 0, 'a batch is built from at least one record');
    const batch = this.#buffer.subarray(0, this.#size);
    this.#writeHeader(batch, options);
    // An eighth more than last time, so that a steady load finds room for the whole batch at once.
    this.#expectedBytes = this.#size + (this.#size >>> 3);
    this.#buffer = NO_BUFFER;
    this.#size = RECORD_BATCH_OVERHEAD;
    this.#recordCount = 0;
    return batch;
  }

  #writeHeader(batch: Buffer, options: BatchOptions): void {
    const producerEpoch = options.producerEpoch ?? NO_PRODUCER_EPOCH;
    const attributes =
      (options.transactional ? TRANSACTIONAL_BIT : 0) |
      (options.control ? CONTROL_BIT : 0) |
      (options.messageIds ? MESSAGE_IDS_BIT : 0);
    stampBatch(batch, 0, options.baseOffset ?? 0, options.leaderEpoch ?? NO_LEADER_EPOCH);
    writeInt32(batch, BATCH_LENGTH_AT, batch.length - LOG_OVERHEAD);
    batch[MAGIC_AT] = MAGIC;
    batch[ATTRIBUTES_AT] = attributes >>> 8;
    batch[ATTRIBUTES_AT + 1] = attributes;
    writeInt32(batch, LAST_OFFSET_DELTA_AT, this.#recordCount - 1);
    writeInt64(batch, BASE_TIMESTAMP_AT, this.#baseTimestamp);
    writeInt64(batch, MAX_TIMESTAMP_AT, this.#maxTimestamp);
    writeInt64(batch, PRODUCER_ID_AT, options.producerId ?? NO_PRODUCER_ID);
    batch[PRODUCER_EPOCH_AT] = producerEpoch >>> 8;
    batch[PRODUCER_EPOCH_AT + 1] = producerEpoch;
    writeInt32(batch, BASE_SEQUENCE_AT, options.baseSequence ?? NO_SEQUENCE);
    writeInt32(batch, RECORD_COUNT_AT, this.#recordCount);
    writeCrc(batch, 0);
  }

  /** Makes the buffer hold `end` bytes, if the capacity or an empty builder's licence allows it. */
  #makeRoom(end: number): boolean {
    if (end > this.#capacityBytes) {
      if (this.#recordCount > 0) return false;
      if (end > MAX_FORMAT_BYTES) {
        throw new LogError('MESSAGE_TOO_LARGE', `A record batch holds at most ${MAX_FORMAT_BYTES} bytes.`, {
          metadata: { actual_bytes: end, max_bytes: MAX_FORMAT_BYTES },
        });
      }
    }
    const wanted = this.#recordCount === 0 ? this.#expectedBytes : this.#buffer.length * 2;
    const bytes = Math.max(end, Math.min(wanted, this.#capacityBytes));
    const grown = this.#pool?.take(bytes) ?? Buffer.allocUnsafe(bytes);
    if (this.#recordCount > 0) grown.set(this.#buffer.subarray(0, this.#size));
    this.#buffer = grown;
    return true;
  }
}

/**
 * One uncompressed batch of `records`, at least one.
 * @throws LogError INVALID_RECORD (no record, or more than 1,000,000), INVALID_TIMESTAMP, MESSAGE_TOO_LARGE
 */
export function encodeBatch(records: readonly RecordInput[], options: BatchOptions = NO_OPTIONS): Buffer {
  if (records.length === 0 || records.length > MAX_RECORDS_PER_BATCH) {
    throw new LogError(
      'INVALID_RECORD',
      `A record batch holds 1 to ${MAX_RECORDS_PER_BATCH} records, not ${records.length}.`,
    );
  }
  const builder = new BatchBuilder(MAX_FORMAT_BYTES, estimateSize(records));
  for (const record of records) {
    if (!builder.tryAppend(record.timestampMs, record.key, record.value, record.headers)) {
      throw new LogError('MESSAGE_TOO_LARGE', `A record batch holds at most ${MAX_FORMAT_BYTES} bytes.`, {
        metadata: { max_bytes: MAX_FORMAT_BYTES },
      });
    }
  }
  return builder.build(options);
}

/** About what the records take when encoded; a little more rather than less. */
function estimateSize(records: readonly RecordInput[]): number {
  // Lengths, deltas and counts of a record rarely take more than this.
  const perRecord = 14;
  let size = RECORD_BATCH_OVERHEAD + records.length * perRecord;
  for (const record of records) {
    size += (record.key?.length ?? 0) + (record.value?.length ?? 0);
    if (record.headers !== undefined) size += headersSize(record.headers);
  }
  return Math.min(size, MAX_FORMAT_BYTES);
}

function fieldSize(bytes: Uint8Array | null): number {
  return bytes === null ? 1 : varintSize(bytes.length) + bytes.length;
}

function writeField(buf: Buffer, at: number, bytes: Uint8Array | null): number {
  if (bytes === null) {
    buf[at] = 1; // the varint of -1
    return at + 1;
  }
  const length = bytes.length;
  const start = writeVarint(buf, at, length);
  if (length < LOOP_COPY_BYTES) for (let i = 0; i < length; i++) buf[start + i] = bytes[i]!;
  else buf.set(bytes, start);
  return start + length;
}

function headersSize(headers: readonly RecordHeader[]): number {
  let size = varintSize(headers.length);
  for (const header of headers) {
    const keyLength = Buffer.byteLength(header.key, 'utf8');
    size += varintSize(keyLength) + keyLength + fieldSize(header.value);
  }
  return size;
}

function writeHeaders(buf: Buffer, at: number, headers: readonly RecordHeader[]): void {
  let next = writeVarint(buf, at, headers.length);
  for (const header of headers) {
    next = writeVarint(buf, next, Buffer.byteLength(header.key, 'utf8'));
    next += buf.write(header.key, next, 'utf8');
    next = writeField(buf, next, header.value);
  }
}

function invalidTimestamp(timestampMs: number): LogError {
  return new LogError(
    'INVALID_TIMESTAMP',
    `A record's timestamp is a whole number of ms from ${NO_TIMESTAMP} to ${MAX_TIMESTAMP_MS}, not ${timestampMs}.`,
  );
}
