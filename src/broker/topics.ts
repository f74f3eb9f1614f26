/** The topics of this broker with their open partitions: creation, alteration, deletion, lookup. */
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { forEachLimit } from '../core/semaphore.js';
import type { Epoch, TopicId } from '../core/types.js';
import { Partition } from '../partition/partition.js';
import type { PartitionConfig } from '../partition/partition-config.js';
import type { StorageEngine } from '../storage/engine.js';
import { Deletions } from './deletions.js';
import type { TopicCatalog, TopicContents, TopicRecord } from './topic-catalog.js';
import { changedOverrides, logTopicChange, sameOverrides, type TopicChange } from './topic-change.js';
import { normalizeOverrides, resolveTopicConfig, type TopicOverrides } from './topic-config.js';
import {
  alreadyExists,
  deletedTopic,
  recreatedTopic,
  refuseInternal,
  unknownPartition,
  unknownTopic,
} from './topic-errors.js';
import { checkTopicName, isInternal } from './topic-name.js';

/** Partition logs opened or closed at once: enough to keep the disk busy, few enough to leave threads for others. */
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
  /** What the broker's configuration sets for topics that do not. */
  readonly defaults: TopicOverrides;
  /** Called after each update that changed something, with the topic as it is now. Must not throw. */
  readonly onTopicChanged?: (topic: Topic) => void;
}

export class Topics {
  readonly #options: TopicsOptions;
  readonly #deletions: Deletions;
  readonly #topics = new Map<string, Topic>();
  /** Names whose creation, alteration or deletion is under way in this process. */
  readonly #busy = new Set<string>();
  /** Of all topics, those being created included. */
  #partitionCount = 0;

  /** @throws LogError INVALID_CONFIG unless the defaults hold by themselves */
  constructor(options: TopicsOptions) {
    const defaults = normalizeOverrides(options.defaults);
    resolveTopicConfig({}, defaults);
    this.#options = { ...options, defaults };
    this.#deletions = new Deletions(options);
  }

  /** What the broker's configuration sets for topics that do not. */
  get defaults(): TopicOverrides {
    return this.#options.defaults;
  }

  /** Opens everything in the catalog; deletions that an earlier run began are finished in the background. */
  async load(): Promise<void> {
    const { topics, deleted } = await this.#options.catalog.load();
    const configs = topics.map((record) => this.#loadedConfig(record));
    await forEachLimit([...topics.entries()], OPEN_CONCURRENCY, async ([i, record]) => {
      this.#partitionCount += record.partitionCount;
      this.#topics.set(record.name, await this.#open(record, configs[i]!));
    });
    for (const topic of deleted) this.#deletions.add({ topic, partitions: [], nameFree: true });
  }

  /** A topic's values and new defaults of the broker may contradict each other: found before anything is opened. */
  #loadedConfig({ name, overrides }: TopicRecord): PartitionConfig {
    try {
      return resolveTopicConfig(overrides, this.defaults);
    } catch (error) {
      const { reason, message, metadata } = toLogError(error);
      throw new LogError(reason, `The configuration of topic ${name} does not hold: ${message}`, {
        metadata: { ...metadata, topic: name },
        cause: error,
      });
    }
  }

