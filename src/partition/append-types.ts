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
  /**
   * Of each record of the one batch, which the broker has made and which carries them: see `identified-records.ts`. None:
   * the records have no ids.
   */
  readonly messageIds?: readonly string[];
  /** Called when the batches were found good by themselves, in the turn in which they get their place. What it throws refuses them. */
  readonly admit?: (() => void) | undefined;
}
