/** What the clients of a random history have in common. */
import { type Client, connect, LogError, nullable, string, type Topic, topic } from '../../../src/index.js';
import type { Programme } from '../../support/programme.js';
import { until } from '../../support/until.js';
import type { Position } from '../events.js';
import type { History } from '../history.js';
import { nameInHeader, type RecordedTopic } from '../recorded/topic.js';

export type TestTopic = Topic<string, string | null>;

/** Its records are deleted from the beginning. */
export const ORDERS: TestTopic = topic('orders', { key: string(), value: nullable(string()) });
/** It is compacted. */
export const TABLE: TestTopic = topic('table', { key: string(), value: nullable(string()) });
export const TOPICS: readonly TestTopic[] = [ORDERS, TABLE];
export const PARTITIONS: readonly number[] = [0, 1];
/** The largest record batch that the topics take. */
export const MAX_MESSAGE_BYTES: number = 16 * 1024;

export class Setting {
  readonly programme: Programme;
  readonly history: History;
  /** Of the broker, also after it was started anew. */
  readonly address: string;
  /** Aborts when sessions are to come to an end. */
  readonly stopped: AbortSignal;
  readonly #counts = new Map<string, number>();
  readonly #ends = new Map<string, number>();

  constructor(programme: Programme, history: History, address: string, stopped: AbortSignal) {
    this.programme = programme;
    this.history = history;
    this.address = address;
    this.stopped = stopped;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.programme.below(items.length)]!;
  }

  recorded(topic: TestTopic): RecordedTopic<string, string | null> {
    return { history: this.history, topic, partitionCount: PARTITIONS.length, valueInHistory: nameInHeader };
  }

  /** Waits while the broker is away. */
  async connect(): Promise<Client> {
    let client: Client | undefined;
    await until(async () => {
      client = await connect(this.address).catch(ignoreUnavailable);
      return client !== undefined;
    }, 'a broker answers');
    return client!;
  }

  /** Counts, for this round and for the table of the whole run. */
  happened(what: string): void {
    this.#counts.set(what, this.count(what) + 1);
    this.programme.tried(what);
  }

  count(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  /** A record was acknowledged there. */
  raiseEnd({ topic, partition, offset }: Position): void {
    this.#ends.set(`${topic}/${partition}`, Math.max(offset + 1, this.knownEnd(topic, partition)));
  }

  /** Where the partition ends at least. */
  knownEnd(topic: string, partition: number): number {
    return this.#ends.get(`${topic}/${partition}`) ?? 0;
  }
}

function ignoreUnavailable(error: unknown): undefined {
  if (!(error instanceof LogError) || !error.retryable) throw error;
}
