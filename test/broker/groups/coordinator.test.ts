/** The coordinator over a storage engine: membership, held heartbeats, commits. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HeartbeatAnswer } from '../../../src/broker/groups/coordinator-types.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { Groups, held, numbersOf, owning } from './support.js';

let clock: ManualClock;
let groups: Groups;
let topicId: string;

beforeEach(async () => {
  clock = new ManualClock(BASE_TIME);
  groups = await Groups.start({ clock, config: { maxGroups: 3, maxOffsets: 8, maxMembers: 3, maxMembersInAll: 5 } });
  topicId = await groups.topic('t', 4, 10);
});

afterEach(async () => {
  await groups.close();
});

test('a member is given partitions, commits, and finds what it has committed', async () => {
  const joined = await groups.join('a');
  expect(joined).toMatchObject({ sessionTimeoutMs: 45_000, heartbeatIntervalMs: 5000 });
  expect(numbersOf(joined)).toEqual([0, 1, 2, 3]);
  const offsets = [
    { partition: 0, offset: 5, leaderEpoch: 3, metadata: 'm' },
    { partition: 1, offset: 10 },
  ];
  expect(await groups.commit('a', joined.memberEpoch, offsets)).toEqual([]);
  expect(await groups.committed([0, 1, 2])).toEqual([5, 10, undefined]);
  const found = await groups.fetchAll();
  const commitTimeMs = clock.now();
  expect(found[0]).toEqual({
    topic: 't',
    topicId,
    partition: 0,
    committed: { topic: 't', offset: 5, leaderEpoch: 3, metadata: 'm', commitTimeMs },
    topicCommitted: true,
    addedLater: false,
    earlierTopicId: undefined,
  });
});

test('the topic that keeps groups is there from the first change on, and only the broker may have it', async () => {
  expect(await groups.coordinator.list()).toEqual([]);
  expect(await groups.committed([0])).toEqual([undefined]);
  await rejection(groups.heartbeat('a', 1), 'GROUP_ID_NOT_FOUND');
  expect(groups.topics.find('__group_offsets')).toBeUndefined();
  await rejection(groups.topics.create('__group_offsets', 1, {}, false), 'INVALID_TOPIC');
  await Promise.all([groups.join('a'), groups.join('b', { groupId: 'other' })]);
  const { record, config } = groups.topics.get('__group_offsets');
  expect(record.partitionCount).toBe(4);
  expect(config).toMatchObject({ cleanupCompact: true, cleanupDelete: false, segmentBytes: 32 * 1024 * 1024 });
});

describe('heartbeats', () => {
  test('a heartbeat is held, and answered at once when a partition is to be given up; the next owner then learns of it', async () => {
    const a = await groups.join('a');
    const waiting = held(groups.heartbeat('a', a.memberEpoch, { owned: owning(a), maxWaitMs: 60_000 }));
    const b = await groups.join('b');
    clock.advance(50);
    const revoked = await waiting.answer;
    expect(numbersOf(revoked.assignment!)).toHaveLength(2);
    expect(numbersOf(b)).toEqual([]);
    const forB = held(groups.heartbeat('b', b.memberEpoch, { maxWaitMs: 60_000 }));
    await groups.heartbeat('a', revoked.memberEpoch, { owned: owning(revoked.assignment!) });
    const given = await forB.answer;
    expect([...numbersOf(given.assignment!), ...numbersOf(revoked.assignment!)].sort()).toEqual([0, 1, 2, 3]);
  });

  test('without news it is answered after what it asked for, at most after the heartbeat interval', async () => {
    const { memberEpoch } = await groups.join('a');
    const nothing: HeartbeatAnswer = { memberEpoch, heartbeatIntervalMs: 5000, assignment: undefined };
    const short = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 100 }));
    await short.isHeld();
    clock.advance(100);
    expect(await short.answer).toEqual(nothing);
    const long = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 60_000 }));
    await long.isHeld();
    clock.advance(5000);
    expect(await long.answer).toEqual(nothing);
  });

  test('a newer heartbeat of the member answers the one that is held, and so does a caller that is gone', async () => {
    const { memberEpoch } = await groups.join('a');
    const first = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 5000 }));
    await first.isHeld();
    const gone = new AbortController();
    const second = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 5000 }, gone.signal));
    expect((await first.answer).assignment).toBeUndefined();
    await second.isHeld();
    gone.abort();
    expect((await second.answer).assignment).toBeUndefined();
  });

  test('one with an older epoch is answered at once with what the member holds, one with a higher epoch is fenced', async () => {
    const { memberEpoch } = await groups.join('a');
    const answer = await groups.heartbeat('a', memberEpoch - 1, { maxWaitMs: 5000 });
    expect(answer.memberEpoch).toBe(memberEpoch);
    expect(numbersOf(answer.assignment!)).toEqual([0, 1, 2, 3]);
    await rejection(groups.heartbeat('a', memberEpoch + 1), 'FENCED_MEMBER_EPOCH');
    await rejection(groups.heartbeat('nobody', 1), 'UNKNOWN_MEMBER_ID');
  });

  test('a member that was not heard of within its session is none any more, and its partitions go on (invariants 8, 9)', async () => {
    const a = await groups.join('a', { sessionTimeoutMs: 6000 });
    const { memberEpoch } = await groups.join('b');
    clock.advance(4000);
    const forB = held(groups.heartbeat('b', memberEpoch, { maxWaitMs: 5000 }));
    await forB.isHeld();
    clock.advance(2000);
    clock.advance(50);
    expect(numbersOf((await forB.answer).assignment!)).toEqual([0, 1, 2, 3]);
    await rejection(groups.heartbeat('a', a.memberEpoch), 'UNKNOWN_MEMBER_ID');
    await rejection(groups.commit('a', a.memberEpoch, [{ partition: 0, offset: 1 }]), 'UNKNOWN_MEMBER_ID');
    expect(groups.logger.messages('info')).toContain('a member was not heard of within its session');
  });
});

describe('time', () => {
  /** A clock whose process stood still: everything that was due meanwhile is late. */
  function standStill(ms: number): void {
    clock.jump(ms);
  }

  test('a process that stood still hears what members sent meanwhile before it ends any session', async () => {
    const { memberEpoch } = await groups.join('a');
    standStill(60_000);
    clock.advance(0);
    expect((await groups.heartbeat('a', memberEpoch)).assignment).toBeUndefined();
    clock.advance(1000);
    expect((await groups.heartbeat('a', memberEpoch)).assignment).toBeUndefined();
    standStill(60_000);
    clock.advance(0);
    clock.advance(1000);
    await rejection(groups.heartbeat('a', memberEpoch), 'UNKNOWN_MEMBER_ID');
  });

  test('heartbeats of a group do not add timers, and a group without members has none', async () => {
    clock.advance(100);
    const before = clock.timerCount;
    const { memberEpoch } = await groups.join('a');
    for (let i = 0; i < 20; i++) {
      clock.advance(1000);
      await groups.heartbeat('a', memberEpoch);
    }
    expect(clock.timerCount).toBe(before + 1);
    await groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false });
    clock.advance(100);
    expect(clock.timerCount).toBe(before);
  });
});

