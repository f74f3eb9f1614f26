/**
 * The suite must notice a broken broker: each mutant is the source with a defect put in while a test run loads it, and
 * the tests that guard against that defect must fail. Nothing in the source knows of it.
 */
import { describe, expect, onTestFinished, test } from 'vitest';
import { forEachLimit } from '../../src/core/semaphore.js';
import { inForm, Programme } from '../support/programme.js';
import { type GuardResult, runGuards } from './guards.js';
import { checkFits, type Mutant } from './mutant.js';
import { ALWAYS, MUTANTS, OTHERS } from './mutants.js';

/** How many are tried: those that always are, and others up to here by chance. */
const COUNT: number = inForm({ short: 25, long: MUTANTS.length });
const CHILDREN = 2;
const TIMEOUT_MS = 600_000;

/** A test that fails by one of these has not noticed a defect: the mutant itself does not work, or time ran out. */
const NO_VERDICT = /^(SyntaxError|ReferenceError|TypeError)\b|timed out|STACK_TRACE_ERROR|^Error: Waited /;

describe('the mutation gate', () => {
  test('every mutant has a name of its own and fits the source', () => {
    for (const mutant of MUTANTS) checkFits(mutant);
    expect(MUTANTS.filter(({ guard }) => guard.test === '')).toEqual([]);
    expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
  });

  test('finds nothing in the broker as it is', { timeout: TIMEOUT_MS }, async () => {
    const guards = MUTANTS.map(({ guard }) => guard);
    const results = await runGuards(guards, { mutant: undefined, stopEarly: false, signal: abortedAtEnd() });
    expect(results.filter(({ passed }) => !passed)).toEqual([]);
    const unguarded = guards.filter(
      ({ file, test: part }) => !results.some((ran) => ran.file === file && ran.test.includes(part)),
    );
    expect(unguarded).toEqual([]);
  });

  test('finds every deliberately broken broker', { timeout: TIMEOUT_MS }, async (context) => {
    const programme = new Programme(context);
    const signal = abortedAtEnd();
    const verdicts: string[] = [];
    const survivors: string[] = [];
    await forEachLimit(choose(programme), CHILDREN, async (mutant) => {
      const results = await runGuards([mutant.guard], { mutant: mutant.name, stopEarly: true, signal });
      const caught = results.find(isVerdict);
      if (caught !== undefined) verdicts.push(`${titleOf(mutant)}: ${caught.test}`);
      else survivors.push(`${titleOf(mutant)}: ${JSON.stringify(results)}`);
      programme.tried('broken brokers');
    });
    console.log(verdicts.sort().join('\n'));
    expect(survivors).toEqual([]);
  });
});

function choose(programme: Programme): Mutant[] {
  const others = OTHERS.map((mutant) => ({ mutant, order: programme.random() })).sort((a, b) => a.order - b.order);
  return [...ALWAYS, ...others.map(({ mutant }) => mutant)].slice(0, COUNT);
}

function isVerdict({ passed, why }: GuardResult): boolean {
  return !passed && !NO_VERDICT.test(why);
}

function titleOf({ name, invariants }: Mutant): string {
  return `${name} (invariant ${invariants.join(', ')})`;
}

/** Children end with the test, however it ends. */
function abortedAtEnd(): AbortSignal {
  const end = new AbortController();
  onTestFinished(() => end.abort());
  return end.signal;
}
