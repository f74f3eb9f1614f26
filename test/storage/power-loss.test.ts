/** Power cuts at every change that an engine makes to its disk. */
import { expect, test } from 'vitest';
import { inForm, Programme } from '../support/programme.js';
import { DiskRig, PowerCuts, StateSet } from './power-cuts.js';
import { expectKept } from './power-loss/kept.js';
import { LifeOfALog, type Promised } from './power-loss/life.js';
import { expectIndexesDerived, expectSameWhenCutShort, expectSettled, type Trial } from './power-loss/starts.js';

const STATES = inForm({ short: 20_000, long: 2_000_000 });
/** The long form takes about an hour of one core; others may be busy as well. */
const TIMEOUT_MS = inForm({ short: 300_000, long: 6 * 3_600_000 });
const CUTS = inForm({ short: { randomCuts: 3, reorderedCuts: 1 }, long: { randomCuts: 6, reorderedCuts: 5 } });
/** Of each life so many are looked at, by chance: many short looks show more than a long one. */
const STATES_OF_A_LIFE = inForm({ short: 2500, long: 10_000 });
/** Every so many states are also started again, or without their indexes, or have their first start cut short. */
const SETTLED_EVERY = 6;
const DERIVED_EVERY = 10;
const CUT_SHORT_EVERY = 60;
const CUTS_OF_A_START = 12;

test(
  'whatever of the un-synced changes a power cut takes, nothing promised is lost (invariants 1, 2, 4, 5, 13, 14, 15, 16, 19)',
  async (context) => {
    const programme = new Programme(context, 20_260_301);
    const { random } = programme;
    const states = new StateSet();
    let count = 0;
    const tried = (more: number): void => {
      count += more;
      programme.tried('states', more);
    };
    while (count < STATES) {
      const cuts = new PowerCuts<Promised>({ random, ...CUTS }, states);
      const { history } = await new LifeOfALog(random).live(cuts);
      programme.tried('lives');
      const share = STATES_OF_A_LIFE / cuts.remains.length;
      const chosen = cuts.remains.filter(() => random() < share);
      for (const [i, remains] of chosen.entries()) {
        tried(1);
        const rig = new DiskRig(remains.image);
        const kept = await expectKept(rig, remains, history);
        const trial: Trial = { remains, history, found: kept.found, random };
        if (i % DERIVED_EVERY === 0) await expectIndexesDerived(trial, kept.log);
        if (i % SETTLED_EVERY === 0) await expectSettled(trial, rig);
        if (i % CUT_SHORT_EVERY === 0) tried(await expectSameWhenCutShort(trial, states, CUTS_OF_A_START));
      }
    }
    expect(count).toBeGreaterThanOrEqual(STATES);
    expect(states.size).toBeGreaterThanOrEqual(STATES);
  },
  TIMEOUT_MS,
);