describe('a broker that drains', () => {
  test('answers what is held, refuses changes, and finishes those it has accepted', async () => {
    const { memberEpoch } = await groups.join('a');
    const waiting = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 5000 }));
    await waiting.isHeld();
    const accepted = groups.commit('a', memberEpoch, [{ partition: 0, offset: 7 }]);
    // The commit is on its way once its checks are behind it.
    groups.coordinator.drain();
    expect((await waiting.answer).assignment).toBeUndefined();
    expect(await accepted).toEqual([]);
    expect(await groups.committed([0])).toEqual([7]);
    await rejection(groups.join('b'), 'BROKER_DRAINING');
    await rejection(groups.heartbeat('a', memberEpoch), 'BROKER_DRAINING');
    await rejection(groups.commit('a', memberEpoch, [{ partition: 0, offset: 8 }]), 'BROKER_DRAINING');
    await rejection(groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false }), 'BROKER_DRAINING');
    await groups.coordinator.close();
    expect(clock.timerCount).toBe(0);
  });
});

describe('leaving', () => {
  test('frees everything at once', async () => {
    await groups.join('a');
    const b = await groups.join('b');
    const forB = held(groups.heartbeat('b', b.memberEpoch, { maxWaitMs: 5000 }));
    await groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false });
    clock.advance(50);
    expect(numbersOf((await forB.answer).assignment!)).toEqual([0, 1, 2, 3]);
    await rejection(groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false }), 'UNKNOWN_MEMBER_ID');
    await rejection(groups.coordinator.leave({ groupId: 'h', memberId: 'a', temporary: false }), 'GROUP_ID_NOT_FOUND');
  });

  test('for a while: the next with the instance id has the same partitions, and nobody else is disturbed', async () => {
    const first = await groups.join('a1', { instanceId: 'a' });
    await rejection(groups.join('a2', { instanceId: 'a' }), 'UNRELEASED_INSTANCE_ID');
    await groups.coordinator.leave({ groupId: 'g', memberId: 'a1', temporary: true });
    const second = await groups.join('a2', { instanceId: 'a' });
    expect(numbersOf(second)).toEqual(numbersOf(first));
    await rejection(groups.heartbeat('a1', first.memberEpoch), 'UNKNOWN_MEMBER_ID');
  });
});

