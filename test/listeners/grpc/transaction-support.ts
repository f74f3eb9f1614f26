/** A transactional producer over raw gRPC, with batches written by hand. */
import { encodeBatch } from '../../../src/batch/builder.js';
import type { InitProducerResponse, ProduceRequest, ProduceResponse } from '../../../src/rpc/messages.js';
import type { AddOffsetsResponse, CommitResponse } from '../../../src/rpc/transaction-messages.js';
import type { RawClient } from './support.js';

export interface Identity {
  producerId: number;
  producerEpoch: number;
}

export function batchOf(values: readonly string[], options: Parameters<typeof encodeBatch>[1]): Buffer {
  return encodeBatch(
    values.map((value) => ({ timestampMs: Date.now(), key: null, value: Buffer.from(value) })),
    options,
  );
}

export class RawTransactions {
  readonly raw: RawClient;
  readonly transactionalId: string;
  identity: Identity = { producerId: -1, producerEpoch: -1 };
  readonly #sequences = new Map<string, number>();

  constructor(raw: RawClient, transactionalId: string) {
    this.raw = raw;
    this.transactionalId = transactionalId;
  }

  static async init(raw: RawClient, transactionalId: string, fields: object = {}): Promise<RawTransactions> {
    const transactions = new RawTransactions(raw, transactionalId);
    const answer = await raw.call<InitProducerResponse>('ProduceService', 'InitProducer', {
      transactionalId,
      ...fields,
    });
    transactions.#next(answer);
    return transactions;
  }

  #next({ producerId, producerEpoch }: Identity): void {
    this.identity = { producerId, producerEpoch };
    this.#sequences.clear();
  }

  async send(topic: string, values: readonly string[], fields: Partial<ProduceRequest> = {}): Promise<ProduceResponse> {
    const partition = fields.partition ?? 0;
    const place = `${topic}-${partition}`;
    const baseSequence = this.#sequences.get(place) ?? 0;
    const batch = batchOf(values, { ...this.identity, baseSequence, transactional: true });
    const { transactionalId } = this;
    const answer = await this.raw.produce({ topic, partition, transactionalId, batches: [batch], ...fields });
    this.#sequences.set(place, baseSequence + values.length);
    return answer;
  }

  call<Response>(name: string, fields: object = {}): Promise<Response> {
    const { transactionalId, identity } = this;
    return this.raw.call('TransactionService', name, { transactionalId, ...identity, ...fields });
  }

  addOffset(groupId: string, topic: string, offset: number, fields: object = {}): Promise<AddOffsetsResponse> {
    return this.call('AddOffsets', { groupId, offsets: [{ topic, partition: 0, offset }], ...fields });
  }

  async commit(): Promise<void> {
    this.#next(await this.call<CommitResponse>('Commit'));
  }

  async abort(): Promise<void> {
    this.#next(await this.call<CommitResponse>('Abort'));
  }
}
