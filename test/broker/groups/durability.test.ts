/** What is kept of groups: across a restart, when writes fail, and when it is damaged. */
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import { OFFSETS_TOPIC, offsetsPartitionOf } from '../../../src/broker/groups/offsets-topic.js';
import { encodeMembership, encodeOffset } from '../../../src/broker/groups/records.js';
import { LogError } from '../../../src/core/errors.js';
import { toTopicId } from '../../../src/core/types.js';
import { Partition } from '../../../src/partition/partition.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { GatedAppends } from '../../support/gated-appends.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { Groups, held, numbersOf, owning } from './support.js';

let clock: ManualClock;
let memory: StorageEngine;
let appends: GatedAppends;
let engine: StorageEngine;

beforeEach(() => {
  clock = new ManualClock(BASE_TIME);
  memory = openMemoryEngine({ clock });
  appends = new GatedAppends();
  engine = appends.wrap(memory);
});

/** The next start of the broker, once its groups are read. */
async function restarted(epoch: number = 2): Promise<Groups> {
  const groups = await Groups.start({ engine, clock, epoch });
  await groups.loaded();
  return groups;
}

describe('after a restart', () => {
  test('members go on with their epochs, partitions and offsets, and nobody is given what another has (invariants 8, 9)', async () => {
    const before = await Groups.start({ engine, clock });
    await before.topic('t', 4, 10);
    const a = await before.join('a');
    const b = await before.join('b', { subscription: { topics: [], pattern: 't' } });
    clock.advance(50);
    const { assignment } = await before.heartbeat('a', a.memberEpoch, { owned: owning(a) });
    await before.commit('a', assignment!.memberEpoch, [{ partition: 0, offset: 7, metadata: 'm', leaderEpoch: 2 }]);
    const offsets = await before.fetchAll();
    const described = await before.coordinator.snapshot('g');
    await before.close();
    await using groups = await restarted();
    expect(await groups.coordinator.snapshot('g')).toEqual({ ...described, state: 'assigning' });
    expect(await groups.fetchAll()).toEqual(offsets);
    clock.advance(40_000);
    // Still holds what it was told to give up: the other waits on.
    expect((await groups.heartbeat('b', b.memberEpoch)).assignment).toBeUndefined();
    const kept = await groups.heartbeat('a', assignment!.memberEpoch, { owned: owning(a) });
    expect(kept.assignment).toBeUndefined();
    await groups.heartbeat('a', assignment!.memberEpoch, { owned: owning(assignment!) });
    const given = (await groups.heartbeat('b', b.memberEpoch)).assignment;
    expect([...numbersOf(given!), ...numbersOf(assignment!)].sort()).toEqual([0, 1, 2, 3]);
  });

  test('sessions begin anew, and what was removed stays so', async () => {
    const before = await Groups.start({ engine, clock });
    await before.topic('t', 1, 10);
    await before.topic('u', 1, 10);
    const a = await before.join('a');
    await before.join('b');
    await before.coordinator.leave({ groupId: 'g', memberId: 'b', temporary: false });
    await before.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'deleted' });
    const late = before.commit('', 0, [{ partition: 0, offset: 2, topic: 'u' }], { groupId: 'deleted' });
    await before.coordinator.delete('deleted');
    expect(await late).toEqual([]);
    clock.advance(44_000);
    await before.close();
    clock.jump(60_000);
    await using groups = await restarted();
    clock.advance(44_000);
    expect((await groups.coordinator.list()).map(({ groupId }) => groupId)).toEqual(['g']);
    await groups.heartbeat('a', a.memberEpoch);
    await rejection(groups.heartbeat('b', 1), 'UNKNOWN_MEMBER_ID');
    clock.advance(46_000);
    await rejection(groups.heartbeat('a', a.memberEpoch), 'UNKNOWN_MEMBER_ID');
  });

  test('topics that change while groups are read are not missed', async () => {
    const before = await Groups.start({ engine, clock });
    await before.topic('t', 1, 10);
    const a = await before.join('a', { subscription: { topics: [], pattern: 't|u' } });
    await before.close();
    await using groups = await Groups.start({ engine, clock, epoch: 2 });
    await groups.topics.update('t', { partitionCount: 2, setConfigs: {}, resetConfigs: [] }, false);
    clock.advance(50);
    await groups.topic('u', 1);
    await groups.loaded();
    const waiting = held(groups.heartbeat('a', a.memberEpoch, { owned: owning(a), maxWaitMs: 5000 }));
    await waiting.turns();
    clock.advance(100);
    const { assignment } = await waiting.answer;
    const more = held(groups.heartbeat('a', assignment!.memberEpoch, { maxWaitMs: 100 }));
    await more.turns();
    clock.advance(100);
    const { partitions } = (await more.answer).assignment ?? assignment!;
    expect(partitions.map(({ topic, partition }) => `${topic}-${partition}`).sort()).toEqual(['t-0', 't-1', 'u-0']);
  });

  test('callers are told to come again while groups are read', async () => {
    const before = await Groups.start({ engine, clock });
    await before.topic('t', 1, 10);
    const { memberEpoch } = await before.join('a');
    await before.close();
    await using groups = await Groups.start({ engine, clock, epoch: 2 });
    const error = await rejection(groups.heartbeat('a', memberEpoch), 'COORDINATOR_LOAD_IN_PROGRESS');
    expect(error).toMatchObject({ retryAfterMs: 100, retryable: true });
    await rejection(groups.join('a'), 'COORDINATOR_LOAD_IN_PROGRESS');
    await rejection(groups.committed([0]), 'COORDINATOR_LOAD_IN_PROGRESS');
    await rejection(groups.coordinator.list(), 'COORDINATOR_LOAD_IN_PROGRESS');
    await groups.loaded();
    expect((await groups.heartbeat('a', memberEpoch)).assignment).toBeUndefined();
  });

  test('groups that somebody asks for before it is their turn are read only once', async () => {
    const before = await Groups.start({ engine, clock });
    await before.topic('t', 2, 10);
    expect(offsetsPartitionOf('g', 4)).toBe(3);
    await before.commit('', 0, [{ partition: 0, offset: 1 }]);
    await before.close();
    const reads = vi.spyOn(Partition.prototype, 'read');
    onTestFinished(() => reads.mockRestore());
    await using groups = await Groups.start({ engine, clock, epoch: 2 });
    await rejection(groups.committed([0]), 'COORDINATOR_LOAD_IN_PROGRESS');
    await groups.loaded();
    // Time for the others, whose turn it was.
    await held(groups.loaded()).turns();
    expect(reads.mock.contexts).toHaveLength(1);
  });
});

