/** What the group coordinator is asked and what it answers: the seam between it and the listeners. */
import type { LogError } from '../../core/errors.js';
import type { AssignorName, HeldPartition, OwnedPartitions, Subscription } from './group-types.js';

export type GroupStateLabel = 'empty' | 'assigning' | 'reconciling' | 'stable';

export interface JoinCommand {
  readonly groupId: string;
  readonly memberId: string;
  /** Undefined: not a static member. */
  readonly instanceId: string | undefined;
  readonly clientId: string;
  /** Where the member connects from. */
  readonly host: string;
  readonly subscription: Subscription;
  /** As given; empty: no preference. */
  readonly assignor: string;
  /** 0: the broker's default. */
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
}

/** All that a member may hold. */
export interface MemberAssignment {
  readonly memberEpoch: number;
  readonly partitions: readonly HeldPartition[];
}

export interface JoinAnswer extends MemberAssignment {
  readonly sessionTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
}

export interface HeartbeatCommand {
  readonly groupId: string;
  readonly memberId: string;
  readonly memberEpoch: number;
  readonly owned: OwnedPartitions;
  readonly subscription: Subscription | undefined;
  /** Held no longer than the heartbeat interval, whatever this says. */
  readonly maxWaitMs: number;
}

export interface HeartbeatAnswer {
  readonly memberEpoch: number;
  readonly heartbeatIntervalMs: number;
  /** Undefined: nothing has changed since the epoch that was sent. */
  readonly assignment: MemberAssignment | undefined;
}

export interface LeaveCommand {
  readonly groupId: string;
  readonly memberId: string;
  readonly temporary: boolean;
}

export interface OffsetToCommit {
  readonly topic: string;
  /** Empty: whatever the topic's id is now. */
  readonly topicId: string;
  readonly partition: number;
  readonly offset: number;
  /** -1: not known. */
  readonly leaderEpoch: number;
  readonly metadata: string;
}

export interface CommitCommand {
  readonly groupId: string;
  /** Empty, with epoch 0: not a member. */
  readonly memberId: string;
  readonly memberEpoch: number;
  /** 0: not checked. */
  readonly sequence: number;
  readonly offsets: readonly OffsetToCommit[];
}

export interface RefusedOffset {
  readonly topic: string;
  readonly partition: number;
  readonly error: LogError;
}

/** An offset as it is kept. */
export interface StoredOffset {
  readonly topic: string;
  readonly offset: number;
  readonly leaderEpoch: number;
  readonly metadata: string;
  /** Wall clock, ms since the epoch. */
  readonly commitTimeMs: number;
  /**
   * When it was sent, among the offsets of its group: what was sent before this does not take its place, should its
   * transaction be committed later. Absent: before all that wait.
   */
  readonly order?: number | undefined;
}

export interface CommittedOffset extends StoredOffset {
  readonly topicId: string;
  readonly partition: number;
}

export interface FetchOffsetsCommand {
  readonly groupId: string;
  /** Empty: not checked. */
  readonly memberId: string;
  readonly memberEpoch: number;
  /** Empty: everything that was committed. */
  readonly topics: readonly {
    readonly topic: string;
    /** Empty: whatever the topic's id is now. */
    readonly topicId: string;
    readonly partitions: readonly number[];
  }[];
}

/** What is known of the committed offset of one partition. */
export interface FoundOffset {
  readonly topic: string;
  readonly topicId: string;
  readonly partition: number;
  readonly committed: StoredOffset | undefined;
  /** Whether the group has committed any offset of this topic. */
  readonly topicCommitted: boolean;
  /** Whether the partition came to its topic after the group had begun to read that. */
  readonly addedLater: boolean;
  /** Of an earlier topic of this name that the group has offsets of. */
  readonly earlierTopicId: string | undefined;
}

export interface GroupSummary {
  readonly groupId: string;
  readonly state: GroupStateLabel;
  readonly epoch: number;
  readonly assignor: AssignorName;
  readonly memberCount: number;
}

export interface MemberDescription {
  readonly memberId: string;
  readonly instanceId: string | undefined;
  readonly clientId: string;
  readonly host: string;
  readonly memberEpoch: number;
  readonly subscription: Subscription;
  /** Of a static member that left for a while: its partitions wait for it until its session is over. */
  readonly away: boolean;
  /** Held, those that are being given up included. */
  readonly partitions: readonly HeldPartition[];
}

/** A group as it is now, without what only the logs know (lag). */
export interface GroupSnapshot extends GroupSummary {
  readonly members: readonly MemberDescription[];
  readonly offsets: readonly CommittedOffset[];
}

/** Offsets that are committed if a transaction is. */
export interface TransactionOffsetsCommand extends Omit<CommitCommand, 'sequence'> {
  readonly producerId: number;
  /** Of the transaction's batches. */
  readonly producerEpoch: number;
}

/** Who has offsets in a group that wait for the end of a transaction. */
export interface PendingTransaction {
  readonly groupId: string;
  readonly producerId: number;
  readonly producerEpoch: number;
}

