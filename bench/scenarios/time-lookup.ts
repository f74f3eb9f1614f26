/** How long it takes to find a time in a long partition, and how much of the log is read for it. */
import { rmSync } from 'node:fs';
import { bytes, type Client, connect, type OffsetSpec, type RecordInput, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { randomFrom } from '../../test/support/random.js';

const RECORDS = 10_000_000;
const CHUNK_RECORDS = 100_000;
const VALUE = Buffer.alloc(20, 'x');
/** Records are 1 ms apart and up to this much out of order. */
const JITTER_MS = 1_000;
const LOOKUPS = 200;

export interface TimeLookupResult {
  /** After the start of the broker, with nothing in its memory. */
  readonly firstMs: number;
  readonly lookupsMs: readonly number[];
  /** The same call for the latest offset, which reads nothing. */
  readonly baselineMs: readonly number[];
  /** Bytes of a lookup that the broker read from files. */
  readonly readBytesEach: number;
}

/** Lookups of random times in 10 million records of one partition, by a broker that was just started. */
export async function timeLookup(): Promise<TimeLookupResult> {
  const dataDir = BrokerProcess.temporaryDirectory();
  const random = randomFrom(0x7ede106);
  // The last record is not in the future.
  const firstTimestampMs = Date.now() - RECORDS - JITTER_MS;
  try {
    const writing = await BrokerProcess.start(dataDir);
    try {
      await fill(writing.address, firstTimestampMs, random);
    } finally {
      await writing.stop('SIGTERM');
    }
    const broker = await BrokerProcess.start(dataDir);
    try {
      return await measure(broker, firstTimestampMs, random);
    } finally {
      await broker.stop('SIGKILL');
    }
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function fill(address: string, firstTimestampMs: number, random: () => number): Promise<void> {
  await using client = await connect(address);
  await client.admin.createTopic({ name: 'bench', partitions: 1 });
  await using producer = client.producer({ acks: 'written', maxInFlight: 16, idempotent: false });
  const to = topic('bench', { value: bytes() });
  for (let sent = 0; sent < RECORDS; sent += CHUNK_RECORDS) {
    await producer.sendMany(to, chunkFrom(sent, firstTimestampMs, random));
  }
}

function* chunkFrom(
  first: number,
  firstTimestampMs: number,
  random: () => number,
): Generator<RecordInput<string, Uint8Array>> {
  for (let i = first; i < first + CHUNK_RECORDS; i++) {
    const jitterMs = Math.floor(random() * JITTER_MS);
    yield { value: VALUE, partition: 0, timestampMs: firstTimestampMs + i + jitterMs };
  }
}

async function measure(
  broker: BrokerProcess,
  firstTimestampMs: number,
  random: () => number,
): Promise<TimeLookupResult> {
  await using client = await connect(broker.address);
  const lookUp = async (): Promise<number> => {
    const wanted = firstTimestampMs + JITTER_MS + Math.floor(random() * (RECORDS - 2 * JITTER_MS));
    return timed(client, { timestampMs: wanted }, (offset) => checkNear(offset, wanted - firstTimestampMs));
  };
  const firstMs = await lookUp();
  const start = broker.readBytes;
  const baselineMs = await repeat(() => timed(client, 'latest', checkLatest));
  const between = broker.readBytes;
  const lookupsMs = await repeat(lookUp);
  // What both read from their socket cancels out.
  const readBytesEach = (broker.readBytes - between - (between - start)) / LOOKUPS;
  return { firstMs, lookupsMs, baselineMs, readBytesEach };
}

async function repeat(work: () => Promise<number>): Promise<number[]> {
  const times: number[] = [];
  while (times.length < LOOKUPS) times.push(await work());
  return times;
}

/** Time of one ListOffsets in ms. */
async function timed(client: Client, spec: OffsetSpec, check: (offset: number) => void): Promise<number> {
  const start = performance.now();
  const [found] = await client.admin.listOffsets('bench', spec);
  const elapsedMs = performance.now() - start;
  check(found?.offset ?? -1);
  return elapsedMs;
}

/** A record so far from where its time lies would be a wrong answer, however fast. */
function checkNear(offset: number, expected: number): void {
  if (Math.abs(offset - expected) > JITTER_MS) throw new Error(`found offset ${offset} instead of about ${expected}`);
}

function checkLatest(offset: number): void {
  if (offset !== RECORDS) throw new Error(`the log ends at ${offset} instead of ${RECORDS}`);
}
