import { status as Code, type ServiceError } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { GroupCoordinator } from '../../../src/broker/groups/coordinator.js';
import type { Reason } from '../../../src/core/errors.js';
import { hostOf } from '../../../src/listeners/grpc/groups.js';
import type { CommitOffsetsRequest, HeartbeatRequest, JoinGroupRequest } from '../../../src/rpc/group-messages.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { RawGroup, RawMember, refusal, refusals } from './group-support.js';
import { type Running, run } from './support.js';

const TOPIC = 't';
const RECORD = { offset: 0, timestampMs: 0, value: Buffer.from('v'), headers: [] };

let running: Running;
let group: RawGroup;

beforeEach(async () => {
  running = await run();
  group = new RawGroup(running.raw);
  await running.raw.createTopic(TOPIC, 4);
});

afterEach(async () => {
  vi.restoreAllMocks();
  await running.stop();
});

async function fill(partition: number, count: number): Promise<void> {
  await running.raw.produce({ topic: TOPIC, partition, records: Array.from({ length: count }, () => RECORD) });
}

/** All that the member is to have; until then it follows what it is told. */
async function settled(members: readonly RawMember[], count: number): Promise<void> {
  await until(async () => {
    for (const member of members) await member.heartbeat({ maxWaitMs: 0 });
    return members.every(({ names }) => names.length === count);
  }, `each member has ${count} partitions`);
}

describe('JoinGroup', () => {
  test('answers with the epoch, the times in force and everything that the member may hold', async () => {
    const member = new RawMember(group);
    const answer = await member.join({ subscription: { topics: [TOPIC], topicPattern: '' } });
    expect(answer).toMatchObject({ sessionTimeoutMs: 45_000, heartbeatIntervalMs: 5_000 });
    await settled([member], 4);
    expect(member.names).toEqual(['t-0', 't-1', 't-2', 't-3']);
    for (const { assignmentEpoch } of member.assigned) expect(assignmentEpoch).toBeLessThanOrEqual(member.epoch);
  });

  test('takes a pattern that whole names match, internal ones never', async () => {
    await running.raw.createTopic('tt', 1);
    const member = new RawMember(group);
    await member.join({ subscription: { topics: [], topicPattern: 't|__.*' } });
    await settled([member], 4);
    expect(member.names).toEqual(['t-0', 't-1', 't-2', 't-3']);
  });

  test('without a subscription makes a member that holds nothing for the time being', async () => {
    const member = new RawMember(group);
    await member.join({});
    expect(member.names).toEqual([]);
    await member.heartbeat({ maxWaitMs: 0, subscription: { topics: [TOPIC], topicPattern: '' } });
    await settled([member], 4);
  });

  const topics = [TOPIC];
  test.each<[string, Reason, Partial<JoinGroupRequest>]>([
    ['no group id', 'INVALID_GROUP_ID', { groupId: '' }],
    ['a group id that is too long', 'INVALID_GROUP_ID', { groupId: 'g'.repeat(250) }],
    ['no member id', 'INVALID_REQUEST', { memberId: '' }],
    ['an internal topic', 'INVALID_TOPIC', { subscription: { topics: ['__group_offsets'], topicPattern: '' } }],
    ['an impossible topic name', 'INVALID_TOPIC', { subscription: { topics: ['a/b'], topicPattern: '' } }],
    ['names and a pattern', 'INVALID_REQUEST', { subscription: { topics, topicPattern: 't' } }],
    ['a broken pattern', 'INVALID_REGULAR_EXPRESSION', { subscription: { topics: [], topicPattern: '(' } }],
    ['a session that is too short', 'INVALID_SESSION_TIMEOUT', { sessionTimeoutMs: 10 }],
    ['a negative session', 'INVALID_SESSION_TIMEOUT', { sessionTimeoutMs: -1 }],
    ['a negative rebalance timeout', 'INVALID_REQUEST', { rebalanceTimeoutMs: -1 }],
    ['an assignor that does not exist', 'UNSUPPORTED_ASSIGNOR', { assignor: 'sticky' }],
  ])('refuses %s with %s', async (_what, reason, fields) => {
    await rejection(group.call('JoinGroup', { memberId: 'm', ...fields }), reason);
    expect(await group.raw.call('AdminService', 'ListGroups', {})).toMatchObject({ groups: [] });
  });

  test('of many that make a group by joining at once, all are members', async () => {
    const members = Array.from({ length: 20 }, () => new RawMember(group));
    await Promise.all(members.map((member) => member.join({ subscription: { topics: [TOPIC], topicPattern: '' } })));
    expect((await group.describe()).memberCount).toBe(members.length);
  });

  test('a group takes no more members than it may have', async () => {
    const small = await run({ groups: { maxMembers: 1 } });
    try {
      const full = new RawGroup(small.raw);
      await RawMember.joined(full, [TOPIC]);
      await rejection(RawMember.joined(full, [TOPIC]), 'GROUP_MAX_SIZE_REACHED');
    } finally {
      await small.stop();
    }
  });

  test('of two members with one instance id the second is told to try again', async () => {
    await RawMember.joined(group, [TOPIC], { instanceId: 'i' });
    const error = await rejection(RawMember.joined(group, [TOPIC], { instanceId: 'i' }), 'UNRELEASED_INSTANCE_ID');
    expect(error.retryable).toBe(true);
    expect(error.retryAfterMs).toBeGreaterThan(0);
  });
});

