import { afterEach, beforeEach, expect, test } from 'vitest';
import { compressBatch } from '../../../src/batch/compression.js';
import { waitingMs } from '../../../src/broker/groups/lag.js';
import { LogError } from '../../../src/core/errors.js';
import { toOffset } from '../../../src/core/types.js';
import { batchOf, keyedBatch, type OpenPartition, openPartition, overriding } from '../../partition/support.js';
import { optionsFor } from '../../storage/keyed.js';

const T0 = Date.UTC(2026, 0, 1);
const NOW = T0 + 1_000_000;
const ANY_TIME = { timestampAfterMaxMs: Number.MAX_SAFE_INTEGER };
/** More than is searched. */
const LARGE = 1_100_000;

let open: OpenPartition;

beforeEach(async () => {
  open = await openPartition(ANY_TIME);
});

afterEach(async () => {
  await open.partition.close();
});

async function append(...batches: Buffer[]): Promise<void> {
  for (const batch of batches) await open.partition.append([batch], { acks: 'durable' });
}

test('is the age of the first record at or above the offset, in the middle of a batch, too', async () => {
  await append(batchOf(['a', 'b', 'c'], T0), batchOf(['d', 'e'], T0 + 60_000));
  expect(await waitingMs(open.partition, 0, NOW)).toBe(1_000_000);
  expect(await waitingMs(open.partition, 2, NOW)).toBe(1_000_000 - 2);
  expect(await waitingMs(open.partition, 3, NOW)).toBe(1_000_000 - 60_000);
  expect(await waitingMs(open.partition, 4, NOW)).toBe(1_000_000 - 60_001);
});

test.each(['gzip', 'snappy', 'lz4'] as const)('compressed batches are opened for it (%s)', async (codec) => {
  await append(await compressBatch(batchOf(['a'.repeat(500), 'b'.repeat(500), 'c'], T0), codec));
  expect(await waitingMs(open.partition, 1, NOW)).toBe(1_000_000 - 1);
});

test('is 0 at the end, and for a record of the future', async () => {
  await append(batchOf(['a'], NOW + 5_000));
  expect(await waitingMs(open.partition, 0, NOW)).toBe(0);
  expect(await waitingMs(open.partition, 1, NOW)).toBe(0);
});

test('begins at the log start offset where what was committed is deleted', async () => {
  await append(batchOf(['a', 'b', 'c'], T0));
  await open.partition.deleteRecords(2);
  expect(await waitingMs(open.partition, 0, NOW)).toBe(1_000_000 - 2);
});

test('is not known of a record without a timestamp', async () => {
  await append(batchOf(['a'], -1));
  expect(await waitingMs(open.partition, 0, NOW)).toBeUndefined();
});

test('is not known when the log cannot be read', async () => {
  const broken = await openPartition(ANY_TIME, (log) =>
    overriding(log, { read: () => Promise.reject(new LogError('CORRUPT_LOG', 'A CRC does not match.')) }),
  );
  await broken.partition.append([batchOf(['a'], T0)], { acks: 'durable' });
  expect(await waitingMs(broken.partition, 0, NOW)).toBeUndefined();
  await broken.partition.close();
});

test('finds the record behind a gap that compaction has left, and none where nothing is left', async () => {
  const compacted = await openPartition({ ...ANY_TIME, cleanupCompact: true, cleanupDelete: false });
  const { partition, log } = compacted;
  for (let round = 0; round < 3; round++) {
    await partition.append([keyedBatch([['a', `${round}`]], T0 + round * 1000)], { acks: 'durable' });
  }
  await partition.append([keyedBatch([['b', null]], T0 + 9000)], { acks: 'durable' });
  await log.roll();
  await log.compact(optionsFor(log));
  expect(await waitingMs(partition, 0, NOW)).toBe(1_000_000 - 2000);
  await partition.close();
});

test('gives up after about 1 MiB without a record (invariant 22)', async () => {
  const large = await openPartition({ ...ANY_TIME, maxMessageBytes: LARGE, segmentBytes: 16 * LARGE });
  await large.partition.append([batchOf(['x'.repeat(LARGE / 2), 'y'], T0)], { acks: 'durable' });
  let reads = 0;
  const counting = await openPartition(ANY_TIME, (log) =>
    overriding(log, {
      // The same batch again and again, as if there were nothing but records below the offset asked for.
      read: async (from) => {
        reads++;
        const slice = await large.log.read(toOffset(0), large.log.durableOffset, 1);
        return { ...slice, nextOffset: toOffset(from + 1) };
      },
    }),
  );
  for (let count = 0; count < 10; count++) await counting.partition.append([batchOf(['z'], T0)], { acks: 'durable' });
  expect(await waitingMs(counting.partition, 2, NOW)).toBeUndefined();
  expect(reads).toBe(2);
  await large.partition.close();
  await counting.partition.close();
});
