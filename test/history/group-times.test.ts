/** How soon a group's partitions are read again when its members change. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import { type Client, type Consumer, connect, string, type TopicPartition, topic } from '../../src/index.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { until } from '../support/until.js';

const ORDERS = topic('orders', { value: string() });
const PARTITIONS = 6;
const SESSION_MS = 1_000;
/** Of each time that is measured the best of so many counts: what delays all of them is no busy machine. */
const ROUNDS = 5;

interface GroupEvent {
  readonly kind: 'assigned' | 'revoked' | 'lost';
  readonly partitions: readonly number[];
  /** By `performance.now`. */
  readonly atMs: number;
}

/** A member that reads on and on. */
class Member implements AsyncDisposable {
  /** When it was about to join, by `performance.now`. */
  readonly beganMs: number;
  readonly events: GroupEvent[] = [];
  readonly #client: Client;
  readonly #consumer: Consumer<string, string>;
  /** By partition: when a record was handed out last. */
  readonly #readMs = new Map<number, number>();
  readonly #ended: Promise<void>;

  constructor(client: Client, group: string, instanceId?: string) {
    this.#client = client;
    this.#consumer = client.consumer(ORDERS, {
      group,
      from: 'earliest',
      sessionTimeoutMs: SESSION_MS,
      ...(instanceId === undefined ? {} : { instanceId }),
    });
    for (const kind of ['assigned', 'revoked', 'lost'] as const) {
      this.#consumer.on(kind, (partitions) => this.#happened(kind, partitions));
    }
    this.beganMs = performance.now();
    this.#ended = this.#read();
  }

  get held(): readonly number[] {
    return this.#consumer.assignment().map(({ partition }) => partition);
  }

  readSince(partition: number, ms: number): boolean {
    return (this.#readMs.get(partition) ?? Number.NEGATIVE_INFINITY) > ms;
  }

  /** Leaves the group. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#consumer.close();
    await this.#client.close();
    await this.#ended;
  }

  #happened(kind: GroupEvent['kind'], partitions: readonly TopicPartition[]): void {
    this.events.push({ kind, partitions: partitions.map(({ partition }) => partition), atMs: performance.now() });
  }

  async #read(): Promise<void> {
    for await (const { partition } of this.#consumer) this.#readMs.set(partition, performance.now());
  }
}

let broker: RunningBroker;
let producing: Promise<void>;
const stop = new AbortController();

beforeAll(async () => {
  broker = await startBroker({ storage: 'memory' });
  const client = await connect(broker.address);
  await client.admin.createTopic({ name: ORDERS.name, partitions: PARTITIONS });
  producing = sendOn(client);
});

afterAll(async () => {
  stop.abort();
  await producing;
  await broker.close(0);
});

/** There is always a record to come in every partition. */
async function sendOn(client: Client): Promise<void> {
  const producer = client.producer({ lingerMs: 5 });
  while (!stop.signal.aborted) {
    const sends = Array.from({ length: PARTITIONS }, (_, partition) =>
      producer.send(ORDERS, { partition, value: 'x' }),
    );
    await Promise.all(sends);
  }
  await client.close();
}

async function joins(group: string, { address = broker.address, instanceId }: Joining = {}): Promise<Member> {
  return new Member(await connect(address, { requestTimeoutMs: 500 }), group, instanceId);
}

interface Joining {
  readonly address?: string;
  readonly instanceId?: string;
}

function sharing(members: readonly Member[]): Promise<void> {
  const share = PARTITIONS / members.length;
  return until(
    () => members.every(({ held }) => held.length === share),
    `each of ${members.length} members has ${share}`,
  );
}

/** Resolves to the time until each of the partitions was read by one of the members, in ms from `sinceMs`. */
async function readAgain(partitions: readonly number[], by: readonly Member[], sinceMs: number): Promise<number> {
  const isRead = (partition: number): boolean => by.some((member) => member.readSince(partition, sinceMs));
  await until(() => partitions.every(isRead), `partitions ${partitions} are read again`);
  return performance.now() - sinceMs;
}

describe('the partitions of a member', () => {
  test('that leaves are read again within 200 ms', async () => {
    await using stays = await joins('leaving');
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const leaves = await joins('leaving');
      await sharing([stays, leaves]);
      const partitions = leaves.held;
      const sinceMs = performance.now();
      const [time] = await Promise.all([readAgain(partitions, [stays], sinceMs), leaves[Symbol.asyncDispose]()]);
      times.push(time);
    }
    expect(Math.min(...times)).toBeLessThan(200);
  });

  test('that vanishes are read again within its session timeout and one second', async () => {
    const proxy = await TcpProxy.start(broker.address);
    await using stays = await joins('vanishing');
    await using vanishes = await joins('vanishing', { address: proxy.address });
    await sharing([stays, vanishes]);
    const partitions = vanishes.held;
    const sinceMs = performance.now();
    proxy.refuses = true;
    proxy.cutAll('reset');
    onTestFinished(() => proxy.stop());
    expect(await readAgain(partitions, [stays], sinceMs)).toBeLessThan(SESSION_MS + 1_000);
  });

  test('that joins are asked of those that have them in under 100 ms', async () => {
    await using has = await joins('joining');
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await sharing([has]);
      await using wants = await joins('joining');
      const sinceMs = wants.beganMs;
      await sharing([has, wants]);
      const revoked = has.events.findLast(({ kind }) => kind === 'revoked');
      times.push((revoked?.atMs ?? Number.NaN) - sinceMs);
    }
    expect(Math.min(...times)).toBeLessThan(100);
  });
});

test('a member that returns under its instance id has its partitions back, and no other notices', async () => {
  await using one = await joins('static');
  await using other = await joins('static', { instanceId: 'other' });
  const leaves = await joins('static', { instanceId: 'returning' });
  await sharing([one, other, leaves]);
  const held = leaves.held.toSorted();
  const eventsBefore = [one, other].map(({ events }) => events.length);
  await leaves[Symbol.asyncDispose]();
  await using returns = await joins('static', { instanceId: 'returning' });
  await readAgain(held, [returns], performance.now());
  expect(returns.held.toSorted()).toEqual(held);
  expect([one, other].map(({ events }) => events.length)).toEqual(eventsBefore);
});
