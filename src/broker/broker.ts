/** The broker: topics, produce and fetch over a storage engine. Knows nothing of the network. */
import type { Clock } from '../core/clock.js';
import type { Address } from '../core/config-key.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import type { Random } from '../core/random.js';
import { type Epoch, toEpoch } from '../core/types.js';
import type { ProducerStateConfig } from '../partition/producers/producer-config.js';
import type { MetadataStore, StorageEngine } from '../storage/engine.js';
import { type DeletedRecords, type DeleteRecordsCommand, deleteRecords } from './delete-records.js';
import { Fetcher } from './fetch.js';
import { GroupCoordinator } from './groups/coordinator.js';
import type { GroupCoordinatorApi } from './groups/coordinator-types.js';
import { checkGroupConfig, type GroupConfig } from './groups/group-config.js';
import { type InitProducerRequest, initProducer } from './init-producer.js';
import { listOffsets, type OffsetAnswer, type OffsetQuery } from './list-offsets.js';
import { LogManager } from './log-manager.js';
import { Producer } from './produce.js';
import { ProducerIds } from './producer-ids.js';
import { TopicCatalog } from './topic-catalog.js';
import type { TopicOverrides } from './topic-config.js';
import { type TopicLimits, Topics } from './topics.js';
import { TransactionCoordinator } from './transactions/coordinator.js';
import type { ProducerIdentity, TransactionCoordinatorApi } from './transactions/coordinator-types.js';
import type { TransactionConfig } from './transactions/transaction-config.js';

const CLUSTER_ID_KEY = 'broker/cluster-id';
const EPOCH_KEY = 'broker/epoch';
/** The only node there is; clients learn it from DescribeCluster and follow it by id. */
const NODE_ID = 1;

/** How topics are kept in bounds: when retention looks, and what compaction may use. */
export interface LifecycleOptions {
  /** Time between two checks of the retention limits, in ms. */
  readonly retentionCheckIntervalMs: number;
  /** Time for which the cleaner rests when nothing was due for compaction, in ms. */
  readonly cleanerBackoffMs: number;
  /** Memory for the cleaner's map of keys, in bytes. */
  readonly cleanerDedupeBufferBytes: number;
}

export interface BrokerOptions {
  readonly engine: StorageEngine;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly version: string;
  readonly limits: TopicLimits;
  /** Partitions of a topic that is created without a number. */
  readonly defaultPartitions: number;
  /** Configuration of topics that do not set it themselves, by the keys of a topic. */
  readonly topicDefaults: TopicOverrides;
  readonly lifecycle: LifecycleOptions;
  readonly groups: GroupConfig;
  readonly producers: ProducerStateConfig;
  readonly transactions: TransactionConfig;
  /** The largest request the listeners take, told to clients. */
  readonly maxRequestBytes: number;
}

export interface ClusterDescription {
  readonly clusterId: string;
  readonly nodeId: number;
  readonly address: Address;
  readonly version: string;
  readonly maxRequestBytes: number;
}

export class Broker {
  readonly topics: Topics;
  readonly produce: Producer;
  readonly fetch: Fetcher;
  readonly groups: GroupCoordinatorApi;
  readonly transactions: TransactionCoordinatorApi;
  readonly producerIds: ProducerIds;
  readonly nodeId: number = NODE_ID;
  readonly #options: BrokerOptions;
  readonly #clusterId: string;
  readonly #logs: LogManager;
  readonly #groups: GroupCoordinator;
  readonly #transactions: TransactionCoordinator;
  #address: Address = { host: '127.0.0.1', port: 0 };
  #draining = false;

