/**
 * Brings what members hold towards the target, as far as that is safe: a partition is given to a member only when no other
 * has it, and is taken from one only when it says so, or is gone.
 */
import type { Draft } from './draft.js';
import type {
  GivenPartition,
  HeldPartition,
  Member,
  OwnedPartitions,
  PartitionKey,
  RevokedPartition,
  TargetPartition,
} from './group-types.js';

/** After a new target: asks back what is another's now, gives what nobody has. */
export function reconcile(draft: Draft): void {
  for (const member of draft.members.values()) askBack(draft, member);
  grant(draft, unheld(draft));
}

/** With the target as it was: gives what has become free. */
export function grantFreed(draft: Draft): void {
  if (draft.freed.length > 0) grant(draft, draft.freed);
}

/**
 * What a member has let go of, by its heartbeat.
 * @param epoch that the member sent: what it was asked for later than that, it cannot have meant
 */
export function releasedBy(member: Member, epoch: number, owned: OwnedPartitions): [PartitionKey, RevokedPartition][] {
  return [...member.revoking].filter(([key, { revokedAt }]) => epoch >= revokedAt && !owned.has(key));
}

/** Takes what a member has let go of. */
export function acknowledge(draft: Draft, member: Member, epoch: number, owned: OwnedPartitions): void {
  const released = releasedBy(member, epoch, owned);
  if (released.length === 0) return;
  const revoking = without(member.revoking, released);
  draft.put({
    ...member,
    epoch: draft.drawEpoch(),
    revoking,
    revokeDeadlineMs: revoking.size === 0 ? undefined : member.revokeDeadlineMs,
  });
  for (const [key] of released) draft.freed.push(key);
}

/** Removes a member: what it held is free at once. */
export function removeMember(draft: Draft, member: Member): void {
  draft.delete(member.memberId);
  // That the group is another is to be seen in its epoch, although no member's has changed yet.
  draft.drawEpoch();
  for (const held of [member.assigned, member.revoking]) for (const key of held.keys()) draft.freed.push(key);
}

/** Keeps a member's partitions for whoever comes back as its instance; what it was asked back is free at once. */
export function sendAway(draft: Draft, member: Member, sessionDeadlineMs: number): void {
  for (const key of member.revoking.keys()) draft.freed.push(key);
  draft.put({
    ...member,
    epoch: member.revoking.size === 0 ? member.epoch : draft.drawEpoch(),
    revoking: new Map(),
    revokeDeadlineMs: undefined,
    sessionDeadlineMs,
    away: true,
    claimedUntilMs: undefined,
  });
}

/**
 * Makes whoever holds one of the partitions begin with it anew: what it commits of the time before is refused. Of one that
 * it is giving up, nothing at all can be committed any more, since no answer would tell it that this was reset.
 */
export function resetPartitions(draft: Draft, partitions: ReadonlySet<PartitionKey>): void {
  const epoch = draft.drawEpoch();
  for (const member of draft.members.values()) {
    const assigned = changed(member.assigned, partitions, (held) => ({ ...held, since: epoch, wasReset: true }));
    const revoking = changed(member.revoking, partitions, (held) => ({ ...held, since: epoch }));
    if (assigned === member.assigned && revoking === member.revoking) continue;
    draft.put({ ...member, epoch, assigned, revoking });
  }
}

function askBack(draft: Draft, member: Member): void {
  const surplus = [...member.assigned].filter(([key]) => draft.target.get(key)?.memberId !== member.memberId);
  if (surplus.length === 0) return;
  const epoch = draft.drawEpoch();
  const assigned = without(member.assigned, surplus);
  // Nobody works for a member that is away: there is no one to ask, and nothing to wait for.
  if (member.away) {
    draft.put({ ...member, epoch, assigned });
    return;
  }
  const asked = surplus.map(([key, held]): [PartitionKey, RevokedPartition] => [key, revoked(member, held, epoch)]);
  draft.put({
    ...member,
    epoch,
    assigned,
    revoking: new Map([...member.revoking, ...asked]),
    revokeDeadlineMs: member.revokeDeadlineMs ?? draft.now.monotonicMs + member.rebalanceTimeoutMs,
  });
}

/**
 * If it was not told of a reset by now, it will never be, and nothing that it commits is to undo that. But whoever may not
 * have been told that it was given the partition may have been: then it has begun with it, and commits where.
 */
function revoked(member: Member, { wasReset, ...held }: GivenPartition, epoch: number): RevokedPartition {
  const isUntold = wasReset && held.since > member.reportedEpoch;
  return { ...held, since: isUntold ? epoch : held.since, revokedAt: epoch };
}

/** Gives free partitions to the members that are to have them, as far as these exist. */
function grant(draft: Draft, free: Iterable<PartitionKey>): void {
  const grants = new Map<string, [PartitionKey, TargetPartition][]>();
  for (const key of free) {
    const wanted = draft.target.get(key);
    if (wanted === undefined || !draft.members.has(wanted.memberId)) continue;
    const given = grants.get(wanted.memberId);
    if (given === undefined) grants.set(wanted.memberId, [[key, wanted]]);
    else given.push([key, wanted]);
  }
  for (const [memberId, given] of grants) {
    const member = draft.member(memberId);
    const since = draft.drawEpoch();
    const assigned = new Map(member.assigned);
    for (const [key, { topic, topicId, partition }] of given) {
      assigned.set(key, { topic, topicId, partition, since, wasReset: false });
    }
    draft.put({ ...member, epoch: since, assigned });
  }
}

function unheld(draft: Draft): PartitionKey[] {
  const held = new Set<PartitionKey>();
  for (const { assigned, revoking } of draft.members.values()) {
    for (const key of assigned.keys()) held.add(key);
    for (const key of revoking.keys()) held.add(key);
  }
  return [...draft.target.keys()].filter((key) => !held.has(key));
}

function without<T>(
  map: ReadonlyMap<PartitionKey, T>,
  entries: readonly (readonly [PartitionKey, T])[],
): Map<string, T> {
  const rest = new Map(map);
  for (const [key] of entries) rest.delete(key);
  return rest;
}

/** The map itself when none of the partitions is in it. */
function changed<T extends HeldPartition>(
  map: ReadonlyMap<PartitionKey, T>,
  partitions: ReadonlySet<PartitionKey>,
  change: (held: T) => T,
): ReadonlyMap<PartitionKey, T> {
  if (![...map.keys()].some((key) => partitions.has(key))) return map;
  return new Map([...map].map(([key, held]) => [key, partitions.has(key) ? change(held) : held]));
}
