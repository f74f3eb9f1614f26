/** What a `for await` over a consumer iterates: batches, or records on top of them. */
import { type LogError, toLogError } from '../../core/errors.js';
import { decodeAhead } from '../decode-ahead.js';
import type { BatchCursor } from '../record-batch.js';
import { ConsumedBatch, type ConsumedRecord } from './consumed.js';
import type { Holding } from './holding.js';
import type { Participation } from './participation.js';
import type { Work } from './poll-deadline.js';
import type { Progress } from './progress.js';

/** What an iteration asks its consumer for. */
export interface LoopOwner<K, V> {
  /** Joins the group. @throws LogError INVALID_REQUEST while another iteration is under way, CLOSED, CANCELLED */
  begin(): Participation<K, V>;
  /** Leaves it. Never rejects. */
  end(participation: Participation<K, V>): Promise<void>;
  /** Whether the iteration is simply over when this is why nothing is handed out any more. */
  isQuietEnd(error: LogError): boolean;
}

/** What the loop works on: `[from, to)` of one partition. */
class Hand<K, V> {
  readonly #finishes: () => boolean;
  #holding: Holding<K, V> | undefined;
  #progress: Progress | undefined;
  #from = 0;
  #to = 0;
  /** Tells one piece of work from the next. */
  #count = 0;

  /** @param finishes whether what the loop is through with counts as finished */
  constructor(finishes: () => boolean) {
    this.#finishes = finishes;
  }

