/**
 * Counts bytes in flight against limits that nest: a stream's within its connection's within the broker's.
 * Charging never fails, because the bytes are there already; whoever charged beyond a limit stops reading until
 * `whenBelow` says so. The overshoot is therefore at most one message for each reader.
 */
export class ByteBudget {
  readonly limitBytes: number;
  readonly #parent: ByteBudget | undefined;
  #usedBytes = 0;
  readonly #waiting = new Set<() => void>();

  constructor(limitBytes: number, parent?: ByteBudget) {
    this.limitBytes = limitBytes;
    this.#parent = parent;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  charge(bytes: number): void {
    this.#usedBytes += bytes;
    this.#parent?.charge(bytes);
  }

  release(bytes: number): void {
    this.#usedBytes -= bytes;
    if (this.#usedBytes < this.limitBytes && this.#waiting.size > 0) {
      const waiting = [...this.#waiting];
      this.#waiting.clear();
      for (const resume of waiting) resume();
    }
    this.#parent?.release(bytes);
  }

  /** The innermost budget that is used up, or undefined when there is room at every level. */
  get exhausted(): ByteBudget | undefined {
    if (this.#usedBytes >= this.limitBytes) return this;
    return this.#parent?.exhausted;
  }

  /** How many wait for room. */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  /**
   * Calls `resume` once, when this budget has room again. Returns how to give up waiting: there may never be room.
   * Each reader waits at most once at a time.
   */
  whenBelow(resume: () => void): () => void {
    this.#waiting.add(resume);
    return () => void this.#waiting.delete(resume);
  }
}
