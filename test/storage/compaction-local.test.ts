/** Compaction over files: what readers, restarts, damages and a full disk meet (invariants 4, 13, 15, 19). */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { baseOffsetOf, maxTimestampOf, recordCountOf } from '../../src/batch/layout.js';
import { splitBatches } from '../../src/batch/validate.js';
import { type Offset, toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { ManualClock } from '../support/manual-clock.js';
import { consume, expectOneOfEachKey, fillKeyed, optionsFor, problemsOf, type Seen, SMALL } from './keyed.js';
import { BASE_TIME, END, EPOCH, failureOf, LocalRig, partition, patch } from './support.js';

function filesOf(rig: LocalRig): readonly string[] {
  return readdirSync(rig.directory()).sort();
}

async function openLog(rig: LocalRig, epoch = EPOCH, config = SMALL): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), epoch, config);
}

describe('a compacted log', () => {
  test('holds one record of each key, the same table, and the same offsets, after a restart as well', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig);
    await fillKeyed(log, 120);
    const before = await consume(log);
    const result = await log.compact(optionsFor(log));
    expect(result.passCount).toBe(1);
    expect(result.cleanedOffset).toBe(log.cleanedOffset);
    expect(result.bytesAfter).toBeLessThan(result.bytesBefore);
    expect(log.cleanedOffset).toBeGreaterThan(80);
    const after = await consume(log);
    expect(after.table).toEqual(before.table);
    expectOneOfEachKey(after, log.cleanedOffset);
    const known = new Map(before.records.map((record) => [record.offset, record]));
    for (const record of after.records) expect(record).toEqual(known.get(record.offset));

    const crashed = rig.crash({ tailCacheBytes: 0 });
    const again = await openLog(crashed, toEpoch(2));
    expect(await consume(again)).toEqual(after);
    expect(again.cleanedOffset).toBe(log.cleanedOffset);
    expect(crashed.messages('error')).toEqual([]);
    expect(await problemsOf(crashed.dataDir)).toEqual([]);
  });

  test('can be read from every offset, those of removed records included', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig);
    await fillKeyed(log, 120);
    await log.compact(optionsFor(log));
    const all = (await consume(log)).records;
    for (let from = 0; from < log.endOffset; from++) {
      for (const maxBytes of [1, 10_000]) {
        const seen = await consume(log, from, maxBytes);
        expect(seen.records).toEqual(all.filter(({ offset }) => offset >= from));
      }
    }
  });

  test('joins small segments, and is compacted again and again', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig);
    let table: ReadonlyMap<string, string> = new Map();
    for (let round = 0; round < 5; round++) {
      await fillKeyed(log, 100);
      table = (await consume(log)).table;
      await log.compact(optionsFor(log, { nowMs: BASE_TIME + round * 600 }));
      expect((await consume(log)).table).toEqual(table);
    }
    // Uncompacted, they would be some twenty.
    expect(log.stats().segmentCount).toBeLessThan(9);
    expectOneOfEachKey(await consume(log), log.cleanedOffset);
  });

  test('needs several passes when the keys do not fit', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig);
    for (let i = 0; i < 100; i++) {
      const record = { timestampMs: BASE_TIME, key: Buffer.from(`k${i % 60}`), value: Buffer.alloc(20, 'v') };
      await log.append([encodeBatch([record], { baseOffset: i, leaderEpoch: 1 })], toOffset(i));
    }
    await log.flush(log.endOffset);
    const before = await consume(log);
    const result = await log.compact(optionsFor(log, { maxMapBytes: 1 }));
    expect(result.passCount).toBeGreaterThan(3);
    const after = await consume(log);
    expect(after.table).toEqual(before.table);
    expectOneOfEachKey(after, log.cleanedOffset);
  });

  test('is found again by time, whatever was removed', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig);
    await fillKeyed(log, 120);
    await log.compact(optionsFor(log));
    const batches: Buffer[] = [];
    for (let at = log.startOffset; at < log.endOffset; ) {
      const slice = await log.read(at, END, 1e6);
      batches.push(...slice.chunks.flatMap(splitBatches));
      at = slice.nextOffset;
    }
    for (let time = -1; time <= 121; time++) {
      const found = await log.batchForTime(BASE_TIME + time);
      const expected = batches.find(
        (batch) => recordCountOf(batch, 0) > 0 && maxTimestampOf(batch, 0) >= BASE_TIME + time,
      );
      expect(found).toBe(expected && baseOffsetOf(expected, 0));
    }
  });

  test('keeps what lies above the limit, and its last segment', async () => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const log = await openLog(rig);
    await fillKeyed(log, 120);
    const segments = log.segments();
    const upTo = segments[2]!.nextOffset;
    const before = (await consume(log, upTo)).records;
    await log.compact(optionsFor(log, { upTo: toOffset(upTo + 1) }));
    expect(log.cleanedOffset).toBe(upTo);
    expect((await consume(log, upTo)).records).toEqual(before);
  });
});

