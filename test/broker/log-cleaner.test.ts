import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { LogCleaner, type ManagedPartition, type ManagedTopics } from '../../src/broker/log-cleaner.js';
import { LogError } from '../../src/core/errors.js';
import { type Offset, toOffset } from '../../src/core/types.js';
import type { Partition } from '../../src/partition/partition.js';
import type { PartitionConfig } from '../../src/partition/partition-config.js';
import type { CompactOptions, CompactResult, PartitionLog } from '../../src/storage/engine.js';
import { keyedBatch, openPartition, overriding } from '../partition/support.js';
import { ManualClock } from '../support/manual-clock.js';
import { type LogLine, type RecordingLogger, recordingLogger } from '../support/recording-logger.js';

const NOW = 1_700_000_000_000;
const HOUR = 3_600_000;
const BACKOFF_MS = 15_000;
const DURABLE = { acks: 'durable' } as const;
const COMPACTED = { cleanupCompact: true, cleanupDelete: false } as const;

type Answer = (options: CompactOptions, log: PartitionLog) => Promise<Partial<CompactResult>>;

/** Partitions whose logs answer `compact` as the test says; by default they move their cleaned offset to `upTo`. */
class World implements ManagedTopics {
  readonly clock: ManualClock = new ManualClock(NOW);
  readonly logger: RecordingLogger = recordingLogger();
  readonly managed: ManagedPartition[] = [];
  readonly calls: { name: string; options: CompactOptions }[] = [];
  readonly cleaner: LogCleaner;

  constructor() {
    this.cleaner = new LogCleaner({
      topics: this,
      clock: this.clock,
      logger: this.logger,
      cleanerBackoffMs: BACKOFF_MS,
      cleanerDedupeBufferBytes: 4096,
    });
  }

  partitions(): Iterable<ManagedPartition> {
    return this.managed;
  }

  names(): string[] {
    return this.calls.map(({ name }) => name);
  }

  /** A partition with `closedSegments` segments of one record each before its active one, which holds one too. */
  async add(
    name: string,
    closedSegments: number,
    config: Partial<PartitionConfig> = {},
    answer: Answer = async () => ({}),
    cleaned = 0,
  ): Promise<Partition> {
    let cleanedOffset: Offset = toOffset(cleaned);
    const wrap = (log: PartitionLog): PartitionLog => {
      const compact = async (options: CompactOptions): Promise<CompactResult> => {
        this.calls.push({ name, options });
        const given = await answer(options, log);
        const numbers = { passCount: 1, bytesBefore: 200, bytesAfter: 100, recordsBefore: 2, recordsAfter: 1 };
        const result = { ...numbers, cleanedOffset: options.upTo, ...given };
        cleanedOffset = result.cleanedOffset;
        return result;
      };
      const members = overriding(log, { compact });
      return new Proxy(members, {
        get: (target, key) => (key === 'cleanedOffset' ? cleanedOffset : Reflect.get(target, key, target)),
      });
    };
    const overrides = { ...COMPACTED, ...config };
    const { partition, log } = await openPartition(overrides, wrap, this.logger, this.clock);
    for (let i = 0; i <= closedSegments; i++) {
      if (i > 0) await log.roll();
      await partition.append([keyedBatch([['k', 'v']], NOW)], DURABLE);
    }
    this.managed.push({ topic: { record: { name } }, partition });
    return partition;
  }

  /** Lets the cleaner look once, until it waits again. */
  async look(afterMs: number = BACKOFF_MS): Promise<void> {
    this.clock.advance(afterMs);
    await expect.poll(() => this.clock.nextTimerMs).toBe(BACKOFF_MS);
  }

  messages(level: LogLine['level']): readonly string[] {
    return this.logger.messages(level);
  }
}

