/**
 * Invariants 1, 2, 4 and 7 under `kill -9` while the broker forgets: compaction, retention, deletion of records and topics.
 *
 * The real command line in a process of its own compacts one topic, trims others by size and on demand, and sees one
 * created and deleted all the time. It is killed at a random moment and started again on the same data. After each start
 * everything ever acknowledged, and everything that a reader was ever shown, is compared with what is there.
 */
import { type FSWatcher, readdirSync, watch } from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import {
  type Client,
  connect,
  LogError,
  nullable,
  type PartitionDescription,
  type Producer,
  string,
  type Topic,
  topic,
} from '../../src/index.js';
import { type Server, tidelog, Workplace } from '../cli/support.js';
import { randomFrom } from '../support/random.js';
import { until } from '../support/until.js';
import { Ledger, Table, type Update } from './ledger.js';

const LONG = process.env.TEST_LONG !== undefined;
const ROUNDS = LONG ? 200 : 10;
/** Acknowledgements in one round before the kill: at least 1, at most about this. */
const MAX_ACKS_BEFORE_KILL = 4000;
const TABLE_PARTITIONS = 2;
const SEGMENT_BYTES = 16_384;
const RETENTION_BYTES = 65_536;
const FLAGS = [
  ...['--log-level', 'info'],
  ...['--log-cleaner-backoff-ms', '2'],
  ...['--log-retention-check-interval-ms', '10'],
  ...['--log-file-delete-delay-ms', '20'],
  ...['--log-segment-bytes', String(SEGMENT_BYTES)],
];
const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));

const random = randomFrom(seed);
const below = (limit: number): number => Math.floor(random() * limit);

const table = topic('table', { key: string(), value: nullable(string()) });
const events = topic('events', { value: string() });
const trimmed = topic('trimmed', { value: string() });
const churn = topic('churn', { value: string() });

const workplace = new Workplace();
const dataDir = workplace.path('data');
const logsDir = path.join(dataDir, 'logs');

afterAll(() => workplace.clean());

/** The one topic that is made and deleted all the time; records say of which making they are. */
interface Churn {
  made: number;
  state: 'gone' | 'creating' | 'there' | 'deleting';
  /** Of the making under way. */
  acknowledged: Map<string, string>;
}

const tableLedgers = Array.from({ length: TABLE_PARTITIONS }, () => new Ledger());
const expectedTable = new Table();
const eventLedger = new Ledger();
const trimmedLedger = new Ledger();
/** Log start offsets that deleting records was asked for last, and that was acknowledged. */
const trimming = { asked: 0, acknowledged: 0 };
const churning: Churn = { made: 0, state: 'gone', acknowledged: new Map() };
/** By partition of the table: where the reader that follows goes on, and the offsets that it was shown. */
const positions = Array.from({ length: TABLE_PARTITIONS }, () => 0);
const shown = Array.from({ length: TABLE_PARTITIONS }, () => new Set<number>());

let sequence = 0;
let acks = 0;
let eventStart = 0;
let killed = false;
let compactions = 0;
let retentions = 0;
let tombstonesRemoved = 0;

/** A failure that the kill explains ends a load; any other is a defect. */
function endOfLoad(error: unknown): void {
  if (!killed) throw error;
}

/** Runs `step` over and over, `window` at once, until the broker is killed. */
async function repeat(window: number, step: () => Promise<void>): Promise<void> {
  const worker = async (): Promise<void> => {
    while (!killed) await step().catch(endOfLoad);
  };
  await Promise.all(Array.from({ length: window }, worker));
}

const tableText = (key: string | null, value: string | null): string => JSON.stringify([key, value]);

/** Updates a few keys over and over, deleting some of them, and makes others that it deletes for good soon after. */
function updateTable(producer: Producer, name: string): Promise<void> {
  const doomed: string[] = [];
  return repeat(48, async () => {
    const update = nextUpdate(name, doomed, ++sequence);
    expectedTable.send(update.key, update);
    const { key, value } = update;
    const { partition, offset } = await producer.send(table, { key, value });
    tableLedgers[partition]?.acknowledge(offset, tableText(key, value));
    expectedTable.acknowledge(key, update);
    acks++;
  });
}

