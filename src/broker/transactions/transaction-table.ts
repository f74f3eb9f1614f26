/** All transactional ids that are served, and what they come to. */
import { isNew, newTransaction } from './transaction.js';
import { TransactionEntry } from './transaction-entry.js';
import type { TransactionShard } from './transaction-shard.js';
import type { TransactionState } from './transaction-types.js';

/** Invariant: `adopt` alone changes states, so that the indexes follow them. */
export class TransactionTable {
  readonly #entries = new Map<string, TransactionEntry>();
  readonly #byProducerId = new Map<number, TransactionEntry>();
  readonly #open = new Set<TransactionEntry>();
  #openPlaces = 0;

  get size(): number {
    return this.#entries.size;
  }

  /** Partitions and groups of all transactions that are open or being completed. */
  get openPlaces(): number {
    return this.#openPlaces;
  }

  /** With an open transaction. */
  get open(): ReadonlySet<TransactionEntry> {
    return this.#open;
  }

  entries(): IterableIterator<TransactionEntry> {
    return this.#entries.values();
  }

  /** Undefined too for one that nobody has initialised so far. */
  get(transactionalId: string): TransactionEntry | undefined {
    const entry = this.#entries.get(transactionalId);
    return entry === undefined || isNew(entry.state) ? undefined : entry;
  }

  /** The one that there is, or one that stays if it is initialised. */
  findOrMake(transactionalId: string, shard: () => TransactionShard): TransactionEntry {
    return this.#entries.get(transactionalId) ?? this.add(shard(), newTransaction(transactionalId));
  }

  has(transactionalId: string): boolean {
    return this.#entries.has(transactionalId);
  }

  add(shard: TransactionShard, state: TransactionState): TransactionEntry {
    const entry = new TransactionEntry(shard, state);
    this.#entries.set(state.transactionalId, entry);
    this.#enter(entry);
    return entry;
  }

  /** Who has the producer id, or has it while a transaction is completed. */
  ownerOf(producerId: number): TransactionEntry | undefined {
    return this.#byProducerId.get(producerId);
  }

  adopt(entry: TransactionEntry, state: TransactionState): void {
    if (entry.state === state) return;
    this.#leave(entry);
    entry.state = state;
    this.#enter(entry);
  }

  /** Drops an entry that nobody has come to initialise, or that was removed from the log. */
  dropUnused(entry: TransactionEntry): void {
    const { transactionalId } = entry;
    const isUnused = isNew(entry.state) && entry.isIdle && this.#entries.get(transactionalId) === entry;
    if (isUnused) this.#entries.delete(transactionalId);
  }

  #enter(entry: TransactionEntry): void {
    const { status, identity, next, partitions, groups } = entry.state;
    if (identity.producerId >= 0) this.#byProducerId.set(identity.producerId, entry);
    if (next !== undefined) this.#byProducerId.set(next.producerId, entry);
    if (status === 'ongoing') this.#open.add(entry);
    this.#openPlaces += partitions.size + groups.size;
  }

  #leave(entry: TransactionEntry): void {
    const { identity, next, partitions, groups } = entry.state;
    this.#byProducerId.delete(identity.producerId);
    if (next !== undefined) this.#byProducerId.delete(next.producerId);
    this.#open.delete(entry);
    this.#openPlaces -= partitions.size + groups.size;
  }
}