describe('Heartbeat', () => {
  test('is answered after max_wait_ms when there is no news, without an assignment', async () => {
    const member = await RawMember.joined(group, [TOPIC]);
    await settled([member], 4);
    const before = member.epoch;
    const answer = await member.heartbeat({ maxWaitMs: 20 });
    expect(answer).toMatchObject({ memberEpoch: before, heartbeatIntervalMs: 5_000 });
    expect(answer.assignment ?? undefined).toBeUndefined();
  });

  test('a change reaches a held heartbeat in under 100 ms', async () => {
    const first = await RawMember.joined(group, [TOPIC]);
    await settled([first], 4);
    const delays: number[] = [];
    for (let round = 0; round < 5; round++) {
      const held = first.heartbeat();
      const began = performance.now();
      await running.raw.call('AdminService', 'UpdateTopic', { name: TOPIC, partitionCount: 5 + round });
      await held;
      delays.push(performance.now() - began);
      expect(first.names).toHaveLength(5 + round);
    }
    // The machine may be busy with other things, but never for as long as members would wait from poll to poll.
    expect(Math.min(...delays)).toBeLessThan(100);
    expect(Math.max(...delays)).toBeLessThan(5_000);
  });

  test('a partition goes to its next owner once the one that had it has let it go (invariant 10)', async () => {
    const first = await RawMember.joined(group, [TOPIC]);
    await settled([first], 4);
    const held = first.heartbeat();
    const second = await RawMember.joined(group, [TOPIC]);
    await held;
    expect(first.names).toHaveLength(2);
    expect(second.names).toEqual([]);
    // Still owned: the next heartbeat does not report it as let go.
    const all = [{ topic: TOPIC, topicId: '', partitions: [0, 1, 2, 3] }];
    await first.heartbeat({ maxWaitMs: 0, owned: all });
    await second.heartbeat({ maxWaitMs: 0 });
    expect(second.names).toEqual([]);
    const waiting = second.heartbeat();
    await first.heartbeat({ maxWaitMs: 0 });
    await waiting;
    expect([...first.names, ...second.names].sort()).toEqual(['t-0', 't-1', 't-2', 't-3']);
    expect(second.names).toHaveLength(2);
  });

  test('a newer heartbeat of the member answers the one that is held', async () => {
    const member = await RawMember.joined(group, [TOPIC]);
    await settled([member], 4);
    const heartbeats = vi.spyOn(GroupCoordinator.prototype, 'heartbeat');
    const held = member.heartbeat();
    await until(() => heartbeats.mock.calls.length === 1, 'the first is held');
    await member.heartbeat({ maxWaitMs: 0 });
    expect((await held).assignment ?? undefined).toBeUndefined();
  });

  test('one that the client has cancelled is let go', async () => {
    const member = await RawMember.joined(group, [TOPIC]);
    await settled([member], 4);
    const heartbeats = vi.spyOn(GroupCoordinator.prototype, 'heartbeat');
    const { memberId, epoch: memberEpoch } = member;
    const call = running.raw.start('GroupService', 'Heartbeat', {
      groupId: group.groupId,
      memberId,
      memberEpoch,
      maxWaitMs: 60_000,
    });
    await until(() => heartbeats.mock.calls.length === 1, 'it is held');
    const [, signal] = heartbeats.mock.calls[0] ?? [];
    expect(signal?.aborted).toBe(false);
    call.cancel();
    await until(() => signal?.aborted === true, 'the coordinator is told');
    await heartbeats.mock.results[0]?.value;
  });

  test.each<[string, Reason, Partial<HeartbeatRequest>]>([
    ['an unknown group', 'GROUP_ID_NOT_FOUND', { groupId: 'other' }],
    ['an unknown member', 'UNKNOWN_MEMBER_ID', { memberId: 'other' }],
    ['an epoch that the member was never told', 'FENCED_MEMBER_EPOCH', { memberEpoch: 1_000_000 }],
    ['a topic id that is none', 'INVALID_REQUEST', { owned: [{ topic: TOPIC, topicId: 'x', partitions: [0] }] }],
    ['an internal topic', 'INVALID_TOPIC', { subscription: { topics: ['__group_offsets'], topicPattern: '' } }],
    ['a broken pattern', 'INVALID_REGULAR_EXPRESSION', { subscription: { topics: [], topicPattern: '[' } }],
  ])('refuses %s with %s', async (_what, reason, fields) => {
    const member = await RawMember.joined(group, [TOPIC]);
    await rejection(member.heartbeat({ maxWaitMs: 0, ...fields }), reason);
  });
});

