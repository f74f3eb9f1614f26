import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type {
  DeleteRecordsResponse,
  DescribeClusterResponse,
  GetTopicResponse,
  ListOffsetsResponse,
  ListTopicsResponse,
  UpdateTopicResponse,
} from '../../../src/rpc/messages.js';
import { batchOf } from '../../partition/support.js';
import { rejection } from '../../support/rejection.js';
import { type Running, run } from './support.js';

let running: Running;

beforeEach(async () => {
  running = await run({ defaultPartitions: 3 });
});

afterEach(async () => {
  await running.stop();
});

function admin<Response>(name: string, request: object): Promise<Response> {
  return running.raw.call('AdminService', name, request);
}

describe('creating a topic', () => {
  test('gives it an id, the default partitions and every configuration value with its source', async () => {
    await admin('CreateTopic', { name: 'a.b_c-1', configs: { 'segment.bytes': '65536' } });
    const { topic } = await admin<GetTopicResponse>('GetTopic', { name: 'a.b_c-1' });
    expect(topic.topicId).toMatch(/^[0-9a-f-]{36}$/);
    expect(topic.partitions.map((partition) => partition.partition)).toEqual([0, 1, 2]);
    expect(topic.partitions[0]).toMatchObject({
      logStartOffset: 0,
      highWatermark: 0,
      leaderNodeId: 1,
      failureReason: '',
    });
    const configs = new Map(topic.configs.map((config) => [config.key, config]));
    expect(configs.get('segment.bytes')).toMatchObject({ value: '65536', source: 'CONFIG_SOURCE_TOPIC' });
    expect(configs.get('max.message.bytes')).toMatchObject({ value: '1048588', source: 'CONFIG_SOURCE_DEFAULT' });
  });

  test.each(['', '.', '..', 'a/b', 'a b', 'ä', 'x'.repeat(250)])('refuses the name %j', async (name) => {
    await rejection(admin('CreateTopic', { name }), 'INVALID_TOPIC');
  });

  test('takes a name of 249 characters', async () => {
    await admin('CreateTopic', { name: 'x'.repeat(249) });
  });

  test('refuses a name that is taken', async () => {
    await admin('CreateTopic', { name: 'a' });
    await rejection(admin('CreateTopic', { name: 'a' }), 'TOPIC_ALREADY_EXISTS');
  });

  test('of several that create one name at once, one wins', async () => {
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => admin('CreateTopic', { name: 'race' })));
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
  });

  test.each([-1, 10_001])('refuses %i partitions', async (partitionCount) => {
    await rejection(admin('CreateTopic', { name: 'a', partitionCount }), 'INVALID_PARTITIONS');
  });

  test('refuses an unknown configuration key with the list of valid ones', async () => {
    const error = await rejection(
      admin('CreateTopic', { name: 'a', configs: { 'segment.byte': '1' } }),
      'INVALID_CONFIG',
    );
    expect(error.message).toContain('segment.bytes, segment.ms');
  });

  test.each([
    ['segment.bytes', '12'],
    ['segment.bytes', 'many'],
    ['segment.bytes', '1e9'],
    ['message.timestamp.type', 'createtime'],
    ['compression.type', 'gzip'],
    ['flush.ms', '-1'],
    ['flush.ms', ''],
  ])('refuses %s=%s and says what is valid', async (key, value) => {
    const error = await rejection(admin('CreateTopic', { name: 'a', configs: { [key]: value } }), 'INVALID_CONFIG');
    expect(error.message).toContain(`${key} takes`);
  });

  test('validate_only checks everything and creates nothing', async () => {
    await admin('CreateTopic', { name: 'a', validateOnly: true });
    await rejection(admin('CreateTopic', { name: 'a/b', validateOnly: true }), 'INVALID_TOPIC');
    await rejection(admin('GetTopic', { name: 'a' }), 'UNKNOWN_TOPIC_OR_PARTITION');
  });

  test('refuses more partitions in all than the broker may have', async () => {
    const small = await run({ limits: { maxPartitions: 4 } });
    try {
      await small.raw.createTopic('a', 3);
      await rejection(small.raw.createTopic('b', 2), 'RESOURCE_LIMIT');
      await small.raw.call('AdminService', 'DeleteTopic', { name: 'a' });
      await small.raw.createTopic('b', 4);
    } finally {
      await small.stop();
    }
  });
});

