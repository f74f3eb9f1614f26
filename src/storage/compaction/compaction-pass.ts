/**
 * One pass of compaction by key, apart from files and threads: first the keys of the part that is not compacted yet are
 * mapped to their latest offsets, then every batch from the log start on is asked what of it is to stay.
 *
 * What stays, below the offset up to which keys were mapped:
 * - of each key the record with the highest offset; none without a key, none of an aborted transaction;
 * - a tombstone until its batch's delete horizon, which the pass sets that meets it first, has passed;
 * - a transaction's marker while anything of the transaction stays, then until a horizon of its own has passed;
 * - of a producer's last batch at least the header, which remembers its sequence, while the producer may come back.
 *
 * Offsets and record times never change. A batch that loses nothing stays the same bytes.
 */
import {
  attributesOf,
  baseOffsetOf,
  baseTimestampOf,
  hasDeleteHorizon,
  isControl,
  isTransactional,
  maxTimestampOf,
  nextOffsetOf,
  producerIdOf,
  recordCountOf,
} from '../../batch/layout.js';
import { openRecords, type RecordCursor } from '../../batch/records.js';
import { LogError } from '../../core/errors.js';
import { KeyMap } from './key-map.js';
import { emptied, rewrite } from './rewrite.js';
import { isTransactionMarker, TransactionMarkers } from './transactions.js';

/** Whole, intact batches in offset order: those that hold an offset in `[from, to)`. */
export type BatchSource = (from: number, to: number) => AsyncIterable<Buffer>;

/** Offsets, spans in ms, times in ms since the epoch. */
export interface PassOptions {
  /** Keys are mapped from here, where earlier passes ended, ... */
  readonly firstDirty: number;
  /** ... up to here; at most the last stable offset, so that every transaction below has its marker. */
  readonly upTo: number;
  readonly nowMs: number;
  readonly deleteRetentionMs: number;
  /** A producer whose last batch is older is not remembered. */
  readonly producerExpirationMs: number;
  /** Memory for the map of keys. */
  readonly maxMapBytes: number;
}

/** What is left of a batch: itself, another in its place, or nothing. */
type Cleaned = Buffer | undefined;

export class CompactionPass {
  /** Keys were mapped up to here: `upTo`, or less when the map was full. From here on everything stays. */
  cleanedOffset: number;
  recordsBefore = 0;
  recordsAfter = 0;
  /** Batches that cannot be opened, in spite of a CRC that holds: kept as they are. */
  unreadableBatches = 0;
  readonly #options: PassOptions;
  readonly #keys: KeyMap;
  /** Of the mapped range, by producer: base offset of the last batch of data, and of the last marker. */
  readonly #lastData = new Map<number, number>();
  readonly #lastMarker = new Map<number, number>();
  /** Undefined as long as no batch of a transaction was met. */
  #markers: TransactionMarkers | undefined;
  /** Producers of which something stays that no marker has followed yet. */
  readonly #unended = new Set<number>();

  private constructor(options: PassOptions) {
    this.#options = options;
    this.cleanedOffset = options.upTo;
    this.#keys = new KeyMap(options.maxMapBytes, options.upTo - options.firstDirty);
  }

  /** Maps the keys of the range. Whatever `source` throws goes through. */
  static async plan(source: BatchSource, options: PassOptions): Promise<CompactionPass> {
    const pass = new CompactionPass(options);
    await pass.#mapRange(source);
    return pass;
  }

  /**
   * What is to stay of a batch; the same buffer when it stays as it is, a promise only when it is compressed. To be
   * called with every batch in offset order, from the log start to the end of the segment that holds `cleanedOffset - 1`.
   */
  clean(batch: Buffer): Cleaned | Promise<Cleaned> {
    const count = recordCountOf(batch, 0);
    this.recordsBefore += count;
    if (baseOffsetOf(batch, 0) >= this.cleanedOffset) return this.#keepAll(batch);
    if (count === 0) return this.#cleanEmpty(batch);
    if (isControl(attributesOf(batch, 0))) return this.#cleanControl(batch);
    if (this.#isAborted(batch)) return this.#cleanEmpty(batch);
    const opened = this.#open(batch);
    if (opened instanceof Promise) return opened.then((cursor) => this.#cleanRecords(batch, cursor));
    return this.#cleanRecords(batch, opened);
  }

  async #mapRange(source: BatchSource): Promise<void> {
    const { firstDirty, upTo } = this.#options;
    for await (const batch of source(firstDirty, upTo)) {
      const attributes = attributesOf(batch, 0);
      const baseOffset = baseOffsetOf(batch, 0);
      if (isTransactional(attributes)) this.#markers ??= await survey(source, baseOffset, upTo);
      this.#noteProducer(batch, isControl(attributes) ? this.#lastMarker : this.#lastData);
      if (isControl(attributes) || recordCountOf(batch, 0) === 0 || this.#isAborted(batch)) continue;
      const fullAt = this.#mapRecords(await this.#open(batch));
      if (fullAt === undefined) continue;
      this.cleanedOffset = fullAt;
      return;
    }
  }

  #noteProducer(batch: Buffer, last: Map<number, number>): void {
    const producerId = producerIdOf(batch, 0);
    if (producerId >= 0) last.set(producerId, baseOffsetOf(batch, 0));
  }

  /** Offset of the first record whose key found no room; undefined when all did. */
  #mapRecords(cursor: RecordCursor | undefined): number | undefined {
    if (!cursor) return undefined;
    while (cursor.next()) {
      if (cursor.keyLength < 0 || cursor.offset < this.#options.firstDirty) continue;
      if (!this.#keys.put(cursor.buffer, cursor.keyStart, cursor.keyLength, cursor.offset)) return cursor.offset;
    }
    return undefined;
  }

  #isAborted(batch: Buffer): boolean {
    if (!this.#markers || !isTransactional(attributesOf(batch, 0))) return false;
    return this.#markers.isAborted(producerIdOf(batch, 0), baseOffsetOf(batch, 0));
  }

  /** A cursor over all records, each of which was looked at once; undefined when the batch does not hold together. */
  #open(batch: Buffer): RecordCursor | undefined | Promise<RecordCursor | undefined> {
    try {
      const opened = openRecords(batch);
      if (!(opened instanceof Promise)) return checked(opened);
      return opened.then(checked).catch(undefinedIfUnreadable);
    } catch (error) {
      return undefinedIfUnreadable(error);
    }
  }

  #keepAll(batch: Buffer): Buffer {
    this.recordsAfter += recordCountOf(batch, 0);
    this.#noteKept(batch);
    return batch;
  }