function nextUpdate(name: string, doomed: string[], number: number): Update & { readonly key: string } {
  const dice = below(10);
  if (dice === 0) {
    const key = `${name}-once-${number}`;
    doomed.push(key);
    return { sequence: number, key, value: `${number}` };
  }
  const ending = dice === 1 ? doomed.shift() : undefined;
  if (ending !== undefined) return { sequence: number, key: ending, value: null };
  const value = dice === 2 ? null : `${number}`.padEnd(40 + below(80), '.');
  return { sequence: number, key: `${name}-${below(60)}`, value };
}

function addEvents(producer: Producer): Promise<void> {
  return repeat(16, async () => {
    const value = `${++sequence}`.padEnd(200, '.');
    const { offset } = await producer.send(events, { value });
    eventLedger.acknowledge(offset, value);
    acks++;
  });
}

/** Deletes all but a few of the records over and over, and now and then all of them. */
function deleteRecords(client: Client, producer: Producer): Promise<void> {
  return repeat(1, async () => {
    const values = Array.from({ length: 20 }, () => `${++sequence}`.padEnd(200, '.'));
    const sends = values.map(async (value) => {
      const { offset } = await producer.send(trimmed, { value });
      trimmedLedger.acknowledge(offset, value);
      return offset;
    });
    const end = Math.max(...(await Promise.all(sends))) + 1;
    const keep = below(8);
    trimming.asked = end - keep;
    const beforeOffset = keep === 0 ? 'latest' : end - keep;
    expect(await client.admin.deleteRecords(trimmed, [{ partition: 0, beforeOffset }])).toEqual([
      { partition: 0, logStartOffset: trimming.asked },
    ]);
    trimming.acknowledged = trimming.asked;
  });
}

function makeAndDelete(client: Client, producer: Producer): Promise<void> {
  return repeat(1, async () => {
    const made = ++churning.made;
    churning.acknowledged = new Map();
    churning.state = 'creating';
    await client.admin.createTopic({ name: 'churn', partitions: 2 });
    churning.state = 'there';
    // A producer that knew the last topic takes its time to find this one; without it, other moments are met.
    const values = Array.from({ length: made % 4 === 0 ? 6 : 0 }, (_, i) => `${made}/${i}`);
    await Promise.all(
      values.map(async (value, i) => {
        const { partition, offset } = await producer.send(churn, { value, partition: i % 2 });
        churning.acknowledged.set(`${partition}/${offset}`, value);
      }),
    );
    churning.state = 'deleting';
    await client.admin.deleteTopic('churn');
    churning.state = 'gone';
  });
}

/** Goes on where it was when the last broker was killed. Invariant 7: never backward, and past nothing that stays. */
async function follow(client: Client): Promise<void> {
  for await (const { partition, offset, key, value } of client.read(table, { from: { ...positions } })) {
    if (offset < (positions[partition] ?? 0)) throw new Error(`a reader was taken back to ${partition}/${offset}`);
    tableLedgers[partition]?.see(offset, tableText(key, value));
    positions[partition] = offset + 1;
    shown[partition]?.add(offset);
  }
}

/** Names of files whose coming and going tells what a compaction is at. */
const MOMENTS = [/\.cleaned$/, /\.swap$/, /\.deleted$/, /^checkpoint/];

/** Resolves in the middle of a compaction of the table, or at any moment, as chance has it. */
async function momentToKill(topicId: string): Promise<void> {
  const target = acks + 1 + below(MAX_ACKS_BEFORE_KILL);
  const pattern = MOMENTS[below(MOMENTS.length + 1)];
  await until(() => killed || acks >= target, `${target} records are acknowledged`, 60_000);
  if (pattern === undefined) return;
  let countdown = below(6);
  const watchers: FSWatcher[] = [];
  const compacting = new Promise<void>((resolve) => {
    for (let partition = 0; partition < TABLE_PARTITIONS; partition++) {
      const watcher = watch(path.join(logsDir, `${topicId}-${partition}`), (_, name) => {
        if (name !== null && pattern.test(name) && countdown-- === 0) resolve();
      });
      watchers.push(watcher);
    }
  });
  const enough = target + MAX_ACKS_BEFORE_KILL;
  const enoughAcks = until(() => killed || acks >= enough, `${enough} records are acknowledged`, 60_000);
  try {
    await Promise.race([compacting, enoughAcks]);
  } finally {
    for (const watcher of watchers) watcher.close();
  }
}

