/**
 * What a consumer group is made of. Everything here is immutable: the state machine (`group.ts`) makes a new state of an
 * old one, so that the coordinator can go back to the state that is durable when a write fails.
 *
 * Times are of the monotonic clock, in ms, unless they are said to be of the wall clock.
 */
import type { LogError } from '../../core/errors.js';
import type { TopicId } from '../../core/types.js';

export type AssignorName = 'uniform' | 'range';

/** A topic as groups see it. */
export interface GroupTopic {
  readonly name: string;
  readonly id: TopicId;
  readonly partitionCount: number;
}

/** The topics there are, internal ones excepted: a snapshot. */
export interface TopicView {
  get(name: string): GroupTopic | undefined;
  /** Names of the topics that the pattern matches; empty for one that was never resolved. */
  matching(pattern: string): ReadonlySet<string>;
}

/** Names or a pattern, never both; no names and no pattern: nothing, for the time being. */
export interface Subscription {
  readonly topics: readonly string[];
  readonly pattern: string | undefined;
}

/** `<topic id>-<partition>`, as `partitionKey` of core/types makes it. */
export type PartitionKey = string;

/** A partition by its topic's name and id. */
export interface GroupPartition {
  readonly topic: string;
  readonly topicId: TopicId;
  readonly partition: number;
}

/** A partition that a member may hold. */
export interface HeldPartition extends GroupPartition {
  /** The member's epoch when it was given the partition, or when the partition's offset was last reset under it. */
  readonly since: number;
}

/** A partition that is a member's until it is asked back. */
export interface GivenPartition extends HeldPartition {
  /** Whether its offset was reset since it was given. After a restart nobody knows: then it counts as reset. */
  readonly wasReset: boolean;
}

/** A partition that a member was told to give up, and holds until it says otherwise. */
export interface RevokedPartition extends HeldPartition {
  /**
   * The member's epoch when it was told. A report that is older says nothing about it. `since` is lower, unless the offset
   * was reset and no answer can tell the member so any more: then it may commit nothing of it.
   */
  readonly revokedAt: number;
}

export interface Member {
  readonly memberId: string;
  readonly instanceId: string | undefined;
  readonly clientId: string;
  readonly host: string;
  readonly subscription: Subscription;
  readonly assignor: AssignorName | undefined;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  /** Rises with every change of `assigned` or `revoking`, drawn from the group's epoch. */
  readonly epoch: number;
  /** The highest that it has sent since the broker started: it knows what it was given until then. */
  readonly reportedEpoch: number;
  readonly assigned: ReadonlyMap<PartitionKey, GivenPartition>;
  readonly revoking: ReadonlyMap<PartitionKey, RevokedPartition>;
  readonly sessionDeadlineMs: number;
  /**
   * By then what is in `revoking` must have been given up: a later heartbeat that does not say so is refused, and no longer
   * keeps the session. Undefined while there is nothing to give up.
   */
  readonly revokeDeadlineMs: number | undefined;
  /** A static member that has left for a while: its partitions wait for it until its session is over. */
  readonly away: boolean;
  /**
   * Until then another member counts as waiting for the instance id of this one: should the session end before that, the
   * partitions are kept for it. Undefined: nobody has asked.
   */
  readonly claimedUntilMs: number | undefined;
}

/** A partition and the member that is to have it in the end. */
export interface TargetPartition extends GroupPartition {
  readonly memberId: string;
}

export interface GroupState {
  readonly groupId: string;
  /** Rises with every change of what a member may hold. */
  readonly epoch: number;
  readonly members: ReadonlyMap<string, Member>;
  readonly assignor: AssignorName;
  /** Who is to hold what in the end, as far as that was worked out. */
  readonly target: ReadonlyMap<PartitionKey, TargetPartition>;
  /** When the target is to be worked out anew; undefined: it is up to date. */
  readonly targetDueMs: number | undefined;
  /** When that was last done. */
  readonly targetMadeMs: number;
  readonly topics: TopicView;
  /** Topics that members have subscribed to, as they were when the group began with them. */
  readonly begun: ReadonlyMap<TopicId, BegunTopic>;
  /** Wall clock since when the group has no members; undefined while it has some. */
  readonly emptySinceMs: number | undefined;
}

/** What is kept of a member across a restart of the broker; its session then begins anew. */
export type StoredMember = Omit<
  Member,
  'reportedEpoch' | 'sessionDeadlineMs' | 'revokeDeadlineMs' | 'claimedUntilMs' | 'assigned' | 'revoking'
> & {
  readonly assigned: readonly HeldPartition[];
  readonly revoking: readonly RevokedPartition[];
};

/** A topic when a group began with it: partitions from this number on were added later. */
export type BegunTopic = GroupTopic;

/** What is kept of a group besides its members and its offsets. */
export interface StoredGroup {
  readonly epoch: number;
  readonly emptySinceMs: number | undefined;
}

/** A change to be made durable; `undefined` removes what there was. */
export type MembershipRecord =
  | { readonly kind: 'group'; readonly value: StoredGroup | undefined }
  | { readonly kind: 'topics'; readonly value: readonly BegunTopic[] | undefined }
  | { readonly kind: 'member'; readonly memberId: string; readonly value: StoredMember | undefined };

/** What members hold, by topic id. */
export type OwnedPartitions = ReadonlySet<PartitionKey>;

export type GroupEvent =
  | {
      readonly kind: 'join';
      readonly memberId: string;
      readonly instanceId: string | undefined;
      readonly clientId: string;
      readonly host: string;
      readonly subscription: Subscription;
      readonly assignor: AssignorName | undefined;
      readonly sessionTimeoutMs: number;
      readonly rebalanceTimeoutMs: number;
      readonly topics: TopicView;
      /** Members that a group may have. */
      readonly maxMembers: number;
    }
  | {
      readonly kind: 'heartbeat';
      readonly memberId: string;
      readonly epoch: number;
      readonly owned: OwnedPartitions;
      /** Undefined: unchanged. */
      readonly subscription: Subscription | undefined;
      readonly topics: TopicView;
    }
  | { readonly kind: 'leave'; readonly memberId: string; readonly temporary: boolean }
  /** Time has passed: sessions and revocations may be over, the target may be due. */
  | { readonly kind: 'tick' }
  | { readonly kind: 'topics-changed'; readonly topics: TopicView }
  /** Offsets of these partitions are set by an administrator: whoever holds one begins with it anew. */
  | { readonly kind: 'reset'; readonly partitions: ReadonlySet<PartitionKey> };

export interface GroupNow {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export interface GroupTransition {
  readonly state: GroupState;
  /**
   * Why the event was refused. The state is then the one before, except that it may remember who waits for an instance id:
   * go on with it all the same.
   */
  readonly refusal: LogError | undefined;
  /** To be durable before anybody is told of the new state. */
  readonly records: readonly MembershipRecord[];
  /** Members whose epoch is another now, or who are no longer members: whoever waits for news of one is answered. */
  readonly changed: readonly string[];
  /** What happened to members without their asking, for the log. */
  readonly removed: readonly { readonly member: Member; readonly why: 'session' | 'rebalance-timeout' }[];
}
