/** What is kept beside the log to find things quickly, and the limits on it (TESTING invariants 19, 21). */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { baseOffsetOf } from '../../src/batch/layout.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig, PartitionLog } from '../../src/storage/engine.js';
import { FileCache } from '../../src/storage/local/file-cache.js';
import { nodeFileSystem } from '../../src/storage/local/fs.js';
import { OffsetIndex } from '../../src/storage/local/offset-index.js';
import { LogTail, TailCache } from '../../src/storage/local/tail-cache.js';
import { TimeIndex } from '../../src/storage/local/time-index.js';
import {
  BASE_TIME,
  basesOf,
  batchAt,
  CONFIG,
  END,
  EPOCH,
  fill,
  LocalRig,
  partition,
  patch,
  readAll,
} from './support.js';

const DENSE: LogConfig = { ...CONFIG, segmentBytes: 4000, indexIntervalBytes: 100 };

async function basesRead(log: PartitionLog): Promise<readonly (number | undefined)[]> {
  const all: (number | undefined)[] = [];
  for (let offset = 0; offset < log.endOffset; offset++) {
    all.push(basesOf(await log.read(toOffset(offset), END, 1))[0]);
  }
  return all;
}

async function basesByTime(log: PartitionLog): Promise<readonly (number | undefined)[]> {
  const all: (number | undefined)[] = [];
  for (let delta = 0; delta < log.endOffset; delta++) all.push(await log.batchForTime(BASE_TIME + delta));
  return all;
}

/** Base offset of the batch served for every offset, and the answer for every time, in turns. */
async function answers(log: PartitionLog): Promise<readonly (number | undefined)[]> {
  const all: (number | undefined)[] = [];
  for (let offset = 0; offset < log.endOffset; offset++) {
    all.push(basesOf(await log.read(toOffset(offset), END, 1))[0]);
    all.push(await log.batchForTime(BASE_TIME + offset));
  }
  return all;
}

/** Calls `change` with the position of each entry. */
function eachEntry(bytes: Buffer, entryBytes: number, change: (at: number) => void): Buffer {
  for (let at = 0; at < bytes.length; at += entryBytes) change(at);
  return bytes;
}

function lower(bytes: Buffer, at: number, by: number): void {
  bytes[at] = Math.max(bytes[at]! - by, 0);
}

