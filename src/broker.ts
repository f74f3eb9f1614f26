/** `tidelog/broker`: the production broker inside your own process, for tests and for embedding. */
import { Broker, type LifecycleOptions } from './broker/broker.js';
import { checkGroupConfig, type GroupConfig } from './broker/groups/group-config.js';
import { resolveTopicConfig, type TopicOverrides } from './broker/topic-config.js';
import type { TransactionConfig } from './broker/transactions/transaction-config.js';
import { BROKER_CONFIG_KEYS } from './config/broker-config.js';
import { type Clock, systemClock } from './core/clock.js';
import { type Address, formatAddress, parseAddress, parseConfigValue } from './core/config-key.js';
import { LogError } from './core/errors.js';
import { type Logger, silentLogger } from './core/logger.js';
import { type Random, systemRandom } from './core/random.js';
import { GrpcListener } from './listeners/grpc/listener.js';
import { HttpListener } from './listeners/http/listener.js';
import type { ProducerStateConfig } from './partition/producers/producer-config.js';
import type { StorageEngine } from './storage/engine.js';
import { openLocalEngine } from './storage/local/engine.js';
import { openMemoryEngine } from './storage/memory/engine.js';
import { VERSION } from './version.js';

export type { Clock } from './core/clock.js';
export { LogError, type Reason } from './core/errors.js';
export type { Logger } from './core/logger.js';

const MIB = 1024 * 1024;

/** Limits of a broker; each has a default. */
export interface BrokerLimits {
  /** Largest request in bytes. Default 8 MiB. */
  readonly requestMaxBytes?: number;
  /** Bytes in flight on one stream, each way. Default 8 MiB. */
  readonly streamInFlightBytes?: number;
  /** Bytes in flight on one connection. Default 32 MiB. */
  readonly connectionInFlightBytes?: number;
  /** Bytes in flight in all. Default 256 MiB. */
  readonly totalInFlightBytes?: number;
  /** Connections of gRPC clients at once. Default 10,000. */
  readonly maxConnections?: number;
  /** Calls open at once, on all connections. Default 20,000. */
  readonly maxStreams?: number;
  /** Partitions of one topic. Default 10,000. */
  readonly maxPartitionsPerTopic?: number;
  /** Partitions in all. Default 20,000. */
  readonly maxPartitions?: number;
  /** Files held open. Default 4,096. */
  readonly maxOpenFiles?: number;
  /** Recently appended data kept in memory for readers at the tail, in bytes. Default 4 MiB. */
  readonly tailCacheBytes?: number;
  /**
   * Appends are refused with STORAGE_FULL while the file system of the data directory has less free space, in bytes; 0
   * turns that off. Default 64 MiB.
   */
  readonly diskReserveBytes?: number;
}

/** How topics are kept in bounds; each has a default. */
export interface BrokerLifecycle {
  /** Time between two checks of the retention limits, in ms. Default 5 min. */
  readonly retentionCheckIntervalMs?: number;
  /** Time for which the cleaner rests when nothing was due for compaction, in ms. Default 15 s. */
  readonly cleanerBackoffMs?: number;
  /** Memory for the cleaner's map of keys, in bytes. Default 128 MiB. */
  readonly cleanerDedupeBufferBytes?: number;
}

/** Bounds of consumer groups; each has a default. */
export interface BrokerGroups {
  /** Partitions of the topic that keeps groups, when it is created. Default 16. */
  readonly offsetsTopicPartitions?: number;
  /** Session of a member that names none, in ms. Default 45 s. */
  readonly sessionTimeoutMs?: number;
  /** The shortest and the longest session that a member may name, in ms. Default 1 s and 30 min. */
  readonly minSessionTimeoutMs?: number;
  readonly maxSessionTimeoutMs?: number;
  /** How long a member may take to give partitions up, unless it names another time, in ms. Default 5 min. */
  readonly rebalanceTimeoutMs?: number;
  /** Members of one group. Default 1,000. */
  readonly maxMembers?: number;
  /** Groups. Default 100,000. */
  readonly maxGroups?: number;
  /** Members of all groups together. Default 10,000. */
  readonly maxMembersInAll?: number;
  /** Committed offsets of all groups together. Default 1,000,000. */
  readonly maxOffsets?: number;
  /** How long a group without members is kept, in ms. Default 7 days. */
  readonly offsetsRetentionMs?: number;
  /** Time between two looks for groups that are no longer kept, in ms. Default 10 min. */
  readonly retentionCheckIntervalMs?: number;
  /** Text that comes with a committed offset, in bytes. Default 4 KiB. */
  readonly metadataMaxBytes?: number;
}

