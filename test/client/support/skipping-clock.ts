import { type Clock, MAX_TIMER_MS, systemClock, type Timer } from '../../../src/core/clock.js';

interface Pending {
  readonly dueAtMs: number;
  timer: Timer;
  readonly fire: () => void;
}

/**
 * A clock that runs at its usual pace, so that a real network works with it, and can be set forward: whatever is due by
 * then is called at once, in order.
 */
export class SkippingClock implements Clock {
  readonly #pending = new Set<Pending>();
  #skippedMs = 0;

  now(): number {
    return systemClock.now() + this.#skippedMs;
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#skippedMs;
  }

  /** Timers that are set and not due yet. */
  get timerCount(): number {
    return this.#pending.size;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const entry: Pending = {
      dueAtMs: this.monotonic() + Math.min(delayMs, MAX_TIMER_MS),
      timer: systemClock.setTimer(delayMs, () => entry.fire()),
      fire: () => {
        if (this.#pending.delete(entry)) callback();
      },
    };
    this.#pending.add(entry);
    return {
      cancel: () => {
        this.#pending.delete(entry);
        entry.timer.cancel();
      },
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = (): void => {
        timer.cancel();
        reject(signal?.reason);
      };
      const timer = this.setTimer(delayMs, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Time passes while the process stands still: what is due is called with the next `skip`. */
  standStill(ms: number): void {
    this.#skippedMs += ms;
  }

  skip(ms: number): void {
    this.#skippedMs += ms;
    for (const entry of [...this.#pending].sort((a, b) => a.dueAtMs - b.dueAtMs)) {
      entry.timer.cancel();
      const remainingMs = entry.dueAtMs - this.monotonic();
      if (remainingMs <= 0) entry.fire();
      else entry.timer = systemClock.setTimer(remainingMs, entry.fire);
    }
  }
}
