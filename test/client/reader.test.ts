import { expect, test } from 'vitest';
import { type Client, connect } from '../../src/client/client.js';
import type { ReadOptions } from '../../src/client/read-options.js';
import { json, string, topic } from '../../src/client/serdes.js';
import { LogError } from '../../src/core/errors.js';
import { toStatusMessage } from '../../src/rpc/status-codec.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { collect, readAll } from './support/collect.js';
import { FakeBroker } from './support/fake-broker.js';

const words = topic('words', { value: string() });
const HOUR = 3_600_000;

interface Setting extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly client: Client;
}

/** A broker whose topic `words` holds `count` records in each partition: `p0-0`, `p0-1`, ..., one an hour. */
async function start(count: number, partitions = 1, recordsPerBatch = 10): Promise<Setting> {
  const broker = await FakeBroker.start();
  broker.addTopic('words', partitions);
  const client = await connect(broker.address);
  for (let partition = 0; partition < partitions; partition++) {
    for (let from = 0; from < count; from += recordsPerBatch) {
      await append(client, partition, from, Math.min(count, from + recordsPerBatch));
    }
  }
  return {
    broker,
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await broker.stop();
    },
  };
}

/** One batch with the records `[from, to)`. */
async function append(client: Client, partition: number, from: number, to: number): Promise<void> {
  await using producer = client.producer({ lingerMs: 0 });
  const records = Array.from({ length: to - from }, (_, i) => ({
    key: `k${from + i}`,
    value: `p${partition}-${from + i}`,
    partition,
    timestampMs: (from + i) * HOUR,
  }));
  await producer.sendMany(words, records);
}

const range = (from: number, to: number, partition = 0): string[] =>
  Array.from({ length: to - from }, (_, i) => `p${partition}-${from + i}`);

async function valuesOf(client: Client, options: ReadOptions): Promise<string[]> {
  return (await readAll(client, words, options)).map(({ value }) => value);
}

test('a whole topic is read with every field, in order within each partition', async () => {
  await using t = await start(25, 3);
  const records = await readAll(t.client, words);
  expect(records).toHaveLength(75);
  for (const partition of [0, 1, 2]) {
    const mine = records.filter((record) => record.partition === partition);
    expect(mine.map(({ value }) => value)).toEqual(range(0, 25, partition));
    expect(mine.map(({ offset }) => offset)).toEqual(range(0, 25).map((_, i) => i));
  }
  expect(records[0]).toMatchObject({ topic: 'words', key: 'k0', timestampMs: 0, headers: [] });
});

test.each<[string, ReadOptions, string[]]>([
  ['from an offset inside a batch', { from: 13, to: 'end' }, range(13, 35)],
  ['from an offset to an offset inside batches', { from: 13, to: 27 }, range(13, 27)],
  ['within one batch', { from: 12, to: 14 }, range(12, 14)],
  ['from the latest', { from: 'latest', to: 'end' }, []],
  ['from a time inside a batch', { from: new Date(14 * HOUR - 1), to: 'end' }, range(14, 35)],
  ['from a time to a time', { from: new Date(5 * HOUR), to: new Date(7 * HOUR) }, range(5, 7)],
  ['to a time after every record', { to: new Date(99 * HOUR) }, range(0, 35)],
  ['from a time after every record', { from: new Date(99 * HOUR), to: 'end' }, []],
  ['from the end itself', { from: 35, to: 'end' }, []],
  ['an empty range', { from: 20, to: 20 }, []],
])('reading %s yields exactly that', async (_, options, expected) => {
  await using t = await start(35);
  expect(await valuesOf(t.client, options)).toEqual(expected);
});

test('an offset for each partition reads those partitions', async () => {
  await using t = await start(20, 3);
  const values = await valuesOf(t.client, { from: { 0: 15, 2: 18 } });
  expect(values.sort()).toEqual([...range(15, 20, 0), ...range(18, 20, 2)].sort());
  expect((await valuesOf(t.client, { from: { 0: 15, 2: 18 }, partitions: [2] })).sort()).toEqual(range(18, 20, 2));
  expect(await valuesOf(t.client, { partitions: [1, 1] })).toEqual(range(0, 20, 1));
});

