/** Files beside the files of a log: what faults, crashes and lost records leave of them (invariants 15, 19, 20). */
import { existsSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { crc32c } from '../../src/batch/crc32c.js';
import { verifyDataDir } from '../../src/cli/log-verify.js';
import { Output } from '../../src/cli/output.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { CHECKPOINT_NAME } from '../../src/storage/local/checkpoint.js';
import { verifyDataDirectory } from '../../src/storage/local/verify.js';
import { Programme } from '../support/programme.js';
import { byProducer, keyed } from './compaction/support.js';
import { problemsOf } from './keyed.js';
import { DiskRig } from './power-cuts.js';
import { batchAt, CONFIG, EPOCH, failureOf, fill, LocalRig, partition, patch, reasonOf } from './support.js';

async function openLog(rig: LocalRig, epoch = EPOCH): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), epoch, CONFIG);
}

function write(log: PartitionLog, offset: number, text: string): Promise<void> {
  return log.sideFiles.write('snapshot', toOffset(offset), Buffer.from(text));
}

async function textOf(log: PartitionLog, offset: number): Promise<string | undefined> {
  return (await log.sideFiles.read('snapshot', toOffset(offset)))?.toString();
}

function namesOf(rig: LocalRig): readonly string[] {
  return readdirSync(rig.directory()).filter((name) => /snapshot|txnindex/.test(name));
}

/** An intact snapshot, as far as storage knows: version, CRC, and whatever follows. */
function snapshotOf(text: string): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(6), Buffer.from(text)]);
  bytes.writeInt16BE(1, 0);
  bytes.writeUInt32BE(crc32c(bytes.subarray(6)), 2);
  return bytes;
}

test('opening a log lists its side files without looking at them', async () => {
  const rig = new LocalRig();
  const log = await openLog(rig);
  await fill(log, 9);
  for (const offset of [9, 1]) await write(log, offset, 'state');
  await log.flush(log.endOffset);
  const after = rig.crash();
  const again = await openLog(after, toEpoch(2));
  expect(again.sideFiles.offsets('snapshot')).toEqual([1, 9]);
  expect(after.fs.calls.filter(({ path }) => path.endsWith('.snapshot'))).toEqual([]);
});

test('a start removes what a write has left that did not come to its end, and leaves other names alone', async () => {
  const rig = new LocalRig();
  const log = await openLog(rig);
  await fill(log, 1);
  await write(log, 1, 'state');
  writeFileSync(rig.file(1, '.snapshot.tmp'), 'half a');
  writeFileSync(rig.file(0, '.txnindex.tmp'), 'half a');
  writeFileSync(`${rig.directory()}/1.snapshot`, 'foreign');
  const after = rig.crash();
  const again = await openLog(after, toEpoch(2));
  expect([again.sideFiles.offsets('snapshot'), again.sideFiles.offsets('txnindex')]).toEqual([[1], []]);
  expect(namesOf(after)).toEqual(['00000000000000000001.snapshot', '1.snapshot']);
});

test('what lies above the end of a log that has lost records is gone, for good', async () => {
  const rig = new LocalRig();
  const log = await openLog(rig);
  await fill(log, 4);
  for (const offset of [2, 3, 4]) await write(log, offset, `state at ${offset}`);
  const after = rig.crash();
  // The last batch, of which nobody was told that it is durable.
  patch(after.file(), (bytes) => bytes.subarray(0, bytes.length - 5));
  const again = await openLog(after, toEpoch(2));
  expect([again.endOffset, again.sideFiles.offsets('snapshot')]).toEqual([3, [2, 3]]);
  expect(existsSync(after.file(4, '.snapshot'))).toBe(false);
  await fill(again, 2);
  expect(await textOf(again, 4)).toBeUndefined();
});

test('what was removed for that does not come back with a power cut, once other records have its offsets', async () => {
  const first = new DiskRig();
  const engine = await first.open();
  await fill(await engine.open(partition(), EPOCH, CONFIG), 1);
  await engine.close();
  const second = first.cut();
  const lost = await (await second.open()).open(partition(), toEpoch(2), CONFIG);
  await fill(lost, 1);
  await write(lost, 2, 'state that is lost');
  const third = second.cut();
  const log = await (await third.open()).open(partition(), toEpoch(3), CONFIG);
  expect([log.endOffset, log.sideFiles.offsets('snapshot')]).toEqual([1, []]);
  await fill(log, 1);
  await log.flush(log.endOffset);
  const found = await (await third.cut().open()).open(partition(), toEpoch(4), CONFIG);
  expect([found.endOffset, found.sideFiles.offsets('snapshot')]).toEqual([2, []]);
});

