/** Load on a broker that compacts, trims and deletes, until it is killed. */
import { expect } from 'vitest';
import type { Client, Producer, Topic } from '../../../src/index.js';
import { RecordedProducer } from '../../history/recorded/producer.js';
import { filled, NAME_HEADER } from '../../history/recorded/topic.js';
import type { Programme } from '../../support/programme.js';
import { CHURN_PARTITIONS, churn, events, type Life, trimmed } from './life.js';
import type { Update } from './table.js';

/** Runs until the broker is killed, and the client closed. @throws what the kill does not explain */
export async function load(life: Life, client: Client, programme: Programme): Promise<void> {
  const options = { lingerMs: 1, closeTimeoutMs: 0 };
  const running = new LifecycleLoad(life, client, programme);
  await Promise.all([
    running.updateTable(client.producer({ ...options, acks: 'durable', batchBytes: 2048 }), 'a'),
    running.updateTable(client.producer({ ...options, acks: 'written', compression: 'lz4' }), 'b'),
    running.addEvents(client.producer(options)),
    running.deleteRecords(client.producer(options)),
    running.makeAndDelete(client.producer(options)),
    life.follower.follow(client),
  ]);
}

class LifecycleLoad {
  readonly #life: Life;
  readonly #client: Client;
  readonly #programme: Programme;

  constructor(life: Life, client: Client, programme: Programme) {
    this.#life = life;
    this.#client = client;
    this.#programme = programme;
  }

  /**
   * Updates a few keys over and over, deleting some of them, and makes others that it deletes for good soon after. In the
   * history it is one producer through all kills: what it sent before one it does not send again.
   */
  updateTable(producer: Producer, name: string): Promise<void> {
    const { tableRecorded, expectedTable } = this.#life;
    const recordedProducer = new RecordedProducer(tableRecorded, producer, name);
    const doomed: string[] = [];
    return this.#repeat(48, async () => {
      const update = this.#nextUpdate(name, doomed);
      const { key, value, sequence } = update;
      expectedTable.send(key, update);
      const headers = { [NAME_HEADER]: `${sequence}` };
      await recordedProducer.send({ name: `${sequence}`, record: { key, value, headers } });
      expectedTable.acknowledge(key, update);
    });
  }

  addEvents(producer: Producer): Promise<void> {
    return this.#repeat(16, async () => {
      await this.#send(producer, events);
    });
  }

  /** Deletes all but a few of the records over and over, and now and then all of them. */
  deleteRecords(producer: Producer): Promise<void> {
    const { history, trimming } = this.#life;
    return this.#repeat(1, async () => {
      const offsets = await Promise.all(Array.from({ length: 20 }, () => this.#send(producer, trimmed)));
      const end = Math.max(...offsets) + 1;
      const keep = this.#programme.below(8);
      trimming.asked = end - keep;
      history.trim({ topic: trimmed.name, partition: 0, offset: trimming.asked });
      const beforeOffset = keep === 0 ? 'latest' : trimming.asked;
      expect(await this.#client.admin.deleteRecords(trimmed, [{ partition: 0, beforeOffset }])).toEqual([
        { partition: 0, logStartOffset: trimming.asked },
      ]);
      trimming.acknowledged = trimming.asked;
    });
  }

  makeAndDelete(producer: Producer): Promise<void> {
    const { churning } = this.#life;
    return this.#repeat(1, async () => {
      const made = ++churning.made;
      churning.state = 'creating';
      await this.#client.admin.createTopic({ name: churn.name, partitions: CHURN_PARTITIONS });
      churning.state = 'there';
      // A producer that knew the last topic takes its time to find this one; without it, other moments are met.
      const values = Array.from({ length: made % 4 === 0 ? 6 : 0 }, (_, i) => `${made}/${i}`);
      const recordedProducer = new RecordedProducer(this.#life.churnRecorded, producer, `churn ${this.#life.round}`);
      await Promise.all(
        values.map((name, i) =>
          recordedProducer.send({ name, record: { value: name, partition: i % CHURN_PARTITIONS } }),
        ),
      );
      churning.state = 'deleting';
      await this.#client.admin.deleteTopic(churn.name);
      churning.state = 'gone';
    });
  }

  async #send(producer: Producer, to: Topic<string, string>): Promise<number> {
    const name = `${this.#life.nextSequence()}`;
    const process = `${to.name} ${this.#life.round}`;
    const recordedProducer = new RecordedProducer(this.#life.recorded(to), producer, process);
    const { offset } = await recordedProducer.send({ name, record: { value: filled(name, 200) } });
    return offset;
  }

  #nextUpdate(name: string, doomed: string[]): Update & { readonly key: string } {
    const below = (limit: number): number => this.#programme.below(limit);
    const sequence = this.#life.nextSequence();
    const dice = below(10);
    if (dice === 0) {
      const key = `${name}-once-${sequence}`;
      doomed.push(key);
      return { sequence, key, value: `${sequence}` };
    }
    const ending = dice === 1 ? doomed.shift() : undefined;
    if (ending !== undefined) return { sequence, key: ending, value: null };
    const value = dice === 2 ? null : `${sequence}`.padEnd(40 + below(80), '.');
    return { sequence, key: `${name}-${below(60)}`, value };
  }

  /** Runs `step` over and over, `window` at once, until the broker is killed. A failure that the kill explains ends it. */
  async #repeat(window: number, step: () => Promise<void>): Promise<void> {
    const worker = async (): Promise<void> => {
      while (!this.#life.killed) {
        await step().catch((error: unknown) => {
          if (!this.#life.killed) throw error;
        });
      }
    };
    await Promise.all(Array.from({ length: window }, worker));
  }
}
