/** A broker process under more than it can take: its memory, and whether others are still served. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { RawClient } from '../listeners/grpc/support.js';
import { BrokerProcess } from '../support/broker-process.js';
import { GoodClient } from '../support/good-client.js';
import { inForm, Programme } from '../support/programme.js';
import { Flood, type Held, halfRequests, idleConnection, request, slowReader } from './clients.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** What is configured here. */
const LIMITS = {
  inflightTotalBytes: 32 * MIB,
  requestMaxBytes: 2 * MIB,
  tailCacheBytes: 2 * MIB,
  connections: 2_300,
  streams: 2_000,
  partitions: 3_000,
};

/** The sum that docs/operations.md gives under "Memory". No compaction runs here. */
const MEMORY_BUDGET_BYTES =
  256 * MIB +
  4 * LIMITS.inflightTotalBytes +
  LIMITS.tailCacheBytes +
  32 * KIB * LIMITS.connections +
  16 * KIB * LIMITS.streams +
  16 * KIB * LIMITS.partitions;

const FLAGS = [
  ['--inflight-total-bytes', LIMITS.inflightTotalBytes],
  ['--inflight-connection-bytes', 8 * MIB],
  ['--inflight-stream-bytes', MIB],
  ['--request-max-bytes', LIMITS.requestMaxBytes],
  ['--tail-cache-bytes', LIMITS.tailCacheBytes],
  ['--connections-max', LIMITS.connections],
  ['--streams-max', LIMITS.streams],
  ['--partitions-max', LIMITS.partitions],
  ['--log-disk-reserve-bytes', 0],
  // It warns of what is done to it here.
  ['--log-level', 'error'],
].flatMap(([flag, value]) => [String(flag), String(value)]);

const LARGE_TOPIC = 'large';
/** How long each pressure lasts. */
const PRESSURE_MS = inForm({ short: 1_500, long: 10_000 });
const ROUNDS = inForm({ short: 1, long: 9 });

function batchOf(valueBytes: number): Buffer {
  const value = Buffer.alloc(valueBytes, 'x');
  return encodeBatch([{ timestampMs: Date.UTC(2026, 0, 1), key: null, value, headers: [] }]);
}

async function fillLargeTopic(address: string): Promise<void> {
  const raw = new RawClient(address);
  await raw.createTopic(LARGE_TOPIC, 1, { 'retention.bytes': String(256 * MIB), 'segment.bytes': String(64 * MIB) });
  for (let count = 0; count < 64; count++) {
    await raw.produce({ topic: LARGE_TOPIC, acks: 'ACKS_WRITTEN', batches: [batchOf(MIB - KIB)] });
  }
  raw.close();
}

function times<T>(count: number, make: () => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, make));
}

/** What is done to the broker, by its name in the table. */
type Pressure = (address: string) => Promise<readonly Held[]>;

async function idle(address: string): Promise<readonly Held[]> {
  const sockets = await times(2_000, () => idleConnection(address));
  return sockets.map((socket) => ({ close: () => socket.destroy() }));
}

async function flood(address: string): Promise<readonly Held[]> {
  const produce = { topic: LARGE_TOPIC, acks: 3, batches: [batchOf(100_000)] };
  const message = request('ProduceStreamRequest', { correlationId: 1, request: produce });
  return await times(20, () => Flood.start(address, 10, message));
}

const PRESSURES: Readonly<Record<string, Pressure>> = {
  'idle connections': idle,
  'slow readers': (address) => times(200, () => slowReader(address, LARGE_TOPIC)),
  'slow readers on one connection': async (address) => [await slowReader(address, LARGE_TOPIC, 500)],
  'requests that never end': (address) => times(4, () => halfRequests(address, 100, 2 * LIMITS.requestMaxBytes)),
  'producers faster than the disk': flood,
};

/** Resolves when the pressure is over and everybody else was served all along. */
async function press(broker: BrokerProcess, good: GoodClient, pressure: Pressure): Promise<void> {
  const held = await pressure(broker.address);
  try {
    await sleep(PRESSURE_MS);
    await good.expectServed();
  } finally {
    for (const each of held) each.close();
  }
  expect(broker.peakResidentBytes).toBeLessThan(MEMORY_BUDGET_BYTES);
}

test(
  'memory stays within the budget whatever clients do, and others are served (invariants 21, 22)',
  async (context) => {
    const programme = new Programme(context);
    const broker = await BrokerProcess.start(undefined, FLAGS, { watched: true });
    try {
      await fillLargeTopic(broker.address);
      const good = await GoodClient.start(broker.address);
      await broker.vitals('forget');
      for (let round = 0; round < ROUNDS; round++) {
        for (const [name, pressure] of Object.entries(PRESSURES)) {
          await press(broker, good, pressure);
          programme.tried(name);
        }
      }
      // Everything at once.
      await press(broker, good, async (address) =>
        (await Promise.all(Object.values(PRESSURES).map((pressure) => pressure(address)))).flat(),
      );
      await good.stop();
      expect((await broker.vitals()).longestMs).toBeLessThan(200);
    } finally {
      await broker.stopAndRemove();
    }
  },
  inForm({ short: 240_000, long: 1_200_000 }),
);

test('thousands of partitions stay within the budget (invariant 21)', async (context) => {
  const programme = new Programme(context);
  const broker = await BrokerProcess.start(undefined, FLAGS);
  const raw = new RawClient(broker.address);
  try {
    const before = broker.residentBytes;
    const partitionCount = inForm({ short: 1_000, long: LIMITS.partitions });
    await raw.createTopic('many', partitionCount);
    const records = [{ offset: 0, timestampMs: 0, value: Buffer.from('v'), headers: [] }];
    await Promise.all(
      Array.from({ length: partitionCount }, (_, partition) =>
        raw.produce({ topic: 'many', partition, acks: 'ACKS_WRITTEN', records }),
      ),
    );
    expect(broker.peakResidentBytes - before).toBeLessThan(64 * MIB + 16 * KIB * partitionCount);
    programme.tried('partitions', partitionCount);
  } finally {
    raw.close();
    await broker.stopAndRemove();
  }
}, 120_000);
