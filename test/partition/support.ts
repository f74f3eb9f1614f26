import { BatchBuilder, encodeBatch } from '../../src/batch/builder.js';
import { RECORD_BATCH_OVERHEAD } from '../../src/batch/layout.js';
import { type Clock, systemClock } from '../../src/core/clock.js';
import { type Logger, silentLogger } from '../../src/core/logger.js';
import { type TopicId, toEpoch, toTopicId } from '../../src/core/types.js';
import { Partition } from '../../src/partition/partition.js';
import type { PartitionConfig } from '../../src/partition/partition-config.js';
import type { ProducerStateConfig } from '../../src/partition/producers/producer-config.js';
import { type FileThresholds, SharedProducers } from '../../src/partition/producers/shared-producers.js';
import type { PartitionLog, StorageEngine } from '../../src/storage/engine.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';

export const CONFIG: PartitionConfig = {
  segmentBytes: 1024 * 1024,
  segmentMs: 7 * 86_400_000,
  indexIntervalBytes: 4096,
  fileDeleteDelayMs: 60_000,
  maxMessageBytes: 64 * 1024,
  logAppendTime: false,
  timestampAfterMaxMs: 3_600_000,
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  flushMs: 20,
  cleanupDelete: true,
  cleanupCompact: false,
  retentionMs: -1,
  retentionBytes: -1,
  retentionRecords: -1,
  minCleanableDirtyRatio: 0.5,
  minCompactionLagMs: 0,
  maxCompactionLagMs: Number.MAX_SAFE_INTEGER,
  deleteRetentionMs: 86_400_000,
  dedupeWindowMs: 120_000,
};

export const PRODUCER_CONFIG: ProducerStateConfig = {
  expirationMs: 86_400_000,
  maxProducers: 1000,
  maxMessageIds: 1000,
};

/** What partitions share, as a broker of their own has it. */
export function newSharedProducers(
  config: Partial<ProducerStateConfig> = {},
  thresholds?: FileThresholds,
): SharedProducers {
  return new SharedProducers({ ...PRODUCER_CONFIG, ...config }, thresholds);
}

export const TOPIC_ID: TopicId = toTopicId('00000000-0000-4000-8000-000000000001');

/** More than any record takes besides its value. */
const RECORD_OVERHEAD_BYTES = 32;

/** A finished batch with base offset 0, one record for each value. */
export function batchOf(values: readonly string[], timestampMs: number = Date.now()): Buffer {
  const bytes = values.reduce((sum, value) => sum + Buffer.byteLength(value) + RECORD_OVERHEAD_BYTES, 0);
  const builder = new BatchBuilder(RECORD_BATCH_OVERHEAD + bytes);
  for (const [index, value] of values.entries()) {
    if (!builder.tryAppend(timestampMs + index, null, Buffer.from(value))) throw new Error('the builder is full');
  }
  return builder.build();
}

/** `log` with some of its members replaced. */
export function overriding(log: PartitionLog, members: Partial<PartitionLog>): PartitionLog {
  return new Proxy(log, {
    get: (target, key) => {
      const source = Object.hasOwn(members, key) ? members : target;
      const value: unknown = Reflect.get(source, key, source);
      return typeof value === 'function' ? value.bind(source) : value;
    },
  });
}

/** A finished batch with base offset 0 whose records have keys. */
export function keyedBatch(
  pairs: readonly (readonly [string, string | null])[],
  timestampMs: number = Date.now(),
): Buffer {
  return encodeBatch(
    pairs.map(([key, value], index) => ({
      timestampMs: timestampMs + index,
      key: Buffer.from(key),
      value: value === null ? null : Buffer.from(value),
    })),
  );
}

export interface OpenPartition {
  readonly engine: StorageEngine;
  readonly log: PartitionLog;
  readonly partition: Partition;
}

/** A partition over a memory engine, or over what `wrap` makes of its log. */
export async function openPartition(
  overrides: Partial<PartitionConfig> = {},
  wrap: (log: PartitionLog) => PartitionLog = (log) => log,
  logger: Logger = silentLogger,
  clock: Clock = systemClock,
): Promise<OpenPartition> {
  const config = { ...CONFIG, ...overrides };
  const engine = openMemoryEngine({ clock });
  const log = wrap(await engine.open({ topicId: TOPIC_ID, partition: 0 }, toEpoch(1), config));
  const partition = await Partition.open({ topic: 't', log, config, clock, logger, producers: newSharedProducers() });
  return { engine, log, partition };
}
