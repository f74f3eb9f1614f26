/**
 * Lets at most `limit` holders in at once; the others wait in order of arrival.
 * The number that waits is bounded by its callers: each caller waits for one permit before it asks for the next.
 */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}

/** Runs `work` over all items, at most `limit` at once, and rejects with the first failure after all have settled. */
export async function forEachLimit<T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const semaphore = new Semaphore(limit);
  const results = await Promise.allSettled(items.map((item) => semaphore.run(() => work(item))));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
