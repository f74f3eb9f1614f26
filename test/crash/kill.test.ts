/**
 * Invariants 1, 2, 4, 6 and 7 under `kill -9`: what was acknowledged or read is there, at its offset, unchanged, for ever.
 *
 * The real command line in a process of its own is killed at a random moment while several producers send through the SDK
 * and several readers read, and is started again on the same data; some of the starts are killed before they are done.
 * What everybody did and saw ends in the history checker.
 */
import { rmSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { type Client, connect, string, topic } from '../../src/index.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { readAllRepeatedly, sendMany, sendSingly } from '../history/recorded/loads.js';
import { readAll, TailReader } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';
import { BrokerProcess } from '../support/broker-process.js';
import { inForm, Programme } from '../support/programme.js';
import { until } from '../support/until.js';

const ROUNDS = inForm({ short: 20, long: 500 });
/** After so many rounds everything begins anew, so that what is read and remembered stays bounded. */
const ROUNDS_OF_A_HISTORY = 20;
const ALL_PARTITIONS = [0, 1, 2, 3];
/** Acknowledgements in one round before the kill: at least 1, at most this. */
const MAX_ACKS_BEFORE_KILL = inForm({ short: 800, long: 2000 });
/** A start takes about this long, most of it before the data is looked at, in ms. */
const START_MS = 500;

const orders = topic('orders', { value: string() });

/** A topic on a data directory that outlives its brokers. */
class KillRun {
  readonly #programme: Programme;
  readonly #dataDir = BrokerProcess.temporaryDirectory();
  readonly #recorded: RecordedTopic = { history: new History(), topic: orders, partitionCount: ALL_PARTITIONS.length };
  readonly #tails: readonly TailReader[];

  constructor(programme: Programme) {
    this.#programme = programme;
    this.#tails = ['tail-a', 'tail-b'].map((name) => new TailReader(this.#recorded, name));
    onTestFinished(() => rmSync(this.#dataDir, { recursive: true, force: true }));
  }

  async run(rounds: number): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      const broker = await this.#start();
      if (round === 0) await createTopic(broker);
      await this.#loadUntilKilled(broker, round);
      this.#programme.tried('kills');
    }
    const broker = await this.#start();
    await this.#readToTheEnd(broker);
    await broker.stop('SIGTERM');
    rmSync(this.#dataDir, { recursive: true });
    expectNoViolations(this.#recorded.history);
    expect(this.#recorded.history.acks).toBeGreaterThan(rounds);
    this.#programme.tried('acknowledged records', this.#recorded.history.acks);
  }

  async #start(): Promise<BrokerProcess> {
    if (this.#programme.below(4) === 0) {
      await BrokerProcess.startAndKill(this.#dataDir, this.#programme.below(START_MS));
      this.#programme.tried('kills of a start');
    }
    const broker = await BrokerProcess.start(this.#dataDir);
    onTestFinished(() => broker.stop('SIGKILL'));
    return broker;
  }

  async #loadUntilKilled(broker: BrokerProcess, round: number): Promise<void> {
    const { history } = this.#recorded;
    const client = await connect(broker.address);
    const load = this.#load(client, round);
    const target = history.acks + 1 + this.#programme.below(MAX_ACKS_BEFORE_KILL);
    try {
      await Promise.race([load, until(() => history.acks >= target, `${target} records are acknowledged`, 60_000)]);
    } finally {
      history.crash(`kill -9, round ${round}`);
      await broker.stop('SIGKILL');
      // What is still unanswered fails now instead of being tried again.
      await client.close();
    }
    await load;
  }

  /** Goes on until the client is closed. */
  async #load(client: Client, round: number): Promise<void> {
    const goesOn = (): boolean => true;
    const recorded = this.#recorded;
    const durable = client.producer({ acks: 'durable', lingerMs: 1, closeTimeoutMs: 0 });
    const written = client.producer({ acks: 'written', lingerMs: 1, compression: 'lz4', closeTimeoutMs: 0 });
    const many = client.producer({ acks: 'durable', lingerMs: 1, batchBytes: 512, closeTimeoutMs: 0 });
    // A partition of its own for calls of several batches: only so is the offset of each of their records known.
    const [partition = 0, ...partitions] = rotated(ALL_PARTITIONS, round);
    await Promise.all([
      sendSingly(recorded, durable, `r${round}-durable`, { partitions, window: 32, goesOn }),
      sendSingly(recorded, written, `r${round}-written`, { partitions, window: 32, goesOn }),
      sendMany(recorded, many, `r${round}-many`, { partition, count: 50, goesOn }),
      readAllRepeatedly(recorded, client, `r${round}-all`, { goesOn }),
      ...this.#tails.map((tail) => tail.follow(client)),
    ]);
  }

  async #readToTheEnd(broker: BrokerProcess): Promise<void> {
    const client = await connect(broker.address);
    const following = this.#tails.map((tail) => tail.follow(client));
    await Promise.race([Promise.all(this.#tails.map((tail) => tail.catchUp(client))), Promise.all(following)]);
    await readAll(this.#recorded, client, 'last');
    await client.close();
    await Promise.all(following);
  }
}

function rotated<T>(all: readonly T[], by: number): T[] {
  const start = by % all.length;
  return [...all.slice(start), ...all.slice(0, start)];
}

async function createTopic(broker: BrokerProcess): Promise<void> {
  await using client = await connect(broker.address);
  // Small segments, so that kills meet rolls as well.
  await client.admin.createTopic({
    name: 'orders',
    partitions: ALL_PARTITIONS.length,
    configs: { 'segment.bytes': '8192' },
  });
}

test(
  `${ROUNDS} kills under load lose and change no record that was acknowledged or read (invariants 1, 2, 4, 6, 7)`,
  async (context) => {
    const programme = new Programme(context);
    for (let left = ROUNDS; left > 0; left -= ROUNDS_OF_A_HISTORY) {
      await new KillRun(programme).run(Math.min(left, ROUNDS_OF_A_HISTORY));
    }
  },
  inForm({ short: 120_000, long: 3_600_000 }),
);