describe('listing and deleting', () => {
  test('lists by name, page by page; an internal topic is nothing for users to create', async () => {
    for (const name of ['c', 'a', 'b']) await admin('CreateTopic', { name });
    await rejection(admin('CreateTopic', { name: '__offsets' }), 'INVALID_TOPIC');
    const first = await admin<ListTopicsResponse>('ListTopics', { pageSize: 2 });
    expect(first.topics.map((topic) => topic.name)).toEqual(['a', 'b']);
    const second = await admin<ListTopicsResponse>('ListTopics', { pageSize: 2, pageToken: first.nextPageToken });
    expect(second.topics.map((topic) => topic.name)).toEqual(['c']);
    expect(second.nextPageToken).toBe('');
    const all = await admin<ListTopicsResponse>('ListTopics', { includeInternal: true });
    expect(all.topics.map((topic) => topic.name)).toEqual(['a', 'b', 'c']);
  });

  test('a deleted topic is gone and its name is free for one with another id', async () => {
    const { topic: old } = await running.raw.createTopic('a');
    await running.raw.produce({ topic: 'a', batches: [batchOf(['old'])] });
    await admin('DeleteTopic', { name: 'a' });
    await rejection(admin('GetTopic', { name: 'a' }), 'UNKNOWN_TOPIC_OR_PARTITION');
    await rejection(admin('DeleteTopic', { name: 'a' }), 'UNKNOWN_TOPIC_OR_PARTITION');
    const { topic } = await running.raw.createTopic('a');
    expect(topic.topicId).not.toBe(old.topicId);
    expect((await running.raw.fetchOne('a', 0)).highWatermark).toBe(0);
  });
});

describe('ListOffsets', () => {
  async function offsets(request: object): Promise<ListOffsetsResponse['offsets']> {
    return (await admin<ListOffsetsResponse>('ListOffsets', { topic: 't', ...request })).offsets;
  }

  beforeEach(async () => {
    await running.raw.createTopic('t', 2);
    await running.raw.produce({ topic: 't', partition: 0, batches: [batchOf(['a', 'b'], 1000)] });
    await running.raw.produce({ topic: 't', partition: 1, batches: [batchOf(['c'], 5000)] });
  });

  test('earliest and latest of every partition', async () => {
    const earliest = await offsets({ position: 'OFFSET_POSITION_EARLIEST' });
    expect(earliest.map((answer) => answer.offset)).toEqual([0, 0]);
    const latest = await offsets({ position: 'OFFSET_POSITION_LATEST' });
    expect(latest.map((answer) => answer.offset)).toEqual([2, 1]);
  });

  test('by time: the first record at or after it, else the high watermark without a timestamp', async () => {
    expect(await offsets({ timestampMs: 1001 })).toMatchObject([
      { partition: 0, offset: 1, timestampMs: 1001 },
      { partition: 1, offset: 0, timestampMs: 5000 },
    ]);
    const [late] = await offsets({ timestampMs: 2000, partitions: [0] });
    expect(late).toMatchObject({ partition: 0, offset: 2 });
    expect(late?.timestampMs).toBeUndefined();
  });

  test('an unknown partition is refused', async () => {
    await rejection(offsets({ partitions: [7] }), 'UNKNOWN_TOPIC_OR_PARTITION');
  });
});

describe('ListOffsets by the largest timestamp', () => {
  test('gives the first record that holds it, and the high watermark of an empty partition', async () => {
    await running.raw.createTopic('t', 2);
    for (const at of [1000, 9000, 5000]) await running.raw.produce({ topic: 't', batches: [batchOf(['a', 'b'], at)] });
    const { offsets } = await admin<ListOffsetsResponse>('ListOffsets', {
      topic: 't',
      position: 'OFFSET_POSITION_LATEST_BY_TIMESTAMP',
    });
    expect(offsets[0]).toMatchObject({ partition: 0, offset: 3, timestampMs: 9001 });
    expect(offsets[1]).toMatchObject({ partition: 1, offset: 0 });
    expect(offsets[1]?.timestampMs).toBeUndefined();
  });
});

