/**
 * One pass of log compaction, free of files, clocks and engines: first the latest offset of each key is mapped, then
 * every batch from the log start on is judged against that map. The rules are Kafka's; what they leave open:
 *
 * - Tombstones and markers go in the first pass with `nowMs >= ` their delete horizon.
 * - A batch whose records cannot be read, or not be written again, stays as it is: nothing goes in favour of what is in
 *   it, and no tombstone behind it goes for its age, because a reader that can open it still needs them.
 * - A batch that the mapped range ends in gets no horizon yet: the rest of it has not become clean.
 * - Which transactions were aborted is found from their markers. A transaction whose marker lies beyond what may be read
 *   ends the mapped range, because its records can neither supersede others nor go.
 */
import {
  attributesOf,
  baseOffsetOf,
  baseTimestampOf,
  hasDeleteHorizon,
  isControl,
  isTransactional,
  MAX_TIMESTAMP_MS,
  NO_TIMESTAMP,
  nextOffsetOf,
  producerIdOf,
  recordCountOf,
} from '../../batch/layout.js';
import { openRecords, RecordCursor } from '../../batch/records.js';
import { LogError, type Reason } from '../../core/errors.js';
import { KeyMap } from './key-map.js';
import { LastBatchesOfProducers } from './producers.js';
import { emptied, thinnedOut } from './rewrite.js';
import { markerTypeOf, TransactionOutcomes } from './transactions.js';

export { emptied } from './rewrite.js';

/**
 * Whole, intact batches in offset order: those that hold an offset in [from, to). A second iteration may begin while one
 * is under way. The bytes of a batch need to stay only until the next one of the same iteration is asked for.
 */
export type BatchSource = (from: number, to: number) => AsyncIterable<Buffer>;

/** What a pass may do. Times in ms since the epoch, spans in ms. */
export interface PassOptions {
  /** Everything below was cleaned by earlier passes. */
  readonly firstDirty: number;
  /** Nothing at or above is touched: at most the last stable offset. */
  readonly upTo: number;
  /** How far the source may be read for the markers of transactions that begin below `upTo`; default `upTo`. */
  readonly markersUpTo?: number;
  readonly nowMs: number;
  readonly deleteRetentionMs: number;
  readonly producerExpirationMs: number;
  readonly maxMapBytes: number;
}

/** What a pass was given and what it made of it. */
export interface PassCounters {
  /** Records, control records among them. */
  readonly recordsBefore: number;
  readonly recordsAfter: number;
  /** Batches kept as they are because their records could not be read, or not be written again. */
  readonly unreadableBatches: number;
}

type Cleaned = Buffer | undefined;

/** What is the fault of a batch's content, not of the pass. */
const UNREADABLE: ReadonlySet<Reason> = new Set([
  'CORRUPT_MESSAGE',
  'MESSAGE_TOO_LARGE',
  'UNSUPPORTED_COMPRESSION_TYPE',
]);

/** What the map phase found out. */
interface Plan {
  readonly keys: KeyMap;
  readonly producers: LastBatchesOfProducers;
  readonly outcomes: TransactionOutcomes;
  readonly cleanedOffset: number;
}

export class CompactionPass {
  /** End of what was mapped, and of what this pass cleans: `upTo`, or less. */
  readonly cleanedOffset: number;
  readonly #plan: Plan;
  readonly #nowMs: number;
  readonly #newHorizonMs: number;
  /** Producers of whose current transaction something was kept. */
  readonly #keptSinceMarker = new Set<number>();
  #keep = new Uint8Array(1024);
  readonly #counters = { recordsBefore: 0, recordsAfter: 0, unreadableBatches: 0 };

  private constructor(plan: Plan, options: PassOptions) {
    this.#plan = plan;
    this.cleanedOffset = plan.cleanedOffset;
    this.#nowMs = options.nowMs;
    this.#newHorizonMs = Math.min(options.nowMs + options.deleteRetentionMs, MAX_TIMESTAMP_MS);
  }

  /**
   * Maps the keys of [firstDirty, upTo), or of as much of it as the map holds. `cleanedOffset` is then above
   * `firstDirty`, unless the range begins with a transaction that has no marker within reach, or is empty.
   * @throws what the source throws
   */
  static async plan(source: BatchSource, options: PassOptions): Promise<CompactionPass> {
    return new CompactionPass(await mapKeys(source, options), options);
  }

  get counters(): PassCounters {
    return this.#counters;
  }

