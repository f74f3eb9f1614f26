/**
 * The suite must notice a broken broker: each mutant is the source with a defect put in while a test run loads it, and
 * the tests that guard against that defect must fail. Nothing in the source knows of it.
 */
import { describe, expect, onTestFinished, test } from 'vitest';
import { forEachLimit } from '../../src/core/semaphore.js';
import { inForm, Programme } from '../support/programme.js';
import { type GuardResult, runGuards } from './guards.js';
import { checkFits, type Guard, type Mutant } from './mutant.js';
import { ALWAYS, MUTANTS, OTHERS } from './mutants.js';

/** How many are tried: those that always are, and others up to here by chance. */
const COUNT: number = inForm({ short: 11, long: MUTANTS.length });
/** Test runs at once. */
const CHILDREN = 2;
const TIMEOUT_MS = inForm({ short: 600_000, long: 1_800_000 });

/** A test that fails by one of these has not noticed a defect: the mutant itself does not work, or time ran out. */
const NO_VERDICT = /^(SyntaxError|ReferenceError|TypeError)\b|timed out|STACK_TRACE_ERROR|^Error: Waited /;

describe('the mutation gate', () => {
  test('has mutants with names of their own that fit the source', () => {
    for (const mutant of MUTANTS) checkFits(mutant);
    expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
    expect(MUTANTS.filter(({ guard }) => guard.test === '')).toEqual([]);
  });

  test(
    'finds every deliberately broken broker, and nothing in the broker as it is',
    async (context) => {
      const programme = new Programme(context);
      const end = new AbortController();
      onTestFinished(() => end.abort());
      const mutants = choose(programme);
      const caught: string[] = [];
      const survivors: string[] = [];
      const tryMutant = async (mutant: Mutant): Promise<void> => {
        const results = await runGuards([mutant.guard], { mutant: mutant.name, stopEarly: true, signal: end.signal });
        const verdict = results.find(isVerdict);
        if (verdict === undefined) survivors.push(`${titleOf(mutant)}: ${JSON.stringify(results)}`);
        else caught.push(`${titleOf(mutant)}: ${verdict.test}`);
        programme.tried('broken brokers');
      };
      const guards = mutants.map(({ guard }) => guard);
      const work = [() => expectIntact(guards, end.signal), ...mutants.map((mutant) => () => tryMutant(mutant))];
      await forEachLimit(work, CHILDREN, (one) => one());
      console.log(`Broken on purpose, and the test that noticed:\n${caught.sort().join('\n')}`);
      expect(survivors).toEqual([]);
    },
    TIMEOUT_MS,
  );
});

function choose(programme: Programme): Mutant[] {
  const others = OTHERS.map((mutant) => ({ mutant, order: programme.random() })).sort((a, b) => a.order - b.order);
  return [...ALWAYS, ...others.map(({ mutant }) => mutant)].slice(0, COUNT);
}

/** Without a mutant every guard runs and passes: what fails with one fails because of it. */
async function expectIntact(guards: readonly Guard[], signal: AbortSignal): Promise<void> {
  const results = await runGuards(guards, { mutant: undefined, stopEarly: false, signal });
  expect(results.filter(({ passed }) => !passed)).toEqual([]);
  const wasRun = (guard: Guard): boolean =>
    results.some(({ file, test: name }) => file === guard.file && name.includes(guard.test));
  expect(guards.filter((guard) => !wasRun(guard))).toEqual([]);
}

function isVerdict({ passed, why }: GuardResult): boolean {
  return !passed && !NO_VERDICT.test(why);
}

function titleOf({ name, invariants }: Mutant): string {
  return `${name} (invariant ${invariants.join(', ')})`;
}
