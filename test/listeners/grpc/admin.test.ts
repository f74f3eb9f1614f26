import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type {
  DescribeClusterResponse,
  GetTopicResponse,
  ListOffsetsResponse,
  ListTopicsResponse,
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
  test('lists by name, page by page, without internal topics unless asked', async () => {
    for (const name of ['c', 'a', 'b', '__offsets']) await admin('CreateTopic', { name });
    const first = await admin<ListTopicsResponse>('ListTopics', { pageSize: 2 });
    expect(first.topics.map((topic) => topic.name)).toEqual(['a', 'b']);
    const second = await admin<ListTopicsResponse>('ListTopics', { pageSize: 2, pageToken: first.nextPageToken });
    expect(second.topics.map((topic) => topic.name)).toEqual(['c']);
    expect(second.nextPageToken).toBe('');
    const all = await admin<ListTopicsResponse>('ListTopics', { includeInternal: true });
    expect(all.topics.map((topic) => topic.name)).toEqual(['__offsets', 'a', 'b', 'c']);
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

test('DescribeCluster names the node, its address and the request limit', async () => {
  const cluster = await admin<DescribeClusterResponse>('DescribeCluster', {});
  const [host, port] = running.broker.address.split(':');
  expect(cluster.nodes).toEqual([{ nodeId: 1, host, port: Number(port) }]);
  expect(cluster.clusterId).toMatch(/^[0-9a-f-]{36}$/);
  expect(cluster.maxRequestBytes).toBe(8 * 1024 * 1024);
});