/** What partitions remember of producers; each has a default. */
export interface BrokerProducers {
  /** How long a producer is remembered that sends nothing, in ms. Default 24 h. */
  readonly expirationMs?: number;
  /** Producers that all partitions together remember. Default 250,000. */
  readonly maxProducers?: number;
  /** Message ids that all partitions together remember. Default 500,000. */
  readonly maxMessageIds?: number;
}

/** Bounds of transactions; each has a default. */
export interface BrokerTransactions {
  /** The longest time that a producer may ask for its transactions, in ms. Default 15 min. */
  readonly maxTimeoutMs?: number;
  /** How long a transactional id is kept that nobody uses, in ms. Default 7 days. */
  readonly idExpirationMs?: number;
  /** Transactional ids. Default 100,000. */
  readonly maxIds?: number;
  /** Partitions of the topic that keeps transactions, when it is created. Default 16. */
  readonly stateTopicPartitions?: number;
}

export interface StartBrokerOptions {
  /** Where the log is kept: nowhere, or in a directory that is created if there is none. */
  readonly storage: 'memory' | { readonly dataDir: string };
  /** gRPC address, `HOST:PORT`; port 0 lets the system choose. Default `127.0.0.1:0`. */
  readonly listen?: string;
  /** HTTP address for /healthz, `HOST:PORT`. Default: none. */
  readonly http?: string;
  /** Partitions of a topic that is created without a number. Default 1. */
  readonly defaultPartitions?: number;
  /** Configuration of topics that do not set it themselves, such as `{ 'retention.ms': 86_400_000 }`. */
  readonly topicDefaults?: Readonly<Record<string, string | number | boolean>>;
  readonly limits?: BrokerLimits;
  readonly lifecycle?: BrokerLifecycle;
  readonly groups?: BrokerGroups;
  readonly producers?: BrokerProducers;
  readonly transactions?: BrokerTransactions;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Default: silent. */
  readonly logger?: Logger;
}

/** Default of how long `close` waits for calls under way, in ms. */
const CLOSE_TIMEOUT_MS = 8_000;

/** A broker that serves. */
export class RunningBroker implements AsyncDisposable {
  /** gRPC address to connect to, `HOST:PORT`. */
  readonly address: string;
  /** HTTP address, `HOST:PORT`; undefined without an HTTP listener. */
  readonly httpAddress: string | undefined;
  readonly #broker: Broker;
  readonly #grpc: GrpcListener;
  readonly #http: HttpListener | undefined;
  readonly #clock: Clock;
  #closing: Promise<void> | undefined;

  /** Use `startBroker`. */
  constructor(broker: Broker, grpc: GrpcListener, http: HttpListener | undefined, clock: Clock) {
    this.#broker = broker;
    this.#grpc = grpc;
    this.#http = http;
    this.#clock = clock;
    this.address = formatAddress(grpc.address);
    this.httpAddress = http === undefined ? undefined : formatAddress(http.address);
  }

  /**
   * Stops cleanly: takes nothing new, finishes and answers what was accepted, syncs it, marks the storage as cleanly
   * stopped. Calls still under way after `timeoutMs` are cut off. Idempotent.
   */
  async close(timeoutMs: number = CLOSE_TIMEOUT_MS): Promise<void> {
    this.#closing ??= this.#close(timeoutMs);
    await this.#closing;
  }

