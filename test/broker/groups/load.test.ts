/** Many of everything: how long loading takes, and that nobody has to wait for it. */
import { expect, onTestFinished, test } from 'vitest';
import { BatchBuilder } from '../../../src/batch/builder.js';
import { sizeInBytesOf } from '../../../src/batch/layout.js';
import { summariesOf } from '../../../src/broker/groups/descriptions.js';
import { emptyGroup } from '../../../src/broker/groups/group.js';
import { MAX_PENDING_METADATA, MAX_PENDING_OFFSETS } from '../../../src/broker/groups/offset-coordinator.js';
import { CommittedOffsets } from '../../../src/broker/groups/offsets.js';
import { OFFSETS_TOPIC, offsetsPartitionOf } from '../../../src/broker/groups/offsets-topic.js';
import { encodeOffset } from '../../../src/broker/groups/records.js';
import { STATE_TOPIC_CONFIG } from '../../../src/broker/state-topic/config.js';
import { systemClock } from '../../../src/core/clock.js';
import { type TopicId, toOffset, toTopicId } from '../../../src/core/types.js';
import type { Partition } from '../../../src/partition/partition.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { longestTurnMs } from '../../support/loop-delay.js';
import { rejection } from '../../support/rejection.js';
import { LONG } from '../../support/repeat.js';
import { LIMITS } from '../support.js';
import { Groups } from './support.js';

const OFFSETS_PER_GROUP = 100;

/** Committed offsets as their groups would have left them, 100 each. */
async function fill(groups: Groups, offsetCount: number): Promise<void> {
  await groups.topics.createInternal(OFFSETS_TOPIC, 16, STATE_TOPIC_CONFIG);
  const topicId = toTopicId('00000000-0000-4000-8000-000000000001');
  const value = { topic: 'orders', offset: 123_456, leaderEpoch: 0, metadata: '', commitTimeMs: systemClock.now() };
  for (let group = 0; group < offsetCount / OFFSETS_PER_GROUP; group++) {
    const groupId = `group ${group}`;
    const builder = new BatchBuilder(1 << 20);
    for (let partition = 0; partition < OFFSETS_PER_GROUP; partition++) {
      const record = encodeOffset(groupId, { topicId, partition }, value);
      builder.tryAppend(value.commitTimeMs, record.key, record.value);
    }
    const partition: Partition = groups.topics.partition(OFFSETS_TOPIC, '', offsetsPartitionOf(groupId, 16));
    await partition.append([builder.build()], { acks: 'written' });
  }
}

test('100,000 committed offsets are loaded in under two seconds, and no turn of the event loop is long', async () => {
  const engine = openMemoryEngine();
  const before = await Groups.start({ engine, clock: systemClock });
  await fill(before, 100_000);
  await before.close();
  // The processor's time, which others on the machine do not add to.
  const cpu = process.cpuUsage();
  let groups: Groups | undefined;
  const longestMs = await longestTurnMs(async () => {
    groups = await Groups.start({ engine, clock: systemClock, epoch: 2 });
    await groups.loaded();
  });
  const { user, system } = process.cpuUsage(cpu);
  expect(await groups!.coordinator.list()).toHaveLength(1000);
  expect(await groups!.fetchAll('group 7')).toHaveLength(100);
  expect((user + system) / 1000).toBeLessThan(2000);
  expect(longestMs).toBeLessThan(50);
  await groups!.close();
});

test('100,000 groups are listed by name, and others get their turns meanwhile (invariant 22)', async () => {
  const view = { get: () => undefined, matching: () => new Set<string>() };
  const shards = Array.from({ length: 16 }, (_, shard) => ({
    check: () => undefined,
    entries: Array.from({ length: 100_000 / 16 }, (_unused, i) => {
      const name = `group ${((i * 16 + shard) * 7919) % 100_003}`;
      return { durable: emptyGroup(name, view, { monotonicMs: 0, wallMs: 0 }) };
    }),
  }));
  let names: string[] = [];
  const longestMs = await longestTurnMs(async () => {
    names = (await summariesOf(shards, systemClock)).map(({ groupId }) => groupId);
  });
  expect(names).toHaveLength(100_000);
  expect(names).toEqual([...names].sort());
  expect(longestMs).toBeLessThan(150);
});

test('which earlier topics a group knows is told topic by topic, however many there are (invariant 22)', async () => {
  const offsets = new CommittedOffsets();
  const idOf = (topic: number, life: number): TopicId =>
    toTopicId(`00000000-0000-4000-800${life}-${topic.toString(16).padStart(12, '0')}`);
  const commit = (topic: number, life: number): void => {
    const value = { topic: `t${topic}`, offset: 1, leaderEpoch: 0, metadata: '', commitTimeMs: 1000 - life };
    offsets.set({ topicId: idOf(topic, life), partition: 0 }, value);
  };
  for (let topic = 0; topic < 10_000; topic++) for (const life of [0, 1]) commit(topic, life);
  const turnMs = await longestTurnMs(async () => {
    for (let topic = 0; topic < 10_000; topic++) {
      if (offsets.earlierTopicId(`t${topic}`, idOf(topic, 2)) !== idOf(topic, 0)) throw new Error('another topic');
    }
  });
  expect(turnMs).toBeLessThan(200);
  offsets.delete({ topicId: idOf(0, 0), partition: 0 });
  expect(offsets.earlierTopicId('t0', idOf(0, 2))).toBe(idOf(0, 1));
  offsets.delete({ topicId: idOf(0, 1), partition: 0 });
  expect(offsets.earlierTopicId('t0', idOf(0, 2))).toBeUndefined();
});

test('the most that a transaction may have goes in one batch, and no turn of the event loop is long (invariants 11, 22)', async () => {
  // Opening the partitions takes longer than everything else.
  const count = LONG ? MAX_PENDING_OFFSETS : MAX_PENDING_OFFSETS / 5;
  const groupId = '\u20ac'.repeat(249);
  const topic = 'x'.repeat(249);
  const limits = { ...LIMITS, maxPartitions: 20_000, maxPartitionsPerTopic: 20_000 };
  const crowd = await Groups.start({ engine: openMemoryEngine(), clock: systemClock, limits });
  onTestFinished(() => crowd.close());
  await crowd.topic(topic, count);
  const metadata = '\u0001'.repeat(Math.floor(MAX_PENDING_METADATA / count));
  const offsets = Array.from({ length: count }, (_, partition) => {
    return { topic, partition, offset: 0, metadata };
  });
  expect(await crowd.addToTransaction(7, 3, offsets, { groupId })).toEqual([]);
  const more = [0, 1].map((partition) => ({ topic, partition, offset: 0, metadata: 'm'.repeat(4096) }));
  await rejection(crowd.addToTransaction(7, 3, more, { groupId }), 'INVALID_REQUEST');
  const log = crowd.topics.partition(OFFSETS_TOPIC, '', offsetsPartitionOf(groupId, 4));
  const { logEndOffset } = log;
  const turnMs = await longestTurnMs(() => crowd.endTransaction(7, 3, true, groupId));
  const [batches] = (await log.read(toOffset(logEndOffset), 1)).chunks;
  expect(sizeInBytesOf(batches!, 0)).toBe(batches!.length);
  expect(log.logEndOffset - logEndOffset).toBe(count + 1);
  expect(await crowd.fetchAll(groupId)).toHaveLength(count);
  expect(turnMs).toBeLessThan(200);
});
