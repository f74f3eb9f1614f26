/** Why a member has lost what it held. */
import { LogError } from '../../core/errors.js';
import type { MembershipOptions } from './membership-options.js';

/** Pass by themselves, usually soon: nothing to trouble anybody with unless the session ends of it. */
const PASSING: ReadonlySet<string> = new Set([
  'BROKER_DRAINING',
  'BROKER_UNAVAILABLE',
  'CONNECTION_LOST',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'NOT_LEADER',
  'REQUEST_TIMED_OUT',
]);

/** What to warn of when a request of a member is repeated after this failure; undefined: nothing. */
export function warningOfRepetition({ reason }: LogError, isJoining: boolean): string | undefined {
  if (PASSING.has(reason)) return undefined;
  if (reason === 'UNRELEASED_INSTANCE_ID') {
    return 'another member goes by this instance id: waiting until its session has ended';
  }
  return isJoining
    ? 'the group cannot be joined for now: that is tried again'
    : 'the broker refuses the heartbeats of a member for now: they are repeated';
}

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
    `No heartbeat of this member of group ${groupId} was answered for ${sessionTimeoutMs} ms, its session timeout: the ` +
      'broker could not be reached, or this process stood still. The member counts as gone, and joins anew as soon as it can.',
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
