/** Commits of many members at once, and how long a broker takes to load what was committed. */
import { rmSync } from 'node:fs';
import { bytes, type Client, type Consumer, connect, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { until } from '../../test/support/until.js';
import { secondsOf } from '../support/stats.js';

const TOPIC = 'bench';
const MEMBERS = 50;
/** Records of each member. */
const ONE_BY_ONE = 1_000;
const PIPELINED = 4_000;
const UNANSWERED = 100;

export interface CommitRates {
  /** Commits per second when each member awaits one before the next. */
  readonly oneByOne: number;
  /** When each member has up to 100 unanswered. */
  readonly pipelined: number;
  readonly brokerCpuSeconds: number;
}

/** Fifty members of one group, each with a connection of its own, commit every record. They share one process. */
export async function commitRates(): Promise<CommitRates> {
  const broker = await BrokerProcess.start();
  const clients: Client[] = [];
  try {
    for (let i = 0; i < MEMBERS; i++) clients.push(await connect(broker.address));
    await fill(clients[0] as Client);
    const cpuBefore = broker.cpuSeconds;
    const oneByOne = await commitAll(clients, 'one-by-one', ONE_BY_ONE, 1);
    const brokerCpuSeconds = broker.cpuSeconds - cpuBefore;
    const pipelined = await commitAll(clients, 'pipelined', PIPELINED, UNANSWERED);
    return { oneByOne, pipelined, brokerCpuSeconds };
  } finally {
    for (const client of clients) await client.close();
    await broker.stopAndRemove();
  }
}

async function fill(client: Client): Promise<void> {
  await client.admin.createTopic({ name: TOPIC, partitions: MEMBERS });
  await using producer = client.producer({ acks: 'written' });
  const value = Buffer.alloc(100, 'x');
  const chunk = Array.from({ length: MEMBERS }, (_, partition) => ({ value, partition }));
  for (let i = 0; i < PIPELINED; i++) await producer.sendMany(topic(TOPIC, { value: bytes() }), chunk);
}

/** Commits per second of all members, from when each has its partition. */
async function commitAll(clients: readonly Client[], group: string, each: number, unanswered: number): Promise<number> {
  const members = clients.map((client) => {
    const consumer = client.consumer(topic(TOPIC, { value: bytes() }), { group, autoCommit: false });
    return new Committer(consumer, each, unanswered);
  });
  for (const member of members) member.join();
  const isSettled = (): boolean => members.every(({ isSettled }) => isSettled);
  await until(isSettled, 'each member has a partition', 60_000);
  const seconds = await secondsOf(async () => {
    await Promise.all(members.map((member) => member.commit()));
  });
  await Promise.all(members.map((member) => member.close()));
  return (each * clients.length) / seconds;
}

/** A member that commits each record. */
class Committer {
  readonly #consumer: Consumer<string, Uint8Array>;
  readonly #records: number;
  readonly #unanswered: number;
  #left = 0;
  #waiting = 0;
  #done: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  constructor(consumer: Consumer<string, Uint8Array>, records: number, unanswered: number) {
    this.#consumer = consumer;
    this.#records = records;
    this.#unanswered = unanswered;
  }

  get isSettled(): boolean {
    return this.#consumer.assignment().length === 1;
  }

  join(): void {
    this.#run().catch((error) => this.#done?.reject(error));
  }

  /** Goes back to the start and commits so many records. Resolves when all of them were acknowledged. */
  async commit(): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#done = { resolve, reject };
    });
    this.#left = this.#records;
    for (const partition of this.#consumer.assignment()) await this.#consumer.seek(partition, 0);
    await done;
  }

  async close(): Promise<void> {
    await this.#consumer.close();
  }

  async #run(): Promise<void> {
    for await (const record of this.#consumer) {
      // Before all have settled, and behind the end, records are only passed over: one in hand would hold up others.
      if (this.#left === 0) continue;
      this.#left--;
      this.#waiting++;
      const committed = this.#consumer.commit(record).then(
        () => this.#acknowledged(),
        (error) => this.#done?.reject(error),
      );
      if (this.#waiting >= this.#unanswered) await committed;
    }
  }

  #acknowledged(): void {
    this.#waiting--;
    if (this.#left === 0 && this.#waiting === 0) this.#done?.resolve();
  }
}

const GROUPS = 100;
const OFFSETS_EACH = 1_000;

export interface LoadTimes {
  /** From the start of the process until it serves, in ms. */
  readonly servingMs: number;
  /** From then until all groups can be listed. */
  readonly loadedMs: number;
  readonly residentMegabytes: number;
}

/** Starts a broker with 100,000 committed offsets, and one with none. */
export async function loadOfOffsets(): Promise<{ readonly none: LoadTimes; readonly all: LoadTimes }> {
  const dataDir = BrokerProcess.temporaryDirectory();
  try {
    const none = await startAndLoad(dataDir, 0);
    const broker = await BrokerProcess.start(dataDir);
    try {
      await using client = await connect(broker.address);
      await client.admin.createTopic({ name: TOPIC, partitions: OFFSETS_EACH });
      for (let i = 0; i < GROUPS; i++) {
        await client.admin.resetGroupOffsets({ group: `group-${i}`, topic: TOPIC, to: 'earliest' });
      }
    } finally {
      await broker.stop('SIGTERM');
    }
    return { none, all: await startAndLoad(dataDir, GROUPS) };
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function startAndLoad(dataDir: string, groups: number): Promise<LoadTimes> {
  const broker = await BrokerProcess.start(dataDir);
  const startedMs = performance.now();
  try {
    await using client = await connect(broker.address);
    const listed = await client.admin.listGroups();
    const loadedMs = performance.now() - startedMs;
    if (listed.length !== groups) throw new Error(`there are ${listed.length} groups instead of ${groups}`);
    return { servingMs: broker.startSeconds * 1000, loadedMs, residentMegabytes: broker.residentBytes / 1e6 };
  } finally {
    await broker.stop('SIGTERM');
  }
}
