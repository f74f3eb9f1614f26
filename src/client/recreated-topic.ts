/** What becomes of a producer's batches when their topic was deleted and another one has taken its name. */
import { LogError } from '../core/errors.js';
import type { Lane } from './lane.js';
import type { TopicMetadata } from './metadata-cache.js';
import type { ProducerBatch } from './producer-batch.js';

/** The lane's batches that were meant for this topic and are neither in flight nor settled, in order. */
export function batchesFor(lane: Lane, { topicId }: TopicMetadata): ProducerBatch[] {
  return lane.queue.filter((batch) => !batch.settled && batch.target.topicId === topicId);
}

/**
 * Whether a batch may go to the new topic instead. Not if it may be in the old one already, since it would then be
 * reported as written where it was written twice; and not if the new one has another number of partitions, by which
 * its records might belong elsewhere.
 */
export function mayGoTo(found: TopicMetadata, batch: ProducerBatch): boolean {
  return !batch.maybeWritten && batch.target.partitionCount === found.partitionCount;
}

/** Why a batch does not go to the new topic. */
export function recreatedMeanwhile(batch: ProducerBatch, found: TopicMetadata): LogError {
  const { topic, partition, target, maybeWritten } = batch;
  const why = maybeWritten
    ? 'They may have been written to the old one.'
    : `It has ${found.partitionCount} partitions now, not ${target.partitionCount}: send them again.`;
  return new LogError(
    'UNKNOWN_TOPIC_ID',
    `Topic ${topic} was deleted and created anew while records for ${topic}-${partition} were under way. ${why}`,
    {
      metadata: { topic, partition, topic_id: found.topicId, requested_topic_id: target.topicId },
      outcome: maybeWritten ? 'unknown' : 'none',
    },
  );
}