test('a file that is larger than any is passed over, and one that is not there as well', async () => {
  const rig = new LocalRig();
  const log = await openLog(rig);
  await fill(log, 2);
  await write(log, 1, 'state');
  await write(log, 2, 'state');
  const after = rig.crash();
  const again = await openLog(after, toEpoch(2));
  // Sparse: 65 MiB that take no room.
  truncateSync(after.file(2, '.snapshot'), 65 * 1024 * 1024);
  rmSync(after.file(1, '.snapshot'));
  expect([await textOf(again, 1), await textOf(again, 2)]).toEqual([undefined, undefined]);
  expect(after.messages('warn')).toEqual([expect.stringMatching(/too large/)]);
});

test('closing a log waits for the writes that were asked for, and removing one as well', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, CONFIG);
  const writes = Promise.all(Array.from({ length: 20 }, (_, i) => write(log, 0, `state ${i}`)));
  await log.close();
  await writes;
  const again = await engine.open(partition(), EPOCH, CONFIG);
  expect(await textOf(again, 0)).toBe('state 19');
  const late = write(again, 0, 'late');
  await engine.remove(partition());
  await late;
  expect(existsSync(rig.directory())).toBe(false);
});

test('a write that waits while another epoch takes over is refused', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, CONFIG);
  const [first, second] = [write(log, 0, 'first'), reasonOf(write(log, 0, 'second'))];
  const newer = await engine.open(partition(), toEpoch(2), CONFIG);
  await first.catch(() => undefined);
  expect(await second).toBe('FENCED_EPOCH');
  expect(await textOf(newer, 0)).not.toBe('second');
});

describe('a fault', () => {
  test.each([
    ['ENOSPC', 'STORAGE_FULL'],
    ['EMFILE', 'RESOURCE_LIMIT'],
    ['EIO', 'STORAGE_ERROR'],
  ] as const)('(%s) of a write leaves the old file and no half of the new one', async (errno, reason) => {
    const rig = new LocalRig();
    const log = await openLog(rig);
    await fill(log, 1);
    await write(log, 0, 'old');
    rig.fs.rule = ({ name, path }) => (name === 'openSync' && /snapshot/.test(path) ? errno : undefined);
    expect(await failureOf(write(log, 0, 'new'))).toMatchObject({ reason });
    rig.fs.rule = ({ name }) => (name === 'fdatasync' ? errno : undefined);
    expect(await failureOf(write(log, 1, 'new'))).toMatchObject({ reason });
    rig.fs.rule = () => undefined;
    expect([log.sideFiles.offsets('snapshot'), await textOf(log, 0)]).toEqual([[0], 'old']);
    expect(namesOf(rig)).toEqual(['00000000000000000000.snapshot']);
    expect(log.failure).toBeUndefined();
    await write(log, 1, 'new');
    await log.append([batchAt(1)], toOffset(1));
  });

  test('at any one call leaves the old file or the new one, and the log says which are there', async (context) => {
    const programme = new Programme(context, 1);
    let isClean = false;
    for (let failing = 1; !isClean; failing++) {
      const rig = new LocalRig();
      rig.fs.skipsDisk = true;
      const log = await openLog(rig);
      await fill(log, 2);
      await write(log, 1, 'old');
      await write(log, 2, 'doomed');
      const before = rig.fs.calls.length;
      rig.fs.rule = ({ number }) => (number === before + failing ? 'EIO' : undefined);
      const replaced = await succeeds(write(log, 1, 'new'));
      const removed = await succeeds(log.sideFiles.remove('snapshot', toOffset(2)));
      const added = await succeeds(write(log, 0, 'added'));
      isClean = rig.fs.calls.length < before + failing;
      rig.fs.rule = () => undefined;
      const found = await textOf(log, 1);
      expect(replaced ? ['new'] : ['old', 'new'], `call ${failing}`).toContain(found);
      const added0 = await textOf(log, 0);
      if (added) expect(added0).toBe('added');
      if (!removed) expect(await textOf(log, 2)).toBe('doomed');
      const there = [...(added0 === undefined ? [] : [0]), 1, ...(removed ? [] : [2])];
      expect(log.sideFiles.offsets('snapshot'), `call ${failing}`).toEqual(there);
      const again = await openLog(rig.crash(), toEpoch(2));
      expect([again.sideFiles.offsets('snapshot'), await textOf(again, 1)]).toEqual([there, found]);
      await write(log, 1, 'later');
      expect(await textOf(log, 1)).toBe('later');
      programme.tried('faults');
    }
  });
});

async function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