  /** Something of a transaction stays: so must its marker. */
  #noteKept(batch: Buffer): void {
    const attributes = attributesOf(batch, 0);
    if (isTransactional(attributes) && !isControl(attributes)) this.#unended.add(producerIdOf(batch, 0));
  }

  /** A batch without records, or whose records all go: its header stays if a producer is remembered by it. */
  #cleanEmpty(batch: Buffer): Cleaned {
    const producerId = producerIdOf(batch, 0);
    const isData = producerId >= 0 && !isControl(attributesOf(batch, 0));
    const isLast = (this.#lastData.get(producerId) ?? 0) <= baseOffsetOf(batch, 0);
    if (!isData || !isLast || this.#isExpired(batch)) return undefined;
    this.#noteKept(batch);
    return recordCountOf(batch, 0) === 0 ? batch : emptied(batch);
  }

  #isExpired(batch: Buffer): boolean {
    return maxTimestampOf(batch, 0) < this.#options.nowMs - this.#options.producerExpirationMs;
  }

  #cleanControl(batch: Buffer): Cleaned | Promise<Cleaned> {
    const producerId = producerIdOf(batch, 0);
    if (!isTransactionMarker(batch)) return this.#keepAll(batch);
    if (this.#unended.delete(producerId) || this.#isLastOfProducer(batch)) return this.#keepAll(batch);
    if (this.#hasHorizonPassed(batch)) return undefined;
    if (hasDeleteHorizon(attributesOf(batch, 0))) return this.#keepAll(batch);
    const opened = this.#open(batch);
    if (opened instanceof Promise || !opened) return this.#keepAll(batch);
    this.recordsAfter++;
    return rewrite(batch, opened, Uint8Array.of(1), this.#newHorizonMs);
  }

  /** Whether nothing that is known of the producer follows the marker: then it alone remembers the producer's epoch. */
  #isLastOfProducer(marker: Buffer): boolean {
    const producerId = producerIdOf(marker, 0);
    const offset = baseOffsetOf(marker, 0);
    const isLast = (this.#lastMarker.get(producerId) ?? 0) <= offset && (this.#lastData.get(producerId) ?? 0) < offset;
    return isLast && !this.#isExpired(marker);
  }

  #hasHorizonPassed(batch: Buffer): boolean {
    return hasDeleteHorizon(attributesOf(batch, 0)) && baseTimestampOf(batch, 0) <= this.#options.nowMs;
  }

  get #newHorizonMs(): number {
    return this.#options.nowMs + this.#options.deleteRetentionMs;
  }

  #cleanRecords(batch: Buffer, cursor: RecordCursor | undefined): Cleaned | Promise<Cleaned> {
    if (!cursor) {
      this.unreadableBatches++;
      return this.#keepAll(batch);
    }
    const keep = new Uint8Array(cursor.recordCount);
    const { kept, tombstones } = this.#choose(cursor, keep, this.#hasHorizonPassed(batch));
    if (kept === 0) return this.#cleanEmpty(batch);
    // What lies beyond the mapped keys is not clean yet, so the time of its tombstones does not run.
    const isClean = nextOffsetOf(batch, 0) <= this.cleanedOffset;
    const needsHorizon = tombstones > 0 && isClean && !hasDeleteHorizon(attributesOf(batch, 0));
    if (kept === cursor.recordCount && !needsHorizon) return this.#keepAll(batch);
    this.recordsAfter += kept;
    this.#noteKept(batch);
    return rewrite(batch, cursor, keep, needsHorizon ? this.#newHorizonMs : undefined);
  }

  /** Marks in `keep` the records that stay. */
  #choose(
    cursor: RecordCursor,
    keep: Uint8Array,
    dropTombstones: boolean,
  ): { readonly kept: number; readonly tombstones: number } {
    let kept = 0;
    let tombstones = 0;
    for (let i = 0; cursor.next(); i++) {
      const { offset, keyLength, valueLength } = cursor;
      if (offset < this.cleanedOffset) {
        const isTombstone = valueLength < 0;
        if (keyLength < 0 || (isTombstone && dropTombstones)) continue;
        if (this.#keys.get(cursor.buffer, cursor.keyStart, keyLength) > offset) continue;
        if (isTombstone) tombstones++;
      }
      keep[i] = 1;
      kept++;
    }
    return { kept, tombstones };
  }
}

/** Looks for the markers of a range, once it is known that there are transactions in it. */
async function survey(source: BatchSource, from: number, to: number): Promise<TransactionMarkers> {
  const markers = new TransactionMarkers();
  for await (const batch of source(from, to)) markers.add(batch);
  return markers;
}

/** Walks over all records, so that what is wrong with one shows before anything is decided. */
function checked(cursor: RecordCursor): RecordCursor {
  while (cursor.next());
  cursor.rewind();
  return cursor;
}

function undefinedIfUnreadable(error: unknown): undefined {
  if (error instanceof LogError) return undefined;
  throw error;
}
