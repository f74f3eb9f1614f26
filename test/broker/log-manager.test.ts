import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { ManagedPartition, ManagedTopics } from '../../src/broker/log-cleaner.js';
import { LogManager } from '../../src/broker/log-manager.js';
import { LogError } from '../../src/core/errors.js';
import type { Partition } from '../../src/partition/partition.js';
import type { PartitionConfig } from '../../src/partition/partition-config.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { batchOf, CONFIG, openPartition, overriding } from '../partition/support.js';
import { ManualClock } from '../support/manual-clock.js';
import { recordingLogger } from '../support/recording-logger.js';

const NOW = 1_700_000_000_000;
const MINUTE = 60_000;
const DURABLE = { acks: 'durable' } as const;

class World implements ManagedTopics {
  readonly clock: ManualClock = new ManualClock(NOW);
  readonly logger: ReturnType<typeof recordingLogger> = recordingLogger();
  readonly managed: ManagedPartition[] = [];
  readonly manager: LogManager;

  constructor(intervalMs: number = 5 * MINUTE) {
    this.manager = new LogManager({
      topics: this,
      clock: this.clock,
      logger: this.logger,
      retentionCheckIntervalMs: intervalMs,
      cleanerBackoffMs: 15_000,
      cleanerDedupeBufferBytes: 1024 * 1024,
    });
  }

  partitions(): Iterable<ManagedPartition> {
    return this.managed;
  }

  /** A partition of topic `name` with one record, a minute old. */
  async add(
    name: string,
    config: Partial<PartitionConfig>,
    wrap: (log: PartitionLog) => PartitionLog = (log) => log,
  ): Promise<Partition> {
    const { partition } = await openPartition(config, wrap, this.logger, this.clock);
    await partition.append([batchOf(['x'], NOW - MINUTE)], DURABLE);
    this.managed.push({ topic: { record: { name } }, partition });
    return partition;
  }

  messages(): string[] {
    return this.logger.lines.map(({ level, message }) => `${level}: ${message}`);
  }
}

const EXPIRED = { retentionMs: MINUTE - 1 };

function failing(log: PartitionLog, error: () => Error | undefined): PartitionLog {
  return overriding(log, {
    trim: (before) => {
      const failure = error();
      return failure === undefined ? log.trim(before) : Promise.reject(failure);
    },
  });
}