describe('a compacted segment', () => {
  async function compacted(): Promise<{ rig: LocalRig; all: Seen }> {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, SMALL);
    await fillKeyed(log, 60);
    await log.compact(optionsFor(log));
    const all = await consume(log);
    await engine.close();
    return { rig, all };
  }

  test('answers the same without its indexes, and without the checkpoint (invariant 19)', async () => {
    const { rig, all } = await compacted();
    for (const lost of ['.index', '.timeindex', 'checkpoint', 'all indexes']) {
      const again = rig.crash({ tailCacheBytes: 0 });
      for (const name of filesOf(again)) {
        if (name.endsWith(lost) || (lost === 'all indexes' && name.endsWith('index')))
          rmSync(join(again.directory(), name));
      }
      expect(await consume(await openLog(again, toEpoch(2))), `without ${lost}`).toEqual(all);
    }
  });

  test('that is damaged keeps its log from being compacted further, and says where (invariant 13)', async () => {
    const { rig } = await compacted();
    const size = statSync(rig.file()).size;
    patch(rig.file(), (bytes) => {
      bytes[size - 5] = bytes[size - 5]! ^ 1;
      return bytes;
    });
    const log = await openLog(rig, toEpoch(2));
    await fillKeyed(log, 60);
    const failure = await failureOf(log.compact(optionsFor(log)));
    expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { file: rig.file() } });
    expect(await failureOf(log.compact(optionsFor(log)))).toMatchObject({ reason: 'CORRUPT_LOG' });
    expect(filesOf(rig).filter((name) => name.endsWith('.cleaned'))).toEqual([]);
  });
});

test('replaced files stay for a while under another name, and a reader in the middle of one finishes', async () => {
  const clock = new ManualClock(BASE_TIME);
  const rig = new LocalRig({ tailCacheBytes: 0, clock });
  const log = await openLog(rig);
  await fillKeyed(log, 120);
  const before = (await consume(log)).records;
  const reads = before.slice(0, 60).map(({ offset }) => log.read(toOffset(offset), END, 1));
  const compaction = log.compact(optionsFor(log));
  const slices = await Promise.all(reads);
  expect(slices.every(({ byteLength }) => byteLength > 0)).toBe(true);
  await compaction;
  const deleted = filesOf(rig).filter((name) => name.endsWith('.deleted'));
  expect(deleted.length).toBeGreaterThan(3);
  clock.advance(59_999);
  expect(clock.nextTimerMs).toBe(1);
  expect(filesOf(rig)).toEqual(expect.arrayContaining(deleted));
  clock.advance(1);
  await expect.poll(() => filesOf(rig).filter((name) => name.endsWith('.deleted'))).toEqual([]);
});

test('readers and a trim during compactions see each record at its offset or, when it was superseded, the next', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 200);
  const known = new Map((await consume(log)).records.map((record) => [record.offset, record.value]));
  let running = true;
  const readers = Array.from({ length: 4 }, async (_, n) => {
    let count = 0;
    while (running) {
      const from: Offset = toOffset(Math.max(log.startOffset, (count++ * 13 + n * 41) % log.endOffset));
      const seen = await consume(log, from).catch((error: unknown) => error);
      // The trim may pass a reader by.
      if (seen instanceof Error) expect(seen).toMatchObject({ reason: 'OFFSET_OUT_OF_RANGE' });
      else
        for (const record of (seen as Seen).records)
          if (known.has(record.offset)) expect(record.value).toBe(known.get(record.offset));
    }
    return count;
  });
  try {
    for (let round = 0; round < 8; round++) {
      const compaction = log.compact(optionsFor(log, { nowMs: BASE_TIME + round * 700 }));
      if (round % 3 === 2) await log.trim(toOffset(log.startOffset + 17));
      await compaction;
      await fillKeyed(log, 60);
    }
  } finally {
    running = false;
  }
  for (const count of await Promise.all(readers)) expect(count).toBeGreaterThan(3);
  expect(rig.messages('error')).toEqual([]);
});

