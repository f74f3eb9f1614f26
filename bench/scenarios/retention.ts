/** What deletion by retention costs those who append meanwhile. */
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { bytes, type Client, connect, type Producer, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { type PacedResult, paced } from '../support/load.js';

const MIB = 1024 * 1024;
const RECORD_BYTES = 1024;
/** 250 records of 1 KiB every 5 ms: 51 MB/s. */
const TICK_MS = 5;
const RECORDS_PER_TICK = 250;
/** Each topic in turn has the load for this long; what one of them left behind is over before the other's turn. */
const SLICE_MS = 5_000;
const SLICES = 3;
const WARM_UP_MS = 2_000;
const SETTLE_MS = 1_500;
const CHECK_INTERVAL_MS = 500;
/** At 51 MB/s each check finds one or two segments to delete. */
const SEGMENT_BYTES = 16 * MIB;
const RETENTION_BYTES = 64 * MIB;

/** One topic's part of the load. */
export interface AppendFigures {
  /** Acknowledgement latencies in ms. */
  readonly latenciesMs: readonly number[];
  readonly megabytesPerSecond: number;
}

export interface RetentionResult {
  readonly kept: AppendFigures;
  readonly deleted: AppendFigures;
}

/** The same paced, durable load in turn on a topic that keeps everything and one that must delete as much as it gets. */
export async function appendsWhileRetentionDeletes(): Promise<RetentionResult> {
  const dataDir = BrokerProcess.temporaryDirectory();
  try {
    const flags = ['--log-retention-check-interval-ms', String(CHECK_INTERVAL_MS)];
    const broker = await BrokerProcess.start(dataDir, flags);
    try {
      await using client = await connect(broker.address);
      const common = { 'segment.bytes': SEGMENT_BYTES, 'file.delete.delay.ms': CHECK_INTERVAL_MS };
      await client.admin.createTopic({ name: 'kept', partitions: 1, configs: common });
      const limited = { ...common, 'retention.bytes': RETENTION_BYTES };
      await client.admin.createTopic({ name: 'deleted', partitions: 1, configs: limited });
      const result = await alternate(client);
      await checkDeleted(client);
      return result;
    } finally {
      await broker.stop('SIGKILL');
    }
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function alternate(client: Client): Promise<RetentionResult> {
  await using producer = client.producer({ acks: 'durable', lingerMs: 0, maxInFlight: 16, idempotent: false });
  const names = ['kept', 'deleted'] as const;
  for (const name of names) await load(producer, name, WARM_UP_MS);
  const slices = { kept: [] as PacedResult[], deleted: [] as PacedResult[] };
  for (let i = 0; i < SLICES; i++) {
    // First the one, then the other, so that neither always comes after the same.
    for (const name of i % 2 === 0 ? names : names.toReversed()) {
      await sleep(SETTLE_MS);
      slices[name].push(await load(producer, name, SLICE_MS));
    }
  }
  return { kept: figuresOf(slices.kept), deleted: figuresOf(slices.deleted) };
}

function load(producer: Producer, name: string, durationMs: number): Promise<PacedResult> {
  const to = topic(name, { value: bytes() });
  const chunk = Array.from({ length: RECORDS_PER_TICK }, () => ({ value: Buffer.alloc(RECORD_BYTES, 'x') }));
  return paced(durationMs / TICK_MS, TICK_MS, () => producer.sendMany(to, chunk));
}

function figuresOf(slices: readonly PacedResult[]): AppendFigures {
  const latenciesMs = slices.flatMap((slice) => slice.latenciesMs);
  const seconds = slices.reduce((sum, slice) => sum + slice.seconds, 0);
  return { latenciesMs, megabytesPerSecond: (latenciesMs.length * RECORDS_PER_TICK * RECORD_BYTES) / seconds / 1e6 };
}

/** Without deletions the comparison would compare nothing. */
async function checkDeleted(client: Client): Promise<void> {
  const { partitions } = await client.admin.getTopic('deleted');
  const [log] = partitions;
  if (log === undefined || log.logStartOffset === 0) throw new Error('retention has deleted nothing');
}