describe('indexes', () => {
  /** Both kinds of entries end in a 32-bit integer: the position of a batch, or an offset. */
  const lies: Record<string, (bytes: Buffer, entryBytes: number) => Buffer> = {
    'a little beyond': (bytes, entryBytes) => eachEntry(bytes, entryBytes, (at) => bytes[at + entryBytes - 1]!++),
    'of the batch behind': (bytes, entryBytes) => {
      const rest = Buffer.from(bytes.subarray(entryBytes));
      return eachEntry(rest, entryBytes, (at) => bytes.copy(rest, at, at, at + entryBytes - 4));
    },
  };
  const spoil: Record<string, (path: string) => void> = {
    removed: (path) => rmSync(path),
    emptied: (path) => truncateSync(path, 0),
    cut: (path) => truncateSync(path, 13),
    'full of zeros': (path) => patch(path, (bytes) => bytes.fill(0)),
    'full of rubbish': (path) => patch(path, (bytes) => bytes.fill(0x5a)),
    'one bit off': (path) => patch(path, (bytes) => bytes.fill(bytes[7]! ^ 4, 7, 8)),
    'some time early': (path) => {
      if (path.endsWith('.timeindex')) patch(path, (bytes) => eachEntry(bytes, 12, (at) => lower(bytes, at + 7, 8)));
    },
    'of another segment': (path) => writeFileSync(path, Buffer.alloc(24, 1)),
  };

  test.each(Object.keys(spoil))('that are %s change no answer (invariant 19)', async (how) => {
    const first = new LocalRig({ tailCacheBytes: 0 });
    const engine = await first.open();
    const log = await engine.open(partition(), EPOCH, DENSE);
    await fill(log, 60, { count: 2, bytes: 50 });
    const expected = await answers(log);
    await engine.close();
    const rig = first.crash();
    for (const name of readdirSync(rig.directory()))
      if (name.endsWith('index')) spoil[how]!(join(rig.directory(), name));
    const second = await rig.open();
    const again = await second.open(partition(), toEpoch(2), DENSE);
    expect(await answers(again)).toEqual(expected);
    await fill(again, 3, { count: 2, bytes: 50 });
    expect((await answers(again)).slice(0, expected.length)).toEqual(expected);
    await second.close();
    // Closing wrote them anew.
    const third = rig.crash();
    expect((await answers(await (await third.open()).open(partition(), toEpoch(3), DENSE))).slice(0, 200)).toEqual(
      expected.slice(0, 200),
    );
  });

  test.each(Object.keys(lies))(
    'whose entries lie (%s) although their checksum holds change no answer (invariant 19)',
    async (how) => {
      const rig = new LocalRig({ tailCacheBytes: 0 });
      const engine = await rig.open();
      const log = await engine.open(partition(), EPOCH, DENSE);
      await fill(log, 40, { count: 2, bytes: 50 });
      const expected = await answers(log);
      await log.close();
      const path = join(rig.directory(), 'checkpoint');
      const { crc32c } = await import('../../src/batch/crc32c.js');
      const { decodeCheckpoint, encodeCheckpoint } = await import('../../src/storage/local/checkpoint.js');
      const checkpoint = decodeCheckpoint(readFileSync(path));
      if (typeof checkpoint === 'string') throw new Error(checkpoint);
      const segments = checkpoint.segments.map((segment) => {
        const lie = (suffix: string): number => {
          patch(rig.file(segment.baseOffset, suffix), (bytes) => lies[how]!(bytes, suffix === '.index' ? 8 : 12));
          return crc32c(readFileSync(rig.file(segment.baseOffset, suffix)));
        };
        return { ...segment, offsetIndexCrc: lie('.index'), timeIndexCrc: lie('.timeindex') };
      });
      writeFileSync(path, encodeCheckpoint({ ...checkpoint, segments }));
      // Each from the files: whoever meets the lie first makes the index right for the others.
      const readers = [basesRead, basesByTime, answers];
      const found = await Promise.all(
        readers.map(async (ask) => ask(await (await rig.crash().open()).open(partition(), toEpoch(2), DENSE))),
      );
      expect(found).toEqual([expected.filter((_, i) => i % 2 === 0), expected.filter((_, i) => i % 2 === 1), expected]);
    },
  );

  test('round-trip, and are refused when cut or out of order', () => {
    const offsets = new OffsetIndex();
    const times = new TimeIndex();
    for (let i = 1; i <= 100; i++) {
      offsets.add(i * 10, i * 1000);
      times.add(BASE_TIME + i * 5, i * 10);
    }
    times.add(BASE_TIME, 2000);
    expect(times.count).toBe(100);
    const decoded = OffsetIndex.decode(offsets.encode())!;
    expect(decoded.encode()).toEqual(offsets.encode());
    expect(TimeIndex.decode(times.encode())!.encode()).toEqual(times.encode());
    expect([0, 9, 10, 19, 1000, 5000].map((offset) => decoded.floor(offset).position)).toEqual([
      0, 0, 1000, 1000, 100000, 100000,
    ]);
    expect([4, 5, 6, 500, 501].map((delta) => times.ceiling(BASE_TIME + delta)?.relativeOffset)).toEqual([
      10,
      10,
      20,
      1000,
      undefined,
    ]);
    expect([10, 11, 5000].map((offset) => times.lastBelow(offset)?.relativeOffset)).toEqual([undefined, 10, 1000]);
    expect([0, 9, 10, 1000].map((offset) => decoded.positionAbove(offset))).toEqual([1000, 1000, 2000, undefined]);
    expect([0, 1000, 1001].map((position) => decoded.entryAtPosition(position))).toEqual([-1, 0, -1]);
    expect(OffsetIndex.decode(offsets.encode().subarray(1))).toBeUndefined();
    expect(OffsetIndex.decode(Buffer.alloc(16))).toBeUndefined();
    expect(TimeIndex.decode(Buffer.alloc(24))).toBeUndefined();
  });
});

test('a clean start reads no log and no index, whatever their size', async () => {
  const first = new LocalRig();
  const engine = await first.open();
  for (let n = 0; n < 10; n++) await fill(await engine.open(partition(n), EPOCH, CONFIG), 20, { bytes: 100_000 });
  await engine.close();
  const again = new LocalRig({}, first.dataDir);
  const second = await again.open();
  for (let n = 0; n < 10; n++) {
    const log = await second.open(partition(n), toEpoch(2), CONFIG);
    expect([log.endOffset, log.durableOffset]).toEqual([20, 20]);
  }
  expect(again.fs.bytesRead).toBeLessThan(20_000);
  expect(
    again.fs.calls.filter((call) => /\.(log|index|timeindex)$/.test(call.path) && call.name === 'openSync'),
  ).toHaveLength(1);
  expect(again.messages('warn')).toEqual([]);
});

test('after kill -9 only logs that grew since they were closed are scanned', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  for (let n = 0; n < 3; n++) await fill(await engine.open(partition(n), EPOCH, CONFIG), 5, { bytes: 100_000 });
  await engine.close();
  const second = await rig.open();
  await fill(await second.open(partition(0), toEpoch(2), CONFIG), 1);
  await second.open(partition(1), toEpoch(2), CONFIG);
  const killed = rig.crash();
  const third = await killed.open();
  for (let n = 0; n < 3; n++) await third.open(partition(n), toEpoch(3), CONFIG);
  const scanned = killed.fs.calls.filter((call) => call.name === 'pread' && call.path.endsWith('0.log'));
  expect(new Set(scanned.map((call) => call.path))).toEqual(new Set([killed.file(0)]));
});

