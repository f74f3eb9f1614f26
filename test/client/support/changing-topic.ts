/** A client of a fake broker whose topic changes. */
import { expect } from 'vitest';
import { type Client, connect } from '../../../src/client/client.js';
import type { ConnectOptions, ProducerOptions } from '../../../src/client/options.js';
import { keyPartitioner } from '../../../src/client/partitioner.js';
import type { Producer } from '../../../src/client/producer.js';
import type { ReadOptions } from '../../../src/client/read-options.js';
import { string, type Topic, topic } from '../../../src/client/serdes.js';
import type { LogError } from '../../../src/core/errors.js';
import { FakeBroker } from './fake-broker.js';
import { SkippingClock } from './skipping-clock.js';

export const words: Topic<string, string> = topic('words', { value: string() });
export const MAX_AGE_MS = 300_000;
/** The client's default for one request with all its repetitions. */
export const REQUEST_TIMEOUT_MS = 30_000;

export interface Setting extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly clock: SkippingClock;
  readonly client: Client;
  readonly producer: Producer;
  /** How often the topic was looked up so far. */
  lookups(): number;
}

export async function start(
  partitions: number,
  options: ProducerOptions = {},
  connectOptions: ConnectOptions = {},
): Promise<Setting> {
  const broker = await FakeBroker.start();
  broker.addTopic('words', partitions);
  const clock = new SkippingClock();
  const client = await connect(broker.address, { clock, ...connectOptions });
  const producer = client.producer({ lingerMs: 0, retryBackoffMs: 2, retryBackoffMaxMs: 10, ...options });
  return {
    broker,
    clock,
    client,
    producer,
    lookups: () => broker.calls.filter((call) => call === 'GetTopic').length,
    async [Symbol.asyncDispose]() {
      await producer.close({ timeoutMs: 0 });
      await client.close();
      await broker.stop();
    },
  };
}

/** A reader at work. */
export interface Following {
  readonly seen: string[];
  readonly ended: Promise<LogError | undefined>;
  stop(): Promise<void>;
}

export function follow(client: Client, options: ReadOptions = {}): Following {
  const abort = new AbortController();
  const seen: string[] = [];
  const ended = (async () => {
    for await (const { value } of client.read(words, { ...options, signal: abort.signal })) seen.push(value);
  })().then(
    () => undefined,
    (error: LogError) => error,
  );
  return {
    seen,
    ended,
    async stop() {
      abort.abort();
      expect((await ended)?.reason).toBe('CANCELLED');
    },
  };
}

/** A key whose partition is `partition` of `of`. */
export function keyFor(partition: number, of: number): string {
  for (let i = 0; ; i++) if (keyPartitioner(Buffer.from(`k${i}`), of, 'words') === partition) return `k${i}`;
}

export const count = (broker: FakeBroker, partition: number): number => broker.partition('words', partition).endOffset;
