/** Looking at files from outside. */
import { appendFileSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { LogConfig } from '../../src/storage/engine.js';
import { type InspectedItem, inspectLogFile } from '../../src/storage/local/inspect.js';
import { type PartitionReport, verifyDataDirectory } from '../../src/storage/local/verify.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { CONFIG, EPOCH, failureOf, fill, LocalRig, partition, patch } from './support.js';

const SMALL: LogConfig = { ...CONFIG, segmentBytes: 900, indexIntervalBytes: 150 };

async function written(): Promise<LocalRig> {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, SMALL);
  await fill(log, 20, { count: 2, bytes: 60 });
  await engine.close();
  return rig;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function report(rig: LocalRig): Promise<PartitionReport> {
  return (await collect(verifyDataDirectory(rig.dataDir))).at(-1)!;
}

test('dumping a file names every batch, what is damaged and what is torn', async () => {
  const rig = await written();
  const batches = await collect(inspectLogFile(rig.file()));
  const [first] = batches;
  const size = first?.kind === 'batch' ? first.sizeInBytes : 0;
  expect(batches.map((item) => item.kind)).toEqual(['batch', 'batch', 'batch', 'batch']);
  expect(batches[1]).toMatchObject({ position: size, baseOffset: 2, nextOffset: 4, recordCount: 2, leaderEpoch: 1 });
  patch(rig.file(), (bytes) => bytes.fill(0, size + 80, size + 90));
  appendFileSync(rig.file(), 'torn');
  const items: InspectedItem[] = await collect(inspectLogFile(rig.file()));
  expect(items.map((item) => item.kind)).toEqual(['batch', 'damage', 'batch', 'batch', 'tail']);
  expect(items[1]).toMatchObject({ position: size, endPosition: size * 2, offset: 2, nextOffset: 4 });
  expect(items[4]).toMatchObject({ position: size * 4, bytes: 4, offset: 8 });
});

test('dumping what is no file says so', async () => {
  const missing = join(temporaryDirectory(), 'x.log');
  expect(await failureOf(collect(inspectLogFile(missing)))).toMatchObject({ reason: 'INVALID_REQUEST' });
});

test('verifying an intact directory counts everything and changes nothing', async () => {
  const rig = await written();
  const before = readdirSync(rig.dataDir, { recursive: true }).sort();
  const { segmentCount, batchCount, recordCount, problems, indexProblems, tornTail, sizeInBytes } = await report(rig);
  expect({ segmentCount, batchCount, recordCount }).toEqual({ segmentCount: 5, batchCount: 20, recordCount: 40 });
  expect({ problems, indexProblems, tornTail }).toEqual({ problems: [], indexProblems: [], tornTail: undefined });
  expect(sizeInBytes).toBe([0, 8, 16, 24, 32].reduce((sum, base) => sum + statSync(rig.file(base)).size, 0));
  expect(readdirSync(rig.dataDir, { recursive: true }).sort()).toEqual(before);
});

test('verifying finds a flip of any byte of any segment', async () => {
  const rig = await written();
  const intact = readFileSync(rig.file(8));
  for (let at = 0; at < intact.length; at += 3) {
    patch(rig.file(8), () => {
      const bytes = Buffer.from(intact);
      bytes[at] = bytes[at]! ^ 0x10;
      return bytes;
    });
    const { problems, tornTail } = await report(rig);
    expect(
      problems.map((problem) => problem.file),
      `byte ${at}`,
    ).toContain(rig.file(8));
    expect(tornTail).toBeUndefined();
  }
});

test('verifying tells a torn tail from a truncated, a missing and a corrupt segment', async () => {
  const rig = await written();
  const torn = rig.crash();
  appendFileSync(torn.file(32), Buffer.alloc(50));
  expect(await report(torn)).toMatchObject({ problems: [], tornTail: { file: torn.file(32), bytes: 50 } });
  const truncated = rig.crash();
  truncateSync(truncated.file(8), 300);
  expect((await report(truncated)).problems[0]).toMatchObject({ file: truncated.file(8) });
  const missing = rig.crash();
  rmSync(missing.file(8));
  expect((await report(missing)).problems).toMatchObject([{ file: missing.file(16), offset: 8 }]);
  const last = rig.crash();
  patch(last.file(32), (bytes) => bytes.fill(1, bytes.length - 20));
  expect((await report(last)).problems).toMatchObject([{ file: last.file(32), offset: 38 }]);
});

test('verifying names indexes that do not fit, apart from corruption', async () => {
  const rig = await written();
  patch(rig.file(8, '.index'), (bytes) => bytes.fill(9, 0, 2));
  rmSync(rig.file(16, '.timeindex'));
  const { problems, indexProblems } = await report(rig);
  expect(problems).toEqual([]);
  expect(indexProblems.map((problem) => problem.file)).toEqual([rig.file(8, '.index'), rig.file(16, '.timeindex')]);
});

test('verifying works beside a running engine', async () => {
  const rig = await written();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, SMALL);
  const verifying = report(rig);
  await fill(log, 50, { bytes: 100 });
  expect(await verifying).toMatchObject({ problems: [], indexProblems: [] });
});

test('a directory that is none of ours is refused', async () => {
  expect(await failureOf(collect(verifyDataDirectory(temporaryDirectory())))).toMatchObject({
    reason: 'DATA_DIR_UNUSABLE',
  });
});
