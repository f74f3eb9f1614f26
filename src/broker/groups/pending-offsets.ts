/** Offsets of one group that wait for the end of a transaction. */
import { partitionKey } from '../../core/types.js';
import type { PendingTransaction } from './coordinator-types.js';
import { type CommittedOffsets, unitsOf } from './offsets.js';
import type { OffsetPlace } from './records.js';

/** An offset that is committed if its transaction is. */
export interface PendingOffset extends OffsetPlace {
  readonly topic: string;
  readonly offset: number;
  readonly leaderEpoch: number;
  readonly metadata: string;
  /** See `StoredOffset.order`. */
  readonly order: number;
}

/** Of one transaction; by `partitionKey`. Never changed: another takes its place. */
export interface PendingOffsets {
  readonly producerEpoch: number;
  readonly offsets: ReadonlyMap<string, PendingOffset>;
}

/** What waits of a producer changes; undefined: nothing waits any more. */
export interface PendingChange {
  readonly producerId: number;
  readonly value: PendingOffsets | undefined;
}

/** What they count for where committed offsets are bounded; see `unitsOf`. */
export function pendingUnitsOf(pending: PendingOffsets | undefined): number {
  let units = 0;
  for (const offset of pending?.offsets.values() ?? []) units += unitsOf(offset);
  return units;
}

type Holder = Omit<PendingTransaction, 'groupId'>;

/** What waits, by producer and by partition. */
export class PendingTable {
  readonly #ofProducer = new Map<number, PendingOffsets>();
  readonly #producersOf = new Map<string, Set<number>>();
  #units = 0;

  get isEmpty(): boolean {
    return this.#ofProducer.size === 0;
  }

  get units(): number {
    return this.#units;
  }

  get(producerId: number): PendingOffsets | undefined {
    return this.#ofProducer.get(producerId);
  }

  set({ producerId, value }: PendingChange): void {
    const before = this.#ofProducer.get(producerId);
    if (before === value) return;
    for (const key of before?.offsets.keys() ?? []) this.#release(producerId, key);
    for (const key of value?.offsets.keys() ?? []) this.#hold(producerId, key);
    this.#units += pendingUnitsOf(value) - pendingUnitsOf(before);
    if (value === undefined) this.#ofProducer.delete(producerId);
    else this.#ofProducer.set(producerId, value);
  }

  #hold(producerId: number, key: string): void {
    const producers = this.#producersOf.get(key);
    if (producers === undefined) this.#producersOf.set(key, new Set([producerId]));
    else producers.add(producerId);
  }

  #release(producerId: number, key: string): void {
    const producers = this.#producersOf.get(key);
    producers?.delete(producerId);
    if (producers?.size === 0) this.#producersOf.delete(key);
  }

  *holders(): Iterable<Holder> {
    for (const [producerId, { producerEpoch }] of this.#ofProducer) yield { producerId, producerEpoch };
  }

  /** Somebody with an offset of the partition; undefined: nobody. */
  holderOf(place: OffsetPlace): Holder | undefined {
    for (const producerId of this.#producersOf.get(partitionKey(place)) ?? []) {
      return { producerId, producerEpoch: this.#ofProducer.get(producerId)!.producerEpoch };
    }
    return undefined;
  }
}

/** There while something waits, or is on its way to the log. */
export class GroupTransactions {
  /** As of the last event, and as the log has it. */
  readonly latest: PendingTable = new PendingTable();
  readonly durable: PendingTable = new PendingTable();
  /** Producers of which the two may differ. */
  readonly #changing = new Set<number>();
  /** Of offsets that are on their way to be committed, by partition. */
  readonly #orders = new Map<string, number>();

  get isEmpty(): boolean {
    return this.latest.isEmpty && this.durable.isEmpty;
  }

  /** What the log has, when it is read. */
  restore(change: PendingChange): void {
    this.latest.set(change);
    this.durable.set(change);
  }

  /** What is on its way to the log. */
  change(change: PendingChange): void {
    this.#changing.add(change.producerId);
    this.latest.set(change);
  }

  /** An offset with this order is on its way to be committed. */
  expect(place: OffsetPlace, order: number): void {
    this.#orders.set(partitionKey(place), order);
  }

  /** Of the last offset of the partition that is committed, or on its way to be; 0: of none that matters. */
  orderAt(place: OffsetPlace, committed: CommittedOffsets): number {
    return Math.max(this.#orders.get(partitionKey(place)) ?? 0, committed.get(place)?.order ?? 0);
  }

  /** Nothing is on its way to the log any more, for all of it is there. */
  settle(): void {
    this.#changing.clear();
    this.#orders.clear();
  }

  /** Back to what is durable. */
  undo(): void {
    for (const producerId of this.#changing) this.latest.set({ producerId, value: this.durable.get(producerId) });
    this.settle();
  }
}
