/** Administration over the SDK, against a broker in this process. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import { type Client, connect } from '../../src/client/client.js';
import { string, topic } from '../../src/client/serdes.js';
import { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { FakeBroker } from './support/fake-broker.js';

const words = topic('words', { value: string() });

let broker: RunningBroker;
let client: Client;

beforeEach(async () => {
  broker = await startBroker({ storage: 'memory', topicDefaults: { 'retention.bytes': 5000 } });
  client = await connect(broker.address);
  await client.admin.createTopic({ name: 'words', partitions: 2, configs: { 'segment.ms': 5 } });
});

afterEach(async () => {
  await client.close();
  await broker.close();
});

async function send(partition: number, values: readonly string[], time: Date): Promise<void> {
  await using producer = client.producer();
  await Promise.all(values.map((value) => producer.send(words, { value, partition, timestampMs: time.getTime() })));
}

describe('updateTopic', () => {
  test('sets and resets configuration, and adds partitions', async () => {
    const updated = await client.admin.updateTopic({
      name: 'words',
      partitions: 3,
      configs: { 'flush.ms': 7, 'segment.ms': null, 'retention.bytes': null },
    });
    expect(updated.partitions.map(({ partition }) => partition)).toEqual([0, 1, 2]);
    expect(updated.configs).toContainEqual({ key: 'flush.ms', value: '7', source: 'topic' });
    expect(updated.configs).toContainEqual({ key: 'segment.ms', value: '604800000', source: 'default' });
    expect(updated.configs).toContainEqual({ key: 'retention.bytes', value: '5000', source: 'broker' });
    expect(await client.admin.getTopic('words')).toEqual(updated);
  });

  test('checks without changing, and refuses what cannot be', async () => {
    const update = { name: 'words', partitions: 3 };
    expect((await client.admin.updateTopic({ ...update, validateOnly: true })).partitionCount).toBe(3);
    expect((await client.admin.getTopic('words')).partitionCount).toBe(2);
    await rejection(client.admin.updateTopic({ ...update, partitions: 1 }), 'INVALID_PARTITIONS');
    await rejection(client.admin.updateTopic({ ...update, partitions: 0 }), 'INVALID_PARTITIONS');
    await rejection(client.admin.updateTopic({ name: 'words', configs: { colour: 'red' } }), 'INVALID_CONFIG');
    await rejection(client.admin.updateTopic({ name: 'nowhere' }), 'UNKNOWN_TOPIC_OR_PARTITION');
  });
});

test('records are deleted up to an offset, a time and the high watermark', async () => {
  await send(0, ['a', 'b', 'c'], new Date(1000));
  await send(1, ['d', 'e'], new Date(1000));
  await send(1, ['f'], new Date(9000));
  const targets = [
    { partition: 1, beforeTime: new Date(5000) },
    { partition: 0, beforeOffset: 1 },
  ];
  expect(await client.admin.deleteRecords(words, targets)).toEqual([
    { partition: 1, logStartOffset: 2 },
    { partition: 0, logStartOffset: 1 },
  ]);
  const left: string[] = [];
  for await (const { value } of client.read(words, { from: 'earliest', to: 'end' })) left.push(value ?? '');
  expect(left.sort()).toEqual(['b', 'c', 'f']);
  expect(await client.admin.deleteRecords('words', [{ partition: 0, beforeOffset: 'latest' }])).toEqual([
    { partition: 0, logStartOffset: 3 },
  ]);
  const beyond = client.admin.deleteRecords('words', [{ partition: 0, beforeOffset: 4 }]);
  expect((await rejection(beyond, 'OFFSET_OUT_OF_RANGE')).metadata.high_watermark).toBe('3');
  await rejection(client.admin.deleteRecords('words', [{ partition: 0, beforeOffset: -1 }]), 'INVALID_REQUEST');
  const never = { partition: 0, beforeTime: new Date(Number.NaN) };
  await rejection(client.admin.deleteRecords('words', [never]), 'INVALID_REQUEST');
});

test('the newest record and the timestamps of partitions are told', async () => {
  await send(0, ['a'], new Date(2000));
  await send(0, ['b'], new Date(9000));
  await send(0, ['c'], new Date(3000));
  expect(await client.admin.listOffsets(words, 'latest-by-timestamp')).toEqual([
    { partition: 0, offset: 1, timestampMs: 9000 },
    { partition: 1, offset: 0, timestampMs: undefined },
  ]);
  const { partitions } = await client.admin.getTopic('words');
  expect(partitions[0]).toMatchObject({ oldestTimestampMs: 2000, newestTimestampMs: 9000 });
  expect(partitions[1]).toMatchObject({ oldestTimestampMs: undefined, newestTimestampMs: undefined });
});

test('a reader of a deleted topic learns that its topic is gone, and reads nothing of its successor', async () => {
  await send(0, ['old'], new Date(1000));
  const reading = client.read(words, { from: 'earliest' })[Symbol.asyncIterator]();
  expect((await reading.next()).value).toMatchObject({ value: 'old' });
  const waiting = reading.next();
  await client.admin.deleteTopic('words');
  await client.admin.createTopic({ name: 'words', partitions: 2 });
  await send(0, ['new', 'newer'], new Date(1000));
  await rejection(waiting, 'UNKNOWN_TOPIC_ID');
});

test('what comes to the same when it is done twice is repeated after an unknown outcome', async () => {
  await using fake = await FakeBroker.start();
  await using faked = await connect(fake.address);
  fake.addTopic('a');
  for (const [method, call] of [
    ['UpdateTopic', (): Promise<unknown> => faked.admin.updateTopic({ name: 'a' })],
    ['DeleteRecords', (): Promise<unknown> => faked.admin.deleteRecords('a', [{ partition: 0, beforeOffset: 0 }])],
  ] as const) {
    fake.calls.length = 0;
    fake.onUnary = () =>
      fake.calls.length === 1 ? new LogError('REQUEST_TIMED_OUT', 'who knows', { retryAfterMs: 1 }) : undefined;
    await call();
    expect(fake.calls).toEqual([method, method]);
  }
});