describe('nobody is told before it is durable', () => {
  test('a join, a heartbeat with news, a commit and a fetch wait for the write', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 2, 10);
    const a = await groups.join('a');
    const waiting = held(groups.heartbeat('a', a.memberEpoch, { owned: owning(a), maxWaitMs: 5000 }));
    clock.advance(50);
    const release = appends.hold();
    const b = held(groups.join('b'));
    await b.isHeld();
    const commit = held(groups.commit('a', a.memberEpoch, [{ partition: 0, offset: 3 }]));
    const fetch = held(groups.committed([0]));
    for (const one of [waiting, b, commit, fetch]) await one.isHeld();
    expect((await groups.coordinator.list())[0]).toMatchObject({ memberCount: 1 });
    release();
    expect(numbersOf((await waiting.answer).assignment!)).toHaveLength(1);
    await Promise.all([b.answer, commit.answer]);
    expect(await fetch.answer).toEqual([3]);
  });

  test('a heartbeat without news writes nothing and does not wait', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 2, 10);
    const a = await groups.join('a');
    const { count } = appends;
    appends.hold();
    expect((await groups.heartbeat('a', a.memberEpoch, { owned: owning(a) })).assignment).toBeUndefined();
    expect(appends.count).toBe(count);
  });

  test('what waits while a write is under way goes together in the next: 1,000 commits take a handful of appends', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 4, 10);
    const { memberEpoch } = await groups.join('a');
    const { count } = appends;
    const commits = Array.from({ length: 1000 }, (_, i) =>
      groups.commit('a', memberEpoch, [{ partition: i % 4, offset: i % 10 }], { sequence: i + 1 }),
    );
    expect((await Promise.all(commits)).flat()).toEqual([]);
    expect(appends.count - count).toBeLessThan(5);
    expect(await groups.committed([0, 1, 2, 3])).toEqual([6, 7, 8, 9]);
  });
});

