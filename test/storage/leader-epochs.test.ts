/** Leader epochs, which no CRC covers, are noted before the batches that carry them (TESTING invariants 13, 20). */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import { batchAt, CONFIG, EPOCH, failureOf, fill, LocalRig, partition, patch, readAll, reasonOf } from './support.js';

const POINTS = /recovery-point-offset-checkpoint/;
/** Of the least byte of the leader epoch in a batch. */
const EPOCH_AT = 15;

const points = (rig: LocalRig): string => readFileSync(join(rig.dataDir, 'recovery-point-offset-checkpoint'), 'utf8');

test('one write notes the epochs of all logs that are open, and their appends wait for no other', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const logs = await Promise.all([0, 1, 2].map((n) => engine.open(partition(n), EPOCH, CONFIG)));
  expect(rig.fs.count('fdatasync', POINTS)).toBe(0);
  for (const log of logs) await fill(log, 2);
  expect(rig.fs.count('fdatasync', POINTS)).toBe(1);
  for (const n of [0, 1, 2]) expect(points(rig)).toContain(`${partition(n).topicId} 0 0 0 0:1\n`);
});

test('the first appends of many logs, which have waited for one write, go on in turns (invariant 22)', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const logs = await Promise.all(Array.from({ length: 300 }, (_, n) => engine.open(partition(n), EPOCH, CONFIG)));
  const opened = (): number => rig.fs.count('openSync', /0\.log$/);
  const perTurn: number[] = [];
  let isDone = false;
  let before = 0;
  const look = (): void => {
    const now = opened();
    perTurn.push(now - before);
    before = now;
    if (!isDone) setImmediate(look);
  };
  setImmediate(look);
  await Promise.all(logs.map((log) => fill(log, 1)));
  isDone = true;
  expect(opened()).toBe(300);
  expect(Math.max(...perTurn)).toBeLessThan(150);
  expect(rig.fs.count('fdatasync', POINTS)).toBe(1);
});

test('a flipped epoch is found in batches that no checkpoint knows, also where the epochs change (invariant 13)', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const first = await rig.open();
  await fill(await first.open(partition(), EPOCH, CONFIG), 2);
  const killed = rig.crash();
  const second = await killed.open();
  await fill(await second.open(partition(), toEpoch(2), CONFIG), 2, { leaderEpoch: 2 });
  const size = batchAt(0).length;
  for (const at of [0, 1, 2]) {
    const flipped = killed.crash();
    patch(flipped.file(), (bytes) => {
      bytes[at * size + EPOCH_AT]! ^= 3;
    });
    const log = await (await flipped.open()).open(partition(), toEpoch(3), CONFIG);
    expect(await failureOf(log.read(toOffset(at), toOffset(4), 1))).toMatchObject({
      reason: 'CORRUPT_LOG',
      metadata: { offset: String(at), next_valid_offset: String(at + 1) },
    });
    expect(log.endOffset).toBe(4);
  }
});

test('an epoch that was noted by a start that appended nothing does not stand in the way of the next', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const idle = await rig.open();
  await idle.open(partition(), toEpoch(5), CONFIG);
  await fill(await idle.open(partition(1), toEpoch(5), CONFIG), 1, { leaderEpoch: 5 });
  const next = rig.crash();
  const log = await (await next.open()).open(partition(), toEpoch(6), CONFIG);
  const batches = await fill(log, 3, { leaderEpoch: 6 });
  const recovered = await (await next.crash().open()).open(partition(), toEpoch(7), CONFIG);
  expect(await readAll(recovered)).toEqual(Buffer.concat(batches));
});

test.each(['ENOSPC', 'EIO', 'EMFILE'])(
  'an append whose epoch cannot be noted (%s) is refused; the next one is taken (invariant 20)',
  async (errno) => {
    const rig = new LocalRig();
    const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
    rig.fs.rule = ({ path, name }) => (POINTS.test(path) && name === 'openSync' ? errno : undefined);
    const failure = await failureOf(log.append([batchAt(0)], toOffset(0)));
    expect(failure.outcome).toBe('none');
    expect(log.endOffset).toBe(0);
    rig.fs.rule = () => undefined;
    await fill(log, 1);
    expect(log.endOffset).toBe(1);
  },
);

test('handles of files that nobody uses are given back to note an epoch, and to move the log start (invariant 20)', async () => {
  for (const file of [POINTS, /checkpoint\.tmp$/]) {
    const rig = new LocalRig();
    const engine = await rig.open();
    const idle = await engine.open(partition(1), EPOCH, CONFIG);
    await fill(idle, 1);
    await idle.flush(toOffset(1));
    const log = await engine.open(partition(), EPOCH, CONFIG);
    const mayOpen = (): boolean => !rig.fs.openPaths.includes(rig.file(0, '.log', partition(1)));
    rig.fs.rule = ({ path, name }) => (name === 'openSync' && file.test(path) && !mayOpen() ? 'EMFILE' : undefined);
    await fill(log, 2);
    await log.trim(toOffset(1));
    expect(log.startOffset).toBe(1);
    expect(mayOpen()).toBe(true);
  }
});

test('an older owner of the log cannot append after a newer one has noted its epoch', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const older = await engine.open(partition(), EPOCH, CONFIG);
  await fill(older, 1);
  const newer = await engine.open(partition(), toEpoch(2), CONFIG);
  const batches = await fill(newer, 1, { leaderEpoch: 2 });
  expect(await reasonOf(older.append([batchAt(2)], toOffset(2)))).toBe('FENCED_EPOCH');
  expect(points(rig)).toContain(' 0:1 1:2\n');
  const log = await (await rig.crash().open()).open(partition(), toEpoch(3), CONFIG);
  expect(await readAll(log, 1)).toEqual(batches[0]);
});

test('points of the format before, without epochs, are taken as they are', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  const batches = await fill(log, 3);
  const old = rig.crash();
  writeFileSync(join(old.dataDir, 'recovery-point-offset-checkpoint'), `0\n1\n${partition().topicId} 0 3\n`);
  const reopened = await (await old.open()).open(partition(), toEpoch(2), CONFIG);
  expect(await readAll(reopened)).toEqual(Buffer.concat(batches));
  expect(old.messages('warn')).toEqual([]);
});