  async #close(timeoutMs: number): Promise<void> {
    this.#broker.drain();
    this.#grpc.drain();
    const stop = new AbortController();
    const deadline = this.#clock.sleep(timeoutMs, stop.signal).catch(() => {});
    await this.#grpc.stop(deadline);
    stop.abort();
    try {
      await this.#broker.close();
    } finally {
      await this.#http?.stop();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Starts a broker in this process.
 * @throws LogError DATA_DIR_LOCKED, DATA_DIR_UNUSABLE, UNSUPPORTED_FORMAT, ADDRESS_UNAVAILABLE, INVALID_CONFIG
 */
export async function startBroker(options: StartBrokerOptions): Promise<RunningBroker> {
  const listen = addressOf('listen', options.listen ?? '127.0.0.1:0');
  const http = options.http === undefined ? undefined : addressOf('http', options.http);
  const limits = options.limits ?? {};
  const maxRequestBytes = limits.requestMaxBytes ?? 8 * MIB;
  const budgets = {
    streamBytes: limits.streamInFlightBytes ?? 8 * MIB,
    connectionBytes: limits.connectionInFlightBytes ?? 32 * MIB,
    totalBytes: limits.totalInFlightBytes ?? 256 * MIB,
  };
  const topicDefaults = textOf(options.topicDefaults ?? {});
  // Before the data directory is touched.
  resolveTopicConfig({}, topicDefaults);
  const lifecycle = lifecycleOf(options.lifecycle ?? {});
  const groups = groupsOf(options.groups ?? {});
  const producers = producersOf(options.producers ?? {});
  const transactions = transactionsOf(options.transactions ?? {});
  const engine = await openEngine(options);
  let broker: Broker | undefined;
  try {
    broker = await Broker.start({
      engine,
      clock: options.clock ?? systemClock,
      random: options.random ?? systemRandom,
      logger: options.logger ?? silentLogger,
      version: VERSION,
      defaultPartitions: options.defaultPartitions ?? 1,
      topicDefaults,
      maxRequestBytes,
      lifecycle,
      groups,
      producers,
      transactions,
      limits: {
        maxPartitionsPerTopic: limits.maxPartitionsPerTopic ?? 10_000,
        maxPartitions: limits.maxPartitions ?? 20_000,
      },
    });
    const httpListener = http === undefined ? undefined : await HttpListener.start(broker, http);
    try {
      const maxConnections = checked('connections.max', limits.maxConnections);
      const maxStreams = checked('streams.max', limits.maxStreams);
      const grpcOptions = { listen, maxRequestBytes, budgets, maxConnections, maxStreams };
      const grpcListener = await GrpcListener.start(broker, grpcOptions);
      return new RunningBroker(broker, grpcListener, httpListener, options.clock ?? systemClock);
    } catch (error) {
      await httpListener?.stop();
      throw error;
    }
  } catch (error) {
    // The broker reads its groups by now, and closes the engine when it has let go of that.
    await (broker ?? engine).close();
    throw error;
  }
}

async function openEngine(options: StartBrokerOptions): Promise<StorageEngine> {
  const clock = options.clock ?? systemClock;
  if (options.storage === 'memory') return openMemoryEngine({ clock });
  const { maxOpenFiles, tailCacheBytes, diskReserveBytes } = options.limits ?? {};
  return await openLocalEngine({
    dataDir: options.storage.dataDir,
    clock,
    logger: options.logger ?? silentLogger,
    diskReserveBytes: checked('log.disk.reserve.bytes', diskReserveBytes),
    ...(maxOpenFiles === undefined ? {} : { maxOpenFiles }),
    ...(tailCacheBytes === undefined ? {} : { tailCacheBytes }),
  });
}

function lifecycleOf(given: BrokerLifecycle): LifecycleOptions {
  return {
    retentionCheckIntervalMs: checked('log.retention.check.interval.ms', given.retentionCheckIntervalMs),
    cleanerBackoffMs: checked('log.cleaner.backoff.ms', given.cleanerBackoffMs),
    cleanerDedupeBufferBytes: checked('log.cleaner.dedupe.buffer.size', given.cleanerDedupeBufferBytes),
  };
}

/** @throws LogError INVALID_CONFIG */
function groupsOf(given: BrokerGroups): GroupConfig {
  const config: GroupConfig = {
    offsetsTopicPartitions: checked('offsets.topic.num.partitions', given.offsetsTopicPartitions),
    sessionTimeoutMs: checked('group.session.timeout.ms', given.sessionTimeoutMs),
    minSessionTimeoutMs: checked('group.min.session.timeout.ms', given.minSessionTimeoutMs),
    maxSessionTimeoutMs: checked('group.max.session.timeout.ms', given.maxSessionTimeoutMs),
    rebalanceTimeoutMs: checked('group.rebalance.timeout.ms', given.rebalanceTimeoutMs),
    maxMembers: checked('group.max.size', given.maxMembers),
    maxGroups: checked('groups.max', given.maxGroups),
    maxMembersInAll: checked('members.max', given.maxMembersInAll),
    maxOffsets: checked('offsets.max', given.maxOffsets),
    offsetsRetentionMs: checked('offsets.retention.ms', given.offsetsRetentionMs),
    retentionCheckIntervalMs: checked('offsets.retention.check.interval.ms', given.retentionCheckIntervalMs),
    metadataMaxBytes: checked('offset.metadata.max.bytes', given.metadataMaxBytes),
  };
  checkGroupConfig(config);
  return config;
}

function producersOf(given: BrokerProducers): ProducerStateConfig {
  return {
    expirationMs: checked('producer.id.expiration.ms', given.expirationMs),
    maxProducers: checked('producers.max', given.maxProducers),
    maxMessageIds: checked('message.ids.max', given.maxMessageIds),
  };
}

function transactionsOf(given: BrokerTransactions): TransactionConfig {
  return {
    maxTimeoutMs: checked('transaction.max.timeout.ms', given.maxTimeoutMs),
    idExpirationMs: checked('transactional.id.expiration.ms', given.idExpirationMs),
    maxIds: checked('transactional.ids.max', given.maxIds),
    stateTopicPartitions: checked('transaction.state.topic.num.partitions', given.stateTopicPartitions),
  };
}

type CheckedName =
  | 'log.retention.check.interval.ms'
  | 'log.cleaner.backoff.ms'
  | 'log.cleaner.dedupe.buffer.size'
  | 'log.disk.reserve.bytes'
  | 'connections.max'
  | 'streams.max'
  | 'offsets.topic.num.partitions'
  | 'group.session.timeout.ms'
  | 'group.min.session.timeout.ms'
  | 'group.max.session.timeout.ms'
  | 'group.rebalance.timeout.ms'
  | 'group.max.size'
  | 'groups.max'
  | 'members.max'
  | 'offsets.max'
  | 'offsets.retention.ms'
  | 'offsets.retention.check.interval.ms'
  | 'offset.metadata.max.bytes'
  | 'producer.id.expiration.ms'
  | 'producers.max'
  | 'message.ids.max'
  | 'transaction.max.timeout.ms'
  | 'transactional.id.expiration.ms'
  | 'transactional.ids.max'
  | 'transaction.state.topic.num.partitions';

/** The number that was given, held to what the broker's key of that name takes; else the key's default. */
function checked(name: CheckedName, given: number | undefined): number {
  const key = BROKER_CONFIG_KEYS[name];
  return parseConfigValue(name, key, given === undefined ? key.defaultText : String(given));
}

function textOf(values: Readonly<Record<string, string | number | boolean>>): TopicOverrides {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, String(value).trim()]));
}

function addressOf(name: string, value: string): Address {
  const address = parseAddress(value);
  if (address !== undefined) return address;
  throw new LogError('INVALID_CONFIG', `${name}=${value} is not valid: ${name} takes HOST:PORT.`, {
    metadata: { key: name, value },
  });
}