  private constructor(options: BrokerOptions, clusterId: string, topics: Topics, logs: LogManager) {
    this.#options = options;
    this.#logs = logs;
    this.#clusterId = clusterId;
    this.topics = topics;
    this.producerIds = new ProducerIds(options.engine.metadata);
    this.#groups = new GroupCoordinator({ ...options, topics, config: options.groups });
    this.groups = this.#groups;
    this.#transactions = new TransactionCoordinator({
      ...options,
      topics,
      groups: this.#groups,
      allocateProducerId: () => this.producerIds.allocate(),
      config: options.transactions,
      startedClean: options.engine.startedClean ?? false,
    });
    this.transactions = this.#transactions;
    this.produce = new Producer({
      topics,
      transactions: this.#transactions,
      clock: options.clock,
      isDraining: () => this.#draining,
    });
    this.fetch = new Fetcher({ topics, clock: options.clock });
  }

  /**
   * Opens every partition under a new epoch. The broker owns the engine from here on.
   * @throws LogError INVALID_CONFIG: the defaults for topics do not hold, by themselves or with a topic's own values, or
   *   what bounds groups contradicts itself
   */
  static async start(options: BrokerOptions): Promise<Broker> {
    const { engine, random, clock, logger, limits, topicDefaults, lifecycle } = options;
    checkGroupConfig(options.groups);
    const clusterId = await getOrCreate(engine.metadata, CLUSTER_ID_KEY, () => random.uuid());
    const epoch = await nextEpoch(engine.metadata);
    const catalog = new TopicCatalog(engine.metadata, random);
    const topics: Topics = new Topics({
      engine,
      catalog,
      epoch,
      clock,
      logger,
      limits,
      defaults: topicDefaults,
      producers: options.producers,
    });
    const logs = new LogManager({ topics, clock, logger, ...lifecycle });
    topics.onChange(({ kind, topic }) => {
      if (kind === 'updated') logs.checkNow(topic.record.name);
    });
    await topics.load();
    logs.start();
    return new Broker(options, clusterId, topics, logs);
  }

  get defaultPartitions(): number {
    return this.#options.defaultPartitions;
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  get logger(): Logger {
    return this.#options.logger;
  }

  /** Set by the listener once it is bound: where clients reach this node. */
  advertise(address: Address): void {
    this.#address = address;
  }

  describeCluster(): ClusterDescription {
    const { version, maxRequestBytes } = this.#options;
    return { clusterId: this.#clusterId, nodeId: NODE_ID, address: this.#address, version, maxRequestBytes };
  }

  async listOffsets(query: OffsetQuery): Promise<OffsetAnswer[]> {
    return await listOffsets(this.topics, query);
  }

  /** See `initProducer`. */
  async initProducer(request: InitProducerRequest): Promise<ProducerIdentity> {
    const { producerIds, transactions } = this;
    return await initProducer({ producerIds, transactions, isDraining: () => this.#draining }, request);
  }

  /** See `deleteRecords`. */
  async deleteRecords(command: DeleteRecordsCommand): Promise<DeletedRecords[]> {
    return await deleteRecords(this.topics, command);
  }

  /** Why topics can be neither created, altered nor deleted, if so. */
  get metadataFailure(): LogError | undefined {
    const { failure } = this.#options.engine.metadata;
    return failure && toLogError(failure);
  }

  get draining(): boolean {
    return this.#draining;
  }

  /**
   * From here on new appends and changes of groups and transactions are refused with BROKER_DRAINING; what was accepted is
   * finished.
   */
  drain(): void {
    this.#draining = true;
    this.fetch.close();
    // What is decided is to reach the groups.
    void this.#transactions.drain().then(() => this.#groups.drain());
  }

  /**
   * Finishes what was accepted, syncs it and closes the storage cleanly.
   * @throws LogError when not everything could be left in order; everything is closed all the same
   */
  async close(): Promise<void> {
    this.drain();
    await this.#logs.close();
    await this.#transactions.close();
    await this.#groups.close();
    try {
      await this.topics.close();
    } finally {
      await this.#options.engine.close();
    }
  }
}

async function getOrCreate(metadata: MetadataStore, key: string, create: () => string): Promise<string> {
  const entry = await metadata.get(key);
  if (entry !== undefined) return entry.value;
  const value = create();
  const result = await metadata.compareAndSet(key, value, 0);
  if (result.ok) return value;
  if (result.current !== undefined) return result.current.value;
  throw new LogError('CONCURRENT_UPDATE', `The metadata entry ${key} was deleted while this broker started.`);
}

/** A number higher than any broker on this storage has had: it fences whoever was here before. */
async function nextEpoch(metadata: MetadataStore): Promise<Epoch> {
  for (;;) {
    const entry = await metadata.get(EPOCH_KEY);
    const epoch = toEpoch(entry === undefined ? 1 : Number(entry.value) + 1);
    const result = await metadata.compareAndSet(EPOCH_KEY, String(epoch), entry?.version ?? 0);
    if (result.ok) return epoch;
  }
}
