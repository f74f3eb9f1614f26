import { performance } from 'node:perf_hooks';

/** The longest delay of a timer, 24 days in ms: Node.js would take a longer one for 1 ms. */
export const MAX_TIMER_MS: number = 2 ** 31 - 1;

/** A timer that its owner must cancel when it no longer needs it. */
export interface Timer {
  cancel(): void;
}

/** The only source of time. Injected, so that a test can hold time still. */
export interface Clock {
  /** Wall clock, ms since the epoch. May jump: never use it for time-outs. */
  now(): number;
  /** Monotonic clock in ms with fractions; only differences mean anything. */
  monotonic(): number;
  /**
   * Calls `callback` once, `delayMs` from now, at the latest after `MAX_TIMER_MS`: who waits for longer looks at the time
   * again. Does not keep the process alive.
   */
  setTimer(delayMs: number, callback: () => void): Timer;
  /** Resolves after `delayMs`, at the latest after `MAX_TIMER_MS`. Keeps the process alive; rejects with the signal's reason when aborted. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimer(delayMs: number, callback: () => void): Timer {
    const handle = setTimeout(callback, Math.min(delayMs, MAX_TIMER_MS));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = (): void => {
        clearTimeout(handle);
        reject(signal?.reason);
      };
      const handle = setTimeout(
        () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
        Math.min(delayMs, MAX_TIMER_MS),
      );
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  },
};
