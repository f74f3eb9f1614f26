import { expect, test } from 'vitest';
import type { GroupSnapshot } from '../../../src/broker/groups/coordinator-types.js';
import { GroupDescriber } from '../../../src/broker/groups/describe.js';
import { LogError } from '../../../src/core/errors.js';
import type { TopicId } from '../../../src/core/types.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { batchOf } from '../../partition/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { openTopics, withParts } from '../support.js';

const T0 = Date.UTC(2026, 0, 1);
const TOPIC = 't';

interface Held {
  readonly partition: number;
  readonly memberId: string;
}

function groupOf(topicId: TopicId, offsets: Readonly<Record<number, number>>, held: readonly Held[]): GroupSnapshot {
  const summary = { groupId: 'g', state: 'stable', epoch: 1, assignor: 'uniform', memberCount: held.length } as const;
  const committed = { topic: TOPIC, topicId, leaderEpoch: -1, metadata: '', commitTimeMs: T0 };
  return {
    ...summary,
    members: held.map(({ partition, memberId }) => ({
      memberId,
      instanceId: undefined,
      clientId: '',
      host: '',
      memberEpoch: 1,
      subscription: { topics: [TOPIC], pattern: undefined },
      away: false,
      partitions: [{ topic: TOPIC, topicId, partition, since: 1 }],
    })),
    offsets: Object.entries(offsets).map(([partition, offset]) => ({
      ...committed,
      partition: Number(partition),
      offset,
    })),
  };
}

test('tells of all that is committed or held, by partition, and leaves out the logs that cannot be read', async () => {
  const clock = new ManualClock(T0);
  const engine = openMemoryEngine({ clock });
  const before = await openTopics(engine, { clock });
  const { record } = (await before.create(TOPIC, 4, {}, false))!;
  for (const partition of [0, 2]) {
    await before.partition(TOPIC, '', partition).append([batchOf(['a', 'b', 'c'], T0)], { acks: 'durable' });
  }
  const broken = withParts(engine, {
    open: (id, epoch, config) =>
      id.partition === 1
        ? Promise.reject(new LogError('CORRUPT_LOG', 'It does not open.'))
        : engine.open(id, epoch, config),
  });
  const topics = await openTopics(broken, { clock });
  clock.advance(1_000);
  const held = [
    { partition: 3, memberId: 'm' },
    { partition: 2, memberId: 'n' },
  ];
  // Offset 9 was committed before a truncation.
  const told = await new GroupDescriber(topics, clock).partitionsOf(groupOf(record.id, { 2: 1, 1: 5, 0: 9 }, held));
  const logs = told.map(({ partition, ownerId, log }) => ({ partition, ownerId, log }));
  expect(logs).toEqual([
    { partition: 0, ownerId: undefined, log: { logStartOffset: 0, highWatermark: 3, lag: 0, lagMs: 0 } },
    { partition: 1, ownerId: undefined, log: undefined },
    { partition: 2, ownerId: 'n', log: { logStartOffset: 0, highWatermark: 3, lag: 2, lagMs: 999 } },
    { partition: 3, ownerId: 'm', log: { logStartOffset: 0, highWatermark: 0, lag: 0, lagMs: 0 } },
  ]);
  await topics.close();
  await engine.close();
});
