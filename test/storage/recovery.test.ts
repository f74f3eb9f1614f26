/** Starts after an end that was none (TESTING invariants 4, 13, 14, 15, 19). */
import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { splitBatches } from '../../src/batch/validate.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { longestTurnMs } from '../support/loop-delay.js';
import { DiskRig } from './power-cuts.js';
import {
  basesOf,
  batchAt,
  CONFIG,
  END,
  EPOCH,
  failureOf,
  fill,
  LocalRig,
  partition,
  patch,
  readAll,
} from './support.js';

const NO_CACHE = { tailCacheBytes: 0 };

async function openLog(rig: LocalRig, config = CONFIG): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), toEpoch(2), config);
}

/** What a killed process leaves that had appended `batchCount` batches, made the first `durable` durable. */
async function killedAfter(
  batchCount: number,
  durable = 0,
  config = CONFIG,
): Promise<{ rig: LocalRig; bytes: Buffer[] }> {
  const first = new LocalRig(NO_CACHE);
  const engine = await first.open();
  const log = await engine.open(partition(), EPOCH, config);
  const bytes = await fill(log, durable, { count: 2, bytes: 30 });
  const crashedAfterDurable = durable > 0;
  if (crashedAfterDurable) await log.close();
  const again = crashedAfterDurable ? await engine.open(partition(), EPOCH, config) : log;
  bytes.push(...(await fill(again, batchCount - durable, { count: 2, bytes: 30 })));
  if (crashedAfterDurable) writeFileSync(`${first.dataDir}/recovery-point-offset-checkpoint`, pointsFile(durable * 2));
  return { rig: first.crash(), bytes };
}

function pointsFile(offset: number): string {
  return `0\n1\n${partition().topicId} 0 ${offset}\n`;
}

describe('a torn tail', () => {
  test('is cut off at whatever byte of the last batch the write ended (invariant 14)', async () => {
    const { rig, bytes } = await killedAfter(4);
    const last = bytes[3]!.length;
    const kept = Buffer.concat(bytes.slice(0, 3));
    for (let cut = 1; cut <= last; cut++) {
      const torn = rig.crash();
      truncateSync(torn.file(), kept.length + last - cut);
      const log = await openLog(torn);
      expect(log.endOffset).toBe(6);
      expect(readFileSync(torn.file())).toEqual(kept);
      expect(await readAll(log)).toEqual(kept);
      expect(torn.messages('warn').length).toBe(cut === last ? 0 : 1);
      expect(torn.messages('error')).toEqual([]);
    }
  });

  test.each([
    ['zeros', 0],
    ['stale bytes', 0xa5],
  ])('of %s is cut off (invariant 14)', async (_name, filler) => {
    const { rig, bytes } = await killedAfter(4);
    appendFileSync(rig.file(), Buffer.alloc(5000, filler));
    const log = await openLog(rig);
    expect(log.endOffset).toBe(8);
    expect(readFileSync(rig.file())).toEqual(Buffer.concat(bytes));
    expect(rig.messages('warn')).toEqual(['cutting off a torn tail']);
    await fill(log, 1);
    expect(basesOf(await log.read(toOffset(8), END, 1))).toEqual([8]);
  });

  test('that is a whole batch with some pages missing is cut off (invariant 14)', async () => {
    const { rig, bytes } = await killedAfter(4);
    const at = Buffer.concat(bytes.slice(0, 3)).length;
    patch(rig.file(), (file) => file.fill(0, at + 70, at + 80));
    expect((await openLog(rig)).endOffset).toBe(6);
    expect(rig.messages('error')).toEqual([]);
  });

  test('takes later segments without an intact batch with it (invariant 14)', async () => {
    const { rig } = await killedAfter(4);
    truncateSync(rig.file(), readFileSync(rig.file()).length - 1);
    writeFileSync(rig.file(8), '');
    writeFileSync(rig.file(9), Buffer.alloc(100));
    const log = await openLog(rig);
    expect(log.endOffset).toBe(6);
    expect([existsSync(rig.file(8)), existsSync(rig.file(9))]).toEqual([false, false]);
  });
});

