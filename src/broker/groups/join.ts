/** Joining a group: as a new member, once more, or in the place of a static member that is away. */
import { LogError } from '../../core/errors.js';
import type { Draft } from './draft.js';
import type { GivenPartition, GroupEvent, Member, PartitionKey, Subscription } from './group-types.js';
import { isSameSubscription, requestTarget } from './target.js';

type Join = Extract<GroupEvent, { readonly kind: 'join' }>;

/** What a member says of itself. */
type Introduction = Pick<
  Member,
  | 'memberId'
  | 'instanceId'
  | 'clientId'
  | 'host'
  | 'subscription'
  | 'assignor'
  | 'sessionTimeoutMs'
  | 'rebalanceTimeoutMs'
  | 'sessionDeadlineMs'
>;

/** Whoever waits for an instance id is told to ask again after at most this. */
const CLAIM_RETRY_MS = 1_000;
/** It counts as waiting for this long after it asked: a request may be late, or lost once. */
const CLAIM_MS = 5_000;

/** @returns why the member may not join */
export function join(draft: Draft, event: Join): LogError | undefined {
  const known = draft.members.get(event.memberId);
  if (known !== undefined && known.instanceId !== event.instanceId) return renamed(event);
  const namesake = memberOfInstance(draft, event.instanceId);
  if (namesake?.away) {
    takeOver(draft, namesake, event);
    return undefined;
  }
  if (known !== undefined) {
    joinAgain(draft, known, event);
    return undefined;
  }
  if (namesake !== undefined) return claim(draft, namesake);
  if (draft.members.size >= event.maxMembers) return full(draft, event);
  addMember(draft, event);
  return undefined;
}

/** The subscription itself when the new one says the same, so that nothing counts as changed. */
export function adoptSubscription(draft: Draft, before: Subscription, given: Subscription): Subscription {
  if (isSameSubscription(before, given)) return before;
  requestTarget(draft);
  return given;
}

function addMember(draft: Draft, event: Join): void {
  draft.put({
    ...introduction(draft, event),
    epoch: draft.drawEpoch(),
    reportedEpoch: 0,
    assigned: new Map(),
    revoking: new Map(),
    revokeDeadlineMs: undefined,
    away: false,
    claimedUntilMs: undefined,
  });
  requestTarget(draft);
}

function joinAgain(draft: Draft, known: Member, event: Join): void {
  const subscription = adoptSubscription(draft, known.subscription, event.subscription);
  if (known.assignor !== event.assignor) requestTarget(draft);
  draft.put({ ...known, ...introduction(draft, event), subscription });
}

/** The place of the member that is away, under a new epoch: what its earlier life still sends is refused. */
function takeOver(draft: Draft, away: Member, event: Join): void {
  const epoch = draft.drawEpoch();
  const subscription = adoptSubscription(draft, away.subscription, event.subscription);
  if (away.assignor !== event.assignor) requestTarget(draft);
  draft.delete(away.memberId);
  draft.put({
    ...away,
    ...introduction(draft, event),
    subscription,
    epoch,
    reportedEpoch: 0,
    assigned: new Map(
      [...away.assigned].map(([key, held]): [PartitionKey, GivenPartition] => [
        key,
        { ...held, since: epoch, wasReset: false },
      ]),
    ),
    away: false,
    claimedUntilMs: undefined,
  });
  renameInTarget(draft, away.memberId, event.memberId);
}

function renameInTarget(draft: Draft, from: string, memberId: string): void {
  if (from === memberId) return;
  draft.target = new Map(
    [...draft.target].map(([key, wanted]) => [key, wanted.memberId === from ? { ...wanted, memberId } : wanted]),
  );
}

function introduction(draft: Draft, event: Join): Introduction {
  const { memberId, instanceId, clientId, host, subscription, assignor, sessionTimeoutMs, rebalanceTimeoutMs } = event;
  return {
    memberId,
    instanceId,
    clientId,
    host,
    subscription,
    assignor,
    sessionTimeoutMs,
    rebalanceTimeoutMs,
    sessionDeadlineMs: draft.now.monotonicMs + sessionTimeoutMs,
  };
}

function memberOfInstance({ members }: Draft, instanceId: string | undefined): Member | undefined {
  if (instanceId === undefined) return undefined;
  return [...members.values()].find((member) => member.instanceId === instanceId);
}

function claim(draft: Draft, holder: Member): LogError {
  const { monotonicMs } = draft.now;
  draft.put({ ...holder, claimedUntilMs: monotonicMs + CLAIM_MS });
  const leftMs = Math.max(1, Math.ceil(holder.sessionDeadlineMs - monotonicMs));
  return new LogError(
    'UNRELEASED_INSTANCE_ID',
    `The instance id '${holder.instanceId}' is held by member ${holder.memberId} of client '${holder.clientId}' at ` +
      `${holder.host}, whose session lasts for another ${leftMs} ms unless it goes on. If that process is gone, try ` +
      'again until then; if it is not, give each process an instance id of its own.',
    {
      metadata: { instance_id: holder.instanceId ?? '', member_id: holder.memberId },
      retryAfterMs: Math.min(leftMs, CLAIM_RETRY_MS),
    },
  );
}

function renamed(event: Join): LogError {
  return new LogError(
    'INVALID_REQUEST',
    `Member ${event.memberId} has joined with another instance id. Join under a new member id.`,
    { metadata: { member_id: event.memberId } },
  );
}

function full({ before, members }: Draft, event: Join): LogError {
  return new LogError(
    'GROUP_MAX_SIZE_REACHED',
    `Group '${before.groupId}' has ${members.size} members, and may have ${event.maxMembers} (group.max.size).`,
    { metadata: { group_id: before.groupId, max_members: event.maxMembers } },
  );
}
