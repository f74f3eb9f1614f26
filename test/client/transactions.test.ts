/** Transactions of the SDK on a production broker: what becomes visible when, and who is shut out. */
import { expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { connect } from '../../src/client/client.js';
import type { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { until } from '../support/until.js';
import { readAll } from './support/collect.js';
import { GROUP, invoices, ledger, orders, start } from './support/transaction-setting.js';

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
