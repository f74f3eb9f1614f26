/** What waits for the end of a transaction: when writes fail, and across a restart. */
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { LogError } from '../../../src/core/errors.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { GatedAppends } from '../../support/gated-appends.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { Groups, held } from './support.js';

const FULL = new LogError('STORAGE_FULL', 'The disk is full.');

let clock: ManualClock;
let appends: GatedAppends;
let engine: StorageEngine;
let groups: Groups;

beforeEach(async () => {
  clock = new ManualClock(BASE_TIME);
  appends = new GatedAppends();
  engine = appends.wrap(openMemoryEngine({ clock }));
  await start(1);
  await groups.topic('t', 4, 20);
});

async function start(epoch: number): Promise<void> {
  const started = await Groups.start({ engine, clock, epoch });
  onTestFinished(() => started.close());
  groups = started;
}

async function restart(epoch: number = 2): Promise<void> {
  await groups.close();
  await start(epoch);
  await groups.loaded();
}

test('nobody is told before it is durable', async () => {
  await groups.commit('', 0, [{ partition: 1, offset: 1 }]);
  const release = appends.hold();
  const adding = held(groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]));
  const fetching = held(groups.committed([0]));
  await adding.isHeld();
  await fetching.isHeld();
  release();
  await adding.answer;
  await rejection(fetching.answer, 'UNSTABLE_OFFSET_COMMIT');
  const releaseEnd = appends.hold();
  const ending = held(groups.endTransaction(7, 3, true));
  const again = held(groups.endTransaction(7, 3, true));
  const found = held(groups.committed([0]));
  for (const one of [ending, again, found]) await one.isHeld();
  releaseEnd();
  await Promise.all([ending.answer, again.answer]);
  expect(await found.answer).toEqual([5]);
});

test('an end that could not be written leaves everything waiting, and may be tried again', async () => {
  await groups.commit('', 0, [{ partition: 0, offset: 1 }]);
  await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
  appends.failure = FULL;
  const ending = groups.endTransaction(7, 3, true);
  const again = groups.endTransaction(7, 3, true);
  const more = groups.addToTransaction(8, 0, [{ partition: 1, offset: 6 }]);
  for (const one of [ending, again, more]) one.catch(() => undefined);
  for (const one of [ending, again, more]) await rejection(one, 'STORAGE_FULL');
  expect(groups.pending()).toEqual([['g', 7, 3]]);
  await rejection(groups.committed([0]), 'UNSTABLE_OFFSET_COMMIT');
  appends.failure = undefined;
  await groups.endTransaction(7, 3, true);
  expect(await groups.committed([0, 1])).toEqual([5, undefined]);
});

test('what is committed is told by the log: neither an end nor what it commits before they are there', async () => {
  await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
  const found = groups.committed([0]);
  const ending = groups.endTransaction(7, 3, true);
  await rejection(found, 'UNSTABLE_OFFSET_COMMIT');
  await ending;
  expect(await groups.committed([0])).toEqual([5]);
});

test('an end that fails behind what it ends leaves that waiting, whatever was written with it', async () => {
  await groups.commit('', 0, [{ partition: 1, offset: 1 }]);
  const release = appends.hold();
  const first = held(
    Promise.all([
      groups.commit('', 0, [{ partition: 1, offset: 2 }]),
      groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]),
    ]),
  );
  await first.isHeld();
  const ending = groups.endTransaction(7, 3, true);
  appends.failure = FULL;
  appends.failsFrom = appends.count + 1;
  release();
  await rejection(ending, 'STORAGE_FULL');
  await first.answer;
  expect(groups.pending()).toEqual([['g', 7, 3]]);
  await rejection(groups.committed([0]), 'UNSTABLE_OFFSET_COMMIT');
});