describe('a write that fails', () => {
  const full = new LogError('STORAGE_FULL', 'The disk is full.');

  test('is undone: nobody was told, everything is as it was, and works again when writes do (invariants 8, 9)', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 4, 10);
    const a = await groups.join('a');
    await groups.commit('a', a.memberEpoch, [{ partition: 0, offset: 3 }]);
    const before = await groups.coordinator.snapshot('g');
    const waiting = held(groups.heartbeat('a', a.memberEpoch, { owned: owning(a), maxWaitMs: 5000 }));
    clock.advance(50);
    appends.failure = full;
    const failed = [
      groups.join('b'),
      groups.commit('a', a.memberEpoch, [{ partition: 0, offset: 5 }]),
      groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'new' }),
      groups.reset([{ partition: 1, offset: 1 }]),
    ];
    for (const one of failed) one.catch(() => undefined);
    for (const one of failed) expect((await rejection(one, 'STORAGE_FULL')).outcome).toBe('none');
    await waiting.isHeld();
    expect(await groups.coordinator.snapshot('g')).toEqual(before);
    expect(await groups.committed([0])).toEqual([3]);
    await rejection(groups.heartbeat('b', 1), 'UNKNOWN_MEMBER_ID');
    appends.failure = undefined;
    clock.advance(1000);
    await groups.join('b');
    expect(numbersOf((await waiting.answer).assignment!)).toHaveLength(2);
  });

  test('of a new group leaves none, of a deletion leaves the group', async () => {
    await using groups = await Groups.start({ engine, clock, config: { maxGroups: 2, maxOffsets: 3 } });
    await groups.topic('t', 4, 10);
    await groups.commit('', 0, [{ partition: 0, offset: 3 }]);
    appends.failure = full;
    for (let i = 0; i < 3; i++) {
      await rejection(groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'new' }), 'STORAGE_FULL');
      const deletion = groups.coordinator.delete('g');
      const again = groups.commit('', 0, [{ partition: 1, offset: 4 }]);
      await rejection(deletion, 'STORAGE_FULL');
      await rejection(again, 'STORAGE_FULL');
    }
    expect((await groups.coordinator.list()).map(({ groupId }) => groupId)).toEqual(['g']);
    expect(await groups.committed([0, 1])).toEqual([3, undefined]);
    appends.failure = undefined;
    await groups.coordinator.delete('g');
    await groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'new' });
    expect((await groups.coordinator.list()).map(({ groupId }) => groupId)).toEqual(['new']);
  });

  test('renews sessions: the end of one that could not be written comes a session later', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 1, 10);
    const { memberEpoch } = await groups.join('a');
    appends.failure = full;
    clock.advance(45_000);
    await until(() => appends.count > 0 && groups.logger.messages('info').length > 1, 'the session is over');
    await until(async () => (await groups.coordinator.snapshot('g')).memberCount === 1, 'it is undone');
    appends.failure = undefined;
    clock.advance(44_000);
    expect((await groups.coordinator.snapshot('g')).memberCount).toBe(1);
    clock.advance(2000);
    await rejection(groups.heartbeat('a', memberEpoch), 'UNKNOWN_MEMBER_ID');
  });

  test('takes back what was written after it, and only that (invariants 8, 9)', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 4, 10);
    const { memberEpoch } = await groups.join('a');
    const release = appends.hold();
    const first = held(Promise.all([groups.join('b'), groups.commit('a', memberEpoch, [{ partition: 0, offset: 1 }])]));
    await first.isHeld();
    const second = held(groups.join('c'));
    const third = held(groups.commit('a', memberEpoch, [{ partition: 0, offset: 2 }]));
    appends.failure = full;
    appends.failsFrom = appends.count + 1;
    release();
    await first.answer;
    await rejection(second.answer, 'STORAGE_FULL');
    await rejection(third.answer, 'STORAGE_FULL');
    const { members } = await groups.coordinator.snapshot('g');
    expect(members.map(({ memberId }) => memberId)).toEqual(['a', 'b']);
    expect(await groups.committed([0])).toEqual([1]);
    await rejection(groups.heartbeat('c', 1), 'UNKNOWN_MEMBER_ID');
  });

  test('of another subscription is told to the member', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 4, 10);
    const { memberEpoch } = await groups.join('a');
    appends.failure = full;
    const subscription = { topics: ['u'], pattern: undefined };
    await rejection(groups.heartbeat('a', memberEpoch, { subscription, maxWaitMs: 5000 }), 'STORAGE_FULL');
    const [member] = (await groups.coordinator.snapshot('g')).members;
    expect(member!.subscription.topics).toEqual(['t']);
  });

  test('of unknown outcome ends the service of the groups: a member may have lost to another what it holds (invariant 8)', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 1, 10);
    const { memberEpoch } = await groups.join('a');
    const waiting = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 5000 }));
    await waiting.isHeld();
    appends.failure = new LogError('STORAGE_ERROR', 'The disk is gone.');
    const fetch = groups.committed([0]);
    const failing = [
      groups.commit('a', memberEpoch, [{ partition: 0, offset: 3 }]),
      groups.committed([0]),
      waiting.answer,
    ];
    for (const one of failing) one.catch(() => undefined);
    const error = await rejection(failing[0]!, 'STORAGE_ERROR');
    expect(error).toMatchObject({ outcome: 'unknown', metadata: { offsets_partition: expect.any(String) } });
    for (const one of failing) await rejection(one, 'STORAGE_ERROR');
    expect(await fetch).toEqual([undefined]);
    await rejection(groups.heartbeat('a', memberEpoch), 'STORAGE_ERROR');
    await rejection(groups.coordinator.list(), 'STORAGE_ERROR');
    clock.advance(100_000);
    await rejection(groups.join('a'), 'STORAGE_ERROR');
    appends.failure = undefined;
    await groups.close();
    await using again = await restarted();
    expect((await again.heartbeat('a', memberEpoch)).assignment).toBeUndefined();
  });

  test('after which the log has it all the same is found by reading the log again', async () => {
    await using groups = await Groups.start({ engine, clock, config: { maxGroups: 2, maxOffsets: 4 } });
    await groups.topic('t', 2, 10);
    const { memberEpoch } = await groups.join('a');
    await groups.commit('a', memberEpoch, [{ partition: 0, offset: 1 }]);
    appends.failure = new LogError('RESOURCE_LIMIT', 'Too many open files.');
    appends.appendsAnyway = true;
    const commit = groups.commit('a', memberEpoch, [{ partition: 0, offset: 3 }]);
    expect((await rejection(commit, 'RESOURCE_LIMIT')).outcome).toBe('unknown');
    appends.failure = undefined;
    await rejection(groups.heartbeat('a', memberEpoch), 'RESOURCE_LIMIT');
    clock.advance(1000);
    await rejection(groups.heartbeat('a', memberEpoch), 'COORDINATOR_LOAD_IN_PROGRESS');
    await groups.loaded();
    expect((await groups.heartbeat('a', memberEpoch)).assignment).toBeUndefined();
    expect(await groups.committed([0])).toEqual([3]);
    // With the metadata, exactly as much as there may be beside the other.
    await groups.commit('a', memberEpoch, [{ partition: 1, offset: 4, metadata: 'm'.repeat(400) }]);
    await groups.join('a', { groupId: 'other' });
  });

  test('tells topics that were changed meanwhile once it can', async () => {
    await using groups = await Groups.start({ engine, clock });
    await groups.topic('t', 1, 10);
    const a = await groups.join('a');
    clock.advance(100);
    const waiting = held(groups.heartbeat('a', a.memberEpoch, { owned: owning(a), maxWaitMs: 5000 }));
    await groups.topics.update('t', { partitionCount: 2, setConfigs: {}, resetConfigs: [] }, false);
    appends.failure = full;
    const { count } = appends;
    clock.advance(100);
    await until(() => appends.count > count, 'the new assignment is written');
    await waiting.isHeld();
    appends.failure = undefined;
    clock.advance(1000);
    await waiting.turns();
    clock.advance(100);
    expect(numbersOf((await waiting.answer).assignment!)).toEqual([0, 1]);
  });
});

