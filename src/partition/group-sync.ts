import { partitionPoint } from '../core/binary-search.js';
import type { Clock, Timer } from '../core/clock.js';
import { type LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import type { PartitionLog } from '../storage/engine.js';

/** Data written but not asked to be durable is synced once this much has gathered, whatever flush.ms says. */
const FLUSH_BYTES = 8 * 1024 * 1024;
/** The same when somebody will ask for it soon: worth a sync, which is over by then with some luck. */
const FLUSH_SOON_BYTES = 64 * 1024;

/** After a sync that could not begin, for want of a file handle, the next one comes this much later. */
const RETRY_MS = 1000;

/** Somebody who waits until the log is durable up to an offset. */
export interface DurabilityWaiter {
  readonly endOffset: number;
  readonly resolve: () => void;
  readonly reject: (error: LogError) => void;
}

export interface GroupSyncOptions {
  readonly topic: string;
  readonly log: PartitionLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly flushMs: number;
}

/**
 * When what was appended to a log is synced, and who is told: one sync covers all that was written before it began, so
 * that those who wait share it. It comes at once while a producer waits for it or a reader stands at the tail, else when
 * much has gathered or flush.ms is over.
 */
export class GroupSync {
  readonly #topic: string;
  readonly #log: PartitionLog;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #flushMs: number;
  /** Ascending by offset. */
  readonly #waiters: DurabilityWaiter[] = [];
  readonly #listeners = new Set<() => void>();
  /** The run of syncs under way, if any. Never rejects. */
  #run: Promise<void> | undefined;
  #wanted = false;
  #unsyncedBytes = 0;
  #flushBytes = FLUSH_BYTES;
  #timer: Timer | undefined;

  constructor({ topic, log, clock, logger, flushMs }: GroupSyncOptions) {
    this.#topic = topic;
    this.#log = log;
    this.#clock = clock;
    this.#logger = logger;
    this.#flushMs = flushMs;
  }

  /**
   * Takes note of bytes that the log has; `plan` is to follow.
   * @param isNeededSoon whether somebody will ask for their durability soon
   */
  noteWritten(byteLength: number, isNeededSoon: boolean): void {
    this.#unsyncedBytes += byteLength;
    if (isNeededSoon) this.#flushBytes = FLUSH_SOON_BYTES;
  }

  /** Tells `waiter` once the log is durable up to its offset; `plan` is to follow. */
  whenDurable(waiter: DurabilityWaiter): void {
    const last = this.#waiters[this.#waiters.length - 1];
    if (last === undefined || last.endOffset <= waiter.endOffset) this.#waiters.push(waiter);
    else this.#waiters.splice(this.#placeOf(waiter.endOffset), 0, waiter);
  }

  #placeOf(endOffset: number): number {
    return partitionPoint(this.#waiters.length, (i) => this.#waiters[i]!.endOffset <= endOffset);
  }

  /** Syncs now when somebody waits for it - a producer, or a reader at the tail - or when much has gathered. */
  plan(): void {
    if (this.#waiters.length > 0 || this.#listeners.size > 0 || this.#unsyncedBytes >= this.#flushBytes) {
      this.#start();
    } else {
      this.#timer ??= this.#clock.setTimer(this.#flushMs, () => this.#syncAfter());
    }
  }

  /** Follows a changed flush.ms, what waits for the old one included. */
  configure(flushMs: number): void {
    this.#flushMs = flushMs;
    if (this.#timer === undefined) return;
    this.#cancelTimer();
    this.plan();
  }

  /** Calls `listener` after each sync and with `notify`, until unsubscribed; each write is synced at once meanwhile. */
  onAdvance(listener: () => void): () => void {
    this.#listeners.add(listener);
    this.#syncRest();
    return () => this.#listeners.delete(listener);
  }

  notify(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Syncs what is not synced, tells those who listen, and resolves when no sync is under way. */
  async finish(): Promise<void> {
    this.#cancelTimer();
    this.#syncRest();
    this.notify();
    await this.#run;
    // One that was put off: the log syncs what is left when it is closed.
    this.#cancelTimer();
  }

  #cancelTimer(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #syncRest(): void {
    if (this.#log.failure === undefined && this.#log.durableOffset < this.#log.endOffset) this.#start();
  }

  #start(): void {
    this.#wanted = true;
    this.#run ??= this.#syncAll()
      .catch((error: unknown) => this.#logger.error({ ...this.#place(), err: error }, 'defect in the partition writer'))
      .finally(() => {
        this.#run = undefined;
      });
  }

  async #syncAll(): Promise<void> {
    while (this.#wanted) {
      this.#wanted = false;
      this.#cancelTimer();
      this.#unsyncedBytes = 0;
      this.#flushBytes = FLUSH_BYTES;
      try {
        await this.#log.flush(this.#log.endOffset);
      } catch (error) {
        this.#fail(toLogError(error));
        break;
      }
      this.#acknowledge();
      this.notify();
      if (this.#waiters.length > 0) this.#wanted = true;
    }
  }

  #acknowledge(): void {
    const durable = this.#log.durableOffset;
    let count = 0;
    for (const waiter of this.#waiters) {
      if (waiter.endOffset > durable) break;
      waiter.resolve();
      count++;
    }
    this.#waiters.splice(0, count);
  }

  #fail(error: LogError): void {
    const fields = { ...this.#place(), reason: error.reason, err: error };
    if (this.#log.failure === undefined) {
      this.#logger.warn(fields, 'what was appended could not be synced; it is tried again');
      this.#timer ??= this.#clock.setTimer(RETRY_MS, () => this.#syncAfter());
    } else {
      this.#logger.error(fields, 'sync failed: the partition acknowledges nothing more until the broker is restarted');
    }
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }

  #syncAfter(): void {
    this.#timer = undefined;
    this.#start();
  }

  #place(): { topic: string; partition: number } {
    return { topic: this.#topic, partition: this.#log.id.partition };
  }
}
