/** A compaction in which a call to the disk fails, or none works any more and the process ends (invariants 4, 15, 20). */
import { expect, test } from 'vitest';
import { toEpoch } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { type FaultRule, FaultyFileSystem } from '../support/faulty-file-system.js';
import { inForm, Programme } from '../support/programme.js';
import { consume, expectOneOfEachKey, fillKeyed, optionsFor, problemsOf, SMALL } from './keyed.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { BASE_TIME, EPOCH, partition } from './support.js';

const RECORDS = inForm({ short: 50, long: 120 });
const ERRNOS = ['ENOSPC', 'EMFILE', 'EIO'];

/** A log that was compacted twice, as far as the disk let it, and what a reader of it must find. */
interface Compacted {
  readonly rig: DiskRig;
  readonly fs: FaultyFileSystem;
  readonly log: PartitionLog;
  readonly table: ReadonlyMap<string, string>;
  /** Calls since the first compaction began. */
  readonly callCount: number;
}

async function openLog(rig: DiskRig, fs = new FaultyFileSystem(rig.disk), epoch = EPOCH): Promise<PartitionLog> {
  return await (await rig.open(fs)).open(partition(), epoch, SMALL);
}

/** @param rule for the calls from the first compaction on, which count from 1 */
async function compacted(rule: FaultRule = () => undefined): Promise<Compacted> {
  const rig = new DiskRig();
  const fs = new FaultyFileSystem(rig.disk);
  const log = await openLog(rig, fs);
  await fillKeyed(log, RECORDS);
  const { table } = await consume(log);
  const before = fs.calls.length;
  fs.rule = (call) => rule({ ...call, number: call.number - before });
  await log.compact(optionsFor(log)).catch(() => undefined);
  await log.compact(optionsFor(log, { nowMs: BASE_TIME + 5000 })).catch(() => undefined);
  return { rig, fs, log, table, callCount: fs.calls.length - before };
}

/** Another one on what a process that ends now leaves. */
function ended({ disk }: DiskRig): DiskRig {
  return new DiskRig(disk.survivors((limit) => limit));
}

async function expectIntact(rig: DiskRig, { log: { endOffset }, table }: Compacted, message: string): Promise<void> {
  const log = await openLog(rig, undefined, toEpoch(2));
  expect(log.endOffset, message).toBe(endOffset);
  const seen = await consume(log);
  expect(seen.table, message).toEqual(table);
  expectOneOfEachKey(seen, log.cleanedOffset);
  expect(rig.messages('error'), message).toEqual([]);
  const rubbish = (await rig.filesOfLog()).filter((name) => /\.(cleaned|swap|deleted)$/.test(name));
  expect(rubbish, message).toEqual([]);
  expect(await problemsOf(DATA_DIR, rig.disk), message).toEqual([]);
}

test('a process that stops at any call of a compaction leaves the old segments or the new ones, whole, and no rubbish', async (context) => {
  const programme = new Programme(context, 1);
  const { callCount } = await compacted();
  expect(callCount).toBeGreaterThan(50);
  for (let stopAt = 1; stopAt <= callCount; stopAt++) {
    const stopped = await compacted(({ number }) => (number >= stopAt ? 'EIO' : undefined));
    const after = ended(stopped.rig);
    expect(await problemsOf(DATA_DIR, after.disk), `stopped at call ${stopAt}, not started yet`).toEqual([]);
    await expectIntact(after, stopped, `stopped at call ${stopAt}`);
    await expectIntact(ended(after), stopped, `stopped at call ${stopAt}, started again`);
    programme.tried('stops');
  }
}, 120_000);

test.each([1, 3, 5])(
  'a start that stops at any call, behind a compaction that stopped after %i renames, is made up for by the next',
  async (renamed) => {
    let renames = 0;
    const stopped = await compacted(({ name, path }) => {
      if (name === 'renameSync' && path.endsWith('.swap')) renames++;
      return renames > renamed ? 'EIO' : undefined;
    });
    expect(renames).toBeGreaterThan(renamed);
    const whole = ended(stopped.rig);
    const callCount = await callsOfStart(ended(whole));
    expect(callCount).toBeGreaterThan(30);
    for (let stopAt = 1; stopAt <= callCount; stopAt++) {
      const again = ended(whole);
      await callsOfStart(again, stopAt);
      await expectIntact(ended(again), stopped, `the start stopped at call ${stopAt}`);
    }
  },
  120_000,
);

/**
 * Opens the log.
 * @param stopAt the call from which on all fail
 * @returns how many calls there were
 */
async function callsOfStart(rig: DiskRig, stopAt = Number.POSITIVE_INFINITY): Promise<number> {
  const fs = new FaultyFileSystem(rig.disk);
  fs.rule = ({ number }) => (number >= stopAt ? 'EIO' : undefined);
  await openLog(rig, fs, toEpoch(2)).catch(() => undefined);
  return fs.calls.length;
}

test('a call that fails once costs at most that compaction', async (context) => {
  const programme = new Programme(context, 1);
  const { callCount } = await compacted();
  for (let failAt = 1; failAt <= callCount; failAt++) {
    const errno = ERRNOS[failAt % ERRNOS.length]!;
    const failed = await compacted(({ number }) => (number === failAt ? errno : undefined));
    failed.fs.rule = () => undefined;
    const { log } = failed;
    await log.compact(optionsFor(log, { nowMs: BASE_TIME + 5000 }));
    const seen = await consume(log);
    expect(seen.table, `${errno} at call ${failAt}`).toEqual(failed.table);
    expectOneOfEachKey(seen, log.cleanedOffset);
    await expectIntact(ended(failed.rig), failed, `${errno} at call ${failAt}, started again`);
    programme.tried('faults');
  }
}, 120_000);
