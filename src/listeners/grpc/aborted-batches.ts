import { attributesOf, baseOffsetOf, isTransactional, producerIdOf } from '../../batch/layout.js';
import type { AbortedTransaction } from '../../partition/producers/types.js';

/** The aborted transactions of one producer, which follow each other, and the first that the batches have not passed. */
interface Passed {
  readonly transactions: AbortedTransaction[];
  next: number;
}

/** Which batches belong to aborted transactions. */
export class AbortedBatches {
  readonly #byProducer = new Map<number, Passed>();

  constructor(aborted: readonly AbortedTransaction[]) {
    const ascending = aborted.length > 1 ? [...aborted].sort((a, b) => a.lastOffset - b.lastOffset) : aborted;
    for (const transaction of ascending) {
      const known = this.#byProducer.get(transaction.producerId);
      if (known === undefined) this.#byProducer.set(transaction.producerId, { transactions: [transaction], next: 0 });
      else known.transactions.push(transaction);
    }
  }

  /** To be asked of batches in the order of their offsets. */
  has(batch: Buffer): boolean {
    if (this.#byProducer.size === 0 || !isTransactional(attributesOf(batch, 0))) return false;
    const passed = this.#byProducer.get(producerIdOf(batch, 0));
    if (passed === undefined) return false;
    const baseOffset = baseOffsetOf(batch, 0);
    const { transactions } = passed;
    while (passed.next < transactions.length && transactions[passed.next]!.lastOffset < baseOffset) passed.next++;
    const transaction = transactions[passed.next];
    return transaction !== undefined && transaction.firstOffset <= baseOffset;
  }
}
