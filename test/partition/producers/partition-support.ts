import type { Clock } from '../../../src/core/clock.js';
import { systemClock } from '../../../src/core/clock.js';
import type { Logger } from '../../../src/core/logger.js';
import { silentLogger } from '../../../src/core/logger.js';
import { toEpoch } from '../../../src/core/types.js';
import { Partition } from '../../../src/partition/partition.js';
import type { PartitionConfig } from '../../../src/partition/partition-config.js';
import type { SharedProducers } from '../../../src/partition/producers/shared-producers.js';
import type { PartitionLog, StorageEngine } from '../../../src/storage/engine.js';
import { CONFIG, newSharedProducers, TOPIC_ID } from '../support.js';

export interface ReopenOptions {
  readonly config?: Partial<PartitionConfig>;
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly producers?: SharedProducers;
  readonly wrap?: (log: PartitionLog) => PartitionLog;
  readonly epoch?: number;
}

/** The partition of an engine, opened under an epoch that fences whoever had it before. */
export async function reopen(engine: StorageEngine, options: ReopenOptions = {}): Promise<Partition> {
  const config = { ...CONFIG, ...options.config };
  const log = await engine.open({ topicId: TOPIC_ID, partition: 0 }, toEpoch(options.epoch ?? 1), config);
  return await Partition.open({
    topic: 't',
    log: options.wrap?.(log) ?? log,
    config,
    clock: options.clock ?? systemClock,
    logger: options.logger ?? silentLogger,
    producers: options.producers ?? newSharedProducers(),
  });
}
