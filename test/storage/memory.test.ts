import { describe, expect, test } from 'vitest';
import type { CompactOptions, PartitionLog } from '../../src/storage/engine.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { DAY, keyed } from './compaction/support.js';
import { describeConformance } from './conformance.js';
import { BASE_TIME, CONFIG, EPOCH, failureOf, partition, reasonOf } from './support.js';

describeConformance('memory engine', async () => ({ engine: openMemoryEngine(), reopen: undefined }));

describe('memory engine: compaction', () => {
  /** A log with a segment for each list of records, and an empty last one. */
  async function logOf(...segments: readonly (readonly string[])[]): Promise<{ log: PartitionLog; batches: Buffer[] }> {
    const log = await openMemoryEngine().open(partition(), EPOCH, { ...CONFIG, segmentBytes: 400 });
    const batches: Buffer[] = [];
    for (const records of segments) {
      const batch = keyed(log.endOffset, records);
      batches.push(batch);
      await log.append([batch], log.endOffset);
      await log.roll();
    }
    return { log, batches };
  }

  function optionsFor(log: PartitionLog): CompactOptions {
    const times = { nowMs: BASE_TIME, deleteRetentionMs: DAY, producerExpirationMs: DAY };
    return { upTo: log.endOffset, maxMapBytes: 1 << 20, ...times };
  }

  test('refuses a damaged batch and changes nothing', async () => {
    const { log, batches } = await logOf(['a=1'], ['a=2']);
    const before = log.segments();
    batches[1]![65]! ^= 1;
    const failure = await failureOf(log.compact(optionsFor(log)));
    expect(failure).toMatchObject({ reason: 'CORRUPT_LOG', metadata: { offset: '1' } });
    expect([log.segments(), log.cleanedOffset]).toEqual([before, 0]);
  });

  test('one at a time', async () => {
    const { log } = await logOf(['a=1'], ['a=2']);
    const first = log.compact(optionsFor(log));
    expect(await reasonOf(log.compact(optionsFor(log)))).toBe('CONCURRENT_UPDATE');
    expect(await first).toMatchObject({ passCount: 1 });
    expect(await log.compact(optionsFor(log))).toMatchObject({ recordsBefore: 1, recordsAfter: 1 });
  });

  test('makes one of neighbouring segments while they fit', async () => {
    const big = 'x'.repeat(250);
    const { log } = await logOf(['a=1', 'b=1'], ['b=2'], ['c=1'], [`d=${big}`], ['e=1']);
    await log.compact(optionsFor(log));
    expect(log.segments().map(({ baseOffset, nextOffset }) => [baseOffset, nextOffset])).toEqual([
      [0, 4],
      [4, 6],
      [6, 6],
    ]);
    expect(log.stats().sizeInBytes).toBe(log.segments().reduce((sum, segment) => sum + segment.sizeInBytes, 0));
  });

  test('a trim while a pass is under way holds', async () => {
    const { log } = await logOf(['a=1'], ['b=1'], ['c=1'], ['d=1']);
    const compaction = log.compact(optionsFor(log));
    await log.trim(log.endOffset);
    expect(await compaction).toMatchObject({ bytesAfter: 0, recordsAfter: 0, cleanedOffset: 4 });
    expect(log.segments()).toMatchObject([{ baseOffset: 4, sizeInBytes: 0 }]);
    expect(log.stats().sizeInBytes).toBe(0);
  });

  test('an engine that is closed meanwhile ends it', async () => {
    const { log } = await logOf(['a=1'], ['a=2']);
    const compaction = reasonOf(log.compact(optionsFor(log)));
    await log.close();
    expect(await compaction).toBe('CLOSED');
  });
});
