import type { Clock } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import type { PartitionLog } from '../../storage/engine.js';
import type { AbortedIndex } from './aborted-index.js';
import type { ProducerStates } from './producer-states.js';
import type { SnapshotPart } from './snapshot-part.js';

/** Others get a turn after this, in ms. */
export const SLICE_MS = 5;

/** What loading and saving the producers of a partition work on. */
export interface ProducerContext {
  readonly topic: string;
  readonly log: PartitionLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly states: ProducerStates;
  readonly aborted: AbortedIndex;
  readonly parts: readonly SnapshotPart[];
}

/** What names the partition in log lines. */
export function placeOf({ topic, log }: ProducerContext): { topic: string; partition: number } {
  return { topic, partition: log.id.partition };
}
