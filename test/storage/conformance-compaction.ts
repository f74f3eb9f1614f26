/** What compaction must do in every storage engine. */
import { expect, test } from 'vitest';
import { splitBatches } from '../../src/batch/validate.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import { BYTES_PER_SLOT } from '../../src/storage/compaction/key-map.js';
import type { CompactOptions, CompactResult, PartitionLog, StorageEngine } from '../../src/storage/engine.js';
import { abort, commit, DAY, inTransaction, type KeyedShape, keyed, recordsOf } from './compaction/support.js';
import { BASE_TIME, basesOf, CONFIG, END, partition, reasonOf } from './support.js';

/** What a test works on, which is another one for each test. */
export interface Subject {
  /** An empty log at the beginning. */
  readonly log: () => PartitionLog;
  readonly engine: () => StorageEngine;
  /** Closes the engine and opens it and the log anew, or resolves to false when the engine keeps nothing. */
  readonly reopen: () => Promise<boolean>;
}

export function describeCompaction({ log, engine, reopen }: Subject): void {
  /** Appends a batch of keyed records, `key=value` or `key` for a tombstone. */
  async function write(records: readonly string[], shape: KeyedShape = {}): Promise<void> {
    await log().append([keyed(log().endOffset, records, shape)], log().endOffset);
  }

  /** A segment for each list of records, and an empty last one. */
  async function writeSegments(...segments: readonly (readonly string[])[]): Promise<void> {
    for (const records of segments) {
      await write(records);
      await log().roll();
    }
  }

  function compact(options: Partial<CompactOptions> = {}): Promise<CompactResult> {
    return log().compact({
      upTo: log().endOffset,
      nowMs: BASE_TIME + 1000,
      deleteRetentionMs: DAY,
      producerExpirationMs: DAY,
      maxMapBytes: 1 << 20,
      ...options,
    });
  }

  /** All records from `from` on, read a batch at a time. */
  async function consume(from: number = log().startOffset): Promise<string[]> {
    const batches: Buffer[] = [];
    let offset = toOffset(from);
    while (offset < log().endOffset) {
      const slice = await log().read(offset, END, 1);
      expect(slice.nextOffset).toBeGreaterThan(offset);
      offset = slice.nextOffset;
      batches.push(...slice.chunks.flatMap(splitBatches));
    }
    expect(offset).toBe(log().endOffset);
    return recordsOf(batches);
  }

  test('leaves one record of each key below the cleaned offset', async () => {
    await writeSegments(['a=1', 'b=1'], ['a=2', 'c=1'], ['b=2', '=no key', 'd=1']);
    await write(['a=3']);
    expect(log().cleanedOffset).toBe(0);
    const result = await compact();
    expect(result).toMatchObject({ passCount: 1, cleanedOffset: 7, recordsBefore: 7, recordsAfter: 4 });
    expect(result.bytesAfter).toBeLessThan(result.bytesBefore);
    expect([log().cleanedOffset, log().startOffset, log().endOffset]).toEqual([7, 0, 8]);
    expect(await consume()).toEqual(['2:a=2', '3:c=1', '4:b=2', '6:d=1', '7:a=3']);
    expect(log().stats().sizeInBytes).toBe(
      log()
        .segments()
        .reduce((sum, segment) => sum + segment.sizeInBytes, 0),
    );
  });

  test('never touches the last segment', async () => {
    await writeSegments(['a=1']);
    await write(['b=1', 'b=2']);
    await log().flush(log().endOffset);
    const before = log().segments().at(-1);
    await compact();
    expect(log().segments().at(-1)).toMatchObject({ ...before });
    expect(log().cleanedOffset).toBe(1);
    expect(await consume()).toEqual(['0:a=1', '1:b=1', '2:b=2']);
  });

  test('touches only what ends at or below the limit', async () => {
    await writeSegments(['a=1', 'a=2'], ['a=3', 'a=4'], ['a=5']);
    await compact({ upTo: toOffset(3) });
    expect(log().cleanedOffset).toBe(2);
    expect(await consume()).toEqual(['1:a=2', '2:a=3', '3:a=4', '4:a=5']);
    await compact({ upTo: toOffset(4) });
    expect(log().cleanedOffset).toBe(4);
    expect(await consume()).toEqual(['3:a=4', '4:a=5']);
  });

  test('one at a time', async () => {
    await writeSegments(['a=1', 'a=2']);
    const first = compact();
    expect(await reasonOf(compact())).toBe('CONCURRENT_UPDATE');
    expect(await first).toMatchObject({ cleanedOffset: 2, recordsAfter: 1 });
    expect(await consume()).toEqual(['1:a=2']);
  });

  test('an empty log has nothing to compact', async () => {
    expect(await compact()).toMatchObject({ passCount: 0, cleanedOffset: 0, bytesBefore: 0, recordsAfter: 0 });
  });

  test('leaves holes that reading goes over from every offset', async () => {
    await writeSegments(['a=1', 'b=1', 'a=2'], ['c=1', 'c=2'], ['a=3'], ['a=4', 'c=3', 'c=4', 'e=1', 'e=2']);
    await compact();
    const all = ['1:b=1', '6:a=4', '8:c=4', '10:e=2'];
    expect(await consume()).toEqual(all);
    for (let from = 0; from <= 11; from++) {
      const ahead = await consume(from);
      // Whole batches are served, so that some records of the first one may lie before.
      expect(ahead.filter((line) => Number.parseInt(line, 10) >= from)).toEqual(
        all.filter((line) => Number.parseInt(line, 10) >= from),
      );
    }
  });

  test('keeps the end of what was compacted, also when nothing is left there', async () => {
    await writeSegments(['a=1'], ['=no key', '=nor here']);
    await compact();
    expect(await consume()).toEqual(['0:a=1']);
    const tail = await log().read(toOffset(2), END, 1);
    expect([basesOf(tail), tail.nextOffset]).toEqual([[1], 3]);
    await write(['b=1']);
    expect(await consume(1)).toEqual(['3:b=1']);
  });

  test('makes several passes when the keys do not fit into memory', async () => {
    const keys = Array.from({ length: 20 }, (_, i) => `key${i}`);
    await writeSegments(
      keys.map((key) => `${key}=1`),
      keys.map((key) => `${key}=2`),
      keys.map((key) => `${key}=3`),
    );
    const result = await compact({ maxMapBytes: 8 * BYTES_PER_SLOT });
    expect(result.passCount).toBeGreaterThan(5);
    expect([result.cleanedOffset, log().cleanedOffset]).toEqual([60, 60]);
    expect(await consume()).toEqual(keys.map((key, i) => `${40 + i}:${key}=3`));
  });

  test('keeps tombstones until their horizon has come', async () => {
    await writeSegments(['a=1', 'b=1'], ['a', 'c=1'], ['d=1']);
    await compact({ nowMs: BASE_TIME, deleteRetentionMs: 1000 });
    expect(await consume()).toEqual(['1:b=1', '2:a', '3:c=1', '4:d=1']);
    await writeSegments(['d=2']);
    await compact({ nowMs: BASE_TIME + 999, deleteRetentionMs: 1000 });
    expect(await consume()).toEqual(['1:b=1', '2:a', '3:c=1', '5:d=2']);
    await writeSegments(['d=3']);
    await compact({ nowMs: BASE_TIME + 1000, deleteRetentionMs: 1000 });
    expect(await consume()).toEqual(['1:b=1', '3:c=1', '6:d=3']);
  });

  test('lets nothing of an aborted transaction take the place of what was committed', async () => {
    await write(['a=1', 'b=1']);
    await write(['a=2'], inTransaction(7));
    await write(['b=2'], inTransaction(8));
    await log().roll();
    await log().append([abort(4, 7), commit(5, 8)], toOffset(4));
    await log().roll();
    await compact({ upTo: toOffset(6) });
    const lines = (await consume()).filter((line) => /=\d/.test(line));
    expect(lines).toEqual(['0:a=1', '3:b=2']);
  });

  test('finds times and goes on trimming after it', async () => {
    await writeSegments(['a=1', 'b=1'], ['b=2', 'a=2'], ['c=1']);
    await write(['d=1']);
    await compact();
    // The batch that held offsets 0 and 1 is gone.
    expect(await log().batchForTime(0)).toBe(2);
    expect(await log().batchForMaxTimestamp(log().endOffset)).toBe(5);
    await log().trim(toOffset(3));
    expect([log().startOffset, log().cleanedOffset]).toEqual([3, 5]);
    expect(await consume()).toEqual(['2:b=2', '3:a=2', '4:c=1', '5:d=1']);
    expect(await log().batchForTime(0)).toBe(3);
    await log().trim(toOffset(6));
    expect([log().startOffset, log().cleanedOffset]).toEqual([6, 6]);
    expect(await consume()).toEqual([]);
  });

  test('goes on beside appends, reads and trims', async () => {
    for (let i = 0; i < 10; i++) await writeSegments(['a=1', 'b=1', `c${i}=1`]);
    const compaction = compact({ maxMapBytes: 4 * BYTES_PER_SLOT });
    await write(['e=1']);
    await log().trim(toOffset(4));
    await consume();
    await write(['f=1']);
    const result = await compaction;
    expect(result.cleanedOffset).toBe(30);
    expect([log().startOffset, log().endOffset]).toEqual([4, 32]);
    const survivors = Array.from({ length: 8 }, (_, i) => `${i * 3 + 5}:c${i + 1}=1`);
    const lines = (await consume()).filter((line) => Number.parseInt(line, 10) >= 4);
    expect(lines).toEqual([...survivors, '27:a=1', '28:b=1', '29:c9=1', '30:e=1', '31:f=1']);
  });

  test('ends between two pieces of work when told to', async () => {
    await writeSegments(['a=1', 'a=2']);
    const result = await compact({ signal: AbortSignal.abort() });
    expect(result).toMatchObject({ passCount: 0, cleanedOffset: 0 });
    expect(await consume()).toEqual(['0:a=1', '1:a=2']);
  });

  test('is refused on a closed log and on a fenced one', async () => {
    await writeSegments(['a=1']);
    await engine().open(partition(), toEpoch(2), CONFIG);
    expect(await reasonOf(compact())).toBe('FENCED_EPOCH');
    await log().close();
    expect(await reasonOf(compact())).toBe('CLOSED');
  });

  test('what was compacted stays so after the engine was closed and opened', async (context) => {
    await writeSegments(['a=1', 'b=1'], ['a=2', 'c=1'], ['b=2']);
    await compact();
    const before = await consume();
    if (!(await reopen())) return context.skip();
    expect(log().cleanedOffset).toBe(5);
    expect(await consume()).toEqual(before);
    await write(['a=3']);
    await log().roll();
    await compact();
    expect(await consume()).toEqual(['3:c=1', '4:b=2', '5:a=3']);
  });
}