test('GetTopic tells the oldest and the newest timestamp of a partition, and neither where there is none', async () => {
  await running.raw.createTopic('t', 2);
  for (const at of [4000, 9000, 5000]) await running.raw.produce({ topic: 't', batches: [batchOf(['a'], at)] });
  const { topic } = await admin<GetTopicResponse>('GetTopic', { name: 't' });
  expect(topic.partitions[0]).toMatchObject({ oldestTimestampMs: 4000, newestTimestampMs: 9000 });
  expect(topic.partitions[1]?.oldestTimestampMs).toBeUndefined();
  expect(topic.partitions[1]?.newestTimestampMs).toBeUndefined();
});

describe('UpdateTopic', () => {
  test('answers with the topic as it is now, each value with its source', async () => {
    const own = await run({ topicDefaults: { 'retention.ms': 1000, 'cleanup.policy': 'compact,delete' } });
    try {
      await own.raw.createTopic('t', 1, { 'segment.ms': '5', 'retention.ms': '7' });
      const { topic } = await own.raw.call<UpdateTopicResponse>('AdminService', 'UpdateTopic', {
        name: 't',
        partitionCount: 2,
        setConfigs: { 'segment.bytes': '65536' },
        resetConfigs: ['segment.ms', 'retention.ms'],
      });
      expect(topic).toMatchObject({ partitionCount: 2, partitions: [{ partition: 0 }, { partition: 1 }] });
      const configs = new Map(topic.configs.map(({ key, value, source }) => [key, `${value} ${source}`]));
      expect(configs.get('segment.bytes')).toBe('65536 CONFIG_SOURCE_TOPIC');
      expect(configs.get('segment.ms')).toBe('604800000 CONFIG_SOURCE_DEFAULT');
      expect(configs.get('retention.ms')).toBe('1000 CONFIG_SOURCE_BROKER');
      expect(configs.get('cleanup.policy')).toBe('compact,delete CONFIG_SOURCE_BROKER');
    } finally {
      await own.stop();
    }
  });

  test('with validate_only describes the topic as it would be and changes nothing', async () => {
    await running.raw.createTopic('t', 1);
    const request = { name: 't', partitionCount: 2, setConfigs: { 'flush.ms': '1' }, validateOnly: true };
    const { topic } = await admin<UpdateTopicResponse>('UpdateTopic', request);
    expect(topic.partitionCount).toBe(2);
    expect(topic.configs.find(({ key }) => key === 'flush.ms')?.value).toBe('1');
    const now = await admin<GetTopicResponse>('GetTopic', { name: 't' });
    expect(now.topic.partitionCount).toBe(1);
    await rejection(admin('UpdateTopic', { ...request, partitionCount: -1 }), 'INVALID_PARTITIONS');
  });

  test('names both counts when there would be fewer partitions', async () => {
    await running.raw.createTopic('t', 3);
    const error = await rejection(admin('UpdateTopic', { name: 't', partitionCount: 2 }), 'INVALID_PARTITIONS');
    expect(error.message).toContain('3 partitions');
    expect(error.message).toContain('down to 2');
    expect(error.metadata).toMatchObject({ partitions: '2', partition_count: '3' });
  });
});

