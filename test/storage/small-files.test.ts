/** Files that are replaced whole (TESTING invariants 2, 15). */
import { expect, test } from 'vitest';
import { replaceFile } from '../../src/storage/local/small-files.js';
import { PowerLossDisk } from '../support/power-loss-disk.js';
import { Programme } from '../support/programme.js';
import { PowerCuts } from './power-cuts.js';
import { BASE_TIME } from './support.js';

const PATH = '/data/file';
const OLD = Buffer.from('what was there before');
const NEW = Buffer.from('what takes its place, and is longer');

test('a file that is replaced is there whole after any power cut, and the new one once that was promised (invariant 2)', async (context) => {
  const programme = new Programme(context, 1);
  const image = new Map([
    ['/data/', Buffer.alloc(0)],
    [PATH, OLD],
  ]);
  const disk = new PowerLossDisk(BASE_TIME, image);
  const cuts = new PowerCuts<'promised' | 'under way'>({ random: programme.random, randomCuts: 10 });
  let facts: 'promised' | 'under way' = 'under way';
  cuts.watch(disk, () => facts);
  await replaceFile(disk, PATH, NEW);
  facts = 'promised';
  // One change more, so that what may be left now is looked at as well.
  await disk.mkdir('/data/other');
  const found = cuts.remains.map(({ image, facts: known }) => `${known}: ${image.get(PATH)}`);
  expect([...new Set(found)].sort()).toEqual([`promised: ${NEW}`, `under way: ${NEW}`, `under way: ${OLD}`]);
  programme.tried('states', found.length);
});
