/** Topics, offsets, consumer groups and the cluster. */
import { LogError } from '../core/errors.js';
import type { ListOffsetsRequest, OffsetPositionName, RecordsToDeleteMessage, TopicMessage } from '../rpc/messages.js';
import { AdminCalls, allPages, type CallOptions } from './admin-calls.js';
import {
  type GroupDescription,
  type GroupOffsetReset,
  type GroupOffsetResetResult,
  type GroupSummary,
  getGroup,
  listGroups,
  resetGroupOffsets,
} from './admin-groups.js';
import { describeTopic, summarizeTopic } from './admin-topics.js';
import {
  abortTransaction,
  describeProducers,
  describeTransaction,
  findHangingTransactions,
  type HangingTransaction,
  type ListTransactionsOptions,
  listTransactions,
  type ProducerDescription,
  type TransactionDescription,
  type TransactionSummary,
} from './admin-transactions.js';
import type { Channel } from './channel.js';
import { type Isolation, isolationLevelOf, resolveIsolation } from './isolation.js';
import { methods } from './methods.js';
import type { ClientRuntime } from './options.js';

/** Topics asked for per page when listing. */
const LIST_PAGE_SIZE = 1_000;

export interface NewTopic {
  readonly name: string;
  /** Default: the broker's. */
  readonly partitions?: number;
  /** Topic configuration by Kafka's names, such as `{ 'segment.bytes': 1048576 }`. */
  readonly configs?: Readonly<Record<string, string | number | boolean>>;
  /** Check everything, create nothing. */
  readonly validateOnly?: boolean;
}

/** What to alter of a topic; what is not named stays as it is. */
export interface TopicUpdate {
  readonly name: string;
  /** The number of partitions afterwards: it only ever rises. Keys may go to other partitions than before. */
  readonly partitions?: number;
  /** Values by Kafka's names; null takes the topic's own value back, so that the broker's or the default holds. */
  readonly configs?: Readonly<Record<string, string | number | boolean | null>>;
  /** Check everything, change nothing; the topic is described as it would be. */
  readonly validateOnly?: boolean;
}

/**
 * Records of one partition: those below an offset (`latest`: below the high watermark), or those before the first one
 * at or after a time (all below the high watermark when there is none).
 */
export type RecordsToDelete =
  | { readonly partition: number; readonly beforeOffset: number | 'latest' }
  | { readonly partition: number; readonly beforeTime: Date };

export interface DeletedRecords {
  readonly partition: number;
  /** The first offset that can be read now. */
  readonly logStartOffset: number;
}

export interface PartitionDescription {
  readonly partition: number;
  readonly leaderNodeId: number;
  /** First offset that can be read. */
  readonly logStartOffset: number;
  /** Everything below is durable and visible to readers. */
  readonly highWatermark: number;
  /** What the next record will get. */
  readonly logEndOffset: number;
  readonly segmentCount: number;
  readonly sizeBytes: number;
  /**
   * Largest timestamp of the oldest record batch on disk, in ms since the epoch; undefined when there is none. What was
   * deleted counts until its segment goes.
   */
  readonly oldestTimestampMs: number | undefined;
  /** Largest timestamp of what is on disk, in ms since the epoch; undefined when there is none. */
  readonly newestTimestampMs: number | undefined;
  /** Why the partition takes no appends, if so. */
  readonly failureReason: string | undefined;
}

export interface ConfigValue {
  readonly key: string;
  readonly value: string;
  /** Whether the value was set for the topic, for the broker, or is the default. */
  readonly source: 'default' | 'broker' | 'topic';
}

export interface TopicSummary {
  readonly name: string;
  /** A UUID; a recreated topic of the same name has another. */
  readonly topicId: string;
  readonly partitionCount: number;
  readonly internal: boolean;
}

export interface TopicDescription extends TopicSummary {
  readonly partitions: readonly PartitionDescription[];
  readonly configs: readonly ConfigValue[];
}

