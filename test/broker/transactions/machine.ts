/** The state machine alone: what it is told becomes durable at once. */
import type { ProducerIdentity, TransactionPartition } from '../../../src/broker/transactions/coordinator-types.js';
import {
  needsProducerId,
  newTransaction,
  restoreTransaction,
  transition,
} from '../../../src/broker/transactions/transaction.js';
import {
  type StoredTransaction,
  type TransactionEffect,
  type TransactionEvent,
  type TransactionState,
  withProducerId,
} from '../../../src/broker/transactions/transaction-types.js';

export const TOPIC = '00000000-0000-4000-8000-000000000001';

export function place(partition: number): TransactionPartition {
  return { topic: 't', topicId: TOPIC, partition };
}

export function id(producerId: number, producerEpoch: number): ProducerIdentity {
  return { producerId, producerEpoch };
}

export class Machine {
  state: TransactionState = newTransaction('tx');
  effects: readonly TransactionEffect[] = [];
  nowMs = 1000;
  #nextProducerId = 100;
  /** The last record. */
  record: StoredTransaction | undefined;

  /** `ok` with the identity, the reason of the refusal, or the kind of the outcome. */
  apply(event: TransactionEvent): string {
    const fresh = needsProducerId(this.state, event) ? this.#nextProducerId++ : undefined;
    const now = { monotonicMs: this.nowMs, wallMs: 1_000_000 + this.nowMs };
    const { state, outcome, effects } = transition(this.state, withProducerId(event, fresh), now);
    this.state = state;
    this.effects = effects;
    for (const effect of effects) if (effect.kind === 'persist') this.record = effect.record;
    if (outcome.kind === 'refused') return outcome.error.reason;
    if (outcome.kind !== 'answered') return outcome.kind;
    return `ok ${outcome.identity.producerId}/${outcome.identity.producerEpoch}`;
  }

  init(current?: ProducerIdentity, timeoutMs: number = 60_000): string {
    return this.apply({ kind: 'init', current, timeoutMs });
  }

  enter(producer: ProducerIdentity, partition: number = 0): string {
    return this.apply({ kind: 'enter', producer, partition: place(partition) });
  }

  addOffsets(producer: ProducerIdentity, groupId: string = 'g'): string {
    return this.apply({ kind: 'add-offsets', producer, groupId });
  }

  end(producer: ProducerIdentity, commit: boolean): string {
    return this.apply({ kind: 'end', producer, commit });
  }

  completed(): string {
    return this.apply({ kind: 'completed' });
  }

  /** As a restart reads the log. */
  restart(suspect: boolean = true): void {
    this.state = this.record === undefined ? newTransaction('tx') : restoreTransaction('tx', this.record, suspect);
  }

  /** `prepare-commit 100/0 -> 100/1` and so on. */
  get summary(): string {
    const { status, identity, next } = this.state;
    const after = next === undefined ? '' : ` -> ${next.producerId}/${next.producerEpoch}`;
    return `${status} ${identity.producerId}/${identity.producerEpoch}${after}`;
  }

  get kinds(): string {
    return this.effects.map(({ kind }) => kind).join(' ');
  }
}

/** In the state that is named, with the identity 100/1 after, and 100/0 before. */
export function machineIn(status: TransactionState['status']): Machine {
  const machine = new Machine();
  machine.init();
  machine.init(id(100, 0));
  if (status === 'empty') return machine;
  if (status === 'ongoing') {
    machine.enter(id(100, 1));
    return machine;
  }
  const other = new Machine();
  other.init();
  other.enter(id(100, 0));
  other.end(id(100, 0), status.endsWith('commit'));
  if (status.startsWith('complete')) other.completed();
  return other;
}
