import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { compressBatch } from '../../../src/batch/compression.js';
import type { Reason } from '../../../src/core/errors.js';
import type { ListGroupsResponse, ResetGroupOffsetsRequest } from '../../../src/rpc/group-messages.js';
import { batchOf } from '../../partition/support.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { RawGroup, RawMember, refusal } from './group-support.js';
import { type Running, run } from './support.js';

const TOPIC = 't';
const HOUR = 3_600_000;

let running: Running;
let group: RawGroup;
/** Of the first record. */
let oldest: number;

beforeEach(async () => {
  running = await run();
  group = new RawGroup(running.raw);
  oldest = Date.now() - HOUR;
  await running.raw.createTopic(TOPIC, 3);
});

afterEach(async () => {
  await running.stop();
});

/** Records one ms apart. */
async function fill(partition: number, count: number, timestampMs: number = oldest): Promise<void> {
  const values = Array.from({ length: count }, (_, index) => `v${index}`);
  await running.raw.produce({ topic: TOPIC, partition, batches: [batchOf(values, timestampMs)] });
}

async function settled(member: RawMember, count: number): Promise<void> {
  await until(async () => {
    await member.heartbeat({ maxWaitMs: 0 });
    return member.assigned.length === count;
  }, `the member has ${count} partitions`);
}

describe('GetGroup', () => {
  test('tells of the members and of each partition: what is committed, the log, the lag, the owner', async () => {
    await fill(0, 10);
    await fill(1, 10);
    const member = await RawMember.joined(group, [TOPIC], { clientId: 'client', instanceId: 'i' });
    await settled(member, 3);
    await member.commit([{ topic: TOPIC, partition: 0, offset: 4, metadata: 'm' }]);
    await member.commit([{ topic: TOPIC, partition: 1, offset: 10 }]);
    const told = await group.describe();
    const { memberId, epoch: memberEpoch } = member;
    expect(told).toMatchObject({ groupId: 'g', state: 'GROUP_STATE_STABLE', assignor: 'uniform', memberCount: 1 });
    expect(told.members).toEqual([
      {
        memberId,
        instanceId: 'i',
        clientId: 'client',
        host: '127.0.0.1',
        memberEpoch,
        topics: [TOPIC],
        topicPattern: '',
        partitionCount: 3,
        away: false,
      },
    ]);
    expect(told.partitions.map(({ partition }) => partition)).toEqual([0, 1, 2]);
    const [first, second, third] = told.partitions;
    expect(first).toMatchObject({
      committedOffset: 4,
      logStartOffset: 0,
      highWatermark: 10,
      lag: 6,
      metadata: 'm',
      memberId,
    });
    expect(first?.lagMs).toBeGreaterThanOrEqual(HOUR - 10);
    expect(first?.lagMs).toBeLessThan(2 * HOUR);
    expect(first?.commitTimeMs).toBeGreaterThan(oldest);
    expect(second).toMatchObject({ committedOffset: 10, lag: 0, lagMs: 0 });
    expect(third).toMatchObject({ lag: 0, lagMs: 0, memberId, metadata: '' });
    expect(third?.committedOffset ?? undefined).toBeUndefined();
    expect(third?.commitTimeMs ?? undefined).toBeUndefined();
  });

  test('counts the lag of compressed batches, and without a committed offset from the log start', async () => {
    await running.raw.produce({
      topic: TOPIC,
      partition: 0,
      batches: [await compressBatch(batchOf(['a'.repeat(300), 'b', 'c'], oldest), 'lz4')],
    });
    await running.raw.call('AdminService', 'DeleteRecords', {
      topic: TOPIC,
      partitions: [{ partition: 0, beforeOffset: 1 }],
    });
    await settled(await RawMember.joined(group, [TOPIC]), 3);
    const [first] = (await group.describe()).partitions;
    expect(first).toMatchObject({ logStartOffset: 1, highWatermark: 3, lag: 2 });
    expect(first?.lagMs).toBeGreaterThanOrEqual(HOUR - 1);
  });

  test('of a partition that is gone it keeps the offset and leaves out the log', async () => {
    await fill(0, 3);
    await group.commit([{ topic: TOPIC, partition: 0, offset: 2 }]);
    await running.raw.call('AdminService', 'DeleteTopic', { name: TOPIC });
    await running.raw.createTopic(TOPIC, 1);
    const [only] = (await group.describe()).partitions;
    expect(only).toMatchObject({ topic: TOPIC, partition: 0, committedOffset: 2, memberId: '' });
    for (const value of [only?.logStartOffset, only?.highWatermark, only?.lag, only?.lagMs]) {
      expect(value ?? undefined).toBeUndefined();
    }
  });

  test('refuses a group that is not there, and an impossible id', async () => {
    await rejection(group.describe(), 'GROUP_ID_NOT_FOUND');
    await rejection(new RawGroup(running.raw, '').describe(), 'INVALID_GROUP_ID');
  });
});