describe('the room of unary calls', () => {
  const LIMIT = 256 * 1024;
  /** More partitions than fit into a quarter of the limit, as they are counted. */
  const MANY = Array.from({ length: 600 }, (_, partition) => partition);

  test('is not taken by heartbeats that are held, as long as they are small, and not needed by them (invariant 21)', async () => {
    const small = await run({ limits: { totalInFlightBytes: LIMIT } });
    onTestFinished(() => small.stop());
    await small.raw.createTopic(TOPIC, 1);
    const members = await Promise.all(
      Array.from({ length: 50 }, () => RawMember.joined(new RawGroup(small.raw), [TOPIC])),
    );
    const heartbeats = vi.spyOn(GroupCoordinator.prototype, 'heartbeat');
    const held = members.map((member) => member.heartbeat());
    await until(() => heartbeats.mock.calls.length === members.length, 'all are held');
    await small.raw.produce({ topic: TOPIC, records: [RECORD] });
    // A large one is held, and takes all the room there is.
    const large = members[0]?.heartbeat({ owned: [{ topic: TOPIC, topicId: '', partitions: MANY }] });
    await until(() => heartbeats.mock.calls.length === members.length + 1, 'it is held');
    await rejection(small.raw.produce({ topic: TOPIC, records: [RECORD] }), 'RESOURCE_LIMIT');
    // Newer ones answer those that are held.
    for (const member of members) await member.heartbeat({ maxWaitMs: 0 });
    await Promise.all([...held, large]);
    await small.raw.produce({ topic: TOPIC, records: [RECORD] });
  });

  test('is taken by long answers until they are gone (invariant 21)', async () => {
    const small = await run({ limits: { totalInFlightBytes: LIMIT } });
    onTestFinished(() => small.stop());
    await small.raw.createTopic(TOPIC, MANY.length);
    const other = new RawGroup(small.raw);
    await other.commit([{ topic: TOPIC, partition: 0, offset: 0 }]);
    const asked = [{ topic: TOPIC, topicId: '', partitions: MANY.slice(0, 300) }];
    // Each request fits, so does each answer; many of them do not.
    const results = await Promise.allSettled(Array.from({ length: 40 }, () => other.committed(asked)));
    const failed = results.filter((result) => result.status === 'rejected');
    expect(failed.length).toBeGreaterThan(0);
    expect(failed.length).toBeLessThan(results.length);
    for (const { reason } of failed) expect(reason).toMatchObject({ reason: 'RESOURCE_LIMIT', retryable: true });
    expect(await other.committed(asked)).toHaveLength(300);
  });
});

