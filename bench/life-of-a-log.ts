/** Scenarios for what a log does besides growing: retention, compaction, lookups by time, very many partitions. */
import { compaction } from './scenarios/compaction.js';
import { type IdleBroker, manyPartitions } from './scenarios/many-partitions.js';
import { type AppendFigures, appendsWhileRetentionDeletes } from './scenarios/retention.js';
import { timeLookup } from './scenarios/time-lookup.js';
import { type Figure, mb, megabytes, ms, named, type Scenario } from './support/scenario.js';
import { quantile } from './support/stats.js';

const RETENTION = 'appends while retention deletes';
const COMPACTION = 'compaction of 1 GiB';
const TIME_LOOKUP = 'time lookup in 10 million records';
const MANY_PARTITIONS = '5,000 partitions';

const count = (value: number): Figure => ({ value, unit: '' });

function answerTimes(times: readonly number[]): Record<string, Figure> {
  return { p50: ms(quantile(times, 0.5)), p99: ms(quantile(times, 0.99)), longest: ms(quantile(times, 1)) };
}

function appends(figures: AppendFigures): Record<string, Figure> {
  return { throughput: mb(figures.megabytesPerSecond), ...answerTimes(figures.latenciesMs) };
}

function idleBroker(broker: IdleBroker): Record<string, Figure> {
  return {
    start: ms(broker.startMs),
    'idle CPU': { value: broker.cpuPercent, unit: '% of a core' },
    'idle resident': megabytes(broker.residentMegabytes),
    'open files': count(broker.openFiles),
  };
}

export const LIFE_SCENARIOS: readonly Scenario[] = [
  {
    name: RETENTION,
    long: true,
    run: async () => {
      const { kept, deleted } = await appendsWhileRetentionDeletes();
      return { ...named('without', appends(kept)), ...named('with', appends(deleted)) };
    },
  },
  {
    name: COMPACTION,
    long: true,
    run: async () => {
      const result = await compaction();
      return {
        ...named('answer idle', answerTimes(result.idleAnswersMs)),
        ...named('answer compacting', answerTimes(result.busyAnswersMs)),
        'event loop longest': ms(result.eventLoop.longestMs),
        'event loop p99': ms(result.eventLoop.p99Ms),
        compacted: mb(result.megabytesPerSecond),
        'size before': megabytes(result.sizeBefore / 1e6),
        'size after': megabytes(result.sizeAfter / 1e6),
        'resident before': megabytes(result.residentBefore / 1e6),
        'resident peak': megabytes(result.residentPeak / 1e6),
      };
    },
  },
  {
    name: TIME_LOOKUP,
    long: true,
    run: async () => {
      const result = await timeLookup();
      return {
        first: ms(result.firstMs),
        ...named('lookup', answerTimes(result.lookupsMs)),
        ...named('latest offset', answerTimes(result.baselineMs)),
        'read from files': { value: result.readBytesEach / 1024, unit: 'KiB each' },
      };
    },
  },
  {
    name: MANY_PARTITIONS,
    long: true,
    run: async () => {
      const { empty, full } = await manyPartitions();
      return { ...named('none:', idleBroker(empty)), ...named('all:', idleBroker(full)) };
    },
  },
];

/** Each compares two figures of the same run. @param of the median of a figure, NaN when it was not measured */
export function lifeRatios(of: (key: string) => number): Record<string, number> {
  const retention = (figure: string): number =>
    of(`${RETENTION}: with ${figure}`) / of(`${RETENTION}: without ${figure}`);
  const probed = (figure: string): number =>
    of(`${COMPACTION}: answer compacting ${figure}`) / of(`${COMPACTION}: answer idle ${figure}`);
  const idle = (figure: string): number =>
    of(`${MANY_PARTITIONS}: all: ${figure}`) / of(`${MANY_PARTITIONS}: none: ${figure}`);
  return {
    'throughput with / without retention': retention('throughput'),
    'p99 of the acknowledgement with / without retention': retention('p99'),
    'longest answer compacting / idle': probed('longest'),
    'time lookup / latest offset, p50': of(`${TIME_LOOKUP}: lookup p50`) / of(`${TIME_LOOKUP}: latest offset p50`),
    'start with 5,000 partitions / none': idle('start'),
    'idle memory with 5,000 partitions / none': idle('idle resident'),
  };
}