test('partitions and offsets that do not exist are refused', async () => {
  await using t = await start(5);
  await rejection(valuesOf(t.client, { partitions: [1] }), 'UNKNOWN_TOPIC_OR_PARTITION');
  await rejection(collect(t.client.read(topic('nope'))), 'UNKNOWN_TOPIC_OR_PARTITION');
  const error = await rejection(valuesOf(t.client, { from: 6 }), 'OFFSET_OUT_OF_RANGE');
  expect(error.metadata).toMatchObject({ high_watermark: '5', offset: '6' });
  t.broker.partition('words').startOffset = 3;
  await rejection(valuesOf(t.client, { from: 1 }), 'OFFSET_OUT_OF_RANGE');
});

test('nothing to read ends at once, without a stream', async () => {
  await using t = await start(0, 4);
  expect(await readAll(t.client, words)).toEqual([]);
  expect(t.broker.fetches).toHaveLength(0);
});

test('following yields new records as they come, and leaving the loop cancels the stream', async () => {
  await using t = await start(5);
  const seen: string[] = [];
  for await (const { value } of t.client.read(words, { from: 3 })) {
    seen.push(value);
    if (seen.length === 2) await append(t.client, 0, 5, 7);
    if (seen.length === 4) break;
  }
  expect(seen).toEqual(range(3, 7));
  await until(() => t.broker.fetchesOpen === 0, 'the stream is cancelled');
});

test('abort ends an iteration that waits with CANCELLED', async () => {
  await using t = await start(3);
  const abort = new AbortController();
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { value } of t.client.read(words, { signal: abort.signal })) seen.push(value);
  })();
  await until(() => seen.length === 3, 'all was read');
  abort.abort(new Error('enough'));
  const error = await rejection(reading, 'CANCELLED');
  expect(error.cause).toMatchObject({ message: 'enough' });
  await until(() => t.broker.fetchesOpen === 0, 'the stream is cancelled');
  await rejection(collect(t.client.read(words, { signal: AbortSignal.abort() })), 'CANCELLED');
});

test('abort ends an iteration that is still finding out where to begin', async () => {
  await using t = await start(3);
  t.broker.onUnary = () => new LogError('BROKER_DRAINING', 'later', { retryAfterMs: 20_000 });
  const abort = new AbortController();
  const reading = rejection(collect(t.client.read(words, { signal: abort.signal })), 'CANCELLED');
  const count = t.broker.calls.length;
  await until(() => t.broker.calls.length > count, 'the topic is being looked up');
  abort.abort();
  await reading;
});

test('abort takes effect before records that are decoded already', async () => {
  await using t = await start(10);
  const abort = new AbortController();
  let seen = 0;
  const reading = (async () => {
    for await (const _ of t.client.read(words, { signal: abort.signal })) if (++seen === 2) abort.abort();
  })();
  await rejection(reading, 'CANCELLED');
  expect(seen).toBe(2);
});

test('closing the client ends an iteration with CLOSED', async () => {
  await using t = await start(3);
  let seen = 0;
  const reading = (async () => {
    for await (const _ of t.client.read(words)) seen++;
  })();
  const ended = rejection(reading, 'CLOSED');
  await until(() => seen === 3, 'all was read');
  await t.client.close();
  await ended;
});

test('return ends a next that waits', async () => {
  await using t = await start(0);
  const iterator = t.client.read(words).batches()[Symbol.asyncIterator]();
  const waiting = iterator.next();
  await until(() => t.broker.fetchesOpen === 1, 'the stream is open');
  await iterator.return?.();
  expect(await waiting).toEqual({ done: true, value: undefined });
  expect(await iterator.next()).toEqual({ done: true, value: undefined });
  await until(() => t.broker.fetchesOpen === 0, 'the stream is cancelled');
});

test('calls of next that overlap are answered in order', async () => {
  await using t = await start(25);
  const iterator = t.client.read(words, { to: 'end' })[Symbol.asyncIterator]();
  const results = await Promise.all(Array.from({ length: 26 }, () => iterator.next()));
  expect(results.map((result) => (result.done ? 'done' : result.value.value))).toEqual([...range(0, 25), 'done']);
});