describe('what goes on in slices while groups go out of service', () => {
  const options = { config: { offsetsTopicPartitions: 1 } };

  /** Each look at the time finds that a slice is over. */
  function slowly(): void {
    const monotonic = vi.spyOn(clock, 'monotonic').mockImplementation(() => {
      clock.jump(5);
      return clock.now();
    });
    onTestFinished(() => monotonic.mockRestore());
  }

  /** From now on no write is known to have succeeded; those that follow would be. */
  function loseWrite(): void {
    appends.failure = new LogError('RESOURCE_LIMIT', 'Too many open files.');
    appends.appendsAnyway = true;
  }

  async function readAgain(groups: Groups): Promise<void> {
    appends.failure = undefined;
    clock.advance(1000);
    await rejection(groups.heartbeat('a', 1), 'COORDINATOR_LOAD_IN_PROGRESS');
    await groups.loaded();
  }

  test('a join that waits for its pattern is refused, and leaves nothing behind', async () => {
    await using groups = await Groups.start({ engine, clock, ...options });
    for (let i = 0; i < 40; i++) await groups.topic(`t${i}`, 1);
    const { memberEpoch } = await groups.join('a', { subscription: { topics: ['t0'], pattern: undefined } });
    slowly();
    const joining = groups.join('b', { groupId: 'new', subscription: { topics: [], pattern: 't.*' } });
    loseWrite();
    const commit = groups.commit('a', memberEpoch, [{ topic: 't0', partition: 0, offset: 0 }]);
    const refusals = [rejection(commit, 'RESOURCE_LIMIT'), rejection(joining, 'RESOURCE_LIMIT')];
    await Promise.all(refusals);
    await readAgain(groups);
    expect((await groups.coordinator.list()).map(({ groupId }) => groupId)).toEqual(['g']);
  });

  test('groups that are told of topics are told once they are read again, as they are then', async () => {
    await using groups = await Groups.start({ engine, clock, ...options });
    await groups.topic('t', 1);
    for (let i = 0; i < 40; i++) await groups.join('a', { groupId: `g${i}` });
    await groups.topics.update('t', { partitionCount: 2, setConfigs: {}, resetConfigs: [] }, false);
    slowly();
    loseWrite();
    const { count } = appends;
    clock.advance(100);
    await until(() => appends.count > count, 'the first of them are told');
    await held(groups.topics.update('t', { partitionCount: 3, setConfigs: {}, resetConfigs: [] }, false)).turns();
    await readAgain(groups);
    clock.advance(100);
    await until(async () => {
      clock.advance(100);
      const snapshots = await Promise.all(Array.from({ length: 40 }, (_, i) => groups.coordinator.snapshot(`g${i}`)));
      return snapshots.every(({ members }) => members.length === 1 && members[0]!.partitions.length === 3);
    }, 'all have the new partitions');
    expect(groups.logger.messages('error')).toEqual(['appends fail']);
    expect((await groups.coordinator.list()).length).toBe(40);
  });

  test('groups that go back after that are told of topics all the same', async () => {
    await using groups = await Groups.start({ engine, clock, ...options });
    await groups.topic('t', 1);
    const a = await groups.join('a');
    const b = await groups.join('b', { groupId: 'b' });
    const full = new LogError('STORAGE_FULL', 'No room.', { outcome: 'none' });
    appends.failure = full;
    await rejection(groups.commit('a', a.memberEpoch, [{ partition: 0, offset: 0 }]), 'STORAGE_FULL');
    loseWrite();
    await rejection(
      groups.commit('b', b.memberEpoch, [{ partition: 0, offset: 0 }], { groupId: 'b' }),
      'RESOURCE_LIMIT',
    );
    await readAgain(groups);
    appends.appendsAnyway = false;
    clock.advance(100);
    await groups.topics.update('t', { partitionCount: 2, setConfigs: {}, resetConfigs: [] }, false);
    appends.failure = full;
    const { count } = appends;
    clock.advance(100);
    await until(() => appends.count > count, 'the new assignment is written');
    await held(groups.committed([0])).turns();
    appends.failure = undefined;
    clock.advance(1000);
    await until(async () => {
      clock.advance(100);
      const { members } = await groups.coordinator.snapshot('g');
      return members[0]!.partitions.length === 2;
    }, 'the group has the new partition');
  });
});

