/** How long a broker leaves its clients without an answer while it compacts a large partition. */
import { execFile } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bytes, type Client, connect, string, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { Probe, probeFor } from '../support/load.js';

const run = promisify(execFile);

const MIB = 1024 * 1024;
const TOTAL_BYTES = 1024 * MIB;
const SEGMENT_BYTES = 128 * MIB;
const VALUE_BYTES = 1024;
const KEYS = 100_000;
const CHUNK_RECORDS = 10_000;
/** Longer than any benchmark: the cleaner does not begin. */
const NEVER_MS = 86_400_000;
const IDLE_PROBE_MS = 5_000;
/** Sizes and memory are looked at this often. */
const SAMPLE_MS = 250;
/** The log is compacted when it has shrunk and not changed for this long. */
const UNCHANGED_MS = 5_000;
const LIMIT_MS = 600_000;

/** Delays of the broker's event loop while it compacts, in ms, as the broker itself sees them. */
export interface EventLoopDelays {
  readonly longestMs: number;
  readonly p99Ms: number;
}

export interface CompactionResult {
  readonly eventLoop: EventLoopDelays;
  /** Answer times in ms. */
  readonly idleAnswersMs: readonly number[];
  readonly busyAnswersMs: readonly number[];
  /** Of the segments that could be compacted. */
  readonly megabytesPerSecond: number;
  readonly residentBefore: number;
  readonly residentPeak: number;
  /** Of the partition, in bytes. */
  readonly sizeBefore: number;
  readonly sizeAfter: number;
}

/** Writes 1 GiB of 100,000 keys with the cleaner at rest, starts the broker anew, and watches it while it compacts. */
export async function compaction(): Promise<CompactionResult> {
  const dataDir = BrokerProcess.temporaryDirectory();
  try {
    const resting = await BrokerProcess.start(dataDir, ['--log-cleaner-backoff-ms', String(NEVER_MS)]);
    const idleAnswersMs = await whileRunning(resting, async (client) => {
      await fill(client);
      await sleep(UNCHANGED_MS);
      return probeFor(client, IDLE_PROBE_MS);
    });
    const eventLoop = await eventLoopDelays(dataDir);
    const cleaning = await BrokerProcess.start(dataDir, ['--log-cleaner-backoff-ms', '100']);
    return await whileRunning(cleaning, async (client) => ({
      eventLoop,
      idleAnswersMs,
      ...(await watch(cleaning, client)),
    }));
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

/** Compacts a copy of the data. */
async function eventLoopDelays(dataDir: string): Promise<EventLoopDelays> {
  const copy = BrokerProcess.temporaryDirectory();
  const script = fileURLToPath(new URL('../children/compacting-broker.ts', import.meta.url));
  try {
    cpSync(dataDir, copy, { recursive: true });
    const { stdout } = await run(process.execPath, ['--import', 'tsx', script, copy]);
    return JSON.parse(stdout) as EventLoopDelays;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

async function whileRunning<T>(broker: BrokerProcess, work: (client: Client) => Promise<T>): Promise<T> {
  try {
    await using client = await connect(broker.address);
    return await work(client);
  } finally {
    await broker.stop('SIGTERM');
  }
}

async function fill(client: Client): Promise<void> {
  const configs = {
    'cleanup.policy': 'compact',
    'segment.bytes': SEGMENT_BYTES,
    'min.cleanable.dirty.ratio': 0.01,
    'file.delete.delay.ms': 1_000,
  };
  await client.admin.createTopic({ name: 'bench', partitions: 1, configs });
  await using producer = client.producer({ acks: 'written', maxInFlight: 16, idempotent: false });
  const to = topic('bench', { key: string(), value: bytes() });
  const value = Buffer.alloc(VALUE_BYTES, 'x');
  const records = TOTAL_BYTES / VALUE_BYTES;
  for (let sent = 0; sent < records; sent += CHUNK_RECORDS) {
    const length = Math.min(CHUNK_RECORDS, records - sent);
    // A step that shares no factor with the number of keys: they come in an order of their own, all equally often.
    const chunk = Array.from({ length }, (_, i) => ({ key: keyOf(((sent + i) * 7_919) % KEYS), value }));
    await producer.sendMany(to, chunk);
  }
}

/** Ten bytes. */
function keyOf(number: number): string {
  return `key-${String(number).padStart(6, '0')}`;
}

async function watch(
  broker: BrokerProcess,
  client: Client,
): Promise<Omit<CompactionResult, 'eventLoop' | 'idleAnswersMs'>> {
  const residentBefore = broker.residentBytes;
  await using probing = await connect(broker.address);
  const probe = new Probe(probing);
  const start = performance.now();
  const sizeBefore = await sizeOf(client);
  let residentPeak = residentBefore;
  let size = sizeBefore;
  let changedAt = start;
  while (size === sizeBefore || performance.now() - changedAt < UNCHANGED_MS) {
    if (performance.now() - start > LIMIT_MS) throw new Error('the partition was not compacted in time');
    await sleep(SAMPLE_MS);
    residentPeak = Math.max(residentPeak, broker.residentBytes);
    const now = await sizeOf(client);
    if (now !== size) changedAt = performance.now();
    size = now;
  }
  const busyAnswersMs = await probe.stop();
  const closedBytes = Math.floor(sizeBefore / SEGMENT_BYTES) * SEGMENT_BYTES;
  const megabytesPerSecond = closedBytes / ((changedAt - start) / 1000) / 1e6;
  return { busyAnswersMs, megabytesPerSecond, residentBefore, residentPeak, sizeBefore, sizeAfter: size };
}

async function sizeOf(client: Client): Promise<number> {
  const { partitions } = await client.admin.getTopic('bench');
  return partitions[0]?.sizeBytes ?? 0;
}
