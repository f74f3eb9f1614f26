/** The records that keep groups. */
import { describe, expect, test } from 'vitest';
import type { StoredMember } from '../../../src/broker/groups/group-types.js';
import { offsetsPartitionOf } from '../../../src/broker/groups/offsets-topic.js';
import { decodeRecord, encodeMembership, encodeOffset, encodePending } from '../../../src/broker/groups/records.js';
import type { StateRecord } from '../../../src/broker/state-topic/state-record.js';
import { partitionKey, toTopicId } from '../../../src/core/types.js';

const TOPIC_ID = toTopicId('00000000-0000-4000-8000-000000000001');
const UNORDERED = JSON.stringify({
  topic: 't',
  topicId: TOPIC_ID,
  partition: 0,
  offset: 1,
  leaderEpoch: -1,
  metadata: '',
});
const GROUP = 'a "group", ü\u{1f600}';

const MEMBER: StoredMember = {
  memberId: 'm',
  instanceId: 'i',
  clientId: 'c',
  host: 'h',
  subscription: { topics: [], pattern: '.*' },
  assignor: 'range',
  sessionTimeoutMs: 1,
  rebalanceTimeoutMs: 2,
  epoch: 9,
  away: true,
  assigned: [
    { topic: 't', topicId: TOPIC_ID, partition: 0, since: 3 },
    { topic: 't', topicId: TOPIC_ID, partition: 7, since: 9 },
  ],
  revoking: [{ topic: 't', topicId: TOPIC_ID, partition: 1, since: 3, revokedAt: 9 }],
};

function roundTrip({ key, value }: StateRecord): unknown {
  return decodeRecord(key, value);
}

test('everything comes back as it was, and a tombstone as nothing', () => {
  const place = { topicId: TOPIC_ID, partition: 3 };
  const offset = { topic: 't', offset: 2 ** 53 - 1, leaderEpoch: -1, metadata: 'm"', commitTimeMs: 5 };
  const group = { epoch: 4, emptySinceMs: undefined };
  const plain: StoredMember = { ...MEMBER, instanceId: undefined, assignor: undefined, assigned: [], revoking: [] };
  const all = { groupId: GROUP, memberId: 'm' };
  expect(roundTrip(encodeOffset(GROUP, place, offset))).toEqual({
    kind: 'offset',
    groupId: GROUP,
    ...place,
    value: offset,
  });
  expect(roundTrip(encodeOffset(GROUP, place, undefined))).toMatchObject({ kind: 'offset', value: undefined });
  expect(roundTrip(encodeMembership(GROUP, { kind: 'group', value: group }))).toEqual({
    kind: 'group',
    groupId: GROUP,
    value: group,
  });
  expect(roundTrip(encodeMembership(GROUP, { kind: 'group', value: undefined }))).toMatchObject({ value: undefined });
  const waiting = { topic: 't', ...place, offset: 7, leaderEpoch: -1, metadata: 'm', order: 4 };
  const pending = { producerEpoch: 5, offsets: new Map([[partitionKey(place), waiting]]) };
  for (const value of [pending, undefined]) {
    const change = { producerId: 2 ** 53 - 1, value };
    expect(roundTrip(encodePending(GROUP, change))).toEqual({ kind: 'pending', groupId: GROUP, ...change });
  }
  const numbered = { ...offset, order: 4 };
  expect(roundTrip(encodeOffset(GROUP, place, numbered))).toMatchObject({ value: numbered });
  const topics = [{ name: 't', id: place.topicId, partitionCount: 3 }];
  for (const value of [topics, [], undefined]) {
    const record = encodeMembership(GROUP, { kind: 'topics', value });
    expect(roundTrip(record)).toEqual({ kind: 'topics', groupId: GROUP, value });
  }
  for (const value of [MEMBER, plain, undefined]) {
    const record = encodeMembership(GROUP, { kind: 'member', memberId: 'm', value });
    expect(roundTrip(record)).toEqual({ kind: 'member', ...all, value });
  }
});