describe('what is not as it should be', () => {
  async function write(records: { key: Buffer | null; value: Buffer | null }[], partition: number): Promise<void> {
    const groups = await Groups.start({ engine, clock });
    await groups.topic('t', 1, 10);
    await groups.commit('', 0, [{ partition: 0, offset: 1 }]);
    const batch = encodeBatch(records.map((record) => ({ ...record, timestampMs: BASE_TIME })));
    await groups.topics.partition(OFFSETS_TOPIC, '', partition).append([batch], { acks: 'durable' });
    await groups.close();
  }

  const shard = offsetsPartitionOf('g', 4);

  test('records of a later version are left alone, with one line in the log', async () => {
    const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
    await write(
      [
        { key: json(['share', 'g', 1]), value: json({ v: 1 }) },
        { key: json(['group', 'g']), value: json({ v: 2, epoch: 'x' }) },
      ],
      shard,
    );
    await using groups = await restarted();
    expect(await groups.committed([0])).toEqual([1]);
    expect(groups.logger.messages('warn')).toEqual([
      'records of a newer version of Tidelog are left alone; this is the first',
    ]);
  });

  test('a record that is none keeps the groups of its partition from service, and no others', async () => {
    await write([{ key: Buffer.from('["group","g"]'), value: Buffer.from('{"v":1,"epoch":-1}') }], shard);
    await using groups = await restarted();
    const error = await rejection(groups.committed([0]), 'CORRUPT_LOG');
    expect(error.metadata).toMatchObject({ topic: OFFSETS_TOPIC, partition: String(shard), offset: '2' });
    await rejection(groups.join('a'), 'CORRUPT_LOG');
    const other = ['h', 'i', 'j'].find((groupId) => offsetsPartitionOf(groupId, 4) !== shard)!;
    expect(await groups.committed([0], other)).toEqual([undefined]);
  });

  test('a partition that cannot be read for the moment is tried again', async () => {
    await write([{ key: Buffer.from('["x"]'), value: Buffer.from('{}') }], shard);
    appends.readFailure = new LogError('RESOURCE_LIMIT', 'Too many open files.');
    await using groups = await restarted();
    await rejection(groups.committed([0]), 'RESOURCE_LIMIT');
    appends.readFailure = undefined;
    await rejection(groups.committed([0]), 'RESOURCE_LIMIT');
    clock.advance(1000);
    await rejection(groups.committed([0]), 'COORDINATOR_LOAD_IN_PROGRESS');
    await groups.loaded();
    expect(await groups.committed([0])).toEqual([1]);
  });

  test('a member that is stored with a pattern of old goes on without topics', async () => {
    const member = {
      memberId: 'a',
      instanceId: undefined,
      clientId: '',
      host: '',
      subscription: { topics: [], pattern: '(' },
      assignor: undefined,
      sessionTimeoutMs: 45_000,
      rebalanceTimeoutMs: 1000,
      epoch: 1,
      assigned: [],
      revoking: [],
      away: false,
    } as const;
    const topicId = toTopicId('00000000-0000-4000-8000-000000000001');
    const value = { topic: 'gone', offset: 1, leaderEpoch: -1, metadata: '', commitTimeMs: 1 };
    await write(
      [
        encodeMembership('g', { kind: 'member', memberId: 'a', value: member }),
        encodeOffset('g', { topicId, partition: 3 }, value),
      ],
      shard,
    );
    await using groups = await restarted();
    clock.advance(100);
    expect((await groups.heartbeat('a', 1)).assignment).toBeUndefined();
    expect((await groups.fetchAll()).map(({ topic }) => topic).sort()).toEqual(['gone', 't']);
  });
});
