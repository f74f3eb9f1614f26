/** The configuration of the broker: one table of keys from which parsing, flags, help and documentation follow. */
import { TOPIC_CONFIG_KEYS, type TopicConfigKeys } from '../broker/topic-config.js';
import { MAX_TIMER_MS } from '../core/clock.js';
import { type Address, address, type ConfigKey, type ConfigKeys, integer, oneOf, text } from '../core/config-key.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';

/** Prefix of the broker's keys that hold for topics which do not set the key themselves: `log.retention.ms`. */
const TOPIC_DEFAULT_PREFIX = 'log.';

/** The key of the broker for each key of a topic. */
type TopicDefaultKeys = {
  readonly [Name in keyof TopicConfigKeys as `${typeof TOPIC_DEFAULT_PREFIX}${Name}`]: TopicConfigKeys[Name];
};

// A type, not an interface: it must fit ConfigKeys, which has an index signature.
type OwnKeys = {
  readonly 'data.dir': ConfigKey<string>;
  readonly listen: ConfigKey<Address>;
  readonly http: ConfigKey<Address>;
  readonly 'log.level': ConfigKey<LogLevel>;
  readonly 'default.partitions': ConfigKey<number>;
  readonly 'request.max.bytes': ConfigKey<number>;
  readonly 'partitions.max': ConfigKey<number>;
  readonly 'partitions.per.topic.max': ConfigKey<number>;
  readonly 'open.files.max': ConfigKey<number>;
  readonly 'tail.cache.bytes': ConfigKey<number>;
  readonly 'inflight.stream.bytes': ConfigKey<number>;
  readonly 'inflight.connection.bytes': ConfigKey<number>;
  readonly 'inflight.total.bytes': ConfigKey<number>;
  readonly 'connections.max': ConfigKey<number>;
  readonly 'streams.max': ConfigKey<number>;
  readonly 'log.disk.reserve.bytes': ConfigKey<number>;
  readonly 'log.retention.check.interval.ms': ConfigKey<number>;
  readonly 'log.cleaner.backoff.ms': ConfigKey<number>;
  readonly 'log.cleaner.dedupe.buffer.size': ConfigKey<number>;
  readonly 'offsets.topic.num.partitions': ConfigKey<number>;
  readonly 'group.session.timeout.ms': ConfigKey<number>;
  readonly 'group.min.session.timeout.ms': ConfigKey<number>;
  readonly 'group.max.session.timeout.ms': ConfigKey<number>;
  readonly 'group.rebalance.timeout.ms': ConfigKey<number>;
  readonly 'group.max.size': ConfigKey<number>;
  readonly 'groups.max': ConfigKey<number>;
  readonly 'members.max': ConfigKey<number>;
  readonly 'offsets.max': ConfigKey<number>;
  readonly 'offsets.retention.ms': ConfigKey<number>;
  readonly 'offsets.retention.check.interval.ms': ConfigKey<number>;
  readonly 'offset.metadata.max.bytes': ConfigKey<number>;
  readonly 'producer.id.expiration.ms': ConfigKey<number>;
  readonly 'producers.max': ConfigKey<number>;
  readonly 'message.ids.max': ConfigKey<number>;
  readonly 'transaction.max.timeout.ms': ConfigKey<number>;
  readonly 'transactional.id.expiration.ms': ConfigKey<number>;
  readonly 'transactional.ids.max': ConfigKey<number>;
  readonly 'transaction.state.topic.num.partitions': ConfigKey<number>;
};

type BrokerConfigKeys = OwnKeys & TopicDefaultKeys;

/** Name of a configuration key of the broker. */
export type BrokerConfigName = keyof BrokerConfigKeys;

/** The configuration in force: each key with its parsed value. */
export type BrokerConfig = {
  readonly [Name in BrokerConfigName]: BrokerConfigKeys[Name] extends ConfigKey<infer Value> ? Value : never;
};

