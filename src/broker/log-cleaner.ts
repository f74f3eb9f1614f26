import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../core/clock.js';
import { type LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import type { CompactionPlan } from '../partition/compaction-policy.js';
import type { Partition } from '../partition/partition.js';
import type { CompactResult } from '../storage/engine.js';

/** A partition with the name of its topic. `Topics` fits as it is. */
export interface ManagedPartition {
  readonly topic: { readonly record: { readonly name: string } };
  readonly partition: Partition;
}

/** Where the partitions in service are found. */
export interface ManagedTopics {
  partitions(): Iterable<ManagedPartition>;
}

/** Partitions looked at before others get a turn: less than a ms of work where nothing has changed. */
export const PARTITIONS_PER_TURN = 256;
/** A partition that fails is left alone for the cleaner's back-off, but at least this long; at last for an hour. */
const MIN_HOLD_MS = 1000;
const MAX_HOLD_MS = 3_600_000;

export interface LogCleanerOptions {
  readonly topics: ManagedTopics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long to wait when there was nothing to compact, in ms. */
  readonly cleanerBackoffMs: number;
  /** Memory for the map of keys of the one compaction that runs, in bytes. */
  readonly cleanerDedupeBufferBytes: number;
}

interface Candidate {
  readonly partition: Partition;
  readonly plan: CompactionPlan;
}

/** Why a partition is left alone, and how long. */
type Hold =
  | { readonly kind: 'for a time'; readonly untilMs: number; readonly durationMs: number }
  | { readonly kind: 'damaged'; readonly offset: number };

/**
 * Compacts partitions, one at a time: the one that is overdue, else the one with the highest dirty ratio. Looks again at
 * once after it has compacted something, else after `cleanerBackoffMs`. A failing partition is left alone for a growing
 * time and keeps no other from its turn; a damaged one until its log start has passed the damage.
 */
export class LogCleaner {
  readonly #options: LogCleanerOptions;
  readonly #stop = new AbortController();
  readonly #holds = new WeakMap<Partition, Hold>();
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #wanted = false;

  constructor(options: LogCleanerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#plan();
  }

  /** Looks at the partitions soon: a configuration has changed. */
  wake(): void {
    this.#wanted = true;
    if (!this.#stop.signal.aborted) this.#running ??= this.#run();
  }

  /** Ends a compaction under way and waits until it has let go. Idempotent. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#timer?.cancel();
    await this.#running;
  }

  #plan(): void {
    if (this.#stop.signal.aborted) return;
    this.#timer?.cancel();
    const { clock, cleanerBackoffMs } = this.#options;
    this.#timer = clock.setTimer(cleanerBackoffMs, () => this.wake());
  }

  /** Never rejects: a failure in here must not end the cleaning for good. */
  async #run(): Promise<void> {
    try {
      while (this.#wanted && !this.#stop.signal.aborted) {
        this.#wanted = false;
        // In a turn of its own: whoever wakes the cleaner is not kept by its look.
        await nextTurn();
        if (await this.#compactOne()) this.#wanted = true;
      }
    } catch (error) {
      this.#options.logger.error({ err: error }, 'defect in the log cleaner');
    } finally {
      this.#running = undefined;
      this.#plan();
    }
  }

  /** @returns whether something was compacted */
  async #compactOne(): Promise<boolean> {
    const candidate = await this.#mostUrgent();
    if (candidate === undefined || this.#stop.signal.aborted) return false;
    return await this.#compact(candidate);
  }

  async #mostUrgent(): Promise<Candidate | undefined> {
    let best: Candidate | undefined;
    let looked = 0;
    for (const { partition } of this.#options.topics.partitions()) {
      if (this.#stop.signal.aborted) return undefined;
      if (++looked % PARTITIONS_PER_TURN === 0) await nextTurn();
      let plan = this.#planFor(partition);
      if (plan?.rollFirst) plan = await this.#roll(partition);
      if (plan?.why === undefined) continue;
      if (best === undefined || isMoreUrgent(plan, best.plan)) best = { partition, plan };
    }
    return best;
  }

  #planFor(partition: Partition): CompactionPlan | undefined {
    try {
      return this.#isHeld(partition) ? undefined : partition.lifecycle.planCompaction();
    } catch (error) {
      this.#failed(partition, toLogError(error));
      return undefined;
    }
  }

  async #roll(partition: Partition): Promise<CompactionPlan | undefined> {
    try {
      await partition.lifecycle.rollForCompaction();
      return this.#planFor(partition);
    } catch (error) {
      this.#failed(partition, toLogError(error));
      return undefined;
    }
  }

  async #compact({ partition, plan }: Candidate): Promise<boolean> {
    const { clock, cleanerDedupeBufferBytes } = this.#options;
    const before = partition.log.cleanedOffset;
    const began = clock.monotonic();
    try {
      const run = { maxMapBytes: cleanerDedupeBufferBytes, signal: this.#stop.signal };
      const result = await partition.lifecycle.compact(plan, run);
      if (result.passCount > 0) this.#logCompacted(partition, plan, result, clock.monotonic() - began);
      // Nothing gained, yet due as before: at once again would be for ever.
      if (result.cleanedOffset <= before) this.#hold(partition);
      else this.#holds.delete(partition);
      return true;
    } catch (error) {
      this.#failed(partition, toLogError(error));
      return !this.#stop.signal.aborted;
    }
  }

  #logCompacted(partition: Partition, plan: CompactionPlan, result: CompactResult, durationMs: number): void {
    const { passCount, ...numbers } = result;
    const fields = { ...placeOf(partition), passes: passCount, ...numbers, durationMs: Math.round(durationMs) };
    this.#options.logger.info({ ...fields, why: plan.why }, 'compacted');
  }

  #failed(partition: Partition, error: LogError): void {
    // What was closed under the compaction - a deleted topic, a broker that stops - is no news.
    if (this.#stop.signal.aborted || partition.lifecycle.isClosed) return;
    const fields = { ...placeOf(partition), reason: error.reason, err: error };
    // Damage below the log start goes with its segment, which may take long.
    if (error.reason === 'CORRUPT_LOG' && damagedOffset(error, partition) >= partition.logStartOffset) {
      this.#holds.set(partition, { kind: 'damaged', offset: damagedOffset(error, partition) });
      this.#options.logger.error(fields, 'a damaged log is not compacted until its start has passed the damage');
      return;
    }
    const retryInMs = this.#hold(partition);
    if (error.reason !== 'CLOSED') this.#options.logger.warn({ ...fields, retryInMs }, 'compaction failed');
  }

  /** Leaves the partition alone, each time twice as long. @returns for how many ms */
  #hold(partition: Partition): number {
    const { clock, cleanerBackoffMs } = this.#options;
    const last = this.#holds.get(partition);
    const wantedMs = last?.kind === 'for a time' ? last.durationMs * 2 : Math.max(cleanerBackoffMs, MIN_HOLD_MS);
    const durationMs = Math.min(wantedMs, MAX_HOLD_MS);
    this.#holds.set(partition, { kind: 'for a time', untilMs: clock.monotonic() + durationMs, durationMs });
    return durationMs;
  }

  #isHeld(partition: Partition): boolean {
    const hold = this.#holds.get(partition);
    if (hold === undefined) return false;
    if (hold.kind === 'damaged') return partition.logStartOffset <= hold.offset;
    return this.#options.clock.monotonic() < hold.untilMs;
  }
}

function isMoreUrgent(a: CompactionPlan, b: CompactionPlan): boolean {
  if (a.why === b.why) return a.dirtyRatio > b.dirtyRatio;
  return a.why === 'max.compaction.lag.ms';
}

/** The offset that the error names; without one, any deletion may have removed the damage. */
function damagedOffset(error: LogError, partition: Partition): number {
  const named = Number(error.metadata.offset);
  return Number.isSafeInteger(named) ? named : partition.logStartOffset;
}

/** What names a partition in log lines. */
export function placeOf(partition: Partition): { topic: string; partition: number } {
  return { topic: partition.topic, partition: partition.index };
}
