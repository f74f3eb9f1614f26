/** What bounds consumer groups and how long they are kept. Times in ms. */
import { LogError } from '../../core/errors.js';

export interface GroupConfig {
  /** Partitions of the topic that keeps groups, when it is created (`offsets.topic.num.partitions`). */
  readonly offsetsTopicPartitions: number;
  /** Session of a member that names none, and the shortest and the longest that it may name (`group.session.timeout.ms`). */
  readonly sessionTimeoutMs: number;
  readonly minSessionTimeoutMs: number;
  readonly maxSessionTimeoutMs: number;
  /** How long a member that names nothing else may take to give partitions up (`group.rebalance.timeout.ms`). */
  readonly rebalanceTimeoutMs: number;
  /** Members of one group (`group.max.size`). */
  readonly maxMembers: number;
  /** Groups, and committed offsets of all groups together (`groups.max`, `offsets.max`). */
  readonly maxGroups: number;
  /** Members of all groups together (`members.max`). */
  readonly maxMembersInAll: number;
  readonly maxOffsets: number;
  /** How long a group without members is kept, and how often that is looked at (`offsets.retention.ms`). */
  readonly offsetsRetentionMs: number;
  readonly retentionCheckIntervalMs: number;
  /** Text that comes with a committed offset, in bytes of UTF-8 (`offset.metadata.max.bytes`). */
  readonly metadataMaxBytes: number;
}

/** @throws LogError INVALID_CONFIG unless the default session lies within its bounds */
export function checkGroupConfig(config: GroupConfig): void {
  const { minSessionTimeoutMs: min, sessionTimeoutMs: usual, maxSessionTimeoutMs: max } = config;
  if (min <= usual && usual <= max) return;
  throw new LogError(
    'INVALID_CONFIG',
    `group.session.timeout.ms=${usual} is not between group.min.session.timeout.ms=${min} and ` +
      `group.max.session.timeout.ms=${max}.`,
    { metadata: { key: 'group.session.timeout.ms', value: usual } },
  );
}

/** A member sends a heartbeat at least this often: nine times within the usual session, thrice within a short one. */
export function heartbeatIntervalMs(sessionTimeoutMs: number): number {
  return Math.min(5000, Math.floor(sessionTimeoutMs / 3));
}