const OWN_KEYS: OwnKeys = {
  'data.dir': text('./data', 'the path of a directory', 'Where the log is kept. Created if there is none.'),
  listen: address('127.0.0.1:7171', 'Where gRPC clients connect. Port 0 lets the system choose.'),
  http: address('127.0.0.1:7172', 'Where HTTP answers: /healthz. Port 0 lets the system choose.'),
  'log.level': oneOf(
    'info',
    ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
    'The least severe log lines that are written.',
  ),
  'default.partitions': integer(1, 1, 100_000, 'Partitions of a topic that is created without a number.'),
  'request.max.bytes': integer(8 * MIB, 64 * 1024, GIB, 'Largest request that is accepted.'),
  'partitions.max': integer(20_000, 1, 1_000_000, 'Partitions of all topics together.'),
  'partitions.per.topic.max': integer(10_000, 1, 100_000, 'Partitions of one topic.'),
  'open.files.max': integer(
    4096,
    16,
    1_000_000,
    'Log files held open. Stay well below the limit of the operating system.',
  ),
  'tail.cache.bytes': integer(4 * MIB, 0, 64 * GIB, 'Recently written data kept in memory for readers at the tail.'),
  'inflight.stream.bytes': integer(8 * MIB, 64 * 1024, GIB, 'Data in flight on one stream, in each direction.'),
  'inflight.connection.bytes': integer(32 * MIB, 64 * 1024, 16 * GIB, 'Data in flight on one connection.'),
  'inflight.total.bytes': integer(
    256 * MIB,
    64 * 1024,
    64 * GIB,
    'Data in flight on all connections; and as much again that was received and waits for its turn.',
  ),
  'connections.max': integer(
    10_000,
    1,
    1_000_000,
    'Connections of gRPC clients at once; more are closed as they come.',
  ),
  'streams.max': integer(20_000, 1, 1_000_000, 'Calls open at once, on all connections; more are refused.'),
  'log.disk.reserve.bytes': integer(
    64 * MIB,
    0,
    Number.MAX_SAFE_INTEGER,
    'Appends are refused while the file system of the data directory has less free space; they resume by themselves. 0: never.',
  ),
  'log.retention.check.interval.ms': integer(
    300_000,
    1,
    MAX_TIMER_MS,
    'Time between two checks for data that the retention limits no longer keep.',
  ),
  'log.cleaner.backoff.ms': integer(
    15_000,
    1,
    MAX_TIMER_MS,
    'How long compaction rests when no partition was due for it.',
  ),
  'log.cleaner.dedupe.buffer.size': integer(
    128 * MIB,
    MIB,
    2 ** 31 - 1,
    'Memory for the keys of the partition that is being compacted; more keys take several passes.',
  ),
  'offsets.topic.num.partitions': integer(
    16,
    1,
    1000,
    'Partitions of the topic that keeps consumer groups, when it is created. Later it stays as it is.',
  ),
  'group.session.timeout.ms': integer(
    45_000,
    1,
    MAX_TIMER_MS,
    'How long a consumer stays a member of its group without a heartbeat, unless it names another time.',
  ),
  'group.min.session.timeout.ms': integer(1000, 1, MAX_TIMER_MS, 'The shortest session that a consumer may ask for.'),
  'group.max.session.timeout.ms': integer(
    1_800_000,
    1,
    MAX_TIMER_MS,
    'The longest session that a consumer may ask for.',
  ),
  'group.rebalance.timeout.ms': integer(
    300_000,
    1,
    MAX_TIMER_MS,
    'How long a consumer may take to give partitions up, unless it names another time; past it, it is no longer a member.',
  ),
  'group.max.size': integer(1000, 1, 100_000, 'Members of one consumer group.'),
  'groups.max': integer(100_000, 1, 10_000_000, 'Consumer groups.'),
  'members.max': integer(10_000, 1, 1_000_000, 'Members of all consumer groups together.'),
  'offsets.max': integer(
    1_000_000,
    1,
    100_000_000,
    'Committed offsets of all consumer groups together, 200 characters of their metadata counting as one more; each takes some 300 bytes of memory.',
  ),
  'offsets.retention.ms': integer(
    7 * 24 * 3_600_000,
    1,
    Number.MAX_SAFE_INTEGER,
    'How long a consumer group and its offsets are kept once it has no members and nobody commits for it.',
  ),
  'offsets.retention.check.interval.ms': integer(
    600_000,
    1,
    MAX_TIMER_MS,
    'Time between two looks for consumer groups that are no longer kept.',
  ),
  'offset.metadata.max.bytes': integer(4096, 0, 1024 * 1024, 'Text that a consumer may commit with an offset.'),
  'producer.id.expiration.ms': integer(
    24 * 3_600_000,
    1,
    Number.MAX_SAFE_INTEGER,
    'How long a partition remembers a producer that sends nothing to it, unless a transaction of it is open.',
  ),
  'producers.max': integer(
    250_000,
    1,
    100_000_000,
    'Producers that all partitions together remember; beyond, a partition forgets the one that was idle longest. Each takes up to 750 bytes of memory.',
  ),
  'message.ids.max': integer(
    500_000,
    1,
    100_000_000,
    'Message ids that all partitions together remember, 100 characters of an id counting as one more; beyond, records with ids are refused. Each takes some 200 bytes of memory.',
  ),
  'transaction.max.timeout.ms': integer(
    900_000,
    1,
    MAX_TIMER_MS,
    'The longest time that a producer may ask for its transactions.',
  ),
  'transactional.id.expiration.ms': integer(
    7 * 24 * 3_600_000,
    1,
    Number.MAX_SAFE_INTEGER,
    'How long a transactional id is kept that nobody uses.',
  ),
  'transactional.ids.max': integer(100_000, 1, 10_000_000, 'Transactional ids.'),
  'transaction.state.topic.num.partitions': integer(
    16,
    1,
    1000,
    'Partitions of the topic that keeps transactions, when it is created. Later it stays as it is.',
  ),
};

