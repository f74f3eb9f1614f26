import { type Clock, systemClock, type Timer } from '../../src/core/clock.js';

/** A clock that runs at its usual pace, whose wall clock can be set like that of a machine. */
export class JumpingClock implements Clock {
  #offsetMs = 0;

  now(): number {
    return systemClock.now() + this.#offsetMs;
  }

  monotonic(): number {
    return systemClock.monotonic();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return systemClock.setTimer(delayMs, callback);
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return systemClock.sleep(delayMs, signal);
  }

  /** Sets the wall clock so far ahead of the right time, or back where it is negative. */
  set(offsetMs: number): void {
    this.#offsetMs = offsetMs;
  }
}
