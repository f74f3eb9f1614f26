/** Transactions of the SDK on a production broker in memory: what readers, groups and the loops of consumers see of them. */
import { expect, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import { Channel } from '../../src/client/channel.js';
import { type Client, connect } from '../../src/client/client.js';
import type { Consumer } from '../../src/client/consumer.js';
import { methods } from '../../src/client/methods.js';
import type { ConnectOptions } from '../../src/client/options.js';
import { string, type Topic, topic } from '../../src/client/serdes.js';
import type { Transaction } from '../../src/client/transaction.js';
import type { TransactionalProducerOptions } from '../../src/client/transaction-options.js';
import type { TransactionalProducer } from '../../src/client/transactional-producer.js';
import { systemClock } from '../../src/core/clock.js';
import type { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { until } from '../support/until.js';
import { collect, readAll } from './support/collect.js';

type Words = Topic<string, string>;
const typed = (name: string): Words => topic(name, { value: string() });
const orders = typed('orders');
const invoices = typed('invoices');
const ledger = typed('ledger');
const GROUP = 'billing';

interface Setting extends AsyncDisposable {
  readonly broker: RunningBroker;
  readonly client: Client;
  connect(address?: string, options?: ConnectOptions): Promise<Client>;
  tx(id?: string, options?: TransactionalProducerOptions): TransactionalProducer;
  /** One batch for each value in partition 0 of `orders`. */
  order(...values: string[]): Promise<void>;
  values(from: Words, isolation?: 'read_committed' | 'read_uncommitted'): Promise<string[]>;
  committed(): Promise<number | undefined>;
}

async function start(): Promise<Setting> {
  const broker = await startBroker({ storage: 'memory' });
  const clients: Client[] = [];
  const open = async (address = broker.address, options: ConnectOptions = {}): Promise<Client> => {
    const client = await connect(address, options);
    clients.push(client);
    return client;
  };
  const client = await open();
  for (const name of ['orders', 'invoices', 'ledger']) await client.admin.createTopic({ name, partitions: 2 });
  const producer = client.producer({ lingerMs: 0 });
  return {
    broker,
    client,
    connect: open,
    tx: (id = 'billing-1', options = {}) => client.transactionalProducer(id, { retryBackoffMs: 5, ...options }),
    async order(...values) {
      for (const value of values) await producer.send(orders, { value, partition: 0 });
    },
    async values(from, isolation = 'read_committed') {
      return (await readAll(client, from, { isolation })).map(({ value }) => value);
    },
    async committed() {
      const groups = await client.admin.listGroups();
      if (!groups.some(({ groupId }) => groupId === GROUP)) return undefined;
      const { partitions } = await client.admin.getGroup(GROUP);
      return partitions.find(({ topic: name, partition }) => name === 'orders' && partition === 0)?.committedOffset;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(clients.map((one) => one.close()));
      await broker.close(0);
    },
  };
}

interface Loop {
  readonly consumer: Consumer<string, string>;
  /** What was handed out, batch after batch. */
  readonly seen: string[];
  readonly errors: LogError[];
  stop(): Promise<void>;
}

/** Reads orders batch by batch; every failure of `handle` is noted, and the loop goes on. */
function loop(
  t: Setting,
  handle: (values: readonly string[], transact: Transact, consumer: Consumer<string, string>) => Promise<void>,
  tx: TransactionalProducer = t.tx(),
): Loop {
  const abort = new AbortController();
  const consumer = t.client.consumer(orders, { group: GROUP, signal: abort.signal, autoCommit: { intervalMs: 5 } });
  const seen: string[] = [];
  const errors: LogError[] = [];
  const running = (async () => {
    for await (const batch of consumer.batches()) {
      const values = (await batch.records()).map(({ value }) => value);
      seen.push(...values);
      const transact: Transact = (work) =>
        tx.transaction(async (transaction) => {
          await work(transaction);
          transaction.commitOffsets(consumer, batch);
        });
      await handle(values, transact, consumer).catch((error) => errors.push(error));
    }
  })();
  running.catch(() => {});
  return {
    consumer,
    seen,
    errors,
    async stop() {
      abort.abort();
      await rejection(running, 'CANCELLED');
    },
  };
}

type Transact = (work: (transaction: Transaction) => Promise<unknown> | unknown) => Promise<void>;

test('what a loop reads, writes and commits becomes visible together (invariant 11)', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c');
  await using consumer = t.client.consumer(orders, { group: GROUP });
  await using tx = t.client.transactionalProducer('billing-1', { timeoutMs: 60_000 });
  const before: unknown[] = [];
  for await (const batch of consumer.batches()) {
    await tx.transaction(async (transaction) => {
      for (const record of batch) {
        await transaction.send(invoices, { value: `invoice of ${record.value}`, partition: 0 });
        await transaction.sendMany(ledger, [{ value: record.value }, { value: record.value }]);
      }
      transaction.commitOffsets(consumer, batch);
      if (before.length === 0) {
        await until(async () => (await t.values(invoices, 'read_uncommitted')).length === 1, 'it is in the log');
        before.push(...(await Promise.all([t.values(invoices), t.values(ledger), t.committed()])));
      }
    });
    if (batch.nextOffset === 3) break;
  }
  expect(before).toEqual([[], [], undefined]);
  expect(await t.values(invoices)).toEqual(['invoice of a', 'invoice of b', 'invoice of c']);
  expect((await t.values(ledger)).sort()).toEqual(['a', 'a', 'b', 'b', 'c', 'c']);
  expect(await t.committed()).toBe(3);
});

test('of an aborted transaction nobody sees anything, and no reader hangs at its end (invariant 11)', async () => {
  await using t = await start();
  const tx = t.tx();
  const send = (value: string, fails: boolean): Promise<unknown> =>
    tx
      .transaction(async (transaction) => {
        await transaction.send(invoices, { value, partition: 0 });
        if (fails) throw new Error('own');
      })
      .catch(() => {});
  await send('a', true);
  expect(await t.values(invoices)).toEqual([]);
  await send('b', false);
  await send('c', true);
  await send('d', true);
  await using plain = t.client.producer();
  await plain.send(invoices, { value: 'e', partition: 0 });
  await send('f', true);
  expect(await t.values(invoices)).toEqual(['b', 'e']);
  expect(await t.values(invoices, 'read_uncommitted')).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
});

test('with read_committed the end lies before the open transaction, with read_uncommitted at the high watermark', async () => {
  await using t = await start();
  await using plain = t.client.producer({ lingerMs: 0 });
  await plain.send(invoices, { value: 'a', partition: 0 });
  await t.tx().transaction(async (transaction) => {
    await transaction.send(invoices, { value: 'open', partition: 0 });
    await plain.send(invoices, { value: 'behind', partition: 0 });
    const end = async (isolation?: 'read_committed' | 'read_uncommitted') =>
      (await t.client.admin.listOffsets(invoices, 'latest', [0], isolation === undefined ? {} : { isolation }))[0]
        ?.offset;
    expect([await end('read_committed'), await end('read_uncommitted'), await end()]).toEqual([1, 3, 3]);
    expect(await readAll(t.client, invoices, { from: 2, partitions: [0] })).toEqual([]);
    await rejection(readAll(t.client, invoices, { from: 4, partitions: [0] }), 'OFFSET_OUT_OF_RANGE');
    const firstFive = t.client.read(invoices, { from: 1, partitions: [0], to: 5 });
    void collect(firstFive).then((records) => seen.push(...records.map(({ value }) => value)));
  });
  const seen: string[] = [];
  await plain.send(invoices, { value: 'after', partition: 0 });
  await until(() => seen.length === 3, 'the reader has what was held back');
  expect(seen).toEqual(['open', 'behind', 'after']);
});

test('a consumer passes what was aborted, and commits beyond the markers', async () => {
  await using t = await start();
  const tx = t.tx();
  const inOrders = (value: string, fails: boolean): Promise<unknown> =>
    tx
      .transaction(async (transaction) => {
        await transaction.send(orders, { value, partition: 0 });
        if (fails) throw new Error('own');
      })
      .catch(() => {});
  await inOrders('a', false);
  await inOrders('b', true);
  await inOrders('c', false);
  await inOrders('d', true);
  const seen: string[] = [];
  const abort = new AbortController();
  const consumer = t.client.consumer(orders, { group: GROUP, signal: abort.signal, autoCommit: { intervalMs: 5 } });
  const running = consumer.run(({ value }) => void seen.push(value), { concurrency: 4 });
  await until(() => consumer.position({ topic: 'orders', partition: 0 }) === 8, 'it stands behind the last marker');
  await until(async () => (await t.committed()) === 8, 'and has committed that');
  abort.abort();
  await rejection(running, 'CANCELLED');
  expect(seen).toEqual(['a', 'c']);
});

test('a loop that goes on after an abort gets the same records again, from its first transaction on', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c');
  const failures = new Map([
    ['a', 2],
    ['c', 1],
  ]);
  const reading = loop(t, async ([value = ''], transact) => {
    await transact(async (transaction) => {
      await transaction.send(invoices, { value, partition: 0 });
      const left = failures.get(value) ?? 0;
      failures.set(value, left - 1);
      if (left > 0) throw new Error('own');
    });
  });
  await until(async () => (await t.committed()) === 3, 'everything is committed');
  await reading.stop();
  expect(reading.seen).toEqual(['a', 'a', 'a', 'b', 'c', 'c']);
  expect(await t.values(invoices)).toEqual(['a', 'b', 'c']);
});

