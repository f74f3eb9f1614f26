/**
 * Reading the records of a batch. `RecordCursor` walks them in place: positions and numbers only, bytes and headers
 * when asked for, so that a reader pays for what it looks at.
 */
import { LogError } from '../core/errors.js';
import type { RecordHeader } from './builder.js';
import { decompressRecords } from './compression.js';
import {
  attributesOf,
  baseOffsetOf,
  baseTimestampOf,
  CODEC_MASK,
  codecOf,
  isLogAppendTime,
  lastOffsetDeltaOf,
  MAX_RECORDS_PER_BATCH,
  MIN_RECORD_BYTES,
  maxTimestampOf,
  RECORD_BATCH_OVERHEAD,
  recordCountOf,
  sizeInBytesOf,
} from './layout.js';
import { checkFraming } from './validate.js';
import { readVarint, readVarlong, varintEnd } from './varint.js';

/** How much a reader is ready to unpack from one batch. */
export interface DecodeLimits {
  readonly maxRecords: number;
  /** Largest records section after decompression. */
  readonly maxDecompressedBytes: number;
}

/**
 * The broker accepts no batch that claims more records. 64 MiB is 64 times the largest batch that a topic takes by
 * default: more than records compress in earnest, and a size that a process survives.
 */
export const DEFAULT_DECODE_LIMITS: DecodeLimits = {
  maxRecords: MAX_RECORDS_PER_BATCH,
  maxDecompressedBytes: 64 * 1024 * 1024,
};

const NO_HEADERS: readonly RecordHeader[] = [];
/** Lengths of key and value, one byte each: no header is smaller. */
const MIN_HEADER_BYTES = 2;

/** Facts of the batch header that records are relative to. */
interface BatchFacts {
  readonly recordCount: number;
  readonly baseOffset: number;
  readonly lastOffsetDelta: number;
  readonly baseTimestampMs: number;
  /** The time of every record, where the batch has LogAppendTime. */
  readonly appendTimeMs: number | undefined;
}

/**
 * A position among the records of one batch, before the first to begin with. After `next()` returned true the other
 * members describe the record it stands on; they are its own to write. Byte views (`key`, `value`) are made anew at
 * every access and share memory with the batch.
 *
 * Invariant: every record that `next()` stands on lies wholly inside the records section, was consumed exactly, and has
 * an offset above the one before.
 */
export class RecordCursor {
  /** Uncompressed records section, or a buffer that contains it: what `keyStart` and `valueStart` point into. */
  readonly buffer: Buffer;
  /** Number of records that `next()` will have stood on at the end. */
  readonly recordCount: number;
  offset: number;
  /** ms since the epoch, -1 for none. */
  timestampMs: number;
  keyStart: number;
  /** Bytes of the key, -1 for null. */
  keyLength: number;
  valueStart: number;
  /** Bytes of the value, -1 for null. */
  valueLength: number;
  /** Where the record begins in `buffer`, with its length. */
  recordStart: number;
  /** Where the part begins that depends on neither offset nor time: key length, key, value, headers. */
  payloadStart: number;
  /** Where the record ends. */
  payloadEnd: number;

  readonly #facts: BatchFacts;
  readonly #start: number;
  readonly #end: number;
  readonly #baseOffset: number;
  readonly #baseTimestampMs: number;
  #at: number;
  #index: number;
  #offsetDelta: number;
  #headersStart: number;
  #headerCount: number;

  /** Use `openRecords`. The records lie in `buffer` from `start` to `end`. */
  constructor(buffer: Buffer, start: number, end: number, facts: BatchFacts) {
    this.buffer = buffer;
    this.recordCount = facts.recordCount;
    this.#facts = facts;
    this.#start = start;
    this.#end = end;
    this.#baseOffset = facts.baseOffset;
    this.#baseTimestampMs = facts.baseTimestampMs;
    this.offset = -1;
    this.timestampMs = -1;
    this.keyStart = 0;
    this.keyLength = -1;
    this.valueStart = 0;
    this.valueLength = -1;
    this.recordStart = start;
    this.payloadStart = start;
    this.payloadEnd = start;
    this.#at = start;
    this.#index = 0;
    this.#offsetDelta = -1;
    this.#headersStart = 0;
    this.#headerCount = 0;
  }

