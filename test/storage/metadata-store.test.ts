import { readFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { RECORD_BATCH_OVERHEAD, writeCrc } from '../../src/batch/layout.js';
import type { MetadataStore } from '../../src/storage/engine.js';
import { type LocalEngine, openLocalEngine } from '../../src/storage/local/engine.js';
import type { FileSystem } from '../../src/storage/local/fs.js';
import { MAX_METADATA_BYTES } from '../../src/storage/local/metadata-store.js';
import { FaultyFileSystem, type FileCall } from '../support/faulty-file-system.js';
import { ManualClock } from '../support/manual-clock.js';
import { type DiskImage, PowerLossDisk } from '../support/power-loss-disk.js';
import { Programme } from '../support/programme.js';
import { DiskRig, PowerCuts } from './power-cuts.js';
import { BASE_TIME, failureOf, LocalRig, patch, reasonOf } from './support.js';

/** Of a batch's attributes. */
const ATTRIBUTES_AT = 21;

const journal = (rig: LocalRig): string => join(rig.dataDir, 'metadata.log');

async function withEntries(): Promise<LocalRig> {
  const rig = new LocalRig();
  const { metadata } = await rig.open();
  for (const key of ['a', 'b', 'c']) await metadata.compareAndSet(key, `value of ${key}`, 0);
  await metadata.compareAndSet('b', undefined, 1);
  await metadata.compareAndSet('a', 'again', 1);
  return rig.crash();
}

test('changes survive the end of the process', async () => {
  const { metadata } = await (await withEntries()).open();
  expect(await metadata.list('')).toEqual([
    { key: 'a', value: 'again', version: 2 },
    { key: 'c', value: 'value of c', version: 1 },
  ]);
});

test('a torn tail is cut off at whatever byte it ended (invariant 14)', async () => {
  const rig = await withEntries();
  const size = statSync(journal(rig)).size;
  for (let cut = 1; cut <= 60; cut++) {
    const torn = rig.crash();
    truncateSync(journal(torn), size - cut);
    const { metadata } = await torn.open();
    expect(await metadata.get('a')).toEqual({ key: 'a', value: 'value of a', version: 1 });
    expect(await metadata.compareAndSet('a', 'new', 1)).toEqual({ ok: true, version: 2 });
  }
});

test('corruption in the middle is refused, never dropped (invariant 14)', async () => {
  const rig = await withEntries();
  patch(journal(rig), (bytes) => bytes.fill(0xff, 70, 75));
  const before = readFileSync(journal(rig));
  const failure = await failureOf(rig.open());
  expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { file: journal(rig), position: '0' } });
  expect(readFileSync(journal(rig))).toEqual(before);
});

test('the journal is written anew when most of it is overwritten', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const value = 'x'.repeat(100_000);
  await engine.metadata.compareAndSet('kept', 'here', 0);
  for (let i = 0; i < 40; i++) await engine.metadata.compareAndSet('big', value + i, i);
  expect(statSync(journal(rig)).size).toBeLessThan(1_500_000);
  expect(await (await rig.crash().open()).metadata.list('')).toEqual([
    { key: 'big', value: `${value}39`, version: 40 },
    { key: 'kept', value: 'here', version: 1 },
  ]);
});

test('a power cut while the journal is written anew takes no change that was confirmed (invariant 2)', async (context) => {
  const programme = new Programme(context, 20_260_312);
  const rig = new DiskRig();
  const { metadata } = await rig.open();
  await metadata.compareAndSet('kept', 'here', 0);
  let confirmed = 0;
  const cuts = new PowerCuts<number>({ random: programme.random, randomCuts: 2, reorderedCuts: 2 });
  cuts.watch(rig.disk, () => confirmed);
  for (; confirmed < 14; confirmed++)
    await metadata.compareAndSet('big', `${'x'.repeat(100_000)}${confirmed}`, confirmed);
  expect(cuts.remains.some(({ at }) => at.includes('renameSync'))).toBe(true);
  for (const { image, facts } of cuts.remains) {
    const again = (await new DiskRig(image).open()).metadata;
    expect(await again.get('kept')).toMatchObject({ value: 'here' });
    expect([facts, facts + 1]).toContain((await again.get('big'))?.version ?? 0);
    programme.tried('states');
  }
});

test('changes that come together share a sync', async () => {
  const rig = new LocalRig();
  const { metadata } = await rig.open();
  const before = rig.fs.count('fdatasync', /metadata/);
  await Promise.all(Array.from({ length: 100 }, (_, i) => metadata.compareAndSet(`k${i}`, 'v', 0)));
  expect(rig.fs.count('fdatasync', /metadata/) - before).toBeLessThan(4);
});

