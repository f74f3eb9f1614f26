/**
 * Invariants 1, 2 and 4 under `kill -9`: what was acknowledged is there, at its offset, unchanged, for ever.
 *
 * The real command line in a process of its own is killed at a random moment while several producers send through the
 * SDK, and started again on the same data. After each start everything ever acknowledged is compared with the log.
 */
import { rmSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { type Client, connect, type PartitionRange, type Producer, string, topic } from '../../src/index.js';
import { BrokerProcess } from '../support/broker-process.js';
import { randomFrom } from '../support/random.js';

const LONG = process.env.TEST_LONG !== undefined;
const ROUNDS = LONG ? 500 : 20;
const PARTITIONS = 4;
/** Acknowledgements in one round before the kill: at least 1, at most this. */
const MAX_ACKS_BEFORE_KILL = 3000;
const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));

const random = randomFrom(seed);
const orders = topic('orders', { value: string() });
const dataDir = BrokerProcess.temporaryDirectory();

/** The broker of the round, so that a failure leaves none behind. */
let running: BrokerProcess | undefined;

afterAll(async () => {
  await running?.stop('SIGKILL');
  rmSync(dataDir, { recursive: true, force: true });
});

/** By partition: offset -> value, of every acknowledged record. */
const acknowledged = Array.from({ length: PARTITIONS }, () => new Map<number, string>());
/** By partition: what the log held when it was last read, by offset. */
let verified: string[][] = Array.from({ length: PARTITIONS }, () => []);

let acks = 0;

function acknowledge(partition: number, offset: number, value: string): void {
  const known = acknowledged[partition]?.get(offset);
  if (known !== undefined && known !== value) {
    throw new Error(`offset ${offset} of partition ${partition} was given to ${known} and to ${value}`);
  }
  acknowledged[partition]?.set(offset, value);
  acks++;
}

/** Sends one record after the other, `window` unanswered at once, until the producer fails. */
async function sendSingly(producer: Producer, name: string, window: number): Promise<void> {
  let failed = false;
  let next = 0;
  const worker = async (): Promise<void> => {
    while (!failed) {
      const value = `${name}-${next++}`;
      const result = await producer.send(orders, { value, partition: next % PARTITIONS }).catch(() => undefined);
      if (result === undefined) failed = true;
      else acknowledge(result.partition, result.offset, value);
    }
  };
  await Promise.all(Array.from({ length: window }, worker));
}

/** Records of other producers may lie between the first and the last of a call: then only those two are known. */
function acknowledgeRange(range: PartitionRange, values: readonly string[]): void {
  const { partition, firstOffset, lastOffset, count } = range;
  expect(count).toBe(values.length);
  const contiguous = lastOffset - firstOffset + 1 === count;
  for (const [index, value] of values.entries()) {
    if (contiguous || index === 0) acknowledge(partition, firstOffset + index, value);
    else if (index === count - 1) acknowledge(partition, lastOffset, value);
  }
}

/** Sends many records a call to one partition until the producer fails. */
async function sendMany(producer: Producer, name: string, partition: number): Promise<void> {
  for (let call = 0; ; call++) {
    const values = Array.from({ length: 50 }, (_, i) => `${name}-${call}-${i}`.padEnd(120, '.'));
    const records = values.map((value) => ({ value, partition }));
    const result = await producer.sendMany(orders, records).catch(() => undefined);
    if (result === undefined) return;
    for (const range of result.partitions) acknowledgeRange(range, values);
  }
}

async function loadUntilKilled(broker: BrokerProcess, round: number): Promise<void> {
  const client = await connect(broker.address);
  const durable = client.producer({ acks: 'durable', lingerMs: 1, closeTimeoutMs: 0 });
  const written = client.producer({ acks: 'written', lingerMs: 1, compression: 'lz4', closeTimeoutMs: 0 });
  const many = client.producer({ acks: 'durable', lingerMs: 1, batchBytes: 4096, closeTimeoutMs: 0 });
  const load = Promise.all([
    sendSingly(durable, `r${round}-durable`, 32),
    sendSingly(written, `r${round}-written`, 32),
    sendMany(many, `r${round}-many`, round % PARTITIONS),
  ]);
  const target = acks + 1 + Math.floor(random() * MAX_ACKS_BEFORE_KILL);
  while (acks < target) await new Promise((resolve) => setImmediate(resolve));
  await broker.stop('SIGKILL');
  // What is still unanswered fails now instead of being tried again.
  await client.close();
  await load;
}

async function readAll(client: Client): Promise<string[][]> {
  const values: string[][] = Array.from({ length: PARTITIONS }, () => []);
  for await (const record of client.read(orders, { from: 'earliest', to: 'end' })) {
    const partition = values[record.partition];
    expect(record.offset).toBe(partition?.length);
    partition?.push(record.value);
  }
  return values;
}

async function verify(broker: BrokerProcess): Promise<void> {
  await using client = await connect(broker.address);
  const found = await readAll(client);
  for (const [partition, values] of found.entries()) {
    for (const [offset, value] of acknowledged[partition] ?? []) {
      if (values[offset] !== value) {
        throw new Error(`partition ${partition}, offset ${offset}: acknowledged ${value}, found ${values[offset]}`);
      }
    }
    const before = verified[partition] ?? [];
    expect(values.slice(0, before.length)).toEqual(before);
  }
  verified = found;
}

test(
  `${ROUNDS} kills under load lose and change no acknowledged record (invariants 1, 2, 4)`,
  async () => {
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const broker = await BrokerProcess.start(dataDir);
        running = broker;
        if (round === 0) {
          await using client = await connect(broker.address);
          // Small segments, so that kills meet rolls as well.
          await client.admin.createTopic({
            name: 'orders',
            partitions: PARTITIONS,
            configs: { 'segment.bytes': '65536' },
          });
        } else {
          await verify(broker);
        }
        await loadUntilKilled(broker, round);
      }
      const broker = await BrokerProcess.start(dataDir);
      running = broker;
      await verify(broker);
      await broker.stop('SIGTERM');
    } catch (error) {
      console.error(`repeat with: TEST_SEED=${seed} npx vitest run test/crash/kill.test.ts`);
      throw error;
    }
    expect(acks).toBeGreaterThan(ROUNDS);
  },
  LONG ? 3_600_000 : 120_000,
);
