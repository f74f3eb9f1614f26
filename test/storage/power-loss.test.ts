/** Power cuts at every change that an engine makes to its disk (invariants 1, 2, 4, 5, 13, 14, 15, 16, 19). */
import { expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import type { DiskImage } from '../support/power-loss-disk.js';
import { inForm, Programme } from '../support/programme.js';
import { DiskRig, PowerCuts, type Remains, StateSet } from './power-cuts.js';
import { expectKept, type Found, type Kept } from './power-loss/kept.js';
import { LifeOfALog, type LifeRecord, type Promised } from './power-loss/life.js';
import { BASE_TIME } from './support.js';

const STATES = inForm({ short: 20_000, long: 2_000_000 });

test('debug', async (context) => {
  const programme = new Programme(context, 20_260_301);
  const states = new StateSet();
  for (let i = 0; i < 3; i++) {
    const cuts = new PowerCuts<Promised>({ random: programme.random, randomCuts: 10, reorderedCuts: 2 }, states);
    const life = new LifeOfALog(programme.random);
    const t0 = performance.now();
    await life.live(cuts);
    const t1 = performance.now();
    console.log(
      'life',
      i,
      t1 - t0,
      cuts.remains.length,
      life.history.length,
      cuts.remains.filter((r) => r.isReordered).length,
      new Set(cuts.remains.map((r) => r.at.split(':')[0])).size,
    );
    let corrupt = 0;
    for (const remains of cuts.remains) {
      programme.tried('states');
      const rr = new DiskRig(remains.image);
      const kept = await expectKept(rr, remains, life.history).catch((e) => {
        for (const [p, b] of remains.image) console.log(p, b.length, p.endsWith('checkpoint') ? String(b) : '');
        console.log(JSON.stringify(remains.facts));
        console.log(rr.logger.lines);
        throw e;
      });
      if (kept !== 'refused' && kept.found.corrupt.length > 0) corrupt++;
    }
    console.log((performance.now() - t1) / cuts.remains.length, 'ms per state', corrupt);
  }
}, 600_000);
