import { type Acks, bytes, type Client, connect, type Topic, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { secondsOf } from '../support/stats.js';

export interface ProduceOptions {
  readonly records: number;
  readonly recordBytes: number;
  readonly batchBytes: number;
  readonly acks: Acks;
  /** One call for many records, or one promise per record. */
  readonly call: 'sendMany' | 'send';
}

export interface ProduceResult {
  readonly recordsPerSecond: number;
  readonly megabytesPerSecond: number;
  readonly brokerCpuSeconds: number;
}

type Values = Topic<string, Uint8Array>;

const CHUNK_RECORDS = 10_000;
/** A replay job reads for minutes; one pass over this backlog takes less than a second. */
const REPLAY_PASSES = 3;

async function sendAll(client: Client, to: Values, options: ProduceOptions, records: number): Promise<void> {
  const { acks, batchBytes, call } = options;
  await using producer = client.producer({ acks, batchBytes, lingerMs: 5, maxInFlight: 16, idempotent: false });
  const value = Buffer.alloc(options.recordBytes, 'x');
  const chunk = Array.from({ length: CHUNK_RECORDS }, () => ({ value, partition: 0 }));
  let pending: Promise<unknown>[] = [];
  for (let sent = 0; sent < records; sent += CHUNK_RECORDS) {
    if (call === 'sendMany') pending.push(producer.sendMany(to, chunk));
    else for (const record of chunk) pending.push(producer.send(to, record));
    // Waits for an earlier part, so that the client's own arrays stay small while the pipeline stays full.
    if (pending.length >= CHUNK_RECORDS * 8 || (call === 'sendMany' && pending.length >= 16)) {
      const half = pending.splice(0, pending.length >> 1);
      await Promise.all(half);
    }
  }
  await Promise.all(pending);
  pending = [];
}

/** One producer, one partition, client and broker in processes of their own. */
export async function produce(options: ProduceOptions): Promise<ProduceResult> {
  const broker = await BrokerProcess.start();
  try {
    await using client = await connect(broker.address);
    const name = 'bench';
    await client.admin.createTopic({ name, partitions: 1 });
    const to = topic(name, { value: bytes() });
    await sendAll(client, to, options, options.records >> 1); // warm-up
    const cpuBefore = broker.cpuSeconds;
    const seconds = await secondsOf(() => sendAll(client, to, options, options.records));
    const recordsPerSecond = options.records / seconds;
    return {
      recordsPerSecond,
      megabytesPerSecond: (recordsPerSecond * options.recordBytes) / 1e6,
      brokerCpuSeconds: broker.cpuSeconds - cpuBefore,
    };
  } finally {
    await broker.stopAndRemove();
  }
}

export interface ReplayResult {
  readonly recordsPerSecond: number;
  readonly megabytesPerSecond: number;
}

/** Reads a backlog as batches, every record visited with its value's position, CRC checked. */
export async function replay(options: ProduceOptions): Promise<ReplayResult> {
  const broker = await BrokerProcess.start();
  try {
    await using client = await connect(broker.address);
    const name = 'bench';
    await client.admin.createTopic({ name, partitions: 1 });
    const from = topic(name, { value: bytes() });
    await sendAll(client, from, options, options.records);
    for (let pass = 0; pass < REPLAY_PASSES; pass++) await readAll(client, from); // warm-up
    let records = 0;
    const seconds = await secondsOf(async () => {
      for (let pass = 0; pass < REPLAY_PASSES; pass++) records += await readAll(client, from);
    });
    if (records !== options.records * REPLAY_PASSES)
      throw new Error(`read ${records} records in ${REPLAY_PASSES} passes`);
    const recordsPerSecond = records / seconds;
    return { recordsPerSecond, megabytesPerSecond: (recordsPerSecond * options.recordBytes) / 1e6 };
  } finally {
    await broker.stopAndRemove();
  }
}

async function readAll(client: Client, from: Values): Promise<number> {
  let records = 0;
  let valueBytes = 0;
  for await (const batch of client.read(from, { from: 'earliest', to: 'end' }).batches()) {
    const cursor = await batch.cursor();
    while (cursor.next()) {
      records++;
      valueBytes += cursor.valueLength;
    }
  }
  if (valueBytes === 0) throw new Error('no value was read');
  return records;
}
