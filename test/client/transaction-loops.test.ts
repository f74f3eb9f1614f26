/** Loops that read, write and commit in transactions, and what becomes of them when those fail. */
import { expect, test } from 'vitest';
import { Channel } from '../../src/client/channel.js';
import { MetadataCache } from '../../src/client/metadata-cache.js';
import { type Method, methods } from '../../src/client/methods.js';
import { resolveTransactionalOptions } from '../../src/client/transaction-options.js';
import { TransactionalProducer } from '../../src/client/transactional-producer.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import { silentLogger } from '../../src/core/logger.js';
import { systemRandom } from '../../src/core/random.js';
import { rejection } from '../support/rejection.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { until } from '../support/until.js';
import { GROUP, invoices, loop, orders, start } from './support/transaction-setting.js';

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
  const inputs = Array.from({ length: 15 }, (_, i) => `v${i}`);
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

/** Loses the answers to commits when told to. */
class LossyChannel extends Channel {
  losesCommits = false;

  override async unary<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: Parameters<Channel['unary']>[2],
  ): Promise<Response> {
    const answer = await super.unary(method, request, options);
    if (this.losesCommits && method.path === methods.commit.path) throw new LogError('CONNECTION_LOST', 'lost');
    return answer;
  }
}

test('after a commit of which nobody could tell, the loop goes on where the group says (invariant 11)', async () => {
  await using t = await start();
  await t.order('a', 'b', 'c');
  const channel = new LossyChannel(t.broker.address, 'lossy', systemClock);
  const lookup = (name: string) => t.client.admin.lookUpTopic(name);
  await using tx = new TransactionalProducer({
    channel,
    runtime: { clock: systemClock, random: systemRandom, logger: silentLogger },
    metadata: new MetadataCache(lookup, systemClock, 300_000),
    options: resolveTransactionalOptions('billing-1', { deliveryTimeoutMs: 300 }),
    requestTimeoutMs: 5_000,
    maxRequestBytes: 1024 * 1024,
    working: new Set(),
    onClosed: () => channel.close(),
  });
  const reading = loop(
    t,
    async ([value = ''], transact) => {
      channel.losesCommits = value === 'b';
      await transact((transaction) => transaction.send(invoices, { value, partition: 0 }));
    },
    tx,
  );
  await until(async () => (await t.committed()) === 3, 'everything is committed');
  await reading.stop();
  expect(reading.errors.map(({ reason, outcome }) => [reason, outcome])).toEqual([['CONNECTION_LOST', 'unknown']]);
  expect(reading.seen).toEqual(['a', 'b', 'c']);
  expect(await t.values(invoices)).toEqual(['a', 'b', 'c']);
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

/** Runs a transaction without offsets for each order, which fails as asked; resolves to what was handed out up to `last`. */
async function unnamed(last: string, fails: (value: string) => boolean): Promise<string[]> {
  await using t = await start();
  await t.order('a', 'b', 'c');
  const tx = t.tx();
  const seen: string[] = [];
  await using consumer = t.client.consumer(orders, { group: GROUP });
  for await (const { value } of consumer) {
    seen.push(value);
    const sending = tx.transaction(async (transaction) => {
      if (fails(value)) throw new Error('own');
      await transaction.send(invoices, { value, partition: 0 });
    });
    await sending.catch(() => {});
    if (value === last) break;
  }
  return seen;
}

test('a transaction that has nothing to do with the consumer whose records it is made of does not move it', async () => {
  expect(await unnamed('c', (value) => value !== 'a')).toEqual(['a', 'b', 'c']);
});

test('a record comes again as often as its transaction fails, though none has named its offsets yet', async () => {
  let failures = 0;
  const seen = await unnamed('b', () => failures++ < 6);
  expect(seen).toEqual([...Array.from({ length: 7 }, () => 'a'), 'b']);
});
