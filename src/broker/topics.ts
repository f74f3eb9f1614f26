/** The topics of this broker with their open partitions: creation, deletion, lookup. */
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { forEachLimit } from '../core/semaphore.js';
import type { Epoch, TopicId } from '../core/types.js';
import { Partition } from '../partition/partition.js';
import type { PartitionConfig } from '../partition/partition-config.js';
import type { StorageEngine } from '../storage/engine.js';
import { alreadyExists, type TopicCatalog, type TopicRecord } from './topic-catalog.js';
import { resolveTopicConfig, type TopicOverrides } from './topic-config.js';
import { checkTopicName, isInternal } from './topic-name.js';

/** Partition logs opened or removed at once: enough to keep the disk busy, few enough to leave threads for others. */
const OPEN_CONCURRENCY = 16;

/** A partition, or why it could not be opened. */
type PartitionSlot = Partition | LogError;

/** A topic in service. */
export interface Topic {
  readonly record: TopicRecord;
  readonly config: PartitionConfig;
  readonly internal: boolean;
  readonly slots: readonly PartitionSlot[];
}

export interface TopicLimits {
  /** Partitions of one topic at the most. */
  readonly maxPartitionsPerTopic: number;
  /** Partitions of all topics together at the most. */
  readonly maxPartitions: number;
}

export interface TopicsOptions {
  readonly engine: StorageEngine;
  readonly catalog: TopicCatalog;
  readonly epoch: Epoch;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: TopicLimits;
}

export class Topics {
  readonly #options: TopicsOptions;
  readonly #topics = new Map<string, Topic>();
  /** Names whose creation or deletion is under way in this process. */
  readonly #busy = new Set<string>();
  #partitionCount = 0;

  constructor(options: TopicsOptions) {
    this.#options = options;
  }

  /** Opens everything in the catalog and finishes deletions that an earlier run began. */
  async load(): Promise<void> {
    const records = await this.#options.catalog.load();
    await forEachLimit(records, OPEN_CONCURRENCY, async (record) => {
      if (record.deleting) await this.#finishDeletion(record);
      else this.#topics.set(record.name, await this.#open(record));
    });
  }

