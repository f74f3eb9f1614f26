import { readTransactionMarker } from '../../batch/control.js';
import {
  attributesOf,
  baseOffsetOf,
  baseSequenceOf,
  isControl,
  isTransactional,
  lastOffsetDeltaOf,
  NO_TIMESTAMP,
  nextOffsetOf,
  producerEpochOf,
  producerIdOf,
  sizeInBytesOf,
} from '../../batch/layout.js';
import type { LogError } from '../../core/errors.js';
import { AbortedTail } from './aborted-tail.js';
import { OpenTransactions } from './open-transactions.js';
import type { IdleProducers, ProducerBudget } from './producer-budget.js';
import {
  entryAfterBatch,
  entryAfterMarker,
  lastSequenceOf,
  NO_COORDINATOR_EPOCH,
  type ProducerEntry,
} from './producer-entry.js';
import {
  otherEpochOpen,
  outOfOrderSequence,
  outsideTransaction,
  producerFenced,
  tooManyProducers,
} from './producer-errors.js';
import { addToSequence, nextSequence } from './sequence.js';
import type { OpenTransaction, ProducerDescription } from './types.js';

/** Producers forgotten in one call because their time is over: some milliseconds of work at the most. */
const EXPIRED_PER_CALL = 10_000;

/** What is to become of a batch. */
export type ProducerVerdict = { readonly kind: 'append' } | DuplicateBatch | LogError;

/** A batch that is in the log already, and where. */
export interface DuplicateBatch {
  readonly kind: 'duplicate';
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** When it was appended, where the broker stamped that on it; else -1. */
  readonly logAppendTimeMs: number;
}

const APPEND: ProducerVerdict = { kind: 'append' };

export interface ProducerStatesOptions {
  /** Of the partition, for errors. */
  readonly topic: string;
  readonly partition: number;
  readonly budget: ProducerBudget;
  /** How long a producer is remembered that writes nothing, in ms. */
  readonly expirationMs: number;
}

/** What undoes the note of one batch. */
interface Undo {
  readonly producerId: number;
  readonly before: ProducerEntry | undefined;
  readonly ended: boolean;
  readonly aborted: boolean;
}

/**
 * The producers of one partition: what makes their batches idempotent, and their transactions. Pure: it sees batches, in
 * the order in which the log has them, and the time.
 *
 * What is noted since the last `settle` is provisional, until the log has taken the batches: `undoTo` takes it back.
 * Invariant: what is noted follows from the batches of the log alone, but for the time of the last write.
 */
export class ProducerStates implements IdleProducers {
  readonly #options: ProducerStatesOptions;
  /** Producers without an open transaction, the longest idle first. */
  readonly #idle = new Map<number, ProducerEntry>();
  readonly #open = new OpenTransactions();
  readonly aborted: AbortedTail = new AbortedTail();
  readonly #undo: Undo[] = [];

  constructor(options: ProducerStatesOptions) {
    this.#options = options;
  }

  get expirationMs(): number {
    return this.#options.expirationMs;
  }

  /** Producers that are remembered. */
  get count(): number {
    return this.#idle.size + this.#open.count;
  }

  get(producerId: number): ProducerEntry | undefined {
    return this.#open.get(producerId) ?? this.#idle.get(producerId);
  }

