import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { parseAddress } from '../../src/client/channel.js';
import { connect } from '../../src/client/client.js';
import { backoffMs } from '../../src/client/retry.js';
import { string, topic } from '../../src/client/serdes.js';
import { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { FakeBroker } from './support/fake-broker.js';

const words = topic('words', { value: string() });

async function unusedPort(): Promise<number> {
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test('connecting where no broker listens fails at once and says what to do', async () => {
  const address = `127.0.0.1:${await unusedPort()}`;
  const error = await rejection(connect(address), 'BROKER_UNAVAILABLE');
  expect(error.message).toContain(`No Tidelog broker answers at ${address} (`);
  expect(error.message).toContain('ECONNREFUSED');
  expect(error.message).toContain('Start one with `tidelog serve`, or check the address.');
});

test('connecting to a server that stays silent ends with the timeout', async () => {
  const silent = createServer(() => {});
  const port = await new Promise<number>((resolve) => {
    silent.listen(0, '127.0.0.1', () => resolve((silent.address() as { port: number }).port));
  });
  const error = await rejection(connect(`127.0.0.1:${port}`, { connectTimeoutMs: 100 }), 'BROKER_UNAVAILABLE');
  expect(error.message).toContain('100 ms');
  silent.close();
});

test('connecting can be aborted', async () => {
  await using broker = await FakeBroker.start();
  await rejection(connect(broker.address, { signal: AbortSignal.abort() }), 'CANCELLED');
});

test.each([
  ['localhost', 'localhost:7171'],
  ['10.0.0.1:80', '10.0.0.1:80'],
  ['[::1]:9', '[::1]:9'],
  ['[::1]', '[::1]:7171'],
  ['unix:/run/tidelog.sock', 'unix:/run/tidelog.sock'],
])('the address %s is understood', (address, expected) => {
  expect(parseAddress(address)).toBe(expected);
});

test.each(['', 'http://localhost:7171', 'localhost:0', 'localhost:70000', 'a b', '::1:7171', 'localhost:'])(
  'the address %j is refused',
  async (address) => {
    await rejection(() => parseAddress(address), 'INVALID_REQUEST');
  },
);

test('options that make no sense are refused by name', async () => {
  await using broker = await FakeBroker.start();
  await rejection(connect(broker.address, { connectTimeoutMs: -1 }), 'INVALID_CONFIG');
  await rejection(connect(broker.address, { clientId: 'a b' }), 'INVALID_CONFIG');
  await using client = await connect(broker.address);
  for (const options of [
    { lingerMs: -1 },
    { batchBytes: 0 },
    { maxInFlight: 1.5 },
    { acks: 'all' as never },
    { compression: 'brotli' as never },
    { batchBytes: 100 * 1024 * 1024 },
  ]) {
    const error = await rejection(() => client.producer(options), 'INVALID_CONFIG');
    expect(error.message).toContain(Object.keys(options)[0]);
  }
  for (const options of [
    { from: -1 },
    { from: 'first' as never },
    { to: new Date(Number.NaN) },
    { from: { 1: 5 }, partitions: [0] },
  ]) {
    await rejection(() => client.read(words, options), 'INVALID_REQUEST');
  }
});

test('topics are created, described, listed page after page and deleted', async () => {
  await using broker = await FakeBroker.start();
  await using client = await connect(broker.address);
  const created = await client.admin.createTopic({ name: 'a', partitions: 3, configs: { 'segment.bytes': 1024 } });
  expect(created).toMatchObject({ name: 'a', partitionCount: 3, internal: false });
  expect(created.configs).toEqual([{ key: 'segment.bytes', value: '1024', source: 'topic' }]);
  expect(created.partitions[1]).toMatchObject({ partition: 1, highWatermark: 0, failureReason: undefined });
  for (const name of ['b', 'c', 'd', '__internal']) broker.addTopic(name);
  expect((await client.admin.listTopics()).map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd']);
  expect(await client.admin.listTopics({ includeInternal: true })).toHaveLength(5);
  await client.admin.deleteTopic('a');
  await rejection(client.admin.getTopic('a'), 'UNKNOWN_TOPIC_OR_PARTITION');
  await rejection(client.admin.createTopic({ name: 'b' }), 'TOPIC_ALREADY_EXISTS');
  await rejection(client.admin.createTopic({ name: 'x', partitions: 0 }), 'INVALID_PARTITIONS');
});

test('a passing failure of a question is repeated, a lasting one is not', async () => {
  await using broker = await FakeBroker.start();
  await using client = await connect(broker.address);
  broker.addTopic('a');
  let failures = 2;
  broker.onUnary = (method) =>
    method === 'GetTopic' && failures-- > 0 ? new LogError('BROKER_DRAINING', 'later', { retryAfterMs: 1 }) : undefined;
  expect((await client.admin.getTopic('a')).name).toBe('a');
  broker.calls.length = 0;
  broker.onUnary = () => new LogError('INVALID_TOPIC', 'no');
  await rejection(client.admin.getTopic('a'), 'INVALID_TOPIC');
  expect(broker.calls).toEqual(['GetTopic']);
});

test('a change whose outcome is unknown is not repeated', async () => {
  await using broker = await FakeBroker.start();
  await using client = await connect(broker.address);
  broker.onUnary = () => new LogError('REQUEST_TIMED_OUT', 'who knows');
  broker.calls.length = 0;
  const error = await rejection(client.admin.createTopic({ name: 'a' }), 'REQUEST_TIMED_OUT');
  expect(error.outcome).toBe('unknown');
  expect(broker.calls).toEqual(['CreateTopic']);
});

test('an admin call can be aborted while it waits to be repeated', async () => {
  await using broker = await FakeBroker.start();
  await using client = await connect(broker.address);
  const abort = new AbortController();
  broker.onUnary = () => {
    setImmediate(() => abort.abort());
    return new LogError('BROKER_DRAINING', 'later', { retryAfterMs: 10_000 });
  };
  await rejection(client.admin.getTopic('a', { signal: abort.signal }), 'CANCELLED');
});

test('a client that lost its broker finds it again', async () => {
  await using broker = await FakeBroker.start();
  await using client = await connect(broker.address);
  await broker.stop();
  const question = client.admin.describeCluster();
  await broker.listen();
  expect((await question).clusterId).toBe('fake');
});

test('everything fails with CLOSED once the client is closed, and closing twice is fine', async () => {
  await using broker = await FakeBroker.start();
  broker.addTopic('words');
  const client = await connect(broker.address);
  const producer = client.producer();
  await Promise.all([client.close(), client.close()]);
  await rejection(() => client.producer(), 'CLOSED');
  await rejection(() => client.read(words), 'CLOSED');
  await rejection(client.admin.listTopics(), 'CLOSED');
  await rejection(producer.send(words, { value: 'x' }), 'CLOSED');
  await rejection(producer.sendMany(words, [{ value: 'x' }]), 'CLOSED');
});

test('waits grow exponentially to their limit, with jitter, and heed what the broker asks for', () => {
  const options = { retryBackoffMs: 100, retryBackoffMaxMs: 1_000 };
  const middle = { next: () => 0.5, uuid: () => '' };
  const waits = [1, 2, 3, 4, 5, 60].map((failures) => Math.round(backoffMs(failures, options, middle)));
  expect(waits).toEqual([100, 200, 400, 800, 1_000, 1_000]);
  expect(backoffMs(1, options, { ...middle, next: () => 0 })).toBeCloseTo(80);
  const busy = new LogError('BROKER_DRAINING', 'busy', { retryAfterMs: 5_000 });
  expect(backoffMs(1, options, middle, busy)).toBe(5_000);
});
