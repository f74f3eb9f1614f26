/** The topics of this broker with their open partitions: creation, alteration, deletion, lookup. */
import { assert } from '../core/assert.js';
import { LogError, toLogError } from '../core/errors.js';
import { forEachLimit } from '../core/semaphore.js';
import type { TopicId } from '../core/types.js';
import { Partition } from '../partition/partition.js';
import type { PartitionConfig } from '../partition/partition-config.js';
import { Deletions } from './deletions.js';
import {
  mayOpenLater,
  OPEN_CONCURRENCY,
  PartitionOpener,
  type PartitionOpenerOptions,
  type PartitionSlot,
  partitionsOf,
  slotFailure,
  type TopicIdentity,
} from './partition-opener.js';
import { PartitionQuota, type TopicLimits } from './partition-quota.js';
import { Reopening } from './reopening.js';
import type { DeletedTopic, TopicCatalog, TopicContents, TopicRecord } from './topic-catalog.js';
import { changedOverrides, logTopicChange, sameOverrides, type TopicChange } from './topic-change.js';
import { normalizeOverrides, resolveLoadedConfig, resolveTopicConfig, type TopicOverrides } from './topic-config.js';
import {
  alreadyExists,
  deletedTopic,
  deletionGoesOn,
  recreatedTopic,
  refuseInternal,
  unknownPartition,
  unknownTopic,
} from './topic-errors.js';
import { checkTopicName, isInternal } from './topic-name.js';

export type { TopicLimits } from './partition-quota.js';

/** A topic in service. */
export interface Topic {
  readonly record: TopicRecord;
  readonly config: PartitionConfig;
  readonly internal: boolean;
  readonly slots: readonly PartitionSlot[];
}

/** What has happened to a topic; `topic` is as it is after that, or was before it was deleted. */
export interface TopicNotice {
  readonly kind: 'created' | 'updated' | 'deleted';
  readonly topic: Topic;
}

export interface TopicsOptions extends PartitionOpenerOptions {
  readonly catalog: TopicCatalog;
  readonly limits: TopicLimits;
  /** What the broker's configuration sets for topics that do not. */
  readonly defaults: TopicOverrides;
}

export class Topics {
  readonly #options: TopicsOptions;
  readonly #opener: PartitionOpener;
  readonly #reopening: Reopening;
  readonly #deletions: Deletions;
  readonly #topics = new Map<string, Topic>();
  /** Names whose creation, alteration or deletion is under way in this process. */
  readonly #busy = new Set<string>();
  readonly #quota: PartitionQuota;
  readonly #listeners = new Set<(notice: TopicNotice) => void>();

  /** @throws LogError INVALID_CONFIG unless the defaults hold by themselves */
  constructor(options: TopicsOptions) {
    const defaults = normalizeOverrides(options.defaults);
    resolveTopicConfig({}, defaults);
    this.#options = { ...options, defaults };
    this.#opener = new PartitionOpener(options);
    this.#reopening = new Reopening({ ...options, reopen: () => this.#reopen() });
    this.#deletions = new Deletions(options);
    this.#quota = new PartitionQuota(options.limits);
  }

  /**
   * Calls `listener`, which must not throw, after each creation, each update that changed something and each deletion,
   * until unsubscribed.
   */
  onChange(listener: (notice: TopicNotice) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #notify(kind: TopicNotice['kind'], topic: Topic): void {
    for (const listener of this.#listeners) listener({ kind, topic });
  }

  /** What the broker's configuration sets for topics that do not. */
  get defaults(): TopicOverrides {
    return this.#options.defaults;
  }

  /** Opens everything in the catalog; deletions that an earlier run began are finished in the background. */
  async load(): Promise<void> {
    const { topics, deleted } = await this.#options.catalog.load();
    await this.#removeUnknown([...topics, ...deleted]);
    // Found before anything is opened.
    const configs = topics.map(({ name, overrides }) => resolveLoadedConfig(name, overrides, this.defaults));
    await forEachLimit([...topics.entries()], OPEN_CONCURRENCY, async ([i, record]) => {
      if (!isInternal(record.name)) this.#quota.add(record.partitionCount);
      this.#topics.set(record.name, await this.#open(record, configs[i]!));
    });
    for (const topic of deleted) this.#deletions.add({ topic, partitions: [], nameFree: true });
    if (this.#canReopen()) this.#reopening.begin();
  }

  /** What an earlier run of the broker has opened and not come to make part of a topic. */
  async #removeUnknown(known: readonly Pick<DeletedTopic, 'id' | 'partitionCount'>[]): Promise<void> {
    const counts = new Map(known.map(({ id, partitionCount }) => [id, partitionCount]));
    try {
      await this.#options.engine.removeUnknown(({ topicId, partition }) => partition < (counts.get(topicId) ?? 0));
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'what no topic knows could not be removed; the next start tries again');
    }
  }

  #canReopen(): boolean {
    return [...this.#topics.values()].some(({ slots }) => slots.some(mayOpenLater));
  }

