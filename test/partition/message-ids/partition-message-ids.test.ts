/** Message ids over a whole partition: on both engines, over restarts, and when appends fail. */
import { beforeEach, describe, expect, test } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import { openRecords } from '../../../src/batch/records.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { LogError, type Reason } from '../../../src/core/errors.js';
import { toEpoch, toOffset } from '../../../src/core/types.js';
import type { AppendOptions, AppendResult } from '../../../src/partition/append-types.js';
import { withMessageId } from '../../../src/partition/message-ids/identified-records.js';
import { Partition } from '../../../src/partition/partition.js';
import type { PartitionConfig } from '../../../src/partition/partition-config.js';
import type { SharedProducers } from '../../../src/partition/producers/shared-producers.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { LocalRig } from '../../storage/support.js';
import { GatedAppends } from '../../support/gated-appends.js';
import { ManualClock } from '../../support/manual-clock.js';
import { fc } from '../../support/properties.js';
import { recordingLogger } from '../../support/recording-logger.js';
import { rejection } from '../../support/rejection.js';
import { batchOf, CONFIG, newSharedProducers, TOPIC_ID } from '../support.js';

const WINDOW_MS = 10_000;

type Kind = 'memory' | 'local';

/** Its wall clock can be set. */
class SettableClock extends ManualClock {
  wallOffsetMs = 0;

  override now(): number {
    return super.now() + this.wallOffsetMs;
  }
}

/** A partition, or two, that can be stopped and killed. */
class Setting {
  readonly clock = new SettableClock(1_700_000_000_000);
  readonly logger = recordingLogger();
  readonly gate = new GatedAppends();
  readonly #kind: Kind;
  readonly #config: PartitionConfig;
  #maxIds: number;
  #rig: LocalRig;
  #engine: StorageEngine | undefined;
  #epoch = 0;
  shared: SharedProducers;
  partitions: Partition[] = [];

  constructor(kind: Kind, config: Partial<PartitionConfig> = {}, maxIds = 1000) {
    this.#kind = kind;
    this.#config = { ...CONFIG, dedupeWindowMs: WINDOW_MS, ...config };
    this.#maxIds = maxIds;
    this.#rig = new LocalRig({ clock: this.clock });
    this.#rig.fs.skipsDisk = true;
    this.shared = newSharedProducers();
  }