test('batches tell what part of them was asked for, and their cursors show only that', async () => {
  await using t = await start(30);
  const batches = await collect(t.client.read(words, { from: 4, to: 26 }).batches());
  expect(batches.map(({ baseOffset, nextOffset, count }) => [baseOffset, nextOffset, count])).toEqual([
    [4, 10, 6],
    [10, 20, 10],
    [20, 26, 6],
  ]);
  expect(batches[0]).toMatchObject({ topic: 'words', partition: 0, highWatermark: 30 });
  const values: string[] = [];
  for (const batch of batches) {
    const cursor = await batch.cursor();
    while (cursor.next()) {
      values.push(cursor.buffer.toString('utf8', cursor.valueStart, cursor.valueStart + cursor.valueLength));
    }
  }
  expect(values).toEqual(range(4, 26));
  const records = await Promise.all(batches.map((batch) => batch.records()));
  expect(records.flat().map(({ offset }) => offset)).toEqual(Array.from({ length: 22 }, (_, i) => i + 4));
});

test('compressed batches are read like others, in part too', async () => {
  await using t = await start(0);
  await using producer = t.client.producer({ compression: 'gzip' });
  await producer.sendMany(
    words,
    range(0, 40).map((value) => ({ value })),
  );
  expect(await valuesOf(t.client, { from: 5, to: 33 })).toEqual(range(5, 33));
});

test.each(['none', 'gzip', 'lz4'] as const)('a batch is iterated over for its records: %s', async (compression) => {
  await using t = await start(0);
  await using producer = t.client.producer({ compression });
  await producer.sendMany(
    words,
    range(0, 40).map((value) => ({ value })),
  );
  const values: string[] = [];
  for await (const batch of t.client.read(words, { from: 5, to: 33 }).batches()) {
    for (const { value } of batch) values.push(value);
    expect([...batch]).toEqual(await batch.records());
  }
  expect(values).toEqual(range(5, 33));
});

test('a connection lost in the middle is made anew without losing or repeating a record', async () => {
  await using t = await start(200, 2, 7);
  let messages = 0;
  let cuts = 0;
  t.broker.onFetched = (message) => (++messages % 15 === 0 && cuts++ < 5 ? 'cut' : message);
  const values = await valuesOf(t.client, { fetchBytes: 300 });
  expect(values.filter((value) => value.startsWith('p0'))).toEqual(range(0, 200, 0));
  expect(values.filter((value) => value.startsWith('p1'))).toEqual(range(0, 200, 1));
  expect(t.broker.fetches.length).toBe(6);
});

test('a stream that ends too early is opened again', async () => {
  await using t = await start(50, 1, 5);
  let messages = 0;
  t.broker.onFetched = (message) => (++messages === 3 ? 'end' : message);
  expect(await valuesOf(t.client, { fetchBytes: 100 })).toEqual(range(0, 50));
  expect(t.broker.fetches).toHaveLength(2);
});

test('a broker that restarts is followed on', async () => {
  await using t = await start(5);
  const seen: string[] = [];
  const abort = new AbortController();
  const reading = (async () => {
    for await (const { value } of t.client.read(words, { signal: abort.signal })) seen.push(value);
  })();
  const ended = rejection(reading, 'CANCELLED');
  await until(() => seen.length === 5, 'the first were read');
  await t.broker.stop();
  await t.broker.listen();
  await append(t.client, 0, 5, 8);
  await until(() => seen.length === 8, 'the later ones were read');
  expect(seen).toEqual(range(0, 8));
  abort.abort();
  await ended;
});

test('a bounded reading gives up when the broker stays away', async () => {
  await using t = await start(50, 1, 5);
  const iterator = t.client.read(words, { to: 'end', fetchBytes: 100, maxBufferedBytes: 100, retryTimeoutMs: 50 });
  const reading = (async () => {
    for await (const _ of iterator) await t.broker.stop();
  })();
  const error = await rejection(
    reading.catch((thrown: LogError) => {
      expect(thrown.retryable).toBe(true);
      throw new LogError('CLOSED', thrown.reason);
    }),
    'CLOSED',
  );
  expect(['CONNECTION_LOST', 'BROKER_UNAVAILABLE']).toContain(error.message);
});

