/** The one timer of all transactions: calls for those whose time is over. */
import type { Clock, Timer } from '../../core/clock.js';
import { nextDeadlineMs } from './transaction.js';
import type { TransactionEntry } from './transaction-entry.js';

/** Deadlines are looked through this often at the most. */
const SPACING_MS = 20;
/** Aborted at once at the most: the others wait for their turn. */
const MAX_AT_ONCE = 500;
/** After an attempt that failed. */
const RETRY_MS = 1000;

export interface DeadlinesOptions {
  readonly clock: Clock;
  /** Those with an open transaction. */
  readonly open: () => Iterable<TransactionEntry>;
  /** Aborts what has taken too long. Rejects when that is to be tried again. */
  readonly expire: (entry: TransactionEntry) => Promise<void>;
}

export class Deadlines {
  readonly #options: DeadlinesOptions;
  #timer: { readonly timer: Timer; readonly dueMs: number } | undefined;
  readonly #expiring = new Set<TransactionEntry>();
  #notBeforeMs: number = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: DeadlinesOptions) {
    this.#options = options;
  }

  /** A transaction has begun. */
  note(entry: TransactionEntry): void {
    const dueMs = dueOf(entry);
    if (dueMs !== undefined) this.#arm(dueMs);
  }

  #arm(dueMs: number): void {
    if (this.#closed || (this.#timer !== undefined && this.#timer.dueMs <= dueMs)) return;
    this.#timer?.timer.cancel();
    const { clock } = this.#options;
    const delayMs = Math.max(1, Math.ceil(Math.max(dueMs, this.#notBeforeMs) - clock.monotonic()));
    this.#timer = { dueMs, timer: clock.setTimer(delayMs, () => this.#fired()) };
  }

  #fired(): void {
    this.#timer = undefined;
    const nowMs = this.#options.clock.monotonic();
    this.#notBeforeMs = nowMs + SPACING_MS;
    let nextMs = Number.POSITIVE_INFINITY;
    const due: TransactionEntry[] = [];
    for (const entry of this.#options.open()) {
      const dueMs = dueOf(entry);
      if (dueMs === undefined || this.#expiring.has(entry)) continue;
      if (dueMs <= nowMs && this.#expiring.size + due.length < MAX_AT_ONCE) due.push(entry);
      else nextMs = Math.min(nextMs, dueMs);
    }
    for (const entry of due) void this.#expire(entry);
    if (nextMs < Number.POSITIVE_INFINITY) this.#arm(nextMs);
  }

  /** Never rejects. */
  async #expire(entry: TransactionEntry): Promise<void> {
    this.#expiring.add(entry);
    try {
      await this.#options.expire(entry);
    } catch {
      entry.notBeforeMs = this.#options.clock.monotonic() + RETRY_MS;
    }
    this.#expiring.delete(entry);
    this.note(entry);
  }

  close(): void {
    this.#closed = true;
    this.#timer?.timer.cancel();
    this.#timer = undefined;
  }
}

function dueOf({ state, notBeforeMs }: TransactionEntry): number | undefined {
  const deadlineMs = nextDeadlineMs(state);
  return deadlineMs === undefined ? undefined : Math.max(deadlineMs, notBeforeMs);
}
