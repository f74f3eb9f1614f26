/**
 * What tests of chance and of faults have in common: a short form inside `npm test` and a long one in
 * `npm run test:long`, a seed by which a failure can be had again, and an account of how much was tried.
 */
import type { TestContext } from 'vitest';
import { randomFrom } from './random.js';
import { LONG } from './repeat.js';

export { LONG } from './repeat.js';

/** Undefined: chance. */
export const GIVEN_SEED: number | undefined =
  process.env.TEST_SEED === undefined ? undefined : Number(process.env.TEST_SEED);

/** The value for the form that runs. */
export function inForm<T>(values: { readonly short: T; readonly long: T }): T {
  return LONG ? values.long : values.short;
}

/** How much a test has tried of one kind, such as 20,000 states. */
export interface Tried {
  readonly what: string;
  readonly count: number;
}

/** What the table at the end of a run shows of a test. */
export interface ProgrammeAccount {
  readonly seed: number;
  readonly tried: readonly Tried[];
}

declare module 'vitest' {
  interface TaskMeta {
    programme?: ProgrammeAccount;
  }
}

/** One run of such a test. */
export class Programme {
  readonly seed: number;
  /** In [0, 1), by the seed. */
  readonly random: () => number;
  readonly #task: TestContext['task'];
  readonly #tried = new Map<string, number>();

  /** @param seed used unless TEST_SEED gives another; by chance when left out */
  constructor({ task }: TestContext, seed: number = Math.floor(Math.random() * 2 ** 31)) {
    this.seed = GIVEN_SEED ?? seed;
    this.random = randomFrom(this.seed);
    this.#task = task;
    this.#account();
  }

  /** An integer from 0 up to but excluding `limit`. */
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  /** Adds to what the table shows. */
  tried(what: string, count = 1): void {
    this.#tried.set(what, (this.#tried.get(what) ?? 0) + count);
    this.#account();
  }

  #account(): void {
    const tried = [...this.#tried].map(([what, count]) => ({ what, count }));
    this.#task.meta.programme = { seed: this.seed, tried };
  }
}
