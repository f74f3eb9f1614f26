/** A production broker in memory with topics for a pipeline: orders in, invoices and a ledger out. */
import { type RunningBroker, startBroker } from '../../../src/broker.js';
import { type Client, connect } from '../../../src/client/client.js';
import type { Consumer } from '../../../src/client/consumer.js';
import type { ConnectOptions } from '../../../src/client/options.js';
import { string, type Topic, topic } from '../../../src/client/serdes.js';
import type { Transaction } from '../../../src/client/transaction.js';
import type { TransactionalProducerOptions } from '../../../src/client/transaction-options.js';
import type { TransactionalProducer } from '../../../src/client/transactional-producer.js';
import type { LogError } from '../../../src/core/errors.js';
import { rejection } from '../../support/rejection.js';
import { readAll } from './collect.js';

export type Words = Topic<string, string>;
const typed = (name: string): Words => topic(name, { value: string() });
export const orders: Words = typed('orders');
export const invoices: Words = typed('invoices');
export const ledger: Words = typed('ledger');
export const GROUP = 'billing';

export interface Setting extends AsyncDisposable {
  readonly broker: RunningBroker;
  readonly client: Client;
  connect(address?: string, options?: ConnectOptions): Promise<Client>;
  tx(id?: string, options?: TransactionalProducerOptions): TransactionalProducer;
  /** One batch for each value in partition 0 of `orders`. */
  order(...values: string[]): Promise<void>;
  values(from: Words, isolation?: 'read_committed' | 'read_uncommitted'): Promise<string[]>;
  committed(): Promise<number | undefined>;
}

export async function start(): Promise<Setting> {
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

export interface Loop {
  readonly consumer: Consumer<string, string>;
  /** What was handed out, batch after batch. */
  readonly seen: string[];
  readonly errors: LogError[];
  stop(): Promise<void>;
}

/** Reads orders batch by batch; every failure of `handle` is noted, and the loop goes on. */
export function loop(
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

export type Transact = (work: (transaction: Transaction) => Promise<unknown> | unknown) => Promise<void>;