test('the texts are as they are documented', () => {
  const { key, value } = encodeMembership('g', { kind: 'member', memberId: 'm', value: MEMBER });
  expect(key.toString()).toBe('["member","g","m"]');
  expect(JSON.parse(value!.toString())).toEqual({
    v: 1,
    instanceId: 'i',
    clientId: 'c',
    host: 'h',
    topics: [],
    pattern: '.*',
    assignor: 'range',
    sessionTimeoutMs: 1,
    rebalanceTimeoutMs: 2,
    epoch: 9,
    away: true,
    assigned: [
      {
        topic: 't',
        topicId: TOPIC_ID,
        partitions: [
          [0, 3],
          [7, 9],
        ],
      },
    ],
    revoking: [{ topic: 't', topicId: TOPIC_ID, partitions: [[1, 3, 9]] }],
  });
  const place = { topicId: TOPIC_ID, partition: 3 };
  const waiting = { topic: 't', ...place, offset: 7, leaderEpoch: -1, metadata: 'm', order: 4 };
  const offsets = new Map([[partitionKey(place), waiting]]);
  const pending = encodePending('g', { producerId: 7, value: { producerEpoch: 5, offsets } });
  expect(pending.key.toString()).toBe('["pending","g",7]');
  expect(JSON.parse(pending.value!.toString())).toEqual({ v: 1, epoch: 5, offsets: [waiting] });
  expect(encodeOffset('g', { topicId: TOPIC_ID, partition: 3 }, undefined).key.toString()).toBe(
    `["offset","g","${TOPIC_ID}",3]`,
  );
});

describe('reading', () => {
  test.each<[string, string, string | null]>([
    ['a key that is not JSON', 'x', '{"v":1}'],
    ['a key that is no list', '{"a":1}', '{"v":1}'],
    ['a list without a kind', '[1]', '{"v":1}'],
    ['too short a key', '["offset","g"]', null],
    ['a topic id that is none', '["offset","g","t",0]', null],
    ['a negative partition', `["offset","g","${TOPIC_ID}",-1]`, null],
    ['a value that is not JSON', '["group","g"]', '{'],
    ['a value without a version', '["group","g"]', '{"epoch":1}'],
    ['a value of another shape', '["group","g"]', '{"v":1,"epoch":"1"}'],
    ['a value that is no object', '["group","g"]', '5'],
    ['a negative offset', `["offset","g","${TOPIC_ID}",1]`, '{"v":1,"topic":"t","offset":-1}'],
    ['a producer id that is none', '["pending","g",-1]', null],
    ['offsets that wait for no epoch', '["pending","g",1]', '{"v":1,"offsets":[]}'],
    ['an offset that waits without an order', '["pending","g",1]', `{"v":1,"epoch":1,"offsets":[${UNORDERED}]}`],
    ['a member without anything', '["member","g","m"]', '{"v":1}'],
  ])('%s is refused', (_, key, value) => {
    expect(() => decodeRecord(Buffer.from(key), value === null ? null : Buffer.from(value))).toThrow();
  });

  test.each<[string, string, string | null]>([
    ['a kind', '["share","g"]', '{"v":1}'],
    ['a version', '["group","g"]', '{"v":2,"epochs":[1]}'],
  ])('%s of a later Tidelog is known as such', (_, key, value) => {
    expect(decodeRecord(Buffer.from(key), value === null ? null : Buffer.from(value))).toBe('unknown');
  });
});

test("a group's partition is by Java's hash of its name", () => {
  // "Aa".hashCode() is 2112, "polygenelubricants".hashCode() is -2^31.
  expect(offsetsPartitionOf('Aa', 1000)).toBe(112);
  expect(offsetsPartitionOf('BB', 1000)).toBe(112);
  expect(offsetsPartitionOf('polygenelubricants', 16)).toBe(0);
  expect(offsetsPartitionOf('', 16)).toBe(0);
});
