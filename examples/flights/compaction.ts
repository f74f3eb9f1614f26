/** The last flight of each airport, kept by compaction: the log forgets what later records have made obsolete. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, json, type RecordInput, string, topic } from 'tidelog';
import { departureMs, type Flight } from './data.js';
import { type Checks, Step } from './report.js';

const latestTopic = topic('latest-flights', { key: string(), value: json<Flight>() });
/** Compaction leaves the segment that takes the appends alone, so small ones show more. */
const SEGMENT_BYTES = 256 * 1024;
/** More would take longer without showing more. */
const MAX_COPIES = 10;
const COMPACTION_LIMIT_MS = 60_000;

export async function keepLatest(
  client: Client,
  flights: readonly Flight[],
  copies: number,
  checks: Checks,
): Promise<void> {
  const { admin } = client;
  await admin.createTopic({
    name: latestTopic.name,
    partitions: 1,
    configs: { 'cleanup.policy': 'compact', 'segment.bytes': SEGMENT_BYTES },
  });
  await write(client, flights, Math.min(copies, MAX_COPIES));
  const before = await sizeOf(client);
  // An altered value acts at once: the cleaner looks again.
  await admin.updateTopic({ name: latestTopic.name, configs: { 'min.cleanable.dirty.ratio': 0.01 } });
  const after = await compacted(client, before);
  console.log(`  compacted                ${mib(before)} MiB have become ${mib(after)} MiB`);

  const expected = new Map(flights.map((flight) => [flight.origin, flight]));
  const table = new Map<string | null, Flight>();
  let lastOffset = -1;
  let disorder = 0;
  for await (const { key, value, offset } of client.read(latestTopic, { from: 'earliest', to: 'end' })) {
    if (offset <= lastOffset) disorder++;
    lastOffset = offset;
    table.set(key, value);
  }
  const [{ offset: end } = { offset: -1 }] = await admin.listOffsets(latestTopic, 'latest');
  checks.check('compaction left less than a tenth of it', after < before / 10);
  checks.check(
    `a reader from the start ends with the last flight of each of ${expected.size} airports`,
    isSame(table, expected),
  );
  checks.check('offsets are as they were, with holes', disorder === 0 && lastOffset === end - 1);
}

async function write(client: Client, flights: readonly Flight[], copies: number): Promise<void> {
  const step = new Step('written to be compacted', flights.length * copies);
  await using producer = client.producer();
  await producer.sendMany(latestTopic, records(flights, copies, step));
  step.end();
}

function* records(flights: readonly Flight[], copies: number, step: Step): Iterable<RecordInput<string, Flight>> {
  for (let copy = 0; copy < copies; copy++) {
    for (const flight of flights) {
      yield { key: flight.origin, value: flight, timestampMs: departureMs(flight) };
      step.add(JSON.stringify(flight).length);
    }
  }
}

async function sizeOf(client: Client): Promise<number> {
  const { partitions } = await client.admin.getTopic(latestTopic.name);
  return partitions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

/** The size once it has fallen; what it is at the end of the limit otherwise, which the check then refuses. */
async function compacted(client: Client, before: number): Promise<number> {
  const limit = performance.now() + COMPACTION_LIMIT_MS;
  for (;;) {
    const size = await sizeOf(client);
    if (size < before / 10 || performance.now() > limit) return size;
    await sleep(50);
  }
}

function isSame(table: ReadonlyMap<string | null, Flight>, expected: ReadonlyMap<string, Flight>): boolean {
  if (table.size !== expected.size) return false;
  return [...expected].every(([origin, flight]) => JSON.stringify(table.get(origin)) === JSON.stringify(flight));
}

function mib(bytes: number): string {
  return (bytes / 1024 / 1024).toFixed(2);
}
