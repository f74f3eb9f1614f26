/** Administration of consumer groups over the SDK. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { type Client, connect } from '../../src/client/client.js';
import { string, topic } from '../../src/client/serdes.js';
import { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { FakeBroker } from './support/fake-broker.js';

describe('over a broker that answers as told', () => {
  let fake: FakeBroker;
  let client: Client;
  let requests: object[];

  beforeEach(async () => {
    fake = await FakeBroker.start();
    client = await connect(fake.address);
    fake.calls.length = 0;
    requests = [];
  });

  afterEach(async () => {
    await client.close();
    await fake.stop();
  });

  function answer(make: (request: { pageToken?: string }) => object): void {
    fake.onGroups = (_method, request) => {
      requests.push(request);
      return make(request);
    };
  }

  const summary = { state: 'GROUP_STATE_STABLE', epoch: 7, assignor: 'uniform', memberCount: 1 };

  test('groups are listed page after page, and a page that repeats itself is a defect', async () => {
    answer(({ pageToken }) => ({
      groups: [{ groupId: `g${pageToken}`, ...summary }],
      nextPageToken: pageToken === '' ? '2' : '',
    }));
    expect(await client.admin.listGroups()).toEqual([
      { groupId: 'g', state: 'stable', epoch: 7, assignor: 'uniform', memberCount: 1 },
      { groupId: 'g2', state: 'stable', epoch: 7, assignor: 'uniform', memberCount: 1 },
    ]);
    answer(() => ({ groups: [], nextPageToken: '2' }));
    await rejection(client.admin.listGroups(), 'INTERNAL');
  });

  test('what a group, a member or a partition does not have is undefined', async () => {
    const member = {
      memberId: 'm',
      clientId: 'c',
      host: '::1',
      memberEpoch: 5,
      topics: ['a'],
      partitionCount: 1,
      away: true,
    };
    const partition = { topic: 'a', topicId: 'id', partition: 0 };
    answer(() => ({ group: { groupId: 'g', ...summary, state: 9, members: [member], partitions: [partition] } }));
    expect(await client.admin.getGroup('g')).toEqual({
      groupId: 'g',
      state: 'unknown',
      epoch: 7,
      assignor: 'uniform',
      memberCount: 1,
      members: [{ ...member, instanceId: undefined, topicPattern: undefined }],
      partitions: [
        {
          ...partition,
          committedOffset: undefined,
          logStartOffset: undefined,
          highWatermark: undefined,
          lag: undefined,
          lagMs: undefined,
          memberId: undefined,
          metadata: '',
          commitTimeMs: undefined,
        },
      ],
    });
  });

  test.each([
    ['earliest', { position: 'OFFSET_POSITION_EARLIEST' }],
    ['latest', { position: 'OFFSET_POSITION_LATEST' }],
    ['latest-by-timestamp', { position: 'OFFSET_POSITION_LATEST_BY_TIMESTAMP' }],
    ['current', { current: true }],
    [0, { offset: 0 }],
    [new Date(5), { timestampMs: 5 }],
    [{ shiftBy: -3 }, { shiftBy: -3 }],
  ] as const)('a reset to %j says just that', async (to, target) => {
    answer(() => ({
      partitions: [{ partition: 1, offsetAfter: 4, logStartOffset: 0, highWatermark: 9 }],
      created: true,
    }));
    expect(await client.admin.resetGroupOffsets({ group: 'g', topic: { name: 'a' }, partitions: [1], to })).toEqual({
      partitions: [
        {
          partition: 1,
          offsetBefore: undefined,
          offsetAfter: 4,
          logStartOffset: 0,
          highWatermark: 9,
          memberId: undefined,
        },
      ],
      memberCount: 0,
      created: true,
    });
    const none = { position: null, offset: null, timestampMs: null, shiftBy: null, current: null };
    const { position, offset, timestampMs, shiftBy, current } = { ...none, ...requests[0] };
    const given = Object.entries({ position, offset, timestampMs, shiftBy, current }).filter(
      ([, value]) => value !== null,
    );
    expect(Object.fromEntries(given)).toEqual(target);
    expect(requests[0]).toMatchObject({ groupId: 'g', topic: 'a', partitions: [1], validateOnly: false });
  });

  test('a reset to nowhere is refused before it is sent', async () => {
    for (const to of [-1, 1.5, new Date(Number.NaN), { shiftBy: 0.5 }, 'end' as 'latest']) {
      await rejection(client.admin.resetGroupOffsets({ group: 'g', topic: 'a', to }), 'INVALID_REQUEST');
    }
    expect(fake.calls).toEqual([]);
  });

  test('what comes to the same when it is done twice is repeated after an unknown outcome, nothing else is', async () => {
    const reset = { group: 'g', topic: 'a' };
    const cases: readonly (readonly [boolean, () => Promise<unknown>])[] = [
      [true, () => client.admin.listGroups()],
      [true, () => client.admin.getGroup('g')],
      [false, () => client.admin.deleteGroup('g')],
      [true, () => client.admin.resetGroupOffsets({ ...reset, to: 'latest' })],
      [true, () => client.admin.resetGroupOffsets({ ...reset, to: 'current' })],
      [true, () => client.admin.resetGroupOffsets({ ...reset, to: { shiftBy: 1 }, validateOnly: true })],
      [false, () => client.admin.resetGroupOffsets({ ...reset, to: { shiftBy: 1 } })],
    ];
    answer(() => ({ group: { groupId: 'g', ...summary }, groups: [], nextPageToken: '', partitions: [] }));
    for (const [isRepeated, call] of cases) {
      fake.calls.length = 0;
      fake.onUnary = () =>
        fake.calls.length === 1 ? new LogError('REQUEST_TIMED_OUT', 'who knows', { retryAfterMs: 1 }) : undefined;
      if (isRepeated) await call();
      else await rejection(call(), 'REQUEST_TIMED_OUT');
      expect(fake.calls).toHaveLength(isRepeated ? 2 : 1);
    }
  });

  test('a coordinator that still loads is waited for, and other failures are passed on', async () => {
    answer(() => ({ group: { groupId: 'g', ...summary } }));
    fake.onUnary = () =>
      fake.calls.length < 3 ? new LogError('COORDINATOR_LOAD_IN_PROGRESS', 'soon', { retryAfterMs: 1 }) : undefined;
    await client.admin.deleteGroup('g');
    expect(fake.calls).toHaveLength(3);
    fake.onUnary = () => new LogError('NON_EMPTY_GROUP', 'It has members.');
    await rejection(client.admin.deleteGroup('g'), 'NON_EMPTY_GROUP');
  });
});

test('a group is followed over its life: created by a reset, consumed, moved, deleted (invariants 7, 8)', async () => {
  await using broker = await startBroker({ storage: 'memory' });
  await using client = await connect(broker.address);
  const words = topic('words', { value: string() });
  const { topicId } = await client.admin.createTopic({ name: 'words', partitions: 1 });
  await using producer = client.producer();
  await producer.sendMany(
    words,
    ['a', 'b', 'c', 'd'].map((value) => ({ value })),
  );
  const reset = { group: 'g', topic: words };
  await rejection(client.admin.getGroup('g'), 'GROUP_ID_NOT_FOUND');
  await rejection(client.admin.resetGroupOffsets({ ...reset, to: 'current' }), 'GROUP_ID_NOT_FOUND');
  const moved = { partition: 0, offsetBefore: undefined, offsetAfter: 1, logStartOffset: 0, highWatermark: 4 };
  const created = { partitions: [{ ...moved, memberId: undefined }], memberCount: 0, created: true };
  expect(await client.admin.resetGroupOffsets({ ...reset, to: 1, validateOnly: true })).toEqual(created);
  expect(await client.admin.listGroups()).toEqual([]);
  expect(await client.admin.resetGroupOffsets({ ...reset, to: 1 })).toEqual(created);

  await using consumer = client.consumer(words, { group: 'g', autoCommit: false });
  const seen: string[] = [];
  for await (const record of consumer) {
    seen.push(record.value);
    if (seen.length === 1) {
      await consumer.commit(record);
      await rejection(client.admin.deleteGroup('g'), 'NON_EMPTY_GROUP');
      const group = await client.admin.getGroup('g');
      expect(group).toMatchObject({ groupId: 'g', state: 'stable', assignor: 'uniform', memberCount: 1 });
      expect(group.members).toMatchObject([{ topics: ['words'], topicPattern: undefined, partitionCount: 1 }]);
      const { memberId } = group.members[0] ?? {};
      expect(group.partitions).toMatchObject([{ topic: 'words', topicId, committedOffset: 2, lag: 2, memberId }]);
      const { partitions } = await client.admin.resetGroupOffsets({ ...reset, to: { shiftBy: -9 } });
      expect(partitions).toMatchObject([{ offsetBefore: 2, offsetAfter: 0, memberId }]);
    }
    if (record.value === 'd' && seen.includes('a')) break;
  }
  // What came before the member knew of the reset, and then everything from the new offset on.
  expect(seen.slice(-4)).toEqual(['a', 'b', 'c', 'd']);
  expect(await client.admin.listGroups()).toMatchObject([{ groupId: 'g', state: 'empty', memberCount: 0 }]);
  await client.admin.deleteGroup('g');
  await rejection(client.admin.deleteGroup('g'), 'GROUP_ID_NOT_FOUND');
});
