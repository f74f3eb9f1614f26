/** The numbers by which a partition tells a producer's repeated batches from new ones, and notices missing ones. */
import { bumped, type ProducerIdentity } from './identity.js';
import type { ProducerBatch } from './producer-batch.js';

/** The largest sequence; 0 follows. */
export const MAX_SEQUENCE = 0x7fff_ffff;

/** The sequence `count` records after `sequence`. */
export function addSequence(sequence: number, count: number): number {
  return sequence > MAX_SEQUENCE - count ? count - (MAX_SEQUENCE - sequence) - 1 : sequence + count;
}

/**
 * The sequences of one lane. A batch gets its number when it is sealed, a guess that nearly always holds; what counts
 * is the order in which batches leave the queue, and when they are found to be numbered otherwise, the whole queue
 * is numbered anew.
 *
 * Invariants, by which a partition holds every record once and in order:
 * - a batch that may have been written keeps its number as long as the identity lasts, also when it was given up, so that no
 *   other batch is ever taken for a repetition of it;
 * - a batch that was given up and definitely not written leaves its number to the next. Nothing behind such a batch can have
 *   been written: it was sent on the same streams, where the broker refuses what follows a failure;
 * - a lane begins anew at sequence 0, under a higher epoch, which fences what is still on its way under the old one, or,
 *   when there is no higher one, under another producer id. No batch that may still arrive under its old number goes along
 *   (see `Recovery`).
 */
export class LaneSequences {
  readonly transactional: boolean;
  #identity: ProducerIdentity;
  #nextSealed: number;
  #nextSent: number;
  /** Order of the newest batch that may have been written, was given up, and of which nothing was heard since. */
  #gapAt: number | undefined;
  /** Whether the lane has begun anew and nothing was acknowledged since. */
  #isUnproven = false;

  /** @param firstSequence anything but 0 is for tests */
  constructor(identity: ProducerIdentity, transactional: boolean, firstSequence: number = 0) {
    this.#identity = identity;
    this.transactional = transactional;
    this.#nextSealed = firstSequence;
    this.#nextSent = firstSequence;
  }

  get identity(): ProducerIdentity {
    return this.#identity;
  }

  /** Whether a batch that was given up may still arrive, and with it what was sent behind it. */
  get hasGap(): boolean {
    return this.#gapAt !== undefined;
  }

  /** The first sequence of a batch that is being sealed. */
  seal(recordCount: number): number {
    const first = this.#nextSealed;
    this.#nextSealed = addSequence(first, recordCount);
    return first;
  }

  /** `queue[0]` is sent now: makes sure of its number. */
  onSend(queue: readonly ProducerBatch[]): void {
    const [head] = queue;
    if (head === undefined) return;
    if (head.identity !== this.#identity || head.firstSequence !== this.#nextSent) this.#renumber(queue);
    this.#nextSent = head.nextSequence;
  }

  /** What is sent next is this batch, again. */
  rewind(batch: ProducerBatch): void {
    if (batch.identity === this.#identity) this.#nextSent = batch.firstSequence;
  }

  /** A batch was given up, and it would be its turn now. */
  onGivenUp(batch: ProducerBatch): void {
    if (!batch.maybeWritten || batch.identity !== this.#identity) return;
    this.#nextSent = batch.nextSequence;
    this.#gapAt = batch.ordinal;
  }

  onAcknowledged(batch: ProducerBatch): void {
    this.#isUnproven = false;
    // The partition is past what was given up: a late copy of it is not taken any more.
    if (this.#gapAt !== undefined && batch.ordinal > this.#gapAt) this.#gapAt = undefined;
  }

  /** Whether beginning anew may help a batch that the broker finds out of order. Not twice in a row at sequence 0. */
  mayRestart(batch: ProducerBatch): boolean {
    if (this.transactional) return false;
    return !(this.#isUnproven && batch.firstSequence === 0);
  }

  /** Begins anew under the next epoch. @returns false when there is none: another producer id is needed */
  bump(): boolean {
    const next = bumped(this.#identity);
    if (next !== undefined) this.restart(next);
    return next !== undefined;
  }

  /** Begins anew at sequence 0 under this identity. */
  restart(identity: ProducerIdentity): void {
    this.#identity = identity;
    this.#nextSealed = 0;
    this.#nextSent = 0;
    this.#gapAt = undefined;
    this.#isUnproven = true;
  }

  #renumber(queue: readonly ProducerBatch[]): void {
    let next = this.#nextSent;
    for (const batch of queue) {
      if (batch.settled) continue;
      batch.identity = this.#identity;
      batch.firstSequence = next;
      next = batch.nextSequence;
    }
    this.#nextSealed = next;
  }
}
