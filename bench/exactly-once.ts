/** Scenarios for idempotent producers and transactions. */
import {
  committedReading,
  idempotenceCost,
  smallTransactions,
  transactionThroughput,
} from './scenarios/transactions.js';
import { mb, ms, type Scenario } from './support/scenario.js';

const IDEMPOTENT = 'exactly once: sendMany 1 KiB, durable';
const LARGE = 'exactly once: transactions of 1,000 records of 1 KiB over 4 partitions';
const SMALL = 'exactly once: transactions of one record';
const READING = 'exactly once: reading transactions, every tenth aborted';

export const EXACTLY_ONCE_SCENARIOS: readonly Scenario[] = [
  {
    name: IDEMPOTENT,
    long: true,
    run: async () => {
      const { idempotentMegabytesPerSecond, plainMegabytesPerSecond } = await idempotenceCost();
      return { idempotent: mb(idempotentMegabytesPerSecond), 'not idempotent': mb(plainMegabytesPerSecond) };
    },
  },
  {
    name: LARGE,
    long: true,
    run: async () => {
      const result = await transactionThroughput();
      return {
        transactions: mb(result.transactionsMegabytesPerSecond),
        'without, one call at a time': mb(result.plainMegabytesPerSecond),
        'without, calls overlap': mb(result.pipelinedMegabytesPerSecond),
      };
    },
  },
  {
    name: SMALL,
    long: true,
    run: async () => {
      const { perSecond, commitP50Ms, commitP99Ms, syncP50Ms } = await smallTransactions();
      return {
        rate: { value: perSecond, unit: 'transactions/s' },
        'commit p50': ms(commitP50Ms),
        'commit p99': ms(commitP99Ms),
        'sync p50': ms(syncP50Ms),
      };
    },
  },
  {
    name: READING,
    long: true,
    run: async () => {
      const { committedMegabytesPerSecond, uncommittedMegabytesPerSecond } = await committedReading();
      return { committed: mb(committedMegabytesPerSecond), uncommitted: mb(uncommittedMegabytesPerSecond) };
    },
  },
];

/** Each compares two figures of the same run. @param of the median of a figure, NaN when it was not measured */
export function exactlyOnceRatios(of: (key: string) => number): Record<string, number> {
  const ratio = (name: string, above: string, below: string): number =>
    of(`${name}: ${above}`) / of(`${name}: ${below}`);
  return {
    'idempotent / not idempotent': ratio(IDEMPOTENT, 'idempotent', 'not idempotent'),
    'transactions / without, one call at a time': ratio(LARGE, 'transactions', 'without, one call at a time'),
    'transactions / without, calls overlap': ratio(LARGE, 'transactions', 'without, calls overlap'),
    'commit of one record p50 / sync p50': ratio(SMALL, 'commit p50', 'sync p50'),
    'read committed / uncommitted': ratio(READING, 'committed', 'uncommitted'),
  };
}