test('500 partitions work with 16 file handles', async () => {
  const rig = new LocalRig({ maxOpenFiles: 16, tailCacheBytes: 0 });
  const engine = await rig.open();
  const logs: PartitionLog[] = [];
  let most = 0;
  const look = (): void => {
    most = Math.max(most, rig.fs.openPaths.filter((path) => /\d{20}\.log$/.test(path)).length);
  };
  for (let n = 0; n < 500; n++) logs.push(await engine.open(partition(n), EPOCH, CONFIG));
  await Promise.all(
    logs.map(async (log, n) => {
      await log.append([batchAt(0, { timestampMs: BASE_TIME + n })], toOffset(0));
      look();
    }),
  );
  await Promise.all(logs.map(async (log) => fill(log, 1).then(look)));
  await Promise.all(
    logs.map(async (log) => {
      expect(basesOf(await log.read(toOffset(0), END, 1e6))).toEqual([0, 1]);
      look();
    }),
  );
  expect(most).toBeLessThanOrEqual(16);
  expect(most).toBeGreaterThan(8);
  expect(engine.openFileCount).toBeLessThanOrEqual(16);
});

test('a file that is written to while it is synced for its handle does not keep others waiting for ever', async () => {
  const files = new FileCache(nodeFileSystem, 1);
  const directory = mkdtempSync(join(tmpdir(), 'tidelog-handles-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const [busy, other] = [join(directory, 'busy'), join(directory, 'other')];
  const pinned = await files.acquire(busy, 'create');
  let syncs = 0;
  files.pin(busy, async () => {
    syncs++;
    // Only by then nothing was written meanwhile.
    if (syncs < 3) return true;
    files.unpin(busy);
    pinned.release();
    return true;
  });
  (await files.acquire(other, 'create')).release();
  expect(syncs).toBe(3);
  files.closeIdle();
});

test('the tail cache holds no more than its limit and drops what is oldest over all logs', () => {
  const cache = new TailCache(10_000);
  const tails = [new LogTail(cache), new LogTail(cache)];
  for (let i = 0; i < 100; i++) {
    tails[i % 2]!.push(batchAt(Math.floor(i / 2), { bytes: 500 }));
    expect(cache.byteLength).toBeLessThanOrEqual(10_000);
  }
  for (const tail of tails) {
    expect(tail.read(toOffset(20), END, 1)).toBeUndefined();
    expect(baseOffsetOf(tail.read(toOffset(49), END, 1)!.chunks[0]!, 0)).toBe(49);
    expect(tail.read(toOffset(50), END, 1)).toBeUndefined();
  }
  tails[0]!.clear();
  tails[1]!.clear();
  expect(cache.byteLength).toBe(0);
});

test('a reader at the tail touches no file', async () => {
  const rig = new LocalRig();
  const log = await (await rig.open()).open(partition(), EPOCH, CONFIG);
  await fill(log, 10);
  await readAll(log);
  expect(rig.fs.count('pread', /0\.log$/) + rig.fs.count('preadSync', /0\.log$/)).toBe(0);
});

test('reading on reads every byte about once', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, { ...CONFIG, segmentBytes: 300_000 });
  await fill(log, 200, { bytes: 5000 });
  const { length } = await readAll(log, 0, 20_000);
  expect(rig.fs.bytesRead).toBeLessThan(length * 1.5);
});

test('a read that is under way when its segment is trimmed or removed ends in bytes or a typed error', async () => {
  const rig = new LocalRig({ tailCacheBytes: 0, maxOpenFiles: 2 });
  const engine = await rig.open();
  for (let round = 0; round < 20; round++) {
    const log = await engine.open(partition(round), EPOCH, { ...CONFIG, segmentBytes: 1000 });
    const batches = await fill(log, 10, { bytes: 400 });
    const reads = batches.map((batch, i) =>
      log.read(toOffset(i), END, 1).then(
        (slice) => expect(Buffer.concat(slice.chunks)).toEqual(batch),
        (error: unknown) =>
          expect(error).toMatchObject({ reason: expect.stringMatching(/OFFSET_OUT_OF_RANGE|CLOSED/) }),
      ),
    );
    const change = round % 2 === 0 ? log.trim(toOffset(8)) : engine.remove(partition(round));
    await Promise.all([...reads, change]);
  }
});

test('trimming removes whole segments, their indexes and their handles', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, { ...CONFIG, segmentBytes: 1000 });
  await fill(log, 10, { bytes: 400 });
  await log.trim(toOffset(7));
  expect(log.stats().segmentCount).toBe(2);
  for (const base of [0, 2, 4])
    for (const suffix of ['.log', '.index', '.timeindex']) expect(existsSync(rig.file(base, suffix))).toBe(false);
  expect(existsSync(rig.file(6))).toBe(true);
  expect(
    rig.fs.openPaths.filter((path) => path.endsWith('.log') && path.startsWith(rig.directory())).length,
  ).toBeLessThanOrEqual(2);
});