test('a loop that repeats the transaction by itself does not get the records again', async () => {
  await using t = await start();
  await t.order('a', 'b');
  let failed = false;
  const reading = loop(t, async ([value = ''], transact) => {
    const attempt = (): Promise<void> =>
      transact(async (transaction) => {
        await transaction.send(invoices, { value, partition: 0 });
        if (failed) return;
        failed = true;
        throw new Error('own');
      });
    await attempt().catch(attempt);
  });
  await until(async () => (await t.committed()) === 2, 'everything is committed');
  await reading.stop();
  expect(reading.seen).toEqual(['a', 'b']);
  expect(await t.values(invoices)).toEqual(['a', 'b']);
});

test('records collected over several turns of the loop are committed, or handed out again, together', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c', 'd');
  const tx = t.tx();
  await using consumer = t.client.consumer(orders, { group: GROUP });
  let collected: string[] = [];
  let failed = false;
  const seen: string[] = [];
  for await (const record of consumer) {
    seen.push(record.value);
    collected.push(record.value);
    if (collected.length < 2) continue;
    const values = collected;
    collected = [];
    await tx
      .transaction(async (transaction) => {
        await transaction.sendMany(
          invoices,
          values.map((value) => ({ value, partition: 0 })),
        );
        if (record.value === 'd' && !failed) {
          failed = true;
          throw new Error('own');
        }
        transaction.commitOffsets(consumer, record);
      })
      .catch(() => {});
    if ((await t.values(invoices)).length === 4) break;
  }
  expect(seen).toEqual(['a', 'b', 'c', 'd', 'c', 'd']);
  expect(await t.values(invoices)).toEqual(['a', 'b', 'c', 'd']);
  expect(await t.committed()).toBe(4);
});

