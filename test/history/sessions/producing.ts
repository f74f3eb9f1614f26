/** A producer, from its start to its end, with all the ways in which a send can fail. */
import { setTimeout as sleep } from 'node:timers/promises';
import { LogError, type Producer, type ProducerOptions } from '../../../src/index.js';
import { type NamedRecord, type Placed, RecordedProducer } from '../recorded/producer.js';
import { NAME_HEADER } from '../recorded/topic.js';
import { MAX_MESSAGE_BYTES, ORDERS, PARTITIONS, type Setting, TABLE, type TestTopic } from './setting.js';

/** Sends of one session that are unanswered at once. */
const WINDOW = 16;
const MAX_SENDS = 400;
/** Records of one `sendMany`. */
const SENT_TOGETHER = 20;
const KEYS_PER_PARTITION = 20;
const MAX_VALUE_BYTES = 200;
/** Of so many sends one is too large, and one of a key is a tombstone. */
const TOO_LARGE_ONE_IN = 50;
const TOMBSTONE_ONE_IN = 10;
const MAX_LIFE_MS = 300;

/** The producer is closed when all is answered or in the midst of it, with time for what is under way or without. */
export async function produce(setting: Setting, process: string): Promise<void> {
  const { programme } = setting;
  await using client = await setting.connect();
  const producer = client.producer(producerOptions(setting));
  const sending = new ProducerSession(setting, producer, process).run();
  const end = setting.pick(['when done', 'early', 'at once', 'with its client'] as const);
  if (end === 'when done') await sending;
  else await Promise.race([sending, sleep(programme.below(MAX_LIFE_MS))]);
  if (end === 'with its client') await client.close();
  await producer.close(end === 'at once' ? { timeoutMs: 0 } : {});
  await sending;
}

function producerOptions(setting: Setting): ProducerOptions {
  return {
    acks: setting.pick(['durable', 'written']),
    compression: setting.pick(['none', 'lz4', 'zstd']),
    lingerMs: setting.pick([0, 1, 5]),
    batchBytes: setting.pick([512, 4096]),
    // The short time is over for some before they were sent, for others while they wait for the answer.
    deliveryTimeoutMs: setting.pick([10, 30_000, 30_000]),
    retryBackoffMs: 5,
    retryBackoffMaxMs: 50,
  };
}

class ProducerSession {
  readonly #setting: Setting;
  readonly #producer: RecordedProducer<string, string | null>;
  readonly #process: string;
  readonly #topic: TestTopic;
  #count = 0;
  #isClosed = false;

  constructor(setting: Setting, producer: Producer, process: string) {
    this.#setting = setting;
    this.#process = process;
    this.#topic = setting.pick([ORDERS, TABLE]);
    this.#producer = new RecordedProducer(setting.recorded(this.#topic), producer, process);
  }

  async run(): Promise<void> {
    const sends = this.#setting.programme.below(MAX_SENDS);
    if (this.#setting.programme.below(3) === 0) await this.#sendTogether(sends);
    else await Promise.all(Array.from({ length: WINDOW }, () => this.#sendSingly(sends)));
  }

  #goesOn(sends: number): boolean {
    return this.#count < sends && !this.#isClosed && !this.#setting.stopped.aborted;
  }

  async #sendSingly(sends: number): Promise<void> {
    while (this.#goesOn(sends)) {
      const named = this.#next(this.#setting.pick(PARTITIONS));
      await this.#settled(this.#producer.send(named).then((result) => [result]));
    }
  }

  async #sendTogether(sends: number): Promise<void> {
    while (this.#goesOn(sends)) {
      const partition = this.#setting.pick(PARTITIONS);
      const together = Array.from({ length: SENT_TOGETHER }, () => this.#next(partition));
      await this.#settled(this.#producer.sendMany(together));
    }
  }

  async #settled(sending: Promise<readonly Placed[]>): Promise<void> {
    try {
      for (const { partition, offset } of await sending) {
        this.#setting.happened(`records of ${this.#topic.name}`);
        this.#setting.raiseEnd({ topic: this.#topic.name, partition, offset });
      }
    } catch (error) {
      if (!(error instanceof LogError)) throw error;
      this.#setting.happened(error.outcome === 'none' ? 'sends refused' : 'sends of unknown outcome');
      if (error.reason === 'CLOSED') this.#isClosed = true;
    }
  }

  /** A new record, which is about to be sent. */
  #next(partition: number): NamedRecord<string, string | null> {
    const { programme } = this.#setting;
    const name = `${this.#process}-${this.#count++}`;
    const headers = { [NAME_HEADER]: name };
    const isTooLarge = programme.below(TOO_LARGE_ONE_IN) === 0;
    const value = '.'.repeat(isTooLarge ? MAX_MESSAGE_BYTES : programme.below(MAX_VALUE_BYTES));
    if (this.#topic === ORDERS) return { name, record: { value, partition, headers } };
    const key = `${partition}-${programme.below(KEYS_PER_PARTITION)}`;
    const isTombstone = programme.below(TOMBSTONE_ONE_IN) === 0;
    return { name, record: { key, value: isTombstone ? null : value, partition, headers } };
  }
}