test('changes that come together are left whole or not at all by a power cut, in whatever order sectors are written (invariant 14)', async (context) => {
  const programme = new Programme(context, 20_260_311);
  const rig = new DiskRig();
  const { metadata } = await rig.open();
  await metadata.compareAndSet('a', 'first', 0);
  const images: DiskImage[] = [];
  rig.disk.beforeChange = () => {
    for (let i = 0; i < 100; i++) {
      images.push(rig.disk.survivors((limit) => (programme.random() < 0.7 ? limit : programme.below(limit)), 512));
    }
  };
  const values = ['b', 'c', 'd'].map((key) => ({ key, value: key.repeat(700) }));
  await Promise.all(values.map(({ key, value }) => metadata.compareAndSet(key, value, 0)));
  const counts = new Set<number>();
  for (const image of images) counts.add((await (await new DiskRig(image).open()).metadata.list('')).length);
  expect(counts).toEqual(new Set([1, 4]));
  programme.tried('states', images.length);
});

test('more bytes that come together than a batch may have are read again', async () => {
  const rig = new DiskRig();
  const { metadata } = await rig.open();
  const value = 'x'.repeat(900_000);
  await Promise.all(Array.from({ length: 80 }, (_, i) => metadata.compareAndSet(`k${i}`, value, 0)));
  const again = await (await rig.cut().open()).metadata.list('');
  expect(again.map((entry) => entry.value === value)).toEqual(Array.from({ length: 80 }, () => true));
});

test('a full disk refuses the change and heals; a failed sync is final (invariants 3, 20)', async () => {
  const rig = new LocalRig();
  const { metadata } = await rig.open();
  rig.fs.rule = (call) => (call.name === 'writevSync' ? 'ENOSPC' : undefined);
  expect(await reasonOf(metadata.compareAndSet('a', 'x', 0))).toBe('STORAGE_FULL');
  expect(await metadata.get('a')).toBeUndefined();
  rig.fs.rule = () => undefined;
  expect(await metadata.compareAndSet('a', 'x', 0)).toEqual({ ok: true, version: 1 });
  rig.fs.rule = (call) => (call.name === 'fdatasync' ? 'EIO' : undefined);
  expect(await reasonOf(metadata.compareAndSet('a', 'y', 1))).toBe('STORAGE_ERROR');
  rig.fs.rule = () => undefined;
  expect(await reasonOf(metadata.compareAndSet('a', 'y', 1))).toBe('STORAGE_ERROR');
  expect(await metadata.get('a')).toMatchObject({ value: 'x' });
});

test('an entry that is too large is refused', async () => {
  const { metadata } = await new LocalRig().open();
  const value = 'x'.repeat(MAX_METADATA_BYTES);
  expect(await reasonOf(metadata.compareAndSet('a', value, 0))).toBe('MESSAGE_TOO_LARGE');
});

