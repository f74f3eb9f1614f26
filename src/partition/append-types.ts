import type { LanePlace } from './append-lane.js';

/** What an acknowledgement waits for. */
export type Acks = 'none' | 'written' | 'durable';

export interface AppendResult {
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** The append time on LogAppendTime topics, else -1. */
  readonly logAppendTimeMs: number;
  readonly logStartOffset: number;
  /** Of records that came with message ids: where each is, those that were there already included. */
  readonly offsets?: readonly number[];
  /** Records that were there already. */
  readonly duplicateCount: number;
}

export interface AppendOptions {
  readonly acks: Acks;
  /** Append only if the log ends here. What is in the log already is not appended, and so never refused for this. */
  readonly expectedOffset?: number | undefined;
  /** Place among the appends of one stream, which keep their order when one of them fails. */
  readonly place?: LanePlace | undefined;
}