describe('ListGroups and DeleteGroup', () => {
  test('lists by name, page by page, without members and partitions', async () => {
    for (const groupId of ['c', 'a', 'b']) {
      await group.commit([{ topic: TOPIC, partition: 0, offset: 0 }], { groupId });
    }
    const list = (fields: object): Promise<ListGroupsResponse> =>
      running.raw.call('AdminService', 'ListGroups', fields);
    const first = await list({ pageSize: 2 });
    expect(first.groups.map(({ groupId }) => groupId)).toEqual(['a', 'b']);
    expect(first.groups[0]).toMatchObject({ state: 'GROUP_STATE_EMPTY', memberCount: 0, members: [], partitions: [] });
    const second = await list({ pageSize: 2, pageToken: first.nextPageToken });
    expect(second.groups.map(({ groupId }) => groupId)).toEqual(['c']);
    expect(second.nextPageToken).toBe('');
    await rejection(list({ pageSize: -1 }), 'INVALID_REQUEST');
  });

  test('a group with members stays, one without goes with its offsets', async () => {
    const member = await RawMember.joined(group, [TOPIC]);
    await settled(member, 3);
    await member.commit([{ topic: TOPIC, partition: 0, offset: 0 }]);
    await rejection(group.admin('DeleteGroup'), 'NON_EMPTY_GROUP');
    await member.leave();
    await group.admin('DeleteGroup');
    expect(await group.committed()).toEqual([]);
    await rejection(group.admin('DeleteGroup'), 'GROUP_ID_NOT_FOUND');
  });
});

