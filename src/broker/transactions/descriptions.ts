/** What callers are shown of transactional ids. */
import type { Clock } from '../../core/clock.js';
import { Slices } from '../../core/slices.js';
import type { TransactionDescription, TransactionPartition, TransactionSummary } from './coordinator-types.js';
import { isNew } from './transaction.js';
import type { TransactionEntry } from './transaction-entry.js';
import type { TransactionState } from './transaction-types.js';

const SLICE_MS = 5;
/** Some milliseconds of work. */
const SORTED_AT_ONCE = 5000;

export function summaryOf(state: TransactionState): TransactionSummary {
  const { transactionalId, status, identity, timeoutMs, startMs, updateMs } = state;
  return { transactionalId, status, ...identity, timeoutMs, startMs, updateMs };
}

/** All that were initialised, by transactional id. Others get turns meanwhile: there may be 100,000. */
export async function summariesOf(entries: Iterable<TransactionEntry>, clock: Clock): Promise<TransactionSummary[]> {
  const slices = new Slices(clock, SLICE_MS);
  const all: TransactionSummary[] = [];
  let part: TransactionSummary[] = [];
  for (const { state } of [...entries]) {
    if (!isNew(state)) part.push(summaryOf(state));
    if (part.length < SORTED_AT_ONCE) {
      await slices.step();
      continue;
    }
    for (const summary of part.sort(byId)) all.push(summary);
    part = [];
    await slices.pause();
  }
  for (const summary of part.sort(byId)) all.push(summary);
  // Merges what is sorted already, which is quick.
  return all.sort(byId);
}

function byId(a: TransactionSummary, b: TransactionSummary): number {
  return a.transactionalId < b.transactionalId ? -1 : 1;
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
