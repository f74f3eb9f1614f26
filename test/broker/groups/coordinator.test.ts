/** The coordinator over a storage engine: membership, held heartbeats, limits, bad input. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { Groups, numbersOf } from './support.js';

let clock: ManualClock;
let groups: Groups;

beforeEach(async () => {
  clock = new ManualClock(BASE_TIME);
  groups = await Groups.start({ clock });
});

afterEach(async () => {
  await groups.close();
});

test('joins, heartbeats, commits and fetches', async () => {
  await groups.topic('t', 2, 10);
  const joined = await groups.join('a');
  expect(joined).toMatchObject({ sessionTimeoutMs: 45_000, heartbeatIntervalMs: 5000 });
  expect(numbersOf(joined)).toEqual([0, 1]);
  expect(await groups.commit('a', joined.memberEpoch, [{ partition: 0, offset: 5 }])).toEqual([]);
  expect(await groups.committed([0, 1])).toEqual([5, undefined]);
  expect(await groups.heartbeat('a', joined.memberEpoch)).toEqual({
    memberEpoch: joined.memberEpoch,
    heartbeatIntervalMs: 5000,
    assignment: undefined,
  });
});
