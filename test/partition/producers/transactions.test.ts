import { describe, expect, test } from 'vitest';
import { readControlRecord } from '../../../src/batch/control.js';
import { baseOffsetOf, producerEpochOf } from '../../../src/batch/layout.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { assert } from '../../../src/core/assert.js';
import { systemClock } from '../../../src/core/clock.js';
import { LogError } from '../../../src/core/errors.js';
import { toOffset } from '../../../src/core/types.js';
import type { Partition, PartitionSlice } from '../../../src/partition/partition.js';
import type { PartitionLog } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { LocalRig } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { GatedLog } from '../gated-log.js';
import { batchOf, newSharedProducers, openPartition, overriding, PRODUCER_CONFIG } from '../support.js';
import { reopen } from './partition-support.js';
import { DAY_MS, producerBatch, type Sent } from './support.js';

const DURABLE = { acks: 'durable' } as const;
const WRITTEN = { acks: 'written' } as const;

function send(partition: Partition, sent: Sent): Promise<unknown> {
  return partition.append([producerBatch({ ...sent, transactional: true })], DURABLE);
}

function end(partition: Partition, producerId: number, producerEpoch: number, commit: boolean): Promise<void> {
  return partition.endTransaction({ producerId, producerEpoch, commit, coordinatorEpoch: 7 });
}

function committed(partition: Partition, from = 0, maxBytes = 1_000_000): Promise<PartitionSlice> {
  return partition.read(toOffset(from), maxBytes, 'read_committed');
}

function basesOf({ chunks }: PartitionSlice): number[] {
  return chunks.flatMap((chunk) => splitBatches(chunk)).map((batch) => baseOffsetOf(batch, 0));
}

