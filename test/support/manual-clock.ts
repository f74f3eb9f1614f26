import { type Clock, MAX_TIMER_MS, type Timer } from '../../src/core/clock.js';

interface ManualTimer {
  readonly atMs: number;
  readonly callback: () => void;
}

/** A clock that stands still until the test moves it. Wall clock and monotonic clock move together. */
export class ManualClock implements Clock {
  #nowMs: number;
  readonly #timers = new Set<ManualTimer>();

  constructor(nowMs: number) {
    this.#nowMs = nowMs;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer: ManualTimer = { atMs: this.#nowMs + Math.min(delayMs, MAX_TIMER_MS), callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
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

  /** Timers that wait. */
  get timerCount(): number {
    return this.#timers.size;
  }

  /** How long until the next timer fires, in ms; undefined when none waits. */
  get nextTimerMs(): number | undefined {
    const times = [...this.#timers].map(({ atMs }) => atMs - this.#nowMs);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Moves time on as if the process stood still: what is due fires late, with the next `advance`. */
  jump(byMs: number): void {
    this.#nowMs += byMs;
  }

  /** Moves time on and fires what is due, in the order of time. */
  advance(byMs: number): void {
    const end = this.#nowMs + byMs;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= end).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.callback();
    }
    this.#nowMs = end;
  }
}
