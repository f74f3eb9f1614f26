/** What a start makes of compacted segments that are not as the last process meant to leave them (invariants 4, 13, 15). */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type Epoch, toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig, PartitionLog } from '../../src/storage/engine.js';
import { decodeCheckpoint } from '../../src/storage/local/checkpoint.js';
import { Removals } from '../../src/storage/local/removals.js';
import { FaultyFileSystem } from '../support/faulty-file-system.js';
import { ManualClock } from '../support/manual-clock.js';
import { recordingLogger } from '../support/recording-logger.js';
import { consume, fillKeyed, optionsFor, problemsOf, SMALL } from './keyed.js';
import { BASE_TIME, batchAt, END, EPOCH, failureOf, LocalRig, partition, patch, reasonOf } from './support.js';

async function openLog(rig: LocalRig, epoch: Epoch = EPOCH, config: LogConfig = SMALL): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), epoch, config);
}

describe('appends behind a log that was compacted to its end', () => {
  test.each([true, false])('survive a kill (stopped in order before: %s) (invariant 1)', async (inOrder) => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, SMALL);
    await fillKeyed(log, 120);
    await log.roll();
    await log.compact(optionsFor(log));
    expect(log.cleanedOffset).toBe(log.endOffset);
    if (inOrder) await engine.close();

    const second = rig.crash();
    const again = await openLog(second, toEpoch(2));
    await fillKeyed(again, 3);
    const before = await consume(again);

    const third = second.crash();
    const last = await openLog(third, toEpoch(3));
    expect(await consume(last)).toEqual(before);
    expect([...third.messages('warn'), ...third.messages('error')]).toEqual([]);
    expect(await problemsOf(third.dataDir)).toEqual([]);
  });
});

describe('a compacted segment whose index had to be built anew', () => {
  test.each(['.index', '.timeindex'])(
    '(%s) is whole after a kill, whatever wrote the checkpoint since (invariant 19)',
    async (suffix) => {
      const rig = new LocalRig({ tailCacheBytes: 0 });
      const engine = await rig.open();
      const log = await engine.open(partition(), EPOCH, SMALL);
      await fillKeyed(log, 120);
      await log.compact(optionsFor(log));
      const before = await consume(log);
      const lastCleaned = log.segments().findLast(({ nextOffset }) => nextOffset <= log.cleanedOffset)!.baseOffset;
      await engine.close();

      const second = rig.crash();
      patch(second.file(lastCleaned, suffix), (bytes) => bytes.fill(7));
      const again = await openLog(second, toEpoch(2));
      expect(await consume(again)).toEqual(before);
      await again.batchForTime(0);
      await again.trim(toOffset(1));

      const third = second.crash();
      const restarted = await openLog(third, toEpoch(3));
      expect((await consume(restarted, 1)).table).toEqual(before.table);
      expect(third.messages('error')).toEqual([]);
    },
  );
});

test('compacted segments without any record keep their age over a restart, so that retention still reaches them', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ tailCacheBytes: 0, clock });
  const log = await openLog(rig);
  await fillKeyed(log, 120);
  const ages = log.segments().map(({ modifiedMs }) => modifiedMs);
  clock.advance(5_000);
  await log.compact(optionsFor(log));
  expect(log.segments()[0]!.maxTimestamp).toBe(-1);
  const before = log.segments().map(({ createdMs, modifiedMs }) => ({ createdMs, modifiedMs }));
  expect(before[0]).toEqual({ createdMs: ages[0], modifiedMs: ages[0] });

  const again = await openLog(rig.crash({ tailCacheBytes: 0, clock }), toEpoch(2));
  const after = again.segments().map(({ createdMs, modifiedMs }) => ({ createdMs, modifiedMs }));
  expect(after.slice(0, -1)).toEqual(before.slice(0, -1));
});

test('a log that misses a segment is not joined across the gap (invariant 14)', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, SMALL);
  await fillKeyed(log, 120);
  const lost = log.segments()[2]!;
  await engine.close();
  const crashed = rig.crash();
  rmSync(crashed.file(lost.baseOffset));
  const again = await openLog(crashed, toEpoch(2));
  const failure = await failureOf(again.compact(optionsFor(again)));
  expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { offset: String(lost.baseOffset) } });
  expect(await reasonOf(again.read(lost.baseOffset, END, 1))).toBe('CORRUPT_LOG');
});

test('what a compaction that broke off has left is removed by the next one', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 60);
  writeFileSync(`${rig.file(7)}.cleaned`, 'left over');
  await log.compact(optionsFor(log));
  expect(readdirSync(rig.directory()).filter((name) => name.endsWith('.cleaned'))).toEqual([]);
});

test('a closed segment that could not be synced is vouched for by no checkpoint (invariants 2, 3)', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 60);
  const unsynced = log.segments().length - 1;
  await log.append([batchAt(log.endOffset, { bytes: 2000 })], log.endOffset);
  rig.fs.rule = (call) => (call.name === 'fdatasync' && call.path.endsWith('.log') ? 'EIO' : undefined);
  await log.roll();
  await expect.poll(() => log.failure).toBeDefined();
  rig.fs.rule = () => undefined;
  await log.compact(optionsFor(log));
  await log.trim(toOffset(1));
  const checkpoint = readCheckpointOf(rig);
  expect(log.segments().length).toBeGreaterThan(unsynced);
  expect(checkpoint).not.toEqual([]);
  expect(Math.max(...checkpoint.map(({ nextOffset }) => nextOffset))).toBeLessThanOrEqual(log.durableOffset);
});

