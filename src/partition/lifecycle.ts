import type { Clock } from '../core/clock.js';
import type { Logger } from '../core/logger.js';
import type { Offset } from '../core/types.js';
import type { CompactResult, PartitionLog } from '../storage/engine.js';
import { type CompactionPlan, planCompaction } from './compaction-policy.js';
import type { PartitionConfig } from './partition-config.js';
import { planRetention, type RetentionPlan } from './retention.js';

/** What the lifecycle needs of what its partition remembers of producers. */
export interface LifecycleProducers {
  /** How long a producer is remembered that writes nothing, in ms. */
  readonly expirationMs: number;
  /** Forgets those whose time is over. Cheap. */
  expire(): void;
  /** Keeps apart from the log what follows from the batches below `offset`. Undefined: there is nothing. Never rejects. */
  beforeForgetting(offset: Offset): Promise<void> | undefined;
  /** Forgets what the log start offset has passed. Never rejects. */
  afterDeletion(): Promise<void>;
}

/** What the lifecycle needs of its partition. */
export interface LifecycleTarget {
  readonly topic: string;
  readonly index: number;
  readonly log: PartitionLog;
  readonly config: PartitionConfig;
  /** Nothing at or above it is deleted or compacted. */
  readonly lastStableOffset: Offset;
}

/** What a retention pass deleted. */
export interface RetentionResult {
  readonly oldStartOffset: Offset;
  readonly newStartOffset: Offset;
  readonly segmentCount: number;
  readonly sizeInBytes: number;
}

export interface CompactionRun {
  /** Memory for the map of keys. */
  readonly maxMapBytes: number;
  readonly signal: AbortSignal;
}

/**
 * How a partition forgets: what its policies ask for, and doing it. Deciding is synchronous and cheap where nothing has
 * changed since the last time, so that thousands of idle partitions can be asked often; when to ask is up to the caller,
 * and so is not to do two things at once.
 */
export class PartitionLifecycle {
  readonly #target: LifecycleTarget;
  readonly #producers: LifecycleProducers;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #retentionQuiet = new Quiet();
  readonly #compactionQuiet = new Quiet();
  #compaction: AbortController | undefined;
  #closed = false;

