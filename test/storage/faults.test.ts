/** A disk that refuses, a process that stops in the middle (TESTING invariants 1, 2, 3, 20). */
import { readFileSync, statSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig } from '../../src/storage/engine.js';
import { HeldSyncs } from '../support/held-syncs.js';
import { Programme } from '../support/programme.js';
import { until } from '../support/until.js';
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
  onLogs,
  partition,
  readAll,
  reasonOf,
} from './support.js';

const SMALL: LogConfig = { ...CONFIG, segmentBytes: 500 };

describe('a full disk', () => {
  test.each(['ENOSPC', 'EDQUOT', 'EFBIG'])(
    '(%s) fails the append whole, and the log works again once there is room (invariants 5, 20)',
    async (errno) => {
      const rig = new LocalRig({ tailCacheBytes: 0 });
      const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
      const before = await fill(log, 2);
      rig.fs.rule = onLogs('writevSync', errno);
      const failure = await failureOf(log.append([batchAt(2)], toOffset(2)));
      expect(failure).toMatchObject({ reason: 'STORAGE_FULL', outcome: 'none', retryable: true });
      expect(log.failure).toBeUndefined();
      expect(log.endOffset).toBe(2);
      expect(await readAll(log)).toEqual(Buffer.concat(before));
      rig.fs.rule = () => undefined;
      await fill(log, 1);
      await log.flush(toOffset(3));
      expect(basesOf({ chunks: [await readAll(log)] })).toEqual([0, 1, 2]);
    },
  );

  test('in the middle of a batch leaves nothing of it in the file (invariants 5, 20)', async () => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
    await fill(log, 2);
    const size = statSync(rig.file()).size;
    rig.fs.maxWriteBytes = 50;
    let writes = 0;
    rig.fs.rule = (call) => (call.name === 'writevSync' && ++writes > 1 ? 'ENOSPC' : undefined);
    expect(await reasonOf(log.append([batchAt(2)], toOffset(2)))).toBe('STORAGE_FULL');
    expect(statSync(rig.file()).size).toBe(size);
  });

  test('when a new segment is begun leaves the old one as it was (invariants 5, 20)', async () => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, SMALL);
    await fill(log, 2, { bytes: 100 });
    const batches = [batchAt(2, { bytes: 20 }), batchAt(3, { bytes: 300 })];
    rig.fs.rule = (call) => (call.name === 'writevSync' && call.path === rig.file(3) ? 'ENOSPC' : undefined);
    const size = statSync(rig.file()).size;
    expect(await reasonOf(log.append(batches, toOffset(2)))).toBe('STORAGE_FULL');
    expect(statSync(rig.file()).size).toBe(size);
    expect(log.endOffset).toBe(2);
    rig.fs.rule = () => undefined;
    await fill(log, 4, { bytes: 30 });
    await fill(log, 3, { bytes: 300 });
    const bytes = await readAll(log);
    const again = await (await rig.crash().open()).open(partition(), toEpoch(2), SMALL);
    expect(await readAll(again)).toEqual(bytes);
  });

  test('that cannot be cut back poisons the log (invariants 3, 5)', async () => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
    await fill(log, 2);
    rig.fs.rule = (call) => (call.name === 'writevSync' ? 'ENOSPC' : call.name === 'ftruncateSync' ? 'EIO' : undefined);
    expect(await reasonOf(log.append([batchAt(2)], toOffset(2)))).toBe('STORAGE_ERROR');
    expect(log.failure).toBeDefined();
  });

  test('under the index files of a closed segment loses nothing (invariants 1, 19, 20)', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, SMALL);
    rig.fs.rule = (call) => (/index$/.test(call.path) ? 'ENOSPC' : undefined);
    const batches = await fill(log, 12, { bytes: 100 });
    await log.flush(toOffset(12));
    await expect.poll(() => rig.messages('warn').length).toBeGreaterThan(2);
    expect(await readAll(log)).toEqual(Buffer.concat(batches));
    rig.fs.rule = () => undefined;
    await engine.close();
    const again = await (await rig.crash().open()).open(partition(), toEpoch(2), SMALL);
    expect(await readAll(again)).toEqual(Buffer.concat(batches));
  });
});

test('without permission to create a segment the append fails and the log goes on later (invariant 5)', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  rig.fs.rule = onLogs('openSync', 'EACCES');
  expect(await failureOf(log.append([batchAt(0)], toOffset(0)))).toMatchObject({
    reason: 'STORAGE_ERROR',
    outcome: 'none',
  });
  rig.fs.rule = () => undefined;
  await fill(log, 1);
});

