/** Topics, offsets and the cluster. */
import { LogError } from '../core/errors.js';
import type {
  ConfigSourceName,
  ListOffsetsRequest,
  OffsetPositionName,
  PartitionMessage,
  TopicMessage,
} from '../rpc/messages.js';
import type { Channel } from './channel.js';
import { callFailure, closedError } from './failures.js';
import { type Method, methods } from './methods.js';
import type { ClientRuntime } from './options.js';
import { DEFAULT_BACKOFF, withRetries } from './retry.js';

/** Topics asked for per page when listing. */
const LIST_PAGE_SIZE = 1_000;

export interface CallOptions {
  /** Abandons the call; it may still be carried out. */
  readonly signal?: AbortSignal;
}

export interface NewTopic {
  readonly name: string;
  /** Default: the broker's. */
  readonly partitions?: number;
  /** Topic configuration by Kafka's names, such as `{ 'segment.bytes': 1048576 }`. */
  readonly configs?: Readonly<Record<string, string | number | boolean>>;
  /** Check everything, create nothing. */
  readonly validateOnly?: boolean;
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

/** The log start offset, the high watermark, or the first record at or after a time (ms since the epoch). */
export type OffsetSpec = 'earliest' | 'latest' | Date | { readonly timestampMs: number };

export interface PartitionOffset {
  readonly partition: number;
  readonly offset: number;
  /** Of the record found by time; undefined when none is that late (the offset is the high watermark) or for a name. */
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
 * Administration of a broker. Calls that change nothing, and failures that certainly had no effect, are repeated until
 * the client's `requestTimeoutMs` is over. All methods reject with LogError.
 */
export class Admin {
  readonly #channel: Channel;
  readonly #runtime: ClientRuntime;
  readonly #requestTimeoutMs: number;
  #closed = false;

  /** Use `client.admin`. */
  constructor(channel: Channel, runtime: ClientRuntime, requestTimeoutMs: number) {
    this.#channel = channel;
    this.#runtime = runtime;
    this.#requestTimeoutMs = requestTimeoutMs;
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
    const response = await this.#change(methods.createTopic, request, options);
    return describeTopic(response.topic);
  }

  /** @throws LogError UNKNOWN_TOPIC_OR_PARTITION */
  async getTopic(name: string, options: CallOptions = {}): Promise<TopicDescription> {
    return describeTopic(await this.lookUpTopic(name, options));
  }

  /** All topics by name, page after page. */
  async listTopics(options: CallOptions & { readonly includeInternal?: boolean } = {}): Promise<TopicSummary[]> {
    const topics: TopicSummary[] = [];
    let pageToken = '';
    do {
      const request = { pageSize: LIST_PAGE_SIZE, pageToken, includeInternal: options.includeInternal ?? false };
      const page = await this.#ask(methods.listTopics, request, options);
      for (const topic of page.topics) topics.push(summarizeTopic(topic));
      if (page.nextPageToken !== '' && page.nextPageToken === pageToken) {
        throw new LogError('INTERNAL', 'The broker returned the same page of topics twice.');
      }
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return topics;
  }

  /**
   * Deletes a topic and its records for good.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION
   */
  async deleteTopic(name: string, options: CallOptions = {}): Promise<void> {
    await this.#change(methods.deleteTopic, { name }, options);
  }

  /**
   * One offset for each partition asked for (default: all), in partition order.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, INVALID_REQUEST
   */
  async listOffsets(
    topic: string | { readonly name: string },
    spec: OffsetSpec,
    partitions: readonly number[] = [],
    options: CallOptions = {},
  ): Promise<PartitionOffset[]> {
    const name = typeof topic === 'string' ? topic : topic.name;
    const request: ListOffsetsRequest = { topic: name, partitions: [...partitions], ...positionOf(spec) };
    const response = await this.#ask(methods.listOffsets, request, options);
    return response.offsets
      .map(({ partition, offset, timestampMs }) => ({ partition, offset, timestampMs: timestampMs ?? undefined }))
      .sort((a, b) => a.partition - b.partition);
  }

  async describeCluster(options: CallOptions = {}): Promise<ClusterDescription> {
    return this.#ask(methods.describeCluster, {}, options);
  }

  /** The topic as the broker describes it. For the client's own use. */
  async lookUpTopic(name: string, options: CallOptions = {}): Promise<TopicMessage> {
    return (await this.#ask(methods.getTopic, { name }, options)).topic;
  }

  /** The client was closed: calls fail from here on. */
  markClosed(): void {
    this.#closed = true;
  }

  /** A call without effects: any failure that may pass is worth another try. */
  #ask<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    return this.#call(method, request, options, () => true);
  }

  /** A call with effects: repeated only while it certainly had none. */
  #change<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    return this.#call(method, request, options, (error) => error.outcome === 'none');
  }

  async #call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
    mayRepeat: (error: LogError) => boolean,
  ): Promise<Response> {
    const { clock, random } = this.#runtime;
    const { signal } = options;
    const deadline = clock.monotonic() + this.#requestTimeoutMs;
    const context = { clock, random, backoff: DEFAULT_BACKOFF, limitMs: this.#requestTimeoutMs, signal };
    return withRetries(
      context,
      async () => {
        if (this.#closed) throw closedError('client');
        const timeoutMs = Math.max(1, deadline - clock.monotonic());
        try {
          return await this.#channel.unary(method, request, { timeoutMs, signal });
        } catch (error) {
          throw this.#closed ? closedError('client') : callFailure(error);
        }
      },
      mayRepeat,
    );
  }
}

function positionOf(spec: OffsetSpec): { position: OffsetPositionName; timestampMs: number } {
  if (spec === 'earliest') return { position: 'OFFSET_POSITION_EARLIEST', timestampMs: 0 };
  if (spec === 'latest') return { position: 'OFFSET_POSITION_LATEST', timestampMs: 0 };
  const timestampMs = spec instanceof Date ? spec.getTime() : spec.timestampMs;
  if (!Number.isSafeInteger(timestampMs)) {
    throw new LogError('INVALID_REQUEST', 'A time is a valid Date or a whole number of ms since the epoch.');
  }
  return { position: 'OFFSET_POSITION_UNSPECIFIED', timestampMs };
}

const CONFIG_SOURCES: Readonly<Record<ConfigSourceName, ConfigValue['source']>> = {
  CONFIG_SOURCE_UNSPECIFIED: 'default',
  CONFIG_SOURCE_DEFAULT: 'default',
  CONFIG_SOURCE_BROKER: 'broker',
  CONFIG_SOURCE_TOPIC: 'topic',
};

function summarizeTopic({ name, topicId, partitionCount, internal }: TopicMessage): TopicSummary {
  return { name, topicId, partitionCount, internal };
}

function describeTopic(topic: TopicMessage): TopicDescription {
  return {
    ...summarizeTopic(topic),
    partitions: topic.partitions.map(describePartition),
    configs: topic.configs.map(({ key, value, source }) => ({ key, value, source: CONFIG_SOURCES[source] })),
  };
}

function describePartition(partition: PartitionMessage): PartitionDescription {
  return { ...partition, failureReason: partition.failureReason === '' ? undefined : partition.failureReason };
}
