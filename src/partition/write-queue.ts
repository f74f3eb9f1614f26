/** What waits for its place in a partition's log. */
import type { LogError } from '../core/errors.js';
import type { AppendOptions, AppendResult } from './append-types.js';
import type { TransactionEnd } from './producers/types.js';

/** One append to the log takes at most this much of what waits, so that a sync can begin in between. */
const GROUP_BYTES = 4 * 1024 * 1024;
/** The same of writes, which may be very small: some ms of work each time. */
const GROUP_WRITES = 4096;

/** Batches that were found good by themselves and wait for their place in the log. */
export interface PendingAppend {
  readonly kind: 'append';
  readonly batches: readonly Buffer[];
  readonly byteLength: number;
  /** Whether any of the batches has a producer. */
  readonly hasProducer: boolean;
  readonly options: AppendOptions;
  /** Whether the broker stamps its own time: what the batches were judged by, whatever is configured later. */
  readonly logAppendTime: boolean;
  /** Why the records are refused, where finding that out takes time. Never rejects. */
  readonly refusal: Promise<LogError | undefined> | undefined;
  readonly resolve: (result: AppendResult) => void;
  readonly reject: (error: LogError) => void;
}

/** The end of a transaction that waits for its place in the log. */
export interface PendingEnd {
  readonly kind: 'end';
  readonly byteLength: number;
  readonly end: TransactionEnd;
  readonly resolve: () => void;
  readonly reject: (error: LogError) => void;
}

export type PendingWrite = PendingAppend | PendingEnd;

/** In the order in which they came. */
export class WriteQueue {
  #waiting: PendingWrite[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  push(pending: PendingWrite): void {
    this.#waiting.push(pending);
  }

  /** Those in front that one append takes. */
  takeGroup(): PendingWrite[] {
    let bytes = 0;
    let count = 0;
    for (const { byteLength } of this.#waiting) {
      if (count === GROUP_WRITES || (count > 0 && bytes + byteLength > GROUP_BYTES)) break;
      bytes += byteLength;
      count++;
    }
    return count === this.#waiting.length ? this.takeAll() : this.#waiting.splice(0, count);
  }

  takeAll(): PendingWrite[] {
    const all = this.#waiting;
    this.#waiting = [];
    return all;
  }
}
