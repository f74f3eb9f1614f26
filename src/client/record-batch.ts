/** Batches and records as readers see them. */
import type { RecordHeader } from '../batch/builder.js';
import {
  attributesOf,
  baseOffsetOf,
  codecOf,
  isControl,
  lastOffsetDeltaOf,
  nextOffsetOf,
  recordCountOf,
  sizeInBytesOf,
} from '../batch/layout.js';
import { openRecords, type RecordCursor } from '../batch/records.js';
import { checkBatch, checkFraming } from '../batch/validate.js';
import { LogError } from '../core/errors.js';
import type { FetchedPartition } from '../rpc/messages.js';
import { abortedTransactions } from './isolation.js';
import { deserializeKey, deserializeValue, type Topic } from './serdes.js';

/** A record read from a topic. */
export interface ReadRecord<K, V> {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** ms since the epoch; -1 when the producer gave none. */
  readonly timestampMs: number;
  /** null: the record has no key. */
  readonly key: K | null;
  readonly value: V;
  readonly headers: readonly RecordHeader[];
}

/**
 * Walks the records of a batch without making an object of each. After `next()` returned true, the other members
 * describe the record that the cursor stands on; `key` and `value` are views made at every access.
 */
export interface BatchCursor {
  /** Moves on. False after the last record. @throws LogError CORRUPT_MESSAGE */
  next(): boolean;
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly RecordHeader[];
  /** What the positions below point into. */
  readonly buffer: Buffer;
  readonly keyStart: number;
  /** -1 for a null key. */
  readonly keyLength: number;
  readonly valueStart: number;
  /** -1 for a null value. */
  readonly valueLength: number;
}

/** Shows of another cursor only the offsets in `[from, to)`. */
class BoundedCursor implements BatchCursor {
  readonly #inner: BatchCursor;
  readonly #from: number;
  readonly #to: number;

  constructor(inner: BatchCursor, from: number, to: number) {
    this.#inner = inner;
    this.#from = from;
    this.#to = to;
  }