test('a consumer whose offsets go with transactions commits nothing by itself', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c');
  const reading = loop(t, async ([value], transact) => {
    if (value === 'a') await transact(() => {});
  });
  await until(() => reading.seen.length === 3, 'everything was handed out');
  await reading.stop();
  expect(await t.committed()).toBe(1);
});

test('whoever uses the transactional id next shuts the producer out, whose transaction is aborted (invariant 9)', async () => {
  await using t = await start();
  const zombie = t.tx();
  const failing = zombie.transaction(async (transaction) => {
    await transaction.send(invoices, { value: 'zombie', partition: 0 });
    await t.tx().transaction((other) => other.send(invoices, { value: 'new', partition: 0 }));
    await transaction.send(invoices, { value: 'late', partition: 0 }).catch(() => {});
  });
  await rejection(failing, 'PRODUCER_FENCED');
  await rejection(
    zombie.transaction(() => {}),
    'PRODUCER_FENCED',
  );
  expect(await t.values(invoices)).toEqual(['new']);
  expect(await t.client.admin.findHangingTransactions()).toEqual([]);
});

test('a transaction that an administrator or its timeout has aborted is to be repeated', async () => {
  await using t = await start();
  const tx = t.tx();
  const failing = tx.transaction(async (transaction) => {
    await transaction.send(invoices, { value: 'a', partition: 0 });
    expect(await t.client.admin.describeTransaction('billing-1')).toMatchObject({
      state: 'ongoing',
      partitions: [{ topic: 'invoices', partition: 0 }],
    });
    const [described] = await t.client.admin.describeProducers(invoices, 0);
    expect(described).toMatchObject({ lastSequence: 0, openTransaction: { firstOffset: 0 } });
    expect(await t.client.admin.abortTransaction('billing-1')).toMatchObject({ state: 'complete-abort' });
  });
  await rejection(failing, 'TRANSACTION_ABORTABLE');
  await tx.transaction((transaction) => transaction.send(invoices, { value: 'b', partition: 0 }));
  expect(await t.values(invoices)).toEqual(['b']);
  expect(await t.client.admin.listTransactions({ states: ['complete-commit'] })).toMatchObject([
    { transactionalId: 'billing-1', state: 'complete-commit' },
  ]);
  expect(await t.client.admin.listTransactions({ states: ['ongoing'] })).toEqual([]);
  await rejection(t.client.admin.abortTransaction('billing-1'), 'INVALID_TXN_STATE');
  await rejection(t.client.admin.describeTransaction('other'), 'TRANSACTIONAL_ID_NOT_FOUND');
});

