/** Appends that several segments share, and appends that are refused, on a disk that loses power (invariants 2, 5, 14, 19). */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type Offset, toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { openLocalEngine } from '../../src/storage/local/engine.js';
import { FaultyFileSystem } from '../support/faulty-file-system.js';
import type { DiskImage, PowerLossDisk } from '../support/power-loss-disk.js';
import { until } from '../support/until.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { batchAt, CONFIG, directoryOf, EPOCH, failureOf, partition, readAll, reasonOf } from './support.js';

/** Two batches of 200 bytes fit into a segment, three do not. */
const TWO_BATCHES = { ...CONFIG, segmentBytes: 700 };
const SHAPE = { bytes: 200 };
const NO_ERRORS: readonly string[] = [];

const fileOf = (base: number, suffix = '.log'): string =>
  `${directoryOf(DATA_DIR, partition())}/${String(base).padStart(20, '0')}${suffix}`;

async function openLog(rig: DiskRig, epoch = EPOCH): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), epoch, TWO_BATCHES);
}

function append(log: PartitionLog, at: number, count: number): Promise<Offset> {
  const batches = Array.from({ length: count }, (_, i) => batchAt(at + i, SHAPE));
  return log.append(batches, toOffset(at));
}

/** For each change: what is left when a power cut takes everything that is not durable, but spares one file and its entry. */
function watchSparing(disk: PowerLossDisk, path: string): DiskImage[] {
  const images: DiskImage[] = [];
  disk.beforeChange = () => {
    const all = disk.contents();
    const spared = new Map(disk.durable());
    const contents = all.get(path);
    if (contents && contents.length > 0) images.push(spared.set(path, contents));
  };
  return images;
}

async function expectSound(images: readonly DiskImage[], most: number): Promise<void> {
  for (const image of images) {
    const rig = new DiskRig(image);
    const log = await openLog(rig, toEpoch(2));
    expect(log.startOffset).toBe(0);
    expect(log.endOffset).toBeLessThanOrEqual(most);
    await readAll(log);
    expect(rig.messages('error')).toEqual(NO_ERRORS);
  }
}

test('of two segments that were not flushed, a power cut never leaves the second alone (invariant 14)', async () => {
  const rig = new DiskRig();
  const log = await openLog(rig);
  await rig.disk.syncDirectory(`${DATA_DIR}/logs`);
  await append(log, 0, 2);
  const images = watchSparing(rig.disk, fileOf(2));
  await append(log, 2, 1);
  await append(log, 3, 1);
  await log.flush(log.endOffset);
  expect(images.length).toBeGreaterThan(2);
  await expectSound(images, 4);
});

test.each([0, 1])(
  'of an append over three segments behind %i batches, a power cut never leaves the later ones alone (invariant 14)',
  async (before) => {
    const rig = new DiskRig();
    const log = await openLog(rig);
    await rig.disk.syncDirectory(`${DATA_DIR}/logs`);
    if (before > 0) await append(log, 0, before);
    const second = watchSparing(rig.disk, fileOf(2));
    await append(log, before, 6 - before);
    expect(second.length).toBeGreaterThan(2);
    await expectSound(second, 6);
  },
);

/** A disk that takes its time with the syncs of directories that begin while it is slow. */
class SlowEntries extends FaultyFileSystem {
  isSlow = false;
  waitingCount = 0;
  release: () => void = () => undefined;
  readonly #released = new Promise<void>((resolve) => {
    this.release = resolve;
  });

  override async syncDirectory(path: string): Promise<void> {
    if (this.isSlow) {
      this.waitingCount++;
      await this.#released;
    }
    await super.syncDirectory(path);
  }
}

test('while the entries of an earlier append are being synced, a power cut never leaves a later segment alone (invariant 14)', async () => {
  const rig = new DiskRig();
  const fs = new SlowEntries(rig.disk);
  const log = await (await rig.open(fs)).open(partition(), EPOCH, TWO_BATCHES);
  await append(log, 0, 2);
  await log.flush(log.endOffset);
  fs.isSlow = true;
  await append(log, 2, 1);
  const flushed = log.flush(log.endOffset);
  await until(() => fs.waitingCount === 2, 'the flush and the checkpoint sync the entries');
  fs.isSlow = false;
  const images = watchSparing(rig.disk, fileOf(4));
  const appended = append(log, 3, 2);
  for (let turn = 0; turn < 20; turn++) await nextTurn();
  fs.release();
  await flushed;
  await appended;
  await log.flush(log.endOffset);
  expect(images.length).toBeGreaterThan(1);
  await expectSound(images, 5);
});

test('a sync that fails when a segment is begun poisons the log like every failed sync (invariant 3)', async () => {
  const rig = new DiskRig();
  const fs = new FaultyFileSystem(rig.disk);
  const log = await (await rig.open(fs)).open(partition(), EPOCH, TWO_BATCHES);
  await append(log, 0, 2);
  fs.rule = ({ name, path }) => (name === 'fdatasync' && path === fileOf(0) ? 'ENOSPC' : undefined);
  expect(await reasonOf(append(log, 2, 1))).toBe('STORAGE_ERROR');
  fs.rule = () => undefined;
  expect(log.failure).toBeDefined();
  expect(await reasonOf(append(log, 2, 1))).toBe('STORAGE_ERROR');
  expect(await rig.disk.stat(fileOf(2))).toBeUndefined();
});

