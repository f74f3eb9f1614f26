/** The life of a log in a broker as users run it: compaction, retention, more partitions, a disk that runs full. */
import { readdirSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import {
  type Client,
  connect,
  keyPartitioner,
  LogError,
  nullable,
  type PartitionDescription,
  type ReadRecord,
  string,
  topic,
} from '../../src/index.js';
import { executed } from '../cli/in-process.js';
import { Server, Workplace } from '../cli/support.js';
import { SkippingClock } from '../client/support/skipping-clock.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { RecordedProducer } from '../history/recorded/producer.js';
import { readAll } from '../history/recorded/reader.js';
import { filled } from '../history/recorded/topic.js';
import { Mounts, needs, unlessRefused } from '../support/mounts.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';

const MIB = 1024 * 1024;
const METADATA_MAX_AGE_MS = 300_000;

const workplace = new Workplace();

afterAll(() => workplace.clean());

/** A command on a running broker, which must succeed. */
async function run(server: Server, ...args: string[]): Promise<void> {
  expect(await executed(server.address, args)).toMatchObject({ code: 0, line: undefined });
}

/** The broker's log lines with a message. */
function logLines({ process }: Server, message: string): Record<string, unknown>[] {
  const whole = process.stderr.slice(0, process.stderr.lastIndexOf('\n') + 1);
  const lines: Record<string, unknown>[] = whole.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)]));
  return lines.filter(({ msg }) => msg === message);
}

async function describePartition(client: Client, name: string): Promise<PartitionDescription> {
  return (await client.admin.getTopic(name)).partitions[0]!;
}

/** Bytes of all files below a directory. */
function diskUsage(directory: string): number {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return names.reduce((sum, name) => {
    const stat = statSync(path.join(directory, name), { throwIfNoEntry: false });
    return sum + (stat?.isFile() ? stat.size : 0);
  }, 0);
}

const settings = topic('settings', { key: string(), value: nullable(string()) });
type Setting = ReadRecord<string, string | null>;

function apply(table: Map<string, string>, { key, value }: Setting): void {
  if (key === null) throw new Error('a record of a compacted topic has no key');
  if (value === null) table.delete(key);
  else table.set(key, value);
}

async function tableFromStart(client: Client): Promise<Map<string, string>> {
  const table = new Map<string, string>();
  for await (const record of client.read(settings, { to: 'end' })) apply(table, record);
  return table;
}

test('a running broker compacts in its thread: less on disk, the same table for every reader from the start', async () => {
  const server = await workplace.serve('compaction', '--log-file-delete-delay-ms', '0');
  await using client = await connect(server.address);
  // A ratio that cannot be exceeded: nothing is due until the value is altered.
  const policy = ['--config', 'cleanup.policy=compact', '--config', 'min.cleanable.dirty.ratio=1'];
  await run(server, 'topic', 'create', 'settings', ...policy, '--config', 'segment.bytes=65536');
  await using producer = client.producer();
  const expected = new Map<string, string>();
  const updates = Array.from({ length: 20_000 }, (_, i) => {
    const key = `key ${(i * 7919) % 300}`;
    const value = i % 11 === 0 ? null : `${i}`.padEnd(100, '.');
    if (value === null) expected.delete(key);
    else expected.set(key, value);
    return { key, value };
  });
  await producer.sendMany(settings, updates);
  const before = diskUsage(workplace.path('compaction'));
  expect((await describePartition(client, 'settings')).segmentCount).toBeGreaterThan(20);

  // One reader is under way when the log changes under it.
  const reading = client.read(settings, { to: 'end', fetchBytes: 1_000, maxBufferedBytes: 1_000 });
  const iterator = reading[Symbol.asyncIterator]();
  const seen = new Map<string, string>();
  for (let i = 0; i < 100; i++) {
    const { value } = await iterator.next();
    apply(seen, value);
  }
  await run(server, 'topic', 'alter', 'settings', '--config', 'min.cleanable.dirty.ratio=0.1');
  await until(() => logLines(server, 'compacted').length > 0, 'the log is compacted');
  for await (const record of { [Symbol.asyncIterator]: () => iterator }) apply(seen, record);

  expect(seen).toEqual(expected);
  expect(await tableFromStart(client)).toEqual(expected);
  expect(logLines(server, 'compacted')[0]).toMatchObject({
    level: 'info',
    topic: 'settings',
    partition: 0,
    why: 'min.cleanable.dirty.ratio',
  });
  expect(server.process.stderr).not.toContain('no thread of its own');
  await until(() => diskUsage(workplace.path('compaction')) < before / 4, 'the disk has its space back');
  expect(await describePartition(client, 'settings')).toMatchObject({
    logStartOffset: 0,
    highWatermark: updates.length,
  });

  await client.close();
  expect((await server.stop()).code).toBe(0);
  const again = await workplace.serve('compaction');
  await using later = await connect(again.address);
  expect(await tableFromStart(later)).toEqual(expected);
});