describe('while the journal is written anew', () => {
  const BIG = 'x'.repeat(100_000);

  /** Changes one entry until the journal is worth writing anew, and then once more. */
  async function grow(rig: LocalRig, metadata: MetadataStore, isThere: (call: FileCall) => boolean): Promise<void> {
    let version = (await metadata.get('big'))?.version ?? 0;
    for (let i = 0; i < 20 && !rig.fs.calls.some(isThere); i++) {
      await metadata.compareAndSet('big', BIG, version);
      version++;
    }
    expect(rig.fs.calls.some(isThere)).toBe(true);
    await metadata.compareAndSet('after', 'here', (await metadata.get('after'))?.version ?? 0);
  }

  const isTemporary = ({ path }: FileCall): boolean => path.endsWith('metadata.log.tmp');

  test.each(['openSync', 'writevSync', 'fdatasync', 'rename'])(
    'a full disk (%s) leaves the old one in use, says so once, and it is tried again (invariant 20)',
    async (name) => {
      const rig = new LocalRig();
      const { metadata } = await rig.open();
      rig.fs.rule = (call) => (call.name === name && isTemporary(call) ? 'ENOSPC' : undefined);
      await grow(rig, metadata, (call) => call.name === name && isTemporary(call));
      expect(rig.messages('warn')).toEqual(['the metadata journal was not written anew; it grows on']);
      expect(await (await rig.crash().open()).metadata.get('after')).toMatchObject({ value: 'here' });
      rig.fs.rule = () => undefined;
      await metadata.compareAndSet('last', 'here', 0);
      await expect.poll(() => statSync(journal(rig)).size).toBeLessThan(BIG.length * 2);
      expect(await (await rig.crash().open()).metadata.list('')).toHaveLength(3);
    },
  );

  test('a rename of which nobody knows whether it happened is final (invariant 3)', async () => {
    const rig = new LocalRig();
    const { metadata } = await rig.open();
    rig.fs.rule = (call) => (call.name === 'rename' ? 'EIO' : undefined);
    const failure = await failureOf(grow(rig, metadata, (call) => call.name === 'rename' && isTemporary(call)));
    expect(failure.reason).toBe('STORAGE_ERROR');
    expect(metadata.failure).toBe(failure);
    expect(rig.messages('error')).toEqual(['the metadata takes no more changes']);
    expect(await metadata.get('big')).toBeDefined();
  });

  test('changes wait until the name of the new one is durable (invariant 2)', async () => {
    const rig = new LocalRig();
    const { metadata } = await rig.open();
    rig.fs.rule = (call) => (call.name === 'syncDirectory' ? 'EMFILE' : undefined);
    const isRenamed = (call: FileCall): boolean => call.name === 'rename' && isTemporary(call);
    const failure = await failureOf(grow(rig, metadata, isRenamed));
    expect(failure).toMatchObject({ reason: 'RESOURCE_LIMIT', outcome: 'none' });
    expect(await metadata.get('after')).toBeUndefined();
    rig.fs.rule = () => undefined;
    expect(await metadata.compareAndSet('after', 'here', 0)).toEqual({ ok: true, version: 1 });
    expect(await (await rig.crash().open()).metadata.list('')).toHaveLength(2);
  });
});

test('the name of the journal is made durable by each start: whoever created it may not have come to that (invariant 2)', async () => {
  const disk = new PowerLossDisk(BASE_TIME);
  const fs = new FaultyFileSystem(disk);
  const open = (fileSystem: FileSystem): Promise<LocalEngine> =>
    openLocalEngine({ dataDir: '/data', clock: new ManualClock(BASE_TIME), fileSystem });
  fs.rule = (call) =>
    call.name === 'syncDirectory' && call.path === '/data' && fs.count('openSync', /metadata/) > 0 ? 'EIO' : undefined;
  expect(await reasonOf(open(fs))).toBe('STORAGE_ERROR');
  const { metadata } = await open(disk);
  await metadata.compareAndSet('k', 'v', 0);
  const left = new PowerLossDisk(BASE_TIME, disk.durable());
  expect(await (await open(left)).metadata.get('k')).toMatchObject({ value: 'v' });
});

test('a change that claims to be compressed is refused, and ends nothing but the start (invariant 22)', async () => {
  const rig = await withEntries();
  patch(journal(rig), (bytes) => {
    bytes.writeInt16BE(1, ATTRIBUTES_AT);
    writeCrc(bytes, 0);
    return bytes;
  });
  const failure = await failureOf(rig.open());
  expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { file: journal(rig), offset: '0' } });
});

test('a change whose record does not hold together is refused with the name of the file (invariant 13)', async () => {
  const rig = await withEntries();
  patch(journal(rig), (bytes) => {
    bytes[RECORD_BATCH_OVERHEAD] = 0x02;
    writeCrc(bytes, 0);
    return bytes;
  });
  const failure = await failureOf(rig.open());
  expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { file: journal(rig), offset: '0' } });
});

describe('the last change', () => {
  test('is not taken for a torn one after a clean stop (invariant 14)', async () => {
    const rig = new LocalRig();
    const engine = await rig.open();
    for (const key of ['a', 'b']) await engine.metadata.compareAndSet(key, 'value', 0);
    await engine.close();
    patch(journal(rig), (bytes) => {
      bytes[bytes.length - 3]! ^= 1;
    });
    expect(await failureOf(rig.open())).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { offset: '1' } });
  });

  test('is not missed after the journal was written anew, with fewer changes than there were', async () => {
    const rig = new LocalRig();
    const value = 'x'.repeat(100_000);
    const first = await rig.open();
    for (let version = 0; version < 10; version++) await first.metadata.compareAndSet('a', value, version);
    await first.close();
    const second = await rig.open();
    for (let version = 10; version < 15; version++) await second.metadata.compareAndSet('a', value, version);
    expect(statSync(journal(rig)).size).toBeLessThan(1_000_000);
    const { metadata } = await rig.crash().open();
    expect(await metadata.get('a')).toMatchObject({ version: 15 });
  });
});
