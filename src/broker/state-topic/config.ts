/** The configuration of a topic in which the broker keeps state of its own. */
import type { TopicOverrides } from '../topic-config.js';

/** Compacted: the last records are all the state. Whatever the broker sets for the topics of its users, this stays. */
export const STATE_TOPIC_CONFIG: TopicOverrides = {
  'cleanup.policy': 'compact',
  // The last segment is never compacted, and all of it is read at a start.
  'segment.bytes': String(32 * 1024 * 1024),
  'segment.ms': String(7 * 24 * 3_600_000),
  // All that one event changes is one batch, so that a crash leaves all of it or nothing: this takes 1,000 members of the
  // largest subscription, and a transaction over the most partitions and groups with the longest names.
  'max.message.bytes': String(32 * 1024 * 1024),
  'message.timestamp.type': 'CreateTime',
  'message.timestamp.after.max.ms': String(Number.MAX_SAFE_INTEGER),
  'message.timestamp.before.max.ms': String(Number.MAX_SAFE_INTEGER),
  'min.cleanable.dirty.ratio': '0.5',
  'min.compaction.lag.ms': '0',
  'max.compaction.lag.ms': String(Number.MAX_SAFE_INTEGER),
  'delete.retention.ms': String(24 * 3_600_000),
};
