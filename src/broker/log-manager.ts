import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../core/clock.js';
import { toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import type { Partition } from '../partition/partition.js';
import type { RetentionPlan } from '../partition/retention.js';
import { LogCleaner, type ManagedTopics, PARTITIONS_PER_TURN, placeOf } from './log-cleaner.js';

/** The first pass comes this soon at the latest, so that a broker restarted often still gets round to it. */
const MAX_INITIAL_DELAY_MS = 30_000;
/** How long closing waits for a pass that hangs in the storage. */
const CLOSE_WAIT_MS = 10_000;

export interface LogManagerOptions {
  readonly topics: ManagedTopics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Time between two retention passes, in ms (`log.retention.check.interval.ms`). */
  readonly retentionCheckIntervalMs: number;
  /** Time between two looks of the log cleaner, in ms, while there is nothing to compact (`log.cleaner.backoff.ms`). */
  readonly cleanerBackoffMs: number;
  /** Memory for the key map of a compaction, in bytes (`log.cleaner.dedupe.buffer.size`). */
  readonly cleanerDedupeBufferBytes: number;
}

/**
 * Makes logs forget: retention over all partitions at an interval, and the log cleaner. One partition after the other,
 * with a turn of the event loop between those where something was done, so that appends do not feel it. The broker
 * constructs one, calls `start` when its topics are loaded, and `close` before it closes them.
 */
export class LogManager {
  readonly #options: LogManagerOptions;
  readonly #cleaner: LogCleaner;
  /** Partitions whose failure was logged and that have not worked since. */
  readonly #failing = new WeakSet<Partition>();
  /** Topics to be looked at apart from the interval. */
  #requested = new Set<string>();
  #passIsDue = false;
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: LogManagerOptions) {
    this.#options = options;
    this.#cleaner = new LogCleaner(options);
  }

  start(): void {
    this.#plan(Math.min(this.#options.retentionCheckIntervalMs, MAX_INITIAL_DELAY_MS));
    this.#cleaner.start();
  }

  /** Applies a topic's changed configuration to what it holds, soon. */
  checkNow(topicName: string): void {
    if (this.#closed) return;
    this.#requested.add(topicName);
    this.#startRunning();
    this.#cleaner.wake();
  }

  /** Begins nothing more and waits for what is under way; for a retention pass that hangs only 10 s. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await Promise.all([this.#cleaner.close(), this.#settled()]);
  }

  async #settled(): Promise<void> {
    const { clock } = this.#options;
    let timer: Timer | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = clock.setTimer(CLOSE_WAIT_MS, resolve);
    });
    await Promise.race([this.#running, timeout]);
    timer?.cancel();
  }

  #plan(delayMs: number): void {
    if (this.#closed) return;
    this.#timer = this.#options.clock.setTimer(delayMs, () => {
      this.#passIsDue = true;
      this.#startRunning();
    });
  }

  #startRunning(): void {
    this.#running ??= this.#run();
  }

  /** Never rejects: a failure in here must not end retention for good. */
  async #run(): Promise<void> {
    try {
      for (;;) {
        // In a turn of its own: whoever asks for a check is not kept by it.
        await nextTurn();
        if (this.#closed || !(this.#passIsDue || this.#requested.size > 0)) return;
        await this.#runNext();
      }
    } catch (error) {
      this.#options.logger.error({ err: error }, 'defect in the log manager');
    } finally {
      this.#running = undefined;
    }
  }

  async #runNext(): Promise<void> {
    if (this.#passIsDue) {
      this.#passIsDue = false;
      try {
        await this.#pass(() => true);
      } finally {
        this.#plan(this.#options.retentionCheckIntervalMs);
      }
      return;
    }
    const names = this.#requested;
    this.#requested = new Set();
    await this.#pass((name) => names.has(name));
  }

  async #pass(isMeant: (topicName: string) => boolean): Promise<void> {
    let looked = 0;
    for (const { topic, partition } of this.#options.topics.partitions()) {
      if (this.#closed) return;
      if (++looked % PARTITIONS_PER_TURN === 0) await nextTurn();
      if (!isMeant(topic.record.name)) continue;
      const plan = this.#planFor(partition);
      if (plan === undefined) continue;
      await this.#apply(partition, plan);
      await nextTurn();
    }
  }

  #planFor(partition: Partition): RetentionPlan | undefined {
    try {
      return partition.lifecycle.planRetention();
    } catch (error) {
      this.#failed(partition, error);
      return undefined;
    }
  }

  async #apply(partition: Partition, plan: RetentionPlan): Promise<void> {
    try {
      await partition.lifecycle.applyRetention(plan);
      if (this.#failing.delete(partition)) this.#options.logger.info(placeOf(partition), 'retention works again');
    } catch (error) {
      this.#failed(partition, error);
    }
  }

  /** Logs a failure once, and not again until the partition has worked in between. */
  #failed(partition: Partition, error: unknown): void {
    const failure = toLogError(error);
    // What was closed under the pass - a deleted topic, a broker that stops - is no news.
    if (partition.lifecycle.isClosed || failure.reason === 'CLOSED' || this.#failing.has(partition)) return;
    this.#failing.add(partition);
    const fields = { ...placeOf(partition), reason: failure.reason, err: failure };
    this.#options.logger.warn(fields, 'retention failed; it is tried at every check');
  }
}