describe('DeleteRecords', () => {
  const LATEST = -1;

  async function deleteRecords(partitions: object[], more: object = {}): Promise<DeleteRecordsResponse['partitions']> {
    return (await admin<DeleteRecordsResponse>('DeleteRecords', { topic: 't', partitions, ...more })).partitions;
  }

  async function logStarts(): Promise<number[]> {
    const { topic } = await admin<GetTopicResponse>('GetTopic', { name: 't' });
    return topic.partitions.map(({ logStartOffset }) => logStartOffset);
  }

  let topicId: string;

  beforeEach(async () => {
    topicId = (await running.raw.createTopic('t', 3)).topic.topicId;
    for (const partition of [0, 1]) {
      const batches = [batchOf(['a', 'b', 'c', 'd'], 1000)];
      await running.raw.produce({ topic: 't', partition, batches });
    }
  });

  test('raises log start offsets, up to an offset, a time or the high watermark', async () => {
    expect(
      await deleteRecords([
        { partition: 1, beforeTimeMs: 1002 },
        { partition: 0, beforeOffset: 3 },
      ]),
    ).toEqual([
      { partition: 1, logStartOffset: 2 },
      { partition: 0, logStartOffset: 3 },
    ]);
    await rejection(running.raw.fetchOne('t', 2), 'OFFSET_OUT_OF_RANGE');
    expect((await running.raw.fetchOne('t', 3)).nextOffset).toBe(4);
    expect(await deleteRecords([{ partition: 0, beforeOffset: LATEST }], { topicId })).toEqual([
      { partition: 0, logStartOffset: 4 },
    ]);
    expect(
      await deleteRecords([
        { partition: 1, beforeTimeMs: 5000 },
        { partition: 2, beforeTimeMs: 0 },
      ]),
    ).toEqual([
      { partition: 1, logStartOffset: 4 },
      { partition: 2, logStartOffset: 0 },
    ]);
  });

  test('never takes a log start offset back', async () => {
    await deleteRecords([{ partition: 0, beforeOffset: 3 }]);
    expect(await deleteRecords([{ partition: 0, beforeOffset: 1 }])).toEqual([{ partition: 0, logStartOffset: 3 }]);
    expect(await deleteRecords([{ partition: 0, beforeTimeMs: 0 }])).toEqual([{ partition: 0, logStartOffset: 3 }]);
  });

  const GOOD = { partition: 0, beforeOffset: 2 };

  test.each<[string, object[], object, Parameters<typeof rejection>[1]]>([
    ['an offset above the high watermark', [GOOD, { partition: 1, beforeOffset: 5 }], {}, 'OFFSET_OUT_OF_RANGE'],
    ['an offset below -1', [GOOD, { partition: 1, beforeOffset: -2 }], {}, 'INVALID_REQUEST'],
    ['a partition that is not there', [GOOD, { partition: 3, beforeOffset: 0 }], {}, 'UNKNOWN_TOPIC_OR_PARTITION'],
    ['a partition named twice', [GOOD, GOOD], {}, 'INVALID_REQUEST'],
    ['neither an offset nor a time', [GOOD, { partition: 1 }], {}, 'INVALID_REQUEST'],
    ['both', [GOOD, { partition: 1, beforeOffset: 0, beforeTimeMs: 0 }], {}, 'INVALID_REQUEST'],
    ['no partition', [], {}, 'INVALID_REQUEST'],
    ['another topic id', [GOOD], { topicId: '00000000-0000-4000-8000-000000000001' }, 'UNKNOWN_TOPIC_ID'],
    ['a topic that is not there', [GOOD], { topic: 'u' }, 'UNKNOWN_TOPIC_OR_PARTITION'],
    ['an internal topic', [GOOD], { topic: '__t' }, 'INVALID_TOPIC'],
  ])('%s is refused, and nothing is deleted anywhere', async (_, partitions, more, reason) => {
    const error = await rejection(deleteRecords(partitions, more), reason);
    if (reason === 'OFFSET_OUT_OF_RANGE') {
      expect(error.metadata).toMatchObject({ log_start_offset: '0', high_watermark: '4' });
    }
    expect(await logStarts()).toEqual([0, 0, 0]);
  });
});

test('a client with the id of a deleted topic is told so, also when nothing has that name any more', async () => {
  const { topic } = await running.raw.createTopic('t');
  await admin('DeleteTopic', { name: 't' });
  const request = { topic: 't', topicId: topic.topicId, batches: [batchOf(['a'])] };
  await rejection(running.raw.produce(request), 'UNKNOWN_TOPIC_ID');
  await running.raw.createTopic('t');
  await rejection(running.raw.produce(request), 'UNKNOWN_TOPIC_ID');
  expect((await running.raw.fetchOne('t', 0)).highWatermark).toBe(0);
});

test('DescribeCluster names the node, its address and the request limit', async () => {
  const cluster = await admin<DescribeClusterResponse>('DescribeCluster', {});
  const [host, port] = running.broker.address.split(':');
  expect(cluster.nodes).toEqual([{ nodeId: 1, host, port: Number(port) }]);
  expect(cluster.clusterId).toMatch(/^[0-9a-f-]{36}$/);
  expect(cluster.maxRequestBytes).toBe(8 * 1024 * 1024);
});
