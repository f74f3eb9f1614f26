/**
 * The state machine of a consumer group: from a state, an event and the time to the next state and to what follows from
 * it. Pure: whoever calls it makes the records durable, and only then answers anybody by the new state.
 *
 * What holds in every state:
 * - a partition is with one member at most, be it assigned or being given up (invariant 10);
 * - what is assigned to a member is what the target gives it, less what others have not given up yet;
 * - `since` of a partition <= epoch of its member <= epoch of the group, and the last only rises (invariant 9).
 */
import { LogError } from '../../core/errors.js';
import { partitionKey, type TopicId } from '../../core/types.js';
import type { GroupStateLabel } from './coordinator-types.js';
import { Draft } from './draft.js';
import type {
  BegunTopic,
  GivenPartition,
  GroupEvent,
  GroupNow,
  GroupPartition,
  GroupState,
  GroupTransition,
  HeldPartition,
  Member,
  RevokedPartition,
  StoredGroup,
  StoredMember,
  TargetPartition,
  TopicView,
} from './group-types.js';
import { adoptSubscription, join } from './join.js';
import { acknowledge, releasedBy, removeMember, resetPartitions, sendAway } from './reconcile.js';
import { adoptTopics, requestTarget, settle } from './target.js';

type EventOf<Kind extends GroupEvent['kind']> = Extract<GroupEvent, { readonly kind: Kind }>;

export function emptyGroup(groupId: string, topics: TopicView, now: GroupNow): GroupState {
  return {
    groupId,
    epoch: 0,
    members: new Map(),
    assignor: 'uniform',
    target: new Map(),
    targetDueMs: undefined,
    targetMadeMs: Number.NEGATIVE_INFINITY,
    topics,
    begun: new Map(),
    emptySinceMs: now.wallMs,
  };
}

/**
 * The group as it was kept. Sessions and the time to give partitions up begin anew, because nobody could be heard
 * meanwhile; the target is due at once, because topics may have changed.
 */
export function restoreGroup(
  groupId: string,
  stored: {
    readonly group: StoredGroup | undefined;
    readonly topics: readonly BegunTopic[];
    readonly members: readonly StoredMember[];
  },
  topics: TopicView,
  now: GroupNow,
): GroupState {
  const members = stored.members.map((member) => restoreMember(member, now));
  return {
    ...emptyGroup(groupId, topics, now),
    epoch: Math.max(stored.group?.epoch ?? 0, ...members.map(({ epoch }) => epoch)),
    members: new Map(members.map((member) => [member.memberId, member])),
    begun: new Map(stored.topics.map((topic) => [topic.id, topic])),
    // So that a sticky assignor leaves everything where it is.
    target: new Map(members.flatMap(targetOf)),
    targetDueMs: members.length === 0 ? undefined : now.monotonicMs,
    emptySinceMs: members.length === 0 ? (stored.group?.emptySinceMs ?? now.wallMs) : undefined,
  };
}

export function transition(state: GroupState, event: GroupEvent, now: GroupNow): GroupTransition {
  const draft = new Draft(state, now);
  const refusal = apply(draft, event);
  if (refusal !== undefined) return { state: draft.finish().state, refusal, records: [], changed: [], removed: [] };
  settle(draft);
  return draft.finish();
}

/** When a tick is next of use, by the monotonic clock; undefined: time changes nothing. */
export function nextDeadlineMs(state: GroupState): number | undefined {
  let next = state.targetDueMs ?? Number.POSITIVE_INFINITY;
  for (const { sessionDeadlineMs } of state.members.values()) next = Math.min(next, sessionDeadlineMs);
  return next === Number.POSITIVE_INFINITY ? undefined : next;
}

/**
 * The state with all deadlines of members begun anew: for one that is gone back to after a failed write, since it knows
 * nothing of what members have sent since. Nor of topics: tell it of them again.
 */
export function renewSessions(state: GroupState, now: GroupNow): GroupState {
  const members = [...state.members].map(([memberId, member]): [string, Member] => [memberId, renewed(member, now)]);
  return { ...state, members: new Map(members) };
}

/**
 * Whether this may act as the member, or, with an empty id and epoch 0, as somebody outside of a group without members.
 * @returns UNKNOWN_MEMBER_ID, FENCED_MEMBER_EPOCH for an epoch that the member was never told
 */
