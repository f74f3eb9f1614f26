/**
 * What clients did and saw, in the order in which the test learned of it: the input of the history checker.
 *
 * A process is one session of a client: one producer or one consumer, from its start to its end. Its own events are in
 * the order in which they happened to it; events of different processes may have overlapped. What is asked for (a send, a
 * trim, the commit of a transaction) is written down before it is asked, what is learned (an answer, records) after it
 * was learned. Values are unique in a topic, so that a value names the attempt to send it. A topic that is deleted and
 * created again goes by another name.
 */

/** Names a partition of a topic. */
export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** A record as somebody saw it. */
export interface SeenRecord extends Place {
  readonly offset: number;
  readonly value: string;
}

/** A partition and a position in it: the next offset to read. */
export interface Position extends Place {
  readonly offset: number;
}

/** A producer is asked to send a record. `send` numbers are unique in the history. */
export interface SendEvent {
  readonly kind: 'send';
  readonly process: string;
  readonly send: number;
  readonly topic: string;
  readonly value: string;
  /** Of a compacted topic: which earlier records this one replaces. */
  readonly key?: string | undefined;
  /** Whether the value is null, so that compaction may remove the record altogether. */
  readonly tombstone?: boolean | undefined;
  /** The transaction that the record belongs to, if any; unique in the history. */
  readonly transaction?: string | undefined;
}

/** The send was acknowledged at an offset. */
export interface AckEvent {
  readonly kind: 'ack';
  readonly process: string;
  readonly send: number;
  readonly partition: number;
  readonly offset: number;
}

/** The send failed: certainly without effect (`none`), or nobody knows (`unknown`). */
export interface ErrorEvent {
  readonly kind: 'error';
  readonly process: string;
  readonly send: number;
  readonly outcome: 'none' | 'unknown';
}

/** A producer is about to ask for the commit of its transaction: from here on its records may be seen. */
export interface CommitTransactionEvent {
  readonly kind: 'commit-transaction';
  readonly process: string;
  readonly transaction: string;
}

/** A transaction ended, or may have. After an unknown result a further event may tell. */
export interface EndTransactionEvent {
  readonly kind: 'end-transaction';
  readonly process: string;
  readonly transaction: string;
  readonly result: 'committed' | 'aborted' | 'unknown';
}

/** A consumer was handed records, in this order. */
export interface PollEvent {
  readonly kind: 'poll';
  readonly process: string;
  readonly records: readonly SeenRecord[];
  /** Whether open and aborted transactions may be seen: the same in every poll of a process. Default read_committed. */
  readonly isolation?: 'read_uncommitted' | 'read_committed' | undefined;
  /** In whatever order the consumer likes: then nothing is said of what was passed over. */
  readonly unordered?: boolean | undefined;
}

/**
 * A consumer reads these partitions from here on, each from the position given, besides those it has. Where the position
 * is not known (a start by time, say) the event is left out: then the first record handed over is where it began.
 */
export interface AssignEvent {
  readonly kind: 'assign';
  readonly process: string;
  readonly group?: string | undefined;
  readonly positions: readonly Position[];
}

/** A consumer no longer reads these partitions. */
export interface RevokeEvent {
  readonly kind: 'revoke';
  readonly process: string;
  readonly places: readonly Place[];
}

/** A commit of offsets was acknowledged. */
export interface CommitEvent {
  readonly kind: 'commit';
  readonly process: string;
  readonly group: string;
  readonly positions: readonly Position[];
}

/**
 * A member of a group is done with records that it was handed: from here on the group may commit an offset above them. To be
 * written down of every member, before the group is told.
 */
export interface FinishEvent {
  readonly kind: 'finish';
  readonly process: string;
  /** By their offsets. */
  readonly records: readonly Position[];
}

/** An administrator is about to reset a group's offsets: from here on members may begin there. */
export interface AskResetEvent {
  readonly kind: 'ask-reset';
  readonly group: string;
  readonly positions: readonly Position[];
}

/** An administrator's reset of a group's offsets was acknowledged: who was assigned the partition before is to begin anew. */
export interface ResetOffsetsEvent {
  readonly kind: 'reset-offsets';
  readonly group: string;
  readonly positions: readonly Position[];
}

/**
 * A reader came to the end of a partition: it was handed all that there was to be seen below `offset`, the high watermark
 * (or the last stable offset, where it reads committed data) as it was at some time since the partition was assigned.
 */
export interface EndEvent {
  readonly kind: 'end';
  readonly process: string;
  readonly end: Position;
}

/** The records below an offset may be gone from here on: retention or a deletion of records was asked for or allowed. */
export interface TrimEvent {
  readonly kind: 'trim';
  readonly before: Position;
}

/** Something was killed, paused, or cut off: context for people who read the history. */
export interface CrashEvent {
  readonly kind: 'crash';
  readonly what: string;
  /** Of a client that was killed or paused: it has no partitions any more. */
  readonly process?: string | undefined;
}

export type HistoryEvent =
  | SendEvent
  | AckEvent
  | ErrorEvent
  | CommitTransactionEvent
  | EndTransactionEvent
  | PollEvent
  | AssignEvent
  | RevokeEvent
  | FinishEvent
  | CommitEvent
  | AskResetEvent
  | ResetOffsetsEvent
  | EndEvent
  | TrimEvent
  | CrashEvent;

/** What the checker must know of a history besides its events. */
export interface HistoryOptions {
  /** Topics of which compaction removes records that a later one with the same key replaces. */
  readonly compacted?: ReadonlySet<string>;
}