describe('topics', () => {
  test('partitions that are added, and topics that are created, reach the members that subscribe (invariant 8)', async () => {
    const a = await groups.join('a', { subscription: { topics: ['t', 'later'], pattern: undefined } });
    expect(numbersOf(a)).toEqual([0, 1, 2, 3]);
    const grown = held(groups.heartbeat('a', a.memberEpoch, { maxWaitMs: 5000 }));
    await groups.topics.update('t', { partitionCount: 6, setConfigs: {}, resetConfigs: [] }, false);
    clock.advance(100);
    const { assignment } = await grown.answer;
    expect(numbersOf(assignment!)).toEqual([0, 1, 2, 3, 4, 5]);
    const created = held(groups.heartbeat('a', assignment!.memberEpoch, { maxWaitMs: 5000 }));
    await groups.topic('later', 1);
    clock.advance(100);
    expect((await created.answer).assignment!.partitions.map(({ topic }) => topic)).toContain('later');
  });

  test('a pattern means every topic whose whole name matches, those of later days too, internal ones never', async () => {
    await groups.topic('orders-eu', 1);
    await groups.topic('my-orders-eu', 1);
    const subscription = { topics: [], pattern: '(orders|__group).*' };
    const a = await groups.join('a', { subscription });
    const names = (partitions: readonly { topic: string }[]): string[] => partitions.map(({ topic }) => topic).sort();
    expect(names(a.partitions)).toEqual(['orders-eu']);
    const waiting = held(groups.heartbeat('a', a.memberEpoch, { maxWaitMs: 5000 }));
    await groups.topic('orders-us', 1);
    clock.advance(100);
    const { assignment } = await waiting.answer;
    expect(names(assignment!.partitions)).toEqual(['orders-eu', 'orders-us']);
    const gone = held(groups.heartbeat('a', assignment!.memberEpoch, { maxWaitMs: 5000 }));
    await groups.topics.delete('orders-eu');
    clock.advance(100);
    expect(names((await gone.answer).assignment!.partitions)).toEqual(['orders-us']);
  });

  test('a heartbeat may bring another subscription', async () => {
    await groups.topic('u', 1);
    const a = await groups.join('a');
    const subscription = { topics: [], pattern: 'u|t' };
    clock.advance(100);
    const answer = await groups.heartbeat('a', a.memberEpoch, { subscription, owned: owning(a), maxWaitMs: 5000 });
    expect(answer.assignment!.partitions).toHaveLength(5);
    const [member] = (await groups.coordinator.snapshot('g')).members;
    expect(member!.subscription).toEqual(subscription);
  });

  test('patterns that no member has any more are forgotten, those that some have are not', async () => {
    const kept = await groups.join('keeps', { subscription: { topics: [], pattern: 'k.*' } });
    for (let i = 0; i < 200; i++) await groups.join('a', { subscription: { topics: [], pattern: `t|x${i}` } });
    const waiting = held(groups.heartbeat('keeps', kept.memberEpoch, { maxWaitMs: 5000 }));
    await groups.topic('k1', 1);
    clock.advance(100);
    expect((await waiting.answer).assignment!.partitions.map(({ topic }) => topic)).toEqual(['k1']);
  });
});

