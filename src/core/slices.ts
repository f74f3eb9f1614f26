import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from './clock.js';

/** How often the time is looked at: steps this few take well below a millisecond. */
const STEPS_PER_LOOK = 4;

/** Long work in slices of `sliceMs`, with a turn of the event loop for everybody else in between. */
export class Slices {
  readonly #clock: Clock;
  readonly #sliceMs: number;
  #steps = 0;
  #sliceEndMs: number;

  constructor(clock: Clock, sliceMs: number) {
    this.#clock = clock;
    this.#sliceMs = sliceMs;
    this.#sliceEndMs = clock.monotonic() + sliceMs;
  }

  /** Whether this turn has lasted long enough. */
  get isOver(): boolean {
    return this.#clock.monotonic() >= this.#sliceEndMs;
  }

  /** To be called after each step: a promise of the next turn when this one has lasted long enough. */
  step(): Promise<void> | undefined {
    if (++this.#steps % STEPS_PER_LOOK !== 0 || !this.isOver) return undefined;
    return this.pause();
  }

  /** Ends the slice, however short it was. */
  async pause(): Promise<void> {
    await nextTurn();
    this.#sliceEndMs = this.#clock.monotonic() + this.#sliceMs;
  }
}
