/**
 * Invariant 18: the wall clock of the machine jumps, forward and back, while clients send and read and while the broker is
 * stopped. What they did and saw ends in the history checker.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import { type Client, connect, string, topic } from '../../src/index.js';
import { RawClient } from '../listeners/grpc/support.js';
import { JumpingClock } from '../support/jumping-clock.js';
import { inForm, Programme } from '../support/programme.js';
import { until } from '../support/until.js';
import { expectNoViolations } from './checker.js';
import { History } from './history.js';
import { readAllRepeatedly, sendMany, sendSingly } from './recorded/loads.js';
import { readAll, TailReader } from './recorded/reader.js';
import type { RecordedTopic } from './recorded/topic.js';

const DAY_MS = 86_400_000;
const MAX_JUMP_MS: number = 30 * DAY_MS;
/** Brokers one after the other on one data directory. */
const LIVES = inForm({ short: 3, long: 60 });
/** In one life. */
const JUMPS = 10;
/** Records acknowledged between two jumps. */
const ACKS_BETWEEN_JUMPS = 100;
const PARTITIONS = [0, 1, 2];
const orders = topic('orders', { value: string() });

/** What a failure must not leave behind. */
const leftOver: (() => unknown)[] = [];

afterEach(async () => {
  for (const remove of leftOver.splice(0).reverse()) await remove();
});

/** Nothing is due by the wall clock here, so that whatever fails or is missing does so by its jumps. */
const CONFIGS = { 'message.timestamp.type': 'LogAppendTime', 'retention.ms': -1, 'segment.bytes': 16_384 };

class JumpingRun {
  readonly history: History = new History();
  readonly #programme: Programme;
  readonly #clock = new JumpingClock();
  readonly #dataDir = mkdtempSync(path.join(tmpdir(), 'tidelog-jumps-'));
  readonly #recorded: RecordedTopic = { history: this.history, topic: orders, partitionCount: PARTITIONS.length };
  readonly #tail = new TailReader(this.#recorded, 'tail');
  readonly #failures: unknown[] = [];

  constructor(programme: Programme) {
    this.#programme = programme;
    leftOver.push(() => rmSync(this.#dataDir, { recursive: true, force: true }));
  }

  /** @returns why sends failed */
  async run(): Promise<readonly unknown[]> {
    for (let life = 0; life < LIVES; life++) {
      const broker = await this.#start();
      const client = await connect(broker.address, { clock: this.#clock });
      leftOver.push(() => client.close());
      if (life === 0)
        await client.admin.createTopic({ name: 'orders', partitions: PARTITIONS.length, configs: CONFIGS });
      await this.#jumpUnderLoad(client, `life-${life}`);
      await broker.close();
      this.#jump();
    }
    return this.#failures;
  }

  async #start(): Promise<RunningBroker> {
    const lifecycle = { retentionCheckIntervalMs: 50 };
    const broker = await startBroker({ storage: { dataDir: this.#dataDir }, clock: this.#clock, lifecycle });
    leftOver.push(() => broker.close(0));
    return broker;
  }

  async #jumpUnderLoad(client: Client, name: string): Promise<void> {
    let going = true;
    const goesOn = (): boolean => going;
    const following = this.#tail.follow(client);
    const load = Promise.all([
      this.#send(client, name, goesOn),
      readAllRepeatedly(this.#recorded, client, name, { goesOn }),
    ]);
    try {
      await Promise.race([load, following, this.#jumpOften()]);
    } finally {
      going = false;
    }
    await load;
    await Promise.race([following, this.#tail.catchUp(client)]);
    await readAll(this.#recorded, client, `${name}-last`);
    await client.close();
    await following;
  }

  async #send(client: Client, name: string, goesOn: () => boolean): Promise<void> {
    const onFailure = (error: unknown): void => void this.#failures.push(error);
    const durable = client.producer({ lingerMs: 1 });
    const written = client.producer({ acks: 'written', lingerMs: 5 });
    const [partition = 0, ...partitions] = PARTITIONS;
    await Promise.all([
      sendSingly(this.#recorded, durable, `${name}-durable`, { partitions, window: 16, goesOn, onFailure }),
      sendMany(this.#recorded, written, `${name}-written`, { partition, count: 20, goesOn, onFailure }),
    ]);
  }

  async #jumpOften(): Promise<void> {
    for (let jump = 0; jump < JUMPS; jump++) {
      const acks = this.history.acks + ACKS_BETWEEN_JUMPS;
      await until(() => this.history.acks >= acks, `${acks} records are acknowledged`, 60_000);
      this.#jump();
    }
  }

  #jump(): void {
    this.#clock.set(this.#programme.below(2 * MAX_JUMP_MS) - MAX_JUMP_MS);
    this.#programme.tried('jumps');
  }
}

test(
  '18: jumps of the wall clock fail no send and change no order',
  async (context) => {
    const programme = new Programme(context);
    const run = new JumpingRun(programme);
    expect(await run.run()).toEqual([]);
    expectNoViolations(run.history);
    programme.tried('acknowledged records', run.history.acks);
  },
  inForm({ short: 60_000, long: 1_200_000 }),
);

test.each([DAY_MS, -DAY_MS])(
  '18: who waits for records is answered in time though the wall clock jumps by %d ms',
  async (jumpMs) => {
    const clock = new JumpingClock();
    const broker = await startBroker({ storage: 'memory', clock });
    leftOver.push(() => broker.close(0));
    const raw = new RawClient(broker.address);
    leftOver.push(() => raw.close());
    await raw.createTopic('orders');
    const WAIT_MS = 500;
    const began = performance.now();
    const answer = raw.fetchOne('orders', 0, { minBytes: 1, maxWaitMs: WAIT_MS });
    // By then it has begun to wait.
    await raw.call('AdminService', 'DescribeCluster', {});
    clock.set(jumpMs);
    expect((await answer).error).toBeUndefined();
    // A timer may fire a fraction of a millisecond early.
    expect(performance.now() - began).toBeGreaterThan(WAIT_MS - 2);
  },
);
