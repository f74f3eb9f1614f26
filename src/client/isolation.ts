/** What of transactions is read. */
import { attributesOf, baseOffsetOf, isTransactional, producerIdOf } from '../batch/layout.js';
import { partitionPoint } from '../core/binary-search.js';
import type { AbortedTransaction, IsolationLevelName } from '../rpc/messages.js';
import { oneOf } from './options.js';

/**
 * `read_committed` ends before the first transaction that is not decided and leaves out those that were aborted;
 * `read_uncommitted` shows everything up to the high watermark.
 */
export type Isolation = 'read_committed' | 'read_uncommitted';

const LEVELS: Readonly<Record<Isolation, IsolationLevelName>> = {
  read_committed: 'ISOLATION_LEVEL_READ_COMMITTED',
  read_uncommitted: 'ISOLATION_LEVEL_READ_UNCOMMITTED',
};

/** @throws LogError INVALID_CONFIG */
export function resolveIsolation(isolation: Isolation = 'read_committed'): Isolation {
  return oneOf('isolation', ['read_committed', 'read_uncommitted'], isolation);
}

export function isolationLevelOf(isolation: Isolation): IsolationLevelName {
  return LEVELS[isolation];
}

/** The aborted transactions that a message names, to be asked about its batches. */
export class AbortedTransactions {
  /** Those of a producer do not overlap; by their first offsets. */
  readonly #byProducer = new Map<number, AbortedTransaction[]>();

  constructor(transactions: readonly AbortedTransaction[]) {
    for (const transaction of transactions) {
      const known = this.#byProducer.get(transaction.producerId);
      if (known === undefined) this.#byProducer.set(transaction.producerId, [transaction]);
      else known.push(transaction);
    }
    for (const known of this.#byProducer.values()) known.sort((a, b) => a.firstOffset - b.firstOffset);
  }

  /** Whether the batch at `at` belongs to one of them. */
  has(blob: Buffer, at: number): boolean {
    if (!isTransactional(attributesOf(blob, at))) return false;
    const transactions = this.#byProducer.get(producerIdOf(blob, at));
    if (transactions === undefined) return false;
    const offset = baseOffsetOf(blob, at);
    const after = partitionPoint(
      transactions.length,
      (i) => (transactions[i] as AbortedTransaction).firstOffset <= offset,
    );
    const transaction = transactions[after - 1];
    return transaction !== undefined && offset <= transaction.lastOffset;
  }
}

/** Undefined when the message names none, so that nothing is asked then. */
export function abortedTransactions(named: readonly AbortedTransaction[]): AbortedTransactions | undefined {
  return named.length === 0 ? undefined : new AbortedTransactions(named);
}
