/** Which groups and which committed offsets have outlived their use. Pure; times of the wall clock, in ms. */
import type { TopicId } from '../../core/types.js';
import type { GroupState } from './group-types.js';
import type { CommittedOffsets } from './offsets.js';
import type { OffsetPlace } from './records.js';

export interface ExpiryRules {
  readonly nowMs: number;
  readonly retentionMs: number;
  /** Whether there is a topic of that id. */
  readonly exists: (topicId: TopicId) => boolean;
}

/** `group`: the group as a whole; else the offsets that go, often none. */
export type Expired = 'group' | readonly OffsetPlace[];

/**
 * A group goes when it has been without members for the retention time, and nobody has committed anything for it since;
 * never while it has members. Offsets of topics that are gone go after that time since their commit.
 */
export function expired(state: GroupState, offsets: CommittedOffsets, rules: ExpiryRules): Expired {
  const before = rules.nowMs - rules.retentionMs;
  const unusedSinceMs =
    state.emptySinceMs === undefined ? undefined : Math.max(state.emptySinceMs, offsets.lastCommitMs);
  if (unusedSinceMs !== undefined && unusedSinceMs <= before) return 'group';
  const gone: OffsetPlace[] = [];
  for (const topicId of offsets.topicIds()) {
    if (rules.exists(topicId)) continue;
    for (const { partition, commitTimeMs } of offsets.ofTopic(topicId)) {
      if (commitTimeMs <= before) gone.push({ topicId, partition });
    }
  }
  return gone;
}
