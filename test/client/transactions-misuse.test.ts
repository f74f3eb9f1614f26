/** Transactions of the SDK in hands that are careless, or whose work fails again and again. */
import { expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { type Client, connect } from '../../src/client/client.js';
import { Consumer } from '../../src/client/consumer.js';
import { Coverage } from '../../src/client/group/transactional-offsets.js';
import type { ConnectOptions } from '../../src/client/options.js';
import type { ReadRecord } from '../../src/client/record-batch.js';
import { string, topic } from '../../src/client/serdes.js';
import type { Transaction } from '../../src/client/transaction.js';
import { type Clock, systemClock } from '../../src/core/clock.js';
import type { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { readAll } from './support/collect.js';

const orders = topic('orders', { value: string() });
const invoices = topic('invoices', { value: string() });
const GROUP = 'billing';

interface Setting extends AsyncDisposable {
  readonly client: Client;
  connect(options: ConnectOptions): Promise<Client>;
  /** One batch for each value. */
  order(...values: string[]): Promise<void>;
  invoiced(): Promise<string[]>;
  committed(): Promise<number | undefined>;
}

async function start(): Promise<Setting> {
  const broker = await startBroker({ storage: 'memory' });
  const client = await connect(broker.address);
  for (const name of ['orders', 'invoices']) await client.admin.createTopic({ name, partitions: 1 });
  const producer = client.producer({ lingerMs: 0 });
  return {
    client,
    connect: (options) => connect(broker.address, options),
    async order(...values) {
      for (const value of values) await producer.send(orders, { value });
    },
    async invoiced() {
      return (await readAll(client, invoices)).map(({ value }) => value);
    },
    async committed() {
      return (await client.admin.getGroup(GROUP)).partitions[0]?.committedOffset;
    },
    async [Symbol.asyncDispose]() {
      await client.close();
      await broker.close(0);
    },
  };
}

async function attempts(t: Setting, client: Client, most: number): Promise<string[]> {
  await t.order('a', 'b');
  await using tx = client.transactionalProducer('billing-1');
  await using consumer = client.consumer(orders, { group: GROUP, autoCommit: { intervalMs: 5 } });
  const seen: string[] = [];
  for await (const { value } of consumer) {
    if (seen.push(value) === most) break;
    await tx.transaction(() => Promise.reject(new Error('own'))).catch(() => {});
  }
  return seen;
}

test('a record is never passed over, however often its transaction fails before it has named its offsets', async () => {
  await using t = await start();
  const clock: Clock = { ...systemClock, sleep: (_ms, signal) => systemClock.sleep(0, signal) };
  await using client = await t.connect({ clock });
  expect(new Set(await attempts(t, client, 120))).toEqual(new Set(['a']));
});

test('a transaction that fails again and again is not tried again without a pause', async () => {
  await using t = await start();
  const startedMs = performance.now();
  expect(await attempts(t, t.client, 6)).toEqual(['a', 'a', 'a', 'a', 'a', 'a']);
  // At once, then 10, 20, 40 and 80 ms later, give or take a fifth.
  expect(performance.now() - startedMs).toBeGreaterThan(120 - 1);
});

test('an abort says that nothing is committed, whatever was cut short', async () => {
  await using t = await start();
  await using tx = t.client.transactionalProducer('billing-1');
  const abort = new AbortController();
  const given = tx.transaction(
    async (transaction) => {
      await transaction.send(invoices, { value: 'a' });
      abort.abort();
      await new Promise(() => {});
    },
    { signal: abort.signal },
  );
  expect(await rejection(given, 'CANCELLED')).toMatchObject({ outcome: 'none' });
  const early = tx.transaction(() => {}, { signal: abort.signal });
  expect(await rejection(early, 'CANCELLED')).toMatchObject({ outcome: 'none' });
  const cut = tx.transaction(async (transaction) => {
    await transaction.send(invoices, { value: 'b' });
    await transaction.send(invoices, { value: 'c' }, { signal: abort.signal });
  });
  expect(await rejection(cut, 'CANCELLED')).toMatchObject({ outcome: 'none' });
  expect(await t.invoiced()).toEqual([]);
});

test('what is sent while the transaction ends makes it fail: somebody forgot to wait for it', async () => {
  await using t = await start();
  await using tx = t.client.transactionalProducer('billing-1');
  const failing = tx.transaction((transaction) => {
    void transaction.send(invoices, { value: 'a' });
    void Promise.resolve()
      .then(() => Promise.resolve())
      .then(() => Promise.resolve())
      .then(() => Promise.resolve())
      .then(() => transaction.send(invoices, { value: 'forgotten' }))
      .catch(() => {});
  });
  await rejection(failing, 'INVALID_TXN_STATE');
  expect(await t.invoiced()).toEqual([]);
});

test('what is sent after the transaction has ended is a rejection that nobody has handled, unless it was aborted', async () => {
  await using t = await start();
  await using tx = t.client.transactionalProducer('billing-1');
  const listeners = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  const unhandled: unknown[] = [];
  process.on('unhandledRejection', (error) => unhandled.push(error));
  try {
    let over: Transaction | undefined;
    const given = async (fails: boolean): Promise<void> =>
      tx.transaction((transaction) => {
        over = transaction;
        if (fails) throw new Error('own');
      });
    await given(true).catch(() => {});
    void over?.send(invoices, { value: 'aborted' });
    await given(false);
    void over?.send(invoices, { value: 'lost' });
    void over?.sendMany(invoices, [{ value: 'lost' }]);
    await until(() => unhandled.length >= 2, 'they were noticed');
  } finally {
    process.removeAllListeners('unhandledRejection');
    for (const listener of listeners) process.on('unhandledRejection', listener);
  }
  expect(unhandled.map((error) => (error as LogError).reason)).toEqual(['INVALID_TXN_STATE', 'INVALID_TXN_STATE']);
});

test('offsets do not go with transactions where a consumer works on several records at once', async () => {
  await using t = await start();
  await t.order('a', 'b');
  await using first = t.client.transactionalProducer('billing-1');
  await using second = t.client.transactionalProducer('billing-2');
  const consumer = t.client.consumer(orders, { group: GROUP });
  const errors: LogError[] = [];
  const running = consumer.run(
    async (record) => {
      const tx = record.value === 'a' ? first : second;
      await tx.transaction((transaction) => transaction.commitOffsets(consumer, record)).catch((e) => errors.push(e));
    },
    { concurrency: 2, orderedBy: 'none' },
  );
  await until(() => errors.length === 2, 'both were refused');
  await consumer.close();
  await running;
  expect(errors.map(({ reason }) => reason)).toEqual(['INVALID_REQUEST', 'INVALID_REQUEST']);
  expect(await t.committed()).toBeUndefined();
});

test('of records that were collected, all come again when naming the last one of them was in vain', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c', 'd');
  await using tx = t.client.transactionalProducer('billing-1');
  await using consumer = t.client.consumer(orders, { group: GROUP, autoCommit: false });
  const seen: string[] = [];
  let collected: string[] = [];
  let failures = 2;
  for await (const record of consumer) {
    seen.push(record.value);
    collected.push(record.value);
    if (collected.length < 2) continue;
    const values = collected;
    collected = [];
    await tx
      .transaction((transaction) => {
        void transaction.sendMany(
          invoices,
          values.map((value) => ({ value })),
        );
        transaction.commitOffsets(consumer, record);
        if (values.includes(failures === 2 ? 'b' : 'd') && failures-- > 0) throw new Error('own');
      })
      .catch(() => {});
    if ((await t.committed()) === 4 || seen.length > 10) break;
  }
  expect(seen.join('')).toBe('ababcdcd');
  expect(await t.invoiced()).toEqual(['a', 'b', 'c', 'd']);
});

test('a consumer that waits before it hands out again goes on where the group says, once nobody knows how that has ended', async () => {
  await using t = await start();
  await t.order('a', 'b');
  await using consumer = t.client.consumer(orders, { group: GROUP });
  const seen: string[] = [];
  for await (const record of consumer) {
    seen.push(record.value);
    if (seen.length === 3) break;
    const coverage = new Coverage(Consumer.offsetsOf(consumer));
    coverage.add(record);
    coverage.aborted();
    if (seen.length === 1) continue;
    coverage.add(record);
    coverage.unknown();
  }
  expect(seen).toEqual(['a', 'a', 'a']);
});

test('a transaction does not take back what another one has committed', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c');
  await using tx = t.client.transactionalProducer('billing-1');
  await using consumer = t.client.consumer(orders, { group: GROUP });
  const records: ReadRecord<string, string>[] = [];
  for await (const record of consumer) {
    records.push(record);
    if (records.length < 3) continue;
    await tx.transaction((transaction) => transaction.commitOffsets(consumer, record));
    await tx.transaction((transaction) => transaction.commitOffsets(consumer, record));
    const again = tx.transaction((transaction) => transaction.commitOffsets(consumer, records.slice(0, 1)));
    expect(await rejection(again, 'INVALID_REQUEST')).toMatchObject({ metadata: { offset: '0' } });
    break;
  }
  expect(await t.committed()).toBe(3);
});
