/** Consumers of a production broker in memory. */
import { type RunningBroker, type StartBrokerOptions, startBroker } from '../../../src/broker.js';
import { Channel } from '../../../src/client/channel.js';
import { type Client, connect } from '../../../src/client/client.js';
import type { Consumer } from '../../../src/client/consumer.js';
import type { ConsumerOptions } from '../../../src/client/consumer-options.js';
import { methods } from '../../../src/client/methods.js';
import type { ConnectOptions, ProducerOptions } from '../../../src/client/options.js';
import type { RecordInput } from '../../../src/client/record-input.js';
import { string, type Topic, topic } from '../../../src/client/serdes.js';
import { systemClock } from '../../../src/core/clock.js';
import type { LogError } from '../../../src/core/errors.js';
import type { GroupStateName, ResetGroupOffsetsRequest } from '../../../src/rpc/group-messages.js';
import { TcpProxy } from '../../support/tcp-proxy.js';

export const words: Topic<string, string> = topic('words', { value: string() });

/** A loop that runs on its own. */
export interface Follower {
  readonly consumer: Consumer<string, string>;
  readonly seen: string[];
  readonly ended: Promise<LogError | undefined>;
  /** Aborts it; resolves when it has left. */
  stop(): Promise<void>;
}

export interface FollowOptions extends Partial<ConsumerOptions> {
  readonly client?: Client;
  /** Called with every record before the next one is asked for. */
  readonly handle?: (value: string, consumer: Consumer<string, string>) => void | Promise<void>;
}

/** A client whose machine can die: from then on nothing passes between it and the broker. */
export interface Mortal {
  readonly client: Client;
  die(): void;
}

export interface GroupSetting extends AsyncDisposable {
  readonly broker: RunningBroker;
  readonly client: Client;
  /** Another client, closed at the end. */
  connect(options?: ConnectOptions): Promise<Client>;
  connectMortal(): Promise<Mortal>;
  follow(group: string, options?: FollowOptions): Follower;
  /** Sets committed offsets as an administrator does. */
  reset(group: string, request: Partial<ResetGroupOffsetsRequest>): Promise<void>;
  stateOf(group: string): Promise<GroupStateName>;
}

/** A broker with the topic `words`. */
export async function startGroup(
  partitions: number,
  options: ConnectOptions = {},
  brokerOptions: Partial<StartBrokerOptions> = {},
): Promise<GroupSetting> {
  const broker = await startBroker({ storage: 'memory', ...brokerOptions });
  const clients: Client[] = [];
  const open = async (connectOptions: ConnectOptions = {}): Promise<Client> => {
    const client = await connect(broker.address, connectOptions);
    clients.push(client);
    return client;
  };
  const client = await open(options);
  const proxies: TcpProxy[] = [];
  const channel = new Channel(broker.address, 'admin', systemClock);
  await client.admin.createTopic({ name: 'words', partitions });
  return {
    broker,
    client,
    connect: open,
    async connectMortal() {
      const proxy = await TcpProxy.start(broker.address);
      proxies.push(proxy);
      const mortal = await connect(proxy.address, { requestTimeoutMs: 300 });
      clients.push(mortal);
      return {
        client: mortal,
        die() {
          proxy.refuses = true;
          proxy.cutAll('reset');
        },
      };
    },
    async reset(groupId, request) {
      const base = { groupId, topic: 'words', partitions: [], validateOnly: false };
      await channel.unary(methods.resetGroupOffsets, { ...base, ...request }, { timeoutMs: 5_000 });
    },
    async stateOf(groupId) {
      return (await channel.unary(methods.getGroup, { groupId }, { timeoutMs: 5_000 })).group.state;
    },
    follow: (group, followOptions = {}) => follow(followOptions.client ?? client, { group, ...followOptions }),
    async [Symbol.asyncDispose]() {
      await Promise.all(clients.map((one) => one.close()));
      await Promise.all(proxies.map((proxy) => proxy.stop()));
      channel.close();
      await broker.close(0);
    },
  };
}

function follow(client: Client, options: FollowOptions & ConsumerOptions): Follower {
  const { handle, client: _, ...consumerOptions } = options;
  const abort = new AbortController();
  const consumer = client.consumer(words, { ...consumerOptions, signal: abort.signal });
  const seen: string[] = [];
  const ended = (async () => {
    for await (const { value } of consumer) {
      seen.push(value);
      await handle?.(value, consumer);
    }
  })().then(
    () => undefined,
    (error: LogError) => error,
  );
  return {
    consumer,
    seen,
    ended,
    async stop() {
      abort.abort();
      const error = await ended;
      if (error?.reason !== 'CANCELLED') throw error ?? new Error('The loop has ended without an error.');
    },
  };
}

/** One batch with the records `[from, from + count)` of a partition: `p0-0`, `p0-1`, ... */
export async function append(
  client: Client,
  partition: number,
  count: number,
  from = 0,
  options: ProducerOptions = {},
): Promise<void> {
  await using producer = client.producer({ lingerMs: 0, ...options });
  await producer.sendMany(words, recordsOf(partition, count, from, count));
}

/** The same with `keys` keys in turn. */
export async function appendKeys(client: Client, partition: number, count: number, keys: number): Promise<void> {
  await using producer = client.producer({ lingerMs: 0 });
  await producer.sendMany(words, recordsOf(partition, count, 0, keys));
}

function recordsOf(partition: number, count: number, from: number, keys: number): RecordInput<string, string>[] {
  return Array.from({ length: count }, (_, i) => ({
    key: `k${(from + i) % keys}`,
    value: `p${partition}-${from + i}`,
    partition,
  }));
}

/** Reads until `count` records are there. */
export async function collectInto(
  values: string[],
  source: AsyncIterable<{ readonly value: string }>,
  count: number,
): Promise<void> {
  for await (const { value } of source) {
    values.push(value);
    if (values.length === count) return;
  }
}
