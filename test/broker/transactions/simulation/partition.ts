/** A partition: what it knows of its producers is the broker's own code; its log is a list. */
import { encodeTransactionMarker } from '../../../../src/batch/control.js';
import { nextOffsetOf, stampBatch } from '../../../../src/batch/layout.js';
import type { ProducerIdentity } from '../../../../src/broker/transactions/coordinator-types.js';
import { LogError } from '../../../../src/core/errors.js';
import { ProducerBudget } from '../../../../src/partition/producers/producer-budget.js';
import { ProducerStates } from '../../../../src/partition/producers/producer-states.js';
import type { OpenTransaction } from '../../../../src/partition/producers/types.js';
import { producerBatch } from '../../../partition/producers/support.js';
import { type Answer, keyOf, type Request, refusal, type World } from './world.js';

const EXPIRATION_MS = 24 * 3_600_000;

export interface Entry {
  readonly bytes: Buffer;
  readonly offset: number;
  readonly next: number;
  /** Undefined of a marker. */
  readonly data: DataBatch | undefined;
  /** Of a marker: the transaction that it ends. */
  readonly ended: string | undefined;
}

export interface DataBatch {
  readonly producer: ProducerIdentity;
  readonly input: string;
  readonly sequence: number;
  /** Of the input. */
  readonly offsets: readonly number[];
}

export class ModelPartition {
  readonly index: number;
  log: Entry[] = [];
  durableEnd = 0;
  readonly #world: World;
  #states: ProducerStates;
  /** Where a reader of committed records is. */
  #read = 0;
  #position = 0;

  constructor(world: World, index: number) {
    this.#world = world;
    this.index = index;
    this.#states = this.#newStates();
  }

  #newStates(): ProducerStates {
    const budget = new ProducerBudget(1_000_000);
    return new ProducerStates({ topic: 't', partition: this.index, budget, expirationMs: EXPIRATION_MS });
  }

  get end(): number {
    return this.log.at(-1)?.next ?? 0;
  }

  get lastStableOffset(): number {
    if (this.#world.defects.has('readers read on to the high watermark')) return this.durableEnd;
    return Math.min(this.#states.firstUnstableOffset(this.durableEnd), this.durableEnd);
  }

  openTransactions(): readonly OpenTransaction[] {
    return this.#states.openTransactions();
  }

  isOpen({ producerId, producerEpoch }: ProducerIdentity): boolean {
    return this.#states.get(producerId)?.transaction?.producerEpoch === producerEpoch;
  }

  append({ producer, work, sequence, offsets }: Extract<Request, { kind: 'produce' }>): Answer {
    const { producerId: id, producerEpoch: epoch } = producer;
    const bytes = producerBatch({ id, epoch, sequence, count: offsets.length, transactional: true });
    const verdict = this.#states.check(bytes);
    if (verdict instanceof LogError) return refusal(verdict.reason);
    const isRepeated = verdict.kind === 'duplicate';
    if (isRepeated && !this.#world.defects.has('a repeated batch is appended')) return { kind: 'done' };
    this.#put(bytes, { producer, input: work.input, sequence, offsets }, undefined);
    return { kind: 'done' };
  }

  /** Whether the marker of the transaction is there for good. */
  isEnded(producer: ProducerIdentity): boolean {
    const key = keyOf(producer);
    const marker = this.log.findLast(({ ended }) => ended === key);
    return marker !== undefined && marker.next <= this.durableEnd;
  }

  #put(bytes: Buffer, data: DataBatch | undefined, ended: string | undefined): void {
    const offset = this.end;
    stampBatch(bytes, 0, offset, 0);
    const entry = { bytes, offset, next: nextOffsetOf(bytes, 0), data, ended };
    this.#states.note(bytes, 0, this.#world.timeline.nowMs);
    this.log.push(entry);
    this.#states.settle(this.durableEnd);
    if (data !== undefined) this.#world.oracle.appended(this, entry, data);
  }

  /** As the writer of a partition places it. */
  endTransaction({ producerId, producerEpoch }: ProducerIdentity, commit: boolean): void {
    const open = this.#states.get(producerId)?.transaction;
    if (open === undefined) return;
    const isAny = this.#world.defects.has('a marker ends a transaction of its own epoch or a later one');
    if (open.producerEpoch >= producerEpoch && !isAny) return;
    this.#world.trace?.(`  p${this.index} ${commit ? 'COMMIT' : 'ABORT'} of ${keyOf(open)}`);
    this.#world.oracle.ended(this, open, commit);
    const timestampMs = this.#world.timeline.nowMs;
    const marker = encodeTransactionMarker({ producerId, producerEpoch, commit, coordinatorEpoch: 0, timestampMs });
    this.#put(marker, undefined, keyOf(open));
  }

  flush(): void {
    this.durableEnd = this.end;
    this.#states.settle(this.durableEnd);
    this.#readOn();
  }

  /** What readers of committed records are given: never taken back. */
  #readOn(): void {
    const end = this.lastStableOffset;
    for (; this.#read < this.log.length; this.#read++) {
      const { offset, next, data } = this.log[this.#read]!;
      if (next > end) return;
      this.#position = next;
      if (data === undefined) continue;
      const { producerId } = data.producer;
      const isAborted = this.#states.aborted.in(offset, next).some((one) => one.producerId === producerId);
      if (!isAborted) this.#world.oracle.delivered(data);
    }
  }

  /** @param powerLost whether what is not durable may be gone */
  restart(powerLost: boolean): void {
    const { chance } = this.#world;
    const durable = this.log.findIndex(({ next }) => next > this.durableEnd);
    if (powerLost && durable >= 0) {
      const lost = this.log.splice(chance.between(durable, this.log.length));
      for (const entry of lost) this.#world.oracle.lost(this, entry);
    }
    this.#states = this.#newStates();
    for (const { bytes } of this.log) this.#states.note(bytes, 0, this.#world.timeline.nowMs);
    if (this.#position > this.end) throw new Error(`p${this.index}: what was read is gone`);
    this.flush();
  }
}