test('many small segments are joined, and trimmed, some at a time', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  rig.fs.skipsDisk = true;
  const log = await openLog(rig, EPOCH, { ...SMALL, segmentBytes: 1 << 20 });
  for (let i = 0; i < 200; i++) {
    await fillKeyed(log, 1);
    await log.roll();
  }
  const longest = await longestRunOfRenames(rig, () => log.compact(optionsFor(log, { upTo: toOffset(150) })));
  expect(longest).toBeGreaterThan(50);
  expect(longest).toBeLessThan(220);
  const rest = log.segments().length;
  expect(rest).toBeGreaterThan(80);
  expect(await longestRunOfRenames(rig, () => log.trim(log.endOffset))).toBeLessThan(220);
  expect(log.segments()).toHaveLength(1);
});

/** Renames that the event loop had to wait for in one go. */
async function longestRunOfRenames(rig: LocalRig, work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let run = 0;
  let running = true;
  rig.fs.rule = (call) => {
    if (call.name === 'renameSync') longest = Math.max(longest, ++run);
    return undefined;
  };
  const turn = (): void => {
    run = 0;
    if (running) setImmediate(turn);
  };
  turn();
  await work();
  running = false;
  return longest;
}

function readCheckpointOf(rig: LocalRig): readonly { readonly baseOffset: number; readonly nextOffset: number }[] {
  const checkpoint = decodeCheckpoint(readFileSync(join(rig.directory(), 'checkpoint')));
  if (typeof checkpoint === 'string') throw new Error(checkpoint);
  return checkpoint.segments;
}

test('files that are kept for longer than a timer lasts do not keep the event loop busy', async () => {
  const clock = new ManualClock(BASE_TIME);
  const removals = new Removals(new FaultyFileSystem(), clock, recordingLogger());
  removals.add(['/nowhere'], Number.MAX_SAFE_INTEGER);
  expect(clock.nextTimerMs).toBe(2 ** 31 - 1);
  clock.advance(2 ** 31 - 1);
  await expect.poll(() => clock.nextTimerMs).toBe(2 ** 31 - 1);
  await removals.close();
});

test('the newest timestamp can be asked for while segments are replaced', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  rig.fs.skipsDisk = true;
  const log = await openLog(rig);
  let foundCount = 0;
  for (let round = 0; round < 10; round++) {
    await fillKeyed(log, 60);
    await log.trim(toOffset(log.startOffset + 7));
    const to = toOffset(log.segments()[log.segments().length - 3]!.baseOffset + 3);
    let running = true;
    const compaction = log.compact(optionsFor(log, { nowMs: BASE_TIME + round * 600 })).finally(() => {
      running = false;
    });
    while (running) {
      const found = await log.batchForMaxTimestamp(to);
      // Nothing of the range may be left that has a timestamp.
      if (found !== undefined) {
        foundCount++;
        expect(found).toBeLessThan(to);
      }
      await nextTurn();
    }
    await compaction;
  }
  expect(foundCount).toBeGreaterThan(0);
});

test('a disk that refuses the last renames of a replacement, again and again, costs no record (invariant 1)', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 120);
  const { table } = await consume(log);
  rig.fs.rule = (call) => (call.name === 'renameSync' && call.path.endsWith('.swap') ? 'EIO' : undefined);
  for (let i = 0; i < 3; i++) {
    expect(await reasonOf(log.compact(optionsFor(log)))).toBe('STORAGE_ERROR');
    expect((await consume(log)).table).toEqual(table);
  }
  expect((await consume(await openLog(rig.crash(), toEpoch(2)))).table).toEqual(table);
  rig.fs.rule = () => undefined;
  await log.compact(optionsFor(log));
  expect((await consume(log)).table).toEqual(table);
});

test('a replaced segment that cannot be renamed is not taken for one of the log by the next start', async () => {
  // Segments of which two fit into one, so that the second gives its name to none.
  const config = { ...SMALL, segmentBytes: 3000 };
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 120);
  log.configure(config);
  const second = rig.file(log.segments()[1]!.baseOffset);
  for (const unlinkFails of [true, false]) {
    rig.fs.rule = ({ name, path }) => {
      if (path !== second) return undefined;
      return name === 'renameSync' || (unlinkFails && name === 'unlink') ? 'EIO' : undefined;
    };
    const failure = await log.compact(optionsFor(log)).catch((error: unknown) => error);
    if (unlinkFails) expect(failure).toMatchObject({ reason: 'STORAGE_ERROR', outcome: 'none' });
    expect(existsSync(second)).toBe(unlinkFails);
    const seen = await consume(log);
    const crashed = rig.crash({ tailCacheBytes: 0 });
    expect(await consume(await openLog(crashed, toEpoch(2)))).toEqual(seen);
    expect(crashed.messages('error')).toEqual([]);
    await fillKeyed(log, 60);
  }
});

test('logs that are compacted at the same time take turns', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const engine = await rig.open();
  const logs = await Promise.all([1, 2].map((n) => engine.open(partition(n), EPOCH, SMALL)));
  for (const log of logs) await fillKeyed(log, 120);
  const before = rig.fs.calls.length;
  const results = await Promise.all(logs.map((log) => log.compact(optionsFor(log))));
  expect(results.map(({ passCount }) => passCount)).toEqual([1, 1]);
  const written = rig.fs.calls
    .slice(before)
    .filter(({ name, path }) => name === 'openSync' && path.endsWith('.cleaned'));
  const directories = written.map(({ path }) => dirname(path));
  expect(directories.filter((directory, i) => directory !== directories[i - 1])).toHaveLength(2);
});