describe('LeaveGroup', () => {
  test('gives everything to the others at once', async () => {
    const [first, second] = [await RawMember.joined(group, [TOPIC]), await RawMember.joined(group, [TOPIC])];
    await settled([first, second], 2);
    const held = first.heartbeat();
    await second.leave();
    await held;
    expect(first.names).toEqual(['t-0', 't-1', 't-2', 't-3']);
    await rejection(second.heartbeat({ maxWaitMs: 0 }), 'UNKNOWN_MEMBER_ID');
  });

  test('for a while: the next with the instance id gets the same partitions, and nobody else is disturbed', async () => {
    const first = await RawMember.joined(group, [TOPIC]);
    const second = await RawMember.joined(group, [TOPIC], { instanceId: 'i' });
    await settled([first, second], 2);
    const [before, epoch] = [second.names, first.epoch];
    await second.leave(true);
    const third = await RawMember.joined(group, [TOPIC], { instanceId: 'i' });
    expect(third.names).toEqual(before);
    await first.heartbeat({ maxWaitMs: 0 });
    expect(first.epoch).toBe(epoch);
  });

  test('refuses an unknown group and an unknown member', async () => {
    await rejection(new RawMember(group).leave(), 'GROUP_ID_NOT_FOUND');
    await RawMember.joined(group, [TOPIC]);
    await rejection(new RawMember(group).leave(), 'UNKNOWN_MEMBER_ID');
  });
});