  async #open(record: TopicRecord): Promise<Topic> {
    const config = resolveTopicConfig(record.overrides);
    const slots: PartitionSlot[] = new Array(record.partitionCount);
    const indexes = Array.from({ length: record.partitionCount }, (_, index) => index);
    await forEachLimit(indexes, OPEN_CONCURRENCY, async (index) => {
      slots[index] = await this.#openPartition(record, index, config);
    });
    this.#partitionCount += record.partitionCount;
    return { record, config, internal: isInternal(record.name), slots };
  }

  /** One partition that cannot be opened must not keep the others from service: its error is kept in its place. */
  async #openPartition(record: TopicRecord, index: number, config: PartitionConfig): Promise<PartitionSlot> {
    const { engine, epoch, clock, logger } = this.#options;
    try {
      const log = await engine.open({ topicId: record.id, partition: index }, epoch, config);
      return new Partition({ topic: record.name, log, config, clock, logger });
    } catch (error) {
      const failure = toLogError(error);
      logger.error({ topic: record.name, partition: index, err: error }, 'a partition could not be opened');
      return failure;
    }
  }

  /**
   * @throws LogError INVALID_TOPIC, INVALID_PARTITIONS, INVALID_CONFIG, TOPIC_ALREADY_EXISTS, RESOURCE_LIMIT
   */
  async create(
    name: string,
    partitionCount: number,
    overrides: TopicOverrides,
    validateOnly: boolean,
  ): Promise<Topic | undefined> {
    checkTopicName(name);
    this.#checkPartitionCount(partitionCount);
    resolveTopicConfig(overrides);
    if (this.#topics.has(name)) throw alreadyExists(name, false);
    if (validateOnly) return undefined;
    return await this.#exclusively(name, async () => {
      const record = await this.#options.catalog.create(name, partitionCount, overrides);
      const topic = await this.#open(record);
      const failed = topic.slots.find((slot) => slot instanceof LogError);
      if (failed instanceof LogError) {
        await this.#undoCreation(topic);
        throw failed;
      }
      this.#topics.set(name, topic);
      return topic;
    });
  }

  async #undoCreation(topic: Topic): Promise<void> {
    await this.#options.catalog.markDeleting(topic.record);
    await this.#closePartitions(topic);
    await this.#finishDeletion(topic.record);
  }

  #checkPartitionCount(count: number): void {
    const { maxPartitionsPerTopic, maxPartitions } = this.#options.limits;
    if (!Number.isInteger(count) || count < 1 || count > maxPartitionsPerTopic) {
      throw new LogError('INVALID_PARTITIONS', `A topic has 1 to ${maxPartitionsPerTopic} partitions, not ${count}.`, {
        metadata: { partitions: count, limit: maxPartitionsPerTopic },
      });
    }
    if (this.#partitionCount + count > maxPartitions) {
      throw new LogError(
        'RESOURCE_LIMIT',
        `${count} more partitions would pass this broker's limit of ${maxPartitions} (in use: ${this.#partitionCount}).`,
        { metadata: { partitions: count, in_use: this.#partitionCount, limit: maxPartitions } },
      );
    }
  }

  /** Deletes the topic for good. Resolves when its name is free; its files are gone by then or at the next start. */
  async delete(name: string): Promise<void> {
    const topic = this.get(name);
    if (topic.internal) {
      throw new LogError('INVALID_TOPIC', `${name} is an internal topic and cannot be deleted.`, {
        metadata: { topic: name },
      });
    }
    await this.#exclusively(name, async () => {
      await this.#options.catalog.markDeleting(topic.record);
      this.#topics.delete(name);
      await this.#closePartitions(topic);
      await this.#finishDeletion(topic.record);
    });
  }

  async #closePartitions(topic: Topic): Promise<void> {
    this.#partitionCount -= topic.record.partitionCount;
    await forEachLimit(topic.slots, OPEN_CONCURRENCY, async (slot) => {
      if (slot instanceof Partition) await slot.close();
    });
  }

  async #finishDeletion(record: TopicRecord): Promise<void> {
    const indexes = Array.from({ length: record.partitionCount }, (_, index) => index);
    await forEachLimit(indexes, OPEN_CONCURRENCY, (partition) =>
      this.#options.engine.remove({ topicId: record.id, partition }),
    );
    await this.#options.catalog.remove(record);
  }

  async #exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(name)) {
      throw new LogError('CONCURRENT_UPDATE', `Topic ${name} is being created or deleted right now. Try again.`, {
        metadata: { topic: name },
      });
    }
    this.#busy.add(name);
    try {
      return await work();
    } finally {
      this.#busy.delete(name);
    }
  }

  /** @throws LogError UNKNOWN_TOPIC_OR_PARTITION */
  get(name: string): Topic {
    const topic = this.#topics.get(name);
    if (topic !== undefined) return topic;
    throw new LogError(
      'UNKNOWN_TOPIC_OR_PARTITION',
      `There is no topic ${JSON.stringify(name.slice(0, 300))}. Create it first: tidelog topic create NAME --partitions N.`,
      { metadata: { topic: name.slice(0, 300) } },
    );
  }

  /**
   * @param topicId the id the caller knows, or empty
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, or why the partition is out of service
   */
  partition(name: string, topicId: string, index: number): Partition {
    const topic = this.get(name);
    if (topicId !== '' && topicId !== topic.record.id) throw recreated(topic.record, topicId);
    const slot = topic.slots[index];
    if (slot instanceof Partition) return slot;
    if (slot !== undefined) throw slot;
    throw new LogError(
      'UNKNOWN_TOPIC_OR_PARTITION',
      `Topic ${name} has partitions 0 to ${topic.slots.length - 1}, no partition ${index}.`,
      { metadata: { topic: name, partition: index, partition_count: topic.slots.length } },
    );
  }

  /** Every topic, by name. */
  list(): Topic[] {
    return [...this.#topics.values()].sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
  }

  /** Partitions that take no appends, with the reason. */
  failures(): { topic: string; partition: number; error: LogError }[] {
    const failures: { topic: string; partition: number; error: LogError }[] = [];
    for (const topic of this.#topics.values()) {
      for (const [partition, slot] of topic.slots.entries()) {
        const error = slotFailure(slot);
        if (error !== undefined) failures.push({ topic: topic.record.name, partition, error });
      }
    }
    return failures;
  }

  /** Finishes and syncs what was accepted, in every partition. */
  async close(): Promise<void> {
    const slots = [...this.#topics.values()].flatMap((topic) => topic.slots);
    await forEachLimit(slots, OPEN_CONCURRENCY, async (slot) => {
      if (slot instanceof Partition) await slot.close();
    });
  }
}

/** Why the partition takes no appends, if so. */
export function slotFailure(slot: Partition | LogError): LogError | undefined {
  if (slot instanceof LogError) return slot;
  return slot.log.failure === undefined ? undefined : toLogError(slot.log.failure);
}

function recreated(record: TopicRecord, topicId: TopicId | string): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_ID',
    `Topic ${record.name} was deleted and created anew: its id is ${record.id}, not ${topicId}. ` +
      'Offsets of the old topic mean nothing here.',
    { metadata: { topic: record.name, topic_id: record.id, requested_topic_id: topicId } },
  );
}
