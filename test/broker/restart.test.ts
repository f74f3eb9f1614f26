/** What a broker finds again after a stop, over real files. */
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import type { DescribeClusterResponse, GetTopicResponse } from '../../src/rpc/messages.js';
import { RawClient } from '../listeners/grpc/support.js';
import { batchOf } from '../partition/support.js';
import { rejection } from '../support/rejection.js';
import { temporaryDirectory } from '../support/temporary-directory.js';

let dataDir: string;
let broker: RunningBroker;
let raw: RawClient;

async function start(): Promise<void> {
  broker = await startBroker({ storage: { dataDir } });
  raw = new RawClient(broker.address);
}

async function stop(): Promise<void> {
  raw.close();
  await broker.close();
}

async function restart(): Promise<void> {
  await stop();
  await start();
}

beforeEach(async () => {
  dataDir = temporaryDirectory();
  await start();
});

afterEach(async () => {
  await stop();
});

function logDirectories(): string[] {
  return readdirSync(path.join(dataDir, 'logs'));
}

describe('after a restart', () => {
  test('topics, their ids, configuration and records are as before', async () => {
    const { topic } = await raw.createTopic('t', 2, { 'flush.ms': '7' });
    await raw.produce({ topic: 't', partition: 1, batches: [batchOf(['a', 'b'])] });
    await restart();
    const found = await raw.call<GetTopicResponse>('AdminService', 'GetTopic', { name: 't' });
    expect(found.topic.topicId).toBe(topic.topicId);
    expect(found.topic.partitions.map((partition) => partition.highWatermark)).toEqual([0, 2]);
    expect(found.topic.configs.find((config) => config.key === 'flush.ms')?.value).toBe('7');
    expect(await raw.produce({ topic: 't', partition: 1, batches: [batchOf(['c'])] })).toMatchObject({ baseOffset: 2 });
  });

  test('the cluster id is the same', async () => {
    const before = await raw.call<DescribeClusterResponse>('AdminService', 'DescribeCluster', {});
    await restart();
    const after = await raw.call<DescribeClusterResponse>('AdminService', 'DescribeCluster', {});
    expect(after.clusterId).toBe(before.clusterId);
  });

  test('a deleted topic stays deleted and its files are gone', async () => {
    await raw.createTopic('t', 3);
    await raw.produce({ topic: 't', batches: [batchOf(['a'])] });
    expect(logDirectories()).toHaveLength(3);
    await raw.call('AdminService', 'DeleteTopic', { name: 't' });
    await restart();
    await rejection(raw.fetchOne('t', 0), 'UNKNOWN_TOPIC_OR_PARTITION');
    await expect.poll(logDirectories).toEqual([]);
  });
});

describe('a partition that cannot be opened', () => {
  test('is reported and leaves the others in service', async () => {
    const { topic } = await raw.createTopic('t', 2);
    await raw.produce({ topic: 't', partition: 0, batches: [batchOf(['a'])] });
    await raw.produce({ topic: 't', partition: 1, batches: [batchOf(['b'])] });
    await stop();
    const directory = path.join(dataDir, 'logs', `${topic.topicId}-0`);
    rmSync(directory, { recursive: true });
    writeFileSync(directory, 'not a directory');
    await start();
    const found = await raw.call<GetTopicResponse>('AdminService', 'GetTopic', { name: 't' });
    expect(found.topic.partitions.map((partition) => partition.failureReason !== '')).toEqual([true, false]);
    await expect(raw.produce({ topic: 't', partition: 0, batches: [batchOf(['c'])] })).rejects.toThrow();
    const positions = [{ topic: 't', topicId: '', partition: 1, offset: 0 }];
    const { partitions } = await raw.fetch({ positions, maxWaitMs: 0 });
    expect(partitions[0]?.highWatermark).toBe(1);
  });
});

test('a second broker on the same directory is refused and told who holds it', async () => {
  const error = await rejection(startBroker({ storage: { dataDir } }), 'DATA_DIR_LOCKED');
  expect(error.message).toContain(String(process.pid));
});

test('a port in use is refused by name, and the data directory is free again', async () => {
  const other = temporaryDirectory();
  const error = await rejection(
    startBroker({ storage: { dataDir: other }, listen: broker.address }),
    'ADDRESS_UNAVAILABLE',
  );
  expect(error.message).toContain(broker.address);
  await (await startBroker({ storage: { dataDir: other } })).close();
});