async function loadUntilKilled(server: Server): Promise<void> {
  killed = false;
  await using client = await connect(server.address);
  const { topicId } = await client.admin.getTopic('table');
  const options = { lingerMs: 1, closeTimeoutMs: 0 };
  const load = Promise.all([
    updateTable(client.producer({ ...options, acks: 'durable', batchBytes: 2048 }), 'a'),
    updateTable(client.producer({ ...options, acks: 'written', compression: 'lz4' }), 'b'),
    addEvents(client.producer(options)),
    deleteRecords(client, client.producer(options)),
    makeAndDelete(client, client.producer(options)),
    follow(client).catch(endOfLoad),
  ]);
  try {
    await Promise.race([load, momentToKill(topicId)]);
  } finally {
    killed = true;
  }
  const { stderr } = await server.stop('SIGKILL');
  // What is still unanswered fails now instead of being tried again.
  await client.close();
  await load;
  examineLog(stderr);
}

/** Nothing of all this is an error to the broker; and it does do what is to be interrupted. */
function examineLog(stderr: string): void {
  expect(stderr).not.toMatch(/"level":"(error|fatal)"/);
  expect(stderr).not.toMatch(/failed|cannot|could not/);
  compactions += stderr.split('"compacted"').length - 1;
  retentions += stderr.split('"retention deleted segments"').length - 1;
}

async function verify(server: Server): Promise<void> {
  await using client = await connect(server.address);
  await verifyTable(client);
  await verifyEvents(client);
  await verifyTrimmed(client);
  await verifyChurn(client);
  await verifyFiles(client);
}

/** Read while the broker may be compacting what the last one had left to do. */
async function verifyTable(client: Client): Promise<void> {
  const found = new Map<string, string | null>();
  const next = Array.from({ length: TABLE_PARTITIONS }, () => 0);
  for await (const { partition, offset, key, value } of client.read(table, { to: 'end' })) {
    if (offset < (next[partition] ?? 0))
      throw new Error(`offset ${partition}/${offset} comes after ${next[partition]}`);
    next[partition] = offset + 1;
    tableLedgers[partition]?.see(offset, tableText(key, value));
    if (offset < (positions[partition] ?? 0) && !shown[partition]?.has(offset)) {
      throw new Error(`a reader that went on to ${positions[partition]} was never shown ${partition}/${offset}`);
    }
    if (key === null) throw new Error(`${partition}/${offset} has no key`);
    found.set(key, value);
  }
  const { partitions } = await client.admin.getTopic('table');
  for (const { partition, highWatermark } of partitions) {
    // What a reader was shown is not taken back.
    expect(highWatermark).toBeGreaterThanOrEqual(positions[partition] ?? 0);
    expect(tableLedgers[partition]?.acknowledgedFrom(highWatermark)).toEqual([]);
  }
  expectedTable.compare(found);
  tombstonesRemoved = expectedTable.deletedKeys.filter((key) => !found.has(key)).length;
}

async function describePartition(client: Client, name: string): Promise<PartitionDescription> {
  return (await client.admin.getTopic(name)).partitions[0]!;
}

async function verifyEvents(client: Client): Promise<void> {
  await until(
    async () => (await describePartition(client, 'events')).sizeBytes < RETENTION_BYTES + SEGMENT_BYTES,
    'retention has deleted all that it may',
  );
  const { logStartOffset, sizeBytes } = await verifyDense(client, events, eventLedger);
  expect(logStartOffset).toBeGreaterThanOrEqual(eventStart);
  eventStart = logStartOffset;
  if (logStartOffset > 0) expect(sizeBytes).toBeGreaterThanOrEqual(RETENTION_BYTES);
}

/** A log start offset that was acknowledged stays; one that was asked for may be there. */
async function verifyTrimmed(client: Client): Promise<void> {
  const { logStartOffset } = await verifyDense(client, trimmed, trimmedLedger);
  expect([trimming.acknowledged, trimming.asked]).toContain(logStartOffset);
  trimming.acknowledged = logStartOffset;
}

