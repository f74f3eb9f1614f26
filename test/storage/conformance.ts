/** What every storage engine must do. Run for each engine by a test file of its own. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nextOffsetOf } from '../../src/batch/layout.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog, StorageEngine } from '../../src/storage/engine.js';
import { describeCompaction, type Subject } from './conformance-compaction.js';
import { describeSideFiles } from './conformance-side-files.js';
import {
  BASE_TIME,
  basesOf,
  batchAt,
  CONFIG,
  END,
  EPOCH,
  failureOf,
  fill,
  partition,
  readAll,
  reasonOf,
} from './support.js';

export interface EngineUnderTest {
  readonly engine: StorageEngine;
  /** Closes the engine and opens another one on the same data; undefined when the engine keeps nothing. */
  readonly reopen: (() => Promise<StorageEngine>) | undefined;
}

export function describeConformance(name: string, openEngine: () => Promise<EngineUnderTest>): void {
  describe(`${name}: the storage seam`, () => {
    let under: EngineUnderTest;
    let engine: StorageEngine;
    let log: PartitionLog;
    const subject: Subject = {
      log: () => log,
      engine: () => engine,
      reopen: async () => {
        if (!under.reopen) return false;
        engine = await under.reopen();
        log = await engine.open(partition(), toEpoch(2), CONFIG);
        return true;
      },
    };

    beforeEach(async () => {
      under = await openEngine();
      engine = under.engine;
      log = await engine.open(partition(), EPOCH, CONFIG);
    });
    afterEach(async () => engine.close());

    describe('append', () => {
      test('a new log is empty and begins at 0', async () => {
        expect([log.startOffset, log.endOffset, log.durableOffset]).toEqual([0, 0, 0]);
        expect(await log.read(toOffset(0), END, 1)).toEqual({ chunks: [], byteLength: 0, nextOffset: 0 });
      });

      test('returns the new end and serves the same bytes', async () => {
        const batches = [batchAt(0, { count: 3 }), batchAt(3, { count: 2 })];
        const copies = batches.map((batch) => Buffer.from(batch));
        expect(await log.append(batches, toOffset(0))).toBe(5);
        expect(log.endOffset).toBe(5);
        expect(await readAll(log)).toEqual(Buffer.concat(copies));
      });

      test('refuses an append that does not begin at the end, and appends nothing', async () => {
        await fill(log, 2);
        for (const at of [0, 1, 3]) {
          const failure = await failureOf(log.append([batchAt(at)], toOffset(at)));
          expect(failure).toMatchObject({ reason: 'WRONG_OFFSET', outcome: 'none' });
          expect(failure.metadata.log_end_offset).toBe('2');
        }
        expect(log.endOffset).toBe(2);
      });

      test('carries out appends in call order when several are under way', async () => {
        const appends = Array.from({ length: 50 }, (_, i) => log.append([batchAt(i)], toOffset(i)));
        expect(await Promise.all(appends)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
        expect(basesOf({ chunks: [await readAll(log)] })).toEqual(Array.from({ length: 50 }, (_, i) => i));
      });

      test('refuses batches that are not dense or not whole as a defect of the caller', async () => {
        expect(await reasonOf(log.append([batchAt(0), batchAt(2)], toOffset(0)))).toBe('INTERNAL');
        expect(await reasonOf(log.append([batchAt(7)], toOffset(0)))).toBe('INTERNAL');
        expect(await reasonOf(log.append([batchAt(0).subarray(0, 70)], toOffset(0)))).toBe('INTERNAL');
        expect(await reasonOf(log.append([Buffer.concat([batchAt(0), batchAt(1)])], toOffset(0)))).toBe('INTERNAL');
        expect(log.endOffset).toBe(0);
        await fill(log, 1);
        expect(log.endOffset).toBe(1);
      });

      test('an append of no batches changes nothing', async () => {
        await fill(log, 1);
        expect(await log.append([], toOffset(1))).toBe(1);
      });
    });

    describe('flush', () => {
      test('moves the durable offset to what was appended', async () => {
        await fill(log, 3);
        expect(log.durableOffset).toBeLessThanOrEqual(3);
        await log.flush(toOffset(3));
        expect(log.durableOffset).toBe(3);
      });

      test('calls made together all resolve', async () => {
        await fill(log, 1);
        const flushes = [log.flush(toOffset(1)), log.flush(toOffset(1))];
        await fill(log, 1);
        await Promise.all([...flushes, log.flush(toOffset(2)), log.flush(toOffset(1))]);
        expect(log.durableOffset).toBe(2);
      });

      test('refuses an offset beyond the end', async () => {
        await fill(log, 1);
        expect(await reasonOf(log.flush(toOffset(2)))).toBe('OFFSET_OUT_OF_RANGE');
      });
    });

    describe('read', () => {
      beforeEach(async () => {
        await fill(log, 10, { count: 3, bytes: 20 });
      });

      test('begins with the batch that contains the offset', async () => {
        for (const from of [6, 7, 8]) {
          expect(basesOf(await log.read(toOffset(from), END, 1))).toEqual([6]);
        }
      });

      test('serves at least one batch and otherwise no more than asked for', async () => {
        const one = batchAt(0, { count: 3, bytes: 20 }).length;
        expect(basesOf(await log.read(toOffset(0), END, 1))).toEqual([0]);
        expect(basesOf(await log.read(toOffset(0), END, one * 2))).toEqual([0, 3]);
        expect(basesOf(await log.read(toOffset(0), END, one * 3 - 1))).toEqual([0, 3]);
      });

      test('stops before `to`, and is empty when the first batch reaches beyond it', async () => {
        expect(basesOf(await log.read(toOffset(0), toOffset(6), 1e6))).toEqual([0, 3]);
        expect(basesOf(await log.read(toOffset(0), toOffset(8), 1e6))).toEqual([0, 3]);
        const none = await log.read(toOffset(6), toOffset(8), 1e6);
        expect(none).toEqual({ chunks: [], byteLength: 0, nextOffset: 6 });
      });

      test('is empty at the end and out of range beyond it', async () => {
        expect((await log.read(toOffset(30), END, 1e6)).byteLength).toBe(0);
        const failure = await failureOf(log.read(toOffset(31), END, 1e6));
        expect(failure.reason).toBe('OFFSET_OUT_OF_RANGE');
        expect(failure.metadata).toMatchObject({ log_start_offset: '0', log_end_offset: '30' });
      });

      test('tells where to go on', async () => {
        const slice = await log.read(toOffset(0), END, 1);
        expect(slice.nextOffset).toBe(nextOffsetOf(slice.chunks[0]!, 0));
        expect(slice.byteLength).toBe(slice.chunks[0]!.length);
      });
    });

    describe('batchForTime', () => {
      test('finds the first batch that reaches a time, also when times are out of order', async () => {
        for (const [i, delta] of [10, 50, 20, 60, 30].entries()) {
          await log.append([batchAt(i, { timestampMs: BASE_TIME + delta })], toOffset(i));
        }
        const find = (delta: number): Promise<number | undefined> => log.batchForTime(BASE_TIME + delta);
        expect(await Promise.all([0, 10, 11, 50, 51, 60, 61].map(find))).toEqual([0, 0, 1, 1, 3, 3, undefined]);
      });

      test('passes over what was trimmed, and answers with an offset that can be read', async () => {
        await fill(log, 4, { count: 5 });
        await log.trim(toOffset(7));
        const found = await log.batchForTime(BASE_TIME);
        expect(found).toBe(7);
        expect(basesOf(await log.read(toOffset(found!), END, 1))).toEqual([5]);
      });

      test('finds nothing in an empty log', async () => {
        expect(await log.batchForTime(0)).toBeUndefined();
      });
    });

    describe('trim', () => {
      test('moves the start, also into a batch, and never back', async () => {
        await fill(log, 4, { count: 5 });
        await log.trim(toOffset(12));
        expect(log.startOffset).toBe(12);
        expect(log.durableOffset).toBeGreaterThanOrEqual(12);
        await log.trim(toOffset(3));
        expect(log.startOffset).toBe(12);
        expect(await reasonOf(log.read(toOffset(11), END, 1))).toBe('OFFSET_OUT_OF_RANGE');
        expect(basesOf(await log.read(toOffset(12), END, 1e6))).toEqual([10, 15]);
      });

      test('to the end leaves an empty log that goes on', async () => {
        await fill(log, 3);
        await log.trim(toOffset(3));
        expect((await log.read(toOffset(3), END, 1)).byteLength).toBe(0);
        await fill(log, 1);
        expect(basesOf(await log.read(toOffset(3), END, 1))).toEqual([3]);
      });

      test('refuses an offset beyond the end', async () => {
        await fill(log, 3);
        expect(await reasonOf(log.trim(toOffset(4)))).toBe('OFFSET_OUT_OF_RANGE');
        expect(log.startOffset).toBe(0);
      });
    });

    describe('roll and segments', () => {
      test('a segment ends by roll, unless it is empty', async () => {
        expect(log.segments()).toMatchObject([{ baseOffset: 0, nextOffset: 0, sizeInBytes: 0, maxTimestamp: -1 }]);
        await log.roll();
        const [first] = await fill(log, 1, { count: 3 });
        await log.roll();
        await log.roll();
        const [second] = await fill(log, 1, { count: 2 });
        expect(log.segments()).toMatchObject([
          { baseOffset: 0, nextOffset: 3, sizeInBytes: first!.length, firstTimestamp: BASE_TIME + 2 },
          { baseOffset: 3, nextOffset: 5, sizeInBytes: second!.length, maxTimestamp: BASE_TIME + 4 },
        ]);
        expect(log.stats()).toMatchObject({
          segmentCount: 2,
          sizeInBytes: first!.length + second!.length,
          oldestTimestamp: BASE_TIME + 2,
          newestTimestamp: BASE_TIME + 4,
        });
      });

      test('a trim drops the segments below it whole', async () => {
        for (let i = 0; i < 3; i++) {
          await fill(log, 2, { count: 2 });
          await log.roll();
        }
        await log.trim(toOffset(5));
        expect(log.segments().map(({ baseOffset }) => baseOffset)).toEqual([4, 8, 12]);
        await log.trim(toOffset(12));
        expect(log.segments().map(({ baseOffset }) => baseOffset)).toEqual([12]);
      });
    });

    describe('batchForMaxTimestamp', () => {
      test('finds the first batch with the largest time below an offset', async () => {
        expect(await log.batchForMaxTimestamp(toOffset(0))).toBeUndefined();
        for (const [i, delta] of [10, 50, 20, 50, 60].entries()) {
          await log.append([batchAt(i, { timestampMs: BASE_TIME + delta })], toOffset(i));
        }
        const find = (to: number): Promise<number | undefined> => log.batchForMaxTimestamp(toOffset(to));
        expect(await Promise.all([0, 1, 2, 3, 4, 5].map(find))).toEqual([undefined, 0, 1, 1, 1, 4]);
      });

      test('does not count what was trimmed', async () => {
        for (const [i, delta] of [60, 50, 20].entries()) {
          const at = i * 3;
          await log.append([batchAt(at, { count: 3, timestampMs: BASE_TIME + delta })], toOffset(at));
        }
        await log.trim(toOffset(4));
        expect(await log.batchForMaxTimestamp(toOffset(9))).toBe(4);
        await log.trim(toOffset(6));
        expect(await log.batchForMaxTimestamp(toOffset(9))).toBe(6);
        await log.trim(toOffset(9));
        expect(await log.batchForMaxTimestamp(toOffset(9))).toBeUndefined();
      });
    });

    describe('compact', () => {
      describeCompaction(subject);
    });

    describe('side files and producers', () => {
      describeSideFiles(subject);
    });

    describe('epochs', () => {
      test('a newer epoch fences the older one, which may still read', async () => {
        await fill(log, 1);
        const newer = await engine.open(partition(), toEpoch(2), CONFIG);
        expect(newer.endOffset).toBe(1);
        expect(await reasonOf(log.append([batchAt(1)], toOffset(1)))).toBe('FENCED_EPOCH');
        expect(await reasonOf(log.trim(toOffset(1)))).toBe('FENCED_EPOCH');
        expect(basesOf(await log.read(toOffset(0), END, 1))).toEqual([0]);
        await fill(newer, 1);
        expect(log.endOffset).toBe(2);
      });

      test('an older epoch cannot open', async () => {
        await engine.open(partition(), toEpoch(5), CONFIG);
        expect(await reasonOf(engine.open(partition(), toEpoch(4), CONFIG))).toBe('FENCED_EPOCH');
      });

      test('closing a fenced log does not disturb the newer one', async () => {
        const newer = await engine.open(partition(), toEpoch(2), CONFIG);
        await log.close();
        await fill(newer, 2);
        expect(await readAll(newer)).toHaveLength(batchAt(0).length * 2);
      });
    });

    describe('close and remove', () => {
      test('a closed log takes no calls, and closing twice is fine', async () => {
        await fill(log, 1);
        await log.close();
        await log.close();
        const calls = [
          log.append([batchAt(1)], toOffset(1)),
          log.flush(toOffset(1)),
          log.read(toOffset(0), END, 1),
          log.batchForTime(0),
          log.trim(toOffset(1)),
        ];
        for (const call of calls) expect(await reasonOf(call)).toBe('CLOSED');
      });

      test('a log that was closed can be opened again and holds everything', async () => {
        const batches = await fill(log, 5);
        await log.close();
        const again = await engine.open(partition(), EPOCH, CONFIG);
        expect([again.endOffset, again.durableOffset]).toEqual([5, 5]);
        expect(await readAll(again)).toEqual(Buffer.concat(batches));
        await fill(again, 1);
      });

      test('partitions are apart', async () => {
        const other = await engine.open(partition(1), EPOCH, CONFIG);
        await fill(log, 3);
        await fill(other, 1);
        expect([log.endOffset, other.endOffset]).toEqual([3, 1]);
      });

      test('a removed partition is gone and begins anew', async () => {
        await fill(log, 3);
        await engine.remove(partition());
        expect(await reasonOf(log.read(toOffset(0), END, 1))).toBe('CLOSED');
        await engine.remove(partition());
        const anew = await engine.open(partition(), toEpoch(1), CONFIG);
        expect([anew.startOffset, anew.endOffset]).toEqual([0, 0]);
      });

      test('what nobody knows is removed unless it holds something', async () => {
        const unknown = await engine.open(partition(1), EPOCH, CONFIG);
        const empty = await engine.open(partition(2), EPOCH, CONFIG);
        await fill(unknown, 3);
        for (const one of [log, unknown, empty]) await one.close();
        await engine.removeUnknown(({ topicId }) => topicId === partition().topicId);
        const again = await engine.open(partition(1), EPOCH, CONFIG);
        expect([again.startOffset, again.endOffset]).toEqual([0, 3]);
        expect((await engine.open(partition(2), EPOCH, CONFIG)).endOffset).toBe(0);
      });

      test('a closed engine takes no calls, and closing twice is fine', async () => {
        await engine.close();
        await engine.close();
        expect(await reasonOf(engine.open(partition(), EPOCH, CONFIG))).toBe('CLOSED');
        expect(await reasonOf(log.read(toOffset(0), END, 1))).toBe('CLOSED');
        expect(await reasonOf(engine.metadata.get('x'))).toBe('CLOSED');
      });

      test('what was appended is there after the engine was closed and opened', async (context) => {
        if (!under.reopen) return context.skip();
        const batches = await fill(log, 5, { count: 2 });
        await log.trim(toOffset(3));
        await engine.metadata.compareAndSet('topic', 'value', 0);
        engine = await under.reopen();
        const again = await engine.open(partition(), toEpoch(2), CONFIG);
        expect([again.startOffset, again.endOffset, again.durableOffset]).toEqual([3, 10, 10]);
        expect(await readAll(again)).toEqual(Buffer.concat(batches.slice(1)));
        expect(await engine.metadata.get('topic')).toEqual({ key: 'topic', value: 'value', version: 1 });
      });
    });

    describe('metadata', () => {
      test('a key is created at version 0 only, and every change raises its version', async () => {
        const { metadata } = engine;
        expect(await metadata.get('a')).toBeUndefined();
        expect(await metadata.compareAndSet('a', 'x', 1)).toEqual({ ok: false, current: undefined });
        expect(await metadata.compareAndSet('a', 'x', 0)).toEqual({ ok: true, version: 1 });
        expect(await metadata.compareAndSet('a', 'y', 0)).toEqual({
          ok: false,
          current: { key: 'a', value: 'x', version: 1 },
        });
        expect(await metadata.compareAndSet('a', 'y', 1)).toEqual({ ok: true, version: 2 });
        expect(await metadata.get('a')).toEqual({ key: 'a', value: 'y', version: 2 });
      });

      test('of several that compare with the same version one wins', async () => {
        const { metadata } = engine;
        const results = await Promise.all(['x', 'y', 'z'].map((value) => metadata.compareAndSet('a', value, 0)));
        expect(results.map((result) => result.ok)).toEqual([true, false, false]);
        expect(await metadata.get('a')).toMatchObject({ value: 'x' });
      });

      test('a deleted key is gone, and a version from before matches never again', async () => {
        const { metadata } = engine;
        await metadata.compareAndSet('a', 'x', 0);
        expect(await metadata.compareAndSet('a', undefined, 1)).toMatchObject({ ok: true });
        expect(await metadata.get('a')).toBeUndefined();
        const created = await metadata.compareAndSet('a', 'z', 0);
        expect(created.ok && created.version).toBeGreaterThan(1);
        expect(await metadata.compareAndSet('a', 'stale', 1)).toMatchObject({ ok: false });
      });

      test('lists a prefix in key order', async () => {
        const { metadata } = engine;
        for (const key of ['t/b', 'u', 't/a', 't']) await metadata.compareAndSet(key, key, 0);
        expect((await metadata.list('t/')).map((entry) => entry.key)).toEqual(['t/a', 't/b']);
        expect(await metadata.list('v')).toEqual([]);
      });

      test('tells watchers of a prefix until they leave', async () => {
        const { metadata } = engine;
        const seen: string[] = [];
        const leave = metadata.watch('t/', (key, entry) => seen.push(`${key}=${entry?.value ?? 'deleted'}`));
        await metadata.compareAndSet('t/a', 'x', 0);
        await metadata.compareAndSet('u', 'x', 0);
        await metadata.compareAndSet('t/a', undefined, 1);
        leave();
        await metadata.compareAndSet('t/b', 'x', 0);
        expect(seen).toEqual(['t/a=x', 't/a=deleted']);
      });
    });
  });
}
