import { expect, test } from 'vitest';
import { type Client, connect } from '../../src/client/client.js';
import type { ProducerOptions } from '../../src/client/options.js';
import type { Producer } from '../../src/client/producer.js';
import { nullable, string, topic } from '../../src/client/serdes.js';
import { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { readAll } from './support/collect.js';
import { FakeBroker } from './support/fake-broker.js';

const words = topic('words', { value: string() });

interface Setting extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly client: Client;
  readonly producer: Producer;
}

async function start(options: ProducerOptions = {}, partitions = 1): Promise<Setting> {
  const broker = await FakeBroker.start();
  broker.addTopic('words', partitions);
  const client = await connect(broker.address);
  const producer = client.producer({ retryBackoffMs: 5, retryBackoffMaxMs: 20, ...options });
  return {
    broker,
    client,
    producer,
    async [Symbol.asyncDispose]() {
      await producer.close({ timeoutMs: 0 });
      await client.close();
      await broker.stop();
    },
  };
}

function numbered(count: number, prefix = 'w'): { value: string }[] {
  return Array.from({ length: count }, (_, i) => ({ value: `${prefix}${i}` }));
}

test('each send resolves with the place of its own record', async () => {
  await using t = await start();
  const sent = await Promise.all(numbered(100).map((record) => t.producer.send(words, { ...record, timestampMs: 5 })));
  expect(sent.map(({ offset }) => offset)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect(sent[7]).toEqual({ partition: 0, offset: 7, timestampMs: 5 });
  expect(await t.broker.partition('words').values()).toEqual(numbered(100).map(({ value }) => value));
});

test('records sent in one go share a batch', async () => {
  await using t = await start();
  await Promise.all(numbered(500).map((record) => t.producer.send(words, record)));
  expect(t.broker.requests.map(({ records }) => records)).toEqual([500]);
});

test('with lingerMs 0 records of one tick share a batch and nothing waits', async () => {
  await using t = await start({ lingerMs: 0 });
  await t.producer.send(words, { value: 'first' });
  await Promise.all(numbered(50).map((record) => t.producer.send(words, record)));
  expect(t.broker.requests.map(({ records }) => records)).toEqual([1, 50]);
});

test('a full batch goes without waiting for lingerMs', async () => {
  await using t = await start({ lingerMs: 60_000, batchBytes: 1_000 });
  const sends = numbered(40).map(({ value }) => t.producer.send(words, { value: value.padEnd(90, '.') }));
  await sends[0];
  expect(t.broker.requests.length).toBeGreaterThanOrEqual(1);
  expect(t.broker.requests.every(({ bytes }) => bytes <= 1_000)).toBe(true);
  await t.producer.flush();
  await Promise.all(sends);
  expect(t.broker.partition('words').endOffset).toBe(40);
});

test('keys, headers and timestamps arrive as they were sent', async () => {
  await using t = await start({}, 4);
  const at = new Date('2026-01-02T03:04:05.678Z');
  const { partition, timestampMs } = await t.producer.send(words, {
    key: 'foobar',
    value: 'v',
    timestampMs: at,
    headers: { trace: 'abc', raw: Buffer.from([1, 2]), none: null },
  });
  expect(partition).toBe((-790332482 & 0x7fffffff) % 4);
  expect(timestampMs).toBe(at.getTime());
  await t.producer.send(words, {
    value: 'w',
    partition: 3,
    headers: [
      { key: 'a', value: '1' },
      { key: 'a', value: '2' },
    ],
  });
  const read = await readAll(t.client, words);
  const first = read.find(({ value }) => value === 'v');
  expect(first).toMatchObject({ topic: 'words', partition, offset: 0, key: 'foobar', timestampMs: at.getTime() });
  expect(first?.headers.map(({ key, value }) => [key, value && Buffer.from(value).toString('hex')])).toEqual([
    ['trace', '616263'],
    ['raw', '0102'],
    ['none', null],
  ]);
  const second = read.find(({ value }) => value === 'w');
  expect(second).toMatchObject({ partition: 3, key: null });
  expect(second?.headers.map(({ value }) => value?.toString())).toEqual(['1', '2']);
});

test('sendMany tells where the records of each partition lie', async () => {
  await using t = await start({}, 3);
  const records = Array.from({ length: 300 }, (_, i) => ({ value: `${i}`, partition: i % 3 }));
  expect(await t.producer.sendMany(words, records)).toEqual({
    count: 300,
    partitions: [0, 1, 2].map((partition) => ({ partition, firstOffset: 0, lastOffset: 99, count: 100 })),
  });
  async function* slowly(): AsyncGenerator<{ value: string; partition: number }> {
    for (let i = 0; i < 5; i++) yield { value: `async ${i}`, partition: 1 };
  }
  expect(await t.producer.sendMany(words, slowly())).toEqual({
    count: 5,
    partitions: [{ partition: 1, firstOffset: 100, lastOffset: 104, count: 5 }],
  });
  expect(await t.producer.sendMany(words, [])).toEqual({ count: 0, partitions: [] });
});

test('records without a key fill one batch after the other, on changing partitions', async () => {
  await using t = await start({ batchBytes: 500, lingerMs: 50 }, 8);
  await t.producer.sendMany(words, numbered(400));
  const partitions = t.broker.requests.map(({ partition }) => partition);
  expect(t.broker.requests[0]?.records).toBeGreaterThan(10);
  expect(new Set(partitions).size).toBeGreaterThan(2);
  expect(t.broker.topics.get('words')?.partitions.reduce((sum, log) => sum + log.endOffset, 0)).toBe(400);
});

test('an own partitioner decides, and a nonsensical answer of it is refused', async () => {
  await using t = await start({ partitioner: (key) => (key?.toString() === 'bad' ? 99 : 2) }, 3);
  expect((await t.producer.send(words, { key: 'x', value: 'v' })).partition).toBe(2);
  await rejection(t.producer.send(words, { key: 'bad', value: 'v' }), 'UNKNOWN_TOPIC_OR_PARTITION');
});

test.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)(
  'batches compressed with %s keep their order',
  async (compression) => {
    await using t = await start({ compression, batchBytes: 2_000 });
    const sent = await Promise.all(numbered(500, 'compress me ').map((record) => t.producer.send(words, record)));
    expect(sent.map(({ offset }) => offset)).toEqual(Array.from({ length: 500 }, (_, i) => i));
    expect((await readAll(t.client, words)).map(({ value }) => value)).toEqual(
      numbered(500, 'compress me ').map(({ value }) => value),
    );
  },
);