  constructor(target: LifecycleTarget, producers: LifecycleProducers, clock: Clock, logger: Logger) {
    this.#target = target;
    this.#producers = producers;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** What retention would do now; undefined for nothing. Producers whose time is over are forgotten at once. */
  planRetention(): RetentionPlan | undefined {
    const { log, config } = this.#target;
    const nowMs = this.#clock.now();
    if (!this.#closed) this.#producers.expire();
    if (this.#closed || this.#retentionQuiet.covers(log, config, nowMs)) return undefined;
    const plan = planRetention({
      segments: log.segments(),
      logStartOffset: log.startOffset,
      lastStableOffset: this.#target.lastStableOffset,
      limits: config,
      nowMs,
    });
    // A log that takes no more appends cannot begin a segment for them either.
    if (plan.segmentCount > 0 || (plan.rollFirst && log.failure === undefined)) return plan;
    this.#retentionQuiet.begin(log, config, plan.nextDueMs);
    return undefined;
  }

  /**
   * Carries out a plan just made, and logs what was deleted.
   * @returns what was deleted; undefined for nothing, when appends have changed what is due
   * @throws LogError of the log: STORAGE_FULL, STORAGE_ERROR, CLOSED
   */
  async applyRetention(plan: RetentionPlan): Promise<RetentionResult | undefined> {
    const { log } = this.#target;
    let current: RetentionPlan | undefined = plan;
    if (plan.rollFirst && log.failure === undefined) {
      await log.roll();
      this.#forgetQuiet();
      current = this.planRetention();
    }
    if (current === undefined || current.segmentCount === 0) return undefined;
    const oldStartOffset = log.startOffset;
    const before = log.segments();
    await this.#producers.beforeForgetting(current.newStartOffset);
    await log.trim(current.newStartOffset);
    await this.#producers.afterDeletion();
    const firstKept = log.segments()[0]!.baseOffset;
    const dropped = before.filter((segment) => segment.baseOffset < firstKept);
    if (dropped.length === 0 && log.startOffset === oldStartOffset) return undefined;
    const result: RetentionResult = {
      oldStartOffset,
      newStartOffset: log.startOffset,
      segmentCount: dropped.length,
      sizeInBytes: dropped.reduce((sum, segment) => sum + segment.sizeInBytes, 0),
    };
    const why = Object.fromEntries(current.reasons);
    this.#logger.info({ ...this.#place(), ...result, why }, 'retention deleted segments');
    return result;
  }

  /** What compaction would do now; undefined for nothing, in particular where the topic is not compacted. */
  planCompaction(): CompactionPlan | undefined {
    const { log, config } = this.#target;
    if (this.#closed || !config.cleanupCompact || log.failure !== undefined) return undefined;
    const nowMs = this.#clock.now();
    if (this.#compactionQuiet.covers(log, config, nowMs)) return undefined;
    const plan = planCompaction({
      segments: log.segments(),
      logStartOffset: log.startOffset,
      cleanedOffset: log.cleanedOffset,
      lastStableOffset: this.#target.lastStableOffset,
      limits: config,
      nowMs,
    });
    if (plan.why !== undefined || plan.rollFirst) return plan;
    this.#compactionQuiet.begin(log, config, plan.nextChangeMs);
    return undefined;
  }

  /** Closes the segment that takes the appends, as a plan asked for. */
  async rollForCompaction(): Promise<void> {
    await this.#target.log.roll();
    this.#forgetQuiet();
  }

  /**
   * Compacts as a plan says, until done, `run.signal` is aborted or the partition closes.
   * @throws LogError of `PartitionLog.compact`
   */
  async compact(plan: CompactionPlan, run: CompactionRun): Promise<CompactResult> {
    const stop = new AbortController();
    const abort = (): void => stop.abort(run.signal.reason);
    // Closed since the plan was made, which nothing would tell this compaction any more.
    if (run.signal.aborted || this.#closed) abort();
    run.signal.addEventListener('abort', abort, { once: true });
    this.#compaction = stop;
    const { log, config } = this.#target;
    try {
      const kept = this.#producers.beforeForgetting(plan.upTo);
      if (kept !== undefined) await kept;
      return await log.compact({
        upTo: plan.upTo,
        nowMs: this.#clock.now(),
        deleteRetentionMs: config.deleteRetentionMs,
        producerExpirationMs: this.#producers.expirationMs,
        maxMapBytes: run.maxMapBytes,
        signal: stop.signal,
      });
    } finally {
      run.signal.removeEventListener('abort', abort);
      this.#compaction = undefined;
      this.#forgetQuiet();
    }
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Nothing is begun from here on, and a compaction under way is told to end. */
  close(): void {
    this.#closed = true;
    this.#compaction?.abort();
  }

  /** Segments changed in a way that the offsets of the log do not show. */
  #forgetQuiet(): void {
    this.#retentionQuiet.end();
    this.#compactionQuiet.end();
  }

  #place(): { topic: string; partition: number } {
    return { topic: this.#target.topic, partition: this.#target.index };
  }
}

/**
 * A finding that nothing is due, which holds as long as the log and its configuration stay as they are and a point in
 * time is not reached. Saves making a list of segments for every look at a partition where nothing happens.
 */
class Quiet {
  #startOffset = -1;
  #endOffset = -1;
  #durableOffset = -1;
  #cleanedOffset = -1;
  #config: PartitionConfig | undefined;
  #untilMs = 0;

  begin(log: PartitionLog, config: PartitionConfig, untilMs: number): void {
    this.#startOffset = log.startOffset;
    this.#endOffset = log.endOffset;
    this.#durableOffset = log.durableOffset;
    this.#cleanedOffset = log.cleanedOffset;
    this.#config = config;
    this.#untilMs = untilMs;
  }

  end(): void {
    this.#config = undefined;
  }

  covers(log: PartitionLog, config: PartitionConfig, nowMs: number): boolean {
    return (
      this.#config === config &&
      nowMs < this.#untilMs &&
      this.#endOffset === log.endOffset &&
      this.#startOffset === log.startOffset &&
      this.#durableOffset === log.durableOffset &&
      this.#cleanedOffset === log.cleanedOffset
    );
  }
}
