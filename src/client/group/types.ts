/** What the parts of a group consumer tell each other. */
import type { LogError } from '../../core/errors.js';

/** A partition by its topic's name. */
export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** A partition that the broker gave to this member. */
export interface AssignedPartition extends TopicPartition {
  readonly topicId: string;
  /** Tells this assignment from an earlier or a later one of the same partition: commits for another are refused. */
  readonly assignmentEpoch: number;
}

/**
 * What a membership tells its owner. A partition is told of in the order assigned, then revoked or lost; a partition whose
 * offset an administrator has reset is lost and at once assigned again, with a higher epoch.
 */
export interface MembershipListener {
  /** The member holds these from here on. Must not throw. */
  assigned(partitions: readonly AssignedPartition[]): void;
  /**
   * The broker wants these back. They are the member's, and can be committed, until the promise is settled, which must
   * never reject, or the rebalance timeout is over: then `lost` is called for those that were not let go in time.
   */
  revoked(partitions: readonly AssignedPartition[]): Promise<void>;
  /** These are no longer the member's, and nothing of them can be committed any more. Must not throw. */
  lost(partitions: readonly AssignedPartition[], why: LogError): void;
  /** The group will not have this member: `start` was in vain, or its membership cannot be gone on with. Called once. */
  failed(error: LogError): void;
}

/** A position to commit: the next offset to read of an assignment. */
export interface PositionToCommit {
  readonly partition: AssignedPartition;
  readonly offset: number;
  /** Of the last record read; -1: not known. */
  readonly leaderEpoch: number;
  readonly metadata: string;
}

/** Being a member of a group: joins, sends heartbeats on a timer of its own, rejoins when it was put out. */
export interface Membership {
  /** Undefined while it is not a member. */
  readonly memberId: string | undefined;
  /** The newest one that the member was told; 0 while it is not a member. */
  readonly memberEpoch: number;
  /** Joins, unless it has, and stays a member until `leave` or `drop`. */
  start(): void;
  /**
   * Whether the member holds exactly this assignment now. Compares the monotonic clock with the deadline of the session,
   * so that a process which stood still finds out before it acts.
   */
  holds(partition: AssignedPartition): boolean;
  /**
   * Commits, durably; several calls share what is under way. Offsets of assignments that are no longer held are refused
   * with FENCED_MEMBER_EPOCH before anything is sent; then nothing of the call is committed.
   * @throws LogError FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID, OFFSET_OUT_OF_RANGE, OFFSET_METADATA_TOO_LARGE,
   *   UNKNOWN_TOPIC_ID, CLOSED; whatever does not pass within the request timeout
   */
  commit(positions: readonly PositionToCommit[]): Promise<void>;
  /**
   * Leaves in order: asks the listener to let everything go (`revoked`), then tells the broker, so that others have it at
   * once; a static member keeps its place until its session ends. Idempotent; never rejects. `start` joins anew.
   */
  leave(): Promise<void>;
  /** Leaves at once: everything is `lost` for this reason. `start` joins anew. */
  drop(why: LogError): void;
}
