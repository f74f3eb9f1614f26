/** The batches that may be handed out, one after the other. */
import { closedError } from '../failures.js';
import { type MakeBatch, splitFetched } from '../record-batch.js';
import { ConsumedBatch } from './consumed.js';
import type { Fetching } from './fetching.js';
import type { Holding } from './holding.js';
import { keyOfPartition } from './holding.js';
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
  /** Offsets below this hold nothing beyond `#batches`: control batches come last. */
  #end = 0;

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

  /** Moves the position over what follows the last batch of a message and holds no records. */
  #skipRest(): void {
    const last = this.#batches.at(-1);
    if (last === undefined) return;
    const { holding, source, progress } = ConsumedBatch.originOf(last);
    if (holding.source === source && progress.position === last.nextOffset) progress.skipTo(this.#end);
  }

  async #pull(): Promise<void> {
    const { fetching, holdings, verifyCrc, commit } = this.#parts;
    this.#skipRest();
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
    const origin = { holding, progress, source, commit };
    const make: MakeBatch<ConsumedBatch<K, V>> = (fetched, bytes, bounds) =>
      new ConsumedBatch(fetched, bytes, bounds, origin);
    const batches = splitFetched(message, { from, to: undefined }, verifyCrc, make);
    holding.fetchedTo = message.nextOffset;
    holding.refusals = 0;
    this.#end = message.nextOffset;
    this.#batches = batches;
    if (batches.length === 0 && progress.position === from) progress.skipTo(message.nextOffset);
  }
}
