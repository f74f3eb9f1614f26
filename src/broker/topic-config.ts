/** Topic configuration: Kafka's names and meanings (`retention.records` is ours), one table. */
import {
  assertKnownKey,
  type ConfigKey,
  type ConfigKeys,
  decimal,
  integer,
  oneOf,
  parseConfigValue,
  someOf,
} from '../core/config-key.js';
import { LogError, toLogError } from '../core/errors.js';
import type { PartitionConfig } from '../partition/partition-config.js';

const MAX = Number.MAX_SAFE_INTEGER;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const GIB = 1024 ** 3;

// A type, not an interface: it must fit ConfigKeys, which has an index signature.
export type TopicConfigKeys = {
  readonly 'segment.bytes': ConfigKey<number>;
  readonly 'segment.ms': ConfigKey<number>;
  readonly 'index.interval.bytes': ConfigKey<number>;
  readonly 'max.message.bytes': ConfigKey<number>;
  readonly 'message.timestamp.type': ConfigKey<'CreateTime' | 'LogAppendTime'>;
  readonly 'message.timestamp.after.max.ms': ConfigKey<number>;
  readonly 'message.timestamp.before.max.ms': ConfigKey<number>;
  readonly 'compression.type': ConfigKey<'producer'>;
  readonly 'flush.ms': ConfigKey<number>;
  readonly 'cleanup.policy': ConfigKey<CleanupPolicy>;
  readonly 'retention.ms': ConfigKey<number>;
  readonly 'retention.bytes': ConfigKey<number>;
  readonly 'retention.records': ConfigKey<number>;
  readonly 'min.cleanable.dirty.ratio': ConfigKey<number>;
  readonly 'min.compaction.lag.ms': ConfigKey<number>;
  readonly 'max.compaction.lag.ms': ConfigKey<number>;
  readonly 'delete.retention.ms': ConfigKey<number>;
  readonly 'file.delete.delay.ms': ConfigKey<number>;
  readonly 'dedupe.window.ms': ConfigKey<number>;
};

/** What may happen to old records: deleted, compacted by key, or both. */
export type CleanupPolicy = ReadonlySet<'delete' | 'compact'>;

/** Every key a topic may set. */
export const TOPIC_CONFIG_KEYS: TopicConfigKeys = {
  'segment.bytes': integer(GIB, 16 * 1024, 2 ** 31 - 1, 'A segment file is closed before it would grow past this.'),
  'segment.ms': integer(
    7 * DAY_MS,
    1,
    MAX,
    'A segment file is closed when a record arrives whose timestamp is this much later than the first of the segment.',
  ),
  'index.interval.bytes': integer(4096, 64, 2 ** 30, 'Bytes of log between two entries of the offset index.'),
  'max.message.bytes': integer(
    1_048_588,
    128,
    64 * 1024 * 1024,
    'Largest record batch, after compression, header included.',
  ),
  'message.timestamp.type': oneOf(
    'CreateTime',
    ['CreateTime', 'LogAppendTime'],
    "Whether a record keeps its producer's timestamp or gets the time of its append.",
  ),
  'message.timestamp.after.max.ms': integer(
    HOUR_MS,
    0,
    MAX,
    'A record whose timestamp lies further in the future is refused.',
  ),
  'message.timestamp.before.max.ms': integer(
    MAX,
    0,
    MAX,
    'A record whose timestamp lies further in the past is refused.',
  ),
  'compression.type': oneOf('producer', ['producer'], 'Batches are stored as the producer compressed them.'),
  'flush.ms': integer(
    50,
    0,
    MAX,
    'Written data that nobody asked to be durable is synced to disk at the latest after this long.',
  ),
  'cleanup.policy': someOf(
    ['delete'],
    ['delete', 'compact'],
    'What happens to old records: deleted by the retention limits, compacted to the last one of each key, or both.',
  ),
  'retention.ms': integer(
    7 * DAY_MS,
    -1,
    MAX,
    'A segment is deleted when its largest record timestamp is older than this. -1: never.',
  ),
  'retention.bytes': integer(
    -1,
    -1,
    MAX,
    'The oldest segments of a partition are deleted while the rest still holds this many bytes. -1: never.',
  ),
  'retention.records': integer(
    -1,
    -1,
    MAX,
    'The oldest segments of a partition are deleted while the rest still spans this many offsets. -1: never.',
  ),
  'min.cleanable.dirty.ratio': decimal(
    0.5,
    0,
    1,
    'A partition is compacted when what was not compacted yet is a larger share of it than this.',
  ),
  'min.compaction.lag.ms': integer(0, 0, MAX, 'Records younger than this are never compacted.'),
  'max.compaction.lag.ms': integer(
    MAX,
    1,
    MAX,
    'A partition is compacted when it holds a record that is not compacted and older than this, whatever the ratio.',
  ),
  'delete.retention.ms': integer(
    DAY_MS,
    0,
    MAX,
    'How long a tombstone outlives the compaction that met it first, so that readers from the start see it.',
  ),
  'file.delete.delay.ms': integer(
    60_000,
    0,
    MAX,
    'How long a file that is no longer part of a log is kept, renamed to .deleted, before it is removed.',
  ),
  'dedupe.window.ms': integer(
    120_000,
    1,
    DAY_MS,
    'How long a partition remembers the ids of records that were sent with one: a record whose id it remembers is not appended again.',
  ),
};

const KEYS: ConfigKeys = TOPIC_CONFIG_KEYS;

/** Configuration of a topic as text, only what was set. */
export type TopicOverrides = Readonly<Record<string, string>>;