test('transactions commit once though every connection is cut again and again', async () => {
  await using t = await start();
  const proxy = await TcpProxy.start(t.broker.address);
  try {
    const client = await t.connect(proxy.address, { requestTimeoutMs: 1_000 });
    const tx = client.transactionalProducer('billing-1', { retryBackoffMs: 1, retryBackoffMaxMs: 5 });
    const wanted = Array.from({ length: 12 }, (_, i) => `v${i}`);
    for (const value of wanted) {
      // What passes before the cut differs, so that requests and answers of every kind are lost.
      proxy.cutAfter(100 + wanted.indexOf(value) * 60, 'reset');
      await tx.transaction(async (transaction) => {
        await transaction.send(invoices, { value, partition: 0 });
        await transaction.send(ledger, { value, partition: 1 });
      });
    }
    expect(await t.values(invoices)).toEqual(wanted);
    expect(await t.values(ledger)).toEqual(wanted);
    expect(proxy.cutCount).toBeGreaterThan(2);
  } finally {
    await proxy.stop();
  }
});

test('a partition that moves during a transaction is read on where that has ended (invariant 10)', async () => {
  await using t = await start();
  await t.order('a', 'b');
  let finish = (): void => {};
  let isOpen = false;
  const first = loop(t, async ([value = ''], transact) => {
    await transact(async (transaction) => {
      await transaction.send(invoices, { value: `1 ${value}`, partition: 0 });
      if (isOpen) return;
      isOpen = true;
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    });
  });
  await until(() => isOpen, 'the first has a transaction open');
  const second = loop(
    t,
    ([value = ''], transact) =>
      transact((transaction) => transaction.send(invoices, { value: `2 ${value}`, partition: 0 })),
    t.tx('billing-2'),
  );
  const third = loop(
    t,
    ([value = ''], transact) =>
      transact((transaction) => transaction.send(invoices, { value: `3 ${value}`, partition: 0 })),
    t.tx('billing-3'),
  );
  await until(
    () => second.consumer.assignment().length + third.consumer.assignment().length > 0,
    'one partition moves',
  );
  finish();
  await until(async () => (await t.committed()) === 2, 'everything is committed');
  await first.stop();
  await t.order('c', 'd');
  await until(async () => (await t.committed()) === 4, 'the others go on');
  await second.stop();
  await third.stop();
  expect((await t.values(invoices)).map((value) => value.slice(2))).toEqual(['a', 'b', 'c', 'd']);
  expect([...first.errors, ...second.errors, ...third.errors]).toEqual([]);
});

test('a consumer waits for a transaction with offsets of its partition, and for no other partition', async () => {
  await using t = await start();
  await t.order('a', 'b');
  await using plain = t.client.producer({ lingerMs: 0 });
  await plain.send(orders, { value: 'x', partition: 1 });
  const channel = new Channel(t.broker.address, 'raw', systemClock);
  const limits = { timeoutMs: 5_000 };
  const transactionalId = 'raw';
  const init = { transactionalId, transactionTimeoutMs: 60_000 };
  const { producerId, producerEpoch } = await channel.unary(methods.initProducer, init, limits);
  const raw = { transactionalId, producerId, producerEpoch };
  const { topicId } = await t.client.admin.getTopic('orders');
  const offsets = [{ topic: 'orders', topicId, partition: 0, offset: 1, metadata: '' }];
  const added = { ...raw, groupId: GROUP, memberId: '', memberEpoch: 0, offsets };
  expect(await channel.unary(methods.addOffsets, added, limits)).toEqual({ refused: [] });
  const seen: string[] = [];
  const abort = new AbortController();
  const consumer = t.client.consumer(orders, { group: GROUP, signal: abort.signal });
  const running = consumer.run(({ value }) => void seen.push(value));
  await until(() => seen.length === 1, 'the other partition is read');
  expect(seen).toEqual(['x']);
  await channel.unary(methods.commit, raw, limits);
  await until(() => seen.length === 2, 'the partition is read where the transaction has committed');
  expect(seen).toEqual(['x', 'b']);
  abort.abort();
  await rejection(running, 'CANCELLED');
  channel.close();
});

