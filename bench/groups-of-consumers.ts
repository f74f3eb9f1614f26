/** Scenarios for consumer groups: reading, committing, handing over, and groups that do nothing. */
import { convergence, handOvers, type IdleGroups, idleGroups } from './scenarios/group-changes.js';
import { commitRates, type LoadTimes, loadOfOffsets } from './scenarios/group-commits.js';
import { groupThroughput } from './scenarios/group-throughput.js';
import { type Figure, mb, megabytes, ms, named, type Scenario } from './support/scenario.js';

const THROUGHPUT = 'groups: three members and 24 partitions, 1 KiB';

const commits = (value: number): Figure => ({ value, unit: 'commits/s' });

function load({ servingMs, loadedMs, residentMegabytes }: LoadTimes): Record<string, Figure> {
  return { serving: ms(servingMs), loaded: ms(loadedMs), resident: megabytes(residentMegabytes) };
}

function idle({ cpuPercent, residentMegabytes }: IdleGroups): Record<string, Figure> {
  return { CPU: { value: cpuPercent, unit: '% of a core' }, resident: megabytes(residentMegabytes) };
}

export const GROUP_SCENARIOS: readonly Scenario[] = [
  {
    name: THROUGHPUT,
    long: true,
    run: async () => {
      const { groupMegabytesPerSecond, plainMegabytesPerSecond } = await groupThroughput();
      return { members: mb(groupMegabytesPerSecond), 'plain readers': mb(plainMegabytesPerSecond) };
    },
  },
  {
    name: 'groups: commits of 50 members',
    long: true,
    run: async () => {
      const { oneByOne, pipelined, brokerCpuSeconds } = await commitRates();
      return {
        'one by one': commits(oneByOne),
        pipelined: commits(pipelined),
        'CPU of the broker, one by one': { value: brokerCpuSeconds, unit: 's' },
      };
    },
  },
  {
    name: 'groups: hand-over',
    long: true,
    run: async () => {
      const { killedMs, leftMs, sessionTimeoutMs } = await handOvers();
      return { 'killed, beyond the session timeout': ms(killedMs - sessionTimeoutMs), left: ms(leftMs) };
    },
  },
  {
    name: 'groups: 500 members join',
    long: true,
    run: async () => ({ converged: ms(await convergence()) }),
  },
  {
    name: 'groups: 1,000 idle',
    long: true,
    run: async () => {
      const { none, all } = await idleGroups();
      return { ...named('none:', idle(none)), ...named('all:', idle(all)) };
    },
  },
  {
    name: 'groups: load of 100,000 committed offsets',
    long: true,
    run: async () => {
      const { none, all } = await loadOfOffsets();
      return { ...named('none:', load(none)), ...named('all:', load(all)) };
    },
  },
];

/** Each compares two figures of the same run. @param of the median of a figure, NaN when it was not measured */
export function groupRatios(of: (key: string) => number): Record<string, number> {
  return { 'members of a group / plain readers': of(`${THROUGHPUT}: members`) / of(`${THROUGHPUT}: plain readers`) };
}