  next(): boolean {
    while (this.#inner.next()) {
      if (this.#inner.offset >= this.#to) return false;
      if (this.#inner.offset >= this.#from) return true;
    }
    return false;
  }

  get offset(): number {
    return this.#inner.offset;
  }
  get timestampMs(): number {
    return this.#inner.timestampMs;
  }
  get key(): Buffer | null {
    return this.#inner.key;
  }
  get value(): Buffer | null {
    return this.#inner.value;
  }
  get headers(): readonly RecordHeader[] {
    return this.#inner.headers;
  }
  get buffer(): Buffer {
    return this.#inner.buffer;
  }
  get keyStart(): number {
    return this.#inner.keyStart;
  }
  get keyLength(): number {
    return this.#inner.keyLength;
  }
  get valueStart(): number {
    return this.#inner.valueStart;
  }
  get valueLength(): number {
    return this.#inner.valueLength;
  }
}

/** The offsets `[from, to)` of what was asked for; `to` undefined: no end. */
export interface OffsetBounds {
  readonly from: number;
  readonly to: number | undefined;
}

/**
 * One record batch, or the part of it that was asked for: the records with offsets in `[baseOffset, nextOffset)`. Iterate over
 * it for its records; over a cursor where speed counts.
 */
export class RecordBatch<K, V> implements Iterable<ReadRecord<K, V>> {
  readonly partition: number;
  /** First offset of the batch, or of the part of it that was asked for. */
  readonly baseOffset: number;
  /** Offset to read on from. */
  readonly nextOffset: number;
  /** Records in it. Of a batch that compaction has thinned out, and only part of which was asked for, at most. */
  readonly count: number;
  /** Size of the whole batch as stored, compressed if it is. */
  readonly sizeInBytes: number;
  /** The partition's high watermark when the batch was sent. */
  readonly highWatermark: number;
  readonly #topic: Topic<K, V>;
  readonly #bytes: Buffer;
  readonly #isWhole: boolean;
  /** Of a compressed batch, once it was decompressed. */
  #opened: RecordCursor | undefined;

  /** Made by the reader, of bytes that were checked. */
  constructor(topic: Topic<K, V>, fetched: FetchedPartition, bytes: Buffer, { from, to }: OffsetBounds) {
    const base = baseOffsetOf(bytes, 0);
    const next = nextOffsetOf(bytes, 0);
    this.#topic = topic;
    this.#bytes = bytes;
    this.partition = fetched.partition;
    this.highWatermark = fetched.highWatermark;
    this.sizeInBytes = bytes.length;
    this.baseOffset = Math.max(base, from);
    this.nextOffset = to === undefined ? next : Math.min(next, to);
    this.#isWhole = this.baseOffset === base && this.nextOffset === next;
    const recordCount = recordCountOf(bytes, 0);
    this.count = this.#isWhole ? recordCount : Math.min(recordCount, this.nextOffset - this.baseOffset);
  }

  get topic(): string {
    return this.#topic.name;
  }

  /**
   * A new cursor before the first record; a promise when the batch is compressed.
   * @throws LogError CORRUPT_MESSAGE, MESSAGE_TOO_LARGE (more than 64 MiB decompressed), UNSUPPORTED_COMPRESSION_TYPE
   */
  cursor(): BatchCursor | Promise<BatchCursor> {
    const opened = this.#opened?.again() ?? openRecords(this.#bytes);
    if (this.#isWhole) return opened;
    const { baseOffset, nextOffset } = this;
    if (opened instanceof Promise) return opened.then((inner) => new BoundedCursor(inner, baseOffset, nextOffset));
    return new BoundedCursor(opened, baseOffset, nextOffset);
  }

  /**
   * All records, decoded; a promise when the batch is compressed.
   * @throws LogError as `cursor`; INVALID_RECORD when a serde refuses a record
   */
  records(): ReadRecord<K, V>[] | Promise<ReadRecord<K, V>[]> {
    const cursor = this.cursor();
    return cursor instanceof Promise ? cursor.then((opened) => this.#readAll(opened)) : this.#readAll(cursor);
  }

  /**
   * One record after the other, decoded as it goes.
   * @throws LogError as `records`; INVALID_REQUEST when the batch is compressed and could not be decompressed
   */
  *[Symbol.iterator](): Iterator<ReadRecord<K, V>, void, undefined> {
    const cursor = this.cursor();
    if (cursor instanceof Promise) {
      // It would reject for the reason that it could not be opened for.
      cursor.catch(() => undefined);
      throw new LogError(
        'INVALID_REQUEST',
        'The batch is compressed and could not be opened in advance: await its records() or its cursor(), which tell why.',
      );
    }
    while (cursor.next()) yield this.decode(cursor);
  }

  /** Whether its records can be had without waiting. */
  get isOpen(): boolean {
    return this.#opened !== undefined || codecOf(attributesOf(this.#bytes, 0)) === 'none';
  }

  /** For the client's own use: decompresses, if need be, so that nobody has to wait. Never rejects: `cursor` then does. */
  async open(): Promise<void> {
    if (this.isOpen) return;
    try {
      this.#opened = await openRecords(this.#bytes);
    } catch {
      // See above.
    }
  }

  /** The record that `cursor` stands on. */
  decode(cursor: BatchCursor): ReadRecord<K, V> {
    const { offset } = cursor;
    const at = { partition: this.partition, offset };
    return {
      topic: this.#topic.name,
      partition: this.partition,
      offset,
      timestampMs: cursor.timestampMs,
      key: deserializeKey(this.#topic, cursor.key, at),
      value: deserializeValue(this.#topic, cursor.value, at),
      headers: cursor.headers,
    };
  }

  #readAll(cursor: BatchCursor): ReadRecord<K, V>[] {
    const records: ReadRecord<K, V>[] = [];
    while (cursor.next()) records.push(this.decode(cursor));
    return records;
  }
}

/** Makes what is shown of a batch. */
export type MakeBatch<B> = (fetched: FetchedPartition, bytes: Buffer, bounds: OffsetBounds) => B;

/**
 * The batches of one message that hold anything within the bounds. Control batches are never shown, nor those of
 * transactions that the message names as aborted.
 * @throws LogError CORRUPT_MESSAGE, naming partition and offset, when the bytes are not what the broker had
 */
export function splitFetched<B>(
  fetched: FetchedPartition,
  bounds: OffsetBounds,
  verifyCrc: boolean,
  make: MakeBatch<B>,
): B[] {
  const { batches: blob } = fetched;
  const found: B[] = [];
  const aborted = abortedTransactions(fetched.abortedTransactions);
  let from = bounds.from;
  for (let at = 0; at < blob.length; ) {
    const broken = verifyCrc ? checkBatch(blob, at, blob.length) : checkFraming(blob, at, blob.length);
    if (broken !== undefined) throw corrupt(fetched.topic, fetched.partition, from, broken);
    const end = at + sizeInBytesOf(blob, at);
    const isShown = recordCountOf(blob, at) > 0 && !isControl(attributesOf(blob, at));
    const nextOffset = baseOffsetOf(blob, at) + lastOffsetDeltaOf(blob, at) + 1;
    const isWithin = nextOffset > from && (bounds.to === undefined || baseOffsetOf(blob, at) < bounds.to);
    if (isShown && isWithin && !aborted?.has(blob, at)) {
      found.push(make(fetched, blob.subarray(at, end), { from, to: bounds.to }));
    }
    from = Math.max(from, nextOffset);
    at = end;
  }
  return found;
}

function corrupt(topic: string, partition: number, offset: number, detail: string): LogError {
  return new LogError(
    'CORRUPT_MESSAGE',
    `What the broker sent of ${topic}-${partition} at offset ${offset} is corrupt: ${detail}.`,
    { metadata: { topic, partition, offset } },
  );
}