/** Lets a pass that has wrongly begun show itself: it begins in a turn of its own. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await nextTurn();
}

describe('retention over all partitions', () => {
  test('the first pass comes after 30 s at the latest, the next ones at the interval', async () => {
    const world = new World();
    const first = await world.add('a', EXPIRED);
    world.manager.start();
    world.clock.advance(29_999);
    await settle();
    expect(first.logStartOffset).toBe(0);
    world.clock.advance(1);
    await expect.poll(() => first.logStartOffset).toBe(1);
    const second = await world.add('b', EXPIRED);
    await expect.poll(() => world.clock.timerCount).toBe(2);
    world.clock.advance(5 * MINUTE - 1);
    await settle();
    expect(second.logStartOffset).toBe(0);
    world.clock.advance(1);
    await expect.poll(() => second.logStartOffset).toBe(1);
    await world.manager.close();
  });

  test('an interval below 30 s holds from the start', async () => {
    const world = new World(1000);
    const partition = await world.add('a', EXPIRED);
    world.manager.start();
    world.clock.advance(1000);
    await expect.poll(() => partition.logStartOffset).toBe(1);
    await world.manager.close();
  });

  test('a changed topic is looked at soon, and no other', async () => {
    const world = new World();
    const changed = [await world.add('a', {}), await world.add('a', {})];
    const other = await world.add('b', EXPIRED);
    world.manager.start();
    for (const partition of changed) partition.configure({ ...CONFIG, ...EXPIRED });
    world.manager.checkNow('a');
    await expect.poll(() => changed.map((partition) => partition.logStartOffset)).toEqual([1, 1]);
    expect(other.logStartOffset).toBe(0);
    await world.manager.close();
  });

  test('a check asked for during a pass is not lost', async () => {
    const world = new World();
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let entered = false;
    await world.add('a', EXPIRED, (log) =>
      overriding(log, {
        trim: async (before) => {
          entered = true;
          await gate;
          await log.trim(before);
        },
      }),
    );
    const late = await world.add('b', EXPIRED);
    world.manager.checkNow('a');
    await expect.poll(() => entered).toBe(true);
    world.manager.checkNow('b');
    release();
    await expect.poll(() => late.logStartOffset).toBe(1);
    await world.manager.close();
  });

  test('a failing partition keeps no other from its turn, and is logged once until it works again', async () => {
    const world = new World();
    let failure: Error | undefined = new LogError('STORAGE_ERROR', 'EIO');
    const bad = await world.add('bad', EXPIRED, (log) => failing(log, () => failure));
    const good = await world.add('good', EXPIRED);
    world.manager.start();
    for (let pass = 0; pass < 3; pass++) {
      world.clock.advance(5 * MINUTE);
      await expect.poll(() => good.logStartOffset).toBe(pass + 1);
      await good.append([batchOf(['x'], world.clock.now() - MINUTE)], DURABLE);
      await expect.poll(() => world.clock.timerCount).toBe(2);
    }
    expect(world.messages().filter((line) => line.startsWith('warn'))).toEqual([
      'warn: retention failed; it is tried at every check',
    ]);
    failure = undefined;
    world.clock.advance(5 * MINUTE);
    await expect.poll(() => bad.logStartOffset).toBe(1);
    await expect.poll(() => world.messages()).toContain('info: retention works again');
    await world.manager.close();
  });

  test('a partition that is closed under the pass is no news', async () => {
    const world = new World();
    await world.add('gone', EXPIRED, (log) => failing(log, () => new LogError('CLOSED', 'The log is closed.')));
    const good = await world.add('good', EXPIRED);
    const closed = await world.add('closed', EXPIRED);
    await closed.close();
    world.manager.checkNow('gone');
    world.manager.checkNow('good');
    world.manager.checkNow('closed');
    await expect.poll(() => good.logStartOffset).toBe(1);
    await world.manager.close();
    expect(world.messages()).toEqual(['info: retention deleted segments']);
  });

  test('others get a turn between the partitions where something was deleted', async () => {
    const world = new World();
    const turns: number[] = [];
    let turn = 0;
    const count = (): void => {
      turn++;
      if (turns.length < 5) setImmediate(count);
    };
    for (let i = 0; i < 5; i++) {
      await world.add('a', EXPIRED, (log) =>
        overriding(log, {
          trim: (before) => {
            turns.push(turn);
            return log.trim(before);
          },
        }),
      );
    }
    setImmediate(count);
    world.manager.checkNow('a');
    await expect.poll(() => turns.length).toBe(5);
    expect(new Set(turns).size).toBe(5);
    await world.manager.close();
  });

  test('closing waits for the pass under way, stops before the next partition and leaves no timer', async () => {
    const world = new World();
    let release = (): void => {};
    let entered = false;
    const slow = await world.add('a', EXPIRED, (log) =>
      overriding(log, {
        trim: async (before) => {
          entered = true;
          await new Promise<void>((resolve) => {
            release = resolve;
          });
          await log.trim(before);
        },
      }),
    );
    const next = await world.add('a', EXPIRED);
    world.manager.start();
    world.manager.checkNow('a');
    await expect.poll(() => entered).toBe(true);
    let closed = false;
    const closing = world.manager.close().then(() => {
      closed = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(closed).toBe(false);
    release();
    await closing;
    expect([slow.logStartOffset, next.logStartOffset, world.clock.timerCount]).toEqual([1, 0, 0]);
    world.manager.checkNow('a');
    await world.manager.close();
    expect(next.logStartOffset).toBe(0);
  });

  test('closing does not wait for ever for a pass that hangs', async () => {
    const world = new World();
    let entered = false;
    await world.add('a', EXPIRED, (log) =>
      overriding(log, {
        trim: () => {
          entered = true;
          return new Promise<void>(() => undefined);
        },
      }),
    );
    world.manager.checkNow('a');
    await expect.poll(() => entered).toBe(true);
    const closing = world.manager.close();
    await expect.poll(() => world.clock.nextTimerMs).toBe(10_000);
    world.clock.advance(10_000);
    await closing;
  });
});