describe('ResetGroupOffsets', () => {
  beforeEach(async () => {
    await fill(0, 10);
    await fill(1, 4, oldest + HOUR / 2);
  });

  async function offsets(): Promise<number[]> {
    return (await group.committed([{ topic: TOPIC, partitions: [0, 1, 2] }])).map(({ offset }) => offset);
  }

  test.each<[string, () => Partial<ResetGroupOffsetsRequest>, readonly number[]]>([
    ['the earliest', () => ({ position: 'OFFSET_POSITION_EARLIEST' }), [0, 0, 0]],
    ['the latest', () => ({ position: 'OFFSET_POSITION_LATEST' }), [10, 4, 0]],
    ['the newest record', () => ({ position: 'OFFSET_POSITION_LATEST_BY_TIMESTAMP' }), [9, 3, 0]],
    ['an offset', () => ({ offset: 3, partitions: [1, 0] }), [3, 3, -1]],
    ['a time', () => ({ timestampMs: oldest + 5 }), [5, 0, 0]],
  ])('moves a group that is not there before to %s, creating it', async (_to, target, expected) => {
    const answer = await group.reset({ topic: TOPIC, ...target() });
    expect(answer).toMatchObject({ created: true, memberCount: 0 });
    expect(await offsets()).toEqual(expected);
    const told = answer.partitions.map(({ partition, offsetAfter }) => [partition, offsetAfter]);
    expect(told).toEqual(expected.flatMap((offset, partition) => (offset < 0 ? [] : [[partition, offset]])));
  });

  test('shifts within what each partition holds, from the log start where nothing was committed', async () => {
    await group.commit([{ topic: TOPIC, partition: 0, offset: 7 }]);
    const forward = await group.reset({ topic: TOPIC, shiftBy: 2 });
    expect(forward.created).toBe(false);
    expect(forward.partitions[0]).toEqual({
      partition: 0,
      offsetBefore: 7,
      offsetAfter: 9,
      logStartOffset: 0,
      highWatermark: 10,
      memberId: '',
    });
    expect(forward.partitions[1]?.offsetBefore ?? undefined).toBeUndefined();
    expect(await offsets()).toEqual([9, 2, 0]);
    await group.reset({ topic: TOPIC, shiftBy: 100 });
    expect(await offsets()).toEqual([10, 4, 0]);
    await group.reset({ topic: TOPIC, shiftBy: -100 });
    expect(await offsets()).toEqual([0, 0, 0]);
  });

  test('validate_only tells what would be moved, and moves nothing', async () => {
    const answer = await group.reset({ topic: TOPIC, offset: 4, partitions: [0], validateOnly: true });
    expect(answer).toMatchObject({ created: true, partitions: [{ partition: 0, offsetAfter: 4 }] });
    await rejection(group.describe(), 'GROUP_ID_NOT_FOUND');
  });

  test('an offset must lie in every partition, else none is moved and the range is told', async () => {
    const error = await rejection(group.reset({ topic: TOPIC, offset: 5 }), 'OFFSET_OUT_OF_RANGE');
    expect(error.metadata).toMatchObject({ topic: TOPIC, log_start_offset: '0' });
    expect(await group.committed()).toEqual([]);
  });

  test.each<[string, Reason, Partial<ResetGroupOffsetsRequest>]>([
    ['no target', 'INVALID_REQUEST', {}],
    ['an unspecified position', 'INVALID_REQUEST', { position: 'OFFSET_POSITION_UNSPECIFIED' }],
    ['current=false', 'INVALID_REQUEST', { current: false }],
    ['no group id', 'INVALID_GROUP_ID', { groupId: '', offset: 0 }],
    ['an unknown topic', 'UNKNOWN_TOPIC_OR_PARTITION', { topic: 'none', offset: 0 }],
    ['an unknown partition', 'UNKNOWN_TOPIC_OR_PARTITION', { partitions: [0, 3], offset: 0 }],
    ['an internal topic', 'INVALID_TOPIC', { topic: '__group_offsets', offset: 0 }],
    ['a negative offset', 'OFFSET_OUT_OF_RANGE', { offset: -1 }],
    ['a shift of an unknown group', 'GROUP_ID_NOT_FOUND', { shiftBy: 1 }],
    ['the current offsets of an unknown group', 'GROUP_ID_NOT_FOUND', { current: true }],
  ])('refuses %s with %s', async (_what, reason, fields) => {
    await rejection(group.reset({ topic: TOPIC, ...fields }), reason);
    expect(await running.raw.call('AdminService', 'ListGroups', {})).toMatchObject({ groups: [] });
  });

  test('two targets at once are refused', async () => {
    // As no client library would send it: the second field of the oneof after the first.
    const [first, second] = ['offset', 'shiftBy'].map((name) =>
      running.raw.encode('AdminService', 'ResetGroupOffsets', { groupId: 'g', topic: TOPIC, [name]: 1 }),
    );
    const both = Buffer.concat([first ?? Buffer.alloc(0), second ?? Buffer.alloc(0)]);
    await rejection(running.raw.callEncoded('AdminService', 'ResetGroupOffsets', both), 'INVALID_REQUEST');
  });

  test('members at work begin again, and commits of what they had before are refused (invariants 8, 9)', async () => {
    const member = await RawMember.joined(group, [TOPIC]);
    await settled(member, 3);
    await member.commit([{ topic: TOPIC, partition: 0, offset: 8 }]);
    const [epochBefore, sinceBefore] = [
      member.epoch,
      new Map(member.assigned.map((at) => [at.partition, at.assignmentEpoch])),
    ];
    const held = member.heartbeat();
    const answer = await group.reset({ topic: TOPIC, partitions: [0], offset: 2 });
    expect(answer).toMatchObject({ memberCount: 1, created: false });
    expect(answer.partitions[0]).toMatchObject({ offsetBefore: 8, offsetAfter: 2, memberId: member.memberId });
    const late = member.commit([{ topic: TOPIC, partition: 0, offset: 9 }], { memberEpoch: epochBefore });
    await refusal(late, 'FENCED_MEMBER_EPOCH');
    expect((await group.committed())[0]?.offset).toBe(2);
    await held;
    expect(member.epoch).toBeGreaterThan(epochBefore);
    for (const { partition, assignmentEpoch } of member.assigned) {
      if (partition === 0) expect(assignmentEpoch).toBe(member.epoch);
      else expect(assignmentEpoch).toBe(sinceBefore.get(partition));
    }
    expect(await member.commit([{ topic: TOPIC, partition: 0, offset: 3 }])).toEqual({ refused: [] });
    // What it holds of the others is not affected, under the old epoch, too.
    const others = member.commit([{ topic: TOPIC, partition: 1, offset: 1 }], { memberEpoch: epochBefore });
    expect(await others).toEqual({ refused: [] });
  });

  test('with current the members begin again where the group is', async () => {
    const member = await RawMember.joined(group, [TOPIC]);
    await settled(member, 3);
    await member.commit([{ topic: TOPIC, partition: 0, offset: 8 }]);
    const before = member.epoch;
    const held = member.heartbeat();
    await group.reset({ topic: TOPIC, current: true });
    await held;
    expect(member.epoch).toBeGreaterThan(before);
    expect(await offsets()).toEqual([8, 0, 0]);
  });
});
