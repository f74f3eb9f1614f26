/** How many partitions a topic, and all topics of users together, may have. */
import { LogError } from '../core/errors.js';

export interface TopicLimits {
  /** Partitions of one topic at the most. */
  readonly maxPartitionsPerTopic: number;
  /** Partitions of all topics together at the most; those of internal topics do not count. */
  readonly maxPartitions: number;
}

export class PartitionQuota {
  readonly #limits: TopicLimits;
  /** Of all topics, those being created included. */
  #inUse = 0;

  constructor(limits: TopicLimits) {
    this.#limits = limits;
  }

  /** What is there already counts, whatever the limits say. */
  add(partitionCount: number): void {
    this.#inUse += partitionCount;
  }

  release(partitionCount: number): void {
    this.#inUse -= partitionCount;
  }

  /**
   * @param count partitions of the topic
   * @param added partitions that would come on top of those there are
   * @throws LogError INVALID_PARTITIONS, RESOURCE_LIMIT
   */
  check(count: number, added: number): void {
    const { maxPartitionsPerTopic, maxPartitions } = this.#limits;
    if (!Number.isInteger(count) || count < 1 || count > maxPartitionsPerTopic) {
      throw new LogError('INVALID_PARTITIONS', `A topic has 1 to ${maxPartitionsPerTopic} partitions, not ${count}.`, {
        metadata: { partitions: count, limit: maxPartitionsPerTopic },
      });
    }
    if (added > 0 && this.#inUse + added > maxPartitions) {
      throw new LogError(
        'RESOURCE_LIMIT',
        `${added} more partitions would pass this broker's limit of ${maxPartitions} (in use: ${this.#inUse}).`,
        { metadata: { partitions: added, in_use: this.#inUse, limit: maxPartitions } },
      );
    }
  }

  /** Counts the partitions from the check on, so that several changes at once do not pass the limit together. */
  async reserving<T>(partitionCount: number, work: () => Promise<T>): Promise<T> {
    this.add(partitionCount);
    try {
      return await work();
    } catch (error) {
      this.release(partitionCount);
      throw error;
    }
  }
}