describe('CommitOffsets and FetchOffsets', () => {
  test('what was committed is found again, with its metadata (invariant 8)', async () => {
    await fill(1, 5);
    const member = await RawMember.joined(group, [TOPIC]);
    await settled([member], 4);
    const offsets = [{ topic: TOPIC, partition: 1, offset: 3, metadata: 'm', leaderEpoch: 1 }];
    expect(await member.commit(offsets, { sequence: 1 })).toEqual({ refused: [] });
    const [only, ...others] = await group.committed();
    expect(others).toEqual([]);
    expect(only).toMatchObject({ topic: TOPIC, partition: 1, offset: 3, metadata: 'm', leaderEpoch: 1 });
    expect(only).toMatchObject({ topicCommitted: true, earlierTopicId: '' });
    expect(only?.commitTimeMs).toBeGreaterThan(0);
  });

  test('a partition without an offset says whether others of the topic have one', async () => {
    await running.raw.createTopic('u', 1);
    await group.commit([{ topic: TOPIC, partition: 0, offset: 0 }]);
    const asked = [
      { topic: TOPIC, partitions: [0, 2] },
      { topic: 'u', partitions: [0] },
    ];
    const found = await group.committed(asked);
    expect(
      found.map(({ topic, partition, offset, topicCommitted }) => [topic, partition, offset, topicCommitted]),
    ).toEqual([
      [TOPIC, 0, 0, true],
      [TOPIC, 2, -1, true],
      ['u', 0, -1, false],
    ]);
  });

  test('offsets of a topic that was recreated are not those of the new one, which tells of the old', async () => {
    await group.commit([{ topic: TOPIC, partition: 0, offset: 0 }]);
    const [{ topicId } = { topicId: '' }] = await group.committed();
    await running.raw.call('AdminService', 'DeleteTopic', { name: TOPIC });
    await running.raw.createTopic(TOPIC, 1);
    const [found] = await group.committed([{ topic: TOPIC, partitions: [0] }]);
    expect(found).toMatchObject({ offset: -1, topicCommitted: false, earlierTopicId: topicId });
    await rejection(group.committed([{ topic: TOPIC, topicId, partitions: [0] }]), 'UNKNOWN_TOPIC_ID');
  });

  test('each offset that is refused says why, the others are committed', async () => {
    await fill(0, 5);
    const { refused } = await group.commit([
      { topic: TOPIC, partition: 0, offset: 5 },
      { topic: TOPIC, partition: 1, offset: 1 },
      { topic: TOPIC, partition: 9, offset: 0 },
      { topic: 'none', partition: 0, offset: 0 },
      { topic: TOPIC, topicId: '00000000-0000-4000-8000-000000000000', partition: 0, offset: 0 },
      { topic: '__group_offsets', partition: 0, offset: 0 },
      { topic: TOPIC, partition: 2, offset: 0, metadata: 'x'.repeat(5_000) },
    ]);
    expect(refusals({ refused }).map(({ reason }) => reason)).toEqual([
      'OFFSET_OUT_OF_RANGE',
      'UNKNOWN_TOPIC_OR_PARTITION',
      'UNKNOWN_TOPIC_OR_PARTITION',
      'UNKNOWN_TOPIC_ID',
      'INVALID_TOPIC',
      'OFFSET_METADATA_TOO_LARGE',
    ]);
    expect(refusals({ refused })[0]?.metadata).toMatchObject({ log_start_offset: '0', high_watermark: '0' });
    expect((await group.committed()).map(({ partition, offset }) => [partition, offset])).toEqual([[0, 5]]);
  });

  test('a member commits only what it holds, and only with an epoch that it was told (invariant 9)', async () => {
    const [first, second] = [await RawMember.joined(group, [TOPIC]), await RawMember.joined(group, [TOPIC])];
    await settled([first, second], 2);
    const [mine, other] = [first.assigned[0]?.partition ?? -1, second.assigned[0]?.partition ?? -1];
    await refusal(first.commit([{ topic: TOPIC, partition: other, offset: 0 }]), 'FENCED_MEMBER_EPOCH');
    const own = [{ topic: TOPIC, partition: mine, offset: 0 }];
    await rejection(first.commit(own, { memberId: 'other' }), 'UNKNOWN_MEMBER_ID');
    expect(await first.commit(own)).toEqual({ refused: [] });
  });

  test.each<[string, Reason, Partial<CommitOffsetsRequest>]>([
    ['no group id', 'INVALID_GROUP_ID', { groupId: '' }],
    ['a member of no group', 'GROUP_ID_NOT_FOUND', { groupId: 'other', memberId: 'm', memberEpoch: 1 }],
    ['a commit without membership while there are members', 'UNKNOWN_MEMBER_ID', {}],
    ['an epoch without a member', 'UNKNOWN_MEMBER_ID', { memberEpoch: 3 }],
  ])('refuses %s with %s', async (_what, reason, fields) => {
    await RawMember.joined(group, [TOPIC]);
    await rejection(group.commit([{ topic: TOPIC, partition: 0, offset: 0 }], fields), reason);
  });

  test('refuses a negative offset, and a sequence that is not above the last (invariant 8)', async () => {
    await rejection(group.commit([{ topic: TOPIC, partition: 0, offset: -1 }]), 'INVALID_REQUEST');
    await fill(0, 5);
    const member = await RawMember.joined(group, [TOPIC]);
    await settled([member], 4);
    await member.commit([{ topic: TOPIC, partition: 0, offset: 4 }], { sequence: 2 });
    const late = member.commit([{ topic: TOPIC, partition: 0, offset: 2 }], { sequence: 1 });
    await rejection(late, 'FENCED_MEMBER_EPOCH');
    expect((await group.committed())[0]?.offset).toBe(4);
  });

  test('fetching refuses unknown partitions, members and epochs', async () => {
    await rejection(group.committed([{ topic: 'none', partitions: [0] }]), 'UNKNOWN_TOPIC_OR_PARTITION');
    await rejection(group.committed([{ topic: TOPIC, partitions: [4] }]), 'UNKNOWN_TOPIC_OR_PARTITION');
    const member = await RawMember.joined(group, [TOPIC]);
    await rejection(group.call('FetchOffsets', { memberId: 'other', memberEpoch: 1 }), 'UNKNOWN_MEMBER_ID');
    const { memberId } = member;
    await rejection(group.call('FetchOffsets', { memberId, memberEpoch: 1_000_000 }), 'FENCED_MEMBER_EPOCH');
  });
});

test('a message that does not decode is refused with a reason', async () => {
  const path = '/tidelog.v1.GroupService/Heartbeat';
  const failure = await new Promise<ServiceError | null>((resolve) => {
    const send = (bytes: Buffer): Buffer => bytes;
    running.raw.client.makeUnaryRequest(path, send, send, Buffer.from([0x0a, 0x7f]), (error) => resolve(error));
  });
  expect(failure?.code).toBe(Code.INVALID_ARGUMENT);
});

test.each([
  ['127.0.0.1:5000', '127.0.0.1'],
  ['::1:5000', '::1'],
  ['unknown', 'unknown'],
])('the host of %s is %s', (peer, host) => {
  expect(hostOf(peer)).toBe(host);
});
