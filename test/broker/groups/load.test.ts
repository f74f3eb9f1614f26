/** Many of everything: how long loading takes, and that nobody has to wait for it. */
import { expect, test } from 'vitest';
import { BatchBuilder } from '../../../src/batch/builder.js';
import { OFFSETS_TOPIC, OFFSETS_TOPIC_CONFIG, offsetsPartitionOf } from '../../../src/broker/groups/offsets-topic.js';
import { encodeOffset } from '../../../src/broker/groups/records.js';
import { systemClock } from '../../../src/core/clock.js';
import { toTopicId } from '../../../src/core/types.js';
import type { Partition } from '../../../src/partition/partition.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { longestTurnMs } from '../../support/loop-delay.js';
import { Groups } from './support.js';

const OFFSETS_PER_GROUP = 100;

/** Committed offsets as their groups would have left them, 100 each. */
async function fill(groups: Groups, offsetCount: number): Promise<void> {
  await groups.topics.createInternal(OFFSETS_TOPIC, 16, OFFSETS_TOPIC_CONFIG);
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
