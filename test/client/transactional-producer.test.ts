/** Transactions of the SDK, on a broker that the test plays. */
import { expect, test } from 'vitest';
import { type Client, connect } from '../../src/client/client.js';
import { string, topic } from '../../src/client/serdes.js';
import type { Transaction } from '../../src/client/transaction.js';
import type { TransactionalProducerOptions } from '../../src/client/transaction-options.js';
import type { TransactionalProducer } from '../../src/client/transactional-producer.js';
import { LogError } from '../../src/core/errors.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { FakeBroker } from './support/fake-broker.js';
import { type CallFault, FakeTransactions } from './support/fake-transactions.js';
import { isInTransaction, numbersOf, places } from './support/faulty-producing.js';

const words = topic('words', { value: string() });

interface Setting extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly transactions: FakeTransactions;
  readonly client: Client;
  readonly tx: TransactionalProducer;
}

async function start(options: TransactionalProducerOptions = {}): Promise<Setting> {
  const broker = await FakeBroker.start();
  broker.addTopic('words', 2);
  const transactions = new FakeTransactions(broker);
  const client = await connect(broker.address);
  const tx = client.transactionalProducer('billing-1', {
    retryBackoffMs: 2,
    retryBackoffMaxMs: 10,
    closeTimeoutMs: 5_000,
    ...options,
  });
  return {
    broker,
    transactions,
    client,
    tx,
    async [Symbol.asyncDispose]() {
      await tx.close({ timeoutMs: 0 });
      await client.close();
      await broker.stop();
    },
  };
}

const sendOne = (t: Transaction, value = 'w', partition = 0): Promise<unknown> => t.send(words, { value, partition });

/** Fails the next calls of a method, one after the other. */
function faultsOf(method: string, faults: CallFault[]): (called: string) => CallFault {
  return (called) => (called === method ? faults.shift() : undefined);
}

test('each transaction has the identity that the end of the one before has given out, and sequences from 0', async () => {
  await using t = await start({ timeoutMs: 9_000 });
  const result = await t.tx.transaction(async (transaction) => {
    await sendOne(transaction, 'a');
    await sendOne(transaction, 'b');
    return 'done';
  });
  expect(result).toBe('done');
  await t.tx.transaction((transaction) => sendOne(transaction, 'c'));
  const { batches } = t.broker.partition('words');
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1', '1:0']);
  expect(batches.every((batch) => isInTransaction(batch) && numbersOf(batch).id === 7)).toBe(true);
  expect(t.transactions.methods).toEqual(['InitProducer', 'Commit', 'Commit']);
  expect(t.transactions.asked[0]?.request).toMatchObject({ transactionalId: 'billing-1', transactionTimeoutMs: 9_000 });
  expect(t.transactions.asked[2]?.request).toMatchObject({
    transactionalId: 'billing-1',
    producerId: 7,
    producerEpoch: 1,
  });
});

