/** What must hold however bad things get. Each check throws with what was broken. */
import type { ProducerIdentity } from '../../../../src/broker/transactions/coordinator-types.js';
import type { StoredTransaction } from '../../../../src/broker/transactions/transaction-types.js';
import { assert } from '../../../../src/core/assert.js';
import type { ModelGroup } from './group.js';
import type { DataBatch, Entry, ModelPartition } from './partition.js';
import { keyOf, type Work } from './world.js';

/** A batch that was acknowledged to a client before it asked for the commit. */
export interface Acknowledged {
  readonly partition: number;
  readonly sequence: number;
}

interface Transaction {
  /** What the log has of it, by partition. */
  readonly entries: Map<ModelPartition, Entry[]>;
  /** What its client has seen acknowledged when it asked for the commit. */
  acknowledged: readonly Acknowledged[];
  /** Durably. */
  decided: 'commit' | 'abort' | undefined;
  /** The broker's time of service when its first batch came. */
  readonly sinceMs: number;
}

export class Oracle {
  readonly #transactions = new Map<string, Transaction>();
  /** By producer id: below this epoch everything is over. */
  readonly #leastEpochs = new Map<number, number>();
  readonly #producerIds = new Map<string, number>();
  /** By input: what readers of committed records were given. */
  readonly #delivered = new Map<string, Set<number>>();
  /** For how long the broker has been up in all, in ms. */
  upMs: () => number = () => 0;
  /** Transactions that came to each of the ends. */
  readonly counts: { commit: number; abort: number } = { commit: 0, abort: 0 };

