/** Syncs of one log that meet: those of the flusher and those that an append waits for (invariants 2, 3, 20). */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type Offset, toOffset } from '../../src/core/types.js';
import type { LogConfig, PartitionLog } from '../../src/storage/engine.js';
import type { LocalEngine } from '../../src/storage/local/engine.js';
import { HeldSyncs } from '../support/held-syncs.js';
import { until } from '../support/until.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { batchAt, CONFIG, directoryOf, EPOCH, failureOf, partition, readAll, reasonOf } from './support.js';

/** Two batches of 200 bytes fit into a segment, three do not. */
const TWO_BATCHES = { ...CONFIG, segmentBytes: 700 };
const SHAPE = { bytes: 200 };
const LOG_DIRECTORY = directoryOf(DATA_DIR, partition());

interface Opened {
  readonly rig: DiskRig;
  readonly fs: HeldSyncs;
  readonly engine: LocalEngine;
  readonly log: PartitionLog;
}

/** A log with one batch that is durable. */
async function openLog(config: LogConfig = TWO_BATCHES): Promise<Opened> {
  const rig = new DiskRig();
  const fs = new HeldSyncs(rig.disk);
  const engine = await rig.open(fs);
  const log = await engine.open(partition(), EPOCH, config);
  await append(log, 0, 1);
  await log.flush(toOffset(1));
  return { rig, fs, engine, log };
}

function append(log: PartitionLog, at: number, count: number): Promise<Offset> {
  const batches = Array.from({ length: count }, (_, i) => batchAt(at + i, SHAPE));
  return log.append(batches, toOffset(at));
}

async function someTurns(): Promise<void> {
  for (let i = 0; i < 20; i++) await nextTurn();
}

/** Begins a flush of one more batch, which waits in its data sync. */
async function heldFlush({
  fs,
  log,
}: Opened): Promise<{ readonly flushed: Promise<void>; readonly release: () => void }> {
  await append(log, 1, 1);
  const before = fs.heldCount;
  const release = fs.hold();
  const flushed = log.flush(toOffset(2));
  await until(() => fs.heldCount > before, 'the flush syncs');
  return { flushed, release };
}

test('a flush that waits for one without a file handle is tried itself, and so are those after it', async () => {
  const rig = new DiskRig();
  const fs = new HeldSyncs(rig.disk);
  const log = await (await rig.open(fs)).open(partition(), EPOCH, TWO_BATCHES);
  await append(log, 0, 1);
  const release = fs.hold('syncDirectory');
  const first = reasonOf(log.flush(toOffset(1)));
  await until(() => fs.heldCount === 1, 'the first flush syncs the directory');
  await append(log, 1, 1);
  let refused = 0;
  fs.rule = ({ name }) => (name === 'syncDirectory' && refused++ === 0 ? 'EMFILE' : undefined);
  const second = log.flush(toOffset(2));
  release();
  expect(await first).toBe('RESOURCE_LIMIT');
  await second;
  expect(log.durableOffset).toBe(2);
});

test('a flush that waits for one that fails for good is not tried (invariant 3)', async () => {
  const opened = await openLog();
  const { fs, log } = opened;
  const { flushed, release } = await heldFlush(opened);
  const reasons = [reasonOf(flushed), reasonOf(log.flush(toOffset(2)))];
  fs.rule = ({ name }) => (name === 'fdatasync' ? 'EIO' : undefined);
  const syncs = fs.count('fdatasync');
  release();
  expect(await Promise.all(reasons)).toEqual(['STORAGE_ERROR', 'STORAGE_ERROR']);
  expect(fs.count('fdatasync')).toBe(syncs + 1);
});

test('an append begins no segment when there is no file handle to sync the one before it (invariants 14, 20)', async () => {
  const rig = new DiskRig();
  const fs = new HeldSyncs(rig.disk);
  const log = await (await rig.open(fs)).open(partition(), EPOCH, TWO_BATCHES);
  await append(log, 0, 2);
  fs.rule = ({ name, path }) => (name === 'syncDirectory' && path === LOG_DIRECTORY ? 'EMFILE' : undefined);
  expect(await failureOf(append(log, 2, 1))).toMatchObject({
    reason: 'RESOURCE_LIMIT',
    outcome: 'none',
    retryable: true,
  });
  expect((await rig.disk.readdir(LOG_DIRECTORY)).filter((name) => name.endsWith('.log'))).toHaveLength(1);
  expect(log.endOffset).toBe(2);
  fs.rule = () => undefined;
  await append(log, 2, 1);
  expect(log.durableOffset).toBe(2);
});

test('of one log one sync is under way: of two the kernel would tell only one of an error (invariant 3)', async () => {
  const opened = await openLog();
  const { fs, log } = opened;
  const { flushed, release } = await heldFlush(opened);
  // Refused in the middle, so that the beginning must be cut off again, durably; then one over several segments.
  let writes = 0;
  fs.maxWriteBytes = 100;
  fs.rule = ({ name }) => (name === 'writevSync' && ++writes === 2 ? 'ENOSPC' : undefined);
  const refused = reasonOf(log.append([batchAt(2, { bytes: 50 })], toOffset(2)));
  fs.maxWriteBytes = Number.POSITIVE_INFINITY;
  const appended = append(log, 2, 5);
  await someTurns();
  release();
  await flushed;
  expect(await refused).toBe('STORAGE_FULL');
  expect(await appended).toBe(7);
  expect(fs.mostAtOnce).toBe(1);
  expect((await readAll(log)).length).toBe(7 * batchAt(0, SHAPE).length);
});

test('an append over several segments is not acknowledged when a flush fails meanwhile (invariant 3)', async () => {
  const opened = await openLog({ ...CONFIG, segmentBytes: 1000 });
  const { fs, log, engine } = opened;
  const { flushed, release } = await heldFlush(opened);
  const appended = reasonOf(append(log, 2, 3));
  let failed = 0;
  fs.rule = ({ name }) => (name === 'fdatasync' && failed++ === 0 ? 'EIO' : undefined);
  await someTurns();
  release();
  expect(await reasonOf(flushed)).toBe('STORAGE_ERROR');
  expect(await appended).toBe('STORAGE_ERROR');
  expect(log.endOffset).toBe(2);
  expect(log.durableOffset).toBe(1);
  await engine.close();
  expect(engine.openFileCount).toBe(0);
});

test('while a failed write is cut off, nothing more is appended or flushed (invariant 3)', async () => {
  const { fs, log } = await openLog();
  let writes = 0;
  fs.maxWriteBytes = 100;
  fs.rule = ({ name }) => (name === 'writevSync' && ++writes === 2 ? 'EIO' : undefined);
  const release = fs.hold();
  const before = fs.heldCount;
  const failed = reasonOf(append(log, 1, 1));
  const next = reasonOf(append(log, 1, 1));
  await someTurns();
  release();
  expect(await failed).toBe('STORAGE_ERROR');
  expect(await next).toBe('STORAGE_ERROR');
  expect(fs.heldCount).toBeLessThanOrEqual(before + 1);
  expect(log.endOffset).toBe(1);
});