/**
 * The log start offset, the high watermark, the first record that holds the largest timestamp, or the first record at or
 * after a time (ms since the epoch).
 */
export type OffsetSpec = 'earliest' | 'latest' | 'latest-by-timestamp' | Date | { readonly timestampMs: number };

export interface ListOffsetsOptions extends CallOptions {
  /** Default `read_uncommitted`. */
  readonly isolation?: Isolation;
}

export interface PartitionOffset {
  readonly partition: number;
  readonly offset: number;
  /** Of the record found; undefined when there is none (the offset is the high watermark), for earliest and for latest. */
  readonly timestampMs: number | undefined;
}

export interface ClusterDescription {
  readonly clusterId: string;
  readonly nodes: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
  readonly brokerVersion: string;
  /** The largest request that the broker takes, in bytes. */
  readonly maxRequestBytes: number;
}

/**
 * Administration of a broker. Idempotent calls, and others that certainly had no effect, are repeated after a failure
 * that may pass, until the client's `requestTimeoutMs` is over. All methods reject with LogError.
 */
export class Admin {
  readonly #calls: AdminCalls;

  /** Use `client.admin`. */
  constructor(channel: Channel, runtime: ClientRuntime, requestTimeoutMs: number) {
    this.#calls = new AdminCalls(channel, runtime, requestTimeoutMs);
  }

  /**
   * Creates a topic and resolves to it.
   * @throws LogError TOPIC_ALREADY_EXISTS, INVALID_TOPIC, INVALID_PARTITIONS, INVALID_CONFIG
   */
  async createTopic(topic: NewTopic, options: CallOptions = {}): Promise<TopicDescription> {
    const configs: Record<string, string> = {};
    for (const [key, value] of Object.entries(topic.configs ?? {})) configs[key] = String(value);
    const request = {
      name: topic.name,
      partitionCount: topic.partitions ?? 0,
      configs,
      validateOnly: topic.validateOnly ?? false,
    };
    if (topic.partitions === 0) {
      throw new LogError('INVALID_PARTITIONS', `Topic ${topic.name} needs at least one partition, not 0.`);
    }
    const response = await this.#calls.change(methods.createTopic, request, options);
    return describeTopic(response.topic);
  }

  /** @throws LogError UNKNOWN_TOPIC_OR_PARTITION */
  async getTopic(name: string, options: CallOptions = {}): Promise<TopicDescription> {
    return describeTopic(await this.lookUpTopic(name, options));
  }

  /** All topics by name, page after page. */
  async listTopics(options: CallOptions & { readonly includeInternal?: boolean } = {}): Promise<TopicSummary[]> {
    const { includeInternal = false } = options;
    return allPages('topics', async (pageToken) => {
      const request = { pageSize: LIST_PAGE_SIZE, pageToken, includeInternal };
      const page = await this.#calls.idempotent(methods.listTopics, request, options);
      return { items: page.topics.map(summarizeTopic), nextPageToken: page.nextPageToken };
    });
  }

  /**
   * Deletes a topic and its records for good. Resolves when that is durable and the name is free; the files go later.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION
   */
  async deleteTopic(name: string, options: CallOptions = {}): Promise<void> {
    await this.#calls.change(methods.deleteTopic, { name }, options);
  }

  /**
   * Alters a topic, in force at once, and resolves to it as it is now. All of it is changed, or nothing.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC, INVALID_PARTITIONS, INVALID_CONFIG
   */
  async updateTopic(update: TopicUpdate, options: CallOptions = {}): Promise<TopicDescription> {
    if (update.partitions !== undefined && !(Number.isInteger(update.partitions) && update.partitions >= 1)) {
      throw new LogError('INVALID_PARTITIONS', `Topic ${update.name} cannot have ${update.partitions} partitions.`);
    }
    const setConfigs: Record<string, string> = {};
    const resetConfigs: string[] = [];
    for (const [key, value] of Object.entries(update.configs ?? {})) {
      if (value === null) resetConfigs.push(key);
      else setConfigs[key] = String(value);
    }
    const { name, partitions: partitionCount = 0, validateOnly = false } = update;
    const request = { name, partitionCount, setConfigs, resetConfigs, validateOnly };
    // The request says how the topic is to be, not by how much to change it: carried out twice, it comes to the same.
    const response = await this.#calls.idempotent(methods.updateTopic, request, options);
    return describeTopic(response.topic);
  }

