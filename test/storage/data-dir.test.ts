import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { toEpoch } from '../../src/core/types.js';
import { openLocalEngine } from '../../src/storage/local/engine.js';
import { lockByName } from '../../src/storage/local/lock.js';
import { FaultyFileSystem } from '../support/faulty-file-system.js';
import { ManualClock } from '../support/manual-clock.js';
import { PowerLossDisk } from '../support/power-loss-disk.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import {
  BASE_TIME,
  batchAt,
  CONFIG,
  EPOCH,
  failureOf,
  fill,
  LocalRig,
  partition,
  readAll,
  reasonOf,
} from './support.js';

/** A process that opens a data directory and then waits to be killed. */
async function holder(dataDir: string): Promise<{ readonly pid: number; kill(): Promise<void> }> {
  const root = new URL('../../', import.meta.url).pathname;
  const script = `
    import { systemClock } from ${JSON.stringify(`${root}src/core/clock.ts`)};
    import { openLocalEngine } from ${JSON.stringify(`${root}src/storage/local/engine.ts`)};
    await openLocalEngine({ dataDir: ${JSON.stringify(dataDir)}, clock: systemClock });
    console.log('open');
    setInterval(() => {}, 1000);
  `;
  const path = join(temporaryDirectory(), 'holder.mts');
  writeFileSync(path, script);
  const child = spawn(process.execPath, ['--import', 'tsx', path], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await gone;
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', () => reject(new Error('the holder ended')));
  });
  return {
    pid: child.pid!,
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

test('a second process is refused and told who has it; after kill -9 the directory is free', {
  timeout: 20_000,
}, async () => {
  const rig = new LocalRig();
  const other = await holder(rig.dataDir);
  const failure = await failureOf(rig.open());
  expect(failure).toMatchObject({ reason: 'DATA_DIR_LOCKED', metadata: { pid: String(other.pid) } });
  expect(failure.message).toContain(String(other.pid));
  await other.kill();
  expect((await rig.open()).startedClean).toBe(false);
});

test('a second engine in the same process is refused too', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  expect(await failureOf(rig.open())).toMatchObject({
    reason: 'DATA_DIR_LOCKED',
    metadata: { pid: String(process.pid) },
  });
  await engine.close();
  await rig.open();
});

test('the lock that does without the flock tool excludes as well, and can be taken again', async () => {
  const path = join(temporaryDirectory(), '.lock');
  const lock = await lockByName(path);
  expect(lock).toBeDefined();
  expect(await lockByName(path)).toBeUndefined();
  expect(await lockByName(`${path}2`).then((other) => other?.release())).toBeUndefined();
  lock?.release();
  await expect.poll(async () => (await lockByName(path)) !== undefined).toBe(true);
});

test('a newer format is refused with both versions', async () => {
  const rig = new LocalRig();
  writeFileSync(join(rig.dataDir, 'meta.json'), '{"formatVersion":7}\n');
  const failure = await failureOf(rig.open());
  expect(failure).toMatchObject({
    reason: 'UNSUPPORTED_FORMAT',
    metadata: { format_version: '7', supported_version: '4' },
  });
  expect(failure.message).toMatch(/version 7.*version 4/);
});

test('a directory of an older format is taken and has the newest one afterwards', async () => {
  const rig = new LocalRig();
  writeFileSync(join(rig.dataDir, 'meta.json'), '{"formatVersion":1}\n');
  await (await rig.open()).close();
  expect(readFileSync(join(rig.dataDir, 'meta.json'), 'utf8')).toBe('{"formatVersion":4}\n');
});

test.each(['not json', '{}', '{"formatVersion":"1"}', '{"formatVersion":0}'])(
  'a meta.json of %s is refused',
  async (text) => {
    const rig = new LocalRig();
    writeFileSync(join(rig.dataDir, 'meta.json'), text);
    expect(await failureOf(rig.open())).toMatchObject({ reason: 'DATA_DIR_UNUSABLE' });
  },
);

test('a data directory that is a file, or may not be written, is refused', async () => {
  const file = join(temporaryDirectory(), 'file');
  writeFileSync(file, '');
  expect(await failureOf(new LocalRig({}, file).open())).toMatchObject({ reason: 'DATA_DIR_UNUSABLE' });
  const rig = new LocalRig();
  rig.fs.rule = (call) => (call.name === 'tryLock' ? 'EACCES' : undefined);
  expect(await failureOf(rig.open())).toMatchObject({ reason: 'DATA_DIR_UNUSABLE', metadata: { errno: 'EACCES' } });
  if (process.getuid?.() === 0) return;
  chmodSync(rig.dataDir, 0o500);
  rig.fs.rule = () => undefined;
  expect(await failureOf(rig.open())).toMatchObject({ reason: 'DATA_DIR_UNUSABLE' });
});