  async #open(record: TopicRecord, config: PartitionConfig): Promise<Topic> {
    const slots = await this.#openSlots(record, 0, record.partitionCount, config);
    return { record, config, internal: isInternal(record.name), slots };
  }

  /** Opens the partitions from index `from` up to but excluding `to`. */
  async #openSlots(record: TopicRecord, from: number, to: number, config: PartitionConfig): Promise<PartitionSlot[]> {
    const slots: PartitionSlot[] = new Array(to - from);
    await forEachLimit([...slots.keys()], OPEN_CONCURRENCY, async (at) => {
      slots[at] = await this.#openPartition(record, from + at, config);
    });
    return slots;
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
    configs: TopicOverrides,
    validateOnly: boolean,
  ): Promise<Topic | undefined> {
    checkTopicName(name);
    this.#checkPartitionCount(partitionCount, partitionCount);
    const overrides = normalizeOverrides(configs);
    const config = resolveTopicConfig(overrides, this.defaults);
    if (this.#topics.has(name)) throw alreadyExists(name);
    if (validateOnly) return undefined;
    return await this.#exclusively(name, () =>
      this.#reserving(partitionCount, async () => {
        const record = await this.#options.catalog.create(name, partitionCount, overrides);
        const topic = await this.#open(record, config);
        const failed = topic.slots.find((slot) => slot instanceof LogError);
        if (failed instanceof LogError) {
          await this.#retire(topic, () => {});
          throw failed;
        }
        this.#topics.set(name, topic);
        return topic;
      }),
    );
  }

  /** Counts the partitions from the check on, so that several changes at once do not pass the limit together. */
  async #reserving<T>(partitionCount: number, work: () => Promise<T>): Promise<T> {
    this.#partitionCount += partitionCount;
    try {
      return await work();
    } catch (error) {
      this.#partitionCount -= partitionCount;
      throw error;
    }
  }

  /** @param added partitions that would come on top of those there are */
  #checkPartitionCount(count: number, added: number): void {
    const { maxPartitionsPerTopic, maxPartitions } = this.#options.limits;
    if (!Number.isInteger(count) || count < 1 || count > maxPartitionsPerTopic) {
      throw new LogError('INVALID_PARTITIONS', `A topic has 1 to ${maxPartitionsPerTopic} partitions, not ${count}.`, {
        metadata: { partitions: count, limit: maxPartitionsPerTopic },
      });
    }
    if (added > 0 && this.#partitionCount + added > maxPartitions) {
      throw new LogError(
        'RESOURCE_LIMIT',
        `${added} more partitions would pass this broker's limit of ${maxPartitions} (in use: ${this.#partitionCount}).`,
        { metadata: { partitions: added, in_use: this.#partitionCount, limit: maxPartitions } },
      );
    }
  }

  /**
   * Alters a topic's configuration and adds partitions. Everything is checked before anything is changed, and either
   * all of it comes into force, without a restart, or nothing does.
   * @returns the topic as it is now; with `validateOnly` as it would be, with the partitions that it has
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC (internal), INVALID_PARTITIONS, INVALID_CONFIG,
   *   RESOURCE_LIMIT, CONCURRENT_UPDATE, or why a new partition could not be opened
   */
  async update(name: string, change: TopicChange, validateOnly: boolean): Promise<Topic> {
    const before = this.get(name);
    refuseInternal(name, 'altered');
    const partitionCount = this.#changedPartitionCount(before, change.partitionCount);
    const overrides = changedOverrides(before.record.overrides, change);
    const config = resolveTopicConfig(overrides, this.defaults);
    const { record } = before;
    if (partitionCount === record.partitionCount && sameOverrides(overrides, record.overrides)) return before;
    if (validateOnly) return { ...before, config, record: { ...record, partitionCount, overrides } };
    const after = await this.#exclusively(name, () =>
      this.#reserving(partitionCount - before.slots.length, () =>
        this.#replace(before, { partitionCount, overrides }, config),
      ),
    );
    logTopicChange(this.#options.logger, record, after.record, this.defaults);
    this.#options.onTopicChanged?.(after);
    return after;
  }

  #changedPartitionCount({ record }: Topic, wanted: number): number {
    const current = record.partitionCount;
    if (wanted === 0 || wanted === current) return current;
    if (wanted > 0 && wanted < current) {
      throw new LogError(
        'INVALID_PARTITIONS',
        `Topic ${record.name} has ${current} partitions and cannot go down to ${wanted}: their number only ever rises.`,
        { metadata: { topic: record.name, partitions: wanted, partition_count: current } },
      );
    }
    this.#checkPartitionCount(wanted, wanted - current);
    return wanted;
  }

  async #replace(before: Topic, contents: TopicContents, config: PartitionConfig): Promise<Topic> {
    const added = await this.#openSlots(before.record, before.slots.length, contents.partitionCount, config);
    let record: TopicRecord;
    try {
      for (const slot of added) if (slot instanceof LogError) throw slot;
      record = await this.#options.catalog.update(before.record, contents);
    } catch (error) {
      await this.#discard(before, added);
      throw error;
    }
    const after: Topic = { ...before, record, config, slots: [...before.slots, ...added] };
    this.#topics.set(record.name, after);
    for (const partition of partitionsOf(before.slots)) partition.configure(config);
    return after;
  }

  /** Undoes the opening of partitions that did not come to be. They are empty: what is left of them does no harm. */
  async #discard(topic: Topic, added: readonly PartitionSlot[]): Promise<void> {
    const { engine, logger } = this.#options;
    await forEachLimit([...added.entries()], OPEN_CONCURRENCY, async ([at, slot]) => {
      const partition = topic.slots.length + at;
      try {
        if (slot instanceof Partition) await slot.close();
        await engine.remove({ topicId: topic.record.id, partition });
      } catch (error) {
        logger.warn({ topic: topic.record.name, partition, err: error }, 'an empty partition could not be removed');
      }
    });
  }

  /**
   * Deletes the topic for good. Resolves when that is durable and its name is free; its files go in the background.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC (internal), CONCURRENT_UPDATE, STORAGE_ERROR
   */
  async delete(name: string): Promise<void> {
    const topic = this.get(name);
    refuseInternal(name, 'deleted');
    await this.#exclusively(name, async () => {
      await this.#deletions.room();
      await this.#retire(topic, () => {
        this.#topics.delete(name);
        this.#partitionCount -= topic.record.partitionCount;
      });
    });
  }

  /**
   * Deletes the topic from the catalog and takes its partitions out of service before its name is free; what is left
   * to do goes on in the background.
   */
  async #retire(topic: Topic, accepted: () => void): Promise<void> {
    const { name, id, partitionCount } = topic.record;
    const partitions = partitionsOf(topic.slots);
    let nameFree = false;
    try {
      await this.#options.catalog.delete(topic.record, () => {
        accepted();
        for (const partition of partitions) partition.retire();
      });
      nameFree = true;
    } finally {
      // Unless the deletion was refused and the topic serves on, its logs are not left open.
      const inService = this.#topics.get(name) === topic;
      if (!inService) this.#deletions.add({ topic: { name, id, partitionCount }, partitions, nameFree });
    }
  }

  async #exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(name)) {
      throw new LogError(
        'CONCURRENT_UPDATE',
        `Topic ${name} is being created, altered or deleted right now. Try again.`,
        {
          metadata: { topic: name },
        },
      );
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
    if (topic === undefined) throw unknownTopic(name);
    return topic;
  }

  /** The id that a name has now; undefined when there is no such topic. */
  idOf(name: string): TopicId | undefined {
    return this.#topics.get(name)?.record.id;
  }

  /**
   * @param topicId the id the caller knows, or empty
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, or why the partition is out of service
   */
  partition(name: string, topicId: string, index: number): Partition {
    const topic = topicId === '' ? this.get(name) : this.#withId(name, topicId);
    const slot = topic.slots[index];
    if (slot instanceof Partition) return slot;
    if (slot !== undefined) throw slot;
    throw unknownPartition(name, index, topic.slots.length);
  }

  #withId(name: string, topicId: string): Topic {
    const topic = this.#topics.get(name);
    if (topic?.record.id === topicId) return topic;
    throw topic === undefined ? deletedTopic(name, topicId) : recreatedTopic(topic.record, topicId);
  }

  /** The partitions in service, with their topics. */
  *partitions(): Iterable<{ readonly topic: Topic; readonly partition: Partition }> {
    for (const topic of this.#topics.values()) {
      for (const partition of partitionsOf(topic.slots)) yield { topic, partition };
    }
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

  /** Finishes and syncs what was accepted, in every partition. Files of deleted topics may be left to the next start. */
  async close(): Promise<void> {
    const deletions = this.#deletions.close();
    try {
      const partitions = [...this.#topics.values()].flatMap((topic) => partitionsOf(topic.slots));
      await forEachLimit(partitions, OPEN_CONCURRENCY, (partition) => partition.close());
    } finally {
      await deletions;
    }
  }
}

function partitionsOf(slots: readonly PartitionSlot[]): readonly Partition[] {
  return slots.filter((slot) => slot instanceof Partition);
}

/** Why the partition takes no appends, if so. */
export function slotFailure(slot: Partition | LogError): LogError | undefined {
  if (slot instanceof LogError) return slot;
  return slot.log.failure === undefined ? undefined : toLogError(slot.log.failure);
}
