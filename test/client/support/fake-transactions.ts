/** A transaction coordinator for the fake broker, by the rules of the wire; it remembers what it was asked. */
import { LogError } from '../../../src/core/errors.js';
import type { InitProducerRequest } from '../../../src/rpc/messages.js';
import type { AddOffsetsRequest, CommitRequest } from '../../../src/rpc/transaction-messages.js';
import type { FakeBroker } from './fake-broker.js';

export interface AskedOf {
  readonly method: string;
  readonly request: Partial<InitProducerRequest & AddOffsetsRequest & CommitRequest>;
}

/** What to do with a call: fail it before it is carried out, or carry it out and lose the answer. */
export type CallFault = LogError | 'lose the answer' | undefined;

export const lost = (): LogError => new LogError('CONNECTION_LOST', 'The answer is lost.');

export class FakeTransactions {
  readonly asked: AskedOf[] = [];
  /** How transactions ended, as `commit` or `abort` and the epoch. */
  readonly ends: string[] = [];
  onCall: (method: string) => CallFault = () => undefined;
  #identity = { producerId: 7, producerEpoch: -1 };
  /** Of the newest end: what it was asked with, and how. */
  #ended: { readonly epoch: number; readonly method: string } | undefined;

  constructor(broker: FakeBroker) {
    broker.onTransaction = (method, request) => this.#answer(method, request);
  }

  /** The calls, in order. */
  get methods(): string[] {
    return this.asked.map(({ method }) => method);
  }

  /** As an administrator, or a timeout, does: the epoch rises. */
  abort(): void {
    this.#ended = { epoch: this.#identity.producerEpoch, method: 'Abort' };
    this.#bump();
  }

  #answer(method: string, request: object): object {
    this.asked.push({ method, request });
    const fault = this.onCall(method);
    if (fault instanceof LogError) throw fault;
    const answer = this.#carryOut(method, request as CommitRequest);
    if (fault === 'lose the answer') throw lost();
    return answer;
  }

  #carryOut(method: string, { producerId, producerEpoch }: CommitRequest): object {
    if (method === 'AddOffsets') return { refused: [] };
    if (method === 'InitProducer') return this.#bump();
    if (producerId !== this.#identity.producerId) {
      throw new LogError('INVALID_PRODUCER_ID_MAPPING', 'Another producer id.');
    }
    const isRepeated = this.#ended?.epoch === producerEpoch && this.#ended.method === method;
    if (isRepeated && producerEpoch === this.#identity.producerEpoch - 1) return this.#identity;
    if (this.#ended?.epoch === producerEpoch) throw new LogError('TRANSACTION_ABORTABLE', 'It was aborted.');
    if (producerEpoch !== this.#identity.producerEpoch) throw new LogError('PRODUCER_FENCED', 'Another epoch.');
    this.ends.push(`${method} ${producerEpoch}`);
    this.#ended = { epoch: producerEpoch, method };
    return this.#bump();
  }

  #bump(): object {
    const { producerId, producerEpoch } = this.#identity;
    this.#identity = { producerId, producerEpoch: producerEpoch + 1 };
    return this.#identity;
  }
}