test('the marker of a clean stop is there only while nobody uses the directory', async () => {
  const rig = new LocalRig();
  const marker = join(rig.dataDir, '.clean_shutdown');
  const engine = await rig.open();
  expect([engine.startedClean, existsSync(marker)]).toEqual([false, false]);
  await engine.close();
  expect(existsSync(marker)).toBe(true);
  const again = await rig.open();
  expect([again.startedClean, existsSync(marker)]).toEqual([true, false]);
});

test('recovery points are written when the time comes, and when a log is closed', async () => {
  const timers: (() => void)[] = [];
  const clock = {
    now: () => Date.now(),
    monotonic: () => performance.now(),
    setTimer: (_delayMs: number, callback: () => void) => {
      timers.push(callback);
      return { cancel: () => undefined };
    },
    sleep: async () => undefined,
  };
  const rig = new LocalRig({ clock });
  const path = join(rig.dataDir, 'recovery-point-offset-checkpoint');
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, CONFIG);
  await fill(log, 3);
  timers.shift()!();
  await expect.poll(() => existsSync(path) && readFileSync(path, 'utf8')).toContain(' 0 0 0 0:1\n');
  await log.flush(log.endOffset);
  timers.shift()!();
  await expect.poll(() => readFileSync(path, 'utf8')).toContain(' 0 3 0 0:1\n');
  await fill(log, 2);
  await engine.close();
  expect(readFileSync(path, 'utf8')).toContain(' 0 5 0 0:1\n');
});

test('what a removal left behind is deleted at the next start', async () => {
  const rig = new LocalRig();
  const doomed = `${rig.directory()}.deleted`;
  mkdirSync(doomed, { recursive: true });
  writeFileSync(join(doomed, 'x.log'), 'x');
  const engine = await rig.open();
  await engine.close();
  expect(existsSync(doomed)).toBe(false);
});

test('a removed partition survives neither a crash nor a new opening', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, CONFIG);
  await fill(log, 3);
  await log.flush(log.endOffset);
  const reading = readAll(log);
  await engine.remove(partition());
  await reading.catch((error: unknown) => expect(error).toMatchObject({ reason: 'CLOSED' }));
  const after = await (await rig.crash().open()).open(partition(), toEpoch(2), CONFIG);
  expect(after.endOffset).toBe(0);
  await after.append([batchAt(0)], after.endOffset);
});

describe('after a start that failed', () => {
  test('the entry of the data directory is made durable by the next one (invariant 2)', async () => {
    const disk = new PowerLossDisk(BASE_TIME);
    const fs = new FaultyFileSystem(disk);
    const options = { dataDir: '/a/b/data', clock: new ManualClock(BASE_TIME) };
    fs.rule = (call) => (call.name === 'syncDirectory' ? 'EIO' : undefined);
    expect(await reasonOf(openLocalEngine({ ...options, fileSystem: fs }))).toBe('DATA_DIR_UNUSABLE');
    const { metadata } = await openLocalEngine({ ...options, fileSystem: disk });
    await metadata.compareAndSet('k', 'v', 0);
    const left = new PowerLossDisk(BASE_TIME, disk.durable());
    const again = await openLocalEngine({ ...options, fileSystem: left });
    expect(await again.metadata.get('k')).toMatchObject({ value: 'v' });
  });

  test('the directory is free, though not even closing a file has worked', async () => {
    const rig = new LocalRig();
    rig.fs.rule = (call) => (call.name === 'closeSync' || call.path.includes('recovery-point') ? 'EIO' : undefined);
    expect(await reasonOf(rig.open())).toBe('STORAGE_ERROR');
    rig.fs.rule = () => undefined;
    await rig.open();
  });

  test('nothing writes into the directory later', async () => {
    const disk = new PowerLossDisk(BASE_TIME);
    const fs = new FaultyFileSystem(disk);
    const clock = new ManualClock(BASE_TIME);
    fs.rule = ({ name, path }) => (name === 'readdir' && path.endsWith('logs') ? 'EMFILE' : undefined);
    expect(await reasonOf(openLocalEngine({ dataDir: '/data', clock, fileSystem: fs }))).toBe('RESOURCE_LIMIT');
    expect(clock.timerCount).toBe(0);
  });

  test('an engine that is closed on a broken disk lets go of all its files', async () => {
    const rig = new LocalRig();
    const engine = await rig.open();
    await fill(await engine.open(partition(), EPOCH, CONFIG), 1);
    rig.fs.rule = (call) => (call.path.includes('recovery-point') ? 'EIO' : undefined);
    expect(await reasonOf(engine.close())).toBe('STORAGE_ERROR');
    expect(rig.fs.openPaths).toEqual([]);
  });
});
