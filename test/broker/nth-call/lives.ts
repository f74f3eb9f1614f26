/** What happens to a broker between its start and its end: scenarios through which faults are sent. */
import { CLEANER_BACKOFF_MS, type CrashLeaves, FaultyBroker, RETENTION_INTERVAL_MS } from './faulty-broker.js';

export interface Life {
  readonly name: string;
  /** The broker before its start, with what its disk holds. No fault happens by then. */
  readonly prepare: () => Promise<FaultyBroker>;
  /** From after the start to before the stop. Every step goes on whatever the one before has come to. */
  readonly live: (broker: FaultyBroker) => Promise<void>;
}

const BRIEF = { 'file.delete.delay.ms': '1000' };
const COMPACTED = { ...BRIEF, 'cleanup.policy': 'compact', 'min.cleanable.dirty.ratio': '0.01' };
const RECENT = { ...BRIEF, 'retention.records': '2' };

/** Longer than all periods: checks of retention, looks of the cleaner, recovery points, removals, second attempts. */
export const LONG_WHILE_MS: number = 60_000;

async function newBroker(): Promise<FaultyBroker> {
  return new FaultyBroker();
}

async function produceTo(broker: FaultyBroker, topic: string, partition: number, count: number): Promise<void> {
  if (!broker.isThere(topic)) return;
  for (let i = 0; i < count; i++) await broker.produce(topic, partition, 'durable', `key ${i % 2}`);
}

/** Everything that a broker does, once. */
async function liveFully(broker: FaultyBroker): Promise<void> {
  await broker.create('orders', 2, BRIEF);
  await broker.create('state', 1, COMPACTED);
  await broker.create('recent', 1, RECENT);
  for (let i = 0; i < 4 && broker.isThere('orders'); i++) {
    await Promise.all([broker.produce('orders', 0, 'durable'), broker.produce('orders', 1, 'written')]);
  }
  await broker.pass(100);
  await produceTo(broker, 'state', 0, 6);
  await produceTo(broker, 'recent', 0, 4);
  await broker.pass(CLEANER_BACKOFF_MS);
  await broker.pass(RETENTION_INTERVAL_MS);
  if (broker.isThere('orders')) {
    await broker.listByTime('orders');
    if (broker.highWatermark('orders', 0) >= 3) await broker.deleteRecords('orders', 0, 3);
    await broker.setFlushMs('orders', '7');
    if (await broker.addPartitions('orders', 3)) await broker.produce('orders', 2, 'durable');
    await broker.produce('orders', 1, 'durable');
  }
  if (broker.isThere('recent')) await broker.delete('recent');
  await broker.pass(10_000);
  if (broker.isThere('orders')) await broker.produce('orders', 0, 'written');
}

export const FULL_LIFE: Life = { name: 'the whole life of a broker', prepare: newBroker, live: liveFully };

/** A broker that was killed, or lost its power, after a whole life. */
async function killed(left: CrashLeaves): Promise<FaultyBroker> {
  const broker = new FaultyBroker();
  await broker.start();
  await liveFully(broker);
  const again = new FaultyBroker(broker.ledger, broker.crash(left));
  if (left === 'what was synced') broker.ledger.forgetWritten();
  broker.ledger.beginAnew();
  return again;
}

async function goOn(broker: FaultyBroker): Promise<void> {
  await broker.settled();
  for (const { name, partitionCount } of broker.ledger.topicsThere()) {
    for (let partition = 0; partition < partitionCount; partition++) await produceTo(broker, name, partition, 3);
  }
  await broker.pass(CLEANER_BACKOFF_MS);
}

async function liveWide(broker: FaultyBroker): Promise<void> {
  await broker.create('orders', 12, BRIEF);
  for (let round = 0; round < 3 && broker.isThere('orders'); round++) {
    await Promise.all(Array.from({ length: 12 }, (_, index) => broker.produce('orders', index, 'durable')));
  }
  if (broker.isThere('orders')) await broker.addPartitions('orders', 24);
  await broker.pass(10_000);
  if (broker.isThere('orders')) await broker.delete('orders');
  await broker.pass(10_000);
}

async function liveCompacting(broker: FaultyBroker): Promise<void> {
  await broker.create('state', 2, COMPACTED);
  for (let round = 0; round < 4; round++) {
    await produceTo(broker, 'state', 0, 5);
    await produceTo(broker, 'state', 1, 3);
    await broker.pass(CLEANER_BACKOFF_MS);
  }
  if (broker.highWatermark('state', 0) > 8) await broker.deleteRecords('state', 0, 8);
  await produceTo(broker, 'state', 0, 5);
  await broker.pass(LONG_WHILE_MS);
}

async function liveRemoving(broker: FaultyBroker): Promise<void> {
  await broker.create('recent', 2, RECENT);
  await broker.create('orders', 1, BRIEF);
  for (let round = 0; round < 3; round++) {
    await produceTo(broker, 'recent', round % 2, 5);
    await produceTo(broker, 'orders', 0, 3);
    await broker.pass(RETENTION_INTERVAL_MS);
    const end = broker.highWatermark('orders', 0);
    if (end > 0) await broker.deleteRecords('orders', 0, end);
  }
  for (const name of ['recent', 'orders']) if (broker.isThere(name)) await broker.delete(name);
  await broker.pass(10_000);
}

export const FURTHER_LIVES: readonly Life[] = [
  { name: 'a start after a kill', prepare: () => killed('everything'), live: goOn },
  { name: 'a start after a power cut', prepare: () => killed('what was synced'), live: goOn },
  { name: 'many partitions', prepare: newBroker, live: liveWide },
  { name: 'compaction again and again', prepare: newBroker, live: liveCompacting },
  { name: 'retention and deletion', prepare: newBroker, live: liveRemoving },
];
