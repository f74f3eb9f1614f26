/** The topic that keeps transactional ids and the transactions that are decided. */
import type { TopicOverrides } from '../topic-config.js';

/** Compacted: its last records are the state of all transactional ids. */
export const TRANSACTION_TOPIC = '__transaction_state';

/** Whatever the broker sets for the topics of its users. */
export const TRANSACTION_TOPIC_CONFIG: TopicOverrides = {
  'cleanup.policy': 'compact',
  // The last segment is never compacted, and all of it is read at a start.
  'segment.bytes': String(32 * 1024 * 1024),
  'segment.ms': String(7 * 24 * 3_600_000),
  // Takes a transaction over the most partitions and groups, with the longest names.
  'max.message.bytes': String(32 * 1024 * 1024),
  'message.timestamp.type': 'CreateTime',
  'message.timestamp.after.max.ms': String(Number.MAX_SAFE_INTEGER),
  'message.timestamp.before.max.ms': String(Number.MAX_SAFE_INTEGER),
  'min.cleanable.dirty.ratio': '0.5',
  'min.compaction.lag.ms': '0',
  'max.compaction.lag.ms': String(Number.MAX_SAFE_INTEGER),
  'delete.retention.ms': String(24 * 3_600_000),
};
