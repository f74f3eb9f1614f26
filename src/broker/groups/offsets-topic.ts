/** The topic that keeps groups and their committed offsets. */
import { placementOf } from '../state-topic/placement.js';
import type { TopicOverrides } from '../topic-config.js';

/** Compacted: its last records are the state of all groups. */
export const OFFSETS_TOPIC = '__group_offsets';

/** Whatever the broker sets for the topics of its users. */
export const OFFSETS_TOPIC_CONFIG: TopicOverrides = {
  'cleanup.policy': 'compact',
  // The last segment is never compacted, and all of it is read at a start.
  'segment.bytes': String(32 * 1024 * 1024),
  'segment.ms': String(7 * 24 * 3_600_000),
  // All that one event changes is one batch, so that a crash leaves all of it or nothing: this takes 1,000 members of the
  // largest subscription.
  'max.message.bytes': String(32 * 1024 * 1024),
  'message.timestamp.type': 'CreateTime',
  'message.timestamp.after.max.ms': String(Number.MAX_SAFE_INTEGER),
  'message.timestamp.before.max.ms': String(Number.MAX_SAFE_INTEGER),
  'min.cleanable.dirty.ratio': '0.5',
  'min.compaction.lag.ms': '0',
  'max.compaction.lag.ms': String(Number.MAX_SAFE_INTEGER),
  'delete.retention.ms': String(24 * 3_600_000),
};

/** The partition that keeps a group. */
export function offsetsPartitionOf(groupId: string, partitionCount: number): number {
  return placementOf(groupId, partitionCount);
}