  /**
   * Deletes records from the beginning of partitions, durably and for good: their log start offsets rise.
   * @returns an answer for each partition, in the order asked
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC, INVALID_REQUEST, OFFSET_OUT_OF_RANGE with the valid
   *   range: nothing was deleted
   */
  async deleteRecords(
    topic: string | { readonly name: string },
    partitions: readonly RecordsToDelete[],
    options: CallOptions = {},
  ): Promise<DeletedRecords[]> {
    const request = { topic: nameOf(topic), topicId: '', partitions: partitions.map(toTarget) };
    // A log start offset only rises, so that the same offset or time comes to the same the second time. The high
    // watermark is the one that holds when the broker gets to it, at any time until this call is answered.
    return (await this.#calls.idempotent(methods.deleteRecords, request, options)).partitions;
  }

  /**
   * One offset for each partition asked for (default: all), in partition order.
   * @param options.isolation with `read_committed` the end is the last stable offset, and nothing behind it is found.
   *   Default `read_uncommitted`
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_REQUEST
   */
  async listOffsets(
    topic: string | { readonly name: string },
    spec: OffsetSpec,
    partitions: readonly number[] = [],
    options: ListOffsetsOptions = {},
  ): Promise<PartitionOffset[]> {
    const request: ListOffsetsRequest = {
      topic: nameOf(topic),
      partitions: [...partitions],
      isolationLevel: isolationLevelOf(resolveIsolation(options.isolation ?? 'read_uncommitted')),
      ...positionOf(spec),
    };
    const response = await this.#calls.idempotent(methods.listOffsets, request, options);
    return response.offsets
      .map(({ partition, offset, timestampMs }) => ({ partition, offset, timestampMs: timestampMs ?? undefined }))
      .sort((a, b) => a.partition - b.partition);
  }

  async describeCluster(options: CallOptions = {}): Promise<ClusterDescription> {
    return this.#calls.idempotent(methods.describeCluster, {}, options);
  }

  /** All consumer groups by their id, page after page. */
  listGroups(options: CallOptions = {}): Promise<GroupSummary[]> {
    return listGroups(this.#calls, options);
  }

  /**
   * A consumer group with its members, its committed offsets and how far behind they are.
   * @throws LogError GROUP_ID_NOT_FOUND
   */
  getGroup(groupId: string, options: CallOptions = {}): Promise<GroupDescription> {
    return getGroup(this.#calls, groupId, options);
  }

  /**
   * Deletes a consumer group without members, and its committed offsets.
   * @throws LogError GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP
   */
  async deleteGroup(groupId: string, options: CallOptions = {}): Promise<void> {
    await this.#calls.change(methods.deleteGroup, { groupId }, options);
  }

  /**
   * Moves the committed offsets of a group in one topic, durably, also while the group has members: they drop what they
   * hold of these partitions without committing it, fetch the new offsets and go on. All partitions are moved, or none. A
   * group that is not there is created.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC (an internal one), INVALID_GROUP_ID, INVALID_REQUEST,
   *   OFFSET_OUT_OF_RANGE with the valid range, GROUP_ID_NOT_FOUND (`current` and `shiftBy` need a group)
   */
  async resetGroupOffsets(reset: GroupOffsetReset, options: CallOptions = {}): Promise<GroupOffsetResetResult> {
    return resetGroupOffsets(this.#calls, reset, options);
  }

  /** All transactional ids with their latest transactions, by id, page after page. */
  listTransactions(options: ListTransactionsOptions = {}): Promise<TransactionSummary[]> {
    return listTransactions(this.#calls, options);
  }

  /**
   * A transactional id, and what its open or decided transaction writes to.
   * @throws LogError TRANSACTIONAL_ID_NOT_FOUND
   */
  describeTransaction(transactionalId: string, options: CallOptions = {}): Promise<TransactionDescription> {
    return describeTransaction(this.#calls, transactionalId, options);
  }

  /**
   * Aborts the open transaction of a transactional id, whose producer is told TRANSACTION_ABORTABLE and can go on with
   * another. Resolves to the state afterwards; one that is decided already is waited for.
   * @throws LogError TRANSACTIONAL_ID_NOT_FOUND, INVALID_TXN_STATE (none is open)
   */
  abortTransaction(transactionalId: string, options: CallOptions = {}): Promise<TransactionDescription> {
    return abortTransaction(this.#calls, transactionalId, options);
  }

  /** Open transactions in partitions that no transactional id answers for. The broker ends them by itself. */
  findHangingTransactions(options: CallOptions = {}): Promise<HangingTransaction[]> {
    return findHangingTransactions(this.#calls, options);
  }

  /**
   * The producers that a partition remembers, by their ids.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION
   */
  describeProducers(
    topic: string | { readonly name: string },
    partition: number,
    options: CallOptions = {},
  ): Promise<ProducerDescription[]> {
    return describeProducers(this.#calls, nameOf(topic), partition, options);
  }

  /** The topic as the broker describes it. For the client's own use. */
  async lookUpTopic(name: string, options: CallOptions = {}): Promise<TopicMessage> {
    return (await this.#calls.idempotent(methods.getTopic, { name }, options)).topic;
  }

  /** The client was closed: calls fail from here on. */
  markClosed(): void {
    this.#calls.close();
  }
}

function nameOf(topic: string | { readonly name: string }): string {
  return typeof topic === 'string' ? topic : topic.name;
}

/** How the wire says high watermark. */
const HIGH_WATERMARK = -1;

function toTarget(records: RecordsToDelete): RecordsToDeleteMessage {
  const { partition } = records;
  if ('beforeTime' in records) {
    const beforeTimeMs = records.beforeTime.getTime();
    if (Number.isSafeInteger(beforeTimeMs)) return { partition, beforeTimeMs };
    throw new LogError('INVALID_REQUEST', `The time for partition ${partition} is not a valid Date.`);
  }
  const { beforeOffset } = records;
  if (beforeOffset === 'latest') return { partition, beforeOffset: HIGH_WATERMARK };
  if (Number.isSafeInteger(beforeOffset) && beforeOffset >= 0) return { partition, beforeOffset };
  throw new LogError(
    'INVALID_REQUEST',
    `Records of partition ${partition} can be deleted before an offset from 0 or before 'latest', not ${beforeOffset}.`,
  );
}

function positionOf(spec: OffsetSpec): { position: OffsetPositionName; timestampMs: number } {
  if (spec === 'earliest') return { position: 'OFFSET_POSITION_EARLIEST', timestampMs: 0 };
  if (spec === 'latest') return { position: 'OFFSET_POSITION_LATEST', timestampMs: 0 };
  if (spec === 'latest-by-timestamp') return { position: 'OFFSET_POSITION_LATEST_BY_TIMESTAMP', timestampMs: 0 };
  const timestampMs = spec instanceof Date ? spec.getTime() : spec.timestampMs;
  if (!Number.isSafeInteger(timestampMs)) {
    throw new LogError('INVALID_REQUEST', 'A time is a valid Date or a whole number of ms since the epoch.');
  }
  return { position: 'OFFSET_POSITION_UNSPECIFIED', timestampMs };
}
