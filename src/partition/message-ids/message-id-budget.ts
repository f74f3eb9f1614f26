/** Something that remembers message ids for a while. */
export interface ForgetfulOfIds {
  /**
   * Forgets ids whose window is over at `nowMs`, at most `maxCount` of them.
   * @returns how many were forgotten, and when the next one may be; Infinity when none is left
   */
  forgetExpired(nowMs: number, maxCount: number): { readonly count: number; readonly nextMs: number };
}

/** Ids forgotten in one call because their window is over: some milliseconds of work at the most. */
const FORGOTTEN_PER_CALL = 10_000;
/** Between two looks through all partitions, in ms: it takes about 1 for 20,000 of them. */
const LOOK_INTERVAL_MS = 100;

/**
 * The room for message ids of all partitions together (`message.ids.max`). When it is used up, ids are forgotten whose
 * window is over; those within are never given up for others.
 */
export class MessageIdBudget {
  readonly limit: number;
  #used = 0;
  /** Those that remember any. */
  readonly #owners = new Set<ForgetfulOfIds>();
  /** Before this nothing leaves by itself, as far as was seen. */
  #nextLookMs = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  /**
   * Takes room for ids that are remembered for `windowMs`. Times are of the monotonic clock.
   * @returns undefined when it is taken; else how long until there may be some, in ms
   */
  take(size: number, windowMs: number, nowMs: number): number | undefined {
    if (this.#used + size > this.limit && nowMs >= this.#nextLookMs) this.#forgetExpired(nowMs);
    if (this.#used + size > this.limit) return Math.max(1, this.#nextLookMs - nowMs);
    this.#used += size;
    this.#nextLookMs = Math.min(this.#nextLookMs, nowMs + windowMs);
    return undefined;
  }

  /** Takes room that is needed for what a partition has remembered before, whether it is there or not. */
  takeAnyway(size: number): void {
    this.#used += size;
    this.#nextLookMs = 0;
  }

  release(size: number): void {
    this.#used -= size;
  }

  /** A window has become shorter: what was seen of when ids leave no longer holds. */
  lookAgain(): void {
    this.#nextLookMs = 0;
  }

  /** To be called when `owner` comes to remember ids, or no longer does. */
  setOwner(owner: ForgetfulOfIds, hasIds: boolean): void {
    if (hasIds) this.#owners.add(owner);
    else this.#owners.delete(owner);
  }

  #forgetExpired(nowMs: number): void {
    let left = FORGOTTEN_PER_CALL;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const owner of [...this.#owners]) {
      const forgotten = owner.forgetExpired(nowMs, left);
      left -= forgotten.count;
      nextMs = Math.min(nextMs, forgotten.nextMs);
      if (left === 0) break;
    }
    // When there was more to forget than was done, the next call goes on.
    this.#nextLookMs = left === 0 ? nowMs : Math.max(nextMs, nowMs + LOOK_INTERVAL_MS);
  }
}
