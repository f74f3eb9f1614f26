/** What readers and consumers see of transactions, on a production broker in memory. */
import { expect, test } from 'vitest';
import { ATTRIBUTES_AT, PRODUCER_ID_AT, TRANSACTIONAL_BIT, writeInt64 } from '../../src/batch/layout.js';
import { abortedTransactions } from '../../src/client/isolation.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { collect, readAll } from './support/collect.js';
import { GROUP, invoices, orders, start } from './support/transaction-setting.js';

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

test('a batch belongs to an aborted transaction by its producer and its base offset', () => {
  const aborted = abortedTransactions([
    { producerId: 7, firstOffset: 30, lastOffset: 40 },
    { producerId: 8, firstOffset: 5, lastOffset: 50 },
    { producerId: 7, firstOffset: 10, lastOffset: 20 },
  ]);
  const has = (producerId: number, baseOffset: number, isTransactional = true): boolean | undefined => {
    const batch = Buffer.alloc(61);
    writeInt64(batch, 0, baseOffset);
    writeInt64(batch, PRODUCER_ID_AT, producerId);
    batch.writeInt16BE(isTransactional ? TRANSACTIONAL_BIT : 0, ATTRIBUTES_AT);
    return aborted?.has(batch, 0);
  };
  const of7 = [9, 10, 19, 20, 21, 29, 30, 40, 41].filter((offset) => has(7, offset));
  expect(of7).toEqual([10, 19, 20, 30, 40]);
  expect([4, 5, 25, 50, 51].filter((offset) => has(8, offset))).toEqual([5, 25, 50]);
  expect([has(9, 15), has(7, 15, false)]).toEqual([false, false]);
  expect(abortedTransactions([])).toBeUndefined();
});
