/** No free file handle: what needs one waits or is refused, and goes on as soon as there is one. */
import { describe, expect, test } from 'vitest';
import { toOffset } from '../../src/core/types.js';
import type { LogConfig } from '../../src/storage/engine.js';
import { batchAt, CONFIG, EPOCH, failureOf, fill, LocalRig, onLogs, partition, reasonOf } from './support.js';

const SMALL: LogConfig = { ...CONFIG, segmentBytes: 500 };

test.each(['EMFILE', 'ENFILE'])(
  'without a free file handle (%s) nothing changes, and it heals (invariant 20)',
  async (errno) => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, SMALL);
    await fill(log, 2, { bytes: 150 });
    rig.fs.rule = onLogs('openSync', errno);
    const failure = await failureOf(log.append([batchAt(2, { bytes: 300 })], toOffset(2)));
    expect(failure).toMatchObject({ reason: 'RESOURCE_LIMIT', outcome: 'none', retryable: true });
    expect(log.failure).toBeUndefined();
    rig.fs.rule = () => undefined;
    await fill(log, 1, { bytes: 300 });
    expect(log.endOffset).toBe(3);
  },
);

describe('without a file handle to sync a directory with', () => {
  test.each(['EMFILE', 'ENFILE'])(
    '(%s) nothing is synced, and a later flush may succeed (invariant 20)',
    async (errno) => {
      const rig = new LocalRig();
      const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
      await fill(log, 1);
      rig.fs.rule = (call) => (call.name === 'syncDirectory' ? errno : undefined);
      for (let attempt = 0; attempt < 2; attempt++) {
        const failure = await failureOf(log.flush(toOffset(1)));
        expect(failure).toMatchObject({ reason: 'RESOURCE_LIMIT', outcome: 'unknown' });
      }
      expect(log.failure).toBeUndefined();
      expect(log.durableOffset).toBe(0);
      await fill(log, 1);
      rig.fs.rule = () => undefined;
      await log.flush(toOffset(2));
      expect(log.durableOffset).toBe(2);
      expect(rig.fs.count('syncDirectory', /logs$/)).toBeGreaterThan(0);
    },
  );

  test('another failure of the same call is final (invariant 3)', async () => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
    await fill(log, 1);
    rig.fs.rule = (call) => (call.name === 'syncDirectory' ? 'ENOSPC' : undefined);
    expect(await reasonOf(log.flush(toOffset(1)))).toBe('STORAGE_ERROR');
    rig.fs.rule = () => undefined;
    expect(await reasonOf(log.flush(toOffset(1)))).toBe('STORAGE_ERROR');
  });

  test('a failed sync of data is final whatever the errno (invariant 3)', async () => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
    await fill(log, 1);
    rig.fs.rule = onLogs('fdatasync', 'EMFILE');
    expect(await reasonOf(log.flush(toOffset(1)))).toBe('STORAGE_ERROR');
    expect(log.failure).toBeDefined();
  });

  test('handles of files that nobody uses are given back for it (invariant 20)', async () => {
    const rig = new LocalRig();
    const engine = await rig.open();
    const idle = await engine.open(partition(1), EPOCH, CONFIG);
    await fill(idle, 1);
    await idle.flush(toOffset(1));
    const log = await engine.open(partition(), EPOCH, CONFIG);
    await fill(log, 1);
    let refused = 0;
    rig.fs.rule = (call) => (call.name === 'syncDirectory' && refused++ === 0 ? 'EMFILE' : undefined);
    await log.flush(toOffset(1));
    expect(rig.fs.openPaths).not.toContain(rig.file(0, '.log', partition(1)));
  });
});

test('a partition that waits for a handle which no sync can free waits without spinning, and gets it later (invariant 20)', async () => {
  const rig = new LocalRig({ maxOpenFiles: 1 });
  const engine = await rig.open();
  const [first, second] = [
    await engine.open(partition(0), EPOCH, CONFIG),
    await engine.open(partition(1), EPOCH, CONFIG),
  ];
  await fill(first, 1);
  rig.fs.rule = (call) => (call.name === 'syncDirectory' ? 'EMFILE' : undefined);
  const waiting = fill(second, 1);
  await expect.poll(() => rig.fs.count('syncDirectory', /0000-0$/)).toBe(1);
  rig.fs.rule = () => undefined;
  await first.flush(toOffset(1));
  await waiting;
  expect(second.endOffset).toBe(1);
});