export interface PendingTransactions {
  /** As it is when it is asked for: there may be very many. */
  readonly found: Iterable<PendingTransaction>;
  /** Why there may be more, if so: COORDINATOR_LOAD_IN_PROGRESS, or why some groups cannot be read. */
  readonly incomplete: LogError | undefined;
}

export interface TransactionEndCommand extends PendingTransaction {
  /** Else abort. */
  readonly commit: boolean;
}

/** New committed offsets of one topic's partitions, by an administrator. */
export interface SetOffsetsCommand {
  readonly groupId: string;
  readonly topic: string;
  readonly topicId: string;
  readonly offsets: readonly { readonly partition: number; readonly offset: number }[];
}

/**
 * The coordinator of all groups of this broker. Every method rejects with LogError: INVALID_GROUP_ID,
 * COORDINATOR_LOAD_IN_PROGRESS while the group's state is read, BROKER_DRAINING, STORAGE_FULL and STORAGE_ERROR besides
 * what is said of it.
 */
export interface GroupCoordinatorApi {
  /**
   * @param signal aborted when nobody waits for the answer any more
   * @throws LogError INVALID_REQUEST, INVALID_TOPIC (an internal one is subscribed to), INVALID_REGULAR_EXPRESSION,
   *   INVALID_SESSION_TIMEOUT, UNSUPPORTED_ASSIGNOR, UNRELEASED_INSTANCE_ID, GROUP_MAX_SIZE_REACHED, RESOURCE_LIMIT
   */
  join(command: JoinCommand, signal?: AbortSignal): Promise<JoinAnswer>;
  /**
   * Resolves when there is news, or after `maxWaitMs`, or when `signal` says that nobody waits any more.
   * @throws LogError GROUP_ID_NOT_FOUND, UNKNOWN_MEMBER_ID, FENCED_MEMBER_EPOCH, and as `join` for a subscription
   */
  heartbeat(command: HeartbeatCommand, signal: AbortSignal): Promise<HeartbeatAnswer>;
  /** @throws LogError GROUP_ID_NOT_FOUND, UNKNOWN_MEMBER_ID */
  leave(command: LeaveCommand): Promise<void>;
  /**
   * Resolves when the offsets are durable, to those that were refused: UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID,
   * INVALID_TOPIC, FENCED_MEMBER_EPOCH (not the member's), OFFSET_OUT_OF_RANGE, OFFSET_METADATA_TOO_LARGE.
   * @throws LogError GROUP_ID_NOT_FOUND, UNKNOWN_MEMBER_ID, FENCED_MEMBER_EPOCH, INVALID_REQUEST, RESOURCE_LIMIT
   */
  commit(command: CommitCommand): Promise<readonly RefusedOffset[]>;
  /**
   * After every write of the group that is under way. A group that is not there has committed nothing.
   * @throws LogError UNKNOWN_MEMBER_ID, FENCED_MEMBER_EPOCH, UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID,
   *   UNSTABLE_OFFSET_COMMIT (a transaction that is not decided has offsets of one of the partitions)
   */
  fetchOffsets(command: FetchOffsetsCommand): Promise<readonly FoundOffset[]>;
  /**
   * Keeps offsets, durably, until `endTransaction` commits or drops them; each in the place of what the same transaction has
   * for its partition. `fetchOffsets` refuses these partitions until then. What is left of an earlier epoch of the producer
   * is dropped. Refused and thrown as `commit`, and INVALID_REQUEST for more than `MAX_PENDING_OFFSETS`, PRODUCER_FENCED where
   * offsets of a later epoch wait. To be settled before `endTransaction` of the same epoch is called.
   */
  addTransactionOffsets(command: TransactionOffsetsCommand): Promise<readonly RefusedOffset[]>;
  /**
   * Commits or drops, durably, what the producer has added under this epoch, and drops what it has of earlier ones. Does
   * nothing where there is nothing: after a failure it may be called again. Of a partition of which something was committed
   * after it was added, that stays; of topics that are gone nothing is committed.
   */
  endTransaction(end: TransactionEndCommand): Promise<void>;
  /** What waits in all groups that can be read. */
  pendingTransactions(): PendingTransactions;
  /** By name. */
  list(): Promise<readonly GroupSummary[]>;
  /** @throws LogError GROUP_ID_NOT_FOUND */
  snapshot(groupId: string): Promise<GroupSnapshot>;
  /** Undefined: there is no such group. */
  find(groupId: string): Promise<GroupSnapshot | undefined>;
  /** @throws LogError GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP, UNSTABLE_OFFSET_COMMIT (offsets wait for a transaction) */
  delete(groupId: string): Promise<void>;
  /**
   * Sets committed offsets, durably, of a group with or without members, creating it if there is none. Members that hold
   * one of the partitions begin with it anew; what they commit of the time before is refused.
   * @throws LogError UNKNOWN_TOPIC_ID, RESOURCE_LIMIT, UNSTABLE_OFFSET_COMMIT (a transaction that is not decided has
   *   offsets of one of the partitions)
   */
  setOffsets(command: SetOffsetsCommand): Promise<void>;
}
