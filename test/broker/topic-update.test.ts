/** Live configuration and partition increase. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { TopicChange } from '../../src/broker/topic-change.js';
import type { Topic, Topics } from '../../src/broker/topics.js';
import { LogError } from '../../src/core/errors.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import { Partition } from '../../src/partition/partition.js';
import type { StorageEngine } from '../../src/storage/engine.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { batchOf } from '../partition/support.js';
import { type RecordingLogger, recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { openTopics, WatchedMetadata, withParts } from './support.js';

let engine: StorageEngine;
let metadata: WatchedMetadata;
let logger: RecordingLogger;
let topics: Topics;
let changed: Topic[];
/** Asked before each opening of a log; may throw. */
let beforeOpen: (partition: number) => void;
let removed: number[];

beforeEach(async () => {
  const memory = openMemoryEngine();
  metadata = new WatchedMetadata(memory.metadata);
  beforeOpen = () => {};
  removed = [];
  engine = withParts(memory, {
    metadata,
    open: async (id, epoch, config) => {
      beforeOpen(id.partition);
      return await memory.open(id, epoch, config);
    },
    remove: async (id) => {
      removed.push(id.partition);
      await memory.remove(id);
    },
  });
  logger = recordingLogger();
  changed = [];
  topics = await openTopics(engine, {
    logger,
    defaults: { 'retention.bytes': '5000' },
  });
  topics.onChange(({ kind, topic }) => {
    if (kind === 'updated') changed.push(topic);
  });
});

afterEach(async () => {
  await topics.close();
  await engine.close();
});

function update(change: Partial<TopicChange>, validateOnly = false, name = 't'): Promise<Topic> {
  return topics.update(name, { partitionCount: 0, setConfigs: {}, resetConfigs: [], ...change }, validateOnly);
}

function partition(index: number): Partition {
  return topics.partition('t', '', index);
}

/** What a restart of the broker would find. */
async function stored(): Promise<Topic> {
  const again = await openTopics(engine, { epoch: toEpoch(2), defaults: { 'retention.bytes': '5000' } });
  return again.get('t');
}

