import { readFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { RECORD_BATCH_OVERHEAD, writeCrc } from '../../src/batch/layout.js';
import { MAX_METADATA_BYTES } from '../../src/storage/local/metadata-store.js';
import { failureOf, LocalRig, patch, reasonOf } from './support.js';

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

test('a torn tail is cut off at whatever byte it ended', async () => {
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

test('corruption in the middle is refused, never dropped', async () => {
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

test('changes that come together share a sync', async () => {
  const rig = new LocalRig();
  const { metadata } = await rig.open();
  const before = rig.fs.count('fdatasync', /metadata/);
  await Promise.all(Array.from({ length: 100 }, (_, i) => metadata.compareAndSet(`k${i}`, 'v', 0)));
  expect(rig.fs.count('fdatasync', /metadata/) - before).toBeLessThan(4);
});

test('a full disk refuses the change and heals; a failed sync is final', async () => {
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

test('a change that claims to be compressed is refused, and ends nothing but the start', async () => {
  const rig = await withEntries();
  patch(journal(rig), (bytes) => {
    bytes.writeInt16BE(1, ATTRIBUTES_AT);
    writeCrc(bytes, 0);
    return bytes;
  });
  const failure = await failureOf(rig.open());
  expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { file: journal(rig), offset: '0' } });
});

test('a change whose record does not hold together is refused with the name of the file', async () => {
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
  test('is not taken for a torn one after a clean stop', async () => {
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
