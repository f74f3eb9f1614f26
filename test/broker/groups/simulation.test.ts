/**
 * Consumer groups under chance: processes that join, crash, stand still and leave, a network that loses, doubles and
 * delays, topics that come, grow and go, resets, and a coordinator that restarts and whose writes fail. On a virtual clock.
 */
import { expect, test } from 'vitest';
import { inForm, Programme } from '../../support/programme.js';
import { Episode } from './simulation/episode.js';

const EVENTS = inForm({ short: 200_000, long: 10_000_000 });
const EVENTS_OF_ONE_GROUP = 4_000;
/** Of what came before a failure. */
const TRACED_LINES = 80;

test('a partition never has two owners, skips nothing and never goes back, and in the end every one has its owner (invariants 7, 8, 9, 10)', {
  timeout: inForm({ short: 60_000, long: 3_600_000 }),
}, (context) => {
  const programme = new Programme(context);
  for (let done = 0; done < EVENTS; done += EVENTS_OF_ONE_GROUP) {
    const seed = programme.below(2 ** 31);
    expect(failureOf(seed), `the group of seed ${seed}`).toBeUndefined();
    programme.tried('events', EVENTS_OF_ONE_GROUP);
  }
});

/** Runs it once more when it fails, and writes down what happens. */
function failureOf(seed: number): string | undefined {
  try {
    new Episode(seed, undefined).run(EVENTS_OF_ONE_GROUP);
    return undefined;
  } catch (error) {
    const lines: string[] = [];
    try {
      new Episode(seed, (line) => lines.push(line)).run(EVENTS_OF_ONE_GROUP);
    } catch {
      // The same as before.
    }
    return [...lines.slice(-TRACED_LINES), String(error)].join('\n');
  }
}