test('passing errors of one partition are retried, lasting ones are thrown after what came before', async () => {
  await using t = await start(20);
  let messages = 0;
  const report = (error: LogError): void => {
    t.broker.onFetched = (message) => {
      if (++messages !== 2) return message;
      return { ...message, batches: Buffer.alloc(0), error: toStatusMessage(error) };
    };
  };
  report(new LogError('BROKER_DRAINING', 'later'));
  expect(await valuesOf(t.client, { fetchBytes: 100 })).toEqual(range(0, 20));
  messages = 0;
  report(new LogError('CORRUPT_LOG', 'broken'));
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { value } of t.client.read(words, { to: 'end', fetchBytes: 100 })) seen.push(value);
  })();
  await rejection(reading, 'CORRUPT_LOG');
  expect(seen).toEqual(range(0, 10));
});

test('a flipped bit on the way is reported with its place, unless checking is off', async () => {
  await using t = await start(20);
  t.broker.onFetched = (message) => {
    const batches = Buffer.from(message.batches);
    const last = batches.length - 3;
    batches[last] = (batches[last] ?? 0) ^ 1;
    return { ...message, batches };
  };
  const error = await rejection(valuesOf(t.client, {}), 'CORRUPT_MESSAGE');
  expect(error.metadata).toMatchObject({ topic: 'words', partition: '0' });
  expect(await valuesOf(t.client, { verifyCrc: false })).toHaveLength(20);
});

test('a record that its serde refuses is reported after those before it', async () => {
  await using t = await start(0);
  await using producer = t.client.producer();
  await producer.sendMany(
    words,
    ['1', '2', '{', '4'].map((value) => ({ value })),
  );
  const seen: unknown[] = [];
  const reading = (async () => {
    for await (const { value } of t.client.read(topic('words', { value: json() }), { to: 'end' })) seen.push(value);
  })();
  const error = await rejection(reading, 'INVALID_RECORD');
  expect(seen).toEqual([1, 2]);
  expect(error.metadata).toEqual({ topic: 'words', partition: '0', offset: '2' });
});

test('a topic that was recreated is noticed instead of mixed up', async () => {
  await using t = await start(5);
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { value } of t.client.read(words)) {
      seen.push(value);
      if (seen.length < 5) continue;
      t.broker.topics.delete('words');
      t.broker.addTopic('words');
      await t.broker.stop();
      await t.broker.listen();
    }
  })();
  await rejection(reading, 'UNKNOWN_TOPIC_ID');
  expect(seen).toHaveLength(5);
});

test('a slow reader holds the broker back instead of filling memory', async () => {
  await using t = await start(0);
  await using producer = t.client.producer({ batchBytes: 40_000 });
  const value = 'x'.repeat(10_000);
  await producer.sendMany(
    words,
    Array.from({ length: 4_000 }, () => ({ value })),
  );
  let sentBytes = 0;
  t.broker.onFetched = (message) => {
    sentBytes += message.batches.length;
    return message;
  };
  const options = { to: 'end', maxBufferedBytes: 1_000_000, fetchBytes: 40_000 } as const;
  const iterator = t.client.read(words, options).batches()[Symbol.asyncIterator]();
  await iterator.next();
  let before = -1;
  await until(async () => {
    before = sentBytes;
    // Whatever the reader has granted until now is in the broker's hands when it answers these.
    for (let i = 0; i < 20; i++) await t.client.admin.describeCluster();
    return t.broker.fetchesBlocked === 1 && sentBytes === before;
  }, 'the broker stalls');
  // The client's buffer, the flow-control window and what the server itself may write ahead.
  expect(sentBytes).toBeLessThan(12_000_000);
  let count = 1;
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) count++;
  expect(count).toBeGreaterThan(900);
  expect(sentBytes).toBeGreaterThan(40_000_000);
});
