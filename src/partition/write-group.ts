import { nextOffsetOf } from '../batch/layout.js';
import type { LogError } from '../core/errors.js';

/** What is answered once the log has taken the group. */
export interface Accepted {
  /** Where the log must be durable up to for an answer that says so; undefined: none is asked for. */
  readonly durableUpTo: number | undefined;
  /** Whether it stands or falls with what the group appends. */
  readonly isOfGroup: boolean;
  readonly resolve: () => void;
  readonly reject: (error: LogError) => void;
}

/** What one append to the log is to consist of. */
export class WriteGroup {
  readonly batches: Buffer[] = [];
  readonly accepted: Accepted[] = [];
  readonly at: number;
  readonly idSavepoint: number;
  byteLength = 0;
  /** Whether what is known of producers or message ids changes with it. */
  isTracked = false;
  /** Whether it has a part of a transaction, which is to be durable when that commits. */
  isTransactional = false;
  /** Offset of the next record. */
  next: number;

  /** @param idSavepoint of the message ids, before any of the group */
  constructor(at: number, idSavepoint: number) {
    this.at = at;
    this.idSavepoint = idSavepoint;
    this.next = at;
  }

  add(batch: Buffer): void {
    this.batches.push(batch);
    this.byteLength += batch.length;
    this.next = nextOffsetOf(batch, 0);
  }
}