describe('the end of a transaction', () => {
  test('is a marker with the epoch after it, durable when it is answered', async () => {
    const { partition } = await openPartition({ flushMs: 1_000_000 });
    await send(partition, { sequence: 0 });
    await end(partition, 1, 1, true);
    expect(partition.highWatermark).toBe(2);
    const marker = splitBatches((await committed(partition, 1)).chunks[0]!)[0]!;
    expect(readControlRecord(marker)).toMatchObject({ name: 'COMMIT' });
    expect(producerEpochOf(marker, 0)).toBe(1);
    await rejection(send(partition, { sequence: 1 }), 'PRODUCER_FENCED');
    expect(partition.openTransactions()).toEqual([]);
    expect(partition.producers()).toMatchObject([{ producerId: 1, producerEpoch: 1, lastSequence: -1 }]);
  });

  test('comes behind the batches that came before it', async () => {
    const { partition } = await openPartition();
    const sent = send(partition, { sequence: 0 });
    const ended = end(partition, 1, 1, false);
    const late = rejection(send(partition, { sequence: 1 }), 'PRODUCER_FENCED');
    await Promise.all([sent, ended, late]);
    expect((await committed(partition)).aborted).toMatchObject([{ producerId: 1, firstOffset: 0, lastOffset: 1 }]);
  });

  test('that comes again, or where there is nothing to end, appends nothing', async () => {
    const { partition } = await openPartition();
    await end(partition, 1, 1, true);
    expect(partition.logEndOffset).toBe(0);
    await send(partition, { sequence: 0 });
    await end(partition, 1, 1, true);
    await end(partition, 1, 1, true);
    expect(partition.logEndOffset).toBe(2);
  });

  test('of an earlier transaction does not end the next one', async () => {
    const { partition } = await openPartition();
    await send(partition, { sequence: 0, epoch: 1 });
    await end(partition, 1, 1, false);
    expect(partition.openTransactions()).toMatchObject([{ producerId: 1, producerEpoch: 1 }]);
    await end(partition, 1, 2, true);
    expect(partition.openTransactions()).toEqual([]);
  });

  test('without anything to append waits until what is there is durable', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({ flushMs: 1_000_000 }, (log) => gated.wrap(log));
    await partition.append([batchOf(['written'])], WRITTEN);
    let ended = false;
    const ending = end(partition, 1, 1, true).then(() => {
      ended = true;
    });
    await until(() => gated.flushes === 1, 'the sync has begun');
    expect(ended).toBe(false);
    gated.gates[0]?.open();
    await ending;
  });

  test('that the log does not take can be tried again', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    await partition.append([producerBatch({ sequence: 0, transactional: true })], WRITTEN);
    const before = partition.openTransactions();
    gated.failNextAppend = new LogError('STORAGE_FULL', 'no room');
    await rejection(end(partition, 1, 1, false), 'STORAGE_FULL');
    expect(partition.openTransactions()).toEqual(before);
    const again = end(partition, 1, 1, false);
    await until(() => gated.flushes === 1, 'the sync has begun');
    gated.gates[0]?.open();
    await again;
    expect(partition.openTransactions()).toEqual([]);
  });

  test('of which nobody knows whether the log has it is not taken for done when it is tried again (invariant 11)', async () => {
    let broken = false;
    const failure = new LogError('STORAGE_ERROR', 'EIO');
    const { partition } = await openPartition({}, (log) =>
      overriding(log, {
        append: (batches, at) => (broken ? Promise.reject(failure) : log.append(batches, at)),
      }),
    );
    await send(partition, { sequence: 0 });
    broken = true;
    for (let attempt = 0; attempt < 2; attempt++) await rejection(end(partition, 1, 1, true), 'STORAGE_ERROR');
    expect(partition.lastStableOffset).toBe(0);
    // Where nothing is open there is nothing to fail.
    await end(partition, 2, 1, true);
  });

  test('comes with thousands of others in several appends, none of which takes long, and is taken back with them (invariant 22)', async () => {
    const gated = new GatedLog();
    const shared = newSharedProducers({ ...PRODUCER_CONFIG, maxProducers: 5000 });
    const partition = await reopen(openMemoryEngine(), { producers: shared, wrap: (log) => gated.wrap(log) });
    const producers = Array.from({ length: 5000 }, (_, producerId) => producerId);
    const batches = producers.map((producerId) => producerBatch({ id: producerId, sequence: 0, transactional: true }));
    await Promise.all(batches.map((batch) => partition.append([batch], WRITTEN)));
    expect(gated.appends).toBe(2);
    const before = partition.openTransactions();
    gated.failNextAppend = new LogError('STORAGE_FULL', 'no room');
    const ends = producers.map((producerId) => end(partition, producerId, 1, false));
    let outcomes: readonly PromiseSettledResult<void>[] = [];
    void Promise.allSettled(ends).then((settled) => {
      outcomes = settled;
    });
    await until(() => {
      for (const gate of gated.gates.splice(0)) gate.open();
      return outcomes.length > 0;
    }, 'all are answered');
    expect(outcomes.filter(({ status }) => status === 'rejected')).toHaveLength(4096);
    expect(partition.openTransactions()).toEqual(before.slice(0, 4096));
    expect(partition.lastStableOffset).toBe(0);
  });

  test('is refused by a closed partition', async () => {
    const { partition } = await openPartition();
    await partition.close();
    await rejection(end(partition, 1, 1, false), 'UNKNOWN_TOPIC_OR_PARTITION');
  });

  test('is possible at the largest epoch', async () => {
    const { partition } = await openPartition();
    await send(partition, { sequence: 0, epoch: 32_766 });
    await end(partition, 1, 32_767, true);
    expect(partition.producers()).toMatchObject([{ producerEpoch: 32_767, openTransaction: undefined }]);
  });
});

