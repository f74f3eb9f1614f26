/** Reads what the log keeps of transactions at the start, and ends what an earlier run of the broker has left. */
import type { Clock, Timer } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import type { GroupCoordinatorApi, PendingTransactions } from '../groups/coordinator-types.js';
import type { Topics } from '../topics.js';
import type { HangingTransaction } from './coordinator-types.js';
import { Recovery } from './recovery.js';
import { isPrepared, restoreTransaction } from './transaction.js';
import type { TransactionEntry } from './transaction-entry.js';
import type { TransactionRunner } from './transaction-runner.js';
import type { TransactionShards } from './transaction-shards.js';
import type { TransactionTable } from './transaction-table.js';
import { isSameIdentity, type OpenRemains } from './transaction-types.js';

/** Between two looks for what nobody ends. */
const SWEEP_INTERVAL_MS = 10_000;
/** After an attempt that failed. */
const RETRY_MS = 1000;
const GROUPS_RETRY_MS = 50;
const SLICE_MS = 5;

export interface UpkeepOptions {
  readonly topics: Topics;
  readonly groups: Pick<GroupCoordinatorApi, 'endTransaction' | 'pendingTransactions'>;
  readonly table: TransactionTable;
  readonly shards: TransactionShards;
  readonly runner: TransactionRunner;
  /** Whether nothing can be missing of what was accepted before this start. */
  readonly startedClean: boolean;
  /** The longest that a transaction may take, in ms. */
  readonly maxTimeoutMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted when the coordinator closes. */
  readonly signal: AbortSignal;
}

export class Upkeep {
  readonly #options: UpkeepOptions;
  readonly #recovery: Recovery;
  #loaded = false;
  readonly #loading: Promise<void>;
  #timer: Timer | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #stopped = false;
  /** Aborts of what restarts have left. */
  readonly #recovering = new Set<Promise<void>>();

  constructor(options: UpkeepOptions) {
    this.#options = options;
    this.#recovery = new Recovery({
      ...options,
      isIncomplete: () => options.shards.failure !== undefined,
      abort: (entry, open) => this.#abortRemains(entry, open),
    });
    this.#loading = this.#load();
  }

  /** Whether transactions are served: what is open has an owner, or is about to be aborted. */
  get isLoaded(): boolean {
    return this.#loaded;
  }

  /** See `Recovery.hanging`. */
  async hanging(): Promise<readonly HangingTransaction[]> {
    return await this.#recovery.hanging();
  }

  /** Never rejects. */
  async #load(): Promise<void> {
    const { clock, logger, startedClean, topics, shards, table, runner, signal } = this.#options;
    try {
      const loaded = await shards.load();
      const pending = await this.#pendingOnceLoaded();
      signal.throwIfAborted();
      const suspect = !startedClean || pending.incomplete !== undefined || topics.failures().length > 0;
      const slices = new Slices(clock, SLICE_MS);
      for (const { shard, transactionalId, stored } of loaded) {
        const entry = table.add(shard, restoreTransaction(transactionalId, stored, suspect));
        if (isPrepared(entry.state)) runner.complete(entry);
        await slices.step();
        signal.throwIfAborted();
      }
      await this.#recovery.run(pending.found);
      this.#loaded = true;
      this.#planSweep();
    } catch (error) {
      if (!signal.aborted) logger.error({ err: error }, 'defect in the reading of transactions');
    }
  }

  async #pendingOnceLoaded(): Promise<PendingTransactions> {
    const { groups, clock, logger, signal } = this.#options;
    for (;;) {
      const pending = groups.pendingTransactions();
      const { incomplete } = pending;
      if (incomplete?.reason !== 'COORDINATOR_LOAD_IN_PROGRESS') {
        if (incomplete !== undefined) {
          const { reason } = incomplete;
          logger.warn({ reason, err: incomplete }, 'some groups cannot tell what offsets of transactions they have');
        }
        return pending;
      }
      await clock.sleep(GROUPS_RETRY_MS, signal);
    }
  }

  #planSweep(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.setTimer(SWEEP_INTERVAL_MS, () => {
      this.#sweeping = this.#sweep();
    });
  }

  /** Never rejects. */
  async #sweep(): Promise<void> {
    const { groups, logger } = this.#options;
    try {
      // Groups that are read anew tell the next time.
      await this.#recovery.run(groups.pendingTransactions().found);
    } catch (error) {
      logger.error({ err: error }, 'defect in the search for transactions that nobody ends');
    }
    this.#planSweep();
  }

  /** Until it has come to be, nothing is added under this id. */
  #abortRemains(entry: TransactionEntry, open: OpenRemains): void {
    const aborting = this.#untilAborted(entry, open);
    this.#recovering.add(aborting);
    void aborting.finally(() => this.#recovering.delete(aborting));
  }

  /** Never rejects. */
  async #untilAborted(entry: TransactionEntry, open: OpenRemains): Promise<void> {
    const { clock, logger, signal } = this.#options;
    const { transactionalId } = entry;
    entry.recovering++;
    logger.info({ transactionalId, ...open.identity }, 'what was open when the broker stopped is aborted');
    while (!signal.aborted) {
      try {
        await this.#abortOnce(entry, open);
        break;
      } catch (error) {
        logger.warn({ transactionalId, err: error }, 'a transaction cannot be aborted for now; it is tried again');
        await clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
    entry.recovering--;
  }

  /** Resolves when the abort is decided, or there is nothing to decide any more. @throws LogError */
  async #abortOnce(entry: TransactionEntry, open: OpenRemains): Promise<void> {
    for (;;) {
      const { kind } = await this.#options.runner.apply(entry, { kind: 'recovered-open', open });
      if (kind !== 'waits' || isSameIdentity(open.identity, entry.state.identity)) return;
      // The transaction before it, which was decided, comes first.
      await entry.completed();
    }
  }

  /** Begins nothing more. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** Resolves when nothing is under way; to be called when the signal is aborted. */
  async close(): Promise<void> {
    this.stop();
    await Promise.all([this.#loading, this.#sweeping]);
    await Promise.all(this.#recovering);
  }
}