  get work(): Work | undefined {
    const holding = this.#holding;
    if (holding === undefined) return undefined;
    return { id: this.#count, partition: holding.assigned, offset: this.#from };
  }

  give(holding: Holding<K, V>, progress: Progress, from: number, to: number): void {
    progress.handOut(from, to);
    holding.take();
    this.#holding = holding;
    this.#progress = progress;
    this.#from = from;
    this.#to = to;
    this.#count++;
  }

  /** The loop asks for more. */
  takeBack(): void {
    if (this.#holding === undefined) return;
    if (this.#finishes()) this.#progress?.finish(this.#from, this.#to);
    this.drop();
  }

  /** The loop was left. */
  drop(): void {
    const holding = this.#holding;
    this.#holding = undefined;
    this.#progress = undefined;
    holding?.release();
  }
}

/** Invariant: calls of `next` run one after the other, as those of an async generator; after the end every one is done. */
abstract class Loop<K, V, T> implements AsyncIterableIterator<T> {
  readonly #owner: LoopOwner<K, V>;
  #participation: Participation<K, V> | undefined;
  #hand: Hand<K, V> | undefined;
  #done = false;
  #turn: Promise<unknown> | undefined;

  constructor(owner: LoopOwner<K, V>) {
    this.#owner = owner;
  }

  /** What comes next and may be handed out; it has been given to the hand. */
  protected abstract advance(participation: Participation<K, V>, hand: Hand<K, V>): Promise<T>;

  /** What can be handed out without waiting, if anything; as `advance`. */
  protected abstract atHand(participation: Participation<K, V>, hand: Hand<K, V>): T | undefined;

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#turn === undefined && this.#participation !== undefined && this.#hand !== undefined) {
      this.#hand.takeBack();
      const isOver = this.#participation.slices.isOver;
      const value = isOver ? undefined : this.atHand(this.#participation, this.#hand);
      if (value !== undefined) return Promise.resolve({ done: false, value });
    }
    const turn = this.#turn === undefined ? this.#next() : this.#turn.then(() => this.#next());
    const done = (): void => {
      if (this.#turn === settled) this.#turn = undefined;
    };
    const settled: Promise<void> = turn.then(done, done);
    this.#turn = settled;
    return turn;
  }

  /** Leaves the group; what is in the loop's hands is not finished. */
  async return(): Promise<IteratorResult<T>> {
    this.#done = true;
    this.#hand?.drop();
    if (this.#participation !== undefined) await this.#owner.end(this.#participation);
    return { done: true, value: undefined };
  }

  async #next(): Promise<IteratorResult<T>> {
    if (this.#done) return { done: true, value: undefined };
    const participation = this.#begin();
    const hand = this.#hand as Hand<K, V>;
    hand.takeBack();
    try {
      if (participation.slices.isOver) await participation.slices.pause();
      if (participation.stoppedBy !== undefined) throw participation.stoppedBy;
      participation.goOn();
      return { done: false, value: await this.advance(participation, hand) };
    } catch (thrown) {
      const error = toLogError(thrown);
      const isQuiet = this.#done || this.#owner.isQuietEnd(error);
      this.#done = true;
      await this.#owner.end(participation);
      if (isQuiet) return { done: true, value: undefined };
      throw error;
    }
  }

  #begin(): Participation<K, V> {
    if (this.#participation !== undefined) return this.#participation;
    const participation = this.#owner.begin();
    const hand = new Hand<K, V>(() => participation.commits.isAutomatic);
    participation.isSequential = true;
    participation.oldestWork = () => hand.work;
    this.#participation = participation;
    this.#hand = hand;
    return participation;
  }
}

export class BatchLoop<K, V> extends Loop<K, V, ConsumedBatch<K, V>> {
  /** Compressed, and to be opened before it is handed out. */
  #closed: ConsumedBatch<K, V> | undefined;

  protected async advance({ feed }: Participation<K, V>, hand: Hand<K, V>): Promise<ConsumedBatch<K, V>> {
    for (;;) {
      const batch = this.#closed ?? (await feed.next());
      this.#closed = undefined;
      if (!batch.isOpen) await batch.open();
      // It may have been lost meanwhile.
      if (!feed.mayHandOut(batch)) continue;
      give(hand, batch);
      return batch;
    }
  }

  protected atHand({ feed }: Participation<K, V>, hand: Hand<K, V>): ConsumedBatch<K, V> | undefined {
    if (this.#closed !== undefined) return undefined;
    const batch = feed.atHand();
    if (batch === undefined) return undefined;
    if (!batch.isOpen) {
      this.#closed = batch;
      return undefined;
    }
    give(hand, batch);
    return batch;
  }
}

function give<K, V>(hand: Hand<K, V>, batch: ConsumedBatch<K, V>): void {
  const { holding, progress } = ConsumedBatch.originOf(batch);
  progress.noteLeaderEpoch(batch.baseOffset, ConsumedBatch.leaderEpochOf(batch));
  hand.give(holding, progress, batch.baseOffset, batch.nextOffset);
  progress.skipTo(ConsumedBatch.endOf(batch));
}

/** Records of one batch after the other; what is decoded already costs little more than a resolved promise. */
export class RecordLoop<K, V> extends Loop<K, V, ConsumedRecord<K, V>> {
  #records: readonly ConsumedRecord<K, V>[] = [];
  #index = 0;
  #batch: ConsumedBatch<K, V> | undefined;
  #cursor: BatchCursor | undefined;
  /** Thrown once the records before it are through. */
  #failure: LogError | undefined;

  protected atHand({ feed }: Participation<K, V>, hand: Hand<K, V>): ConsumedRecord<K, V> | undefined {
    const record = this.#records[this.#index];
    if (record === undefined || this.#batch === undefined || !feed.mayHandOut(this.#batch)) return undefined;
    this.#index++;
    const { holding, progress } = ConsumedBatch.originOf(this.#batch);
    hand.give(holding, progress, record.offset, record.offset + 1);
    return record;
  }

  protected async advance(participation: Participation<K, V>, hand: Hand<K, V>): Promise<ConsumedRecord<K, V>> {
    for (;;) {
      const record = this.atHand(participation, hand);
      if (record !== undefined) return record;
      const batch = this.#batch;
      if (batch === undefined || !participation.feed.mayHandOut(batch)) await this.#open(participation);
      else if (this.#failure !== undefined) throw this.#failure;
      else if (this.#cursor !== undefined) this.#decodeSome(batch, this.#cursor);
      else this.#close(batch);
    }
  }

  async #open({ feed }: Participation<K, V>): Promise<void> {
    this.#records = [];
    this.#index = 0;
    this.#failure = undefined;
    this.#cursor = undefined;
    this.#batch = undefined;
    const batch = await feed.next();
    const { progress } = ConsumedBatch.originOf(batch);
    progress.noteLeaderEpoch(batch.baseOffset, ConsumedBatch.leaderEpochOf(batch));
    try {
      const opened = batch.cursor();
      this.#cursor = opened instanceof Promise ? await opened : opened;
    } catch (error) {
      this.#failure = toLogError(error);
    }
    this.#batch = batch;
  }

  #decodeSome(batch: ConsumedBatch<K, V>, cursor: BatchCursor): void {
    const { records, isEnd, failure } = decodeAhead(batch, cursor);
    this.#records = records;
    this.#index = 0;
    this.#failure = failure;
    if (isEnd || failure !== undefined) this.#cursor = undefined;
  }

  /** All records of the batch were handed out; what follows the last one holds none. */
  #close(batch: ConsumedBatch<K, V>): void {
    ConsumedBatch.originOf(batch).progress.skipTo(ConsumedBatch.endOf(batch));
    this.#batch = undefined;
  }
}
