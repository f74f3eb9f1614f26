/** Committed offsets: what is taken, what is refused, what is found; groups as they are shown, reset and deleted. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { OffsetToCommit } from '../../../src/broker/groups/coordinator-types.js';
import type { Reason } from '../../../src/core/errors.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { Groups, held, owning } from './support.js';

const OTHER_ID = '00000000-0000-4000-8000-000000000001';

let clock: ManualClock;
let groups: Groups;

beforeEach(async () => {
  clock = new ManualClock(BASE_TIME);
  groups = await Groups.start({ clock });
  await groups.topic('t', 4, 10);
});

afterEach(async () => {
  await groups.close();
});

describe('a commit', () => {
  test.each<[string, Partial<OffsetToCommit>, Reason]>([
    ['of an offset above the high watermark', { offset: 11 }, 'OFFSET_OUT_OF_RANGE'],
    ['of a partition that is not there', { partition: 4 }, 'UNKNOWN_TOPIC_OR_PARTITION'],
    ['of a topic that is not there', { topic: 'u' }, 'UNKNOWN_TOPIC_OR_PARTITION'],
    ['of another topic id', { topicId: OTHER_ID }, 'UNKNOWN_TOPIC_ID'],
    ['of an internal topic', { topic: '__group_offsets' }, 'INVALID_TOPIC'],
    ['with too much metadata', { metadata: 'ä'.repeat(2049) }, 'OFFSET_METADATA_TOO_LARGE'],
    ["of what is another member's", { partition: 3 }, 'FENCED_MEMBER_EPOCH'],
  ])('%s is refused by itself, and the others are committed (invariant 9)', async (_, offset, reason) => {
    const { memberEpoch } = await groups.join('a');
    const b = await groups.join('b');
    clock.advance(50);
    const answer = await groups.heartbeat('a', memberEpoch);
    const mine = answer.assignment!.partitions.map(({ partition }) => partition);
    const other = [0, 1, 2, 3].find((partition) => !mine.includes(partition))!;
    const refusedOne = { partition: offset.partition === 3 ? other : mine[0]!, offset: 1 };
    const bad = offset.partition === 3 ? refusedOne : { ...refusedOne, ...offset };
    await groups.heartbeat('a', answer.memberEpoch, { owned: owning(answer.assignment!) });
    const epoch = (await groups.heartbeat('a', answer.memberEpoch)).memberEpoch;
    const refused = await groups.commit('a', epoch, [bad, { partition: mine[1]!, offset: 2 }]);
    expect(refused).toMatchObject([{ partition: bad.partition, error: { reason } }]);
    expect(await groups.committed([mine[1]!])).toEqual([2]);
    expect(b.memberEpoch).toBeGreaterThan(0);
    if (reason === 'OFFSET_OUT_OF_RANGE') {
      expect(refused[0]!.error.metadata).toMatchObject({ log_start_offset: '0', high_watermark: '10', offset: '11' });
    }
  });

  test('that a later one of the member has overtaken is refused as a whole (invariant 9)', async () => {
    const { memberEpoch } = await groups.join('a');
    const commit = (sequence: number, offset: number): Promise<unknown> =>
      groups.commit('a', memberEpoch, [{ partition: 0, offset }], { sequence });
    await Promise.all([commit(1, 1), commit(3, 3)]);
    await rejection(commit(2, 2), 'FENCED_MEMBER_EPOCH');
    await rejection(commit(3, 2), 'FENCED_MEMBER_EPOCH');
    await commit(0, 4);
    await commit(4, 5);
    expect(await groups.committed([0])).toEqual([5]);
  });

  test('without a member is taken only while the group has none', async () => {
    await groups.commit('', 0, [{ partition: 0, offset: 3 }]);
    expect(await groups.coordinator.snapshot('g')).toMatchObject({ state: 'empty', memberCount: 0 });
    await groups.join('a');
    await rejection(groups.commit('', 0, [{ partition: 0, offset: 4 }]), 'UNKNOWN_MEMBER_ID');
    await groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false });
    await groups.commit('', 0, [{ partition: 0, offset: 5 }]);
    expect(await groups.committed([0])).toEqual([5]);
  });

  test('that refuses everything makes no group', async () => {
    expect(await groups.commit('', 0, [{ partition: 9, offset: 3 }])).toHaveLength(1);
    expect(await groups.coordinator.find('g')).toBeUndefined();
    await Promise.all([
      groups.commit('', 0, [{ partition: 0, offset: 1 }]),
      groups.commit('', 0, [{ partition: 1, offset: 2 }]),
    ]);
    expect(await groups.committed([0, 1])).toEqual([1, 2]);
  });

  test('of a member that does not exist, of a group that does not, or with an epoch never told is refused', async () => {
    const { memberEpoch } = await groups.join('a');
    const one = [{ partition: 0, offset: 1 }];
    await rejection(groups.commit('x', 1, one), 'UNKNOWN_MEMBER_ID');
    await rejection(groups.commit('a', 1, one, { groupId: 'none' }), 'GROUP_ID_NOT_FOUND');
    await rejection(groups.commit('a', memberEpoch + 1, one), 'FENCED_MEMBER_EPOCH');
  });
});

describe('what was committed', () => {
  test('belongs to the topic by its id: one that takes the name begins without, and is told of the earlier one', async () => {
    const { id: earlier } = groups.topics.get('t').record;
    await groups.commit('', 0, [{ partition: 0, offset: 3 }]);
    await groups.topics.delete('t');
    const later = await groups.topic('t', 2, 1);
    const topics = [{ topic: 't', topicId: '', partitions: [0] }];
    const [found] = await groups.coordinator.fetchOffsets({ groupId: 'g', memberId: '', memberEpoch: 0, topics });
    expect(found).toMatchObject({
      topicId: later,
      committed: undefined,
      topicCommitted: false,
      earlierTopicId: earlier,
    });
    await groups.commit('', 0, [{ partition: 1, offset: 1 }]);
    const [again] = await groups.coordinator.fetchOffsets({ groupId: 'g', memberId: '', memberEpoch: 0, topics });
    expect(again).toMatchObject({ committed: undefined, topicCommitted: true });
    expect((await groups.fetchAll()).map(({ topicId }) => topicId)).toEqual([earlier, later]);
    const asking = (topicId: string, partition: number): Promise<unknown> => {
      const asked = [{ topic: 't', topicId, partitions: [partition] }];
      return groups.coordinator.fetchOffsets({ groupId: 'g', memberId: '', memberEpoch: 0, topics: asked });
    };
    await rejection(asking(earlier, 0), 'UNKNOWN_TOPIC_ID');
    await rejection(asking(later, 2), 'UNKNOWN_TOPIC_OR_PARTITION');
  });

  test('is told to a member only if it is one, and not fenced', async () => {
    const { memberEpoch } = await groups.join('a');
    const fetch = (memberId: string, epoch: number, groupId = 'g'): Promise<unknown> =>
      groups.coordinator.fetchOffsets({ groupId, memberId, memberEpoch: epoch, topics: [] });
    await fetch('a', memberEpoch);
    await rejection(fetch('x', 1), 'UNKNOWN_MEMBER_ID');
    await rejection(fetch('a', memberEpoch + 1), 'FENCED_MEMBER_EPOCH');
    await rejection(fetch('a', 1, 'none'), 'UNKNOWN_MEMBER_ID');
  });
});

describe('a reset', () => {
  test('of a group with members fences what they commit of the time before, and tells them (invariant 9)', async () => {
    const { memberEpoch } = await groups.join('a');
    await groups.commit('a', memberEpoch, [{ partition: 0, offset: 9 }]);
    const waiting = held(groups.heartbeat('a', memberEpoch, { maxWaitMs: 5000 }));
    await waiting.isHeld();
    const reset = groups.reset([{ partition: 0, offset: 2 }]);
    const late = await groups.commit('a', memberEpoch, [{ partition: 0, offset: 10 }]);
    expect(late).toMatchObject([{ error: { reason: 'FENCED_MEMBER_EPOCH' } }]);
    await reset;
    const { assignment } = await waiting.answer;
    const since = new Map(assignment!.partitions.map((one) => [one.partition, one.since]));
    expect(since.get(0)).toBe(assignment!.memberEpoch);
    expect(since.get(1)).toBe(memberEpoch);
    expect(await groups.committed([0])).toEqual([2]);
    expect(await groups.commit('a', assignment!.memberEpoch, [{ partition: 0, offset: 3 }])).toEqual([]);
  });

  test('makes the group if there is none', async () => {
    await groups.reset([{ partition: 1, offset: 4 }]);
    expect(await groups.coordinator.snapshot('g')).toMatchObject({
      state: 'empty',
      offsets: [{ partition: 1, offset: 4 }],
    });
    const topicId = OTHER_ID;
    const offsets = [{ partition: 0, offset: 0 }];
    await rejection(groups.coordinator.setOffsets({ groupId: 'g', topic: 't', topicId, offsets }), 'UNKNOWN_TOPIC_ID');
  });
});

test('groups are listed by name and described with members and offsets', async () => {
  const { memberEpoch } = await groups.join('a', { groupId: 'b', instanceId: 'i' });
  await groups.commit('a', memberEpoch, [{ partition: 0, offset: 1 }], { groupId: 'b' });
  await groups.commit('', 0, [{ partition: 0, offset: 1 }], { groupId: 'a' });
  const stable = { groupId: 'b', state: 'stable', assignor: 'uniform', memberCount: 1 };
  expect(await groups.coordinator.list()).toMatchObject([{ groupId: 'a', state: 'empty', memberCount: 0 }, stable]);
  expect(await groups.coordinator.snapshot('b')).toMatchObject({
    ...stable,
    members: [{ memberId: 'a', instanceId: 'i', clientId: 'client of a', host: '127.0.0.1', memberEpoch }],
    offsets: [{ topic: 't', partition: 0, offset: 1 }],
  });
  await rejection(groups.coordinator.snapshot('c'), 'GROUP_ID_NOT_FOUND');
});

test('a group is deleted only without members, and then it is as if it had never been', async () => {
  await groups.join('a');
  await rejection(groups.coordinator.delete('g'), 'NON_EMPTY_GROUP');
  await groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false });
  const commit = groups.commit('', 0, [{ partition: 0, offset: 1 }]);
  const deletion = groups.coordinator.delete('g');
  await Promise.all([commit, deletion]);
  expect(await groups.coordinator.find('g')).toBeUndefined();
  expect(await groups.committed([0])).toEqual([undefined]);
  await rejection(groups.coordinator.delete('g'), 'GROUP_ID_NOT_FOUND');
  expect((await groups.join('a')).memberEpoch).toBe(1);
});

describe('bad input is refused with what would be right', () => {
  test.each(['', 'x'.repeat(250), 'a\u0000b', 'a\nb'])('a group id that is none: %j', async (groupId) => {
    await rejection(groups.join('a', { groupId }), 'INVALID_GROUP_ID');
    await rejection(groups.heartbeat('a', 1, { groupId }), 'INVALID_GROUP_ID');
    await rejection(groups.commit('', 0, [], { groupId }), 'INVALID_GROUP_ID');
    await rejection(groups.committed([0], groupId), 'INVALID_GROUP_ID');
    await rejection(groups.coordinator.leave({ groupId, memberId: 'a', temporary: false }), 'INVALID_GROUP_ID');
    await rejection(groups.coordinator.delete(groupId), 'INVALID_GROUP_ID');
    await rejection(groups.coordinator.find(groupId), 'INVALID_GROUP_ID');
    await rejection(groups.reset([], groupId), 'INVALID_GROUP_ID');
  });

  test.each<[string, Parameters<Groups['join']>[1] & { memberId?: string }, Reason]>([
    ['a member id that is none', { memberId: 'x'.repeat(101) }, 'INVALID_REQUEST'],
    ['an instance id that is none', { instanceId: '' }, 'INVALID_REQUEST'],
    ['names and a pattern', { subscription: { topics: ['t'], pattern: 't' } }, 'INVALID_REQUEST'],
    ['too many names', { subscription: { topics: Array(1001).fill('t'), pattern: undefined } }, 'INVALID_REQUEST'],
    ['a name that is none', { subscription: { topics: ['a/b'], pattern: undefined } }, 'INVALID_TOPIC'],
    ['an internal topic', { subscription: { topics: ['__x'], pattern: undefined } }, 'INVALID_TOPIC'],
    ['a pattern that is none', { subscription: { topics: [], pattern: '(a' } }, 'INVALID_REGULAR_EXPRESSION'],
    ['what RE2 has not', { subscription: { topics: [], pattern: '(?=a)' } }, 'INVALID_REGULAR_EXPRESSION'],
    ['a long pattern', { subscription: { topics: [], pattern: 'a'.repeat(257) } }, 'INVALID_REGULAR_EXPRESSION'],
    ['an assignor that is none', { assignor: 'sticky' }, 'UNSUPPORTED_ASSIGNOR'],
    ['a session that is too short', { sessionTimeoutMs: 999 }, 'INVALID_SESSION_TIMEOUT'],
    ['a session that is too long', { sessionTimeoutMs: 1_800_001 }, 'INVALID_SESSION_TIMEOUT'],
    ['a time to give up that is none', { rebalanceTimeoutMs: -1 }, 'INVALID_REQUEST'],
  ])('in a join: %s', async (_, { memberId = 'a', ...command }, reason) => {
    await rejection(groups.join(memberId, command), reason);
    expect(await groups.coordinator.list()).toEqual([]);
  });

  test('in a heartbeat and in a commit', async () => {
    const { memberEpoch } = await groups.join('a');
    const subscription = { topics: [], pattern: '[' };
    await rejection(groups.heartbeat('a', memberEpoch, { subscription }), 'INVALID_REGULAR_EXPRESSION');
    await rejection(groups.heartbeat('a', -1), 'INVALID_REQUEST');
    await rejection(groups.heartbeat('', 1), 'INVALID_REQUEST');
    await rejection(groups.commit('a', memberEpoch, [], { sequence: -1 }), 'INVALID_REQUEST');
    await rejection(groups.commit('a', memberEpoch, [{ partition: 0, offset: -1 }]), 'INVALID_REQUEST');
    await rejection(groups.commit('a', memberEpoch, [{ partition: 0, offset: 1, leaderEpoch: -2 }]), 'INVALID_REQUEST');
    const many = Array(10_001).fill({ partition: 0, offset: 1 });
    await rejection(groups.commit('a', memberEpoch, many), 'INVALID_REQUEST');
    await rejection(groups.committed(Array(10_001).fill(0)), 'INVALID_REQUEST');
    const topics = Array(10_001).fill({ topic: 't', topicId: '', partitions: [] });
    const asked = groups.coordinator.fetchOffsets({ groupId: 'g', memberId: '', memberEpoch: 0, topics });
    await rejection(asked, 'INVALID_REQUEST');
    expect(await groups.coordinator.snapshot('g')).toMatchObject({ epoch: memberEpoch, offsets: [] });
  });

  test('a session that the configuration contradicts does not start', async () => {
    await rejection(Groups.start({ config: { minSessionTimeoutMs: 60_000 } }), 'INVALID_CONFIG');
  });
});
