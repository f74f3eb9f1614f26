/** A partition with transactions in it, made of hand-written batches, and the fetch service over it. */
import { encodeBatch } from '../../../src/batch/builder.js';
import { Fetcher } from '../../../src/broker/fetch.js';
import type { Topics } from '../../../src/broker/topics.js';
import { systemClock } from '../../../src/core/clock.js';
import { silentLogger } from '../../../src/core/logger.js';
import { budgetsByKind } from '../../../src/listeners/grpc/connection-budgets.js';
import { fetchHandlers } from '../../../src/listeners/grpc/fetch.js';
import type { Partition } from '../../../src/partition/partition.js';
import { FetchService } from '../../../src/rpc/proto.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { openTopics } from '../../broker/support.js';
import { batchOf } from '../../partition/support.js';
import { serve } from './serve-handlers.js';
import type { RawClient } from './support.js';

const MIB = 1024 * 1024;
export const TOPIC = 't';

/** A transactional producer, which gives each transaction an epoch of its own. */
export class Sender {
  readonly #partition: Partition;
  readonly id: number;
  /** Of the records it sends. */
  nowMs: number = Date.now();
  #epoch = 0;
  #sequence = 0;

  constructor(partition: Partition, id: number) {
    this.#partition = partition;
    this.id = id;
  }

  /** One batch; returns its base offset. */
  async send(...values: string[]): Promise<number> {
    const header = { producerId: this.id, producerEpoch: this.#epoch, baseSequence: this.#sequence };
    const batch = encodeBatch(
      values.map((value) => ({ timestampMs: this.nowMs, key: null, value: Buffer.from(value) })),
      { ...header, transactional: true },
    );
    this.#sequence += values.length;
    return (await this.#partition.append([batch], { acks: 'durable' })).baseOffset;
  }

  async end(commit: boolean): Promise<void> {
    this.#epoch++;
    this.#sequence = 0;
    const end = { producerId: this.id, producerEpoch: this.#epoch, commit, coordinatorEpoch: 0 };
    await this.#partition.endTransaction(end);
  }
}

export interface TransactionalLog {
  readonly topics: Topics;
  readonly partition: Partition;
  readonly raw: RawClient;
  /** A record of nobody's transaction; returns its offset. */
  plain(value: string): Promise<number>;
  stop(): Promise<void>;
}

export async function openTransactionalLog(): Promise<TransactionalLog> {
  const engine = openMemoryEngine();
  const topics = await openTopics(engine, { defaults: { 'retention.ms': '-1' } });
  await topics.create(TOPIC, 1, {}, false);
  const partition = topics.partition(TOPIC, '', 0);
  const fetch = new Fetcher({ topics, clock: systemClock });
  const budgets = budgetsByKind({ streamBytes: 8 * MIB, connectionBytes: 32 * MIB, totalBytes: 64 * MIB });
  const broker = { clock: systemClock, logger: silentLogger, fetch };
  const { raw, stop } = await serve([[FetchService, fetchHandlers(broker, budgets)]]);
  return {
    topics,
    partition,
    raw,
    plain: async (value): Promise<number> =>
      (await partition.append([batchOf([value])], { acks: 'durable' })).baseOffset,
    stop: async (): Promise<void> => {
      fetch.close();
      await stop();
      await topics.close();
      await engine.close();
    },
  };
}
