/** Something that remembers producers and can forget the one that was idle longest. */
export interface IdleProducers {
  /** When the producer that is idle longest has last written, ms since the epoch; undefined when there is none. */
  readonly idleSinceMs: number | undefined;
  forgetIdlest(): void;
}

/**
 * The number of producers that all partitions together remember (`producers.max`). When it is used up, a new producer takes
 * the place of one that is idle: of the partition that it writes to or of another one, taken in turn, whichever has been
 * idle longer. Producers with an open transaction are never forgotten for another.
 */
export class ProducerBudget {
  readonly limit: number;
  #used = 0;
  /** Those with an idle producer, from the one whose turn comes next. */
  readonly #withIdle = new Set<IdleProducers>();

  constructor(limit: number) {
    this.limit = limit;
  }

  /** How many are remembered. */
  get used(): number {
    return this.#used;
  }

  /** Whether another producer may be remembered, if need be in the place of an idle one. */
  get hasRoom(): boolean {
    return this.#used < this.limit || this.#withIdle.size > 0;
  }

  /** Counts one more producer of `owner`, which comes to be remembered whether there is room or not. */
  take(owner: IdleProducers): void {
    if (this.#used >= this.limit) this.#idlest(owner)?.forgetIdlest();
    this.#used++;
  }

  release(count: number): void {
    this.#used -= count;
  }

  /** To be called when `owner` comes to have idle producers, or no longer has one. */
  setIdle(owner: IdleProducers, hasIdle: boolean): void {
    if (hasIdle) this.#withIdle.add(owner);
    else this.#withIdle.delete(owner);
  }

  #idlest(owner: IdleProducers): IdleProducers | undefined {
    const [other] = this.#withIdle;
    if (other === undefined) return undefined;
    this.#withIdle.delete(other);
    this.#withIdle.add(other);
    const ownMs = owner.idleSinceMs;
    return ownMs === undefined || (other.idleSinceMs ?? ownMs) < ownMs ? other : owner;
  }
}