describe('limits', () => {
  test("those on users' topics do not keep the broker from having its own, which takes nothing of them", async () => {
    const engine = openMemoryEngine({ clock });
    const limits = { maxPartitionsPerTopic: 2, maxPartitions: 2 };
    await using few = await Groups.start({ clock, engine, limits, config: { offsetsTopicPartitions: 16 } });
    await few.join('a');
    await few.topic('t', 2);
    await few.close();
    await using again = await Groups.start({ clock, engine, limits, epoch: 2 });
    expect(again.topics.get('__group_offsets').record.partitionCount).toBe(16);
    await again.topics.delete('t');
    await again.topic('u', 2);
    await rejection(again.topics.create('v', 1, {}, false), 'RESOURCE_LIMIT');
  });

  test('a join that nobody waits for any more makes no member', async () => {
    const signal = AbortSignal.abort();
    await expect(groups.join('a', {}, signal)).rejects.toThrow();
    expect(await groups.coordinator.find('g')).toBeUndefined();
  });

  test('what members read, and what groups began with, is bounded as committed offsets are', async () => {
    await using small = await Groups.start({ clock, config: { maxOffsets: 6 } });
    await small.topic('t', 3, 1);
    await small.join('a');
    await small.join('b');
    // Three partitions and a topic, then as many again.
    await small.join('a', { groupId: 'h' });
    await rejection(small.join('a', { groupId: 'i' }), 'RESOURCE_LIMIT');
    await small.join('c');
    await small.coordinator.leave({ groupId: 'h', memberId: 'a', temporary: false });
    await small.coordinator.delete('h');
    await small.join('a', { groupId: 'i' });
  });

  test('members of a group and of all, groups, and committed offsets are bounded', async () => {
    for (const member of ['a', 'b', 'c']) await groups.join(member);
    await rejection(groups.join('d'), 'GROUP_MAX_SIZE_REACHED');
    await groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'h' });
    for (const member of ['d', 'e']) await groups.join(member, { groupId: 'i' });
    await rejection(groups.join('f', { groupId: 'h' }), 'RESOURCE_LIMIT');
    // Who is one of them already is none more.
    await groups.join('e', { groupId: 'i' });
    for (const member of ['d', 'e'])
      await groups.coordinator.leave({ groupId: 'i', memberId: member, temporary: false });
    await groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'i' });
    await rejection(groups.join('a', { groupId: 'j' }), 'RESOURCE_LIMIT');
    await rejection(groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'j' }), 'RESOURCE_LIMIT');
    const all = [0, 1, 2, 3].map((partition) => ({ partition, offset: 1 }));
    await groups.commit('', 0, all, { groupId: 'h' });
    const tooMany = groups.commit('', 0, all, { groupId: 'i' });
    await rejection(
      tooMany.then(() => groups.reset([{ partition: 0, offset: 0 }], 'g')),
      'RESOURCE_LIMIT',
    );
    // Two hundred characters of metadata weigh as much as one more.
    await rejection(
      groups.commit('', 0, [{ partition: 0, offset: 1, metadata: 'm'.repeat(1000) }], { groupId: 'h' }),
      'RESOURCE_LIMIT',
    );
    // One that takes the place of another is none more.
    await groups.commit('', 0, all, { groupId: 'h' });
    await groups.coordinator.delete('i');
    await groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'j' });
  });
});
