/** What callers are shown of transactional ids. */
import type { TransactionDescription, TransactionPartition, TransactionSummary } from './coordinator-types.js';
import type { TransactionState } from './transaction-types.js';

export function summaryOf(state: TransactionState): TransactionSummary {
  const { transactionalId, status, identity, timeoutMs, startMs, updateMs } = state;
  return { transactionalId, status, ...identity, timeoutMs, startMs, updateMs };
}

export function descriptionOf(state: TransactionState): TransactionDescription {
  return {
    ...summaryOf(state),
    partitions: [...state.partitions.values()].sort(byName),
    groupIds: [...state.groups.values()].sort(),
  };
}

function byName(a: TransactionPartition, b: TransactionPartition): number {
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1;
  return a.partition - b.partition;
}
