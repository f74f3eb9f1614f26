import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { compressBatch } from '../../src/batch/compression.js';
import { RECORD_BATCH_OVERHEAD, writeCrc } from '../../src/batch/layout.js';
import { AppendLane } from '../../src/partition/append-lane.js';
import { rejection } from '../support/rejection.js';
import { batchOf, CONFIG, keyedBatch, openPartition } from './support.js';

const WRITTEN = { acks: 'written' } as const;
const MIB = 1024 * 1024;
const COMPACTED = { cleanupCompact: true, cleanupDelete: false } as const;

function halfKeyed(): Buffer {
  const value = Buffer.from('v');
  return encodeBatch([
    { timestampMs: Date.now(), key: Buffer.from('k'), value },
    { timestampMs: Date.now(), key: null, value },
  ]);
}

/** A batch of two records where the second one's offset delta is `delta`, its CRC right. */
function withSecondDelta(delta: number): Buffer {
  const batch = keyedBatch([
    ['a', '1'],
    ['b', '2'],
  ]);
  const firstLength = (batch[RECORD_BATCH_OVERHEAD] ?? 0) >> 1;
  const secondAt = RECORD_BATCH_OVERHEAD + 1 + firstLength;
  batch[secondAt + 3] = delta << 1; // after length, attributes and timestamp delta, one byte each
  writeCrc(batch, 0);
  return batch;
}

describe('a compacted topic', () => {
  test('takes records with keys, tombstones and empty keys among them, compressed or not', async () => {
    const { partition } = await openPartition(COMPACTED);
    const pairs = [
      ['k', 'v'],
      ['k', null],
      ['', 'v'],
    ] as const;
    await partition.append([keyedBatch(pairs)], WRITTEN);
    await partition.append([await compressBatch(keyedBatch(pairs), 'gzip'), keyedBatch(pairs)], WRITTEN);
    expect(partition.logEndOffset).toBe(9);
  });

  test.each(['none', 'gzip'] as const)('refuses a record without a key and names it (%s)', async (codec) => {
    const { partition } = await openPartition(COMPACTED);
    const bad = await compressBatch(halfKeyed(), codec);
    const error = await rejection(partition.append([keyedBatch([['k', 'v']]), bad], WRITTEN), 'INVALID_RECORD');
    expect(error.metadata).toMatchObject({ batch_index: '1', record_index: '1' });
    expect(partition.logEndOffset).toBe(0);
  });

  test.each([0, 2])('refuses records whose offset deltas are not 0 to n-1 (0, %i)', async (delta) => {
    const { partition } = await openPartition(COMPACTED);
    await rejection(partition.append([withSecondDelta(delta)], WRITTEN), 'CORRUPT_MESSAGE');
    const compressed = await compressBatch(withSecondDelta(delta), 'gzip');
    await rejection(partition.append([compressed], WRITTEN), 'CORRUPT_MESSAGE');
    expect(partition.logEndOffset).toBe(0);
  });

  test('refuses records that do not parse', async () => {
    const { partition } = await openPartition(COMPACTED);
    const batch = keyedBatch([['k', 'v']]);
    batch[RECORD_BATCH_OVERHEAD] = 6;
    writeCrc(batch, 0);
    await rejection(partition.append([batch], WRITTEN), 'CORRUPT_MESSAGE');
    expect(partition.logEndOffset).toBe(0);
  });

  test('keeps the order of appends, those that take time to check among them', async () => {
    const { partition } = await openPartition(COMPACTED);
    const many = keyedBatch(Array.from({ length: 2000 }, (_, i) => [`${i}`, 'v'] as const));
    const slow = await compressBatch(many, 'gzip');
    const results = await Promise.all([
      partition.append([keyedBatch([['a', '1']])], WRITTEN),
      partition.append([slow], WRITTEN),
      partition.append([keyedBatch([['b', '2']])], WRITTEN),
    ]);
    expect(results.map(({ baseOffset }) => baseOffset)).toEqual([0, 1, 2001]);
  });

  test('checks a batch of very many records in turns', async () => {
    const { partition } = await openPartition({ ...COMPACTED, maxMessageBytes: 4 * MIB, segmentBytes: 4 * MIB });
    const record = { timestampMs: Date.now(), key: Buffer.from('k'), value: null };
    const records = Array.from({ length: 200_000 }, () => record);
    let turns = 0;
    let checking = true;
    const counting = (async () => {
      for (; checking; turns++) await nextTurn();
    })();
    await partition.append([encodeBatch(records)], WRITTEN);
    checking = false;
    await counting;
    expect(turns).toBeGreaterThan(4);
    const last = { ...record, key: null };
    const bad = encodeBatch([...records.slice(1), last]);
    const error = await rejection(partition.append([bad], WRITTEN), 'INVALID_RECORD');
    expect(error.metadata).toMatchObject({ batch_index: '0', record_index: '199999' });
    expect(partition.logEndOffset).toBe(200_000);
  });

  test('after a refusal that took time, the later appends of its lane are not tried, those of others are', async () => {
    const { partition } = await openPartition(COMPACTED);
    const lane = new AppendLane();
    const bad = await compressBatch(halfKeyed(), 'gzip');
    const first = partition.append([keyedBatch([['a', '1']])], { ...WRITTEN, place: lane.enter() });
    const refused = partition.append([bad], { ...WRITTEN, place: lane.enter() });
    const after = partition.append([keyedBatch([['b', '2']])], { ...WRITTEN, place: lane.enter() });
    const other = partition.append([keyedBatch([['c', '3']])], WRITTEN);
    await Promise.all([
      first,
      rejection(refused, 'INVALID_RECORD'),
      rejection(after, 'PRECEDING_APPEND_FAILED'),
      other,
    ]);
    expect((await first).baseOffset).toBe(0);
    expect((await other).baseOffset).toBe(1);
  });

  test('finishes at its closing what is still being checked', async () => {
    const { partition } = await openPartition(COMPACTED);
    const appended = partition.append([await compressBatch(keyedBatch([['a', '1']]), 'gzip')], WRITTEN);
    await partition.close();
    expect((await appended).baseOffset).toBe(0);
  });
});

test('other topics take records without keys, and begin to ask for them when their policy changes', async () => {
  const { partition } = await openPartition();
  await partition.append([batchOf(['x'])], WRITTEN);
  partition.configure({ ...CONFIG, ...COMPACTED });
  await rejection(partition.append([batchOf(['x'])], WRITTEN), 'INVALID_RECORD');
  partition.configure(CONFIG);
  await partition.append([batchOf(['x'])], WRITTEN);
  expect(partition.logEndOffset).toBe(2);
});
