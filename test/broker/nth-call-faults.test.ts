/** Each call to the disk in the life of a broker fails once, and from then on (TESTING invariants 1 to 5, 20). */
import { describe, test } from 'vitest';
import { type Lasting, NTH_FAULTS } from '../support/nth-call.js';
import { LONG, Programme } from '../support/programme.js';
import { FULL_LIFE, FURTHER_LIVES } from './nth-call/lives.js';
import { runThrough } from './nth-call/runs.js';

const LASTING: readonly Lasting[] = ['once', 'from then on'];
const CASES = NTH_FAULTS.flatMap((fault) => LASTING.map((lasting) => ({ fault, lasting })));
const LIVES = LONG ? [FULL_LIFE, ...FURTHER_LIVES] : [FULL_LIFE];
/** Thousands of lives in one test. */
const TIMEOUT_MS = 600_000;

// Nothing here is left to chance: the number of the call in the message is all that it takes to repeat a run.
describe.each(LIVES)('in $name', (life) => {
  test.for(CASES)(
    'a call that fails with $fault, $lasting, breaks no promise (invariants 1 to 5, 20)',
    { timeout: TIMEOUT_MS },
    async ({ fault, lasting }, context) => {
      const programme = new Programme(context, 1);
      await runThrough(life, fault, lasting, () => programme.tried('runs with a fault'));
    },
  );
});