/** Everything from the log start on is there, each record at the offset that it was given. */
async function verifyDense(client: Client, read: Topic<string, string>, ledger: Ledger): Promise<PartitionDescription> {
  const partition = await describePartition(client, read.name);
  let next = partition.logStartOffset;
  for await (const { offset, value } of client.read(read, { to: 'end' })) {
    expect(offset).toBe(next++);
    ledger.see(offset, value);
  }
  expect(next).toBe(partition.highWatermark);
  expect(ledger.acknowledgedFrom(partition.highWatermark)).toEqual([]);
  return partition;
}

/** A topic whose deletion was acknowledged stays away, one whose making was is there, with its own records alone. */
async function verifyChurn(client: Client): Promise<void> {
  const { state, made, acknowledged } = churning;
  const isThere = (await client.admin.listTopics()).some(({ name }) => name === 'churn');
  if (state === 'gone') expect(isThere).toBe(false);
  if (state === 'there') expect(isThere).toBe(true);
  if (!isThere) return;
  const found = new Map<string, string>();
  for await (const { partition, offset, value } of client.read(churn, { to: 'end' })) {
    expect(value.split('/')[0]).toBe(String(made));
    found.set(`${partition}/${offset}`, value);
  }
  for (const [place, value] of acknowledged) expect(found.get(place)).toBe(value);
  await client.admin.deleteTopic('churn');
  churning.state = 'gone';
}

/** Once the broker rests there are the directories of its topics, and in them nothing that is half done or replaced. */
async function verifyFiles(client: Client): Promise<void> {
  const topics = await client.admin.listTopics();
  const wanted = topics.flatMap(({ topicId, partitionCount }) =>
    Array.from({ length: partitionCount }, (_, partition) => `${topicId}-${partition}`),
  );
  const directories = (): string[] => readdirSync(logsDir).sort();
  await expect.poll(directories, { timeout: 10_000 }).toEqual(wanted.sort());
  await expect.poll(leftOver, { timeout: 10_000 }).toEqual([]);
}

function leftOver(): string[] {
  const names = readdirSync(logsDir, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => /\.(cleaned|swap|deleted|tmp)$/.test(name));
}

async function createTopics(server: Server): Promise<void> {
  await using client = await connect(server.address);
  await client.admin.createTopic({
    name: 'table',
    partitions: TABLE_PARTITIONS,
    configs: { 'cleanup.policy': 'compact', 'min.cleanable.dirty.ratio': 0.05, 'delete.retention.ms': 20 },
  });
  await client.admin.createTopic({ name: 'events', configs: { 'retention.bytes': RETENTION_BYTES } });
  await client.admin.createTopic({ name: 'trimmed' });
}

test(
  `${ROUNDS} kills while logs are compacted, trimmed and deleted lose, change and revive nothing (invariants 1, 2, 4, 7)`,
  async () => {
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const server = await workplace.serve('data', ...FLAGS);
        if (round === 0) await createTopics(server);
        await verify(server);
        await loadUntilKilled(server);
      }
      const server = await workplace.serve('data', ...FLAGS);
      await verify(server);
      const { code, stderr } = await server.stop();
      expect(code).toBe(0);
      examineLog(stderr);
      const verified = await tidelog(['log', 'verify', dataDir]);
      expect(verified.stdout).toMatch(/^No corruption\.$/m);
      expect(verified.code).toBe(0);
    } catch (error) {
      const reason = error instanceof LogError ? `${error.reason}: ` : '';
      console.error(`${reason}repeat with: TEST_SEED=${seed} npx vitest run test/crash/lifecycle-kill.test.ts`);
      throw error;
    }
    expect(acks).toBeGreaterThan(ROUNDS);
    expect(compactions).toBeGreaterThan(0);
    expect(retentions).toBeGreaterThan(0);
    expect(tombstonesRemoved).toBeGreaterThan(0);
    expect(churning.made).toBeGreaterThan(ROUNDS);
    expect(eventStart).toBeGreaterThan(0);
    expect(trimming.acknowledged).toBeGreaterThan(0);
  },
  LONG ? 3_600_000 : 120_000,
);
