/** Looking at files from outside. */
import { appendFileSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig } from '../../src/storage/engine.js';
import { type InspectedItem, inspectLogFile } from '../../src/storage/local/inspect.js';
import { type PartitionReport, verifyDataDirectory } from '../../src/storage/local/verify.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { batchAt, CONFIG, EPOCH, failureOf, fill, LocalRig, partition, patch } from './support.js';

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

describe('verifying finds what a start finds, too', () => {
  test.each([
    ['first segment', [0], 0],
    ['last segment', [32], 32],
    ['whole of the log', [0, 8, 16, 24, 32], 0],
  ])('where the %s is missing', async (_name, bases, offset) => {
    const rig = await written();
    for (const base of bases) rmSync(rig.file(base));
    expect((await report(rig)).problems[0]).toMatchObject({ offset });
  });

  test('but not segments below the log start', async () => {
    const rig = await written();
    const engine = await rig.open();
    await (await engine.open(partition(), toEpoch(2), SMALL)).trim(toOffset(17));
    await engine.close();
    expect(await report(rig)).toMatchObject({ problemCount: 0, segmentCount: 3, tornTail: undefined });
  });

  test('where the journal of the metadata ends too early, at a batch or anywhere', async () => {
    const rig = new LocalRig();
    const engine = await rig.open();
    await engine.metadata.compareAndSet('a', '1', 0);
    await engine.metadata.compareAndSet('b', '2', 0);
    await engine.close();
    const path = join(rig.dataDir, 'metadata.log');
    const [first] = await collect(inspectLogFile(path));
    const size = first?.kind === 'batch' ? first.sizeInBytes : 0;
    for (const bytes of [size, size + 5, 0]) {
      truncateSync(path, bytes);
      const [metadata] = await collect(verifyDataDirectory(rig.dataDir));
      expect(metadata).toMatchObject({ name: 'metadata.log', problemCount: 1, tornTail: undefined });
      expect(await failureOf(rig.open())).toMatchObject({ reason: 'CORRUPT_LOG' });
    }
    rmSync(path);
    expect(await collect(verifyDataDirectory(rig.dataDir))).toMatchObject([{ problemCount: 1 }]);
  });

  test('and calls corrupt behind which a start gives up the search', async () => {
    const rig = new LocalRig();
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, CONFIG);
    await fill(log, 1);
    await engine.close();
    rmSync(join(rig.directory(), 'checkpoint'));
    // Headers of 2 MiB each, one after the other: too many to check them all.
    const header = batchAt(5).subarray(0, 61);
    header.writeInt32BE(2 << 20, 8);
    const headers = Buffer.alloc(4 << 20, header);
    headers.fill(0, 0, 100);
    appendFileSync(rig.file(), headers);
    expect(await report(rig)).toMatchObject({ problemCount: 1, tornTail: undefined });
    await (await rig.open()).open(partition(), toEpoch(2), CONFIG);
    expect(rig.messages('error')).toEqual(['a part of a segment is corrupt; it is kept, not served']);
  });
});

test('verifying takes the empty segment that a crash in the middle of an append leaves for no loss', async () => {
  const rig = await written();
  appendFileSync(rig.file(32), 'torn');
  writeFileSync(rig.file(50), '');
  expect(await report(rig)).toMatchObject({ problemCount: 0, tornTail: { bytes: 4 } });
  const log = await (await rig.open()).open(partition(), toEpoch(2), SMALL);
  expect(log.endOffset).toBe(40);
  expect(rig.messages('error')).toEqual([]);
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
