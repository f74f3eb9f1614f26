/**
 * What tests of chance and of faults have in common: a short form inside `npm test` and a long one in
 * `npm run test:long`, a seed by which a failure can be had again, and an account of how much was tried.
 */
import { relative } from 'node:path';
import { onTestFailed, type TestContext } from 'vitest';
import { randomFrom } from './random.js';

/** Whether this is the long form. */
export const LONG: boolean = process.env.TEST_LONG !== undefined;

const GIVEN_SEED = process.env.TEST_SEED;

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

/** One run of such a test. A failure prints the command that repeats it. */
export class Programme {
  readonly seed: number;
  /** In [0, 1), by the seed. */
  readonly random: () => number;
  readonly #task: TestContext['task'];
  readonly #tried = new Map<string, number>();

  /** @param seed used unless TEST_SEED gives another; by chance when left out */
  constructor({ task }: TestContext, seed: number = Math.floor(Math.random() * 2 ** 31)) {
    this.seed = GIVEN_SEED === undefined ? seed : Number(GIVEN_SEED);
    this.random = randomFrom(this.seed);
    this.#task = task;
    this.#account();
    onTestFailed(() => console.error(`repeat with: ${this.command}`));
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

  /** The shell command that runs this test again in the same way. */
  get command(): string {
    const file = relative(process.cwd(), this.#task.file.filepath);
    return `TEST_SEED=${this.seed} ${LONG ? 'TEST_LONG=1 ' : ''}npx vitest run ${file}`;
  }

  #account(): void {
    const tried = [...this.#tried].map(([what, count]) => ({ what, count }));
    this.#task.meta.programme = { seed: this.seed, tried };
  }
}