test('a write that takes few bytes at a time is completed', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  rig.fs.maxWriteBytes = 7;
  const batches = [batchAt(0), batchAt(1, { bytes: 200 })];
  await log.append(batches, toOffset(0));
  expect(await readAll(log)).toEqual(Buffer.concat(batches));
});

test('a large append is written in calls of at most 256 KiB', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, { ...CONFIG, segmentBytes: 1 << 24 });
  const batches = [batchAt(0, { bytes: 3_000_000 })];
  const appends = [log.append(batches, toOffset(0)), log.append([batchAt(1)], toOffset(1))];
  expect(await Promise.all(appends)).toEqual([1, 2]);
  expect(rig.fs.count('writevSync', /0\.log$/)).toBe(13);
  expect((await readAll(log)).length).toBe(batches[0]!.length + batchAt(1).length);
});

test('any other write error poisons the log: appends stop, reading goes on (invariant 3)', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 2);
  rig.fs.rule = onLogs('writevSync', 'EIO');
  const failure = await failureOf(log.append([batchAt(2)], toOffset(2)));
  expect(failure).toMatchObject({ reason: 'STORAGE_ERROR', outcome: 'unknown' });
  expect(failure.message).toContain(rig.file());
  expect(failure.message).toContain('EIO');
  rig.fs.rule = () => undefined;
  expect(await reasonOf(log.append([batchAt(2)], toOffset(2)))).toBe('STORAGE_ERROR');
  expect(await reasonOf(log.flush(toOffset(2)))).toBe('STORAGE_ERROR');
  expect(basesOf({ chunks: [await readAll(log)] })).toEqual([0, 1]);
});

test.each(['EIO: %s', 'ENOSPC'])(
  'a failed sync poisons the log and is never tried again: %s (invariant 3)',
  async (errno) => {
    const rig = new LocalRig();
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, CONFIG);
    await fill(log, 1);
    await log.flush(toOffset(1));
    await fill(log, 1);
    const before = rig.fs.count('fdatasync', /0\.log$/);
    // Once only: a second attempt would succeed, without the data.
    rig.fs.rule = (call) => {
      const failed = onLogs('fdatasync', errno)(call);
      if (failed !== undefined) rig.fs.rule = () => undefined;
      return failed;
    };
    expect(await reasonOf(log.flush(toOffset(2)))).toBe('STORAGE_ERROR');
    const syncs = before + 1;
    expect(rig.fs.count('fdatasync', /0\.log$/)).toBe(syncs);
    expect(await reasonOf(log.flush(toOffset(2)))).toBe('STORAGE_ERROR');
    expect(await reasonOf(log.append([batchAt(2)], toOffset(2)))).toBe('STORAGE_ERROR');
    await log.flush(toOffset(1));
    expect(log.durableOffset).toBe(1);
    expect(log.failure?.message).toMatch(/takes no more appends until the broker is started again\.$/);
    await engine.close();
    expect(rig.fs.count('fdatasync', /0\.log$/)).toBe(syncs);
    expect((await rig.open()).startedClean).toBe(false);
  },
);

test('flushes share syncs: one under way, one for all that came meanwhile', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  const flushes: Promise<void>[] = [];
  for (let i = 0; i < 50; i++) {
    await fill(log, 1);
    flushes.push(log.flush(log.endOffset));
  }
  await Promise.all(flushes);
  expect(rig.fs.count('fdatasync', /0\.log$/)).toBeLessThan(10);
});

test('a sync covers what was appended before it began, and nothing later (invariant 2)', async () => {
  const fs = new HeldSyncs();
  const log = await (await new LocalRig({ fileSystem: fs }).open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 1);
  const release = fs.hold();
  const first = log.flush(toOffset(1));
  await until(() => fs.heldCount === 1, 'the first sync has begun');
  await fill(log, 1);
  const second = log.flush(toOffset(2));
  let isSecondDone = false;
  const noted = second.then(() => {
    isSecondDone = true;
  });
  const releaseSecond = fs.hold();
  release();
  await first;
  expect(log.durableOffset).toBe(1);
  await nextTurn();
  expect(isSecondDone).toBe(false);
  await until(() => fs.heldCount === 2, 'the second sync has begun');
  releaseSecond();
  await noted;
  expect(log.durableOffset).toBe(2);
});