test('what could not be added is not there, nor is what follows upon it', async () => {
  await groups.commit('', 0, [{ partition: 1, offset: 1 }], { groupId: 'other' });
  appends.failure = FULL;
  const adding = groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
  const ending = groups.endTransaction(7, 3, true);
  const another = groups.addToTransaction(7, 4, [{ partition: 0, offset: 6 }]);
  for (const one of [adding, ending, another]) one.catch(() => undefined);
  for (const one of [adding, ending, another]) await rejection(one, 'STORAGE_FULL');
  appends.failure = undefined;
  expect(groups.pending()).toEqual([]);
  await groups.endTransaction(7, 3, true);
  expect(await groups.coordinator.find('g')).toBeUndefined();
});

test('an end of unknown outcome is found by reading the log, and may be tried again', async () => {
  await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
  await groups.addToTransaction(8, 3, [{ partition: 1, offset: 6 }]);
  appends.failure = new LogError('RESOURCE_LIMIT', 'Too many open files.');
  appends.appendsAnyway = true;
  await rejection(groups.endTransaction(7, 3, true), 'RESOURCE_LIMIT');
  appends.failure = undefined;
  await rejection(groups.endTransaction(7, 3, true), 'RESOURCE_LIMIT');
  expect(() => groups.pending()).toThrow('Too many open files');
  clock.advance(1000);
  expect(() => groups.pending()).toThrow('being read');
  await groups.loaded();
  await groups.endTransaction(7, 3, true);
  expect(groups.pending()).toEqual([['g', 8, 3]]);
  expect(await groups.committed([0])).toEqual([5]);
});

test('what waits is there again after a restart, and what has ended is not (invariant 11)', async () => {
  const { memberEpoch } = await groups.join('a');
  const byMember = { memberId: 'a', memberEpoch };
  await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5, metadata: 'm', leaderEpoch: 1 }], byMember);
  await groups.addToTransaction(7, 3, [{ partition: 1, offset: 6 }], byMember);
  await groups.addToTransaction(8, 0, [{ partition: 2, offset: 7 }], byMember);
  await groups.addToTransaction(9, 0, [{ partition: 3, offset: 8 }], byMember);
  await groups.addToTransaction(5, 0, [{ partition: 3, offset: 9 }], { groupId: 'only pending' });
  await groups.endTransaction(8, 0, true);
  await groups.endTransaction(9, 0, false);
  await restart();
  expect(groups.pending()).toEqual([
    ['g', 7, 3],
    ['only pending', 5, 0],
  ]);
  expect(await groups.committed([2, 3])).toEqual([7, undefined]);
  await rejection(groups.committed([1]), 'UNSTABLE_OFFSET_COMMIT');
  await groups.endTransaction(7, 3, true);
  expect(await groups.committed([0, 1])).toEqual([5, 6]);
  await restart(3);
  expect(await groups.fetchAll()).toMatchObject([
    { partition: 2, committed: { offset: 7 } },
    { partition: 0, committed: { offset: 5, metadata: 'm', leaderEpoch: 1 } },
    { partition: 1, committed: { offset: 6 } },
  ]);
});

test('nothing is added or ended while groups are read, or when the broker stops', async () => {
  await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
  await groups.close();
  await start(2);
  await rejection(groups.addToTransaction(7, 3, [{ partition: 0, offset: 6 }]), 'COORDINATOR_LOAD_IN_PROGRESS');
  await rejection(groups.endTransaction(7, 3, true), 'COORDINATOR_LOAD_IN_PROGRESS');
  expect(() => groups.pending()).toThrow('being read');
  await groups.loaded();
  groups.coordinator.drain();
  await rejection(groups.addToTransaction(7, 3, [{ partition: 0, offset: 6 }]), 'BROKER_DRAINING');
  await rejection(groups.endTransaction(7, 3, true), 'BROKER_DRAINING');
  expect(groups.pending()).toEqual([['g', 7, 3]]);
});

test('without any group nothing waits', () => {
  expect(groups.pending()).toEqual([]);
});
