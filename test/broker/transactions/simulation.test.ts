/**
 * Transactions under chance: producers that crash, or stand still for minutes and go on, a network that loses, doubles and
 * delays, an administrator who aborts, disks that fail, and a broker that stops between any two effects. On a virtual clock.
 */
import { expect, test } from 'vitest';
import { inForm, Programme } from '../../support/programme.js';
import { Episode } from './simulation/episode.js';

const EVENTS = inForm({ short: 200_000, long: 10_000_000 });
const EVENTS_OF_ONE_EPISODE = 4_000;
/** Of what came before a failure. */
const TRACED_LINES = 120;

test('a transaction is all or nothing, nothing comes twice or too late, and nothing stays open (invariants 6, 9, 11, 12)', {
  timeout: inForm({ short: 60_000, long: 3_600_000 }),
}, (context) => {
  const programme = new Programme(context);
  for (let done = 0; done < EVENTS; done += EVENTS_OF_ONE_EPISODE) {
    const seed = programme.below(2 ** 31);
    expect(failureOf(seed), `the episode of seed ${seed}`).toBeUndefined();
    programme.tried('events', EVENTS_OF_ONE_EPISODE);
  }
});

/** Runs it once more when it fails, and writes down what happens. */
function failureOf(seed: number): string | undefined {
  try {
    new Episode(seed, undefined).run(EVENTS_OF_ONE_EPISODE);
    return undefined;
  } catch (error) {
    const lines: string[] = [];
    try {
      new Episode(seed, (line) => lines.push(line)).run(EVENTS_OF_ONE_EPISODE);
    } catch {
      // The same as before.
    }
    return [...lines.slice(-TRACED_LINES), error instanceof Error ? error.stack : error].join('\n');
  }
}