export function checkMember(state: GroupState, memberId: string, epoch: number): LogError | undefined {
  if (memberId === '' && epoch === 0) return state.members.size === 0 ? undefined : onlyMembers(state);
  const member = state.members.get(memberId);
  if (member === undefined || member.away) return unknownMember(state, memberId);
  return epoch > member.epoch ? fencedEpoch(member, epoch) : undefined;
}

/** @returns FENCED_MEMBER_EPOCH unless the member has had the partition from this epoch, or from before it, until now */
export function checkCommittable(member: Member, epoch: number, partition: GroupPartition): LogError | undefined {
  const key = partitionKey(partition);
  const revoked = member.revoking.get(key);
  const held = member.assigned.get(key) ?? revoked;
  if (held === undefined) return notOwned(member, epoch, partition);
  if (epoch < held.since || (revoked !== undefined && revoked.since >= revoked.revokedAt)) {
    return fencedAssignment(member, epoch, held);
  }
  return epoch > member.epoch ? fencedEpoch(member, epoch) : undefined;
}

/** Whether the partition came to its topic after the group had begun to read that. */
export function wasAddedLater({ begun }: GroupState, topicId: TopicId, partition: number): boolean {
  const topic = begun.get(topicId);
  return topic !== undefined && partition >= topic.partitionCount;
}

export function labelOf(state: GroupState): GroupStateLabel {
  if (state.members.size === 0) return 'empty';
  if (state.targetDueMs !== undefined) return 'assigning';
  const members = [...state.members.values()];
  const assignedCount = members.reduce((count, { assigned }) => count + assigned.size, 0);
  const isSettled = assignedCount === state.target.size && members.every(({ revoking }) => revoking.size === 0);
  return isSettled ? 'stable' : 'reconciling';
}

/** @returns why the event is refused */
function apply(draft: Draft, event: GroupEvent): LogError | undefined {
  switch (event.kind) {
    case 'join':
      return applyJoin(draft, event);
    case 'heartbeat':
      return applyHeartbeat(draft, event);
    case 'leave':
      return applyLeave(draft, event);
    case 'tick':
      for (const member of draft.before.members.values()) {
        if (member.sessionDeadlineMs <= draft.now.monotonicMs) endSession(draft, member);
      }
      return undefined;
    case 'topics-changed':
      adoptTopics(draft, event.topics);
      return undefined;
    case 'reset':
      resetPartitions(draft, event.partitions);
      return undefined;
  }
}

function applyJoin(draft: Draft, event: EventOf<'join'>): LogError | undefined {
  const refusal = join(draft, event);
  if (refusal === undefined) adoptTopics(draft, event.topics);
  return refusal;
}

function applyHeartbeat(draft: Draft, event: EventOf<'heartbeat'>): LogError | undefined {
  const refusal = checkMember(draft.before, event.memberId, event.epoch);
  if (refusal !== undefined) return refusal;
  const member = draft.member(event.memberId);
  if (isOverdue(member, event, draft.now)) return overdue(member);
  const isUpToDate = event.epoch === member.epoch;
  const heard = {
    ...member,
    reportedEpoch: Math.max(member.reportedEpoch, event.epoch),
    sessionDeadlineMs: draft.now.monotonicMs + member.sessionTimeoutMs,
  };
  if (event.subscription === undefined || !isUpToDate) {
    draft.put(heard);
  } else {
    draft.put({ ...heard, subscription: adoptSubscription(draft, member.subscription, event.subscription) });
    adoptTopics(draft, event.topics);
  }
  acknowledge(draft, draft.member(event.memberId), event.epoch, event.owned);
  return undefined;
}

function applyLeave(draft: Draft, event: EventOf<'leave'>): LogError | undefined {
  const member = draft.members.get(event.memberId);
  if (member === undefined) return unknownMember(draft.before, event.memberId);
  if (event.temporary && member.instanceId !== undefined) {
    if (!member.away) sendAway(draft, member, draft.now.monotonicMs + member.sessionTimeoutMs);
    return undefined;
  }
  removeMember(draft, member);
  requestTarget(draft);
  return undefined;
}

/**
 * Whether the member has had its time to give partitions up, and still has some. It is to lose its membership, but what it
 * holds must wait until its session is over: it goes on by the last answer that it got, until it gets this one.
 */