test('a transaction in which nothing was sent is nothing to the broker', async () => {
  await using t = await start();
  expect(await t.tx.transaction(() => 3)).toBe(3);
  await t.tx.transaction((transaction) => transaction.sendMany(words, []));
  await expect(t.tx.transaction(() => Promise.reject(new Error('own')))).rejects.toThrow('own');
  await t.tx.transaction(async (transaction) => void (await sendOne(transaction)));
  expect(t.transactions.methods).toEqual(['InitProducer', 'Commit']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0']);
});

test('what the function throws aborts the transaction and is thrown, and the next one works', async () => {
  await using t = await start();
  const own = new Error('own');
  const failing = t.tx.transaction(async (transaction) => {
    await sendOne(transaction);
    throw own;
  });
  await expect(failing).rejects.toBe(own);
  await t.tx.transaction((transaction) => sendOne(transaction));
  expect(t.transactions.ends).toEqual(['Abort 0', 'Commit 1']);
});

test('a send that failed aborts the transaction, though nobody has looked at its promise', async () => {
  await using t = await start();
  t.broker.onProduce = ({ partition }) =>
    partition === 1 ? { kind: 'error', error: new LogError('INVALID_TIMESTAMP', 'too old') } : undefined;
  const failing = t.tx.transaction((transaction) => {
    void sendOne(transaction, 'a', 0);
    void sendOne(transaction, 'b', 1);
  });
  await rejection(failing, 'INVALID_TIMESTAMP');
  const refused = t.tx.transaction(async (transaction) => {
    await transaction.send(words, { value: 'c', partition: 99 }).catch(() => {});
    await rejection(sendOne(transaction, 'd'), 'UNKNOWN_TOPIC_OR_PARTITION');
  });
  await rejection(refused, 'UNKNOWN_TOPIC_OR_PARTITION');
  await t.tx.transaction((transaction) => sendOne(transaction));
  expect(t.transactions.ends).toEqual(['Abort 0', 'Abort 1', 'Commit 2']);
});

test('what the records of sendMany throw is what the transaction fails with', async () => {
  await using t = await start();
  const own = new Error('own');
  function* records(): Generator<{ value: string }> {
    yield { value: 'a' };
    throw own;
  }
  await expect(t.tx.transaction((transaction) => void transaction.sendMany(words, records()))).rejects.toBe(own);
  expect(t.transactions.ends).toEqual(['Abort 0']);
});

test('a commit or an abort whose answer is lost is repeated as it was', async () => {
  await using t = await start();
  t.transactions.onCall = faultsOf('Commit', ['lose the answer', 'lose the answer']);
  await t.tx.transaction((transaction) => sendOne(transaction));
  t.transactions.onCall = faultsOf('Abort', ['lose the answer']);
  const failing = t.tx.transaction(async (transaction) => {
    await sendOne(transaction);
    throw new Error('own');
  });
  await expect(failing).rejects.toThrow('own');
  await t.tx.transaction((transaction) => sendOne(transaction));
  expect(t.transactions.ends).toEqual(['Commit 0', 'Abort 1', 'Commit 2']);
  expect(t.transactions.methods.filter((method) => method === 'Commit')).toHaveLength(4);
});

test('when nobody can tell whether it is committed, the outcome is unknown, and the next one finds out first', async () => {
  await using t = await start({ deliveryTimeoutMs: 60 });
  t.transactions.onCall = (method) => (method === 'Commit' ? 'lose the answer' : undefined);
  const error = await rejection(
    t.tx.transaction((transaction) => sendOne(transaction)),
    'CONNECTION_LOST',
  );
  expect(error.outcome).toBe('unknown');
  t.transactions.onCall = () => undefined;
  await t.tx.transaction((transaction) => sendOne(transaction));
  const inits = t.transactions.asked.filter(({ method }) => method === 'InitProducer');
  expect(inits).toHaveLength(2);
  expect(inits[1]?.request).toMatchObject({ producerId: 7, producerEpoch: 0 });
  expect(t.transactions.ends).toEqual(['Commit 0', 'Commit 2']);
});

test('a commit that never reached the broker has the outcome none', async () => {
  await using t = await start({ deliveryTimeoutMs: 60 });
  t.transactions.onCall = (method) =>
    method === 'Commit' ? new LogError('COORDINATOR_LOAD_IN_PROGRESS', 'loading') : undefined;
  const error = await rejection(
    t.tx.transaction((transaction) => sendOne(transaction)),
    'COORDINATOR_LOAD_IN_PROGRESS',
  );
  expect(error.outcome).toBe('none');
});

test('a transaction that the broker has aborted is to be repeated', async () => {
  await using t = await start();
  const failing = t.tx.transaction(async (transaction) => {
    await sendOne(transaction);
    t.transactions.abort();
  });
  await rejection(failing, 'TRANSACTION_ABORTABLE');
  await t.tx.transaction((transaction) => sendOne(transaction));
  expect(t.transactions.methods).toEqual(['InitProducer', 'Commit', 'Abort', 'Commit']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '1:0']);
});

test('a producer whose id was taken over is over, and sends nothing more (invariant 9)', async () => {
  await using t = await start();
  t.transactions.onCall = faultsOf('Commit', [new LogError('PRODUCER_FENCED', 'fenced')]);
  const error = await rejection(
    t.tx.transaction((transaction) => sendOne(transaction)),
    'PRODUCER_FENCED',
  );
  expect(error.message).toContain('billing-1 has taken over');
  const asked = t.transactions.asked.length;
  await rejection(
    t.tx.transaction(() => {}),
    'PRODUCER_FENCED',
  );
  expect(t.transactions.asked).toHaveLength(asked);
});

test('a partition that fences a producer leaves it to the coordinator whether the producer is over', async () => {
  await using t = await start();
  const fence = (): void => {
    let fenced = false;
    t.broker.onProduce = () => {
      if (fenced) return undefined;
      fenced = true;
      return { kind: 'error', error: new LogError('PRODUCER_FENCED', 'fenced') };
    };
  };
  fence();
  await rejection(
    t.tx.transaction((transaction) => sendOne(transaction)),
    'PRODUCER_FENCED',
  );
  await t.tx.transaction((transaction) => sendOne(transaction));
  fence();
  t.transactions.onCall = faultsOf('Abort', [new LogError('PRODUCER_FENCED', 'fenced')]);
  const last = await rejection(
    t.tx.transaction((transaction) => sendOne(transaction)),
    'PRODUCER_FENCED',
  );
  expect(last.message).toContain('has taken over');
});