test('at most maxInFlight batches of a partition are unanswered, and all of it is sent once answers come', async () => {
  await using t = await start({ maxInFlight: 3, batchBytes: 200 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const call = t.producer.sendMany(words, numbered(100));
  await until(() => t.broker.heldCount === 3, 'three requests are held');
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(t.broker.requests).toHaveLength(3);
  t.broker.onProduce = () => undefined;
  t.broker.releaseHeld();
  expect((await call).count).toBe(100);
  expect(await t.broker.partition('words').values()).toEqual(numbered(100).map(({ value }) => value));
});

test('answers that come out of order resolve the promises in order and with the right offsets', async () => {
  await using t = await start({ batchBytes: 1, maxInFlight: 4 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const order: number[] = [];
  const sends = numbered(4).map((record, i) =>
    t.producer.send(words, record).then(({ offset }) => {
      order.push(i);
      return offset;
    }),
  );
  await until(() => t.broker.heldCount === 4, 'four requests are held');
  t.broker.releaseHeld('last to first');
  expect(await Promise.all(sends)).toEqual([0, 1, 2, 3]);
  expect(order).toEqual([0, 1, 2, 3]);
});

test('with acks none a send resolves without an offset, and the record arrives', async () => {
  await using t = await start({ acks: 'none' });
  expect(await t.producer.send(words, { value: 'x', timestampMs: 7 })).toEqual({
    partition: 0,
    offset: -1,
    timestampMs: 7,
  });
  expect(await t.producer.sendMany(words, numbered(10))).toEqual({
    count: 10,
    partitions: [{ partition: 0, firstOffset: -1, lastOffset: -1, count: 10 }],
  });
  await t.producer.close();
  expect(t.broker.partition('words').endOffset).toBe(11);
});

test('a topic that does not exist is not created, and the message says how to', async () => {
  await using t = await start();
  const error = await rejection(
    t.producer.send(topic('nope', { value: string() }), { value: 'x' }),
    'UNKNOWN_TOPIC_OR_PARTITION',
  );
  expect(error.message).toContain("client.admin.createTopic({ name: 'nope' })");
  t.broker.addTopic('nope');
  expect((await t.producer.send(topic('nope', { value: string() }), { value: 'x' })).offset).toBe(0);
});

test('sends that wait for the topic share one lookup and keep their order', async () => {
  await using t = await start();
  t.broker.calls.length = 0;
  await Promise.all(numbered(200).map((record) => t.producer.send(words, record)));
  expect(t.broker.calls).toEqual(['GetTopic', 'InitProducer']);
  expect(await t.broker.partition('words').values()).toEqual(numbered(200).map(({ value }) => value));
});

test('a deleted topic fails the records sent to it, and is looked up again for the next', async () => {
  await using t = await start();
  await t.producer.send(words, { value: 'a' });
  t.broker.topics.delete('words');
  await rejection(t.producer.send(words, { value: 'b' }), 'UNKNOWN_TOPIC_OR_PARTITION');
  t.broker.addTopic('words', 2);
  t.broker.calls.length = 0;
  expect((await t.producer.send(words, { value: 'c', partition: 1 })).partition).toBe(1);
  expect(t.broker.calls).toEqual(['GetTopic']);
});

test('a record that the broker could never take is refused at once, with the numbers', async () => {
  await using t = await start();
  const error = await rejection(t.producer.send(words, { value: 'x'.repeat(9 * 1024 * 1024) }), 'MESSAGE_TOO_LARGE');
  expect(Number(error.metadata.actual_bytes)).toBeGreaterThan(Number(error.metadata.max_bytes));
  expect(t.broker.requests).toHaveLength(0);
});

test('a record larger than batchBytes has a batch of its own, in its place', async () => {
  await using t = await start({ batchBytes: 500 });
  const values = ['small', 'L'.repeat(5_000), 'small again'];
  await Promise.all(values.map((value) => t.producer.send(words, { value })));
  expect(await t.broker.partition('words').values()).toEqual(values);
  expect(t.broker.requests.map(({ records }) => records)).toEqual([1, 1, 1]);
});

test('bad records are refused one by one without touching the others', async () => {
  await using t = await start();
  const good = t.producer.send(words, { value: 'good' });
  await rejection(t.producer.send(words, { value: 5 as never }), 'INVALID_RECORD');
  await rejection(t.producer.send(words, { value: 'x', timestampMs: -1 }), 'INVALID_TIMESTAMP');
  await rejection(t.producer.send(words, { value: 'x', timestampMs: new Date(Number.NaN) }), 'INVALID_TIMESTAMP');
  await rejection(t.producer.send(words, { value: 'x', partition: 5 }), 'UNKNOWN_TOPIC_OR_PARTITION');
  await rejection(t.producer.send(words, { value: 'x', headers: { h: 5 as never } }), 'INVALID_RECORD');
  expect((await good).offset).toBe(0);
});

test('a tombstone is sent where the topic allows null', async () => {
  await using t = await start();
  const loose = topic('words', { value: nullable(string()) });
  await t.producer.send(loose, { key: 'k', value: null });
  expect((await readAll(t.client, loose)).map(({ key, value }) => [key, value])).toEqual([['k', null]]);
  await rejection(readAll(t.client, words), 'INVALID_RECORD');
});

test('when the buffer is full, send waits, in order, and goes on when there is room', async () => {
  await using t = await start({ bufferBytes: 2_000, batchBytes: 500 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const settled: number[] = [];
  const sends = numbered(100).map(({ value }, i) =>
    t.producer.send(words, { value: value.padEnd(100, '.') }).then(() => settled.push(i)),
  );
  await until(() => t.broker.heldCount > 0, 'something is held');
  await new Promise((resolve) => setTimeout(resolve, 20));
  const accepted = t.broker.requests.reduce((sum, { records }) => sum + records, 0);
  expect(accepted).toBeLessThan(25);
  t.broker.onProduce = () => undefined;
  t.broker.releaseHeld();
  await Promise.all(sends);
  expect(settled).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect((await t.broker.partition('words').values()).map((value) => value.replaceAll('.', ''))).toEqual(
    numbered(100).map(({ value }) => value),
  );
});

test('a buffer that is full of lingering batches frees itself without waiting for lingerMs', async () => {
  await using t = await start({ bufferBytes: 500, lingerMs: 60_000 }, 4);
  const sends = numbered(60).map(({ value }, i) => t.producer.send(words, { value, partition: i % 4 }));
  await sends[20];
  await t.producer.flush();
  await Promise.all(sends);
});

test('a waiting send can be aborted; the others are not disturbed', async () => {
  await using t = await start({ bufferBytes: 100, batchBytes: 100 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const first = t.producer.send(words, { value: 'x'.repeat(200) });
  await until(() => t.broker.heldCount === 1, 'the buffer is used up');
  const abort = new AbortController();
  const aborted = t.producer.send(words, { value: 'aborted' }, { signal: abort.signal });
  const last = t.producer.send(words, { value: 'last' });
  abort.abort();
  await rejection(aborted, 'CANCELLED');
  t.broker.onProduce = () => undefined;
  t.broker.releaseHeld();
  await Promise.all([first, last]);
  expect((await t.broker.partition('words').values()).slice(1)).toEqual(['last']);
});

test('more waiting sends than allowed are refused', async () => {
  await using t = await start({ bufferBytes: 100, batchBytes: 100, maxWaitingSends: 3 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const sends = [t.producer.send(words, { value: 'x'.repeat(200) })];
  await until(() => t.broker.heldCount === 1, 'the buffer is used up');
  sends.push(...numbered(3).map((record) => t.producer.send(words, record)));
  await rejection(t.producer.send(words, { value: 'one too many' }), 'RESOURCE_LIMIT');
  t.broker.onProduce = () => undefined;
  t.broker.releaseHeld();
  await Promise.all(sends);
});

test('flush sends what lingers and waits for it', async () => {
  await using t = await start({ lingerMs: 60_000 });
  const sends = numbered(10).map((record) => t.producer.send(words, record));
  await t.producer.flush();
  expect(t.broker.partition('words').endOffset).toBe(10);
  await Promise.all(sends);
  await t.producer.flush();
  await rejection(t.producer.flush({ signal: AbortSignal.abort() }), 'CANCELLED');
});

test('close delivers what was accepted, waiting sends and calls included, and is idempotent', async () => {
  await using t = await start({ bufferBytes: 1_000, batchBytes: 200, lingerMs: 60_000 });
  const sends = numbered(100).map((record) => t.producer.send(words, record));
  const call = t.producer.sendMany(words, numbered(100));
  await Promise.all([t.producer.close(), t.producer.close()]);
  await Promise.all(sends);
  expect((await call).count).toBe(100);
  expect(t.broker.partition('words').endOffset).toBe(200);
  await until(() => t.broker.producesOpen === 0, 'the stream is closed');
  await rejection(t.producer.send(words, { value: 'late' }), 'CLOSED');
});

test('close gives up after its limit and fails what is left, with its outcome unknown', async () => {
  await using t = await start({ maxInFlight: 1, batchBytes: 1 });
  t.broker.onProduce = () => ({ kind: 'silence' });
  const sends = numbered(3).map((record) => t.producer.send(words, record));
  const results = Promise.allSettled(sends);
  await until(() => t.broker.requests.length === 1, 'the first is under way');
  await t.producer.close({ timeoutMs: 20 });
  const outcomes = (await results).map((result) => {
    const error = result.status === 'rejected' ? (result.reason as LogError) : undefined;
    return [error?.reason, error?.outcome];
  });
  expect(outcomes).toEqual([
    ['CLOSED', 'unknown'],
    ['CLOSED', 'none'],
    ['CLOSED', 'none'],
  ]);
});

test('sendMany stops at the first failure, counts, and passes on what the iterable throws', async () => {
  await using t = await start();
  let taken = 0;
  function* failing(): Generator<{ value: string }> {
    for (; taken < 1_000; taken++) yield { value: taken === 20 ? (5 as never) : `${taken}` };
  }
  const error = await rejection(t.producer.sendMany(words, failing()), 'INVALID_RECORD');
  expect(error.metadata).toMatchObject({ delivered_count: '20', failed_count: '0' });
  expect(taken).toBe(20);
  const own = new Error('the source broke');
  function* throwing(): Generator<{ value: string }> {
    yield { value: 'before' };
    throw own;
  }
  await expect(t.producer.sendMany(words, throwing())).rejects.toBe(own);
  expect(await t.broker.partition('words').values()).toHaveLength(21);
  t.broker.onProduce = () => ({ kind: 'error', error: new LogError('INVALID_RECORD', 'no') });
  const refused = await rejection(t.producer.sendMany(words, numbered(7)), 'INVALID_RECORD');
  expect(refused.metadata).toMatchObject({ delivered_count: '0', failed_count: '7' });
});

test('the outcome of a failed sendMany is that of all its records, not of the first that failed', async () => {
  await using t = await start({ batchBytes: 20, maxInFlight: 1 });
  const refusing = (from: number): void => {
    let requests = 0;
    t.broker.onProduce = () =>
      requests++ < from ? undefined : { kind: 'error', error: new LogError('INVALID_RECORD', 'no') };
  };
  refusing(0);
  expect(await rejection(t.producer.sendMany(words, numbered(7)), 'INVALID_RECORD')).toMatchObject({ outcome: 'none' });
  // Sent again, the records that were delivered would be there twice.
  refusing(3);
  const partly = await rejection(t.producer.sendMany(words, numbered(7)), 'INVALID_RECORD');
  expect(Number(partly.metadata.delivered_count)).toBeGreaterThan(0);
  expect(partly.outcome).toBe('unknown');
});

test('a sendMany that waits can be aborted', async () => {
  await using t = await start({ bufferBytes: 100, batchBytes: 100 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const abort = new AbortController();
  const call = t.producer.sendMany(words, numbered(50), { signal: abort.signal });
  await until(() => t.broker.heldCount > 0, 'something is held');
  abort.abort();
  t.broker.onProduce = () => undefined;
  await until(() => t.broker.releaseHeld() >= 0 && t.broker.heldCount === 0, 'all is answered');
  const error = await rejection(call, 'CANCELLED');
  expect(Number(error.metadata.delivered_count)).toBeLessThan(50);
});

test('many sends may share one signal, and abort ends all that wait', async () => {
  await using t = await start({ bufferBytes: 100, batchBytes: 100 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  const first = t.producer.send(words, { value: 'x'.repeat(200) });
  await until(() => t.broker.heldCount === 1, 'the buffer is used up');
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on('warning', onWarning);
  const abort = new AbortController();
  const waiting = numbered(50).map((record) =>
    rejection(t.producer.send(words, record, { signal: abort.signal }), 'CANCELLED'),
  );
  abort.abort();
  await Promise.all(waiting);
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', onWarning);
  expect(warnings).toEqual([]);
  t.broker.onProduce = () => undefined;
  t.broker.releaseHeld();
  expect((await first).offset).toBe(0);
});