  /**
   * What a batch becomes: itself when it stays as it is, a new one, or undefined when nothing of it is kept. To be called
   * with every batch, filling its buffer exactly, from the log start to the end of the segment that holds
   * `cleanedOffset - 1`; in offset order, each call after the one before has been answered. At once for batches that are
   * not compressed, which may take the caller a while without a turn of the event loop.
   */
  clean(batch: Buffer): Promise<Cleaned> | Cleaned {
    const cleaned = this.#judge(batch);
    if (!(cleaned instanceof Promise)) return this.#account(batch, cleaned);
    return cleaned.then((result) => this.#account(batch, result));
  }

  /**
   * What stands where a batch was of which `clean` has just left nothing, so that what was read keeps its end: its
   * header. It counts as kept: the marker of its transaction stays, or who reads the log would take that for open.
   */
  placeholder(batch: Buffer): Buffer {
    this.#noteKept(batch);
    return emptied(batch);
  }

  #account(batch: Buffer, cleaned: Cleaned): Cleaned {
    this.#counters.recordsBefore += recordCountOf(batch, 0);
    if (cleaned === undefined) return undefined;
    this.#counters.recordsAfter += recordCountOf(cleaned, 0);
    this.#noteKept(batch);
    return cleaned;
  }

  #noteKept(batch: Buffer): void {
    const attributes = attributesOf(batch, 0);
    if (isTransactional(attributes) && !isControl(attributes)) this.#keptSinceMarker.add(producerIdOf(batch, 0));
  }

  #judge(batch: Buffer): Promise<Cleaned> | Cleaned {
    const attributes = attributesOf(batch, 0);
    const isMarker = isControl(attributes);
    // Whatever becomes of a marker, it ends its transaction.
    const restOfTransaction = isMarker && this.#keptSinceMarker.delete(producerIdOf(batch, 0));
    if (baseOffsetOf(batch, 0) >= this.cleanedOffset) return batch;
    if (recordCountOf(batch, 0) === 0) return this.#withoutRecords(batch);
    if (isMarker) return restOfTransaction ? batch : this.#cleanControl(batch);
    if (isAborted(this.#plan.outcomes, batch)) return this.#endsClean(batch) ? this.#withoutRecords(batch) : batch;
    return this.#cleanReadable(batch);
  }

  /** What is left of a batch all of whose records go. */
  #withoutRecords(batch: Buffer): Cleaned {
    return this.#endsClean(batch) && !this.#plan.producers.isHeld(batch) ? undefined : emptied(batch);
  }

  /** Whether all of the batch lies in what this pass cleans. */
  #endsClean(batch: Buffer): boolean {
    return nextOffsetOf(batch, 0) <= this.cleanedOffset;
  }

  /** A control batch of whose transaction nothing is left. */
  #cleanControl(batch: Buffer): Promise<Cleaned> | Cleaned {
    if (markerTypeOf(batch) === undefined || this.#plan.producers.isHeld(batch)) return batch;
    if (hasDeleteHorizon(attributesOf(batch, 0))) return this.#isPastHorizon(batch) ? undefined : batch;
    return this.#cleanReadable(batch);
  }

  /** Removes what is to go from a batch; one whose content makes that impossible stays as it is. */
  #cleanReadable(batch: Buffer): Promise<Cleaned> | Cleaned {
    try {
      const cleaned = this.#openAndThin(batch);
      return cleaned instanceof Promise ? cleaned.catch((error) => this.#unreadable(batch, error)) : cleaned;
    } catch (error) {
      return this.#unreadable(batch, error);
    }
  }

  #unreadable(batch: Buffer, error: unknown): Buffer {
    if (!isUnreadable(error)) throw error;
    this.#counters.unreadableBatches++;
    return batch;
  }

  #openAndThin(batch: Buffer): Promise<Cleaned> | Cleaned {
    const cursor = openRecords(batch);
    if (cursor instanceof RecordCursor) return this.#thin(batch, cursor);
    return cursor.then((opened) => this.#thin(batch, opened));
  }

  #thin(batch: Buffer, cursor: RecordCursor): Promise<Cleaned> | Cleaned {
    const count = cursor.recordCount;
    if (this.#keep.length < count) this.#keep = new Uint8Array(count);
    const keep = this.#keep;
    const control = isControl(attributesOf(batch, 0));
    const dropTombstones = this.#mayDropTombstones(batch);
    let keptCount = 0;
    let keptBytes = 0;
    let maxTimestamp: number = NO_TIMESTAMP;
    let needsHorizon = control;
    for (let i = 0; cursor.next(); i++) {
      const kept = control || this.#isKept(cursor, dropTombstones);
      keep[i] = kept ? 1 : 0;
      if (!kept) continue;
      keptCount++;
      keptBytes += cursor.payloadEnd - cursor.recordStart;
      if (cursor.timestampMs > maxTimestamp) maxTimestamp = cursor.timestampMs;
      if (cursor.valueLength < 0) needsHorizon = true;
    }
    if (keptCount === 0) return this.#withoutRecords(batch);
    const horizonMs = needsHorizon && this.#mayGetHorizon(batch) ? this.#newHorizonMs : undefined;
    if (keptCount === count && horizonMs === undefined) return batch;
    return thinnedOut(batch, cursor, { keep, keptCount, keptBytes, maxTimestamp, horizonMs });
  }

  /** Whether the record that `cursor` stands on stays. */
  #isKept(cursor: RecordCursor, dropTombstones: boolean): boolean {
    if (cursor.offset >= this.cleanedOffset) return true;
    if (cursor.keyLength < 0 || (dropTombstones && cursor.valueLength < 0)) return false;
    return cursor.offset >= this.#plan.keys.get(cursor.buffer, cursor.keyStart, cursor.keyLength);
  }

  #mayDropTombstones(batch: Buffer): boolean {
    // What an earlier batch holds that could not be cleaned may be what a tombstone deletes: it would come back.
    return (
      this.#counters.unreadableBatches === 0 && hasDeleteHorizon(attributesOf(batch, 0)) && this.#isPastHorizon(batch)
    );
  }

  #isPastHorizon(batch: Buffer): boolean {
    return this.#nowMs >= baseTimestampOf(batch, 0);
  }

  #mayGetHorizon(batch: Buffer): boolean {
    return !hasDeleteHorizon(attributesOf(batch, 0)) && this.#endsClean(batch);
  }
}