describe('reading committed (invariant 11)', () => {
  test('ends at the first offset of the oldest open transaction', async () => {
    const { partition } = await openPartition();
    await partition.append([batchOf(['plain'])], DURABLE);
    await send(partition, { id: 1, sequence: 0 });
    await send(partition, { id: 2, sequence: 0 });
    await partition.append([batchOf(['plain'])], DURABLE);
    expect(partition.lastStableOffset).toBe(1);
    expect(basesOf(await committed(partition))).toEqual([0]);
    expect(basesOf(await partition.read(toOffset(0), 1_000_000))).toEqual([0, 1, 2, 3]);
    expect(await committed(partition, 1)).toMatchObject({ byteLength: 0, nextOffset: 1 });
    await end(partition, 2, 1, true);
    expect(partition.lastStableOffset).toBe(1);
    await end(partition, 1, 1, true);
    expect(partition.lastStableOffset).toBe(6);
    expect(basesOf(await committed(partition))).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('ends before a transaction whose marker a power cut could take back', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const sent = send(partition, { sequence: 0 });
    await until(() => gated.flushes === 1, 'the first sync has begun');
    gated.gates[0]?.open();
    await sent;
    const ended = end(partition, 1, 1, true);
    await until(() => gated.flushes === 2, 'the second sync has begun');
    expect(partition.openTransactions()).toEqual([]);
    expect([partition.lastStableOffset, partition.highWatermark]).toEqual([0, 1]);
    gated.gates[1]?.open();
    await ended;
    expect([partition.lastStableOffset, partition.highWatermark]).toEqual([2, 2]);
  });

  test('tells the aborted transactions of what was read, by their first offsets, and no others', async () => {
    const { partition } = await openPartition();
    await send(partition, { id: 1, sequence: 0 });
    await send(partition, { id: 2, sequence: 0 });
    await send(partition, { id: 3, sequence: 0 });
    await end(partition, 2, 1, false);
    await end(partition, 3, 1, true);
    await end(partition, 1, 1, false);
    await send(partition, { id: 2, epoch: 1, sequence: 0 });
    await end(partition, 2, 2, false);
    const facts = async (from: number, maxBytes?: number): Promise<number[][]> =>
      (await committed(partition, from, maxBytes)).aborted.map(({ firstOffset, lastOffset }) => [
        firstOffset,
        lastOffset,
      ]);
    expect(await facts(0)).toEqual([
      [0, 5],
      [1, 3],
      [6, 7],
    ]);
    expect(await facts(0, 1)).toEqual([[0, 5]]);
    expect(await facts(1, 1)).toEqual([[1, 3]]);
    // The transaction of producer 1 reaches over these, and has nothing in them.
    expect(await facts(2, 1)).toEqual([]);
    expect(await facts(4)).toEqual([[6, 7]]);
    expect((await partition.read(toOffset(0), 1000)).aborted).toEqual([]);
  });

  test('goes on from the log start offset when the transaction begins below it', async () => {
    const { partition } = await openPartition();
    await send(partition, { sequence: 0, count: 5 });
    await partition.deleteRecords(3);
    expect(partition.lastStableOffset).toBe(3);
    await end(partition, 1, 1, false);
    expect((await committed(partition, 3)).aborted).toMatchObject([{ firstOffset: 0, lastOffset: 5 }]);
  });

  test('shows nothing of an aborted transaction whose records are deleted while they are read (invariant 11)', async () => {
    let whileReading: (() => Promise<unknown>) | undefined;
    const { partition } = await openPartition({}, (log) =>
      overriding(log, {
        read: async (from, to, maxBytes) => {
          const slice = await log.read(from, to, maxBytes);
          await whileReading?.();
          return slice;
        },
      }),
    );
    await send(partition, { sequence: 0 });
    await end(partition, 1, 1, false);
    whileReading = () => partition.deleteRecords(-1);
    await rejection(committed(partition), 'OFFSET_OUT_OF_RANGE');
    expect(await partition.read(toOffset(2), 1_000_000, 'read_committed')).toMatchObject({ nextOffset: 2 });
  });

  test('finds times and newest records below the last stable offset only, and never a marker', async () => {
    const clock = new ManualClock(9000);
    const { partition } = await openPartition({}, undefined, undefined, clock);
    await partition.append([batchOf(['a'], 1000)], DURABLE);
    await send(partition, { sequence: 0, timestampMs: 2000 });
    expect(await partition.findByTime(1500, 'read_committed')).toBeUndefined();
    expect(await partition.findByTime(1500)).toEqual({ offset: 1, timestampMs: 2000 });
    expect(await partition.findNewest('read_committed')).toEqual({ offset: 0, timestampMs: 1000 });
    await end(partition, 1, 1, true);
    expect(await partition.findByTime(1500, 'read_committed')).toEqual({ offset: 1, timestampMs: 2000 });
    expect(await partition.findByTime(2001)).toBeUndefined();
    expect(await partition.findNewest()).toEqual({ offset: 1, timestampMs: 2000 });
  });
});

describe('an open transaction', () => {
  test('tells since when it is open', async () => {
    const clock = new ManualClock(5000);
    const { partition } = await openPartition({}, undefined, undefined, clock);
    await send(partition, { sequence: 0 });
    clock.advance(100);
    await send(partition, { sequence: 1 });
    expect(partition.openTransactions()).toEqual([{ producerId: 1, producerEpoch: 0, firstOffset: 0, sinceMs: 5000 }]);
  });

  test('keeps retention and compaction from all that is at or above it', async () => {
    const { partition, log } = await openPartition({
      cleanupCompact: true,
      retentionBytes: 0,
      minCleanableDirtyRatio: 0,
    });
    const key = Buffer.from('k');
    const keyed = (sequence: number): Buffer => producerBatch({ sequence, transactional: true, key });
    await partition.append([keyed(0)], DURABLE);
    await log.roll();
    expect(partition.lifecycle.planRetention()).toBeUndefined();
    expect(partition.lifecycle.planCompaction()).toBeUndefined();
    await end(partition, 1, 1, true);
    expect(partition.lifecycle.planRetention()).toMatchObject({ rollFirst: true });
    expect(partition.lifecycle.planCompaction()).toMatchObject({ why: 'min.cleanable.dirty.ratio', upTo: 1 });
  });
});

test('the markers of transactions with old records close no segments', async () => {
  const rig = new LocalRig();
  rig.fs.skipsDisk = true;
  const partition = await reopen(await rig.open(), { config: { segmentMs: DAY_MS } });
  for (let epoch = 0; epoch < 3; epoch++) {
    await send(partition, { epoch, sequence: 0, timestampMs: 1000 });
    await end(partition, 1, epoch + 1, true);
  }
  expect(partition.log.segments().length).toBe(1);
  await partition.close();
});

test('a defect while a transaction ends shows nothing of it, and leaves nothing wrong over a restart (invariant 11)', async () => {
  const engine = openMemoryEngine({ clock: systemClock });
  let stamps = Number.POSITIVE_INFINITY;
  const wrap = (log: PartitionLog): PartitionLog =>
    overriding(log, {
      get epoch() {
        assert(stamps-- > 0, 'of the test');
        return log.epoch;
      },
    });
  const first = await reopen(engine, { wrap });
  await send(first, { sequence: 0 });
  stamps = 1;
  const ended = rejection(end(first, 1, 1, true), 'INTERNAL');
  const behind = rejection(first.append([batchOf(['x'])], DURABLE), 'INTERNAL');
  await Promise.all([ended, behind]);
  expect(first.lastStableOffset).toBe(0);
  await first.close();
  const second = await reopen(engine, { epoch: 2 });
  expect(second.openTransactions()).toMatchObject([{ producerId: 1, firstOffset: 0 }]);
  expect(second.lastStableOffset).toBe(0);
  await end(second, 1, 1, true);
  expect(second.lastStableOffset).toBe(2);
});
