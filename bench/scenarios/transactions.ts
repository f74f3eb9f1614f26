/** What exactly-once costs: idempotent producing, transactions large and small, reading what they have committed. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { bytes, type Client, connect, type ReadOptions, type Topic, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { quantile, secondsOf, summarize } from '../support/stats.js';

type Values = Topic<string, Uint8Array>;

const RECORD_BYTES = 1024;
const CHUNK_RECORDS = 10_000;
/** Measured in turn, so that what the machine does besides meets all alike. */
const PASSES = 5;

async function withBroker<T>(work: (client: Client) => Promise<T>): Promise<T> {
  const broker = await BrokerProcess.start();
  try {
    await using client = await connect(broker.address);
    return await work(client);
  } finally {
    await broker.stopAndRemove();
  }
}

async function create(client: Client, name: string, partitions: number): Promise<Values> {
  await client.admin.createTopic({ name, partitions });
  return topic(name, { value: bytes() });
}

function chunkOf(records: number, partitions: number): { readonly value: Buffer; readonly partition: number }[] {
  const value = Buffer.alloc(RECORD_BYTES, 'x');
  return Array.from({ length: records }, (_, i) => ({ value, partition: i % partitions }));
}

export interface IdempotenceCost {
  readonly idempotentMegabytesPerSecond: number;
  readonly plainMegabytesPerSecond: number;
}

const IDEMPOTENT_RECORDS = 200_000;

/** The same records of 1 KiB to one partition, durable, five batches in flight, by turns with and without idempotence. */
export function idempotenceCost(): Promise<IdempotenceCost> {
  return withBroker(async (client) => {
    const to = await create(client, 'bench', 1);
    const chunk = chunkOf(CHUNK_RECORDS, 1);
    const send = async (idempotent: boolean): Promise<number> => {
      await using producer = client.producer({ idempotent });
      return await secondsOf(async () => {
        const calls: Promise<unknown>[] = [];
        for (let sent = 0; sent < IDEMPOTENT_RECORDS; sent += CHUNK_RECORDS) {
          calls.push(producer.sendMany(to, chunk));
          if (calls.length > 8) await calls.shift();
        }
        await Promise.all(calls);
      });
    };
    await send(true); // warm-up
    await send(false);
    const seconds = { idempotent: [] as number[], plain: [] as number[] };
    for (let i = 0; i < PASSES; i++) {
      seconds.plain.push(await send(false));
      seconds.idempotent.push(await send(true));
    }
    const megabytes = (IDEMPOTENT_RECORDS * RECORD_BYTES) / 1e6;
    return {
      idempotentMegabytesPerSecond: megabytes / summarize(seconds.idempotent).median,
      plainMegabytesPerSecond: megabytes / summarize(seconds.plain).median,
    };
  });
}

export interface TransactionThroughput {
  readonly transactionsMegabytesPerSecond: number;
  /** Durable, the same calls without transactions: each awaited before the next. */
  readonly plainMegabytesPerSecond: number;
  /** Durable, with further calls under way meanwhile, which no transactional id can have. */
  readonly pipelinedMegabytesPerSecond: number;
}

const TRANSACTION_RECORDS = 1_000;
const TRANSACTION_PARTITIONS = 4;
const TRANSACTIONS = 200;
const PIPELINED_CALLS = 4;

/** Transactions of 1,000 records of 1 KiB across four partitions, by turns with the same records without transactions. */
export function transactionThroughput(): Promise<TransactionThroughput> {
  return withBroker(async (client) => {
    const to = await create(client, 'bench', TRANSACTION_PARTITIONS);
    const chunk = chunkOf(TRANSACTION_RECORDS, TRANSACTION_PARTITIONS);
    await using tx = client.transactionalProducer('bench');
    // As the transactional one: else each awaited call would linger for nothing.
    await using producer = client.producer({ lingerMs: 0 });
    const transactions = (): Promise<number> =>
      secondsOf(async () => {
        for (let i = 0; i < TRANSACTIONS; i++) await tx.transaction((t) => t.sendMany(to, chunk));
      });
    const plain = (underWay: number): Promise<number> =>
      secondsOf(async () => {
        const calls: Promise<unknown>[] = [];
        for (let i = 0; i < TRANSACTIONS; i++) {
          calls.push(producer.sendMany(to, chunk));
          if (calls.length >= underWay) await calls.shift();
        }
        await Promise.all(calls);
      });
    await transactions(); // warm-up
    await plain(PIPELINED_CALLS);
    const seconds = { transactions: [] as number[], plain: [] as number[], pipelined: [] as number[] };
    for (let i = 0; i < PASSES; i++) {
      seconds.plain.push(await plain(1));
      seconds.transactions.push(await transactions());
      seconds.pipelined.push(await plain(PIPELINED_CALLS));
    }
    const megabytes = (TRANSACTIONS * TRANSACTION_RECORDS * RECORD_BYTES) / 1e6;
    return {
      transactionsMegabytesPerSecond: megabytes / summarize(seconds.transactions).median,
      plainMegabytesPerSecond: megabytes / summarize(seconds.plain).median,
      pipelinedMegabytesPerSecond: megabytes / summarize(seconds.pipelined).median,
    };
  });
}

