import { randomFrom } from '../../../support/random.js';

/** Chance by a seed. */
export class Chance {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = randomFrom(seed);
  }

  /** With this probability. */
  of(probability: number): boolean {
    return this.#next() < probability;
  }

  /** An integer from 0 up to but excluding `limit`. */
  below(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  /** An integer, both ends included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** Undefined of nothing. */
  pick<T>(things: readonly T[]): T | undefined {
    return things[this.below(things.length)];
  }
}