  /**
   * Judges a data batch by what was noted; changes nothing. Batches without a producer need no judgement.
   * @returns why it cannot be appended: PRODUCER_FENCED, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE, RESOURCE_LIMIT
   */
  check(batch: Buffer): ProducerVerdict {
    const entry = this.get(producerIdOf(batch, 0));
    if (entry === undefined) return this.#checkUnknown(batch);
    const duplicate = findDuplicate(entry, batch);
    if (duplicate !== undefined) return duplicate;
    const { epoch, transaction } = entry;
    const batchEpoch = producerEpochOf(batch, 0);
    if (batchEpoch < epoch) return producerFenced(this.#options, batch, epoch);
    const expected = batchEpoch > epoch ? 0 : nextSequence(lastSequenceOf(entry));
    if (baseSequenceOf(batch, 0) !== expected) return outOfOrderSequence(this.#options, batch, expected);
    if (transaction === undefined) return APPEND;
    if (!isTransactional(attributesOf(batch, 0))) return outsideTransaction(this.#options, batch);
    return batchEpoch === transaction.producerEpoch ? APPEND : otherEpochOpen(this.#options, batch, transaction);
  }

  /** A new producer may begin anywhere, because it may have been forgotten; but a transaction begins at 0. */
  #checkUnknown(batch: Buffer): ProducerVerdict {
    if (isTransactional(attributesOf(batch, 0)) && baseSequenceOf(batch, 0) !== 0) {
      return outOfOrderSequence(this.#options, batch, 0);
    }
    return this.#options.budget.hasRoom ? APPEND : tooManyProducers(this.#options, this.#options.budget.limit);
  }

  /** Takes note of the batch at `at`, which has its offsets: data of a producer, a marker, or anything else. */
  note(buf: Buffer, at: number, nowMs: number): void {
    if (producerIdOf(buf, at) < 0) return;
    if (isControl(attributesOf(buf, at))) this.#noteControl(buf, at, nowMs);
    else this.#noteData(buf, at, nowMs);
  }

  #noteData(buf: Buffer, at: number, nowMs: number): void {
    const producerId = producerIdOf(buf, at);
    const before = this.get(producerId);
    this.#undo.push({ producerId, before, ended: false, aborted: false });
    this.#replace(producerId, before, entryAfterBatch(before, buf, at, nowMs));
  }

  #noteControl(buf: Buffer, at: number, nowMs: number): void {
    if (!isTransactional(attributesOf(buf, at))) return;
    const marker = readTransactionMarker(buf.subarray(at, at + sizeInBytesOf(buf, at)));
    if (marker === undefined) return;
    const producerId = producerIdOf(buf, at);
    const before = this.get(producerId);
    const coordinatorEpoch = marker.coordinatorEpoch ?? before?.coordinatorEpoch ?? NO_COORDINATOR_EPOCH;
    this.#replace(producerId, before, entryAfterMarker(before, buf, at, coordinatorEpoch, nowMs));
    const transaction = before?.transaction;
    const aborted = transaction !== undefined && marker.outcome === 'abort';
    this.#undo.push({ producerId, before, ended: transaction !== undefined, aborted });
    if (transaction === undefined) return;
    const { firstOffset } = transaction;
    const lastOffset = baseOffsetOf(buf, at);
    this.#open.ended(firstOffset, lastOffset);
    const lastStableOffset = Math.min(this.#open.firstOffset, nextOffsetOf(buf, at));
    if (aborted) this.aborted.push({ producerId, firstOffset, lastOffset, lastStableOffset });
  }

  /** A point in what is noted that `undoTo` can go back to, until `settle`. */
  savepoint(): number {
    return this.#undo.length;
  }

  /** Takes back what was noted since then. */
  undoTo(savepoint: number): void {
    if (this.#undo.length === savepoint) return;
    for (const { producerId, before, ended, aborted } of this.#undo.splice(savepoint).reverse()) {
      this.#replace(producerId, this.get(producerId), before);
      if (ended) this.#open.undoEnded();
      if (aborted) this.aborted.pop();
    }
    this.#open.afterUndo();
  }

  /** What was noted is in the log and stays. @param durableOffset nothing below can be taken back any more */
  settle(durableOffset: number): void {
    this.#undo.length = 0;
    this.#open.settle(durableOffset);
  }

  #replace(producerId: number, before: ProducerEntry | undefined, after: ProducerEntry | undefined): void {
    const { budget } = this.#options;
    if (before === undefined && after !== undefined) budget.take(this);
    if (before !== undefined && after === undefined) budget.release(1);
    const hadIdle = this.#idle.size > 0;
    this.#idle.delete(producerId);
    if (after?.transaction === undefined) this.#open.delete(producerId);
    else this.#open.set(after);
    if (after !== undefined && after.transaction === undefined) this.#idle.set(producerId, after);
    this.#tellIdle(hadIdle);
  }

  #tellIdle(hadIdle: boolean): void {
    const hasIdle = this.#idle.size > 0;
    if (hasIdle !== hadIdle) this.#options.budget.setIdle(this, hasIdle);
  }

  get idleSinceMs(): number | undefined {
    if (this.#idle.size === 0) return undefined;
    for (const { lastWriteMs } of this.#idle.values()) return lastWriteMs;
    return undefined;
  }

  forgetIdlest(): void {
    for (const [producerId, entry] of this.#idle) {
      this.#replace(producerId, entry, undefined);
      return;
    }
  }

  /** Forgets producers that have written nothing for too long, at most 10,000 of them; never with an open transaction. */
  expire(nowMs: number): void {
    if (this.#idle.size === 0) return;
    const dueMs = nowMs - this.#options.expirationMs;
    let left = EXPIRED_PER_CALL;
    for (const [producerId, entry] of this.#idle) {
      if (entry.lastWriteMs > dueMs || left-- === 0) return;
      this.#replace(producerId, entry, undefined);
    }
  }

  /**
   * The first offset that a reader of committed records has to wait for: of the oldest transaction that is open, or whose
   * marker lies at or above the high watermark. Infinity when there is none.
   * @param highWatermark never below that of an earlier call
   */
  firstUnstableOffset(highWatermark: number): number {
    return this.#open.firstUnstableOffset(highWatermark);
  }

  /** In the order of their first offsets. */
  openTransactions(): readonly OpenTransaction[] {
    return this.#open.list();
  }

  /** Of these producers, those that are remembered; by default of all, in the order of `entries`. */
  describe(producerIds?: readonly number[]): readonly ProducerDescription[] {
    const entries = producerIds?.flatMap((producerId) => this.get(producerId) ?? []) ?? this.entries();
    return Array.from(entries, descriptionOf);
  }

  /** In the order of `entries`. */
  *producerIds(): Generator<number, void, void> {
    for (const { producerId } of this.entries()) yield producerId;
  }

  /** Those with an open transaction in the order of their first offsets, the others from the longest idle on. */
  *entries(): Generator<ProducerEntry, void, void> {
    yield* this.#open.entries();
    yield* this.#idle.values();
  }

  /** Puts back what `entries` gave; to be called before anything is noted. */
  restore(entry: ProducerEntry): void {
    this.#replace(entry.producerId, this.get(entry.producerId), entry);
  }

  /** Forgets everything. */
  clear(): void {
    this.#options.budget.setIdle(this, false);
    this.#options.budget.release(this.count);
    this.#idle.clear();
    this.#open.clear();
    this.aborted.restore([]);
    this.#undo.length = 0;
  }
}

function findDuplicate(entry: ProducerEntry, batch: Buffer): DuplicateBatch | undefined {
  if (producerEpochOf(batch, 0) !== entry.epoch) return undefined;
  const first = baseSequenceOf(batch, 0);
  const last = addToSequence(first, lastOffsetDeltaOf(batch, 0));
  for (const { firstSequence, lastSequence, baseOffset, lastOffset, timestampMs, logAppendTime } of entry.batches) {
    if (firstSequence !== first || lastSequence !== last) continue;
    return { kind: 'duplicate', baseOffset, lastOffset, logAppendTimeMs: logAppendTime ? timestampMs : NO_TIMESTAMP };
  }
  return undefined;
}

function descriptionOf(entry: ProducerEntry): ProducerDescription {
  return {
    producerId: entry.producerId,
    producerEpoch: entry.epoch,
    lastSequence: lastSequenceOf(entry),
    lastTimestampMs: entry.lastTimestampMs,
    openTransaction: entry.transaction,
  };
}
