/** The batches that may be handed out, one after the other. */
import { closedError } from '../failures.js';
import { type MakeBatch, splitFetched } from '../record-batch.js';
import { ConsumedBatch, type Tail } from './consumed.js';
import type { Fetching } from './fetching.js';
import type { Holding } from './holding.js';
import { keyOfPartition } from './holding.js';
import type { Progress } from './progress.js';
import type { Membership } from './types.js';

export interface BatchFeedParts<K, V> {
  readonly membership: Membership;
  readonly fetching: Fetching<K, V>;
  readonly holdings: ReadonlyMap<string, Holding<K, V>>;
  readonly verifyCrc: boolean;
  readonly commit: (batch: ConsumedBatch<K, V>) => Promise<void>;
}

/** Invariant: a batch is returned only while its partition is held, and read from where this batch was fetched. */
export class BatchFeed<K, V> {
  readonly #parts: BatchFeedParts<K, V>;
  #batches: readonly ConsumedBatch<K, V>[] = [];
  #index = 0;

  constructor(parts: BatchFeedParts<K, V>) {
    this.#parts = parts;
  }

  /** @throws LogError what ended the participation; CORRUPT_MESSAGE */
  async next(): Promise<ConsumedBatch<K, V>> {
    for (;;) {
      const batch = this.atHand();
      if (batch !== undefined) return batch;
      await this.#pull();
    }
  }

  /** The next batch if it needs no waiting. */
  atHand(): ConsumedBatch<K, V> | undefined {
    for (;;) {
      const batch = this.#batches[this.#index];
      if (batch === undefined) return undefined;
      this.#index++;
      if (this.mayHandOut(batch)) return batch;
    }
  }

  /** Whether the batch, or records of it, may go to the consumer's owner now. */
  mayHandOut(batch: ConsumedBatch<K, V>): boolean {
    const { holding, source } = ConsumedBatch.originOf(batch);
    return holding.source === source && this.isHeld(holding);
  }

  /** Whether the session says so, too. Otherwise it will soon tell that the partition is lost; nothing is fetched until then. */
  isHeld(holding: Holding<K, V>): boolean {
    if (this.#parts.membership.holds(holding.assigned)) return true;
    this.#parts.fetching.stop([holding]);
    return false;
  }

  async #pull(): Promise<void> {
    const { fetching, holdings, verifyCrc, commit } = this.#parts;
    this.#batches = [];
    this.#index = 0;
    const delivery = await fetching.session.next();
    if (delivery === undefined) throw closedError('consumer');
    const { source, message, error } = delivery;
    const holding = holdings.get(keyOfPartition(source));
    const progress = holding?.progress;
    if (holding === undefined || progress === undefined || holding.source !== source) return;
    if (error !== undefined) {
      fetching.refused(holding, error);
      return;
    }
    const from = holding.fetchedTo;
    const tail: Tail = { from: message.nextOffset, to: message.nextOffset };
    const origin = { holding, progress, source, tail, commit };
    const make: MakeBatch<ConsumedBatch<K, V>> = (fetched, bytes, bounds) =>
      new ConsumedBatch(fetched, bytes, bounds, origin);
    const batches = splitFetched(message, { from, to: undefined }, verifyCrc, make);
    holding.fetchedTo = message.nextOffset;
    holding.refusals = 0;
    this.#batches = batches;
    const last = batches.at(-1);
    if (last === undefined) {
      skip(holding, progress, from, message.nextOffset);
      return;
    }
    tail.from = last.nextOffset;
    holding.tail = tail;
  }
}

/** `[from, to)` holds no records: the position moves over it now, or once what comes before was handed out. */
function skip(holding: Holding<unknown, unknown>, progress: Progress, from: number, to: number): void {
  if (progress.position === from) progress.skipTo(to);
  else if (holding.tail?.to === from) holding.tail.to = to;
}