function isOverdue(member: Member, { epoch, owned }: EventOf<'heartbeat'>, { monotonicMs }: GroupNow): boolean {
  if (member.revokeDeadlineMs === undefined || member.revokeDeadlineMs > monotonicMs) return false;
  return releasedBy(member, epoch, owned).length < member.revoking.size;
}

/** Whoever waits for the member's instance id finds its place kept. */
function endSession(draft: Draft, member: Member): void {
  const { monotonicMs } = draft.now;
  const { revokeDeadlineMs, claimedUntilMs, away } = member;
  const isLate = revokeDeadlineMs !== undefined && revokeDeadlineMs <= monotonicMs;
  draft.removed.push({ member, why: isLate ? 'rebalance-timeout' : 'session' });
  if (!away && claimedUntilMs !== undefined && claimedUntilMs > monotonicMs) {
    sendAway(draft, member, claimedUntilMs);
    return;
  }
  removeMember(draft, member);
  requestTarget(draft);
}

function restoreMember(stored: StoredMember, now: GroupNow): Member {
  const assigned = stored.assigned.map((held): [string, GivenPartition] => [
    partitionKey(held),
    { ...held, wasReset: true },
  ]);
  const revoking = stored.revoking.map((held): [string, RevokedPartition] => [partitionKey(held), held]);
  const member: Member = {
    ...stored,
    assigned: new Map(assigned),
    revoking: new Map(revoking),
    reportedEpoch: 0,
    sessionDeadlineMs: 0,
    revokeDeadlineMs: undefined,
    claimedUntilMs: undefined,
  };
  return renewed(member, now);
}

function renewed(member: Member, { monotonicMs }: GroupNow): Member {
  return {
    ...member,
    sessionDeadlineMs: monotonicMs + member.sessionTimeoutMs,
    revokeDeadlineMs: member.revoking.size === 0 ? undefined : monotonicMs + member.rebalanceTimeoutMs,
  };
}

function targetOf({ memberId, assigned }: Member): [string, TargetPartition][] {
  return [...assigned].map(([key, { topic, topicId, partition }]) => [key, { memberId, topic, topicId, partition }]);
}

function unknownMember({ groupId }: GroupState, memberId: string): LogError {
  return new LogError(
    'UNKNOWN_MEMBER_ID',
    `Group '${groupId}' has no member '${memberId}', or no longer: it has left, its session is over, or another took its ` +
      'place. What it held may be with others by now; join anew.',
    { metadata: { group_id: groupId, member_id: memberId } },
  );
}

function onlyMembers({ groupId, members }: GroupState): LogError {
  return new LogError(
    'UNKNOWN_MEMBER_ID',
    `Group '${groupId}' has ${members.size} members, and only these may commit. Reset its offsets instead, or wait until ` +
      'it has no members.',
    { metadata: { group_id: groupId, member_id: '' } },
  );
}

function overdue({ memberId, revoking, rebalanceTimeoutMs }: Member): LogError {
  return new LogError(
    'UNKNOWN_MEMBER_ID',
    `Member ${memberId} has not given up ${revoking.size} partitions within its rebalance timeout of ${rebalanceTimeoutMs} ` +
      'ms, and loses its membership. Drop everything, leave, and join anew; allow more time, or let go sooner.',
    { metadata: { member_id: memberId, rebalance_timeout_ms: rebalanceTimeoutMs } },
  );
}

function fencedEpoch(member: Member, epoch: number): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `Member ${member.memberId} has epoch ${member.epoch}, and was never told ${epoch}. Join anew.`,
    { metadata: { member_id: member.memberId, member_epoch: member.epoch } },
  );
}

function notOwned(member: Member, epoch: number, { topic, partition }: GroupPartition): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `Member ${member.memberId} does not own partition ${partition} of topic '${topic}', or no longer (it sent epoch ` +
      `${epoch} and has ${member.epoch}). Commit only what the last heartbeat gave it.`,
    { metadata: { member_id: member.memberId, member_epoch: member.epoch, topic, partition } },
  );
}

function fencedAssignment(member: Member, epoch: number, { topic, partition, since }: HeldPartition): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `Member ${member.memberId} was given partition ${partition} of topic '${topic}' at epoch ${since}, anew or after a ` +
      `reset of its offset: a commit of epoch ${epoch} is of the time before. Drop it, and go on from the committed offset.`,
    { metadata: { member_id: member.memberId, member_epoch: member.epoch, assignment_epoch: since, topic, partition } },
  );
}
