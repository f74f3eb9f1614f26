/**
 * Transactions under chance: producers that crash, or stand still for minutes and go on, inputs that move from one to another,
 * a network that loses, doubles and delays, an administrator who aborts, disks that fail, and a broker that stops between
 * any two steps. On a virtual clock.
 */
import { describe, expect, test } from 'vitest';
import { inForm, Programme } from '../../support/programme.js';
import { DEFECTS } from './simulation/defects.js';
import { Episode } from './simulation/episode.js';

const EVENTS = inForm({ short: 200_000, long: 10_000_000 });
const EVENTS_OF_ONE_EPISODE = 4_000;
/** Of what came before a failure. */
const TRACED_LINES = 120;
/** In which a defect is to be found: most are found in the first ones. */
const EPISODES_FOR_A_DEFECT = 1_000;

test('a transaction is all or nothing, nothing comes twice or too late, and nothing stays open (invariants 6, 8, 9, 11, 12)', {
  timeout: inForm({ short: 60_000, long: 3_600_000 }),
}, (context) => {
  const programme = new Programme(context);
  const ends = { commit: 0, abort: 0 };
  for (let done = 0; done < EVENTS; done += EVENTS_OF_ONE_EPISODE) {
    const seed = programme.below(2 ** 31);
    const episode = new Episode(seed, undefined);
    expect(failureOf(episode, seed), `the episode of seed ${seed}`).toBeUndefined();
    programme.tried('events', EVENTS_OF_ONE_EPISODE);
    ends.commit += episode.counts.commit;
    ends.abort += episode.counts.abort;
  }
  // Else it would have shown little.
  expect(Math.min(ends.commit, ends.abort)).toBeGreaterThan(EVENTS / 1000);
});

/** Runs it once more when it fails, and writes down what happens. */
function failureOf(episode: Episode, seed: number): string | undefined {
  try {
    episode.run(EVENTS_OF_ONE_EPISODE);
    return undefined;
  } catch (error) {
    const lines: string[] = [];
    try {
      new Episode(seed, (line) => lines.push(line)).run(EVENTS_OF_ONE_EPISODE);
    } catch {
      // The same as before.
    }
    return [...lines.slice(-TRACED_LINES), String(error)].join('\n');
  }
}

describe('it is found when', () => {
  test.each(DEFECTS)('%s', { timeout: 60_000 }, (defect) => {
    for (let seed = 1; seed <= EPISODES_FOR_A_DEFECT; seed++) {
      try {
        new Episode(seed, undefined, new Set([defect])).run(EVENTS_OF_ONE_EPISODE);
      } catch (error) {
        expect(String(error)).toMatch(/Broken invariant/);
        return;
      }
    }
    expect.unreachable(`not found in ${EPISODES_FOR_A_DEFECT} episodes`);
  });
});
