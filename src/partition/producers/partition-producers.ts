import type { Clock } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import type { PartitionLog } from '../../storage/engine.js';
import { AbortedIndex } from './aborted-index.js';
import { loadProducers } from './load.js';
import { type ProducerContext, placeOf } from './producer-context.js';
import { ProducerStates } from './producer-states.js';
import type { SharedProducers } from './shared-producers.js';
import type { SnapshotPart } from './snapshot-part.js';
import { ProducerSnapshots, type SnapshotHooks } from './snapshots.js';
import type { AbortedTransaction } from './types.js';

export interface PartitionProducersOptions extends SnapshotHooks {
  readonly topic: string;
  readonly log: PartitionLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly shared: SharedProducers;
  readonly parts: readonly SnapshotPart[];
}

/** The producers of one partition, with the files that keep them over a restart. */
export class PartitionProducers {
  readonly states: ProducerStates;
  readonly #context: ProducerContext;
  readonly #aborted: AbortedIndex;
  readonly #snapshots: ProducerSnapshots;
  #tidying: Promise<void> | undefined;

  private constructor(context: ProducerContext, snapshots: ProducerSnapshots) {
    this.#context = context;
    this.states = context.states;
    this.#aborted = context.aborted;
    this.#snapshots = snapshots;
  }

  /** @throws LogError STORAGE_ERROR, RESOURCE_LIMIT, CLOSED */
  static async load(options: PartitionProducersOptions): Promise<PartitionProducers> {
    const { topic, log, clock, logger, shared, parts } = options;
    const { budget, thresholds, abortedFiles } = shared;
    const { expirationMs } = shared.config;
    const states = new ProducerStates({ topic, partition: log.id.partition, budget, expirationMs });
    const aborted = new AbortedIndex({
      topic,
      log,
      clock,
      logger,
      cache: abortedFiles,
      maxInMemory: thresholds.abortedInMemory,
      tail: states.aborted,
    });
    const context: ProducerContext = { topic, log, clock, logger, states, aborted, parts };
    try {
      const { snapshotOffset, replayed } = await loadProducers(context);
      const snapshots = new ProducerSnapshots(context, {
        hooks: options,
        everyBytes: thresholds.snapshotEveryBytes,
        newest: snapshotOffset ?? 0,
        changed: replayed,
      });
      const producers = new PartitionProducers(context, snapshots);
      await producers.#removeLeftovers();
      return producers;
    } catch (error) {
      states.clear();
      throw error;
    }
  }

  async #removeLeftovers(): Promise<void> {
    try {
      await this.#aborted.dropBelow(this.#context.log.startOffset);
    } catch (error) {
      const fields = { ...placeOf(this.#context), err: error };
      this.#context.logger.warn(fields, 'old files of producers could not be removed; it is tried again later');
    }
  }

  /** Takes note of what the log has taken; see `ProducerStates.settle` for what is provisional. */
  appended(byteLength: number, changed: boolean): void {
    this.#snapshots.appended(byteLength, changed);
    if (changed) this.states.settle(this.#context.log.durableOffset);
    if (this.#aborted.isFull) this.#tidy();
    this.#snapshots.saveIfDue();
  }

  #tidy(): void {
    const { log } = this.#context;
    this.#tidying ??= this.#aborted.spill(log.durableOffset).finally(() => {
      this.#tidying = undefined;
    });
  }

  get hasAborted(): boolean {
    return this.states.aborted.count > 0 || this.#aborted.files.length > 0;
  }

  /**
   * The aborted transactions that may have something in [from, to), in the order of their markers.
   * @throws LogError RESOURCE_LIMIT, STORAGE_ERROR, CLOSED
   */
  async abortedIn(from: number, to: number): Promise<readonly AbortedTransaction[]> {
    return await this.#aborted.in(from, to);
  }

  /** How long a producer is remembered that writes nothing, in ms. */
  get expirationMs(): number {
    return this.#context.states.expirationMs;
  }

  /** Forgets what is over. */
  expire(): void {
    this.states.expire(this.#context.clock.now());
  }

  /** To be called before anything below `offset` is deleted or compacted. Undefined: it may be. Never rejects. */
  beforeForgetting(offset: number): Promise<void> | undefined {
    return this.#snapshots.ensure(offset);
  }

  /** To be called when the log start offset has risen. Never rejects. */
  async afterDeletion(): Promise<void> {
    await this.#tidying;
    await this.#removeLeftovers();
  }

  /** What was noted may be wrong: takes back what the log may not have, and keeps nothing over a restart, which reads the log. */
  distrust(): void {
    this.states.undoTo(0);
    this.#snapshots.stop();
  }

  /** Keeps what is known, if the log is in order and durable, and forgets it. Never rejects. */
  async close(): Promise<void> {
    const { log } = this.#context;
    await this.#tidying;
    if (log.failure === undefined && log.durableOffset === log.endOffset) await this.#snapshots.finish();
    this.states.clear();
  }
}