const events = topic('events', { value: string() });

test('a limit that is altered acts without a restart, and the log says what it was and is', async () => {
  const server = await workplace.serve('retention', '--log-segment-bytes', '16384', '--log-file-delete-delay-ms', '0');
  await using client = await connect(server.address);
  await run(server, 'topic', 'create', 'events');
  await using producer = client.producer({ batchBytes: 2_000 });
  const records = Array.from({ length: 2_000 }, (_, i) => ({ value: `${i}`.padEnd(150, '.') }));
  await producer.sendMany(events, records);
  const before = await describePartition(client, 'events');
  expect(before).toMatchObject({ logStartOffset: 0, highWatermark: 2_000 });
  expect(before.sizeBytes).toBeGreaterThan(200_000);

  await run(server, 'topic', 'alter', 'events', '--config', 'retention.bytes=100000');
  // The check of its own accord is minutes away.
  await until(async () => (await describePartition(client, 'events')).logStartOffset > 0, 'the log start has risen');
  const trimmed = await describePartition(client, 'events');
  expect(trimmed.sizeBytes).toBeGreaterThanOrEqual(100_000);
  expect(trimmed.sizeBytes).toBeLessThan(100_000 + 16_384);
  expect(logLines(server, 'topic configuration changed')).toMatchObject([
    { level: 'info', topic: 'events', key: 'retention.bytes', oldValue: '-1', newValue: '100000' },
  ]);
  expect(logLines(server, 'retention deleted segments')).toMatchObject([
    { level: 'info', topic: 'events', oldStartOffset: 0, newStartOffset: trimmed.logStartOffset },
  ]);
  await until(() => diskUsage(path.join(workplace.path('retention'), 'logs')) < 150_000, 'the files are gone');

  const kept: string[] = [];
  for await (const { value } of client.read(events, { to: 'end' })) kept.push(value);
  expect(kept).toEqual(records.slice(trimmed.logStartOffset).map(({ value }) => value));
  await rejection(client.read(events, { from: 0, to: 'end' })[Symbol.asyncIterator]().next(), 'OFFSET_OUT_OF_RANGE');

  const restored = ['--config', '-retention.bytes', '--config', 'retention.records=100'];
  await run(server, 'topic', 'alter', 'events', ...restored);
  await until(
    async () => (await describePartition(client, 'events')).logStartOffset > trimmed.logStartOffset,
    'the log start has risen again',
  );
  const { logStartOffset } = await describePartition(client, 'events');
  expect(logStartOffset).toBeLessThanOrEqual(2_000 - 100);
  expect(logLines(server, 'topic configuration changed').slice(1)).toMatchObject([
    { key: 'retention.bytes', oldValue: '100000', newValue: '-1', oldSource: 'topic', newSource: 'default' },
    { key: 'retention.records', oldValue: '-1', newValue: '100' },
  ]);
});

/** A key that is in `partition` of 3; with 1 partition all keys are in 0. */
function keyIn(partition: number): string {
  for (let i = 0; ; i++) if (keyPartitioner(Buffer.from(`k${i}`), 3, 'orders') === partition) return `k${i}`;
}

const orders = topic('orders', { key: nullable(string()), value: string() });

test('producers and readers learn of added partitions: at once where one is named, else by the age of what they know', async () => {
  await using broker = await startBroker({ storage: 'memory' });
  const clock = new SkippingClock();
  await using client = await connect(broker.address, { clock });
  await using other = await connect(broker.address, { clock });
  await client.admin.createTopic({ name: 'orders', partitions: 1 });
  await using producer = client.producer({ lingerMs: 0 });
  await using unaware = other.producer({ lingerMs: 0 });
  const key = keyIn(1);
  await producer.send(orders, { value: 'before' });
  expect((await unaware.send(orders, { key, value: 'keyed' })).partition).toBe(0);

  const stop = new AbortController();
  const followed: string[] = [];
  const following = (async () => {
    for await (const { value } of other.read(orders, { from: 'latest', signal: stop.signal })) followed.push(value);
  })();
  // Where 'latest' is when the reader begins is not known: it follows when it has one of these.
  await until(async () => {
    await producer.send(orders, { value: 'tail' });
    return followed.length > 0;
  }, 'the reader follows');

  await client.admin.updateTopic({ name: 'orders', partitions: 3 });
  expect(await producer.send(orders, { value: 'named', partition: 2 })).toMatchObject({ partition: 2, offset: 0 });
  expect((await unaware.send(orders, { key, value: 'keyed' })).partition).toBe(0);
  expect(followed).not.toContain('named');

  clock.skip(METADATA_MAX_AGE_MS);
  await until(() => followed.includes('named'), 'the reader has noticed the partition');
  await until(
    async () => (await unaware.send(orders, { key, value: 'moved' })).partition === 1,
    'the key goes where the new number of partitions says',
  );
  await until(() => followed.includes('moved'), 'the reader follows that partition too');
  expect(followed.filter((value) => value === 'named')).toHaveLength(1);
  stop.abort();
  await rejection(following, 'CANCELLED');
});