  /**
   * Moves to the next record.
   * @returns false after the last one
   * @throws LogError CORRUPT_MESSAGE when the bytes are not a record, or not as many as the header says; the
   *   cursor is of no further use then
   */
  next(): boolean {
    if (this.#index === this.recordCount) {
      if (this.#at !== this.#end) throw this.#corrupt(`${this.#end - this.#at} bytes follow the last record`);
      return false;
    }
    const recordStart = this.#at;
    const bodyLength = this.#readVarint();
    const recordEnd = this.#at + bodyLength;
    // The fixed parts of the body; with them inside, the reads below stay within one varint of the section.
    if (bodyLength < MIN_RECORD_BYTES - 1 || recordEnd > this.#end) {
      throw this.#corrupt(`its length ${bodyLength} does not fit in the ${this.#end - this.#at} bytes that are left`);
    }
    this.#at++; // attributes: no bit has a meaning
    const timestampDelta = this.#readVarlong();
    const offsetDelta = this.#readVarint();
    const facts = this.#facts;
    if (offsetDelta <= this.#offsetDelta || offsetDelta > facts.lastOffsetDelta) {
      throw this.#corrupt(`its offset delta ${offsetDelta} is not between its neighbours'`);
    }
    this.recordStart = recordStart;
    this.payloadStart = this.#at;
    this.payloadEnd = recordEnd;
    this.keyLength = this.#readVarint();
    this.keyStart = this.#at;
    if (this.keyLength > 0) this.#at += this.keyLength;
    this.valueLength = this.#at < recordEnd ? this.#readVarint() : -2;
    this.valueStart = this.#at;
    if (this.valueLength > 0) this.#at += this.valueLength;
    const headerCount = this.#at < recordEnd ? this.#readVarint() : -1;
    if (this.keyLength < -1 || this.valueLength < -1 || headerCount < 0 || this.#at > recordEnd) {
      throw this.#corrupt('its key, value or header count reaches beyond it');
    }
    this.#headerCount = headerCount;
    this.#headersStart = this.#at;
    if (headerCount > 0) this.#skipHeaders(recordEnd);
    if (this.#at !== recordEnd) throw this.#corrupt(`${recordEnd - this.#at} of its bytes belong to no field`);

    this.#offsetDelta = offsetDelta;
    this.offset = this.#baseOffset + offsetDelta;
    this.timestampMs = facts.appendTimeMs ?? this.#baseTimestampMs + timestampDelta;
    this.#index++;
    return true;
  }

  /** Another cursor over the same records, before the first one. */
  again(): RecordCursor {
    return new RecordCursor(this.buffer, this.#start, this.#end, this.#facts);
  }

  /** Back to before the first record. */
  rewind(): void {
    this.#at = this.#start;
    this.#index = 0;
    this.#offsetDelta = -1;
  }

  get key(): Buffer | null {
    return this.keyLength < 0 ? null : this.buffer.subarray(this.keyStart, this.keyStart + this.keyLength);
  }

  get value(): Buffer | null {
    return this.valueLength < 0 ? null : this.buffer.subarray(this.valueStart, this.valueStart + this.valueLength);
  }

  /** Decoded at every access; keys that are not UTF-8 come out with replacement characters. */
  get headers(): readonly RecordHeader[] {
    return this.#headerCount === 0 ? NO_HEADERS : this.#readHeaders();
  }

  #readVarint(): number {
    const buf = this.buffer;
    let at = this.#at;
    let byte = buf[at++]!;
    let zigzag = byte & 0x7f;
    if (byte & 0x80) {
      byte = buf[at++]!;
      zigzag |= (byte & 0x7f) << 7;
      if (byte & 0x80) return this.#readLongVarint();
    }
    this.#at = at;
    return (zigzag >>> 1) ^ -(zigzag & 1);
  }

  #readLongVarint(): number {
    const value = readVarint(this.buffer, this.#at);
    if (value === undefined) throw this.#corrupt('a number in it takes more than 5 bytes');
    this.#at = varintEnd(this.buffer, this.#at);
    return value;
  }

  #readVarlong(): number {
    const byte = this.buffer[this.#at]!;
    if (!(byte & 0x80)) {
      this.#at++;
      return (byte >>> 1) ^ -(byte & 1);
    }
    const value = readVarlong(this.buffer, this.#at);
    if (value === undefined) throw this.#corrupt('its timestamp takes more than 10 bytes');
    this.#at = varintEnd(this.buffer, this.#at);
    return value;
  }

  /** Checks the headers' lengths and moves behind them, keeping nothing. */
  #skipHeaders(recordEnd: number): void {
    if (this.#headerCount > (recordEnd - this.#at) / MIN_HEADER_BYTES) {
      throw this.#corrupt(`its ${this.#headerCount} headers cannot fit in ${recordEnd - this.#at} bytes`);
    }
    for (let i = 0; i < this.#headerCount; i++) {
      const keyLength = this.#readVarint();
      if (keyLength < 0) throw this.#corrupt('a header has no key');
      this.#at += keyLength;
      if (this.#at >= recordEnd) throw this.#corrupt('a header reaches beyond it');
      const valueLength = this.#readVarint();
      if (valueLength < -1) throw this.#corrupt(`a header value has the length ${valueLength}`);
      if (valueLength > 0) this.#at += valueLength;
      if (this.#at > recordEnd) throw this.#corrupt('a header reaches beyond it');
    }
  }

  /** The headers that `#skipHeaders` has checked. */
  #readHeaders(): readonly RecordHeader[] {
    const buf = this.buffer;
    const headers: RecordHeader[] = [];
    let at = this.#headersStart;
    for (let i = 0; i < this.#headerCount; i++) {
      const keyStart = varintEnd(buf, at);
      const keyEnd = keyStart + (readVarint(buf, at) ?? 0);
      const valueLength = readVarint(buf, keyEnd) ?? -1;
      at = varintEnd(buf, keyEnd);
      const key = buf.toString('utf8', keyStart, keyEnd);
      const value = valueLength < 0 ? null : buf.subarray(at, at + valueLength);
      if (valueLength > 0) at += valueLength;
      headers.push({ key, value });
    }
    return headers;
  }

  #corrupt(detail: string): LogError {
    const at = `record ${this.#index} of ${this.recordCount} in the batch at offset ${this.#baseOffset}`;
    return new LogError('CORRUPT_MESSAGE', `Broken records, ${at}: ${detail}.`, {
      metadata: { base_offset: this.#baseOffset, record_index: this.#index },
    });
  }
}

/**
 * A cursor over the records of one batch that fills `batch` exactly. At once when the batch is not compressed, else a
 * promise. What the header claims is held against `limits` before any memory is spent on it. The CRC is not checked:
 * that is for whoever took the bytes from a disk or a wire.
 * @throws LogError CORRUPT_MESSAGE, MESSAGE_TOO_LARGE (more than `limits`), UNSUPPORTED_COMPRESSION_TYPE
 */
export function openRecords(
  batch: Buffer,
  limits: DecodeLimits = DEFAULT_DECODE_LIMITS,
): RecordCursor | Promise<RecordCursor> {
  const broken = checkFraming(batch, 0, batch.length);
  if (broken !== undefined) throw new LogError('CORRUPT_MESSAGE', `The record batch is corrupt: ${broken}.`);
  if (sizeInBytesOf(batch, 0) !== batch.length) {
    throw new LogError('CORRUPT_MESSAGE', 'The record batch is corrupt: bytes follow it.');
  }
  const recordCount = recordCountOf(batch, 0);
  if (recordCount > limits.maxRecords) {
    throw new LogError(
      'MESSAGE_TOO_LARGE',
      `The record batch claims ${recordCount} records; at most ${limits.maxRecords} are read from one batch.`,
      { metadata: { actual_records: recordCount, max_records: limits.maxRecords } },
    );
  }
  const attributes = attributesOf(batch, 0);
  const codec = codecOf(attributes);
  if (codec === undefined) {
    throw new LogError(
      'UNSUPPORTED_COMPRESSION_TYPE',
      `The record batch names compression type ${attributes & CODEC_MASK}, which does not exist.`,
    );
  }
  const facts = batchFacts(batch, recordCount, attributes);
  // What compaction has emptied has no records section at all, whatever codec the batch once had.
  if (codec === 'none' || recordCount === 0) return new RecordCursor(batch, RECORD_BATCH_OVERHEAD, batch.length, facts);
  return openCompressed(batch, facts, limits);
}

function batchFacts(batch: Buffer, recordCount: number, attributes: number): BatchFacts {
  return {
    recordCount,
    baseOffset: baseOffsetOf(batch, 0),
    lastOffsetDelta: lastOffsetDeltaOf(batch, 0),
    // Also where it is a delete horizon: compaction encodes the deltas relative to that.
    baseTimestampMs: baseTimestampOf(batch, 0),
    appendTimeMs: isLogAppendTime(attributes) ? maxTimestampOf(batch, 0) : undefined,
  };
}

async function openCompressed(batch: Buffer, facts: BatchFacts, limits: DecodeLimits): Promise<RecordCursor> {
  const codec = codecOf(attributesOf(batch, 0)) ?? 'none';
  const section = await decompressRecords(batch.subarray(RECORD_BATCH_OVERHEAD), codec, limits.maxDecompressedBytes);
  if (facts.recordCount * MIN_RECORD_BYTES > section.length) {
    throw new LogError(
      'CORRUPT_MESSAGE',
      `The record batch is corrupt: ${facts.recordCount} records cannot fit in ${section.length} bytes.`,
    );
  }
  return new RecordCursor(section, 0, section.length, facts);
}
