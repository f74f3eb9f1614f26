/** The offsets of a consumer that are committed by transactions, not by itself. */
import { LogError } from '../../core/errors.js';
import type { AddOffsetsRequest } from '../../rpc/transaction-messages.js';
import type { ReadRecord } from '../record-batch.js';
import { notHeld } from './committer.js';
import { ConsumedBatch, ConsumedRecord, type Origin } from './consumed.js';
import type { Holding } from './holding.js';
import { overSince, type Participation } from './participation.js';
import type { Work } from './poll-deadline.js';
import type { Progress } from './progress.js';

/** A batch or a record that a consumer has handed out. */
export type Consumed<K, V> = ConsumedBatch<K, V> | ReadRecord<K, V>;

/** Who commits which offsets. */
export type GroupOffsets = Pick<AddOffsetsRequest, 'groupId' | 'memberId' | 'memberEpoch' | 'offsets'>;

/** A consumer's time in its group, as far as transactions are concerned. */
type Participating = Pick<
  Participation<unknown, unknown>,
  'commits' | 'membership' | 'isSequential' | 'oldestWork' | 'holdings' | 'has' | 'rewind' | 'advance' | 'findAgain'
>;

/** For the client's own use: the consumer's side of all its transactions. */
export interface TransactionalOffsets {
  /** Whether a transaction has ever committed its offsets: from then on it commits nothing by itself. */
  readonly isBound: boolean;
  /** Whether it is being iterated over. */
  readonly isActive: boolean;
  /**
   * What the consumer's loop is working on now; the function has it handed out again, and with it, once the consumer is bound,
   * all that was handed out and not committed. Undefined when it is working on nothing, or on several things at once.
   */
  inHand(): (() => void) | undefined;
}

/**
 * Of one consumer. Invariant: what a transaction that was aborted has covered is handed out again, unless it is
 * committed by another transaction before that.
 */
export class ConsumerOffsets implements TransactionalOffsets {
  readonly #group: string;
  readonly #current: () => Participating | undefined;
  #isBound = false;

  constructor(group: string, current: () => Participating | undefined) {
    this.#group = group;
    this.#current = current;
  }

  get isBound(): boolean {
    return this.#isBound;
  }

  get group(): string {
    return this.#group;
  }

  get participation(): Participating | undefined {
    return this.#current();
  }

  get isActive(): boolean {
    return this.#current() !== undefined;
  }

  bind(): void {
    this.#isBound = true;
  }

  inHand(): (() => void) | undefined {
    const participation = this.#current();
    const work = participation?.oldestWork();
    if (!participation?.isSequential || work === undefined) return undefined;
    return () => this.#goBack(participation, work);
  }

