import { performance } from 'node:perf_hooks';

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
  /** Calls `callback` once, `delayMs` from now. Does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): Timer;
  /** Resolves after `delayMs`. Keeps the process alive; rejects with the signal's reason when aborted. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimer(delayMs: number, callback: () => void): Timer {
    const handle = setTimeout(callback, delayMs);
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
      const handle = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, delayMs);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  },
};
