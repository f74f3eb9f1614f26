/**
 * Clients without sequences under `kill -9` (invariants 1 and 6): plain records with message ids are sent until the broker
 * is killed, and again to the next one where no answer came. Each is in the log once, where the first answer said; and no
 * producer id is given twice.
 */
import { rmSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { LogError } from '../../src/core/errors.js';
import type { InitProducerResponse, ProduceRequest } from '../../src/rpc/messages.js';
import { RawClient } from '../listeners/grpc/support.js';
import { BrokerProcess } from '../support/broker-process.js';
import { inForm, Programme } from '../support/programme.js';
import { until } from '../support/until.js';

const ROUNDS = inForm({ short: 2, long: 100 });
const SENDERS = 4;
const MAX_RECORDS = 5;
/** Answers in one round before the kill: at least 1, at most this. */
const MAX_ANSWERS = inForm({ short: 300, long: 1000 });
/** Ids that were answered and are sent again all the same. */
const REPEATED = 20;

class IdentifiedLoad {
  readonly #programme: Programme;
  readonly #dataDir = BrokerProcess.temporaryDirectory();
  /** Where each record is, as the first answer said. */
  readonly #offsets = new Map<string, number>();
  /** What was sent and not answered. */
  readonly #unanswered = new Set<readonly string[]>();
  readonly #producerIds = new Set<number>();
  #nextId = 0;

  constructor(programme: Programme) {
    this.#programme = programme;
    onTestFinished(() => rmSync(this.#dataDir, { recursive: true, force: true }));
  }

  async run(): Promise<void> {
    for (let round = 0; round < ROUNDS; round++) {
      await this.#round(async (raw, broker) => {
        if (round === 0) await raw.createTopic('t', 1, { 'segment.bytes': '16384' });
        await this.#repeat(raw);
        const target = this.#offsets.size + 1 + this.#programme.below(MAX_ANSWERS);
        const senders = Array.from({ length: SENDERS }, () => this.#sendUntilCut(raw));
        await until(() => this.#offsets.size >= target, `${target} records are answered`);
        await broker.stop('SIGKILL');
        await Promise.all(senders);
      });
      this.#programme.tried('kills');
    }
    await this.#round(async (raw) => {
      await this.#repeat(raw);
      const values = await valuesOf(raw);
      const expected = [...this.#offsets].sort(([, a], [, b]) => a - b).map(([id]) => id);
      expect(values).toEqual(expected);
      expect([...this.#offsets.values()].sort((a, b) => a - b)).toEqual(values.map((_, offset) => offset));
    });
    this.#programme.tried('records', this.#offsets.size);
  }

  async #round(work: (raw: RawClient, broker: BrokerProcess) => Promise<void>): Promise<void> {
    const broker = await BrokerProcess.start(this.#dataDir);
    const raw = new RawClient(broker.address);
    try {
      await work(raw, broker);
    } finally {
      raw.close();
      await broker.stop('SIGKILL');
    }
  }

  /** Sends again what was not answered, and some of what was. */
  async #repeat(raw: RawClient): Promise<void> {
    const answered = [...this.#offsets.keys()].slice(-REPEATED);
    for (const ids of [...this.#unanswered, ...answered.map((id) => [id])]) await this.#send(raw, ids);
  }

  async #sendUntilCut(raw: RawClient): Promise<void> {
    for (;;) {
      const count = 1 + this.#programme.below(MAX_RECORDS);
      const ids = Array.from({ length: count }, () => `id ${this.#nextId++}`);
      this.#unanswered.add(ids);
      try {
        await this.#send(raw, ids);
        await this.#takeProducerId(raw);
      } catch (error) {
        if (error instanceof LogError) return;
        throw error;
      }
    }
  }

  async #send(raw: RawClient, ids: readonly string[]): Promise<void> {
    const records = ids.map((id) => ({ offset: 0, timestampMs: 0, value: Buffer.from(id), headers: [] }));
    const request: Partial<ProduceRequest> = { topic: 't', acks: 'ACKS_WRITTEN', records, messageIds: [...ids] };
    const { offsets } = await raw.produce(request);
    this.#unanswered.delete(ids);
    for (const [index, id] of ids.entries()) {
      const known = this.#offsets.get(id);
      expect(offsets[index], `offset of ${id}`).toBe(known ?? offsets[index]);
      this.#offsets.set(id, offsets[index]!);
    }
  }

  async #takeProducerId(raw: RawClient): Promise<void> {
    const { producerId } = await raw.call<InitProducerResponse>('ProduceService', 'InitProducer', {});
    if (this.#producerIds.has(producerId)) throw new Error(`producer id ${producerId} was given twice`);
    this.#producerIds.add(producerId);
  }
}

async function valuesOf(raw: RawClient): Promise<string[]> {
  const values: string[] = [];
  for (let offset = 0; ; ) {
    const { records, nextOffset, highWatermark } = await raw.fetchOne('t', offset, {
      format: 'RECORD_FORMAT_RECORDS',
      maxWaitMs: 100,
    });
    for (const { value } of records) values.push(value?.toString() ?? '');
    if (nextOffset === offset || nextOffset >= highWatermark) return values;
    offset = nextOffset;
  }
}

test(
  `${ROUNDS} kills leave every record that came with a message id in the log once (invariants 1, 6)`,
  async (context) => {
    await new IdentifiedLoad(new Programme(context)).run();
  },
  inForm({ short: 60_000, long: 600_000 }),
);
