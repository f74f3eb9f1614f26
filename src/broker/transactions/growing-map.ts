/** A map that only grows: what states share of it is not copied when one of them is followed by another with more. */

interface Slot<V> {
  readonly index: number;
  readonly value: V;
}

/** Immutable: `with` makes another one. Iterates in the order of the additions. */
export class GrowingMap<V> {
  /** Shared with those that came of this one and those that this one came of; only the first `size` are this one's. */
  readonly #slots: Map<string, Slot<V>>;
  readonly size: number;

  private constructor(slots: Map<string, Slot<V>>, size: number) {
    this.#slots = slots;
    this.size = size;
  }

  static empty<V>(): GrowingMap<V> {
    return new GrowingMap(new Map<string, Slot<V>>(), 0);
  }

  static of<V>(entries: Iterable<readonly [string, V]>): GrowingMap<V> {
    let map = GrowingMap.empty<V>();
    for (const [key, value] of entries) map = map.with(key, value);
    return map;
  }

  has(key: string): boolean {
    const slot = this.#slots.get(key);
    return slot !== undefined && slot.index < this.size;
  }

  /** This one if it has the key already. */
  with(key: string, value: V): GrowingMap<V> {
    if (this.has(key)) return this;
    const slots = this.#slots.size === this.size ? this.#slots : this.#copy();
    slots.set(key, { index: this.size, value });
    return new GrowingMap(slots, this.size + 1);
  }

  /** Another one has grown out of this one before. */
  #copy(): Map<string, Slot<V>> {
    const own = new Map<string, Slot<V>>();
    for (const [key, slot] of this.#slots) if (slot.index < this.size) own.set(key, slot);
    return own;
  }

  *values(): Generator<V, void, void> {
    for (const { index, value } of this.#slots.values()) {
      if (index >= this.size) return;
      yield value;
    }
  }
}