export interface SmallTransactions {
  readonly perSecond: number;
  readonly commitP50Ms: number;
  readonly commitP99Ms: number;
  /** Of 1 KiB appended to a file and synced, by the same clock and at the same time. */
  readonly syncP50Ms: number;
}

const SMALL_TRANSACTIONS = 1_000;

/** Transactions of one record, one after the other. The commit is what is left when the function has returned. */
export function smallTransactions(): Promise<SmallTransactions> {
  return withBroker(async (client) => {
    const to = await create(client, 'bench', 1);
    await using tx = client.transactionalProducer('bench');
    const value = Buffer.alloc(RECORD_BYTES, 'x');
    const commits: number[] = [];
    const run = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        let sentAt = 0;
        await tx.transaction(async (t) => {
          await t.send(to, { value });
          sentAt = performance.now();
        });
        commits.push(performance.now() - sentAt);
      }
    };
    await run(SMALL_TRANSACTIONS >> 2); // warm-up
    const syncsBefore = syncTimes();
    commits.length = 0;
    const seconds = await secondsOf(() => run(SMALL_TRANSACTIONS));
    const syncs = [...syncsBefore, ...syncTimes()];
    return {
      perSecond: SMALL_TRANSACTIONS / seconds,
      commitP50Ms: quantile(commits, 0.5),
      commitP99Ms: quantile(commits, 0.99),
      syncP50Ms: quantile(syncs, 0.5),
    };
  });
}

const SYNCS = 200;

/** What the disk takes for a small append, in ms each. */
function syncTimes(): number[] {
  const dir = BrokerProcess.temporaryDirectory();
  const fd = openSync(path.join(dir, 'file'), 'w');
  try {
    const buffer = Buffer.alloc(RECORD_BYTES, 'x');
    return Array.from({ length: SYNCS }, () => {
      const start = performance.now();
      writeSync(fd, buffer);
      fdatasyncSync(fd);
      return performance.now() - start;
    });
  } finally {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  }
}

export interface CommittedReading {
  readonly committedMegabytesPerSecond: number;
  readonly uncommittedMegabytesPerSecond: number;
}

const READ_TRANSACTIONS = 400;
/** One in so many is aborted. */
const ABORTED_EVERY = 10;

/** A topic of transactions of 1,000 records, every tenth of them aborted, read by turns in both ways. */
export function committedReading(): Promise<CommittedReading> {
  return withBroker(async (client) => {
    const from = await create(client, 'bench', TRANSACTION_PARTITIONS);
    const chunk = chunkOf(TRANSACTION_RECORDS, TRANSACTION_PARTITIONS);
    await using tx = client.transactionalProducer('bench');
    for (let i = 0; i < READ_TRANSACTIONS; i++) {
      const aborts = i % ABORTED_EVERY === 0;
      const sent = tx.transaction(async (t) => {
        await t.sendMany(from, chunk);
        if (aborts) throw new Error('aborted');
      });
      await (aborts ? sent.catch(() => undefined) : sent);
    }
    const committed = (READ_TRANSACTIONS - READ_TRANSACTIONS / ABORTED_EVERY) * TRANSACTION_RECORDS;
    const all = READ_TRANSACTIONS * TRANSACTION_RECORDS;
    const read = async (isolation: ReadOptions['isolation'], expected: number): Promise<number> => {
      let records = 0;
      const seconds = await secondsOf(async () => {
        const options = isolation === undefined ? {} : { isolation };
        for await (const batch of client.read(from, { from: 'earliest', to: 'end', ...options }).batches()) {
          const cursor = await batch.cursor();
          while (cursor.next()) records++;
        }
      });
      if (records !== expected) throw new Error(`${records} records were read instead of ${expected}`);
      // By the bytes that lie there: both go over all of them.
      return (all * RECORD_BYTES) / 1e6 / seconds;
    };
    await read('read_committed', committed); // warm-up
    await read('read_uncommitted', all);
    const rates = { committed: [] as number[], uncommitted: [] as number[] };
    for (let i = 0; i < PASSES; i++) {
      rates.uncommitted.push(await read('read_uncommitted', all));
      rates.committed.push(await read('read_committed', committed));
    }
    return {
      committedMegabytesPerSecond: summarize(rates.committed).median,
      uncommittedMegabytesPerSecond: summarize(rates.uncommitted).median,
    };
  });
}
