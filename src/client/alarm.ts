/** One alarm clock for all deadlines of an object. */
import type { Clock } from '../core/clock.js';

/**
 * Calls back at the earliest time that was asked for, then forgets it: the callback looks at what is due and asks again.
 * Keeps the process alive while it is set, unlike a plain timer, so that records that linger are not lost at its end.
 */
export class Alarm {
  readonly #clock: Clock;
  readonly #callback: () => void;
  #atMs = Number.POSITIVE_INFINITY;
  #sleeping: AbortController | undefined;

  constructor(clock: Clock, callback: () => void) {
    this.#clock = clock;
    this.#callback = callback;
  }

  /** Makes sure of a call at `atMs` on the monotonic clock or before. */
  wakeAt(atMs: number): void {
    if (atMs >= this.#atMs) return;
    this.cancel();
    const sleeping = new AbortController();
    this.#atMs = atMs;
    this.#sleeping = sleeping;
    const delayMs = Math.max(0, atMs - this.#clock.monotonic());
    this.#clock.sleep(delayMs, sleeping.signal).then(
      () => {
        if (this.#sleeping !== sleeping) return;
        this.#sleeping = undefined;
        this.#atMs = Number.POSITIVE_INFINITY;
        this.#callback();
      },
      () => {}, // cancelled
    );
  }

  cancel(): void {
    this.#atMs = Number.POSITIVE_INFINITY;
    const sleeping = this.#sleeping;
    this.#sleeping = undefined;
    sleeping?.abort();
  }
}
