/** Why a member has lost what it held. */
import { LogError } from '../../core/errors.js';
import type { MembershipOptions } from './membership-options.js';

/** The committed offsets of partitions were reset while the member held them. */
export function offsetsReset(groupId: string): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `The committed offsets of group ${groupId} were reset for these partitions: they begin anew from there.`,
    { metadata: { group: groupId } },
  );
}

/** The listener took too long to let partitions go. */
export function notLetGo({ groupId, rebalanceTimeoutMs }: MembershipOptions): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `These partitions had to go to another member of group ${groupId}, and what was under way did not end in time: the ` +
      `others read those records again. Raise rebalanceTimeoutMs (${rebalanceTimeoutMs}) if work takes that long.`,
    { metadata: { group: groupId, rebalance_timeout_ms: rebalanceTimeoutMs } },
  );
}

/** No heartbeat was answered for a session timeout. */
export function sessionExpired(groupId: string, memberId: string, sessionTimeoutMs: number): LogError {
  return new LogError(
    'UNKNOWN_MEMBER_ID',
    `The broker has answered no heartbeat of this member of group ${groupId} for ${sessionTimeoutMs} ms, its session ` +
      'timeout: it counts as gone. It joins anew as soon as the broker can be reached.',
    { metadata: { group: groupId, member_id: memberId, session_timeout_ms: sessionTimeoutMs } },
  );
}

/** The broker may have put the member out because it never heard that partitions were let go. */
export function releaseNotTold({ groupId, rebalanceTimeoutMs }: MembershipOptions, memberId: string): LogError {
  return new LogError(
    'UNKNOWN_MEMBER_ID',
    `The broker could not be told in ${rebalanceTimeoutMs} ms, the rebalance timeout, that this member of group ` +
      `${groupId} has let partitions go: it counts as gone. It joins anew as soon as the broker can be reached.`,
    { metadata: { group: groupId, member_id: memberId, rebalance_timeout_ms: rebalanceTimeoutMs } },
  );
}