test('whatever is lost on the way, each input has its output once (invariant 11)', async () => {
  await using t = await start();
  const inputs = Array.from({ length: 30 }, (_, i) => `v${i}`);
  await t.order(...inputs);
  const proxy = await TcpProxy.start(t.broker.address);
  try {
    // Nothing is repeated: every loss is a failure, and the outcome of many a transaction is unknown.
    const client = await t.connect(proxy.address, { requestTimeoutMs: 1_000 });
    const tx = client.transactionalProducer('billing-1', { retryBackoffMs: 1, deliveryTimeoutMs: 2 });
    let attempts = 0;
    const reading = loop(
      { ...t, client },
      async ([value = ''], transact) => {
        const attempt = attempts++;
        if (attempt % 2 === 0) proxy.cutAfter(100 + ((attempt * 61) % 900), 'reset');
        await transact((transaction) => transaction.send(invoices, { value, partition: 0 }));
      },
      tx,
    );
    await until(async () => (await t.committed()) === inputs.length, 'everything is committed');
    await reading.stop();
    expect(await t.values(invoices)).toEqual(inputs);
    expect(reading.errors.length).toBeGreaterThan(2);
  } finally {
    await proxy.stop();
  }
});

test('a broker that is started anew in the middle of a transaction aborts it, and the loop goes on (invariant 11)', async () => {
  const storage = { dataDir: temporaryDirectory() };
  let broker = await startBroker({ storage });
  const client = await connect(broker.address);
  for (const name of ['orders', 'invoices']) await client.admin.createTopic({ name });
  await using producer = client.producer({ lingerMs: 0 });
  for (const value of ['a', 'b', 'c']) await producer.send(orders, { value });
  const tx = client.transactionalProducer('billing-1', { retryBackoffMs: 5 });
  const errors: LogError[] = [];
  let restarted = false;
  const consumer = client.consumer(orders, { group: GROUP });
  for await (const batch of consumer.batches()) {
    await tx
      .transaction(async (transaction) => {
        for (const { value } of batch) await transaction.send(invoices, { value });
        if (batch.baseOffset === 1 && !restarted) {
          restarted = true;
          await broker.close(0);
          broker = await startBroker({ storage, listen: broker.address });
        }
        transaction.commitOffsets(consumer, batch);
      })
      .catch((error) => errors.push(error));
    const [committed] = await consumer.committed([{ topic: 'orders', partition: 0 }]);
    if (committed?.offset === 3) break;
  }
  expect((await readAll(client, invoices)).map(({ value }) => value)).toEqual(['a', 'b', 'c']);
  expect(errors.map(({ reason }) => reason)).toEqual(['TRANSACTION_ABORTABLE']);
  await client.close();
  await broker.close(0);
});

test('records that are no longer the consumer`s are not committed, and the transaction is aborted (invariant 9)', async () => {
  await using t = await start();
  await t.order('a');
  const tx = t.tx();
  const consumer = t.client.consumer(orders, { group: GROUP });
  const other = t.client.consumer(orders, { group: 'other' });
  let failure: LogError | undefined;
  for await (const record of consumer) {
    await rejection(
      tx.transaction((transaction) => transaction.commitOffsets(other, record)),
      'INVALID_REQUEST',
    );
    await rejection(
      tx.transaction((transaction) => transaction.commitOffsets(consumer, { ...record })),
      'INVALID_REQUEST',
    );
    await t.client.admin.resetGroupOffsets({ group: GROUP, topic: orders, to: 'earliest' });
    await until(() => consumer.position(record) !== 1, 'the consumer has heard of it');
    failure = await rejection(
      tx.transaction(async (transaction) => {
        await transaction.send(invoices, { value: 'late', partition: 0 });
        expect(() => transaction.commitOffsets(consumer, record)).toThrow();
      }),
      'FENCED_MEMBER_EPOCH',
    );
    break;
  }
  expect(failure?.reason).toBe('FENCED_MEMBER_EPOCH');
  expect(await t.values(invoices)).toEqual([]);
});
