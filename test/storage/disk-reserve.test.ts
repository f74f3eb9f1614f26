/** The reserve of free space on the disk (invariant 20). */
import { expect, test } from 'vitest';
import { toOffset } from '../../src/core/types.js';
import { ManualClock } from '../support/manual-clock.js';
import { BASE_TIME, basesOf, batchAt, CONFIG, END, EPOCH, failureOf, fill, LocalRig, partition } from './support.js';

const RESERVE = 1_000_000;

test('below the reserve appends are refused, reading and trimming go on, and appends resume by themselves (invariant 20)', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock, diskReserveBytes: RESERVE });
  rig.fs.freeSpace = RESERVE + 100_000;
  const log = await (await rig.open()).open(partition(), EPOCH, { ...CONFIG, segmentBytes: 1000 });
  await fill(log, 20, { bytes: 100 });
  await log.flush(log.endOffset);
  rig.fs.freeSpace = RESERVE - 1;
  clock.advance(1000);
  await expect
    .poll(() => log.append([batchAt(log.endOffset)], log.endOffset).catch((error: unknown) => error))
    .toMatchObject({
      reason: 'STORAGE_FULL',
      outcome: 'none',
      retryable: true,
      retryAfterMs: 1000,
      metadata: { free_bytes: String(RESERVE - 1), reserve_bytes: String(RESERVE) },
    });
  expect(log.failure).toBeUndefined();
  expect(basesOf(await log.read(toOffset(3), END, 1))).toEqual([3]);
  await log.trim(toOffset(10));
  expect(log.startOffset).toBe(10);
  expect(rig.messages('error')).toEqual(['the disk is nearly full: appends are refused, reading and deleting go on']);

  rig.fs.freeSpace = RESERVE * 2;
  clock.advance(1000);
  await expect.poll(() => rig.messages('info')).toContain('the disk has room again: appends are taken');
  await fill(log, 1);
});

test('what was appended since the disk was asked counts as used', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock, diskReserveBytes: RESERVE });
  rig.fs.freeSpace = RESERVE + 1000;
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 1, { bytes: 800 });
  expect(await failureOf(log.append([batchAt(1, { bytes: 800 })], toOffset(1)))).toMatchObject({
    reason: 'STORAGE_FULL',
  });
  expect(log.endOffset).toBe(1);
});

test('room for less than what was refused is no news: the log does not change its mind every second', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock, diskReserveBytes: RESERVE });
  rig.fs.freeSpace = RESERVE + 1000;
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  const asked = (): number => rig.fs.count('freeBytes');
  for (let second = 0; second < 3; second++) {
    await failureOf(log.append([batchAt(0, { bytes: 2000 })], toOffset(0)));
    const before = asked();
    clock.advance(1000);
    await expect.poll(asked).toBe(before + 1);
  }
  await fill(log, 1);
  expect(rig.messages('error')).toHaveLength(1);
  expect(rig.messages('info')).toEqual([]);

  rig.fs.freeSpace = RESERVE + 10_000;
  clock.advance(1000);
  await expect.poll(() => rig.messages('info')).toEqual(['the disk has room again: appends are taken']);
});

test('the disk is asked at most once a second, and not at all without appends', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ clock, diskReserveBytes: RESERVE });
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  const asked = (): number => rig.fs.count('freeBytes');
  expect(asked()).toBe(1);
  clock.advance(60_000);
  expect(asked()).toBe(1);
  await fill(log, 50);
  expect([asked(), clock.nextTimerMs]).toEqual([1, 1000]);
  clock.advance(1000);
  await expect.poll(asked).toBe(2);
});

test('a disk that cannot say how much is free refuses nothing', async () => {
  const rig = new LocalRig({ diskReserveBytes: RESERVE });
  rig.fs.rule = (call) => (call.name === 'freeBytes' ? 'EIO' : undefined);
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 3);
  expect(rig.messages('warn')).toEqual(['the free space of the disk cannot be found out']);
});

test('without a reserve the disk is never asked', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 3);
  expect(rig.fs.count('freeBytes')).toBe(0);
});
