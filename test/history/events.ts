/**
 * What clients did and saw, in the order in which the test learned of it: the input of the history checker.
 *
 * A process is one session of a client: one producer or one consumer, from its start to its end. Its own events are in
 * the order in which they happened to it; events of different processes may have overlapped. Values are unique in a
 * topic, so that a value names the attempt to send it.
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

/** A transaction ended, or may have. */
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
  /** Whether open and aborted transactions may be seen. */
  readonly isolation?: 'read_uncommitted' | 'read_committed' | undefined;
}

/** A consumer reads these partitions from here on, each from the position given, besides those it has. */
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

/** A reader came to the end of a partition: everything below `offset`, the high watermark, was there to be seen. */
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
}

export type HistoryEvent =
  | SendEvent
  | AckEvent
  | ErrorEvent
  | EndTransactionEvent
  | PollEvent
  | AssignEvent
  | RevokeEvent
  | CommitEvent
  | EndEvent
  | TrimEvent
  | CrashEvent;

/** What the checker must know of a history besides its events. */
export interface HistoryOptions {
  /** Topics of which compaction removes records that a later one with the same key replaces. */
  readonly compacted?: ReadonlySet<string>;
  /** Whether a retried send may be in the log twice: producers without sequences. */
  readonly allowDuplicates?: boolean;
}