function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}

const words = topic('words', { value: string() });
const others = topic('others', { value: string() });

test('before the disk is full appends wait for room, reading and deleting go on, and deleting makes the room (invariants 4, 5, 20)', async (context) => {
  needs(context, { root: true });
  const mounts = new Mounts();
  try {
    const disk = unlessRefused(context, () => mounts.tmpfs('small-disk', 8 * MIB));
    const flags = ['--log-disk-reserve-bytes', String(2 * MIB), '--log-file-delete-delay-ms', '0'];
    const server = await Server.start(disk, ...flags);
    try {
      await fillAndEmpty(server, disk);
    } finally {
      await server.stop('SIGKILL');
    }
  } finally {
    mounts.clean();
  }
}, 60_000);

async function fillAndEmpty(server: Server, directory: string): Promise<void> {
  await using client = await connect(server.address);
  for (const { name } of [words, others]) {
    await run(server, 'topic', 'create', name, '--config', 'segment.bytes=1048576');
  }
  await using producer = client.producer();
  const history = new History();
  const recorded = { history, topic: words, partitionCount: 1 };
  // More than the disk holds.
  const values = Array.from({ length: 800 }, (_, i) => `${i}`);
  const recordedProducer = new RecordedProducer(recorded, producer, 'producer');
  const sends = values.map(async (name) => {
    const { offset } = await recordedProducer.send({ name, record: { value: filled(name, 10_000) } });
    return offset;
  });
  const delivered = Promise.allSettled(sends);
  await until(
    () => logLines(server, 'the disk is nearly full: appends are refused, reading and deleting go on').length > 0,
    'the broker refuses appends',
  );
  // Appends are refused by what they would leave: a smaller one than the first refused may still find its place.
  await using impatient = client.producer({ deliveryTimeoutMs: 500 });
  let refused: unknown;
  await until(async () => {
    refused = await impatient.send(others, { value: '.'.repeat(400_000) }).catch((error: unknown) => error);
    // On a busy machine it may run out of time before its first answer.
    return refused instanceof LogError && refused.cause !== undefined;
  }, 'an append is refused');
  expect(refused).toMatchObject({
    reason: 'REQUEST_TIMED_OUT',
    outcome: 'none',
    message: expect.stringContaining('log.disk.reserve.bytes'),
    cause: { reason: 'STORAGE_FULL' },
  });
  // Indexes and checkpoints may take of the reserve; records do not.
  expect(freeBytes(directory)).toBeGreaterThan(1.5 * MIB);

  // A batch may still find its place when the broker asks the disk again: what is there only grows.
  const { highWatermark } = await describePartition(client, 'words');
  expect(highWatermark).toBeGreaterThanOrEqual(history.acks);
  const read = (await readAll(recorded, client, 'while-full')).map(({ value }) => value.replace(/\.+$/, ''));
  expect(read.length).toBeGreaterThanOrEqual(highWatermark);
  expect(read.length).toBeLessThan(values.length);
  expect(read).toEqual(values.slice(0, read.length));
  await run(server, 'topic', 'delete-records', 'words', '--partition', '0', '--before-offset', '10');
  expect((await describePartition(client, 'words')).logStartOffset).toBe(10);
  await run(server, 'topic', 'truncate-all', 'words', '--yes');

  // No error has reached whoever sent, and nothing was appended twice.
  expect(await delivered).toEqual(values.map((_, value) => ({ status: 'fulfilled', value })));
  expect(logLines(server, 'the disk has room again: appends are taken')).not.toEqual([]);
  const { logStartOffset } = await describePartition(client, 'words');
  expect(logStartOffset).toBeGreaterThanOrEqual(read.length);
  // How far all of it reached was known to the broker alone.
  history.trim({ topic: words.name, partition: 0, offset: logStartOffset });
  await readAll(recorded, client, 'with-room');
  expectNoViolations(history);
  expect((await server.stop()).code).toBe(0);
}
