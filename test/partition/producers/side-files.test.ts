import { describe, expect, test } from 'vitest';
import { systemClock } from '../../../src/core/clock.js';
import { LogError } from '../../../src/core/errors.js';
import { Slices } from '../../../src/core/slices.js';
import { type Offset, toOffset } from '../../../src/core/types.js';
import type { Partition } from '../../../src/partition/partition.js';
import { decodeSnapshot, type SnapshotContents } from '../../../src/partition/producers/snapshot.js';
import type { PartitionLog, SideFiles, StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { ManualClock } from '../../support/manual-clock.js';
import { recordingLogger } from '../../support/recording-logger.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { batchOf, keyedBatch, newSharedProducers, overriding } from '../support.js';
import { type ReopenOptions, reopen } from './partition-support.js';
import { DAY_MS, producerBatch } from './support.js';

const WRITTEN = { acks: 'written' } as const;
const DURABLE = { acks: 'durable' } as const;
const EVERY_KIB = { abortedInMemory: 3, snapshotEveryBytes: 1024 };

async function send(partition: Partition, sequence: number, id = 1): Promise<void> {
  await partition.append([producerBatch({ id, sequence })], DURABLE);
}

/** A transaction of one batch. */
async function abort(partition: Partition, id: number, epoch: number): Promise<void> {
  await partition.append([producerBatch({ id, epoch, sequence: 0, transactional: true })], WRITTEN);
  await partition.endTransaction({ producerId: id, producerEpoch: epoch + 1, commit: false, coordinatorEpoch: 0 });
}

async function contentsOf(log: PartitionLog, offset: Offset): Promise<SnapshotContents> {
  const bytes = await log.sideFiles.read('snapshot', offset);
  if (bytes === undefined) throw new Error(`no snapshot at ${offset}`);
  return await decodeSnapshot(bytes, Date.now(), new Slices(systemClock, 5));
}

/** Opens and counts what is read of the log, in offsets. */
async function reopenCounting(
  engine: StorageEngine,
  options: ReopenOptions = {},
): Promise<{ partition: Partition; reads: number[] }> {
  const reads: number[] = [];
  const wrap = (log: PartitionLog): PartitionLog =>
    overriding(log, {
      read: (from, to, maxBytes) => {
        reads.push(from);
        return log.read(from, to, maxBytes);
      },
    });
  return { partition: await reopen(engine, { ...options, wrap }), reads };
}

/** `log` with side files that fail, or do something else instead. */
function withSideFiles(log: PartitionLog, members: Partial<SideFiles>): PartitionLog {
  const { sideFiles } = log;
  const changed: SideFiles = {
    offsets: (kind) => sideFiles.offsets(kind),
    read: (kind, offset) => sideFiles.read(kind, offset),
    write: (kind, offset, contents) => sideFiles.write(kind, offset, contents),
    remove: (kind, offset) => sideFiles.remove(kind, offset),
    ...members,
  };
  return overriding(log, { sideFiles: changed });
}

describe('snapshots', () => {
  test('are not made, and nothing is read, where there are no producers', async () => {
    const engine = openMemoryEngine();
    const first = await reopen(engine, { producers: newSharedProducers({}, EVERY_KIB) });
    for (let i = 0; i < 20; i++) await first.append([batchOf(['x'.repeat(200)])], DURABLE);
    await first.close();
    const { partition, reads } = await reopenCounting(engine, { epoch: 2 });
    expect(reads).toEqual([]);
    expect(partition.log.sideFiles.offsets('snapshot')).toEqual([]);
  });

  test('made at a clean end leave nothing to be read', async () => {
    const engine = openMemoryEngine();
    const first = await reopen(engine);
    for (let sequence = 0; sequence < 7; sequence++) await send(first, sequence);
    await first.close();
    const { partition, reads } = await reopenCounting(engine, { epoch: 2 });
    expect(reads).toEqual([]);
    expect(partition.log.sideFiles.offsets('snapshot')).toEqual([7]);
    for (const sequence of [2, 6]) {
      const again = await partition.append([producerBatch({ sequence })], WRITTEN);
      expect(again).toMatchObject({ baseOffset: sequence, duplicateCount: 1 });
    }
  });

  test('are made every so many bytes, of which the two newest stay, and only what is above them is read', async () => {
    const engine = openMemoryEngine();
    const first = await reopen(engine, { producers: newSharedProducers({}, EVERY_KIB) });
    for (let sequence = 0; sequence < 100; sequence++) await send(first, sequence);
    const offsets = (): readonly Offset[] => first.log.sideFiles.offsets('snapshot');
    await until(() => (offsets()[1] ?? 0) > 60, 'a late snapshot was made');
    expect(offsets().length).toBe(2);
    const { reads } = await reopenCounting(engine, { epoch: 2 });
    expect(Math.min(...reads)).toBe(offsets()[1]);
  });

  test('keep what is below a new log start offset', async () => {
    const engine = openMemoryEngine();
    const first = await reopen(engine);
    for (let sequence = 0; sequence < 3; sequence++) await send(first, sequence);
    await first.deleteRecords(-1);
    expect(first.logStartOffset).toBe(3);
    const second = await reopen(engine, { epoch: 2 });
    expect(await second.append([producerBatch({ sequence: 1 })], WRITTEN)).toMatchObject({ baseOffset: 1 });
    await rejection(second.append([producerBatch({ sequence: 4 })], WRITTEN), 'OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  describe('of a compacted topic', () => {
    const config = { cleanupCompact: true, cleanupDelete: false, minCleanableDirtyRatio: 0 };
    const key = Buffer.from('k');

    /** Everything below the end, at least as often as it takes for what is marked in one pass to go in the next. */
    async function compact(partition: Partition): Promise<void> {
      for (let pass = 0; pass < 2; pass++) {
        await partition.append([keyedBatch([['last', `${pass}`]])], DURABLE);
        await partition.log.roll();
        const plan = partition.lifecycle.planCompaction();
        if (plan === undefined) throw new Error('nothing is due');
        await partition.lifecycle.compact(plan, { maxMapBytes: 1 << 20, signal: new AbortController().signal });
      }
    }

    test('keep what compaction takes', async () => {
      const engine = openMemoryEngine();
      const first = await reopen(engine, { config });
      for (let sequence = 0; sequence < 6; sequence++) {
        await first.append([producerBatch({ sequence, key })], DURABLE);
      }
      await compact(first);
      const second = await reopen(engine, { config, epoch: 2 });
      expect(await second.append([producerBatch({ sequence: 2, key })], WRITTEN)).toMatchObject({ baseOffset: 2 });
    });

    test('are not needed to know that a transaction has ended', async () => {
      const engine = openMemoryEngine();
      const first = await reopen(engine, { config: { ...config, deleteRetentionMs: 0 } });
      for (let epoch = 0; epoch < 4; epoch++) {
        await first.append([producerBatch({ epoch, sequence: 0, transactional: true, key })], DURABLE);
        const commit = epoch % 2 === 0;
        await first.endTransaction({ producerId: 1, producerEpoch: epoch + 1, commit, coordinatorEpoch: 0 });
      }
      await compact(first);
      for (const offset of first.log.sideFiles.offsets('snapshot'))
        await first.log.sideFiles.remove('snapshot', offset);
      const second = await reopen(engine, { config, epoch: 2 });
      expect(second.openTransactions()).toEqual([]);
      expect(second.producers()).toMatchObject([{ producerId: 1, producerEpoch: 4, lastSequence: -1 }]);
      expect(second.lastStableOffset).toBe(second.highWatermark);
    });
  });

  test('hold nothing that the log has not taken in the end', async () => {
    const engine = openMemoryEngine();
    let release: (() => void) | undefined;
    let isHeld = false;
    const wrap = (log: PartitionLog): PartitionLog =>
      overriding(log, {
        append: async (batches, at) => {
          if (!isHeld) return await log.append(batches, at);
          await new Promise<void>((resolve) => {
            release = resolve;
          });
          throw new LogError('STORAGE_FULL', 'no room');
        },
      });
    const partition = await reopen(engine, { wrap });
    await send(partition, 0);
    isHeld = true;
    const refused = rejection(partition.append([producerBatch({ sequence: 1 })], WRITTEN), 'STORAGE_FULL');
    await until(() => release !== undefined, 'the append has reached the log');
    const deleting = partition.deleteRecords(1);
    release?.();
    await Promise.all([refused, deleting]);
    const { entries } = await contentsOf(partition.log, toOffset(1));
    expect(entries.map(({ batches }) => batches.length)).toEqual([1]);
  });

  test('that cannot be written cost a warning and nothing else', async () => {
    const logger = recordingLogger();
    const engine = openMemoryEngine();
    const wrap = (log: PartitionLog): PartitionLog =>
      withSideFiles(log, { write: () => Promise.reject(new LogError('STORAGE_FULL', 'no room')) });
    const partition = await reopen(engine, { wrap, logger });
    await send(partition, 0);
    await partition.deleteRecords(0);
    await partition.deleteRecords(1);
    await partition.close();
    expect(new Set(logger.messages('warn'))).toEqual(
      new Set(['a snapshot of producers could not be written; a restart reads more of the log']),
    );
    expect(logger.messages('error')).toEqual([]);
  });

  test('that are damaged cost a warning: the one before is used, or all of the log', async () => {
    const engine = openMemoryEngine();
    const first = await reopen(engine);
    await send(first, 0);
    await first.close();
    const second = await reopen(engine, { epoch: 2 });
    await send(second, 1);
    await second.close();
    expect(second.log.sideFiles.offsets('snapshot')).toEqual([1, 2]);
    for (const [i, offset] of [toOffset(2), toOffset(1)].entries()) {
      const { log } = await reopen(engine, { epoch: 3 + 2 * i });
      await log.sideFiles.write('snapshot', offset, Buffer.from('broken'));
      const logger = recordingLogger();
      const { partition, reads } = await reopenCounting(engine, { epoch: 4 + 2 * i, logger });
      expect(logger.messages('warn').length).toBe(i + 1);
      expect(reads).toEqual([1 - i]);
      expect(partition.producers()).toMatchObject([{ producerId: 1, lastSequence: 1 }]);
    }
  });

  test('that cannot be read for want of a file handle keep the partition from opening, until there is one', async () => {
    const engine = openMemoryEngine();
    const first = await reopen(engine);
    await send(first, 0);
    await first.close();
    const read = (): Promise<never> => Promise.reject(new LogError('RESOURCE_LIMIT', 'no handle'));
    const producers = newSharedProducers();
    const opening = reopen(engine, { epoch: 2, producers, wrap: (log) => withSideFiles(log, { read }) });
    expect(await rejection(opening, 'RESOURCE_LIMIT')).toMatchObject({ retryable: true });
    expect(producers.budget.used).toBe(0);
    const second = await reopen(engine, { epoch: 2, producers });
    expect(second.producers().length).toBe(1);
    expect(producers.budget.used).toBe(1);
    await second.close();
    expect(producers.budget.used).toBe(0);
  });

  test('remember when a producer has last written, and a producer is forgotten after that', async () => {
    const clock = new ManualClock(1000);
    const engine = openMemoryEngine({ clock });
    const first = await reopen(engine, { clock });
    await send(first, 0);
    clock.advance(DAY_MS - 10);
    await first.close();
    const second = await reopen(engine, { clock, epoch: 2 });
    clock.advance(9);
    expect(second.producers().length).toBe(1);
    clock.advance(1);
    second.lifecycle.planRetention();
    expect(second.producers()).toEqual([]);
    expect(await second.append([producerBatch({ sequence: 70, timestampMs: 5 })], WRITTEN)).toMatchObject({
      baseOffset: 1,
    });
  });
});

describe('files of aborted transactions', () => {
  async function withFiles(engine: StorageEngine, count: number): Promise<Partition> {
    const partition = await reopen(engine, { producers: newSharedProducers({}, EVERY_KIB) });
    for (let epoch = 0; epoch < count; epoch++) await abort(partition, 1 + (epoch % 2), epoch >> 1);
    await until(() => partition.log.sideFiles.offsets('txnindex').length === Math.floor(count / 3), 'they are written');
    return partition;
  }

  const abortedIn = async (partition: Partition, from = 0): Promise<number[]> =>
    (await partition.read(toOffset(from), 1_000_000, 'read_committed')).aborted.map(({ firstOffset }) => firstOffset);

  test('take the older ones from memory', async () => {
    const partition = await withFiles(openMemoryEngine(), 8);
    expect(partition.log.sideFiles.offsets('txnindex')).toEqual([1, 7]);
    expect(await abortedIn(partition)).toEqual([0, 2, 4, 6, 8, 10, 12, 14]);
    expect(await abortedIn(partition, 5)).toEqual([6, 8, 10, 12, 14]);
    expect((await partition.read(toOffset(2), 1, 'read_committed')).aborted).toMatchObject([
      { firstOffset: 2, lastOffset: 3 },
    ]);
  });

  test('do not take what is aborted while they are written', async () => {
    let release: (() => void) | undefined;
    const wrap = (log: PartitionLog): PartitionLog => {
      const write: SideFiles['write'] = async (kind, offset, contents) => {
        if (kind === 'txnindex' && release === undefined) {
          await new Promise<void>((resolve) => {
            release = resolve;
          });
        }
        await log.sideFiles.write(kind, offset, contents);
      };
      return withSideFiles(log, { write });
    };
    const partition = await reopen(openMemoryEngine(), { wrap, producers: newSharedProducers({}, EVERY_KIB) });
    for (let epoch = 0; epoch < 5; epoch++) await abort(partition, 1, epoch);
    expect(await abortedIn(partition)).toEqual([0, 2, 4, 6, 8]);
    release?.();
    await until(() => partition.log.sideFiles.offsets('txnindex').length === 1, 'the file is written');
    expect(await abortedIn(partition)).toEqual([0, 2, 4, 6, 8]);
  });

  test.each([
    ['missing', undefined],
    ['damaged', Buffer.alloc(102)],
  ])('that are %s are made anew from the log (invariant 19)', async (_, contents) => {
    const engine = openMemoryEngine();
    const first = await withFiles(engine, 8);
    const before = await first.log.sideFiles.read('txnindex', toOffset(1));
    await first.close();
    const log = (await reopen(engine, { epoch: 2 })).log;
    if (contents === undefined) await log.sideFiles.remove('txnindex', toOffset(1));
    else await log.sideFiles.write('txnindex', toOffset(1), contents);
    const logger = recordingLogger();
    const partition = await reopen(engine, { epoch: 3, logger, producers: newSharedProducers({}, EVERY_KIB) });
    const both = await Promise.all([abortedIn(partition), abortedIn(partition)]);
    expect(both).toEqual([
      [0, 2, 4, 6, 8, 10, 12, 14],
      [0, 2, 4, 6, 8, 10, 12, 14],
    ]);
    expect(logger.messages('warn').length).toBe(1);
    expect(await partition.log.sideFiles.read('txnindex', toOffset(1))).toEqual(before);
  });

  test('that cannot be written do not keep them in memory', async () => {
    const logger = recordingLogger();
    const write = (): Promise<never> => Promise.reject(new LogError('STORAGE_FULL', 'no room'));
    const wrap = (log: PartitionLog): PartitionLog => withSideFiles(log, { write });
    const producers = newSharedProducers({}, EVERY_KIB);
    const partition = await reopen(openMemoryEngine(), { wrap, logger, producers });
    for (let epoch = 0; epoch < 8; epoch++) await abort(partition, 1, epoch);
    await until(() => logger.messages('warn').length >= 2, 'two files were tried');
    expect(await abortedIn(partition)).toEqual([0, 2, 4, 6, 8, 10, 12, 14]);
  });

  test('go when the log start offset has passed them', async () => {
    const partition = await withFiles(openMemoryEngine(), 8);
    await partition.deleteRecords(7);
    expect(partition.log.sideFiles.offsets('txnindex')).toEqual([7]);
    expect(await abortedIn(partition, 7)).toEqual([8, 10, 12, 14]);
    await partition.deleteRecords(-1);
    expect(partition.log.sideFiles.offsets('txnindex')).toEqual([]);
  });

  test('that no snapshot knows of are removed', async () => {
    const engine = openMemoryEngine();
    const first = await withFiles(engine, 4);
    for (const offset of first.log.sideFiles.offsets('snapshot')) await first.log.sideFiles.remove('snapshot', offset);
    const partition = await reopen(engine, { epoch: 2 });
    expect(partition.log.sideFiles.offsets('txnindex')).toEqual([]);
    expect(await abortedIn(partition)).toEqual([0, 2, 4, 6]);
  });
});
