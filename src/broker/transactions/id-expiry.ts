/** Removes transactional ids that nobody has used for long, at an interval. */
import type { Clock, Timer } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import { isNew, isPrepared } from './transaction.js';
import type { TransactionEntry } from './transaction-entry.js';

const INTERVAL_MS = 3_600_000;
const SLICE_MS = 5;
/** Removed together: one write makes all of them durable. */
const BATCH = 500;

export interface IdExpiryOptions {
  readonly entries: () => Iterable<TransactionEntry>;
  /** By the wall clock, in ms. */
  readonly expirationMs: number;
  readonly remove: (entry: TransactionEntry) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class IdExpiry {
  readonly #options: IdExpiryOptions;
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: IdExpiryOptions) {
    this.#options = options;
    this.#plan();
  }

  #plan(): void {
    if (this.#closed) return;
    this.#timer = this.#options.clock.setTimer(INTERVAL_MS, () => {
      this.#running = this.#run();
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    try {
      await this.#pass();
    } catch (error) {
      const message = 'transactional ids that have expired could not be removed; it is tried again';
      this.#options.logger.warn({ err: error }, message);
    }
    this.#plan();
  }

  /** @throws LogError the first write that failed */
  async #pass(): Promise<void> {
    const { entries, clock, remove } = this.#options;
    const slices = new Slices(clock, SLICE_MS);
    let removals: Promise<void>[] = [];
    for (const entry of [...entries()]) {
      if (this.#closed) break;
      if (this.isExpired(entry)) removals.push(remove(entry));
      if (removals.length >= BATCH) {
        await Promise.all(removals);
        removals = [];
      }
      await slices.step();
    }
    await Promise.all(removals);
  }

  /** Only what nothing is open or under way for. */
  isExpired({ state, isIdle }: TransactionEntry): boolean {
    const { clock, expirationMs } = this.#options;
    const isBetween = state.status !== 'ongoing' && !isPrepared(state) && !isNew(state);
    return isBetween && isIdle && state.updateMs <= clock.now() - expirationMs;
  }

  /** Begins nothing more. */
  stop(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Resolves when nothing is under way. */
  async close(): Promise<void> {
    this.stop();
    await this.#running;
  }
}