  async start(): Promise<this> {
    this.#epoch++;
    this.shared = newSharedProducers({ maxMessageIds: this.#maxIds });
    const { clock, logger, shared } = this;
    this.#engine ??= this.#kind === 'memory' ? openMemoryEngine({ clock }) : await this.#rig.open();
    const engine = this.gate.wrap(this.#engine);
    this.partitions = [];
    for (const partition of [0, 1]) {
      const log = await engine.open({ topicId: TOPIC_ID, partition }, toEpoch(this.#epoch), this.#config);
      const options = { topic: 't', log, config: this.#config, clock, logger, producers: shared };
      this.partitions.push(await Partition.open(options));
    }
    return this;
  }

  async restart(): Promise<void> {
    await Promise.all(this.partitions.map((partition) => partition.close()));
    if (this.#kind === 'local') {
      await this.#engine?.close();
      this.#engine = undefined;
    }
    await this.start();
  }

  /** What a process that ends here leaves behind, opened by another. */
  async kill(): Promise<void> {
    if (this.#kind === 'local') {
      this.#rig = this.#rig.crash();
      this.#engine = undefined;
    }
    await this.start();
  }

  async send(ids: readonly string[], options: Partial<AppendOptions> = {}, partition = 0): Promise<AppendResult> {
    const records = ids.map((id) => ({ timestampMs: 5, key: null, value: Buffer.from(`value of ${id}`) }));
    const identified = records.map((record, i) => withMessageId(record, ids[i]!));
    const batch = encodeBatch(identified, { messageIds: true });
    return await this.partitions[partition]!.append([batch], { acks: 'durable', messageIds: ids, ...options });
  }

  /** Where the records with these ids are, as an answer tells. */
  async offsetsOf(ids: readonly string[], partition = 0): Promise<readonly number[] | undefined> {
    return (await this.send(ids, {}, partition)).offsets;
  }

  async values(partition = 0): Promise<(string | undefined)[]> {
    const target = this.partitions[partition]!;
    const values: (string | undefined)[] = [];
    for (let from = target.logStartOffset; ; ) {
      const { chunks, nextOffset } = await target.read(from, 1 << 20);
      if (nextOffset === from) return values;
      for (const batch of chunks.flatMap(splitBatches)) {
        const cursor = await openRecords(batch);
        while (cursor.next()) values.push(cursor.value?.toString().replace('value of ', ''));
      }
      from = toOffset(nextOffset);
    }
  }
}

describe.each<Kind>(['memory', 'local'])('message ids over the %s engine', (kind) => {
  let setting: Setting;

  beforeEach(async () => {
    setting = await new Setting(kind).start();
  });

  test('leave out what is there, and append the rest in one batch', async () => {
    await setting.send(['a', 'b']);
    const mixed = await setting.send(['b', 'c', 'a', 'd']);
    expect(mixed).toMatchObject({ baseOffset: 1, lastOffset: 3, offsets: [1, 2, 0, 3], duplicateCount: 2 });
    const all = await setting.send(['d', 'a']);
    expect(all).toMatchObject({
      baseOffset: 3,
      lastOffset: 0,
      offsets: [3, 0],
      duplicateCount: 2,
      logAppendTimeMs: -1,
    });
    expect(await setting.values()).toEqual(['a', 'b', 'c', 'd']);
  });

  test('are of one partition alone', async () => {
    await setting.send(['a']);
    await setting.send(['x', 'a'], {}, 1);
    expect([await setting.values(0), await setting.values(1)]).toEqual([['a'], ['x', 'a']]);
  });

  test('of requests sent together are judged in the order of the requests', async () => {
    const answers = await Promise.all([setting.send(['a']), setting.send(['a', 'b']), setting.send(['b', 'a'])]);
    expect(answers.map(({ offsets }) => offsets)).toEqual([[0], [0, 1], [1, 0]]);
    expect(await setting.values()).toEqual(['a', 'b']);
  });

  test.each(['restart', 'kill'] as const)('are remembered after a %s', async (end) => {
    await setting.send(['a', 'b']);
    await setting.partitions[0]!.append([batchOf(['between'], 5)], { acks: 'durable' });
    await setting.send(['c']);
    await setting.send(['x'], {}, 1);
    await setting[end]();
    expect(await setting.offsetsOf(['c', 'b', 'a', 'd'])).toEqual([3, 1, 0, 4]);
    expect(await setting.offsetsOf(['x', 'a'], 1)).toEqual([0, 1]);
    await setting[end]();
    expect(await setting.offsetsOf(['d', 'c', 'b', 'a'])).toEqual([4, 3, 1, 0]);
    expect(setting.logger.messages('warn')).toEqual([]);
  });

  test('after a clean stop have grown no younger', async () => {
    await setting.send(['a']);
    setting.clock.advance(WINDOW_MS - 100);
    await setting.restart();
    setting.clock.advance(99);
    expect(await setting.offsetsOf(['a'])).toEqual([0]);
    setting.clock.advance(1);
    expect(await setting.offsetsOf(['a'])).toEqual([1]);
  });

  test('do not come to life again with every restart', async () => {
    await setting.send(['a']);
    for (let i = 0; i < 4; i++) {
      await setting.restart();
      setting.clock.advance(WINDOW_MS / 4);
    }
    await setting.restart();
    expect(await setting.offsetsOf(['a'])).toEqual([1]);
  });

  test('count from the start after a kill: longer, never shorter', async () => {
    await setting.send(['a']);
    setting.clock.advance(WINDOW_MS - 1);
    await setting.kill();
    setting.clock.advance(WINDOW_MS - 1);
    expect(await setting.offsetsOf(['a'])).toEqual([0]);
    setting.clock.advance(1);
    expect(await setting.offsetsOf(['a'])).toEqual([1]);
  });

  test('do not follow a wall clock that jumps, before a stop or after it (invariant 18)', async () => {
    await setting.send(['a']);
    setting.clock.wallOffsetMs = 3_600_000;
    expect(await setting.offsetsOf(['a', 'b'])).toEqual([0, 1]);
    await setting.restart();
    setting.clock.wallOffsetMs = -3_600_000;
    setting.clock.advance(WINDOW_MS - 1);
    expect(await setting.offsetsOf(['a', 'b'])).toEqual([0, 1]);
    setting.clock.advance(1);
    expect(await setting.offsetsOf(['a', 'b'])).toEqual([2, 3]);
  });

  test('outlive the segments that their records were in', async () => {
    await setting.send(['a', 'b']);
    await setting.partitions[0]!.deleteRecords(-1);
    await setting.kill();
    expect(setting.partitions[0]!.logStartOffset).toBe(2);
    expect(await setting.offsetsOf(['b', 'c'])).toEqual([1, 2]);
  });

  test('survive any sequence of requests, kills and restarts', async () => {
    const step = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          partition: fc.nat({ max: 1 }),
          ids: fc.array(fc.nat({ max: 20 }).map(String), { minLength: 1, maxLength: 6 }),
        }),
      },
      { weight: 1, arbitrary: fc.record({ end: fc.constantFrom('restart' as const, 'kill' as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const run = await new Setting(kind, { segmentBytes: 600 }).start();
        const offsets: Map<string, number>[] = [new Map(), new Map()];
        for (const action of steps) {
          if ('end' in action) {
            await run[action.end]();
            continue;
          }
          const known = offsets[action.partition]!;
          const expected = action.ids.map((id) => {
            const offset = known.get(id) ?? known.size;
            known.set(id, offset);
            return offset;
          });
          expect(await run.offsetsOf(action.ids, action.partition)).toEqual(expected);
        }
        for (const [partition, known] of offsets.entries())
          expect(await run.values(partition)).toEqual([...known.keys()]);
      }),
      { numRuns: kind === 'memory' ? 60 : 15 },
    );
  });
});

describe('when an append fails', () => {
  test.each<Reason>(['STORAGE_FULL', 'STORAGE_ERROR'])('with %s, its ids are not remembered', async (reason) => {
    const setting = await new Setting('memory').start();
    const { gate } = setting;
    await setting.send(['a']);
    gate.failure = new LogError(reason, 'no');
    const failing = [setting.send(['a', 'b']), setting.send(['b', 'c'])];
    // What was there before is told all the same.
    const repeated = setting.send(['a']);
    for (const send of failing) await rejection(send, reason);
    expect(await repeated).toMatchObject({ offsets: [0], duplicateCount: 1 });
    expect(setting.shared.messageIds.used).toBe(1);
    gate.failure = undefined;
    expect(await setting.offsetsOf(['c', 'b'])).toEqual([1, 2]);
  });

  test('a repetition sent along fails along', async () => {
    const setting = await new Setting('memory').start();
    const { gate } = setting;
    gate.failure = new LogError('STORAGE_FULL', 'no');
    const [first, second] = [setting.send(['a'], { acks: 'written' }), setting.send(['a'], { acks: 'written' })];
    await rejection(first, 'STORAGE_FULL');
    await rejection(second, 'STORAGE_FULL');
    expect(setting.shared.messageIds.used).toBe(0);
  });
});

describe('an answer about what is there already', () => {
  test('comes when that is as safe as is asked for', async () => {
    const setting = await new Setting('memory', { flushMs: 1000 }).start();
    await setting.send(['a'], { acks: 'written' });
    expect(setting.partitions[0]!.highWatermark).toBe(0);
    await setting.send(['a'], { acks: 'written' });
    expect(setting.partitions[0]!.highWatermark).toBe(0);
    await setting.send(['a'], { acks: 'durable' });
    expect(setting.partitions[0]!.highWatermark).toBe(1);
  });

  test('is not given for a batch of a client that claims message ids', async () => {
    const setting = await new Setting('memory').start();
    const forged = encodeBatch([withMessageId({ timestampMs: 1, key: null, value: null }, 'a')], { messageIds: true });
    const [partition] = setting.partitions;
    await rejection(partition!.append([forged], { acks: 'durable' }), 'INVALID_RECORD');
  });

  test('goes with the time of the append, where topics have that', async () => {
    const setting = await new Setting('memory', { logAppendTime: true }).start();
    await setting.send(['a']);
    setting.clock.advance(5);
    const nowMs = setting.clock.now();
    expect(await setting.send(['a', 'b'])).toMatchObject({ logAppendTimeMs: nowMs, offsets: [0, 1] });
    await setting.kill();
    expect(await setting.offsetsOf(['b', 'a'])).toEqual([1, 0]);
  });
});

test('a snapshot is written when many ids have come, so that a start does not read what is long over', async () => {
  const setting = await new Setting('memory', {}, 10_000).start();
  const [partition] = setting.partitions;
  for (let i = 0; i < 30; i++) {
    await setting.send(Array.from({ length: 100 }, (_, j) => `${i}/${j}`));
    setting.clock.advance(WINDOW_MS / 2);
  }
  await expect.poll(() => partition!.log.sideFiles.offsets('snapshot').length).toBeGreaterThan(0);
  await setting.kill();
  // Two requests lie within the window; what else is found again is what came since the last snapshot.
  expect(setting.shared.messageIds.used).toBeLessThan(1500);
  expect(await setting.offsetsOf(['29/99', '29/0'])).toEqual([2999, 2900]);
});

test('a damaged snapshot costs no id', async () => {
  const setting = await new Setting('memory').start();
  await setting.send(['a', 'b']);
  await setting.partitions[0]!.close();
  const { sideFiles } = setting.partitions[1]!.log;
  expect(sideFiles.offsets('snapshot')).toEqual([]);
  await setting.kill();
  const log = setting.partitions[0]!.log;
  const [offset] = log.sideFiles.offsets('snapshot');
  const bytes = Buffer.from((await log.sideFiles.read('snapshot', offset!)) ?? []);
  bytes[bytes.length - 1]! ^= 1;
  await log.sideFiles.write('snapshot', offset!, bytes);
  await setting.kill();
  expect(setting.logger.messages('warn')).toHaveLength(1);
  expect(await setting.offsetsOf(['b', 'a'])).toEqual([1, 0]);
});

test('a changed window holds for ids that came before', async () => {
  const setting = await new Setting('memory').start();
  await setting.send(['a']);
  setting.clock.advance(1000);
  const [partition] = setting.partitions;
  partition!.configure({ ...partition!.config, dedupeWindowMs: 1000 });
  expect(await setting.offsetsOf(['a'])).toEqual([1]);
});

test('a closed partition gives its room to others', async () => {
  const setting = await new Setting('memory', {}, 2).start();
  await setting.send(['a', 'b']);
  await rejection(setting.send(['c'], {}, 1), 'RESOURCE_LIMIT');
  await setting.partitions[0]!.close();
  expect(await setting.offsetsOf(['c', 'd'], 1)).toEqual([0, 1]);
});

test('records without a key are refused on a compacted topic, and their ids are not remembered', async () => {
  const setting = await new Setting('memory', { cleanupCompact: true }).start();
  await rejection(setting.send(['a']), 'INVALID_RECORD');
  expect(setting.shared.messageIds.used).toBe(0);
});
