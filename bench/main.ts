/**
 * `npm run bench`: what this machine reaches through Tidelog, beside what it reaches without, in one run.
 * `npm run bench -- --rounds 5 --only replay` runs some scenarios, more often. Scenarios that take minutes and gigabytes
 * run only when `--only` names them, or with `--long`.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { EXACTLY_ONCE_SCENARIOS, exactlyOnceRatios } from './exactly-once.js';
import { GROUP_SCENARIOS, groupRatios } from './groups-of-consumers.js';
import { LIFE_SCENARIOS, lifeRatios } from './life-of-a-log.js';
import { bareGrpcStream, bareWritev } from './scenarios/baselines.js';
import { recovery, start } from './scenarios/lifecycle.js';
import { produce, replay } from './scenarios/produce.js';
import { environment } from './support/environment.js';
import { mb, ms, records, type Scenario } from './support/scenario.js';
import { type Summary, summarize } from './support/stats.js';

const MIB = 1024 * 1024;
const BATCH_BYTES = 64 * 1024;
const WRITE_BYTES = 256 * MIB;

const ONE_KIB = { records: 400_000, recordBytes: 1024, batchBytes: 256 * 1024 } as const;
const HUNDRED = { records: 4_000_000, recordBytes: 100, batchBytes: 256 * 1024 } as const;

let emptyStartMs = 500;

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'bare writev 64 KiB',
    run: async () => ({ throughput: mb(await bareWritev(WRITE_BYTES, BATCH_BYTES, false)) }),
  },
  {
    name: 'bare gRPC stream 64 KiB',
    run: async () => ({ throughput: mb(await bareGrpcStream(WRITE_BYTES, BATCH_BYTES)) }),
  },
  {
    name: 'append path: 1 KiB in 64 KiB batches, written',
    run: async () => {
      const result = await produce({ ...ONE_KIB, batchBytes: BATCH_BYTES, acks: 'written', call: 'sendMany' });
      return { throughput: mb(result.megabytesPerSecond), brokerCpu: { value: result.brokerCpuSeconds, unit: 's' } };
    },
  },
  ...(['written', 'durable'] as const).flatMap((acks): Scenario[] => [
    {
      name: `sendMany 100 B, ${acks}`,
      run: async () => {
        const result = await produce({ ...HUNDRED, acks, call: 'sendMany' });
        return { rate: records(result.recordsPerSecond), throughput: mb(result.megabytesPerSecond) };
      },
    },
    {
      name: `sendMany 1 KiB, ${acks}`,
      run: async () => {
        const result = await produce({ ...ONE_KIB, acks, call: 'sendMany' });
        return { rate: records(result.recordsPerSecond), throughput: mb(result.megabytesPerSecond) };
      },
    },
  ]),
  {
    name: 'send() with a promise per record, 100 B, written',
    run: async () => {
      const result = await produce({ ...HUNDRED, records: 1_000_000, acks: 'written', call: 'send' });
      return { rate: records(result.recordsPerSecond) };
    },
  },
  {
    name: 'replay 1 KiB as batches',
    run: async () => {
      const result = await replay({ ...ONE_KIB, acks: 'written', call: 'sendMany' });
      return { rate: records(result.recordsPerSecond), throughput: mb(result.megabytesPerSecond) };
    },
  },
  {
    name: 'replay 100 B as batches',
    run: async () => {
      const result = await replay({ ...HUNDRED, acks: 'written', call: 'sendMany' });
      return { rate: records(result.recordsPerSecond), throughput: mb(result.megabytesPerSecond) };
    },
  },
  {
    name: 'start on an empty directory',
    run: async () => {
      const result = await start();
      emptyStartMs = result.startMs;
      return { serving: ms(result.startMs), idle: { value: result.idleMegabytes, unit: 'MB resident' } };
    },
  },
  {
    name: 'recovery of 1 GB',
    run: async () => {
      const result = await recovery(1000, emptyStartMs);
      return {
        scan: mb(result.scanMegabytesPerSecond),
        uncleanStart: ms(result.uncleanStartMs),
        cleanStart: ms(result.cleanStartMs),
      };
    },
  },
  ...LIFE_SCENARIOS,
  ...GROUP_SCENARIOS,
  ...EXACTLY_ONCE_SCENARIOS,
];

/** Ratios that the figures stand for; each compares two figures of the same run. */
function ratios(medians: ReadonlyMap<string, number>): Record<string, number> {
  const of = (key: string): number => medians.get(key) ?? Number.NaN;
  const bare = Math.min(of('bare writev 64 KiB: throughput'), of('bare gRPC stream 64 KiB: throughput'));
  const durable = (size: string): number =>
    of(`sendMany ${size}, durable: throughput`) / of(`sendMany ${size}, written: throughput`);
  const replayed = (size: string): number =>
    of(`replay ${size} as batches: throughput`) / of(`sendMany ${size}, written: throughput`);
  return {
    'append path / lower of the bare baselines': of('append path: 1 KiB in 64 KiB batches, written: throughput') / bare,
    'durable / written, 100 B': durable('100 B'),
    'durable / written, 1 KiB': durable('1 KiB'),
    'replay / produce, 100 B': replayed('100 B'),
    'replay / produce, 1 KiB': replayed('1 KiB'),
    ...lifeRatios(of),
    ...groupRatios(of),
    ...exactlyOnceRatios(of),
  };
}