describe('segments that name producers', () => {
  /** A log of a segment with producers, one without, and one with again, put in order. */
  async function written(): Promise<LocalRig> {
    const rig = new LocalRig();
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, CONFIG);
    for (const [at, shape] of [byProducer(1), {}, byProducer(2)].entries()) {
      await log.append([keyed(at, ['k=v'], shape)], toOffset(at));
      if (at < 2) await log.roll();
    }
    await engine.close();
    return rig;
  }

  async function producersOf(rig: LocalRig): Promise<readonly boolean[]> {
    const log = await openLog(rig, toEpoch(2));
    return log.segments().map(({ hasProducers }) => hasProducers);
  }

  function patchCheckpoint(rig: LocalRig, change: (text: string) => string): void {
    patch(`${rig.directory()}/${CHECKPOINT_NAME}`, (bytes) => {
      const json = change(bytes.toString().split('\n')[0] ?? '');
      return Buffer.from(`${json}\n${crc32c(Buffer.from(json)).toString(16).padStart(8, '0')}\n`);
    });
  }

  test('are known by the checkpoint, and by their batches where there is none', async () => {
    const rig = await written();
    const scanned = rig.crash();
    patch(`${scanned.directory()}/${CHECKPOINT_NAME}`, () => Buffer.from('no checkpoint'));
    expect([await producersOf(rig), await producersOf(scanned)]).toEqual([
      [true, false, true],
      [true, false, true],
    ]);
    expect(rig.fs.count('pread', /\.log$/)).toBe(0);
  });

  test('are none in a checkpoint that does not say, as those of earlier versions', async () => {
    const rig = await written();
    patchCheckpoint(rig, (json) => json.replaceAll(/,"hasProducers":(true|false)/g, ''));
    expect(await producersOf(rig)).toEqual([false, false, false]);
  });

  test('are those that grew since their checkpoint, and those that are damaged', async () => {
    const rig = await written();
    const grown = rig.crash();
    // The first segment has more than the checkpoint vouches for.
    patchCheckpoint(grown, (json) =>
      json.replace(/"sizeInBytes":\d+/, '"sizeInBytes":1').replace('"hasProducers":true', '"hasProducers":false'),
    );
    expect((await producersOf(grown))[0]).toBe(true);
    const damaged = rig.crash();
    patch(damaged.file(1), (bytes) => bytes.fill(0xff, 60, 65));
    patch(`${damaged.directory()}/${CHECKPOINT_NAME}`, () => Buffer.from('no checkpoint'));
    expect(await producersOf(damaged)).toEqual([true, true, true]);
  });
});

describe('log verify', () => {
  async function snapshots(rig: LocalRig): Promise<unknown> {
    let problems: readonly unknown[] = [];
    for await (const report of verifyDataDirectory(rig.dataDir)) problems = report.snapshotProblems;
    return problems;
  }

  test('finds nothing wrong with intact snapshots and other side files', async () => {
    const rig = new LocalRig();
    const log = await openLog(rig);
    await fill(log, 2);
    await log.sideFiles.write('snapshot', toOffset(2), snapshotOf('state'));
    await log.sideFiles.write('snapshot', toOffset(0), snapshotOf(''));
    await log.sideFiles.write('txnindex', toOffset(0), Buffer.from('whatever'));
    await log.flush(log.endOffset);
    expect(await problemsOf(rig.dataDir)).toEqual([]);
  });

  test('prints a snapshot that does not hold, and ends well', async () => {
    const rig = new LocalRig();
    const log = await openLog(rig);
    await fill(log, 2);
    await log.sideFiles.write('snapshot', toOffset(2), snapshotOf('state').fill(0, 8));
    await log.flush(log.endOffset);
    const lines: string[] = [];
    const write = (chunk: Buffer, _encoding: string, done: () => void): void => {
      lines.push(...chunk.toString().split('\n'));
      done();
    };
    const output = new Output(new Writable({ write }));
    await verifyDataDir(rig.dataDir, output);
    await output.flush();
    const what = 'byte 0, offset 2: its checksum does not match (will be rebuilt)';
    expect(lines).toContain(`snapshot: ${rig.file(2, '.snapshot')}, ${what}`);
    expect(lines).toContain('No corruption, 1 snapshot to rebuild.');
  });

  test('finds every flipped bit of a snapshot and every cut, and takes them for no corruption (invariant 13)', async () => {
    const rig = new LocalRig();
    const log = await openLog(rig);
    await fill(log, 2);
    await log.flush(log.endOffset);
    const intact = snapshotOf('state of some producers');
    await log.sideFiles.write('snapshot', toOffset(2), intact);
    const path = rig.file(2, '.snapshot');
    for (let bit = 0; bit < intact.length * 8; bit++) {
      const flipped = Buffer.from(intact);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      writeFileSync(path, flipped);
      expect(await snapshots(rig), `bit ${bit}`).toMatchObject([{ file: path, offset: 2 }]);
    }
    for (let length = 0; length < intact.length; length++) {
      writeFileSync(path, intact.subarray(0, length));
      expect(await snapshots(rig), `${length} bytes`).toHaveLength(1);
    }
    for await (const { problemCount } of verifyDataDirectory(rig.dataDir)) expect(problemCount).toBe(0);
  });
});