/** The name of the broker's key for a key of a topic. */
export function topicDefaultName(topicKey: string): string {
  return TOPIC_DEFAULT_PREFIX + topicKey;
}

/** Keys of the broker by the keys of a topic that they are the defaults of. */
export const TOPIC_DEFAULT_NAMES: ReadonlyMap<string, string> = new Map(
  Object.keys(TOPIC_CONFIG_KEYS).map((name) => [name, topicDefaultName(name)]),
);

const DEFAULT_KEYS: TopicDefaultKeys = topicDefaultKeys();

function topicDefaultKeys(): TopicDefaultKeys {
  const entries = Object.entries<ConfigKey<unknown>>(TOPIC_CONFIG_KEYS);
  const keys = Object.fromEntries(entries.map(([name, key]) => [topicDefaultName(name), key]));
  // Each key of a topic is there under the name that the type derives from it.
  return keys as TopicDefaultKeys;
}

/** The broker's keys for itself. */
export const BROKER_OWN_KEYS: ConfigKeys = OWN_KEYS;

/** The broker's keys for topics that do not set theirs: each with the default and the meaning of the topic's key. */
export const TOPIC_DEFAULT_KEYS: ConfigKeys = DEFAULT_KEYS;

/** Every key of the broker. Sizes are in bytes. */
export const BROKER_CONFIG_KEYS: BrokerConfigKeys = { ...OWN_KEYS, ...DEFAULT_KEYS };

/** The same table by any name, for loops. */
export const BROKER_KEYS: ConfigKeys = BROKER_CONFIG_KEYS;

/** Prefix of every environment variable of Tidelog. */
export const ENVIRONMENT_PREFIX = 'TIDELOG_';

/** The command-line flag of a key: `data.dir` is `--data-dir`. */
export function flagOf(name: string): string {
  return `--${name.replaceAll('.', '-')}`;
}

/** The environment variable of a key: `data.dir` is `TIDELOG_DATA_DIR`. */
export function variableOf(name: string): string {
  return ENVIRONMENT_PREFIX + name.toUpperCase().replaceAll('.', '_');
}
