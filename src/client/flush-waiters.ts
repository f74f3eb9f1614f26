import type { ProducerBatch } from './producer-batch.js';

interface FlushWaiter {
  readonly upToOrdinal: number;
  remaining: number;
  readonly resolve: () => void;
}

/** Those who wait until everything that was sealed before they asked is settled. */
export class FlushWaiters {
  #waiters: FlushWaiter[] = [];

  /** @param unsettled in the order in which they were sealed */
  wait(unsettled: readonly ProducerBatch[]): Promise<void> {
    const last = unsettled.at(-1);
    if (last === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push({ upToOrdinal: last.ordinal, remaining: unsettled.length, resolve });
    });
  }

  /** `count` unsettled batches have taken the place of `batch`. */
  onReplaced(batch: ProducerBatch, count: number): void {
    for (const waiter of this.#waiters) {
      if (batch.ordinal <= waiter.upToOrdinal) waiter.remaining += count - 1;
    }
  }

  onSettled(batch: ProducerBatch): void {
    if (this.#waiters.length === 0) return;
    for (const waiter of this.#waiters) {
      if (batch.ordinal <= waiter.upToOrdinal) waiter.remaining--;
    }
    const done = this.#waiters.filter((waiter) => waiter.remaining === 0);
    this.#waiters = this.#waiters.filter((waiter) => waiter.remaining > 0);
    for (const waiter of done) waiter.resolve();
  }
}