function isUnreadable(error: unknown): boolean {
  return error instanceof LogError && UNREADABLE.has(error.reason);
}

function isAborted(outcomes: TransactionOutcomes, batch: Buffer): boolean {
  return isTransactional(attributesOf(batch, 0)) && outcomes.isAborted(producerIdOf(batch, 0), baseOffsetOf(batch, 0));
}

async function mapKeys(source: BatchSource, options: PassOptions): Promise<Plan> {
  const { firstDirty, upTo, nowMs, producerExpirationMs, maxMapBytes } = options;
  // No more keys than offsets: a short range needs no large map.
  const keys = new KeyMap(maxMapBytes, Math.max(upTo - firstDirty, 0));
  const producers = new LastBatchesOfProducers(nowMs - producerExpirationMs);
  let outcomes: TransactionOutcomes | undefined;
  let end = upTo;
  for await (const batch of source(firstDirty, upTo)) {
    const attributes = attributesOf(batch, 0);
    if (outcomes === undefined && isTransactional(attributes) && !isControl(attributes)) {
      outcomes = await surveyTransactions(source, baseOffsetOf(batch, 0), options);
      end = Math.min(end, outcomes.firstUndecided);
    }
    if (baseOffsetOf(batch, 0) >= end) break;
    producers.note(batch);
    if (isControl(attributes) || recordCountOf(batch, 0) === 0) continue;
    if (outcomes !== undefined && isAborted(outcomes, batch)) continue;
    const mapping = mapBatch(keys, batch, firstDirty, end);
    const mappedTo = typeof mapping === 'number' ? mapping : await mapping;
    if (mappedTo < end) {
      end = mappedTo;
      break;
    }
  }
  const cleanedOffset = Math.max(end, Math.min(firstDirty, upTo));
  return { keys, producers, outcomes: outcomes ?? new TransactionOutcomes(upTo), cleanedOffset };
}

/**
 * Finds the markers of the transactions that begin in [from, upTo): within it, and beyond it as far as allowed while one
 * has none.
 */
async function surveyTransactions(
  source: BatchSource,
  from: number,
  options: PassOptions,
): Promise<TransactionOutcomes> {
  const { upTo, markersUpTo = upTo } = options;
  const outcomes = new TransactionOutcomes(from);
  for await (const batch of source(from, Math.max(upTo, markersUpTo))) {
    const isBeyond = baseOffsetOf(batch, 0) >= upTo;
    if (isBeyond && !outcomes.hasUndecided) break;
    // Transactions that begin beyond the range do not matter.
    if (!isBeyond || isControl(attributesOf(batch, 0))) outcomes.note(batch);
  }
  return outcomes;
}

/**
 * Puts the keys of a batch's records in [firstDirty, end) into the map, or none when the batch cannot be read.
 * @returns `end`, or the offset of the record that did not fit
 */
function mapBatch(keys: KeyMap, batch: Buffer, firstDirty: number, end: number): Promise<number> | number {
  try {
    const cursor = openRecords(batch);
    if (cursor instanceof RecordCursor) return mapRecords(keys, cursor, firstDirty, end);
    return cursor.then((opened) => mapRecords(keys, opened, firstDirty, end)).catch((error) => skipped(error, end));
  } catch (error) {
    return skipped(error, end);
  }
}

function skipped(error: unknown, end: number): number {
  if (!isUnreadable(error)) throw error;
  return end;
}

function mapRecords(keys: KeyMap, cursor: RecordCursor, firstDirty: number, end: number): number {
  // All or nothing: a batch that breaks off stays as it is, and nothing may be dropped in favour of what is in it.
  while (cursor.next());
  cursor.rewind();
  while (cursor.next()) {
    const { offset, keyLength } = cursor;
    if (offset >= end) break;
    if (keyLength < 0 || offset < firstDirty) continue;
    if (!keys.put(cursor.buffer, cursor.keyStart, keyLength, offset)) return offset;
  }
  return end;
}