describe('corruption', () => {
  test('a flip of any byte of a middle batch is found when it is read, and never served (invariant 13)', async () => {
    const first = new LocalRig(NO_CACHE);
    const engine = await first.open();
    const log = await engine.open(partition(), EPOCH, CONFIG);
    const bytes = await fill(log, 5, { count: 2, bytes: 30 });
    await engine.close();
    const at = bytes[0]!.length * 2;
    const rig = first.crash();
    const start = await rig.open();
    const path = rig.file();
    const intact = readFileSync(path);
    for (let i = 0; i < bytes[2]!.length; i++) {
      const flipped = Buffer.from(intact);
      flipped[at + i] = flipped[at + i]! ^ (1 << (i % 8));
      writeFileSync(path, flipped);
      const broken = await start.open(partition(), EPOCH, CONFIG);
      const failure = await failureOf(broken.read(toOffset(4), END, 1000));
      expect(failure.reason, `byte ${i}`).toBe('CORRUPT_LOG');
      expect(failure.metadata).toMatchObject({ offset: '4', file: path, position: String(at), next_valid_offset: '6' });
      expect(basesOf(await broken.read(toOffset(0), END, 1e6)), `byte ${i}`).toEqual([0, 2]);
      expect(basesOf(await broken.read(toOffset(7), END, 1e6)), `byte ${i}`).toEqual([6, 8]);
      await broken.close();
    }
  });

  test('before an intact batch is never cut off, and appends go on behind the last one (invariants 13, 14)', async () => {
    const { rig, bytes } = await killedAfter(5);
    const size = bytes[0]!.length;
    patch(rig.file(), (file) => file.fill(0, size, size * 3 - 5));
    const log = await openLog(rig);
    expect([log.startOffset, log.endOffset]).toEqual([0, 10]);
    expect(readFileSync(rig.file())).toHaveLength(size * 5);
    const report = rig.logger.lines.find((line) => line.level === 'error');
    expect(report?.fields).toMatchObject({ file: rig.file(), position: size, offset: 2, nextOffset: 6 });
    for (const offset of [2, 3, 4, 5]) {
      const failure = await failureOf(log.read(toOffset(offset), END, 1));
      expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { next_valid_offset: '6' } });
    }
    expect(basesOf(await log.read(toOffset(0), END, 1e6))).toEqual([0]);
    await fill(log, 1);
    expect(basesOf(await log.read(toOffset(6), END, 1e6))).toEqual([6, 8, 10]);
  });

  test('of the last batch is no torn tail when that was durable, and its offsets are not given again (invariants 4, 14)', async () => {
    const { rig, bytes } = await killedAfter(4, 4);
    const size = bytes[0]!.length;
    rmSync(`${rig.directory()}/checkpoint`);
    patch(rig.file(), (file) => file.fill(0, size * 3 + 70));
    const log = await openLog(rig);
    expect(log.endOffset).toBe(8);
    expect(readFileSync(rig.file())).toHaveLength(size * 4);
    expect(await failureOf(log.read(toOffset(7), END, 1))).toMatchObject({ reason: 'CORRUPT_LOG' });
    await fill(log, 1);
    expect(basesOf(await log.read(toOffset(8), END, 1e6))).toEqual([8]);
    await log.close();
    const again = await openLog(rig.crash());
    expect(again.endOffset).toBe(9);
    expect(await failureOf(again.read(toOffset(6), END, 1))).toMatchObject({ metadata: { next_valid_offset: '8' } });
    expect(basesOf(await again.read(toOffset(8), END, 1))).toEqual([8]);
  });

  test('a closed segment that was truncated is reported, and the rest is served (invariant 14)', async () => {
    const config = { ...CONFIG, segmentBytes: 500 };
    const first = new LocalRig(NO_CACHE);
    const engine = await first.open();
    await fill(await engine.open(partition(), EPOCH, config), 9, { count: 2, bytes: 30 });
    await engine.close();
    const rig = first.crash();
    const size = readFileSync(rig.file()).length;
    truncateSync(rig.file(), size - 10);
    const log = await openLog(rig, config);
    expect(log.endOffset).toBe(18);
    const report = rig.logger.lines.find((line) => line.message === 'a segment is shorter than it was');
    expect(report?.fields).toMatchObject({ file: rig.file(), bytes: size - 10, expectedBytes: size });
    const failure = await failureOf(log.read(toOffset(4), END, 1));
    expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { offset: '4', next_valid_offset: '6' } });
    expect(basesOf(await log.read(toOffset(6), END, 1))).toEqual([6]);
  });

  test('offsets of segments that are missing at the end are not given again (invariant 4)', async () => {
    const config = { ...CONFIG, segmentBytes: 500 };
    const first = new LocalRig(NO_CACHE);
    const engine = await first.open();
    await fill(await engine.open(partition(), EPOCH, config), 9, { count: 2, bytes: 30 });
    await engine.close();
    for (const witness of ['checkpoint', 'recovery point']) {
      const rig = first.crash();
      if (witness === 'recovery point') rmSync(`${rig.directory()}/checkpoint`);
      else rmSync(`${rig.dataDir}/recovery-point-offset-checkpoint`);
      rmSync(rig.file(12));
      const log = await openLog(rig, config);
      expect(log.endOffset, witness).toBe(18);
      expect(rig.messages('error'), witness).not.toEqual([]);
      await fill(log, 1);
      expect(basesOf(await log.read(toOffset(18), END, 1)), witness).toEqual([18]);
      expect(await failureOf(log.read(toOffset(13), END, 1)), witness).toMatchObject({ reason: 'CORRUPT_LOG' });
    }
  });

  test('a segment that is missing is a gap, not an empty log (invariants 4, 14)', async () => {
    const config = { ...CONFIG, segmentBytes: 500 };
    const first = new LocalRig(NO_CACHE);
    const engine = await first.open();
    await fill(await engine.open(partition(), EPOCH, config), 9, { count: 2, bytes: 30 });
    await engine.close();
    const rig = first.crash();
    rmSync(rig.file(6));
    const log = await openLog(rig, config);
    expect([log.startOffset, log.endOffset]).toEqual([0, 18]);
    expect(rig.messages('error')).toContain('a segment is missing');
    expect(await failureOf(log.read(toOffset(7), END, 1))).toMatchObject({
      reason: 'CORRUPT_LOG',
      metadata: { next_valid_offset: '12' },
    });
    expect(basesOf(await log.read(toOffset(12), END, 1))).toEqual([12]);
  });
});