test('one flush makes everything durable, over all the segments that an append has reached (invariant 2)', async () => {
  const rig = new DiskRig();
  const log = await (await rig.open()).open(partition(), EPOCH, SMALL);
  const batches = Array.from({ length: 8 }, (_, i) => batchAt(i, { bytes: 150 }));
  await log.append(batches, toOffset(0));
  await log.roll();
  await log.append([batchAt(8)], toOffset(8));
  await log.roll();
  expect(log.segments().length).toBeGreaterThan(4);
  await log.flush(toOffset(9));
  const after = rig.cut();
  const found = await (await after.open()).open(partition(), toEpoch(2), SMALL);
  expect(await readAll(found)).toEqual(Buffer.concat([...batches, batchAt(8)]));
  expect(after.messages('error')).toEqual([]);
});

test('the entry of a new file is durable before its first batch counts as durable (invariant 2)', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 1);
  rig.fs.rule = (call) => (call.name === 'syncDirectory' && call.path === rig.directory() ? 'EIO' : undefined);
  expect(await reasonOf(log.flush(toOffset(1)))).toBe('STORAGE_ERROR');
  expect(log.durableOffset).toBe(0);
});

interface Acknowledged {
  written: number;
  durable: number;
  trimmed: number;
  metadata: boolean;
  /** What the side file holds that is written twice. */
  snapshot: 'none' | 'one' | 'two';
}

/** Appends over several rolls, flushes, trims, changes metadata and a side file. Notes what was acknowledged. */
async function liveUntilStopped(rig: LocalRig): Promise<Acknowledged> {
  const acknowledged: Acknowledged = { written: 0, durable: 0, trimmed: 0, metadata: false, snapshot: 'none' };
  try {
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, SMALL);
    for (let i = 0; i < 8; i++) {
      acknowledged.written = await log.append([batchAt(log.endOffset, { bytes: 100 })], log.endOffset);
      if (i % 3 === 2) {
        await log.flush(log.endOffset);
        acknowledged.durable = log.durableOffset;
      }
    }
    for (const contents of ['one', 'two'] as const) {
      await log.sideFiles.write('snapshot', toOffset(6), Buffer.from(contents));
      acknowledged.snapshot = contents;
    }
    acknowledged.metadata = (await engine.metadata.compareAndSet('k', 'v', 0)).ok;
    await log.trim(toOffset(4));
    acknowledged.trimmed = 4;
    await engine.close();
  } catch {
    // Stopped: what was acknowledged until then is what counts.
  }
  return acknowledged;
}

// On real files; what single faults do to a whole broker, `test/broker/nth-call-faults.test.ts` tells.
test('a process that stops at any call loses nothing that was acknowledged and starts again (invariants 1, 4, 15)', async (context) => {
  const programme = new Programme(context, 1);
  const clean = new LocalRig();
  await liveUntilStopped(clean);
  const total = clean.fs.calls.length;
  expect(total).toBeGreaterThan(100);
  for (let stopAt = 1; stopAt <= total; stopAt++) {
    const rig = new LocalRig();
    rig.fs.skipsDisk = true;
    rig.fs.rule = (call) => (call.number >= stopAt ? 'EIO' : undefined);
    const acknowledged = await liveUntilStopped(rig);
    const after = rig.crash({ tailCacheBytes: 0 });
    const engine = await after.open();
    const log = await engine.open(partition(), toEpoch(2), SMALL);
    expect(log.endOffset, `stopped at call ${stopAt}`).toBeGreaterThanOrEqual(acknowledged.written);
    expect(log.startOffset).toBeGreaterThanOrEqual(acknowledged.trimmed);
    const bases = basesOf({ chunks: [await readAll(log)] });
    expect(bases).toEqual(Array.from({ length: log.endOffset - log.startOffset }, (_, i) => log.startOffset + i));
    const snapshot = (await log.sideFiles.read('snapshot', toOffset(6)))?.toString() ?? 'none';
    const later = { none: ['none', 'one'], one: ['one', 'two'], two: ['two'] }[acknowledged.snapshot];
    expect(later, `stopped at call ${stopAt}`).toContain(snapshot);
    expect(log.sideFiles.offsets('snapshot')).toEqual(snapshot === 'none' ? [] : [6]);
    if (acknowledged.metadata) expect(await engine.metadata.get('k')).toMatchObject({ value: 'v' });
    expect(after.messages('error')).toEqual([]);
    await fill(log, 1);
    await engine.close();
    programme.tried('stops');
  }
});

test('the files of a log never change below what is durable (invariant 4)', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  const first = await fill(log, 3);
  await log.flush(toOffset(3));
  await fill(log, 3);
  expect(readFileSync(rig.file()).subarray(0, Buffer.concat(first).length)).toEqual(Buffer.concat(first));
  expect(basesOf(await log.read(toOffset(0), END, 1e6))).toHaveLength(6);
});
