/** What a broker with very many partitions needs to start, and to do nothing. */
import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bytes, connect, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';

const PARTITIONS = 5_000;
/** Whatever a start leaves to be done afterwards is over by then. */
const SETTLE_MS = 2_000;
const IDLE_MS = 20_000;

/** A broker after its start, with nothing to do. */
export interface IdleBroker {
  readonly startMs: number;
  /** Share of one core. */
  readonly cpuPercent: number;
  readonly residentMegabytes: number;
  readonly openFiles: number;
}

export interface ManyPartitionsResult {
  readonly empty: IdleBroker;
  readonly full: IdleBroker;
}

/** Starts after a clean stop with a record in each of 5,000 partitions, beside starts with none. */
export async function manyPartitions(): Promise<ManyPartitionsResult> {
  const dataDir = BrokerProcess.temporaryDirectory();
  try {
    await stopped(dataDir, async () => {});
    const empty = await idle(dataDir);
    await stopped(dataDir, fill);
    return { empty, full: await idle(dataDir) };
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function stopped(dataDir: string, work: (address: string) => Promise<void>): Promise<void> {
  const broker = await BrokerProcess.start(dataDir);
  try {
    await work(broker.address);
  } finally {
    await broker.stop('SIGTERM');
  }
  // A broker that ran out of time on its way out scans its log at the next start, which is another figure.
  if (!existsSync(path.join(dataDir, '.clean_shutdown'))) throw new Error('the broker did not stop cleanly');
}

async function idle(dataDir: string): Promise<IdleBroker> {
  const broker = await BrokerProcess.start(dataDir);
  try {
    await sleep(SETTLE_MS);
    const cpuBefore = broker.cpuSeconds;
    await sleep(IDLE_MS);
    return {
      startMs: broker.startSeconds * 1000,
      cpuPercent: ((broker.cpuSeconds - cpuBefore) / (IDLE_MS / 1000)) * 100,
      residentMegabytes: broker.residentBytes / 1e6,
      openFiles: broker.openFileCount,
    };
  } finally {
    await broker.stop('SIGTERM');
  }
}

async function fill(address: string): Promise<void> {
  await using client = await connect(address, { requestTimeoutMs: 120_000 });
  await client.admin.createTopic({ name: 'bench', partitions: PARTITIONS });
  await using producer = client.producer({ acks: 'durable' });
  const to = topic('bench', { value: bytes() });
  const value = Buffer.alloc(100, 'x');
  const records = Array.from({ length: PARTITIONS }, (_, partition) => ({ value, partition }));
  await producer.sendMany(to, records);
}