  /** Opens what could not be opened before. @returns whether something is left */
  async #reopen(): Promise<boolean> {
    for (const topic of this.#topics.values()) {
      const { name } = topic.record;
      if (this.#busy.has(name) || !topic.slots.some(mayOpenLater)) continue;
      await this.#exclusively(name, async () => {
        const slots = await this.#opener.reopen(topic.record, topic.slots, topic.config);
        this.#topics.set(name, { ...topic, slots });
      });
    }
    return this.#canReopen();
  }

  async #open(record: TopicRecord, config: PartitionConfig): Promise<Topic> {
    const slots = await this.#opener.open(record, 0, record.partitionCount, config);
    return { record, config, internal: isInternal(record.name), slots };
  }

  /**
   * @throws LogError INVALID_TOPIC (not a name, or that of an internal topic), INVALID_PARTITIONS, INVALID_CONFIG,
   *   TOPIC_ALREADY_EXISTS, RESOURCE_LIMIT
   */
  async create(
    name: string,
    partitionCount: number,
    configs: TopicOverrides,
    validateOnly: boolean,
  ): Promise<Topic | undefined> {
    checkTopicName(name);
    refuseInternal(name, 'created');
    this.#quota.check(partitionCount, partitionCount);
    const overrides = normalizeOverrides(configs);
    const config = resolveTopicConfig(overrides, this.defaults);
    if (this.#topics.has(name)) throw alreadyExists(name);
    if (validateOnly) return undefined;
    return await this.#exclusively(name, () =>
      this.#quota.reserving(partitionCount, () => this.#create(name, partitionCount, overrides, config)),
    );
  }

  /**
   * Creates a topic of the broker's own, which no limit on users' topics keeps it from having.
   * @throws LogError TOPIC_ALREADY_EXISTS, CONCURRENT_UPDATE, or why a partition could not be opened
   */
  async createInternal(name: string, partitionCount: number, overrides: TopicOverrides): Promise<Topic> {
    assert(isInternal(name), `${name} is not the name of an internal topic`);
    const config = resolveTopicConfig(overrides, this.defaults);
    if (this.#topics.has(name)) throw alreadyExists(name);
    return await this.#exclusively(name, () => this.#create(name, partitionCount, overrides, config));
  }

  async #create(
    name: string,
    partitionCount: number,
    overrides: TopicOverrides,
    config: PartitionConfig,
  ): Promise<Topic> {
    const { catalog } = this.#options;
    const draft = catalog.draft(name, partitionCount, overrides);
    const { record, slots } = await this.#adding(draft, 0, partitionCount, config, () => catalog.create(draft));
    const topic: Topic = { record, config, internal: isInternal(name), slots };
    this.#topics.set(name, topic);
    this.#notify('created', topic);
    return topic;
  }

  /**
   * Opens new partitions, then lets `commit` make them part of a topic: should either fail, empty logs are all there is
   * to undo, and all that a crash can leave.
   */
  async #adding(
    topic: TopicIdentity,
    from: number,
    to: number,
    config: PartitionConfig,
    commit: () => Promise<TopicRecord>,
  ): Promise<{ readonly record: TopicRecord; readonly slots: readonly PartitionSlot[] }> {
    const slots = await this.#opener.open(topic, from, to, config);
    try {
      for (const slot of slots) if (slot instanceof LogError) throw slot;
      return { record: await commit(), slots };
    } catch (error) {
      await this.#opener.discard(topic, from, slots);
      throw error;
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
      this.#quota.reserving(partitionCount - before.slots.length, () =>
        this.#replace(before, { partitionCount, overrides }, config),
      ),
    );
    logTopicChange(this.#options.logger, record, after.record, this.defaults);
    this.#notify('updated', after);
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
    this.#quota.check(wanted, wanted - current);
    return wanted;
  }

  async #replace(before: Topic, contents: TopicContents, config: PartitionConfig): Promise<Topic> {
    const { record, slots: added } = await this.#adding(
      before.record,
      before.slots.length,
      contents.partitionCount,
      config,
      () => this.#options.catalog.update(before.record, contents),
    );
    const after: Topic = { ...before, record, config, slots: [...before.slots, ...added] };
    this.#topics.set(record.name, after);
    for (const partition of partitionsOf(before.slots)) partition.configure(config);
    return after;
  }

  /**
   * Deletes the topic for good. Resolves when that is durable and its name is free; its files go in the background.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC (internal), CONCURRENT_UPDATE, or why the storage
   *   refused. With an unknown outcome the topic may be gone already and its name be free only later
   */
  async delete(name: string): Promise<void> {
    const topic = this.get(name);
    refuseInternal(name, 'deleted');
    await this.#exclusively(name, async () => {
      await this.#deletions.room();
      await this.#retire(topic);
    });
  }

  /**
   * Deletes the topic from the catalog and takes its partitions out of service before its name is free; what is left
   * to do goes on in the background.
   */
  async #retire(topic: Topic): Promise<void> {
    const { name, id, partitionCount } = topic.record;
    const partitions = partitionsOf(topic.slots);
    let isAccepted = false;
    let nameFree = false;
    try {
      await this.#options.catalog.delete(topic.record, () => {
        isAccepted = true;
        this.#topics.delete(name);
        this.#quota.release(partitionCount);
        for (const partition of partitions) partition.retire();
        this.#notify('deleted', topic);
      });
      nameFree = true;
    } catch (error) {
      throw isAccepted ? deletionGoesOn(name, toLogError(error)) : error;
    } finally {
      // Unless the deletion was refused and the topic serves on, its logs are not left open.
      if (isAccepted) this.#deletions.add({ topic: { name, id, partitionCount }, partitions, nameFree });
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

  /** The topic of this name, if there is one. */
  find(name: string): Topic | undefined {
    return this.#topics.get(name);
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
    const topic = topicId === '' ? this.get(name) : this.withId(name, topicId);
    const slot = topic.slots[index];
    if (slot instanceof Partition) return slot;
    if (slot !== undefined) throw slot;
    throw unknownPartition(name, index, topic.slots.length);
  }

  /** @throws LogError UNKNOWN_TOPIC_ID unless the topic of this name has the id */
  withId(name: string, topicId: string): Topic {
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
    await this.#reopening.close();
    try {
      const partitions = [...this.#topics.values()].flatMap((topic) => partitionsOf(topic.slots));
      await forEachLimit(partitions, OPEN_CONCURRENCY, (partition) => partition.close());
    } finally {
      await deletions;
    }
  }
}
