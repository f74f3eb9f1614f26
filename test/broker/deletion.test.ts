/** Deletion of topics: the name is free at once, the files go in the background, and a crash only delays that. */
import { cpSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TopicCatalog, type TopicRecord } from '../../src/broker/topic-catalog.js';
import type { Topics } from '../../src/broker/topics.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import { systemRandom } from '../../src/core/random.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import { type LocalEngine, openLocalEngine } from '../../src/storage/local/engine.js';
import { batchOf } from '../partition/support.js';
import { BASE_TIME } from '../storage/support.js';
import { ManualClock } from '../support/manual-clock.js';
import { recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { openTopics, WatchedMetadata, withParts } from './support.js';

let root: string;
let dataDir: string;
let engine: LocalEngine;

beforeEach(async () => {
  root = temporaryDirectory();
  dataDir = path.join(root, 'data');
  engine = await open(dataDir);
});

afterEach(async () => {
  await engine.close();
});

async function open(directory: string): Promise<LocalEngine> {
  return await openLocalEngine({ dataDir: directory, clock: systemClock });
}

function logDirectories(): string[] {
  return readdirSync(path.join(dataDir, 'logs'));
}

async function keys(): Promise<string[]> {
  const entries = [...(await engine.metadata.list('topics/')), ...(await engine.metadata.list('deleted-topics/'))];
  return entries.map(({ key }) => key);
}

async function append(topics: Topics, topicId: string, values: readonly string[], partition = 0): Promise<void> {
  await topics.partition('t', topicId, partition).append([batchOf(values, BASE_TIME)], { acks: 'durable' });
}

async function create(topics: Topics, partitionCount = 1): Promise<TopicRecord> {
  const topic = await topics.create('t', partitionCount, {}, false);
  if (topic === undefined) throw new Error('nothing was created');
  return topic.record;
}

/** Holds back what is awaited until it is released. */
function gate(): { readonly opened: Promise<void>; release: () => void } {
  let release = (): void => {};
  const opened = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { opened, release };
}

function openHandles(): number {
  return readdirSync('/proc/self/fd').length;
}

test('deleting and creating a topic again and again leaks neither files nor handles', async () => {
  const topics = await openTopics(engine);
  const handlesBefore = process.platform === 'linux' ? openHandles() : 0;
  const ids = new Set<string>();
  for (let round = 0; round < 200; round++) {
    const { id } = await create(topics, 2);
    ids.add(id);
    await append(topics, id, ['a', 'b', 'c'], round % 2);
    expect(topics.partition('t', id, round % 2).highWatermark).toBe(3);
    await topics.delete('t');
  }
  expect(ids.size).toBe(200);
  await expect.poll(keys).toEqual([]);
  await expect.poll(logDirectories).toEqual([]);
  expect(engine.openFileCount).toBe(0);
  if (process.platform === 'linux') expect(openHandles()).toBeLessThanOrEqual(handlesBefore + 50);
  expect(topics.list()).toEqual([]);
  await topics.close();
});

describe('while the files of a deleted topic are still there', () => {
  test('its name is free, and neither topic serves what belongs to the other', async () => {
    const closing = gate();
    const slow = withParts(engine, {
      remove: async (id) => {
        await closing.opened;
        await engine.remove(id);
      },
    });
    const topics = await openTopics(slow);
    const old = await create(topics);
    await append(topics, old.id, ['old 1', 'old 2']);
    await topics.delete('t');
    await rejection(() => topics.get('t'), 'UNKNOWN_TOPIC_OR_PARTITION');
    await rejection(() => topics.partition('t', '', 0), 'UNKNOWN_TOPIC_OR_PARTITION');
    const gone = await rejection(() => topics.partition('t', old.id, 0), 'UNKNOWN_TOPIC_ID');
    expect(gone.metadata).toMatchObject({ topic: 't', requested_topic_id: old.id });
    const young = await create(topics);
    expect(young.id).not.toBe(old.id);
    const recreated = await rejection(() => topics.partition('t', old.id, 0), 'UNKNOWN_TOPIC_ID');
    expect(recreated.metadata).toMatchObject({ topic_id: young.id });
    const partition = topics.partition('t', young.id, 0);
    expect(partition.highWatermark).toBe(0);
    await append(topics, young.id, ['new']);
    expect(logDirectories()).toHaveLength(2);
    closing.release();
    await expect.poll(logDirectories).toEqual([`${young.id}-0`]);
    expect((await partition.read(toOffset(0), 1000)).nextOffset).toBe(1);
    await topics.close();
  });

  test('the partitions no longer count against the limit', async () => {
    const closing = gate();
    const topics = await openTopics(withParts(engine, { remove: () => closing.opened }), {
      limits: { maxPartitions: 3, maxPartitionsPerTopic: 3 },
    });
    await create(topics, 3);
    await rejection(topics.create('u', 1, {}, false), 'RESOURCE_LIMIT');
    await topics.delete('t');
    await topics.create('u', 3, {}, false);
    closing.release();
    await topics.close();
  });

  test('a stop waits only for the removals under way, and the next start does the rest', async () => {
    const removing = gate();
    const begun = gate();
    const slow = withParts(engine, {
      remove: async (id) => {
        begun.release();
        await removing.opened;
        await engine.remove(id);
      },
    });
    const topics = await openTopics(slow);
    const { id } = await create(topics, 40);
    await topics.delete('t');
    await begun.opened;
    const closed = topics.close();
    removing.release();
    await closed;
    // The 16 that were under way are gone; the others were not begun.
    await expect.poll(() => logDirectories().length).toBe(24);
    expect(await keys()).toEqual([`deleted-topics/${id}`]);
    const again = await openTopics(engine, { epoch: toEpoch(2) });
    expect(again.list()).toEqual([]);
    await expect.poll(keys).toEqual([]);
    await expect.poll(logDirectories).toEqual([]);
    await again.close();
  });

  test('many deletions wait for their turn, and a next one for room', async () => {
    const removing = gate();
    let underWay = 0;
    let most = 0;
    const slow = withParts(engine, {
      remove: async (id) => {
        most = Math.max(most, ++underWay);
        await removing.opened;
        await engine.remove(id);
        underWay--;
      },
    });
    const topics = await openTopics(slow);
    for (let i = 0; i < 64; i++) {
      await create(topics);
      await topics.delete('t');
    }
    await create(topics);
    const waiting = topics.delete('t');
    await rejection(topics.delete('t'), 'CONCURRENT_UPDATE');
    await expect.poll(() => underWay).toBe(1);
    // Work of the same kind, after which a deletion that did not wait would be done.
    await topics.create('u', 1, {}, false);
    expect(topics.get('t')).toBeDefined();
    removing.release();
    await waiting;
    await expect.poll(keys).toEqual(['topics/u']);
    expect(most).toBe(1);
    await topics.close();
  });
});

test('who waits for records is told before the name is free', async () => {
  const metadata = new WatchedMetadata(engine.metadata);
  const topics = await openTopics(withParts(engine, { metadata }));
  const { id } = await create(topics);
  const partition = topics.partition('t', id, 0);
  const seen: string[] = [];
  partition.onAdvance(() => {
    try {
      topics.partition('t', id, 0);
    } catch (error) {
      seen.push(error instanceof LogError ? error.reason : String(error));
    }
  });
  metadata.before = (key, value) => {
    if (key === 'topics/t' && value === undefined) seen.push('the name is freed');
  };
  // An append under way, which the closing has to wait for.
  const appended = partition.append([batchOf(['x'])], { acks: 'durable' });
  await topics.delete('t');
  expect(seen.slice(0, 2)).toEqual(['UNKNOWN_TOPIC_ID', 'the name is freed']);
  await appended;
  await rejection(partition.append([batchOf(['y'])], { acks: 'durable' }), 'UNKNOWN_TOPIC_OR_PARTITION');
  await topics.close();
});

describe('a crash', () => {
  /** Deletes a topic of three partitions with records, with a copy of the data directory before each change. */
  async function copies(): Promise<{ readonly id: string; readonly directories: string[] }> {
    const directories: string[] = [];
    const metadata = new WatchedMetadata(engine.metadata);
    const copy = (): void => {
      const directory = path.join(root, `copy-${directories.length}`);
      cpSync(dataDir, directory, { recursive: true });
      directories.push(directory);
    };
    const topics = await openTopics(
      withParts(engine, {
        metadata,
        remove: async (id) => {
          copy();
          await engine.remove(id);
        },
      }),
    );
    const { id } = await create(topics, 3);
    for (const partition of [0, 1, 2]) await append(topics, id, ['a', 'b'], partition);
    metadata.before = copy;
    await topics.delete('t');
    await expect.poll(keys).toEqual([]);
    await topics.close();
    return { id, directories };
  }

  test('before the deletion is accepted leaves the topic whole; after it, the next start finishes the deletion', async () => {
    const { id, directories } = await copies();
    // Two steps of the catalog, three partitions, and the last entry of the catalog.
    expect(directories).toHaveLength(6);
    await engine.close();
    for (const [step, directory] of directories.entries()) {
      dataDir = directory;
      engine = await open(directory);
      const topics = await openTopics(engine, { epoch: toEpoch(2) });
      if (step === 0) {
        expect(await keys()).toEqual(['topics/t']);
        expect(topics.partition('t', id, 2).highWatermark).toBe(2);
      } else {
        await rejection(() => topics.partition('t', id, 0), 'UNKNOWN_TOPIC_ID');
        const { id: other } = await create(topics);
        await append(topics, other, ['c']);
        await expect.poll(keys).toEqual(['topics/t']);
        await expect.poll(logDirectories).toEqual([`${other}-0`]);
      }
      await topics.close();
      await engine.close();
    }
  });

  test('in a deletion of the earlier format is finished as well', async () => {
    const { id } = await create(await openTopics(engine), 2);
    const [entry] = await engine.metadata.list('topics/');
    const deleting = JSON.stringify({ id, partitionCount: 2, overrides: {}, deleting: true });
    await engine.metadata.compareAndSet('topics/t', deleting, entry?.version ?? 0);
    const topics = await openTopics(engine, { epoch: toEpoch(2) });
    expect(topics.list()).toEqual([]);
    const { id: other } = await create(topics);
    await expect.poll(keys).toEqual(['topics/t']);
    await expect.poll(logDirectories).toEqual([`${other}-0`]);
    await topics.close();
  });

  test('an entry of the earlier format that is not deleted is an ordinary topic', async () => {
    const entry = { id: systemRandom.uuid(), partitionCount: 1, overrides: { 'flush.ms': '7' }, deleting: false };
    await engine.metadata.compareAndSet('topics/t', JSON.stringify(entry), 0);
    const topics = await openTopics(engine);
    expect(topics.get('t').config.flushMs).toBe(7);
    await topics.close();
  });
});

describe('a failure', () => {
  test('of the first step leaves the topic in service', async () => {
    const metadata = new WatchedMetadata(engine.metadata);
    const topics = await openTopics(withParts(engine, { metadata }));
    const { id } = await create(topics);
    metadata.before = () => {
      throw new LogError('STORAGE_FULL', 'no');
    };
    await rejection(topics.delete('t'), 'STORAGE_FULL');
    metadata.before = () => {};
    await append(topics, id, ['a']);
    await topics.delete('t');
    await expect.poll(logDirectories).toEqual([]);
    await topics.close();
  });

  /** A topic whose deletion was accepted and whose name could not be freed, twice. */
  async function acceptedOnly(clock: ManualClock): Promise<{ readonly topics: Topics; readonly id: string }> {
    const metadata = new WatchedMetadata(engine.metadata);
    const topics = await openTopics(withParts(engine, { metadata }), { clock });
    const { id } = await create(topics);
    await append(topics, id, ['a']);
    let failures = 0;
    metadata.before = (key) => {
      if (key !== 'topics/t') return;
      failures++;
      throw new LogError('STORAGE_FULL', 'no');
    };
    expect(await rejection(topics.delete('t'), 'STORAGE_FULL')).toMatchObject({ outcome: 'unknown' });
    // By the caller, and in the background.
    await expect.poll(() => failures).toBe(2);
    metadata.before = () => {};
    await rejection(() => topics.partition('t', id, 0), 'UNKNOWN_TOPIC_ID');
    await rejection(create(topics), 'TOPIC_ALREADY_EXISTS');
    return { topics, id };
  }

  test('of the second step takes the topic out of service for good, and its name is free some time later', async () => {
    const clock = new ManualClock(BASE_TIME);
    const { topics } = await acceptedOnly(clock);
    clock.advance(10_000);
    await expect.poll(keys).toEqual([]);
    await create(topics);
    await topics.close();
    expect(clock.timerCount).toBe(0);
  });

  test('of the second step and a stop: the next start frees the name', async () => {
    const { topics, id } = await acceptedOnly(new ManualClock(BASE_TIME));
    await topics.close();
    // Nothing was forgotten: otherwise the next start would find an empty topic of that name.
    expect(await keys()).toEqual(['topics/t', `deleted-topics/${id}`]);
    const again = await openTopics(engine, { epoch: toEpoch(2) });
    expect(again.list()).toEqual([]);
    await create(again);
    await expect.poll(() => logDirectories().filter((name) => name.startsWith(id))).toEqual([]);
    await again.close();
  });

  /** A topic that is deleted and cannot be removed. */
  async function unremoved(clock: ManualClock): Promise<{ topics: Topics; id: string; works: { now: boolean } }> {
    const logger = recordingLogger();
    const works = { now: false };
    const refusing = withParts(engine, {
      remove: async (id) => {
        if (!works.now) throw new LogError('STORAGE_ERROR', 'no');
        await engine.remove(id);
      },
    });
    const topics = await openTopics(refusing, { logger, clock });
    const { id } = await create(topics);
    await topics.delete('t');
    await create(topics);
    await expect.poll(() => logger.messages('warn').length).toBe(1);
    return { topics, id, works };
  }

  test('of a removal is reported once, and tried again after a growing time', async () => {
    const clock = new ManualClock(BASE_TIME);
    const { topics, id, works } = await unremoved(clock);
    expect(clock.nextTimerMs).toBe(10_000);
    clock.advance(10_000);
    await expect.poll(() => clock.nextTimerMs).toBe(20_000);
    works.now = true;
    clock.advance(20_000);
    await expect.poll(keys).toEqual(['topics/t']);
    expect(logDirectories().filter((name) => name === `${id}-0`)).toEqual([]);
    await topics.close();
  });

  test('of a removal and a stop: the next start tries again', async () => {
    const { topics, id } = await unremoved(new ManualClock(BASE_TIME));
    await topics.close();
    expect(await keys()).toContain(`deleted-topics/${id}`);
    const again = await openTopics(engine, { epoch: toEpoch(2) });
    await expect.poll(keys).toEqual(['topics/t']);
    await expect.poll(() => logDirectories().length).toBe(1);
    await again.close();
  });

  test('to open a partition undoes the creation, and the name is free', async () => {
    let refuse = true;
    const broken = withParts(engine, {
      open: async (id, epoch, config) => {
        if (refuse && id.partition === 1) throw new LogError('STORAGE_ERROR', 'no');
        return await engine.open(id, epoch, config);
      },
    });
    const topics = await openTopics(broken, { limits: { maxPartitions: 3, maxPartitionsPerTopic: 3 } });
    await rejection(create(topics, 3), 'STORAGE_ERROR');
    refuse = false;
    await create(topics, 3);
    await expect.poll(() => logDirectories().length).toBe(3);
    await topics.close();
  });
});

test('a catalog entry that cannot be read is reported by its key', async () => {
  await engine.metadata.compareAndSet('topics/t', 'nonsense', 0);
  const catalog = new TopicCatalog(engine.metadata, systemRandom);
  expect((await rejection(catalog.load(), 'CORRUPT_LOG')).message).toContain('topics/t');
});
