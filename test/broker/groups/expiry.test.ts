/** Groups and committed offsets that have outlived their use. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LogError } from '../../../src/core/errors.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { GatedAppends } from '../../support/gated-appends.js';
import { ManualClock } from '../../support/manual-clock.js';
import { until } from '../../support/until.js';
import { Groups } from './support.js';

const DAY_MS = 24 * 3_600_000;
/** Seldom, so that a week is few steps. */
const CHECK_MS = 6 * 3_600_000;
const SESSION_MS = 2 * CHECK_MS;
const CONFIG = { retentionCheckIntervalMs: CHECK_MS, maxSessionTimeoutMs: SESSION_MS };

let clock: ManualClock;
let appends: GatedAppends;
let engine: StorageEngine;
let groups: Groups;

beforeEach(async () => {
  clock = new ManualClock(BASE_TIME);
  appends = new GatedAppends();
  engine = appends.wrap(openMemoryEngine({ clock }));
  groups = await Groups.start({ engine, clock, config: CONFIG });
  await groups.topic('t', 2, 10);
});

afterEach(async () => {
  await groups.close();
});

/** Time passes; every look for what has expired is finished, and members are heard of. */
async function pass(ms: number, alive?: { readonly memberId: string; readonly memberEpoch: number }): Promise<void> {
  const end = clock.now() + ms;
  while (clock.now() < end) {
    clock.advance(Math.min(CHECK_MS, end - clock.now()));
    await until(() => clock.timerCount > 0, 'the next look is planned');
    if (alive !== undefined) await groups.heartbeat(alive.memberId, alive.memberEpoch);
  }
}

async function names(): Promise<readonly string[]> {
  return (await groups.coordinator.list()).map(({ groupId }) => groupId);
}

describe('a group without members', () => {
  test('goes with its offsets after seven days, counted from when it became empty, and does not come back', async () => {
    const { memberEpoch } = await groups.join('a', { sessionTimeoutMs: SESSION_MS });
    await groups.commit('a', memberEpoch, [{ partition: 0, offset: 5 }]);
    await pass(10 * DAY_MS, { memberId: 'a', memberEpoch });
    expect(await groups.committed([0])).toEqual([5]);
    await groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false });
    await pass(7 * DAY_MS - CHECK_MS);
    expect(await groups.committed([0])).toEqual([5]);
    await pass(2 * CHECK_MS);
    expect(await names()).toEqual([]);
    expect(await groups.committed([0])).toEqual([undefined]);
    await groups.close();
    groups = await Groups.start({ engine, clock, config: CONFIG, epoch: 2 });
    await groups.loaded();
    expect(await names()).toEqual([]);
  });

  test('that never had any is kept for seven days after the last commit', async () => {
    await groups.commit('', 0, [{ partition: 0, offset: 5 }]);
    await pass(5 * DAY_MS);
    await groups.commit('', 0, [{ partition: 1, offset: 6 }]);
    await pass(6 * DAY_MS);
    expect(await groups.committed([0, 1])).toEqual([5, 6]);
    await pass(DAY_MS + CHECK_MS);
    expect(await names()).toEqual([]);
  });

  test('is counted across a restart', async () => {
    await groups.commit('', 0, [{ partition: 0, offset: 5 }]);
    await pass(5 * DAY_MS);
    await groups.close();
    groups = await Groups.start({ engine, clock, config: CONFIG, epoch: 2 });
    await groups.loaded();
    await pass(2 * DAY_MS + CHECK_MS);
    expect(await names()).toEqual([]);
  });

  test('is tried again when it could not be removed', async () => {
    await groups.commit('', 0, [{ partition: 0, offset: 5 }]);
    appends.failure = new LogError('STORAGE_FULL', 'The disk is full.');
    await pass(7 * DAY_MS + CHECK_MS);
    await until(() => groups.logger.messages('warn').length > 0, 'it failed');
    expect(await names()).toEqual(['g']);
    appends.failure = undefined;
    await pass(2 * CHECK_MS);
    expect(await names()).toEqual([]);
  });
});

test('offsets of a topic that is gone go seven days after their commit, with members or without', async () => {
  await groups.topic('u', 1, 1);
  const subscription = { topics: ['u'], pattern: undefined };
  const { memberEpoch } = await groups.join('a', { sessionTimeoutMs: SESSION_MS, subscription });
  await groups.commit('a', memberEpoch, [{ topic: 'u', partition: 0, offset: 1 }]);
  await groups.reset([{ partition: 0, offset: 2 }]);
  const waiting = groups.heartbeat('a', memberEpoch, { maxWaitMs: 5000 });
  await groups.topics.delete('u');
  clock.advance(100);
  const told = await waiting;
  const alive = { memberId: 'a', memberEpoch: (await groups.heartbeat('a', told.memberEpoch)).memberEpoch };
  await pass(7 * DAY_MS - CHECK_MS, alive);
  expect(await groups.fetchAll()).toHaveLength(2);
  await pass(2 * CHECK_MS, alive);
  expect((await groups.fetchAll()).map(({ topic }) => topic)).toEqual(['t']);
});

test('what waits for the end of a transaction keeps a group and all its offsets until then', async () => {
  await groups.topic('u', 1, 1);
  await groups.commit('', 0, [
    { partition: 0, offset: 1 },
    { topic: 'u', partition: 0, offset: 1 },
  ]);
  await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
  await groups.topics.delete('u');
  await pass(8 * DAY_MS);
  await groups.endTransaction(7, 3, false);
  expect((await groups.fetchAll()).map(({ topic }) => topic)).toEqual(['t', 'u']);
  await pass(2 * CHECK_MS);
  expect(await names()).toEqual([]);
});