test('a transaction that takes too long is given up, and its function is told', async () => {
  await using t = await start({ timeoutMs: 40 });
  let late: Transaction | undefined;
  const failing = t.tx.transaction(async (transaction) => {
    late = transaction;
    await sendOne(transaction);
    await new Promise((resolve) => transaction.signal.addEventListener('abort', resolve));
    await rejection(sendOne(transaction), 'TRANSACTION_ABORTABLE');
  });
  const error = await rejection(failing, 'TRANSACTION_ABORTABLE');
  expect(error.message).toContain('40 ms');
  await rejection(sendOne(late as Transaction), 'INVALID_TXN_STATE');
  expect(t.transactions.ends).toEqual(['Abort 0']);
});

test('a sendMany that waits for its records for ever holds no later transaction up', async () => {
  await using t = await start({ timeoutMs: 40 });
  async function* records(): AsyncGenerator<{ value: string }> {
    yield { value: 'a' };
    await new Promise(() => {});
  }
  await rejection(
    t.tx.transaction((transaction) => void transaction.sendMany(words, records())),
    'TRANSACTION_ABORTABLE',
  );
  await t.tx.transaction((transaction) => sendOne(transaction));
  expect(t.transactions.ends).toEqual(['Abort 0', 'Commit 1']);
});

test('after its function has ended, a transaction takes nothing more', async () => {
  await using t = await start();
  let over: Transaction | undefined;
  await t.tx.transaction(async (transaction) => {
    over = transaction;
    await sendOne(transaction);
  });
  await rejection(sendOne(over as Transaction), 'INVALID_TXN_STATE');
  await rejection((over as Transaction).sendMany(words, [{ value: 'w' }]), 'INVALID_TXN_STATE');
  const consumer = t.client.consumer(words, { group: 'g' });
  await rejection(() => (over as Transaction).commitOffsets(consumer, []), 'INVALID_TXN_STATE');
  expect(places(t.broker.partition('words'))).toEqual(['0:0']);
});

test('a producer has one transaction at a time', async () => {
  await using t = await start();
  await t.tx.transaction(async (transaction) => {
    await rejection(
      t.tx.transaction(() => {}),
      'CONCURRENT_TRANSACTIONS',
    );
    await sendOne(transaction);
  });
  expect(t.transactions.ends).toEqual(['Commit 0']);
});

test('a signal gives the transaction up', async () => {
  await using t = await start();
  const abort = new AbortController();
  const failing = t.tx.transaction(
    async (transaction) => {
      await sendOne(transaction);
      abort.abort();
      await new Promise(() => {});
    },
    { signal: abort.signal },
  );
  await rejection(failing, 'CANCELLED');
  await rejection(
    t.tx.transaction(() => {}, { signal: abort.signal }),
    'CANCELLED',
  );
  expect(t.transactions.ends).toEqual(['Abort 0']);
});

test('close waits for the transaction under way', async () => {
  await using t = await start();
  let goOn: (() => void) | undefined;
  const committing = t.tx.transaction(async (transaction) => {
    await new Promise<void>((resolve) => {
      goOn = resolve;
    });
    await sendOne(transaction);
  });
  await until(() => goOn !== undefined, 'the transaction has begun');
  const closing = t.tx.close();
  const clientClosing = t.client.close();
  await rejection(
    t.tx.transaction(() => {}),
    'CLOSED',
  );
  await new Promise((resolve) => setImmediate(resolve));
  goOn?.();
  await committing;
  await Promise.all([closing, clientClosing]);
  expect(t.transactions.ends).toEqual(['Commit 0']);
});

test('close aborts a transaction that takes longer than it may wait', async () => {
  await using t = await start();
  const failing = rejection(
    t.tx.transaction(async (transaction) => {
      await sendOne(transaction);
      await new Promise(() => {});
    }),
    'CLOSED',
  );
  await until(() => t.broker.requests.length === 1, 'it has sent something');
  await t.tx.close({ timeoutMs: 5 });
  await failing;
  expect(t.transactions.ends).toEqual(['Abort 0']);
});

test.each<[string, object]>([
  ['acks', { acks: 'durable' }],
  ['idempotent', { idempotent: true }],
  ['timeoutMs', { timeoutMs: 0 }],
  ['timeoutMs', { timeoutMs: 2 ** 31 }],
  ['maxInFlight', { maxInFlight: 6 }],
])('the option %s of %j is refused', async (name, options) => {
  await using t = await start();
  const error = await rejection(() => t.client.transactionalProducer('id', options), 'INVALID_CONFIG');
  expect(error.message).toContain(name);
});

test('a transactional id is not empty', async () => {
  await using t = await start();
  await rejection(() => t.client.transactionalProducer(''), 'INVALID_REQUEST');
});
