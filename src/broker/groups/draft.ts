/** A group while one event changes it: collects the changes and tells at the end what became of whom. */
import { assert } from '../../core/assert.js';
import type { TopicId } from '../../core/types.js';
import type {
  AssignorName,
  BegunTopic,
  GroupNow,
  GroupState,
  GroupTransition,
  Member,
  MembershipRecord,
  PartitionKey,
  StoredMember,
  TargetPartition,
  TopicView,
} from './group-types.js';

type Removal = GroupTransition['removed'][number];

export class Draft {
  readonly before: GroupState;
  readonly now: GroupNow;
  topics: TopicView;
  begun: ReadonlyMap<TopicId, BegunTopic>;
  assignor: AssignorName;
  target: ReadonlyMap<PartitionKey, TargetPartition>;
  targetDueMs: number | undefined;
  targetMadeMs: number;
  readonly removed: Removal[] = [];
  /** What nobody holds any more since this event. */
  readonly freed: PartitionKey[] = [];
  /** A copy of those of `before`, from the first change on. */
  #members: Map<string, Member> | undefined;
  readonly #touched = new Set<string>();
  #epochDrawn = false;

  constructor(before: GroupState, now: GroupNow) {
    this.before = before;
    this.now = now;
    this.topics = before.topics;
    this.begun = before.begun;
    this.assignor = before.assignor;
    this.target = before.target;
    this.targetDueMs = before.targetDueMs;
    this.targetMadeMs = before.targetMadeMs;
  }

  get members(): ReadonlyMap<string, Member> {
    return this.#members ?? this.before.members;
  }

  member(memberId: string): Member {
    const member = this.members.get(memberId);
    assert(member !== undefined, `member ${memberId} is in the group`);
    return member;
  }

  /** The epoch that everything which this event changes gets: one for all. */
  drawEpoch(): number {
    this.#epochDrawn = true;
    return this.before.epoch + 1;
  }

  put(member: Member): void {
    this.#writable(member.memberId).set(member.memberId, member);
  }

  delete(memberId: string): void {
    this.#writable(memberId).delete(memberId);
  }

  finish(): GroupTransition {
    return {
      state: this.#state(),
      refusal: undefined,
      records: this.#records(),
      changed: [...this.#touched].filter((id) => isNews(this.before.members.get(id), this.members.get(id))),
      removed: this.removed,
    };
  }

  #writable(memberId: string): Map<string, Member> {
    this.#touched.add(memberId);
    this.#members ??= new Map(this.before.members);
    return this.#members;
  }

  #state(): GroupState {
    return {
      groupId: this.before.groupId,
      epoch: this.#epoch,
      members: this.members,
      assignor: this.assignor,
      target: this.target,
      targetDueMs: this.targetDueMs,
      targetMadeMs: this.targetMadeMs,
      topics: this.topics,
      begun: this.begun,
      emptySinceMs: this.#emptySinceMs,
    };
  }

  get #epoch(): number {
    return this.#epochDrawn ? this.before.epoch + 1 : this.before.epoch;
  }

  get #emptySinceMs(): number | undefined {
    if (this.members.size > 0) return undefined;
    return this.before.emptySinceMs ?? this.now.wallMs;
  }

  #records(): MembershipRecord[] {
    const records: MembershipRecord[] = [];
    const group = { epoch: this.#epoch, emptySinceMs: this.#emptySinceMs };
    if (group.epoch !== this.before.epoch || group.emptySinceMs !== this.before.emptySinceMs) {
      records.push({ kind: 'group', value: group });
    }
    if (this.begun !== this.before.begun) records.push({ kind: 'topics', value: [...this.begun.values()] });
    for (const memberId of this.#touched) {
      const before = this.before.members.get(memberId);
      const after = this.members.get(memberId);
      if (isStoredAlike(before, after)) continue;
      records.push({ kind: 'member', memberId, value: after === undefined ? undefined : toStored(after) });
    }
    return records;
  }
}

/** Whether somebody who waits for news of the member is to be told. */
function isNews(before: Member | undefined, after: Member | undefined): boolean {
  return before?.epoch !== after?.epoch || (after !== undefined && after.away !== before?.away);
}

/** By identity, since what has not changed is never copied. */
function isStoredAlike(before: Member | undefined, after: Member | undefined): boolean {
  if (before === undefined || after === undefined) return before === after;
  return (
    before.instanceId === after.instanceId &&
    before.clientId === after.clientId &&
    before.host === after.host &&
    before.subscription === after.subscription &&
    before.assignor === after.assignor &&
    before.sessionTimeoutMs === after.sessionTimeoutMs &&
    before.rebalanceTimeoutMs === after.rebalanceTimeoutMs &&
    before.epoch === after.epoch &&
    before.assigned === after.assigned &&
    before.revoking === after.revoking &&
    before.away === after.away
  );
}

function toStored(member: Member): StoredMember {
  return {
    memberId: member.memberId,
    instanceId: member.instanceId,
    clientId: member.clientId,
    host: member.host,
    subscription: member.subscription,
    assignor: member.assignor,
    sessionTimeoutMs: member.sessionTimeoutMs,
    rebalanceTimeoutMs: member.rebalanceTimeoutMs,
    epoch: member.epoch,
    assigned: [...member.assigned.values()],
    revoking: [...member.revoking.values()],
    away: member.away,
  };
}