describe('live configuration', () => {
  test('an altered value acts on the next append, and is there after a restart', async () => {
    await topics.create('t', 1, {}, false);
    const append = (): Promise<unknown> => partition(0).append([batchOf(['x'.repeat(1000)])], { acks: 'durable' });
    await append();
    const topic = await update({ setConfigs: { 'max.message.bytes': ' 500 ' } });
    expect(topic.record.overrides).toEqual({ 'max.message.bytes': '500' });
    expect(topics.get('t')).toBe(topic);
    await rejection(append(), 'MESSAGE_TOO_LARGE');
    expect((await stored()).config.maxMessageBytes).toBe(500);
  });

  test("a reset key goes back to the broker's value, or to the default; one that is not set may be reset", async () => {
    await topics.create('t', 1, { 'retention.bytes': '1', 'retention.ms': '2' }, false);
    const resetConfigs = ['retention.bytes', 'retention.ms', 'segment.ms', 'segment.ms'];
    const { config, record } = await update({ resetConfigs });
    expect(config).toMatchObject({ retentionBytes: 5000, retentionMs: 7 * 86_400_000 });
    expect(record.overrides).toEqual({});
  });

  test('every change is one line with the values in force before and after', async () => {
    await topics.create('t', 1, { 'segment.ms': '10' }, false);
    logger.lines.length = 0;
    await update({ partitionCount: 3, setConfigs: { 'retention.bytes': '7' }, resetConfigs: ['segment.ms'] });
    expect(logger.lines.map(({ level, message }) => `${level} ${message}`)).toEqual(
      Array(3).fill('info topic configuration changed'),
    );
    expect(logger.lines.map(({ fields }) => fields)).toMatchObject([
      { topic: 't', key: 'partitions', oldValue: '1', newValue: '3' },
      { topic: 't', key: 'segment.ms', oldValue: '10', newValue: '604800000' },
      { topic: 't', key: 'retention.bytes', oldValue: '5000', newValue: '7', oldSource: 'broker', newSource: 'topic' },
    ]);
  });

  test('whoever is to know is told of the topic as it is now, and of nothing when nothing changed', async () => {
    await topics.create('t', 1, { 'flush.ms': '7' }, false);
    await update({ partitionCount: 1, setConfigs: { 'flush.ms': '7' }, resetConfigs: ['segment.ms'] });
    expect(changed).toEqual([]);
    const topic = await update({ setConfigs: { 'flush.ms': '8' } });
    expect(changed).toEqual([topic]);
  });

  test.each<[string, Partial<TopicChange>, string]>([
    ['an unknown key', { setConfigs: { 'flush.ms': '1', 'flush.sec': '1' } }, 'INVALID_CONFIG'],
    ['an unknown key to reset', { setConfigs: { 'flush.ms': '1' }, resetConfigs: ['flush.sec'] }, 'INVALID_CONFIG'],
    ['a bad value', { setConfigs: { 'flush.ms': '1', 'segment.bytes': '1' } }, 'INVALID_CONFIG'],
    ['a key both set and reset', { setConfigs: { 'flush.ms': '1' }, resetConfigs: ['flush.ms'] }, 'INVALID_CONFIG'],
    [
      'values that contradict each other',
      { setConfigs: { 'min.compaction.lag.ms': '2', 'max.compaction.lag.ms': '1' } },
      'INVALID_CONFIG',
    ],
    ['fewer partitions', { partitionCount: 1, setConfigs: { 'flush.ms': '1' } }, 'INVALID_PARTITIONS'],
    ['a negative number of partitions', { partitionCount: -1, setConfigs: { 'flush.ms': '1' } }, 'INVALID_PARTITIONS'],
    ['more partitions than a topic may have', { partitionCount: 101 }, 'INVALID_PARTITIONS'],
  ])('%s: refused, and nothing has changed', async (_, change, reason) => {
    await topics.create('t', 2, {}, false);
    const before = topics.get('t');
    const error = await rejection(update(change), reason as LogError['reason']);
    await rejection(update(change, true), reason as LogError['reason']);
    if (reason === 'INVALID_CONFIG' && error.message.includes('flush.sec')) {
      expect(error.message).toContain('segment.bytes, segment.ms');
    }
    expect(topics.get('t')).toBe(before);
    expect((await stored()).record.overrides).toEqual({});
  });

  test('a topic that is not there, and one of the broker, are refused', async () => {
    await rejection(update({}), 'UNKNOWN_TOPIC_OR_PARTITION');
    await topics.createInternal('__t', 1, {});
    await rejection(update({ setConfigs: { 'flush.ms': '1' } }, false, '__t'), 'INVALID_TOPIC');
  });

  test('of two updates at once one is told to try again', async () => {
    await topics.create('t', 1, {}, false);
    const results = await Promise.allSettled([
      update({ setConfigs: { 'flush.ms': '1' } }),
      update({ setConfigs: { 'flush.ms': '2' } }),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    await rejection(Promise.reject((results[1] as PromiseRejectedResult).reason), 'CONCURRENT_UPDATE');
    expect(topics.get('t').config.flushMs).toBe(1);
  });

  test('with validate_only the topic is described as it would be, and is as it was', async () => {
    await topics.create('t', 1, {}, false);
    const topic = await update({ partitionCount: 5, setConfigs: { 'flush.ms': '1' } }, true);
    expect(topic.record).toMatchObject({ partitionCount: 5, overrides: { 'flush.ms': '1' } });
    expect(topics.get('t').record).toMatchObject({ partitionCount: 1, overrides: {} });
    expect((await stored()).slots).toHaveLength(1);
  });

  test("new defaults of the broker that contradict a topic's own value end the start with the topic's name", async () => {
    await topics.create('t', 1, { 'min.compaction.lag.ms': '20' }, false);
    const error = await rejection(
      openTopics(engine, { epoch: toEpoch(2), defaults: { 'max.compaction.lag.ms': '10' } }),
      'INVALID_CONFIG',
    );
    expect(error.message).toContain('topic t ');
  });
});

describe('partition increase', () => {
  test('keeps the partitions there are, with what is in them, and serves the new ones at once', async () => {
    await topics.create('t', 2, {}, false);
    const [first, second] = [partition(0), partition(1)];
    await first.append([batchOf(['a', 'b'])], { acks: 'durable' });
    const { record, slots } = await update({ partitionCount: 4 });
    expect(record.partitionCount).toBe(4);
    expect(slots.slice(0, 2)).toEqual([first, second]);
    expect(first.highWatermark).toBe(2);
    const appended = await partition(3).append([batchOf(['c'])], { acks: 'durable' });
    expect(appended.baseOffset).toBe(0);
    expect([...topics.partitions()].map((one) => one.partition.index)).toEqual([0, 1, 2, 3]);
    expect((await stored()).slots).toHaveLength(4);
  });

  test('counts against the limit of the broker, once', async () => {
    await topics.create('t', 100, {}, false);
    await topics.create('u', 50, {}, false);
    const error = await rejection(update({ partitionCount: 101 }, false, 'u'), 'INVALID_PARTITIONS');
    expect(error.metadata).toMatchObject({ limit: '100' });
    await update({ partitionCount: 90 }, false, 'u');
    await rejection(update({ partitionCount: 100 }, false, 'v'), 'UNKNOWN_TOPIC_OR_PARTITION');
    await topics.create('v', 10, {}, false);
    await rejection(update({ partitionCount: 11 }, false, 'v'), 'RESOURCE_LIMIT');
    await topics.delete('t');
    await update({ partitionCount: 100 }, false, 'v');
  });

  test('to the number there is changes nothing, also when that is beyond a limit set since', async () => {
    await topics.create('t', 3, {}, false);
    const limits = { maxPartitionsPerTopic: 2, maxPartitions: 2 };
    const again = await openTopics(engine, { epoch: toEpoch(2), limits });
    const change = { partitionCount: 3, setConfigs: { 'flush.ms': '1' }, resetConfigs: [] };
    expect((await again.update('t', change, false)).record).toMatchObject({ partitionCount: 3 });
  });

  test('a new partition that cannot be opened fails the update, which changes nothing', async () => {
    await topics.create('t', 1, {}, false);
    const before = topics.get('t');
    beforeOpen = (index) => {
      if (index === 2) throw new LogError('STORAGE_ERROR', 'no');
    };
    const change = { partitionCount: 4, setConfigs: { 'max.message.bytes': '500' } };
    await rejection(update(change), 'STORAGE_ERROR');
    expect(topics.get('t')).toBe(before);
    expect(removed.sort()).toEqual([1, 2, 3]);
    await rejection(() => partition(1), 'UNKNOWN_TOPIC_OR_PARTITION');
    await partition(0).append([batchOf(['x'.repeat(1000)])], { acks: 'durable' });
    beforeOpen = () => {};
    expect((await update(change)).slots).toHaveLength(4);
  });

  test('a catalog that cannot be written fails the update, which changes nothing', async () => {
    await topics.create('t', 1, {}, false);
    const before = topics.get('t');
    metadata.before = () => {
      throw new LogError('STORAGE_FULL', 'no');
    };
    const change = { partitionCount: 2, setConfigs: { 'max.message.bytes': '500' } };
    await rejection(update(change), 'STORAGE_FULL');
    metadata.before = () => {};
    expect(topics.get('t')).toBe(before);
    expect(removed).toEqual([1]);
    expect(changed).toEqual([]);
    expect(partition(0).checkReadable(toOffset(0))).toBeUndefined();
    expect((await update(change)).slots.every((slot) => slot instanceof Partition)).toBe(true);
  });
});

test('an update on top of what somebody else wrote is refused', async () => {
  await topics.create('t', 1, {}, false);
  const other = await openTopics(engine, { epoch: toEpoch(2) });
  const change = { partitionCount: 0, setConfigs: { 'flush.ms': '1' }, resetConfigs: [] };
  await other.update('t', change, false);
  await rejection(update({ setConfigs: { 'flush.ms': '2' } }), 'CONCURRENT_UPDATE');
});