test('a sync that fails within an append over several segments poisons the log, ENOSPC included (invariant 3)', async () => {
  const rig = new DiskRig();
  const fs = new FaultyFileSystem(rig.disk);
  const log = await (await rig.open(fs)).open(partition(), EPOCH, TWO_BATCHES);
  let syncs = 0;
  fs.rule = ({ name, path }) => (name === 'fdatasync' && path === fileOf(0) && ++syncs === 1 ? 'ENOSPC' : undefined);
  expect(await reasonOf(append(log, 0, 5))).toBe('STORAGE_ERROR');
  expect(log.failure).toBeDefined();
  expect(log.endOffset).toBe(0);
});

test('appends that begin segments wait for a sync with no more file handles than there are logs (invariant 20)', async () => {
  const rig = new DiskRig();
  const options = { dataDir: DATA_DIR, clock: rig.clock, fileSystem: rig.disk, maxOpenFiles: 3, tailCacheBytes: 0 };
  const engine = await openLocalEngine(options);
  const logs = await Promise.all([0, 1, 2].map((n) => engine.open(partition(n), EPOCH, TWO_BATCHES)));
  await Promise.all(
    logs.map(async (log) => {
      for (let at = 0; at < 40; at += 2) await append(log, at, 2);
    }),
  );
  for (const log of logs) expect((await readAll(log)).length).toBeGreaterThan(40 * 200);
  await engine.close();
});

test('what a full disk refused is not brought back by a power cut (invariant 5)', async () => {
  const rig = new DiskRig();
  const fs = new FaultyFileSystem(rig.disk);
  const log = await (await rig.open(fs)).open(partition(), EPOCH, TWO_BATCHES);
  await append(log, 0, 1);
  await log.flush(log.endOffset);
  let writes = 0;
  // Room for the first batch and a part of the second.
  fs.maxWriteBytes = batchAt(1, SHAPE).length + 10;
  fs.rule = ({ name }) => (name === 'writevSync' && ++writes > 1 ? 'ENOSPC' : undefined);
  expect(await failureOf(append(log, 1, 2))).toMatchObject({ reason: 'STORAGE_FULL', outcome: 'none' });
  const limits = rig.disk.limits();
  for (let unit = 0; unit < limits.length; unit++) {
    for (let left = 0; left <= limits[unit]!; left++) {
      let at = 0;
      const image = rig.disk.survivors((limit) => (at++ === unit ? left : limit));
      expect((await openLog(new DiskRig(image), toEpoch(2))).endOffset).toBe(1);
    }
  }
  expect((await openLog(new DiskRig(rig.disk.durable()), toEpoch(2))).endOffset).toBe(1);
});

test('a change of the metadata that a full disk refused is not brought back by a power cut (invariant 5)', async () => {
  const rig = new DiskRig();
  const fs = new FaultyFileSystem(rig.disk);
  const { metadata } = await rig.open(fs);
  await metadata.compareAndSet('a', 'first', 0);
  let writes = 0;
  fs.maxWriteBytes = 100;
  fs.rule = ({ name }) => (name === 'writevSync' && ++writes > 1 ? 'ENOSPC' : undefined);
  const refused = [
    reasonOf(metadata.compareAndSet('b', 'x', 0)),
    reasonOf(metadata.compareAndSet('c', 'y'.repeat(99), 0)),
  ];
  expect(await Promise.all(refused)).toEqual(['STORAGE_FULL', 'STORAGE_FULL']);
  for (let left = 0; left <= (rig.disk.limits()[0] ?? 0); left++) {
    const { metadata: again } = await new DiskRig(rig.disk.survivors(() => left)).open();
    expect(await again.list('')).toEqual([{ key: 'a', value: 'first', version: 1 }]);
  }
});

test.each([
  ['whole', 0],
  ['with a torn tail', 10],
])(
  'an index that a power cut left as zeros makes no log (%s) corrupt that has no checkpoint yet (invariant 19)',
  async (_, tornBytes) => {
    const rig = new DiskRig();
    const log = await openLog(rig);
    await append(log, 0, 2);
    await log.flush(log.endOffset);
    const image = new Map(rig.disk.durable());
    const torn = batchAt(2, SHAPE).subarray(0, tornBytes);
    image.set(fileOf(0), Buffer.concat([image.get(fileOf(0))!, torn]));
    image.set(fileOf(0, '.index'), Buffer.alloc(8));
    const again = new DiskRig(image);
    expect((await readAll(await openLog(again, toEpoch(2)))).equals(await readAll(log))).toBe(true);
    expect(again.messages('error')).toEqual(NO_ERRORS);
  },
);
