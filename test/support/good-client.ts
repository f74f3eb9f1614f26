/** What a client that does nothing wrong must not notice of those that do. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { LogError } from '../../src/core/errors.js';
import type { FetchStreamResponse } from '../../src/rpc/messages.js';
import { RawClient } from '../listeners/grpc/support.js';
import { until } from './until.js';

/** Its records stay as they are whatever others do. */
const TOPIC = 'good';
const PLAIN = { format: 'RECORD_FORMAT_RECORDS' };
const PAUSE_MS = 20;
/** Rounds that show that the client is served still. */
const ROUNDS = 3;
/** However busy the machine is, they do not take longer. */
const SERVED_LIMIT_MS = 30_000;

/**
 * A client that asks for little: produces a record, sees it come on a stream, reads it again, and so on. It comes back
 * when it is told to.
 */
export class GoodClient {
  readonly #raw: RawClient;
  readonly #work: Promise<void>;
  #stream: ReturnType<RawClient['fetchStream']> | undefined;
  #streamed = 0;
  #failure: unknown;
  #working = true;
  #rounds = 0;

  private constructor(raw: RawClient) {
    this.#raw = raw;
    this.#work = this.#goRound().catch((error: unknown) => {
      this.#failure = error;
    });
  }

  static async start(address: string): Promise<GoodClient> {
    const raw = new RawClient(address);
    await raw.createTopic(TOPIC);
    return new GoodClient(raw);
  }

  async #goRound(): Promise<void> {
    this.#follow();
    while (this.#working) {
      const value = valueIn(this.#rounds);
      const record = { offset: 0, timestampMs: 0, value: Buffer.from(value), headers: [] };
      const { baseOffset } = await this.#patiently(() => this.#raw.produce({ topic: TOPIC, records: [record] }));
      expect(baseOffset).toBe(this.#rounds);
      const { records } = await this.#patiently(() => this.#raw.fetchOne(TOPIC, baseOffset, PLAIN));
      expect(String(records[0]?.value)).toBe(value);
      this.#rounds++;
      await until(() => this.#streamed >= this.#rounds, 'the stream brought it', SERVED_LIMIT_MS);
      await sleep(PAUSE_MS);
    }
  }

  #follow(): void {
    const positions = [{ topic: TOPIC, topicId: '', partition: 0, offset: 0 }];
    this.#stream = this.#raw.fetchStream({ positions });
    this.#stream.on('data', ({ partition }: FetchStreamResponse) => {
      this.#streamed = partition.nextOffset;
    });
    this.#stream.on('error', (error) => {
      if (this.#working) this.#failure ??= error;
    });
  }

  async #patiently<T>(attempt: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        const { reason, retryAfterMs } = error as LogError;
        if (reason !== 'RESOURCE_LIMIT' || retryAfterMs === undefined) throw error;
        await sleep(retryAfterMs);
      }
    }
  }

  /** Resolves once it has been served again and again from now on. */
  async expectServed(): Promise<void> {
    const goal = this.#rounds + ROUNDS;
    const over = (): boolean => this.#failure !== undefined || this.#rounds >= goal;
    await until(over, `a good client is served ${ROUNDS} times`, SERVED_LIMIT_MS);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Rejects unless it was served all along, and all that it wrote is there. */
  async stop(): Promise<void> {
    this.#working = false;
    await this.#work;
    this.#stream?.cancel();
    try {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#expectAllThere();
    } finally {
      this.#raw.close();
    }
  }

  async #expectAllThere(): Promise<void> {
    const read: string[] = [];
    while (read.length < this.#rounds) {
      const { records } = await this.#raw.fetchOne(TOPIC, read.length, PLAIN);
      expect(records.length).toBeGreaterThan(0);
      read.push(...records.map((record) => String(record.value)));
    }
    expect(read).toEqual(Array.from({ length: this.#rounds }, (_, round) => valueIn(round)));
  }
}

function valueIn(round: number): string {
  return `value ${round}`;
}