test('a trim under a compaction ends it without harm, and a stop asked for as well', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 200);
  const compaction = log.compact(optionsFor(log));
  await log.trim(toOffset(100));
  await compaction;
  expect(log.startOffset).toBe(100);
  const signal = AbortSignal.abort();
  expect(await log.compact(optionsFor(log, { signal }))).toMatchObject({ passCount: 0 });
  await log.compact(optionsFor(log));
  expectOneOfEachKey(await consume(log), log.cleanedOffset);
  expect(filesOf(rig).filter((name) => /\.(cleaned|swap)$/.test(name))).toEqual([]);
});

test('closing a log ends its compaction', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, SMALL);
  await fillKeyed(log, 200);
  const { table } = await consume(log);
  const compaction = log.compact(optionsFor(log));
  await engine.close();
  await compaction;
  const again = await openLog(rig, toEpoch(2));
  expect((await consume(again)).table).toEqual(table);
  expect(rig.messages('error')).toEqual([]);
});

test('after a restart with nothing behind the compacted segments, appends go into a segment of their own', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, SMALL);
  await fillKeyed(log, 60);
  await log.roll();
  await log.compact(optionsFor(log, { upTo: log.endOffset }));
  expect(log.cleanedOffset).toBe(log.endOffset);
  await engine.close();
  const again = await openLog(rig, toEpoch(2));
  await fillKeyed(again, 10);
  const seen = await consume(again);
  const crashed = rig.crash({ tailCacheBytes: 0 });
  expect(await consume(await openLog(crashed, toEpoch(3)))).toEqual(seen);
  expect(crashed.messages('warn')).toEqual([]);
});

test('segments without any record left shrink to one header', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  for (let i = 0; i < 60; i++) {
    const record = { timestampMs: BASE_TIME, key: Buffer.from('only'), value: Buffer.alloc(50, 'v') };
    await log.append([encodeBatch([record], { baseOffset: i, leaderEpoch: 1 })], toOffset(i));
  }
  await log.flush(log.endOffset);
  await log.roll();
  await log.append(
    [
      encodeBatch([{ timestampMs: BASE_TIME, key: Buffer.from('only'), value: null }], {
        baseOffset: 60,
        leaderEpoch: 1,
      }),
    ],
    toOffset(60),
  );
  await log.flush(log.endOffset);
  await log.roll();
  await log.compact(optionsFor(log, { upTo: log.endOffset }));
  await log.compact(optionsFor(log, { upTo: log.endOffset }));
  expect((await consume(log)).records).toEqual([{ offset: 60, key: 'only', value: null }]);
  const first = (await log.read(toOffset(0), END, 1e6)).chunks.flatMap(splitBatches);
  expect(first.map((batch) => recordCountOf(batch, 0))).toEqual([0]);
  expect(log.endOffset).toBe(61);
});

test('what a full disk left of a replacement goes with the next compaction', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await openLog(rig);
  await fillKeyed(log, 120);
  const left = (): readonly string[] => filesOf(rig).filter((name) => /\.(cleaned|swap)$/.test(name));
  // Not even the checkpoint that says that nothing was decided can be written.
  rig.fs.rule = (call) =>
    call.path.endsWith('checkpoint.tmp') && left().some((name) => name.endsWith('.swap')) ? 'ENOSPC' : undefined;
  expect(await failureOf(log.compact(optionsFor(log)))).toMatchObject({ reason: 'STORAGE_FULL', outcome: 'none' });
  expect(left()).not.toEqual([]);
  rig.fs.rule = () => undefined;
  await log.trim(log.segments().at(-2)!.baseOffset);
  await log.compact(optionsFor(log));
  expect(left()).toEqual([]);
  const seen = await consume(log);
  expect(await consume(await openLog(rig.crash({ tailCacheBytes: 0 }), toEpoch(2)))).toEqual(seen);
});
