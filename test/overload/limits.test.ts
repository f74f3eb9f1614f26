/** A request at every limit is taken, one past it refused with the documented reason. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import type { Reason } from '../../src/core/errors.js';
import { MAX_REQUEST_FIELDS } from '../../src/rpc/field-count.js';
import { type Running, run } from '../listeners/grpc/support.js';
import { Programme } from '../support/programme.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { idleConnection } from './clients.js';

const KIB = 1024;
const LIMITS = {
  requestMaxBytes: 256 * KIB,
  maxPartitionsPerTopic: 10,
  maxPartitions: 30,
  maxConnections: 4,
  maxStreams: 20,
};

let running: Running;

beforeAll(async () => {
  running = await run({ limits: LIMITS });
  await running.raw.createTopic('t', 1, { 'max.message.bytes': '1000' });
});

afterAll(async () => {
  await running.stop();
});

function batchOf(valueBytes: number): Buffer {
  return encodeBatch([{ timestampMs: 0, key: null, value: Buffer.alloc(valueBytes), headers: [] }]);
}

/** A record batch of exactly so many bytes. */
function batchOfSize(bytes: number): Buffer {
  let valueBytes = bytes - 70;
  while (batchOf(valueBytes).length < bytes) valueBytes++;
  return batchOf(valueBytes);
}

interface Limit {
  readonly name: string;
  /** What is just taken. */
  readonly at: () => Promise<unknown>;
  /** What is just too much. */
  readonly past: () => Promise<unknown>;
  readonly reason: Reason;
}

/** GetTopic with a name such that the request has exactly so many bytes. */
function requestOfSize(bytes: number): Promise<unknown> {
  const overhead = 1 + 3;
  return running.raw.call('AdminService', 'GetTopic', { name: 'x'.repeat(bytes - overhead) });
}

/** Besides the elements of the list: the topic, the position, the list itself and the three bytes of its length. */
const OTHER_FIELDS = 6;

function listOffsets(count: number): Promise<unknown> {
  const partitions = Array.from({ length: count }, () => 0);
  return running.raw.call('AdminService', 'ListOffsets', { topic: 't', partitions, position: 1 });
}

function fetchPositions(count: number): Promise<unknown> {
  const positions = Array.from({ length: count }, () => ({ topic: 't', topicId: '', partition: 0, offset: 0 }));
  return running.raw.fetch({ positions, maxWaitMs: 0 });
}

/** It is taken as far as the limit goes, and fails for another reason behind it. */
async function passes(work: Promise<unknown>, reason: Reason): Promise<void> {
  await rejection(work, reason);
}

const VALIDATE = { validateOnly: true };

function create(name: string, partitionCount: number, configs: object = {}): Promise<unknown> {
  return running.raw.call('AdminService', 'CreateTopic', { name, partitionCount, configs, ...VALIDATE });
}

const CASES: readonly Limit[] = [
  {
    name: 'request.max.bytes',
    at: () => passes(requestOfSize(LIMITS.requestMaxBytes), 'UNKNOWN_TOPIC_OR_PARTITION'),
    past: () => requestOfSize(LIMITS.requestMaxBytes + 1),
    reason: 'MESSAGE_TOO_LARGE',
  },
  {
    name: 'twice request.max.bytes, where the transport refuses',
    at: () => passes(requestOfSize(2 * LIMITS.requestMaxBytes), 'MESSAGE_TOO_LARGE'),
    past: () => requestOfSize(2 * LIMITS.requestMaxBytes + 1),
    reason: 'RESOURCE_LIMIT',
  },
  {
    name: 'fields of a request',
    at: () => listOffsets(MAX_REQUEST_FIELDS - OTHER_FIELDS),
    past: () => listOffsets(MAX_REQUEST_FIELDS - OTHER_FIELDS + 1),
    reason: 'MESSAGE_TOO_LARGE',
  },
  {
    name: 'max.message.bytes',
    at: () => running.raw.produce({ topic: 't', batches: [batchOfSize(1000)] }),
    past: () => running.raw.produce({ topic: 't', batches: [batchOfSize(1001)] }),
    reason: 'MESSAGE_TOO_LARGE',
  },
  {
    name: 'partitions.per.topic.max',
    at: () => create('wide', LIMITS.maxPartitionsPerTopic),
    past: () => create('wide', LIMITS.maxPartitionsPerTopic + 1),
    reason: 'INVALID_PARTITIONS',
  },
  {
    name: 'length of a topic name',
    at: () => create('n'.repeat(249), 1),
    past: () => create('n'.repeat(250), 1),
    reason: 'INVALID_TOPIC',
  },
  {
    name: 'a value of a configuration key',
    at: () => create('valued', 1, { 'segment.bytes': '16384' }),
    past: () => create('valued', 1, { 'segment.bytes': '16383' }),
    reason: 'INVALID_CONFIG',
  },
  {
    name: 'size of a page',
    at: () => running.raw.call('AdminService', 'ListTopics', { pageSize: 0 }),
    past: () => running.raw.call('AdminService', 'ListTopics', { pageSize: -1 }),
    reason: 'INVALID_REQUEST',
  },
  {
    name: 'positions of a fetch',
    at: () => fetchPositions(10_000),
    past: () => fetchPositions(10_001),
    reason: 'INVALID_REQUEST',
  },
];

describe('one past the limit is refused with its reason (invariant 21)', () => {
  for (const { name, at, past, reason } of CASES) {
    test(name, async (context) => {
      const programme = new Programme(context, 1);
      await at();
      const failure = await rejection(past(), reason);
      expect(failure.outcome).toBe('none');
      programme.tried('limits');
    });
  }

  test('partitions.max', async () => {
    for (const name of ['a', 'b']) await running.raw.createTopic(name, 10);
    await running.raw.createTopic('c', 9);
    await rejection(running.raw.createTopic('d', 1), 'RESOURCE_LIMIT');
  });

  test('streams.max', async () => {
    const positions = [{ topic: 't', topicId: '', partition: 0, offset: 0 }];
    const failures: Error[] = [];
    const open = Array.from({ length: LIMITS.maxStreams }, () => () => {
      const stream = running.raw.fetchStream({ positions });
      stream.on('error', (error) => failures.push(error));
      stream.on('data', () => undefined);
      return stream;
    });
    const describeCluster = (): Promise<unknown> => running.raw.call('AdminService', 'DescribeCluster', {});
    const streams = open.slice(1).map((start) => start());
    // There is room for one more.
    await describeCluster();
    streams.push(open[0]!());
    await rejection(describeCluster(), 'RESOURCE_LIMIT');
    expect(failures).toEqual([]);
    for (const stream of streams) stream.cancel();
  });

  test('connections.max', async () => {
    const sockets = await Promise.all(
      Array.from({ length: LIMITS.maxConnections }, () => idleConnection(running.broker.address)),
    );
    // The client of these tests has one of them.
    await until(() => sockets.filter((socket) => socket.destroyed).length === 1, 'one too many was closed');
    await running.raw.call('AdminService', 'DescribeCluster', {});
    for (const socket of sockets) socket.destroy();
  });
});
