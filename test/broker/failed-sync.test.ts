/** A disk that fails under one file: what fails says so everywhere, all else goes on (TESTING invariants 2, 3, 20). */
import { expect, onTestFinished, test } from 'vitest';
import { connect } from '../../src/client/client.js';
import { string, topic } from '../../src/client/serdes.js';
import { formatAddress } from '../../src/core/config-key.js';
import { GrpcListener } from '../../src/listeners/grpc/listener.js';
import { HttpListener } from '../../src/listeners/http/listener.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { readAll } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';
import { BASE_TIME } from '../storage/support.js';
import type { FaultRule } from '../support/faulty-file-system.js';
import { type Health, health } from '../support/health.js';
import { checkFailedSyncs, checkKept, checkNothingFails } from './nth-call/checks.js';
import { FaultyBroker } from './nth-call/faulty-broker.js';

const ANYWHERE = { host: '127.0.0.1', port: 0 };
const MIB = 1024 * 1024;
const WORDS = topic('words', { value: string() });

async function running(): Promise<FaultyBroker> {
  const broker = new FaultyBroker();
  expect(await broker.start()).toBe(true);
  await broker.create('orders', 2, {});
  for (const partition of [0, 1]) await broker.produce('orders', partition, 'durable');
  return broker;
}

async function healthOf({ broker }: FaultyBroker): Promise<Health> {
  const listener = await HttpListener.start(broker, ANYWHERE);
  try {
    return await health(formatAddress(listener.address));
  } finally {
    await listener.stop();
  }
}

function partitionFile(broker: FaultyBroker, partition: number): string {
  return `/data/logs/${broker.ledger.topics.get('orders')!.id}-${partition}/00000000000000000000.log`;
}

function failing(name: string, path: string, errno: string): FaultRule {
  return (call) => (call.name === name && call.path === path ? errno : undefined);
}

/** The broker that the next process starts, after the end of this one or of the power. */
async function restarted(broker: FaultyBroker, left: 'everything' | 'what was synced'): Promise<FaultyBroker> {
  const again = new FaultyBroker(broker.ledger, broker.crash(left));
  expect(await again.start()).toBe(true);
  await again.settled();
  return again;
}

test.each(['EIO', 'ENOSPC'])(
  'a failed sync (%s) ends one partition, which says so, and no other (invariants 2, 3)',
  async (errno) => {
    const broker = await running();
    const file = partitionFile(broker, 0);
    broker.fs.rule = failing('fdatasync', file, errno);
    expect(await broker.produce('orders', 0, 'durable')).toBe(false);
    expect(broker.lastFailure).toMatchObject({ reason: 'STORAGE_ERROR', outcome: 'unknown' });
    broker.fs.rule = () => undefined;
    const failed = broker.fs.calls.filter(({ name, path }) => name === 'fdatasync' && path === file).slice(-1);

    for (const acks of ['durable', 'written'] as const) {
      expect(await broker.produce('orders', 0, acks)).toBe(false);
      expect(broker.lastFailure.reason).toBe('STORAGE_ERROR');
      expect(await broker.produce('orders', 1, acks)).toBe(true);
    }
    await broker.pass(60_000);
    expect(broker.broker.topics.failures()).toMatchObject([{ topic: 'orders', partition: 0 }]);
    expect(await healthOf(broker)).toMatchObject({
      status: 'SERVING',
      failures: [{ topic: 'orders', partition: 0, reason: 'STORAGE_ERROR', message: expect.stringContaining(file) }],
    });
    const lines = broker.logger.lines.filter(({ level }) => level === 'error').map(({ fields }) => fields);
    expect(lines).toContainEqual(expect.objectContaining({ topic: 'orders', partition: 0, reason: 'STORAGE_ERROR' }));
    await checkKept(broker, 'durable');
    await broker.stop();
    expect(broker.lastFailure.reason).toBe('STORAGE_ERROR');
    checkFailedSyncs(broker, failed);
    expect(broker.fs.openPaths).toEqual([]);

    for (const left of ['everything', 'what was synced'] as const) {
      const again = await restarted(broker, left);
      checkNothingFails(again);
      await checkKept(again, 'durable');
      await again.checkTakesAppends();
      await again.stop();
    }
  },
);

test('a failed sync of the metadata ends changes of topics, says so, and leaves all topics in service (invariant 3)', async () => {
  const broker = await running();
  broker.fs.rule = failing('fdatasync', '/data/metadata.log', 'EIO');
  expect(await broker.create('more', 1, {})).toBe(false);
  broker.fs.rule = () => undefined;
  expect(await broker.setFlushMs('orders', '7')).toBe(false);
  expect(broker.lastFailure.reason).toBe('STORAGE_ERROR');
  for (const partition of [0, 1]) expect(await broker.produce('orders', partition, 'durable')).toBe(true);
  checkNothingFails(broker);
  expect(await healthOf(broker)).toMatchObject({
    status: 'SERVING',
    failures: [],
    metadata: { reason: 'STORAGE_ERROR', message: expect.stringContaining('/data/metadata.log') },
  });
  expect(broker.logger.messages('error')).toContain('the metadata takes no more changes');
  await broker.stop();
  const again = await restarted(broker, 'what was synced');
  expect(await healthOf(again)).toEqual({ status: 'SERVING', failures: [] });
  await checkKept(again, 'durable');
  expect(await again.setFlushMs('orders', '9')).toBe(true);
  await again.stop();
});

test('producers and readers over the network outlast a full disk (invariants 4, 5, 20)', async () => {
  const broker = await running();
  await broker.create('words', 1, {});
  const budgets = { streamBytes: MIB, connectionBytes: MIB, totalBytes: MIB };
  const limits = { maxRequestBytes: MIB, budgets, maxConnections: 10, maxStreams: 100 };
  const listener = await GrpcListener.start(broker.broker, { listen: ANYWHERE, ...limits });
  const client = await connect(formatAddress(listener.address));
  onTestFinished(async () => {
    await client.close();
    await listener.stop(Promise.resolve());
    await broker.stop();
  });
  const producer = client.producer({ retryBackoffMs: 2, retryBackoffMaxMs: 10 });
  const history = new History();
  const recorded: RecordedTopic = { history, topic: WORDS, partitionCount: 1 };
  const send = async (value: string): Promise<void> => {
    const attempt = history.send('producer', WORDS.name, value);
    const { partition, offset } = await producer.send(WORDS, { value, timestampMs: BASE_TIME });
    attempt.ack(partition, offset);
  };
  const read = async (process: string): Promise<string[]> =>
    (await readAll(recorded, client, process)).map(({ value }) => value);
  await send('before');
  let refused = 0;
  broker.fs.rule = ({ name }) => {
    if (name !== 'writevSync') return undefined;
    refused++;
    return 'ENOSPC';
  };
  const during = send('during');
  await expect.poll(() => refused).toBeGreaterThan(1);
  expect(await read('while-full')).toEqual(['before']);
  broker.fs.rule = () => undefined;
  await during;
  expect(await read('with-room')).toEqual(['before', 'during']);
  expectNoViolations(history);
  checkNothingFails(broker);
  await producer.close();
});