/** Where a value in force comes from: the topic itself, else the broker's configuration, else the table above. */
export type TopicConfigSource = 'default' | 'broker' | 'topic';

export interface TopicConfigEntry {
  readonly key: string;
  readonly value: string;
  readonly source: TopicConfigSource;
}

/**
 * The values as they are stored: as the user wrote them, without the space around them.
 * @throws LogError INVALID_CONFIG with the valid keys, or what the key takes
 */
export function normalizeOverrides(overrides: TopicOverrides): TopicOverrides {
  const normalized: Record<string, string> = {};
  for (const [name, value] of Object.entries(overrides)) {
    const trimmed = value.trim();
    parseConfigValue(name, definitionOf(name), trimmed);
    normalized[name] = trimmed;
  }
  return normalized;
}

/** @throws LogError INVALID_CONFIG with the valid keys */
export function assertTopicConfigKey(name: string): void {
  definitionOf(name);
}

function definitionOf(name: string): ConfigKey<unknown> {
  assertKnownKey(name, KEYS, 'a topic');
  return KEYS[name]!;
}

/**
 * Checks every value that is set and gives the configuration in force.
 * @param defaults what the broker's configuration sets for topics that do not
 * @throws LogError INVALID_CONFIG with the valid keys, what the key takes, or which two values contradict each other
 */
export function resolveTopicConfig(overrides: TopicOverrides, defaults: TopicOverrides): PartitionConfig {
  for (const name of [...Object.keys(overrides), ...Object.keys(defaults)]) definitionOf(name);
  const value = <T>(name: keyof TopicConfigKeys, key: ConfigKey<T>): T =>
    parseConfigValue(name, key, own(overrides, name) ?? own(defaults, name) ?? key.defaultText);
  const keys = TOPIC_CONFIG_KEYS;
  value('compression.type', keys['compression.type']);
  const cleanupPolicy = value('cleanup.policy', keys['cleanup.policy']);
  const config: PartitionConfig = {
    segmentBytes: value('segment.bytes', keys['segment.bytes']),
    segmentMs: value('segment.ms', keys['segment.ms']),
    indexIntervalBytes: value('index.interval.bytes', keys['index.interval.bytes']),
    maxMessageBytes: value('max.message.bytes', keys['max.message.bytes']),
    logAppendTime: value('message.timestamp.type', keys['message.timestamp.type']) === 'LogAppendTime',
    timestampAfterMaxMs: value('message.timestamp.after.max.ms', keys['message.timestamp.after.max.ms']),
    timestampBeforeMaxMs: value('message.timestamp.before.max.ms', keys['message.timestamp.before.max.ms']),
    flushMs: value('flush.ms', keys['flush.ms']),
    cleanupDelete: cleanupPolicy.has('delete'),
    cleanupCompact: cleanupPolicy.has('compact'),
    retentionMs: value('retention.ms', keys['retention.ms']),
    retentionBytes: value('retention.bytes', keys['retention.bytes']),
    retentionRecords: value('retention.records', keys['retention.records']),
    minCleanableDirtyRatio: value('min.cleanable.dirty.ratio', keys['min.cleanable.dirty.ratio']),
    minCompactionLagMs: value('min.compaction.lag.ms', keys['min.compaction.lag.ms']),
    maxCompactionLagMs: value('max.compaction.lag.ms', keys['max.compaction.lag.ms']),
    deleteRetentionMs: value('delete.retention.ms', keys['delete.retention.ms']),
    fileDeleteDelayMs: value('file.delete.delay.ms', keys['file.delete.delay.ms']),
    dedupeWindowMs: value('dedupe.window.ms', keys['dedupe.window.ms']),
  };
  checkTogether(config);
  return config;
}

/**
 * The configuration in force of a topic that is there already. Its values and new defaults of the broker may contradict
 * each other.
 * @throws LogError INVALID_CONFIG naming the topic
 */
export function resolveLoadedConfig(
  topic: string,
  overrides: TopicOverrides,
  defaults: TopicOverrides,
): PartitionConfig {
  try {
    return resolveTopicConfig(overrides, defaults);
  } catch (error) {
    const { reason, message, metadata } = toLogError(error);
    throw new LogError(reason, `The configuration of topic ${topic} does not hold: ${message}`, {
      metadata: { ...metadata, topic },
      cause: error,
    });
  }
}

/** Values that are valid by themselves and contradict each other. */
function checkTogether({ minCompactionLagMs: min, maxCompactionLagMs: max }: PartitionConfig): void {
  if (min <= max) return;
  throw new LogError(
    'INVALID_CONFIG',
    `min.compaction.lag.ms=${min} is larger than max.compaction.lag.ms=${max}: a record cannot be left alone for ` +
      'longer than it may stay uncompacted. Lower the first or raise the second.',
    { metadata: { key: 'min.compaction.lag.ms', 'min.compaction.lag.ms': min, 'max.compaction.lag.ms': max } },
  );
}

/** Every key with the value in force and where it comes from. */
export function describeTopicConfig(overrides: TopicOverrides, defaults: TopicOverrides): TopicConfigEntry[] {
  return Object.entries(KEYS).map(([key, definition]) => {
    const set = own(overrides, key);
    if (set !== undefined) return { key, value: set, source: 'topic' };
    const fallback = own(defaults, key);
    if (fallback !== undefined) return { key, value: fallback, source: 'broker' };
    return { key, value: definition.defaultText, source: 'default' };
  });
}

function own(values: TopicOverrides, key: string): string | undefined {
  return Object.hasOwn(values, key) ? values[key] : undefined;
}
