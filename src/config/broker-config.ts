/** The configuration of the broker: one table of keys from which parsing, flags, help and documentation follow. */
import { type Address, address, type ConfigKey, type ConfigKeys, integer, oneOf, text } from '../core/config-key.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';

// A type, not an interface: it must fit ConfigKeys, which has an index signature.
type BrokerConfigKeys = {
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
};

/** Name of a configuration key of the broker. */
export type BrokerConfigName = keyof BrokerConfigKeys;

/** The configuration in force: each key with its parsed value. */
export type BrokerConfig = {
  readonly [Name in BrokerConfigName]: BrokerConfigKeys[Name] extends ConfigKey<infer Value> ? Value : never;
};

/** Every key of the broker. Sizes are in bytes. */
export const BROKER_CONFIG_KEYS: BrokerConfigKeys = {
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
  'inflight.total.bytes': integer(256 * MIB, 64 * 1024, 64 * GIB, 'Data in flight on all connections.'),
};

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
