import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { RawClient } from '../listeners/grpc/support.js';
import { until } from '../support/until.js';

const TOPIC = 'good';
const PAUSE_MS = 20;
/** Rounds that show that the client is served still. */
const ROUNDS = 3;
/** However busy the machine is, they do not take longer. */
const SERVED_LIMIT_MS = 20_000;

/** A client that asks for little: produces a record, reads it again, and so on; each answer is checked. */
export class GoodClient {
  readonly #raw: RawClient;
  readonly #work: Promise<void>;
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
    while (this.#working) {
      const value = `value ${this.#rounds}`;
      const record = { offset: 0, timestampMs: 0, value: Buffer.from(value), headers: [] };
      const { baseOffset } = await this.#raw.produce({ topic: TOPIC, records: [record] });
      expect(baseOffset).toBe(this.#rounds);
      const { records } = await this.#raw.fetchOne(TOPIC, baseOffset, { format: 'RECORD_FORMAT_RECORDS' });
      expect(String(records[0]?.value)).toBe(value);
      this.#rounds++;
      await sleep(PAUSE_MS);
    }
  }

  /** Resolves once it has been served again and again from now on. */
  async expectServed(): Promise<void> {
    const goal = this.#rounds + ROUNDS;
    const over = (): boolean => this.#failure !== undefined || this.#rounds >= goal;
    await until(over, `a good client is served ${ROUNDS} times`, SERVED_LIMIT_MS);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async stop(): Promise<void> {
    this.#working = false;
    await this.#work;
    this.#raw.close();
    if (this.#failure !== undefined) throw this.#failure;
  }
}
