/** A clock that stands still until it is told to go on. */
import type { Clock, Timer } from '../../src/core/clock.js';

interface Pending {
  readonly dueMs: number;
  readonly callback: () => void;
}

export class ManualClock implements Clock {
  #now: number;
  #monotonic = 0;
  readonly #pending = new Set<Pending>();

  constructor(nowMs: number = 1_700_000_000_000) {
    this.#now = nowMs;
  }

  /** Timers that are set. */
  get timerCount(): number {
    return this.#pending.size;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const pending = { dueMs: this.#monotonic + delayMs, callback };
    this.#pending.add(pending);
    return { cancel: () => void this.#pending.delete(pending) };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.setTimer(delayMs, resolve);
      signal?.addEventListener('abort', () => {
        timer.cancel();
        reject(signal.reason);
      });
    });
  }

  /** Lets time pass; timers ring in the order in which they are due. */
  advance(ms: number): void {
    const end = this.#monotonic + ms;
    for (;;) {
      const due = [...this.#pending].filter(({ dueMs }) => dueMs <= end).sort((a, b) => a.dueMs - b.dueMs)[0];
      if (!due) break;
      this.#pending.delete(due);
      this.#pass(due.dueMs - this.#monotonic);
      due.callback();
    }
    this.#pass(end - this.#monotonic);
  }

  #pass(ms: number): void {
    const step = Math.max(0, ms);
    this.#monotonic += step;
    this.#now += step;
  }
}
