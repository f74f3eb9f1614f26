/** A transactional id that is kept: its state, and what is under way for it. */
import { assert } from '../../core/assert.js';
import { isPrepared } from './transaction.js';
import { concurrentTransactions } from './transaction-errors.js';
import type { TransactionShard } from './transaction-shard.js';
import type { TransactionState } from './transaction-types.js';

/** Calls that wait for their turn under one transactional id; more are refused. */
const MAX_QUEUED = 1000;

export class TransactionEntry {
  readonly shard: TransactionShard;
  /** As it is durable; an open transaction is not. Set by the table. */
  state: TransactionState;
  /** A change is on its way to the log: nothing is added to the transaction meanwhile. */
  isChanging = false;
  /** What a restart has left is about to be aborted: the same. */
  recovering = 0;
  /** By the monotonic clock: before this a timeout is not acted upon, because the last attempt failed. */
  notBeforeMs: number = Number.NEGATIVE_INFINITY;
  /** Offsets that are being added; they are settled before the transaction is decided. */
  readonly adding: Set<Promise<unknown>> = new Set();
  #tail: Promise<void> = Promise.resolve();
  #queued = 0;
  #completing: Promise<void> | undefined;

  constructor(shard: TransactionShard, state: TransactionState) {
    this.shard = shard;
    this.state = state;
  }

  get transactionalId(): string {
    return this.state.transactionalId;
  }

  /** Whether nothing is under way that would change it. */
  get isIdle(): boolean {
    return this.#queued === 0 && this.#completing === undefined && this.recovering === 0 && this.adding.size === 0;
  }

  /**
   * For calls of producers: what the broker itself has to do always gets its turn.
   * @throws LogError CONCURRENT_TRANSACTIONS: too many wait
   */
  checkRoom(): void {
    if (this.#queued >= MAX_QUEUED) throw concurrentTransactions(this.transactionalId, this.state.identity);
  }

  /** One at a time, in the order of the calls. */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#tail;
    let release = (): void => undefined;
    this.#tail = new Promise((resolve) => {
      release = resolve;
    });
    this.#queued++;
    await before;
    try {
      return await work();
    } finally {
      this.#queued--;
      release();
    }
  }

  /** The completing of the decided transaction has begun; it rejects with why that is left to the next start. */
  complete(completing: Promise<void>): void {
    const done = completing.then(() => {
      this.#completing = undefined;
    });
    // Whoever wants to know asks; nobody has to.
    done.catch(() => undefined);
    this.#completing = done;
  }

  /** Resolves when the decided transaction is completed. @throws LogError BROKER_DRAINING, INTERNAL */
  async completed(): Promise<void> {
    const isUnderWay = this.#completing !== undefined || !isPrepared(this.state);
    assert(isUnderWay, `nobody completes what is decided of ${this.transactionalId}`);
    await this.#completing;
  }
}
