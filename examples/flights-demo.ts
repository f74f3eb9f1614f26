/**
 * Tidelog on real data: a quarter of US flights through a broker, across a restart, and back.
 *
 *     npm run demo
 *     npm run demo -- --copies 2     # shorter: each flight is written this many times
 *
 * Everything that is read is held against the file it came from. Exits with 1 when a check fails; leaves nothing behind.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type Client, connect, type RecordInput } from 'tidelog';
import { DemoBroker } from './flights/broker.js';
import { keepLatest } from './flights/compaction.js';
import {
  Delays,
  departureMs,
  type Flight,
  type FlightRecord,
  flightsByPartition,
  flightsTopic,
  loadFlights,
} from './flights/data.js';
import { sortExactlyOnce } from './flights/exactly-once.js';
import { handleInGroup } from './flights/group.js';
import { Checks, heading, Step } from './flights/report.js';

const PARTITIONS = 6;
/** One copy of the file would be over before one can watch. */
const DEFAULT_COPIES = 100;
const REPLAY_FROM = new Date('2001-03-01T00:00:00Z');
const SHOWN_AIRPORTS = 5;

/** What every step works with. */
interface Demo {
  readonly flights: readonly Flight[];
  /** By partition: the flights that belong there, in order. Each was written `copies` times in a row. */
  readonly expected: readonly (readonly Flight[])[];
  readonly copies: number;
  readonly total: number;
  readonly checks: Checks;
}

async function main(): Promise<number> {
  const demo = prepare();
  const directory = mkdtempSync(path.join(tmpdir(), 'tidelog-demo-'));
  const dataDir = path.join(directory, 'data');
  let broker: DemoBroker | undefined;
  const cleanUp = (): void => {
    broker?.kill();
    rmSync(directory, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      cleanUp();
      process.exit(1);
    });
  }
  try {
    heading('1. Start a broker and write every flight, keyed by its origin');
    broker = await start(dataDir);
    await withClient(broker, (client) => write(client, demo));

    heading('2. Stop the broker and start it again on the same data');
    demo.checks.check('the broker stopped cleanly', (await broker.stop()) === 0);
    broker = await start(dataDir);
    const { address } = broker;
    await withClient(broker, async (client) => {
      heading('3. Read everything back');
      await readAll(client, demo);
      heading('4. Replay');
      await replayFromTime(client, demo);
      await replayFromOffset(client, demo);
      heading('5. Compact: keep the last flight of each airport');
      await keepLatest(client, demo.flights, demo.copies, demo.checks);
      heading('6. A consumer group: three workers, one of them killed with -9, and a fourth');
      await handleInGroup(client, address, directory, demo.checks);
      heading('7. Exactly once: two workers sort the flights in transactions, one of them killed with -9');
      await sortExactlyOnce(client, address, demo.flights, demo.checks);
    });
    demo.checks.check('the broker stopped cleanly again', (await broker.stop()) === 0);
  } finally {
    cleanUp();
  }
  return conclude(demo.checks);
}

function prepare(): Demo {
  const { values } = parseArgs({ options: { copies: { type: 'string', default: String(DEFAULT_COPIES) } } });
  const copies = Number(values.copies);
  if (!Number.isInteger(copies) || copies < 1)
    throw new Error(`--copies takes a whole number from 1, not ${values.copies}`);
  const flights = loadFlights();
  const total = flights.length * copies;
  console.log(
    `${flights.length.toLocaleString('en-US')} flights from ${flights[0]?.date} to ${flights.at(-1)?.date}, ` +
      `each written ${copies} times: ${total.toLocaleString('en-US')} records.`,
  );
  return { flights, expected: flightsByPartition(flights, PARTITIONS), copies, total, checks: new Checks() };
}

async function start(dataDir: string): Promise<DemoBroker> {
  const broker = await DemoBroker.start(dataDir);
  console.log(`  tidelog serve is ready at ${broker.address} after ${Math.round(broker.startMs)} ms`);
  return broker;
}

