/** Creation of topics that fails half way, and what a start finds of partitions: strays, and such as cannot be opened. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { TopicRecord } from '../../src/broker/topic-catalog.js';
import type { Topics } from '../../src/broker/topics.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import { toEpoch, toTopicId } from '../../src/core/types.js';
import { type LocalEngine, openLocalEngine } from '../../src/storage/local/engine.js';
import { batchOf } from '../partition/support.js';
import { BASE_TIME, CONFIG, fill, partition } from '../storage/support.js';
import { ManualClock } from '../support/manual-clock.js';
import { recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { openTopics, WatchedMetadata, withParts } from './support.js';

let dataDir: string;
let engine: LocalEngine;

beforeEach(async () => {
  dataDir = temporaryDirectory();
  engine = await openLocalEngine({ dataDir, clock: systemClock });
});

afterEach(async () => {
  await engine.close();
});

function logDirectories(): string[] {
  return readdirSync(path.join(dataDir, 'logs'));
}

async function append(topics: Topics, topicId: string, values: readonly string[], partition = 0): Promise<void> {
  const batch = batchOf(values, BASE_TIME);
  await topics.partition('t', topicId, partition).append([batch], { acks: 'durable' });
}

async function create(topics: Topics, partitionCount = 1): Promise<TopicRecord> {
  const topic = await topics.create('t', partitionCount, {}, false);
  if (topic === undefined) throw new Error('nothing was created');
  return topic.record;
}

describe('a creation', () => {
  test('that the storage refuses leaves neither a topic nor its directories, and the name is free', async () => {
    const metadata = new WatchedMetadata(engine.metadata);
    const topics = await openTopics(withParts(engine, { metadata }));
    metadata.before = () => {
      throw new LogError('STORAGE_FULL', 'no');
    };
    await rejection(create(topics, 2), 'STORAGE_FULL');
    metadata.before = () => {};
    await expect.poll(logDirectories).toEqual([]);
    await create(topics, 2);
    await topics.close();
  });

  test('that fails twice, at a partition and at undoing it, takes no name', async () => {
    const metadata = new WatchedMetadata(engine.metadata);
    let refuse = true;
    const broken = withParts(engine, {
      metadata,
      open: async (id, epoch, config) => {
        if (refuse) throw new LogError('RESOURCE_LIMIT', 'no');
        return await engine.open(id, epoch, config);
      },
      remove: () => Promise.reject(new LogError('RESOURCE_LIMIT', 'no')),
    });
    const topics = await openTopics(broken);
    metadata.before = (_, value) => {
      if (refuse && value === undefined) throw new LogError('STORAGE_FULL', 'no');
    };
    await rejection(create(topics), 'RESOURCE_LIMIT');
    refuse = false;
    await create(topics);
    await topics.close();
  });
});

describe('at a start', () => {
  test('empty partitions that no topic knows are removed, and those of topics stay', async () => {
    const topics = await openTopics(engine);
    const { id } = await create(topics, 2);
    await topics.close();
    const stray = toTopicId('00000000-0000-4000-8000-000000000099');
    for (const [topicId, partition] of [
      [id, 2],
      [stray, 0],
    ] as const) {
      await (await engine.open({ topicId, partition }, toEpoch(1), CONFIG)).close();
    }
    expect(logDirectories()).toHaveLength(4);
    const again = await openTopics(engine, { epoch: toEpoch(2) });
    expect(
      logDirectories()
        .filter((name) => !name.endsWith('.deleted'))
        .sort(),
    ).toEqual([`${id}-0`, `${id}-1`]);
    await again.close();
  });

  test('a log that no topic knows is kept when it holds something', async () => {
    const logger = recordingLogger();
    await engine.close();
    engine = await openLocalEngine({ dataDir, clock: systemClock, logger });
    const id = partition(99);
    const log = await engine.open(id, toEpoch(1), CONFIG);
    await fill(log, 2);
    await log.close();
    const topics = await openTopics(engine, { epoch: toEpoch(2) });
    expect(logDirectories()).toEqual([`${id.topicId}-0`]);
    expect(logger.lines.map(({ message }) => message)).toContain('no topic knows this log; it is left as it is');
    await topics.close();
  });

  test('a partition for which there is no file handle is served as soon as there is one (invariant 20)', async () => {
    const clock = new ManualClock(BASE_TIME);
    const first = await openTopics(engine);
    const { id } = await create(first, 2);
    await append(first, id, ['a'], 1);
    await first.close();
    let refused = 3;
    const short = withParts(engine, {
      open: async (one, epoch, config) => {
        if (one.partition === 1 && refused-- > 0) throw new LogError('RESOURCE_LIMIT', 'no');
        return await engine.open(one, epoch, config);
      },
    });
    const topics = await openTopics(short, { clock, epoch: toEpoch(2) });
    expect(topics.failures()).toMatchObject([{ topic: 't', partition: 1, error: { reason: 'RESOURCE_LIMIT' } }]);
    await append(topics, id, ['b'], 0);
    for (let attempt = 0; attempt < 3; attempt++) {
      await expect.poll(() => clock.nextTimerMs).toBe(10_000);
      clock.advance(10_000);
    }
    await expect.poll(() => topics.failures()).toEqual([]);
    expect(topics.partition('t', id, 1).highWatermark).toBe(1);
    await topics.close();
    expect(clock.timerCount).toBe(0);
  });

  test('a partition that is damaged is not tried again', async () => {
    const clock = new ManualClock(BASE_TIME);
    const first = await openTopics(engine);
    await create(first);
    await first.close();
    const broken = withParts(engine, { open: () => Promise.reject(new LogError('CORRUPT_LOG', 'no')) });
    const topics = await openTopics(broken, { clock, epoch: toEpoch(2) });
    expect(topics.failures()).toHaveLength(1);
    expect(clock.timerCount).toBe(0);
    await topics.close();
  });
});