  #goBack(participation: Participating, work: Work): void {
    if (this.#current() !== participation) return;
    // A loop that has gone on meanwhile did not wait for the transaction.
    if (!this.#isBound && participation.oldestWork()?.id !== work.id) return;
    for (const holding of participation.holdings) {
      const { progress, uncommittedFrom } = holding;
      if (progress !== undefined) participation.rewind(holding, this.#isBound ? uncommittedFrom : progress.committable);
    }
  }
}

/** What a transaction has of one partition. */
interface Covered {
  readonly progress: Progress;
  from: number;
  to: number;
  leaderEpoch: number;
}

/** The offsets of one consumer in one transaction. While they are in it, their partitions are not given up. */
export class Coverage {
  readonly #offsets: ConsumerOffsets;
  readonly #covered = new Map<Holding<unknown, unknown>, Covered>();

  constructor(offsets: ConsumerOffsets) {
    this.#offsets = offsets;
  }

  get isEmpty(): boolean {
    return this.#covered.size === 0;
  }

  /**
   * @throws LogError FENCED_MEMBER_EPOCH (the partition is no longer this consumer's, or no longer the same assignment),
   *   INVALID_REQUEST (not of this consumer, of before a seek, committed by another transaction, or one of several at work)
   */
  add<K, V>(what: Consumed<K, V>): void {
    this.#offsets.bind();
    const { origin, from: first, to, leaderEpoch } = spanOf(what);
    const { holding, progress } = origin;
    this.#check(origin, first, to);
    // What was handed out before and is not committed is in it, named or not.
    const from = Math.min(first, Math.max(progress.committable, holding.committedOffset ?? 0));
    const known = this.#covered.get(holding);
    if (known === undefined) {
      holding.take();
      this.#covered.set(holding, { progress, from, to, leaderEpoch });
      return;
    }
    if (to > known.to) known.leaderEpoch = leaderEpoch;
    known.to = Math.max(known.to, to);
    known.from = Math.min(known.from, from);
  }

  /**
   * What the group coordinator is to be told, under the member's epoch of now.
   * @throws LogError FENCED_MEMBER_EPOCH
   */
  request(): GroupOffsets {
    const participation = this.#offsets.participation;
    const offsets: GroupOffsets['offsets'] = [];
    for (const [holding, { to: offset, leaderEpoch }] of this.#covered) {
      this.#checkHeld(holding);
      const { topic, topicId, partition } = holding.assigned;
      const message = { topic, topicId, partition, offset, metadata: '' };
      offsets.push(leaderEpoch < 0 ? message : { ...message, leaderEpoch });
    }
    const { memberId = '', memberEpoch = 0 } = participation?.membership ?? {};
    return { groupId: this.#offsets.group, memberId, memberEpoch, offsets };
  }

  /** Resolves when no commit is under way that was made without a transaction: it might undo what the transaction commits. */
  async settled(): Promise<void> {
    await this.#offsets.participation?.commits.settled();
  }

  committed(): void {
    for (const [holding, { progress, to }] of this.#takeAll()) {
      holding.committedOffset = to;
      if (!holding.covers(progress)) continue;
      holding.transactedTo = Math.max(holding.transactedTo, to);
      holding.progress?.finish(0, to);
      this.#offsets.participation?.advance(holding, to);
    }
  }

  aborted(): void {
    for (const [holding, { progress, from }] of this.#takeAll()) {
      if (holding.covers(progress)) this.#offsets.participation?.rewind(holding, from);
    }
  }

  /** Nobody knows how the transaction has ended: the group does, or will. */
  unknown(): void {
    const holdings = this.#takeAll().filter(([holding, { progress }]) => holding.covers(progress));
    this.#offsets.participation?.findAgain(holdings.map(([holding]) => holding));
  }

  #takeAll(): [Holding<unknown, unknown>, Covered][] {
    const covered = [...this.#covered];
    this.#covered.clear();
    for (const [holding] of covered) holding.release();
    return covered;
  }

  #check({ holding, progress }: Origin, from: number, to: number): void {
    const participation = this.#offsets.participation;
    if (holding.phase !== 'gone' && participation?.has(holding) !== true) {
      throw new LogError('INVALID_REQUEST', 'The batch or record is not one that this consumer has handed out.');
    }
    this.#checkHeld(holding);
    if (participation?.isSequential === false) throw severalAtOnce();
    const { topic, partition } = holding.assigned;
    if (!holding.covers(progress) || wasHandedOutAgain(holding, progress, from)) {
      const moved = `The consumer was moved to another position of ${topic}-${partition} since it has handed out offset ${from}.`;
      throw new LogError('INVALID_REQUEST', moved, { metadata: { topic, partition, offset: from } });
    }
    const { transactedTo } = holding;
    if (to >= transactedTo) return;
    const done = `Another transaction has committed ${topic}-${partition} up to offset ${transactedTo}, offset ${from} with it.`;
    throw new LogError('INVALID_REQUEST', done, { metadata: { topic, partition, offset: from } });
  }

  #checkHeld(holding: Holding<unknown, unknown>): void {
    const participation = this.#offsets.participation;
    if (holding.phase === 'gone' || participation === undefined) throw overSince(holding.assigned);
    if (!participation.membership.holds(holding.assigned)) throw notHeld(this.#offsets.group, holding.assigned);
  }
}

/** One transaction would commit what others work on, and what another one commits would be taken back. */
function severalAtOnce(): LogError {
  return new LogError(
    'INVALID_REQUEST',
    'Offsets go with transactions only where one record or batch is worked on at a time: in a loop, or in run with the ' +
      'concurrency 1. To work on more at once, have more consumers in the group.',
  );
}

/** After the consumer went back, what it has handed out before may be committed only until it hands it out again. */
function wasHandedOutAgain(holding: Holding<unknown, unknown>, progress: Progress, from: number): boolean {
  return holding.progress !== undefined && holding.progress !== progress && holding.progress.position > from;
}

interface Span {
  readonly origin: Origin;
  readonly from: number;
  readonly to: number;
  /** -1: not known. */
  readonly leaderEpoch: number;
}

function spanOf<K, V>(what: Consumed<K, V>): Span {
  if (what instanceof ConsumedBatch) {
    const origin = ConsumedBatch.originOf(what);
    const leaderEpoch = ConsumedBatch.leaderEpochOf(what);
    return { origin, from: what.baseOffset, to: ConsumedBatch.endOf(what), leaderEpoch };
  }
  const origin = ConsumedRecord.originOf(what);
  if (origin !== undefined) return { origin, from: what.offset, to: what.offset + 1, leaderEpoch: -1 };
  throw new LogError(
    'INVALID_REQUEST',
    'Only batches and records that the consumer has handed out can be committed, not copies of them.',
  );
}