async function withClient(broker: DemoBroker, work: (client: Client) => Promise<void>): Promise<void> {
  const client = await connect(broker.address, { clientId: 'flights-demo' });
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

async function write(client: Client, { flights, expected, copies, total, checks }: Demo): Promise<void> {
  // The flights are of 2001: under the default of seven days they would be deleted at the first check.
  await client.admin.createTopic({ name: flightsTopic.name, partitions: PARTITIONS, configs: { 'retention.ms': -1 } });
  const step = new Step('written, durable', total);
  const producer = client.producer({ compression: 'none' });
  const { count, partitions } = await producer.sendMany(flightsTopic, records(flights, copies, step));
  await producer.close();
  step.end();
  checks.check('every record was acknowledged as durable', count === total);
  const counts = new Map(partitions.map((range) => [range.partition, range.count]));
  const placed = expected.every((own, partition) => (counts.get(partition) ?? 0) === own.length * copies);
  checks.check(`keys went to the partitions that Kafka's Java client would choose`, placed);
}

/** The flights in order of their dates, which are the timestamps of their records. */
function* records(flights: readonly Flight[], copies: number, step: Step): Iterable<RecordInput<string, FlightRecord>> {
  for (const flight of flights) {
    const timestampMs = departureMs(flight);
    const bytes = JSON.stringify(flight).length;
    for (let copy = 0; copy < copies; copy++) {
      yield { key: flight.origin, value: { ...flight, copy }, timestampMs };
      step.add(bytes);
    }
  }
}

/** Whether a record is the very one that belongs at its offset. */
function isExpected(
  demo: Demo,
  record: { partition: number; offset: number; key: string | null; value: FlightRecord },
): boolean {
  const { partition, offset, key, value } = record;
  const flight = demo.expected[partition]?.[Math.floor(offset / demo.copies)];
  return (
    flight !== undefined &&
    key === flight.origin &&
    value.copy === offset % demo.copies &&
    value.origin === flight.origin &&
    value.date === flight.date &&
    value.delay === flight.delay &&
    value.distance === flight.distance &&
    value.destination === flight.destination
  );
}

async function readAll(client: Client, demo: Demo): Promise<void> {
  const { flights, copies, total, checks } = demo;
  const step = new Step('read from the earliest', total);
  const fromLog = new Delays();
  const nextOffsets = new Array<number>(PARTITIONS).fill(0);
  const lastOfKey = new Map<string, string>();
  let count = 0;
  let gaps = 0;
  let disorder = 0;
  let strangers = 0;
  for await (const batch of client.read(flightsTopic, { from: 'earliest', to: 'end' }).batches()) {
    for (const record of await batch.records()) {
      count++;
      if (record.offset !== nextOffsets[record.partition]) gaps++;
      nextOffsets[record.partition] = record.offset + 1;
      // The dates of the file are text that sorts as time does.
      const { origin, date } = record.value;
      if ((lastOfKey.get(origin) ?? '') > date) disorder++;
      lastOfKey.set(origin, date);
      if (!isExpected(demo, record)) strangers++;
      fromLog.add(record.value);
    }
    step.add(batch.sizeInBytes, batch.count);
  }
  step.end();
  checks.check('nothing is missing and nothing came twice', count === total && gaps === 0);
  checks.check(`order held for each of ${lastOfKey.size} airports`, disorder === 0);
  checks.check('every record is the one that the file says', strangers === 0);

  const fromFile = new Delays();
  for (const flight of flights) fromFile.add(flight, copies);
  checks.check('mean delay per airport is what the file gives', fromLog.equals(fromFile));
  console.log(`  Busiest airports, from the log:`);
  for (const { airport, count: departures, meanMinutes } of fromLog.means().slice(0, SHOWN_AIRPORTS)) {
    const number = (departures / copies).toLocaleString('en-US').padStart(6);
    console.log(`    ${airport}  ${number} departures, ${meanMinutes.toFixed(1).padStart(5)} min mean delay`);
  }
}

async function replayFromTime(client: Client, demo: Demo): Promise<void> {
  const { flights, copies, checks } = demo;
  const expectedCount = flights.filter((flight) => departureMs(flight) >= REPLAY_FROM.getTime()).length * copies;
  const day = REPLAY_FROM.toISOString().slice(0, 10);
  const step = new Step(`replayed from ${day}`, expectedCount);
  let count = 0;
  let wrong = 0;
  for await (const batch of client.read(flightsTopic, { from: REPLAY_FROM, to: 'end' }).batches()) {
    for (const record of await batch.records()) {
      count++;
      if (record.timestampMs < REPLAY_FROM.getTime() || !isExpected(demo, record)) wrong++;
    }
    step.add(batch.sizeInBytes, batch.count);
  }
  step.end();
  checks.check(`exactly the flights since ${day} came`, count === expectedCount && wrong === 0);
}

async function replayFromOffset(client: Client, demo: Demo): Promise<void> {
  const { expected, copies, checks } = demo;
  const partition = expected.reduce((best, own, at) => (own.length > (expected[best]?.length ?? 0) ? at : best), 0);
  const end = (expected[partition]?.length ?? 0) * copies;
  const from = Math.floor(end / 2);
  const step = new Step(`replayed from an offset`, end - from);
  let next = from;
  let wrong = 0;
  const reader = client.read(flightsTopic, { from: { [partition]: from }, to: 'end' });
  for await (const batch of reader.batches()) {
    for (const record of await batch.records()) {
      if (record.offset !== next || !isExpected(demo, record)) wrong++;
      next = record.offset + 1;
    }
    step.add(batch.sizeInBytes, batch.count);
  }
  step.end();
  const span = `offsets ${from} to ${end - 1} of partition ${partition}`;
  checks.check(`exactly ${span} came, as the file has them`, next === end && wrong === 0);
}

function conclude({ failedCount }: Checks): number {
  if (failedCount > 0) {
    console.log(`\n${failedCount} checks FAILED.`);
    return 1;
  }
  console.log(`
All checks passed; the data is removed and nothing is left running. Where to go next:
  npm start                                      a broker of your own on 127.0.0.1:7171
  npx tidelog topic create orders --partitions 6
  npx tidelog produce orders --file FILE         a record for each line
  npx tidelog consume orders --to end            and back
  README.md                                      the tour, and the SDK in twenty lines
  docs/client.md, docs/protocol.md               TypeScript; any other language`);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