function namesOf(scenarios: readonly Scenario[]): string {
  return scenarios.map(({ name }) => `  ${name}`).join('\n');
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function printTable(rows: ReadonlyMap<string, { unit: string; summary: Summary }>): void {
  const width = Math.max(...[...rows.keys()].map((key) => key.length));
  print(`${'scenario'.padEnd(width)}  ${'median'.padStart(9)} ${'min'.padStart(9)} ${'max'.padStart(9)}  unit`);
  for (const [key, { unit, summary }] of rows) {
    const digits = summary.median < 10 ? 2 : 0;
    const cells = [summary.median, summary.min, summary.max].map((value) => value.toFixed(digits).padStart(9));
    print(`${key.padEnd(width)}  ${cells.join(' ')}  ${unit}`);
  }
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      only: { type: 'string', multiple: true },
      long: { type: 'boolean', default: false },
    },
  });
  const rounds = Number(options.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds takes a whole number from 1');
  const wanted = SCENARIOS.filter(
    ({ name, long }) => options.only?.some((part) => name.includes(part)) ?? (options.long || long !== true),
  );
  if (wanted.length === 0) throw new Error(`--only names no scenario; there are:\n${namesOf(SCENARIOS)}`);
  const samples = new Map<string, { unit: string; values: number[] }>();
  // Round by round, not scenario by scenario: when the machine's speed drifts, it drifts for all of them.
  for (let round = 1; round <= rounds; round++) {
    for (const scenario of wanted) {
      process.stderr.write(`round ${round}/${rounds}: ${scenario.name}\n`);
      for (const [figure, { value, unit }] of Object.entries(await scenario.run())) {
        const key = `${scenario.name}: ${figure}`;
        const sample = samples.get(key) ?? { unit, values: [] };
        sample.values.push(value);
        samples.set(key, sample);
      }
    }
  }
  const rows = new Map([...samples].map(([key, { unit, values }]) => [key, { unit, summary: summarize(values) }]));
  printTable(rows);
  const medians = new Map([...rows].map(([key, { summary }]) => [key, summary.median]));
  const compared = Object.entries(ratios(medians)).filter(([, value]) => !Number.isNaN(value));
  print('');
  const leftOut = SCENARIOS.filter((scenario) => scenario.long && !wanted.includes(scenario));
  if (options.only === undefined && leftOut.length > 0) {
    print(`Left out, because they take minutes (--long runs them):\n${namesOf(leftOut)}\n`);
  }
  for (const [name, value] of compared) print(`${value.toFixed(2).padStart(6)}  ${name}`);
  save({
    environment: environment(),
    rounds,
    samples: Object.fromEntries(samples),
    ratios: Object.fromEntries(compared),
  });
}

function save(result: object): void {
  const dir = fileURLToPath(new URL('results/', import.meta.url));
  mkdirSync(dir, { recursive: true });
  const file = `${dir}${new Date().toISOString().replaceAll(':', '-')}.json`;
  writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
  print(`\nSaved to ${file}`);
}

await main();
