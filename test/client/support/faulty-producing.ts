/** A producer of a fake broker whose time passes when the test says so. */

import {
  attributesOf,
  baseSequenceOf,
  isTransactional,
  producerEpochOf,
  producerIdOf,
  recordCountOf,
} from '../../../src/batch/layout.js';
import { type Client, connect } from '../../../src/client/client.js';
import type { ConnectOptions, ProducerOptions } from '../../../src/client/options.js';
import type { Producer } from '../../../src/client/producer.js';
import { string, type Topic, topic } from '../../../src/client/serdes.js';
import { FakeBroker, type FakePartition } from './fake-broker.js';
import { SkippingClock } from './skipping-clock.js';

export const words: Topic<string, string> = topic('words', { value: string() });
/** Far longer than a test takes. */
export const DELIVERY_MS = 100_000;
export const REQUEST_MS = 300_000;

export interface Producing extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly clock: SkippingClock;
  readonly client: Client;
  readonly producer: Producer;
  readonly warnings: string[];
  /** How often lanes have put off what is to be repeated. */
  repeats(): number;
}

/** Each record has a batch of its own, unless the options say otherwise. */
export async function startProducing(
  options: ProducerOptions = {},
  partitions = 1,
  requestTimeoutMs: number = REQUEST_MS,
): Promise<Producing> {
  const broker = await FakeBroker.start();
  broker.addTopic('words', partitions);
  const clock = new SkippingClock();
  const warnings: string[] = [];
  let repeats = 0;
  const ignore = (): void => {};
  const connectOptions: ConnectOptions = {
    clock,
    requestTimeoutMs,
    metadataMaxAgeMs: 100 * DELIVERY_MS,
    logger: {
      debug: (_, text) => {
        if (text === 'produce will be repeated') repeats++;
      },
      info: ignore,
      warn: (_, text) => warnings.push(text),
      error: ignore,
    },
  };
  const client = await connect(broker.address, connectOptions);
  const producer = client.producer({
    retryBackoffMs: 2,
    retryBackoffMaxMs: 10,
    batchBytes: 1,
    deliveryTimeoutMs: DELIVERY_MS,
    ...options,
  });
  return {
    broker,
    clock,
    client,
    producer,
    warnings,
    repeats: () => repeats,
    async [Symbol.asyncDispose]() {
      await producer.close({ timeoutMs: 0 });
      await client.close();
      await broker.stop();
    },
  };
}

export interface Numbers {
  readonly id: number;
  readonly epoch: number;
  readonly first: number;
  readonly count: number;
}

export function numbersOf(batch: Buffer): Numbers {
  return {
    id: producerIdOf(batch, 0),
    epoch: producerEpochOf(batch, 0),
    first: baseSequenceOf(batch, 0),
    count: recordCountOf(batch, 0),
  };
}

/** `epoch:first sequence` of each batch in the log. */
export function places({ batches }: FakePartition): string[] {
  return batches.map((batch) => `${producerEpochOf(batch, 0)}:${baseSequenceOf(batch, 0)}`);
}

export function isInTransaction(batch: Buffer): boolean {
  return isTransactional(attributesOf(batch, 0));
}

export const values = (count: number, prefix = 'w'): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}${i}`);

/** `fulfilled`, or the reason and the outcome. */
export async function outcomesOf(sends: readonly Promise<unknown>[]): Promise<string[]> {
  const results = await Promise.allSettled(sends);
  return results.map((result) =>
    result.status === 'fulfilled' ? 'fulfilled' : `${result.reason.reason} ${result.reason.outcome}`,
  );
}
