/** Opening the partitions of topics, and undoing that. */
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { forEachLimit } from '../core/semaphore.js';
import type { Epoch } from '../core/types.js';
import { Partition } from '../partition/partition.js';
import type { PartitionConfig } from '../partition/partition-config.js';
import type { ProducerStateConfig } from '../partition/producers/producer-config.js';
import { SharedProducers } from '../partition/producers/shared-producers.js';
import type { StorageEngine } from '../storage/engine.js';
import type { TopicRecord } from './topic-catalog.js';

/** Partition logs opened or closed at once: enough to keep the disk busy, few enough to leave threads for others. */
export const OPEN_CONCURRENCY = 16;

/** A partition, or why it could not be opened. */
export type PartitionSlot = Partition | LogError;

/** What of a topic its partitions need. */
export type TopicIdentity = Pick<TopicRecord, 'name' | 'id'>;

export interface PartitionOpenerOptions {
  readonly engine: StorageEngine;
  readonly epoch: Epoch;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly producers: ProducerStateConfig;
}

export class PartitionOpener {
  readonly #options: PartitionOpenerOptions;
  readonly #producers: SharedProducers;

  constructor(options: PartitionOpenerOptions) {
    this.#options = options;
    this.#producers = new SharedProducers(options.producers);
  }

  /** Opens the partitions from index `from` up to but excluding `to`. */
  async open(topic: TopicIdentity, from: number, to: number, config: PartitionConfig): Promise<PartitionSlot[]> {
    const slots: PartitionSlot[] = new Array(to - from);
    await forEachLimit([...slots.keys()], OPEN_CONCURRENCY, async (at) => {
      slots[at] = await this.#openOne(topic, from + at, config);
    });
    return slots;
  }

  /** The slots with those opened that could not be before, as far as that may have changed. */
  async reopen(
    topic: TopicIdentity,
    slots: readonly PartitionSlot[],
    config: PartitionConfig,
  ): Promise<PartitionSlot[]> {
    const reopened = [...slots];
    await forEachLimit([...slots.keys()], OPEN_CONCURRENCY, async (index) => {
      if (mayOpenLater(slots[index]!)) reopened[index] = await this.#openOne(topic, index, config);
    });
    return reopened;
  }

  /**
   * Undoes the opening of new partitions that did not come to be. They are empty: what is left of them goes with the
   * next start.
   * @param from index of the first
   */
  async discard(topic: TopicIdentity, from: number, slots: readonly PartitionSlot[]): Promise<void> {
    const { engine, logger } = this.#options;
    await forEachLimit([...slots.entries()], OPEN_CONCURRENCY, async ([at, slot]) => {
      const partition = from + at;
      try {
        if (slot instanceof Partition) await slot.close();
        await engine.remove({ topicId: topic.id, partition });
      } catch (error) {
        logger.warn({ topic: topic.name, partition, err: error }, 'an empty partition could not be removed');
      }
    });
  }

  /** One partition that cannot be opened must not keep the others from service: its error is kept in its place. */
  async #openOne({ name, id }: TopicIdentity, index: number, config: PartitionConfig): Promise<PartitionSlot> {
    const { engine, epoch, clock, logger } = this.#options;
    try {
      const log = await engine.open({ topicId: id, partition: index }, epoch, config);
      return await Partition.open({ topic: name, log, config, clock, logger, producers: this.#producers });
    } catch (error) {
      logger.error({ topic: name, partition: index, err: error }, 'a partition could not be opened');
      return toLogError(error);
    }
  }
}

export function partitionsOf(slots: readonly PartitionSlot[]): readonly Partition[] {
  return slots.filter((slot) => slot instanceof Partition);
}

/** Why the partition takes no appends, if so. */
export function slotFailure(slot: PartitionSlot): LogError | undefined {
  if (slot instanceof LogError) return slot;
  return slot.log.failure === undefined ? undefined : toLogError(slot.log.failure);
}

/** Whether a partition is out of service only until there is room, or a file handle. */
export function mayOpenLater(slot: PartitionSlot): boolean {
  return slot instanceof LogError && slot.retryable;
}
