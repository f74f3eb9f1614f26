/** What becomes of files that trimming takes out of a log (invariant 16). */
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig } from '../../src/storage/engine.js';
import type { FileCall } from '../support/faulty-file-system.js';
import { ManualClock } from '../support/manual-clock.js';
import { BASE_TIME, basesOf, CONFIG, END, EPOCH, fill, LocalRig, partition, readAll, reasonOf } from './support.js';

const SMALL: LogConfig = { ...CONFIG, segmentBytes: 500, fileDeleteDelayMs: 1000 };

function deletedFiles(rig: LocalRig): readonly string[] {
  return readdirSync(rig.directory()).filter((name) => name.endsWith('.deleted'));
}

test('trimmed files lose their names at once and go after file.delete.delay.ms', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock });
  const log = await (await rig.open()).open(partition(), EPOCH, SMALL);
  await fill(log, 20, { bytes: 100 });
  await log.trim(toOffset(9));
  const deleted = deletedFiles(rig);
  expect(deleted.length).toBeGreaterThan(4);
  await log.trim(toOffset(12));
  clock.advance(999);
  expect(clock.nextTimerMs).toBe(1);
  expect(deletedFiles(rig)).toEqual(expect.arrayContaining([...deleted]));
  clock.advance(1);
  await expect.poll(() => deletedFiles(rig)).toEqual([]);
  expect(clock.timerCount).toBeLessThan(3);
});

test('a reader in the middle of a trimmed file finishes; the next read says what is left', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock, tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, { ...SMALL, fileDeleteDelayMs: 0 });
  await fill(log, 20, { bytes: 100 });
  const reading = log.read(toOffset(0), END, 1);
  const trimming = log.trim(toOffset(15));
  expect(basesOf(await reading)).toEqual([0]);
  await trimming;
  expect(await reasonOf(log.read(toOffset(0), END, 1))).toBe('OFFSET_OUT_OF_RANGE');
});

test('what was not removed before the end of the process is removed by the next start', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock });
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, SMALL);
  await fill(log, 20, { bytes: 100 });
  await log.trim(toOffset(9));
  const crashed = rig.crash();
  await engine.close();
  for (const after of [rig, crashed]) {
    expect(deletedFiles(after).length).toBeGreaterThan(0);
    await (await after.open()).open(partition(), toEpoch(2), SMALL);
    expect(deletedFiles(after)).toEqual([]);
  }
});

test('the log start offset is durable before any file loses its name (invariant 16)', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, SMALL);
  await fill(log, 20, { bytes: 100 });
  await log.flush(log.endOffset);
  await expect.poll(() => rig.fs.count('rename', /checkpoint\.tmp$/)).toBeGreaterThan(0);
  rig.fs.rule = (call) => (call.name === 'syncDirectory' && call.path === rig.directory() ? 'EIO' : undefined);
  expect(await reasonOf(log.trim(toOffset(9)))).toBe('STORAGE_ERROR');
  expect(log.startOffset).toBe(0);
  expect(deletedFiles(rig)).toEqual([]);
});

test('a file that cannot be renamed stays out of the log, and goes with the next start', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, SMALL);
  await fill(log, 20, { bytes: 100 });
  rig.fs.rule = (call) => (call.name === 'renameSync' ? 'EACCES' : undefined);
  await log.trim(toOffset(9));
  expect(log.startOffset).toBe(9);
  expect(rig.messages('warn').length).toBeGreaterThan(0);
  const after = rig.crash();
  const again = await (await after.open()).open(partition(), toEpoch(2), SMALL);
  expect(again.startOffset).toBe(9);
  await readAll(again);
  expect(readdirSync(after.directory()).filter((name) => name.startsWith('00000000000000000000'))).toEqual([]);
});

test('a removal that was renamed but not synced is synced by the next attempt', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  await fill(await engine.open(partition(), EPOCH, CONFIG), 1);
  rig.fs.rule = (call) => (call.name === 'syncDirectory' ? 'EIO' : undefined);
  expect(await reasonOf(engine.remove(partition()))).toBe('STORAGE_ERROR');
  rig.fs.rule = () => undefined;
  const syncs = rig.fs.count('syncDirectory', /logs$/);
  await engine.remove(partition());
  expect(rig.fs.count('syncDirectory', /logs$/)).toBe(syncs + 1);
  await expect.poll(() => readdirSync(`${rig.dataDir}/logs`)).toEqual([]);
});

test('a removed partition that could not be deleted is tried again, and reported once', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock });
  const engine = await rig.open();
  await fill(await engine.open(partition(), EPOCH, CONFIG), 1);
  let refused = true;
  const isDeletion = (call: FileCall): boolean => call.name === 'removeTree' && rig.fs.count('rename', /0000-0$/) > 0;
  rig.fs.rule = (call) => (refused && isDeletion(call) ? 'EMFILE' : undefined);
  const attempts = (): number => rig.fs.count('removeTree', /deleted$/);
  await engine.remove(partition());
  await expect.poll(() => rig.messages('warn').length).toBe(1);
  const before = attempts();
  clock.advance(10_000);
  await expect.poll(attempts).toBe(before + 1);
  refused = false;
  clock.advance(10_000);
  await expect.poll(() => readdirSync(`${rig.dataDir}/logs`)).toEqual([]);
  expect(rig.messages('warn')).toHaveLength(1);
});

test('removed partitions are deleted one after the other, and what is left when the engine closes by the next start', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  for (let n = 0; n < 10; n++) await fill(await engine.open(partition(n), EPOCH, CONFIG), 1);
  await Promise.all(Array.from({ length: 10 }, (_, n) => engine.remove(partition(n))));
  await engine.close();
  await rig.open();
  await expect.poll(() => readdirSync(`${rig.dataDir}/logs`)).toEqual([]);
});