  #of(producer: ProducerIdentity): Transaction {
    const key = keyOf(producer);
    let transaction = this.#transactions.get(key);
    if (transaction === undefined) {
      transaction = { entries: new Map(), acknowledged: [], decided: undefined, sinceMs: this.upMs() };
      this.#transactions.set(key, transaction);
    }
    return transaction;
  }

  /** A batch is in the log now (invariants 6 and 9). */
  appended(partition: ModelPartition, entry: Entry, { producer, sequence }: DataBatch): void {
    this.#checkCurrent(producer, `a batch in p${partition.index}`);
    const { entries, decided } = this.#of(producer);
    assert(decided === undefined, `a batch of ${keyOf(producer)} comes after its ${decided}`);
    const before = entries.get(partition) ?? [];
    const next = before.reduce((sum, { data }) => sum + (data?.offsets.length ?? 0), 0);
    assert(
      sequence === next,
      `${keyOf(producer)} in p${partition.index}: sequence ${sequence} comes where ${next} is due`,
    );
    entries.set(partition, [...before, entry]);
  }

  /** The power is lost, and this with it. */
  lost(partition: ModelPartition, entry: Entry): void {
    if (entry.data === undefined) return;
    const { entries } = this.#of(entry.data.producer);
    entries.set(
      partition,
      (entries.get(partition) ?? []).filter((one) => one !== entry),
    );
  }

  /** An offset waits durably (invariant 9). */
  waits({ groupId }: ModelGroup, producer: ProducerIdentity, _work: Work): void {
    this.#checkCurrent(producer, `an offset in ${groupId}`);
  }

  #checkCurrent(producer: ProducerIdentity, what: string): void {
    const least = this.#leastEpochs.get(producer.producerId) ?? 0;
    assert(producer.producerEpoch >= least, `${what} of ${keyOf(producer)} comes when the epoch is ${least} already`);
  }

  /** A client asks for the commit. */
  expects(producer: ProducerIdentity, acknowledged: readonly Acknowledged[]): void {
    this.#of(producer).acknowledged = acknowledged;
  }

  /** A record of the coordinator is durable (invariants 9 and 11). */
  decided(transactionalId: string, { status, identity }: StoredTransaction): void {
    const before = this.#producerIds.get(transactionalId);
    const { producerId, producerEpoch } = identity;
    if (before !== undefined && before !== producerId) this.#leastEpochs.set(before, Number.POSITIVE_INFINITY);
    this.#producerIds.set(transactionalId, producerId);
    const isDecision = status === 'prepare-commit' || status === 'prepare-abort';
    const least = isDecision ? producerEpoch + 1 : producerEpoch;
    this.#leastEpochs.set(producerId, Math.max(this.#leastEpochs.get(producerId) ?? 0, least));
    if (isDecision) this.#decide(identity, status === 'prepare-commit' ? 'commit' : 'abort');
  }

  #decide(producer: ProducerIdentity, decision: 'commit' | 'abort'): void {
    const transaction = this.#of(producer);
    const { decided, acknowledged, entries } = transaction;
    assert((decided ?? decision) === decision, `${keyOf(producer)} was decided as ${decided}, and now as ${decision}`);
    if (decided === undefined) this.counts[decision]++;
    transaction.decided = decision;
    if (decision === 'abort') return;
    const all = [...entries].flatMap(([{ index, durableEnd }, ofPartition]) =>
      ofPartition.filter(({ next }) => next <= durableEnd).map(({ data }) => `p${index} ${data?.sequence}`),
    );
    for (const { partition, sequence } of acknowledged) {
      const isThere = all.includes(`p${partition} ${sequence}`);
      assert(isThere, `${keyOf(producer)} is committed without batch ${sequence} of p${partition}`);
    }
  }

  /** A marker is written (invariant 11). */
  ended({ index }: ModelPartition, producer: ProducerIdentity, commit: boolean): void {
    const { decided } = this.#of(producer);
    const isRight = commit ? decided === 'commit' : decided !== 'commit';
    assert(isRight, `${keyOf(producer)} is ended in p${index}, commit ${commit}, and it is ${decided ?? 'undecided'}`);
  }

  /** An offset of a transaction is committed (invariants 8 and 11). */
  offsetCommitted(group: ModelGroup, producer: ProducerIdentity, { input, from, to }: Work): void {
    const key = keyOf(producer);
    assert(this.#of(producer).decided === 'commit', `${group.groupId}: ${to} is committed of ${key}, which is not`);
    const before = group.committed(input);
    assert(before === from, `${group.groupId}: ${key} moves the offset from ${from} to ${to}, and it is ${before}`);
  }

  /** A reader of committed records is given a batch (invariant 11). */
  delivered({ producer, input, offsets }: DataBatch): void {
    const { decided } = this.#of(producer);
    assert(
      decided === 'commit',
      `a reader is given what ${keyOf(producer)} has sent, which is ${decided ?? 'undecided'}`,
    );
    const before = this.#delivered.get(input) ?? new Set();
    this.#delivered.set(input, before);
    for (const offset of offsets) {
      assert(!before.has(offset), `a reader is given ${offset} of ${input} twice, now by ${keyOf(producer)}`);
      before.add(offset);
    }
  }

  /** A client is told that its transaction is over (invariant 11). */
  answered(
    producer: ProducerIdentity,
    commit: boolean,
    partitions: readonly ModelPartition[],
    groups: readonly ModelGroup[],
  ): void {
    const { decided, entries } = this.#of(producer);
    const key = keyOf(producer);
    assert(!commit || decided === 'commit', `the commit of ${key} is answered, and it is ${decided ?? 'undecided'}`);
    assert(commit || decided !== 'commit', `the abort of ${key} is answered, and it is committed`);
    for (const partition of partitions) {
      const isThere = (entries.get(partition)?.length ?? 0) > 0;
      const isOver = isThere ? partition.isEnded(producer) : !partition.isOpen(producer);
      assert(isOver, `${key} is answered, and not over in p${partition.index}`);
    }
    for (const group of groups) {
      assert(!group.waitsFor(producer), `${key} is answered, and its offset waits in ${group.groupId}`);
    }
  }

  /** Nothing is open for longer than it may be (invariant 12). */
  checkOpen(partitions: readonly ModelPartition[], longestMs: number): void {
    for (const { index, openTransactions } of partitions.map((one) => ({
      index: one.index,
      openTransactions: one.openTransactions(),
    }))) {
      for (const open of openTransactions) {
        const ageMs = this.upMs() - this.#of(open).sinceMs;
        assert(ageMs <= longestMs, `${keyOf(open)} is open in p${index} for ${ageMs} ms`);
      }
    }
  }

  /** When all is over: each input that is committed was given to readers once, and no other. */
  checkDelivered(input: string, committed: number): void {
    const delivered = this.#delivered.get(input) ?? new Set();
    for (let offset = 0; offset < committed; offset++) {
      assert(delivered.has(offset), `${offset} of ${input} is committed, and no reader was given it`);
    }
    assert(delivered.size === committed, `readers were given more of ${input} than was committed`);
  }
}