describe('the log cleaner', () => {
  test('compacts what is due, the highest ratio first, and looks again at once', async () => {
    const world = new World();
    await world.add('half', 3, {}, undefined, 1);
    await world.add('all', 1);
    await world.add('not compacted', 3, { cleanupCompact: false });
    await world.add('nothing closed', 0);
    await world.add('clean', 3, {}, undefined, 3);
    world.cleaner.start();
    await world.look();
    expect(world.names()).toEqual(['all', 'half']);
    await world.look();
    expect(world.names()).toEqual(['all', 'half']);
    await world.cleaner.close();
  });

  test('what is overdue comes before any ratio', async () => {
    const world = new World();
    await world.add('all', 3);
    await world.add('overdue', 3, { maxCompactionLagMs: 10_000 }, undefined, 2);
    world.cleaner.start();
    await world.look();
    expect(world.names()[0]).toBe('overdue');
    await world.cleaner.close();
  });

  test('hands the log its limits and logs one line with the figures', async () => {
    const world = new World();
    await world.add('a', 2, { deleteRetentionMs: 77 }, async () => {
      world.clock.advance(1500);
      return { passCount: 3 };
    });
    world.cleaner.start();
    await world.look();
    expect(world.calls[0]?.options).toMatchObject({
      upTo: 2,
      nowMs: NOW + BACKOFF_MS,
      deleteRetentionMs: 77,
      producerExpirationMs: 86_400_000,
      maxMapBytes: 4096,
    });
    const lines = world.logger.lines.filter(({ message }) => message === 'compacted');
    expect(lines.map(({ fields }) => fields)).toEqual([
      {
        topic: 't',
        partition: 0,
        passes: 3,
        bytesBefore: 200,
        bytesAfter: 100,
        recordsBefore: 2,
        recordsAfter: 1,
        cleanedOffset: 2,
        durationMs: 1500,
        why: 'min.cleanable.dirty.ratio',
      },
    ]);
    await world.cleaner.close();
  });

  test('an idle active segment is rolled after segment.ms and then compacted', async () => {
    const world = new World();
    const partition = await world.add('idle', 0, { segmentMs: HOUR });
    world.cleaner.start();
    await world.look();
    expect(partition.log.segments()).toHaveLength(1);
    await world.look(HOUR);
    expect(partition.log.segments()).toHaveLength(2);
    expect(world.calls.map(({ options }) => options.upTo)).toEqual([1]);
    await world.cleaner.close();
  });

  test('a failing partition keeps no other from its turn and is left alone for a growing time', async () => {
    const world = new World();
    const full = (): Promise<never> => Promise.reject(new LogError('STORAGE_FULL', 'no room'));
    await world.add('full', 3, {}, full);
    await world.add('good', 1, { minCleanableDirtyRatio: 0.1 });
    world.cleaner.start();
    await world.look();
    expect(world.names()).toEqual(['full', 'good']);
    const triedAt: number[] = [];
    for (let looks = 1; looks <= 20; looks++) {
      const before = world.calls.length;
      await world.look();
      if (world.calls.length > before) triedAt.push(looks);
    }
    expect(triedAt).toEqual([1, 3, 7, 15]);
    const retries = world.logger.lines.filter(({ level }) => level === 'warn').map(({ fields }) => fields.retryInMs);
    expect(retries).toEqual([15_000, 30_000, 60_000, 120_000, 240_000]);
    for (let i = 0; i < 6; i++) await world.look(HOUR);
    const last = world.logger.lines.filter(({ level }) => level === 'warn').at(-1);
    expect(last?.fields.retryInMs).toBe(HOUR);
    await world.cleaner.close();
  });

  test('a compaction that gains nothing is not repeated at once', async () => {
    const world = new World();
    await world.add('stuck', 2, {}, async () => ({ cleanedOffset: toOffset(0) }));
    world.cleaner.start();
    await world.look();
    expect(world.calls).toHaveLength(1);
    await world.look();
    expect(world.calls).toHaveLength(2);
    await world.cleaner.close();
  });

  test('a damaged log is reported once and left alone until its start has passed the damage', async () => {
    const world = new World();
    let isDamaged = true;
    const partition = await world.add('damaged', 3, {}, async () => {
      if (isDamaged) throw new LogError('CORRUPT_LOG', 'a flipped bit', { metadata: { offset: 1 } });
      return {};
    });
    world.cleaner.start();
    for (let i = 0; i < 5; i++) await world.look(HOUR);
    expect(world.calls).toHaveLength(1);
    expect(world.messages('error')).toHaveLength(1);
    await partition.deleteRecords(1);
    await world.look();
    expect(world.calls).toHaveLength(1);
    isDamaged = false;
    await partition.deleteRecords(2);
    await world.look();
    expect(world.calls).toHaveLength(2);
    expect(world.messages('info')).toEqual(['compacted']);
    await world.cleaner.close();
  });

  test('damage below the log start, which goes with its segment, is not looked for without a pause', async () => {
    const world = new World();
    const partition = await world.add('damaged', 3, {}, async () => {
      throw new LogError('CORRUPT_LOG', 'a flipped bit', { metadata: { offset: 0 } });
    });
    await partition.deleteRecords(1);
    world.cleaner.start();
    await world.look();
    expect(world.calls).toHaveLength(1);
    for (let i = 0; i < 4; i++) await world.look();
    expect(world.calls.length).toBeLessThan(5);
    await world.cleaner.close();
  });

  test('a partition that is closed under its compaction is no news', async () => {
    const world = new World();
    await world.add('gone', 3, {}, () => Promise.reject(new LogError('CLOSED', 'The log is closed.')));
    const deleted = await world.add('deleted', 3, {}, (options) => {
      return new Promise((_, reject) => {
        options.signal?.addEventListener('abort', () => reject(options.signal?.reason));
      });
    });
    world.cleaner.start();
    world.clock.advance(BACKOFF_MS);
    await expect.poll(() => world.names()).toContain('deleted');
    await deleted.close();
    await expect.poll(() => world.clock.nextTimerMs).toBe(BACKOFF_MS);
    expect([...world.messages('warn'), ...world.messages('error')]).toEqual([]);
    await world.cleaner.close();
  });

  test('a changed configuration is looked at without waiting', async () => {
    const world = new World();
    const partition = await world.add('a', 2, { cleanupCompact: false });
    world.cleaner.start();
    partition.configure({ ...partition.config, cleanupCompact: true });
    world.cleaner.wake();
    await expect.poll(() => world.names()).toEqual(['a']);
    await world.cleaner.close();
  });

  test('closing aborts the compaction under way, waits for it and leaves no timer', async () => {
    const world = new World();
    // What is left after the abort is enough to be due.
    await world.add('a', 3, {}, async (options) => {
      await new Promise<void>((resolve) => options.signal?.addEventListener('abort', () => resolve()));
      return { cleanedOffset: toOffset(1) };
    });
    world.cleaner.start();
    world.clock.advance(BACKOFF_MS);
    await expect.poll(() => world.calls.length).toBe(1);
    await world.cleaner.close();
    expect(world.clock.timerCount).toBe(0);
    expect(world.messages('info')).toEqual(['compacted']);
    world.cleaner.wake();
    world.clock.advance(HOUR);
    for (let turn = 0; turn < 5; turn++) await nextTurn();
    expect(world.calls).toHaveLength(1);
  });
});