describe('recovery', () => {
  test('makes what it has found durable before that counts as such (invariant 2)', async () => {
    const rig = new DiskRig();
    const killed = await (await rig.open()).open(partition(), EPOCH, CONFIG);
    const batches = await fill(killed, 3, { count: 2, bytes: 30 });
    // That process ends here and the machine does not: nothing was synced, and all of it is there.
    const found = await (await rig.open()).open(partition(), toEpoch(2), CONFIG);
    expect(found.durableOffset).toBe(6);
    const afterCut = await (await rig.cut().open()).open(partition(), toEpoch(3), CONFIG);
    expect(await readAll(afterCut)).toEqual(Buffer.concat(batches));
  });

  test('run twice equals recovery run once, also when it is cut short (invariant 15)', async () => {
    const config = { ...CONFIG, segmentBytes: 500 };
    const { rig, bytes } = await killedAfter(9, 0, config);
    appendFileSync(rig.file(12), Buffer.alloc(100, 7));
    patch(rig.file(6), (file) => file.fill(9, 80, 90));
    const once = rig.crash();
    const onceLog = await openLog(once, config);
    const answers = await answersOf(onceLog);
    for (let stopAt = 1; ; stopAt++) {
      const twice = rig.crash();
      twice.fs.rule = (call) => (call.number >= stopAt ? 'EIO' : undefined);
      const finished = await openLog(twice, config).then(
        () => true,
        () => false,
      );
      twice.fs.rule = () => undefined;
      expect(await answersOf(await openLog(twice.crash(), config))).toEqual(answers);
      if (finished) break;
    }
    expect(answers.end).toBe(18);
    expect(answers.served).toEqual([0, 2, 4, 8, 10, 12, 14, 16]);
    expect(bytes).toHaveLength(9);
  });

  test('a directory that was only begun is completed (invariant 15)', async () => {
    const rig = new LocalRig();
    const { mkdirSync } = await import('node:fs');
    mkdirSync(rig.directory(), { recursive: true });
    writeFileSync(`${rig.directory()}/checkpoint.tmp`, 'half');
    writeFileSync(rig.file(5, '.index'), 'left over');
    writeFileSync(rig.file(), '');
    const log = await openLog(rig);
    expect([log.startOffset, log.endOffset]).toEqual([0, 0]);
    expect([existsSync(`${rig.directory()}/checkpoint.tmp`), existsSync(rig.file(5, '.index'))]).toEqual([
      false,
      false,
    ]);
    await fill(log, 1);
  });

  test('without a checkpoint scans everything and finds the same (invariants 15, 19)', async () => {
    const config = { ...CONFIG, segmentBytes: 500 };
    const first = new LocalRig(NO_CACHE);
    const engine = await first.open();
    const bytes = await fill(await engine.open(partition(), EPOCH, config), 9, { count: 2, bytes: 30 });
    await engine.close();
    for (const damage of ['removed', 'cut', 'garbage']) {
      const rig = first.crash();
      const path = `${rig.directory()}/checkpoint`;
      if (damage === 'removed') rmSync(path);
      else if (damage === 'cut') truncateSync(path, 20);
      else writeFileSync(path, 'garbage\n00000000\n');
      const log = await openLog(rig, config);
      expect(await readAll(log)).toEqual(Buffer.concat(bytes));
      await log.close();
      expect(await readAll(await openLog(rig.crash(), config))).toEqual(Buffer.concat(bytes));
    }
  });

  test('without a checkpoint knows where a log begins that was trimmed within a segment (invariants 4, 13)', async () => {
    const first = new LocalRig(NO_CACHE);
    const engine = await first.open();
    const log = await engine.open(partition(), EPOCH, CONFIG);
    const bytes = await fill(log, 9);
    await log.trim(toOffset(4));
    await engine.close();
    const rig = first.crash();
    writeFileSync(`${rig.directory()}/checkpoint`, 'garbage\n00000000\n');
    const again = await openLog(rig);
    expect([again.startOffset, again.endOffset]).toEqual([4, 9]);
    expect(await readAll(again)).toEqual(Buffer.concat(bytes.slice(4)));
  });

  test('of a long log leaves the event loop free (invariant 22)', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig, { ...CONFIG, segmentBytes: 1 << 30 });
    await fill(log, 300, { count: 4, bytes: 50_000 });
    const killed = rig.crash();
    const longest = await longestTurnMs(async () => {
      expect((await openLog(killed, { ...CONFIG, segmentBytes: 1 << 30 })).endOffset).toBe(1200);
    });
    expect(longest).toBeLessThan(100);
  });

  test('offsets that were trimmed stay trimmed (invariant 16)', async () => {
    const config = { ...CONFIG, segmentBytes: 500 };
    const rig = new LocalRig(NO_CACHE);
    const log = await openLog(rig, config);
    await fill(log, 9, { count: 2, bytes: 30 });
    await log.trim(toOffset(7));
    expect(existsSync(rig.file())).toBe(false);
    const again = await openLog(rig.crash(), config);
    expect([again.startOffset, again.endOffset]).toEqual([7, 18]);
  });
});

interface Answers {
  readonly end: number;
  readonly served: readonly number[];
  readonly failures: readonly string[];
}

/** Every answer that a log gives to reading each offset. */
async function answersOf(log: PartitionLog): Promise<Answers> {
  const served = new Set<number>();
  const failures: string[] = [];
  for (let offset = 0; offset < log.endOffset; offset++) {
    try {
      const slice = await log.read(toOffset(offset), END, 1);
      for (const base of basesOf({ chunks: slice.chunks.flatMap(splitBatches) })) served.add(base);
    } catch (error) {
      failures.push(`${offset}: ${(await failureOf(Promise.reject(error))).metadata.next_valid_offset}`);
    }
  }
  return { end: log.endOffset, served: [...served], failures };
}

test('batches of a size that no batch has are refused before anything is written', async () => {
  const log = await openLog(new LocalRig());
  await fill(log, 1);
  const huge = batchAt(1, { bytes: 65 * 1024 * 1024 });
  expect(await failureOf(log.append([huge], toOffset(1)))).toMatchObject({ reason: 'MESSAGE_TOO_LARGE' });
  await fill(log, 1);
});
