/** Offsets that wait in a group for the end of a transaction. */
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { sizeInBytesOf } from '../../../src/batch/layout.js';
import type { OffsetToCommit, TransactionOffsetsCommand } from '../../../src/broker/groups/coordinator-types.js';
import { OFFSETS_TOPIC, offsetsPartitionOf } from '../../../src/broker/groups/offsets-topic.js';
import { LogError, type Reason } from '../../../src/core/errors.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { GatedAppends } from '../../support/gated-appends.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { Groups, type GroupsOptions, held } from './support.js';

const OTHER_ID = '00000000-0000-4000-8000-000000000001';
const FULL = new LogError('STORAGE_FULL', 'The disk is full.');

let clock: ManualClock;
let appends: GatedAppends;
let engine: StorageEngine;
let groups: Groups;

beforeEach(async () => {
  clock = new ManualClock(BASE_TIME);
  appends = new GatedAppends();
  engine = appends.wrap(openMemoryEngine({ clock }));
  await start();
  await groups.topic('t', 4, 20);
});

async function start(options: GroupsOptions = {}): Promise<void> {
  const started = await Groups.start({ engine, clock, ...options });
  onTestFinished(() => started.close());
  groups = started;
}

async function restart(options: GroupsOptions = {}): Promise<void> {
  await groups.close();
  await start({ epoch: 2, ...options });
  await groups.loaded();
}

describe('offsets of a transaction', () => {
  test('are told to nobody until it is committed, and those of other partitions are (invariant 11)', async () => {
    await groups.commit(
      '',
      0,
      [0, 1].map((partition) => ({ partition, offset: 1 })),
    );
    expect(await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5, metadata: 'm', leaderEpoch: 2 }])).toEqual(
      [],
    );
    expect(groups.pending()).toEqual([['g', 7, 3]]);
    const error = await rejection(groups.committed([1, 0]), 'UNSTABLE_OFFSET_COMMIT');
    expect(error.metadata).toEqual({
      group_id: 'g',
      topic: 't',
      partition: '0',
      producer_id: '7',
      producer_epoch: '3',
    });
    expect(error.retryable).toBe(true);
    await rejection(groups.fetchAll(), 'UNSTABLE_OFFSET_COMMIT');
    expect(await groups.committed([1, 2])).toEqual([1, undefined]);
    // Where the group stands is what is committed.
    expect((await groups.coordinator.snapshot('g')).offsets).toMatchObject([{ offset: 1 }, { offset: 1 }]);
    clock.advance(1000);
    await groups.endTransaction(7, 3, true);
    expect(await groups.fetchAll()).toMatchObject([
      { partition: 0, committed: { offset: 5, metadata: 'm', leaderEpoch: 2, commitTimeMs: clock.now() } },
      { partition: 1, committed: { offset: 1 } },
    ]);
    expect(groups.pending()).toEqual([]);
  });

  test('are gone when it is aborted (invariant 11)', async () => {
    await groups.commit('', 0, [{ partition: 0, offset: 1 }]);
    await groups.addToTransaction(
      7,
      3,
      [0, 1].map((partition) => ({ partition, offset: 5 })),
    );
    await groups.endTransaction(7, 3, false);
    expect(await groups.committed([0, 1])).toEqual([1, undefined]);
  });

  test('take the place of what it has for the partition, also while that is being written', async () => {
    await Promise.all([
      groups.addToTransaction(
        7,
        3,
        [0, 1].map((partition) => ({ partition, offset: 5 })),
      ),
      groups.addToTransaction(
        7,
        3,
        [1, 2].map((partition) => ({ partition, offset: 6 })),
      ),
    ]);
    await groups.endTransaction(7, 3, true);
    expect(await groups.committed([0, 1, 2])).toEqual([5, 6, 6]);
  });

  test('are committed all together, in one batch with what makes them be (invariant 11)', async () => {
    await groups.addToTransaction(
      7,
      3,
      [0, 1, 2].map((partition) => ({ partition, offset: 5 })),
    );
    const log = groups.topics.partition(OFFSETS_TOPIC, '', offsetsPartitionOf('g', 4));
    const { logEndOffset } = log;
    await groups.endTransaction(7, 3, true);
    const { chunks } = await log.read(logEndOffset, 1 << 20);
    expect(log.logEndOffset - logEndOffset).toBe(4);
    expect(chunks.map((chunk) => sizeInBytesOf(chunk, 0))).toEqual([chunks[0]!.length]);
  });

  test('make a group that is not there, as a commit does', async () => {
    await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }], { groupId: 'new' });
    expect(await groups.coordinator.snapshot('new')).toMatchObject({ state: 'empty', offsets: [] });
    await groups.endTransaction(7, 3, false, 'new');
    expect((await groups.coordinator.list()).map(({ groupId }) => groupId)).toEqual(['new']);
  });

  test('are dropped where a later transaction of the producer adds some, whatever is said of the earlier one later', async () => {
    await groups.addToTransaction(
      7,
      3,
      [0, 1].map((partition) => ({ partition, offset: 5 })),
    );
    await groups.addToTransaction(7, 4, [{ partition: 1, offset: 6 }]);
    expect(groups.pending()).toEqual([['g', 7, 4]]);
    expect(await groups.committed([0])).toEqual([undefined]);
    await groups.endTransaction(7, 3, true);
    expect(groups.pending()).toEqual([['g', 7, 4]]);
    await rejection(groups.addToTransaction(7, 3, [{ partition: 0, offset: 9 }]), 'PRODUCER_FENCED');
    await groups.endTransaction(7, 4, true);
    expect(await groups.committed([0, 1])).toEqual([undefined, 6]);
  });

  test('of an earlier epoch are dropped at the end of a later one, even if that commits (invariant 9)', async () => {
    await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
    await groups.endTransaction(7, 5, true);
    expect(groups.pending()).toEqual([]);
    expect(await groups.committed([0])).toEqual([undefined]);
  });

  test('of other producers and in other groups are left alone by an end', async () => {
    await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
    await groups.addToTransaction(8, 3, [{ partition: 1, offset: 6 }]);
    await groups.addToTransaction(7, 3, [{ partition: 0, offset: 7 }], { groupId: 'h' });
    await groups.endTransaction(7, 3, true);
    await groups.endTransaction(7, 3, true);
    await groups.endTransaction(7, 3, true, 'none');
    await groups.endTransaction(9, 3, true);
    expect(groups.pending()).toEqual([
      ['g', 8, 3],
      ['h', 7, 3],
    ]);
    expect(await groups.committed([0])).toEqual([5]);
  });

  test('of a topic that is gone when it ends are dropped, those of others are committed', async () => {
    await groups.topic('u', 1, 5);
    await groups.addToTransaction(7, 3, [
      { partition: 0, offset: 5 },
      { topic: 'u', partition: 0, offset: 2 },
    ]);
    await groups.topics.delete('u');
    await groups.topic('u', 1, 5);
    await groups.endTransaction(7, 3, true);
    expect((await groups.fetchAll()).map(({ topic, committed }) => [topic, committed?.offset])).toEqual([['t', 5]]);
  });
});

describe('of one partition the offset that was sent last wins (invariant 8)', () => {
  test('a commit after that of a transaction, however late this one ends, also after a restart', async () => {
    await groups.addToTransaction(
      7,
      3,
      [0, 1].map((partition) => ({ partition, offset: 5 })),
    );
    await groups.commit('', 0, [{ partition: 0, offset: 8 }]);
    await groups.addToTransaction(7, 3, [{ partition: 2, offset: 5 }]);
    await restart();
    await rejection(groups.committed([0]), 'UNSTABLE_OFFSET_COMMIT');
    await groups.endTransaction(7, 3, true);
    expect(await groups.committed([0, 1, 2])).toEqual([8, 5, 5]);
    await groups.addToTransaction(7, 4, [{ partition: 0, offset: 9 }]);
    await groups.endTransaction(7, 4, true);
    expect(await groups.committed([0])).toEqual([9]);
  });

  test('in the order that there was before a restart', async () => {
    await groups.addToTransaction(
      7,
      3,
      [0, 1, 2].map((partition) => ({ partition, offset: 5 })),
    );
    await groups.commit('', 0, [{ partition: 0, offset: 8 }]);
    await groups.endTransaction(7, 3, false);
    for (const offset of [3, 6]) await groups.addToTransaction(7, 4, [{ partition: 1, offset }]);
    await restart();
    await groups.commit('', 0, [{ partition: 1, offset: 7 }]);
    await groups.endTransaction(7, 4, true);
    expect(await groups.committed([0, 1])).toEqual([8, 7]);
    await restart({ epoch: 3 });
    await groups.addToTransaction(
      8,
      0,
      [0, 1].map((partition) => ({ partition, offset: 9 })),
    );
    await groups.endTransaction(8, 0, true);
    expect(await groups.committed([0, 1])).toEqual([9, 9]);
  });

  test('a commit before that of a transaction does not, nor one that could not be written', async () => {
    await groups.commit('', 0, [{ partition: 0, offset: 8 }]);
    await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
    appends.failure = FULL;
    await rejection(groups.commit('', 0, [{ partition: 0, offset: 9 }]), 'STORAGE_FULL');
    appends.failure = undefined;
    await groups.endTransaction(7, 3, true);
    expect(await groups.committed([0])).toEqual([5]);
  });

  test('of two transactions that end the other way round, the one that was added to later', async () => {
    await groups.addToTransaction(
      7,
      3,
      [0, 1].map((partition) => ({ partition, offset: 5 })),
    );
    await groups.addToTransaction(
      8,
      0,
      [0, 1].map((partition) => ({ partition, offset: 8 })),
    );
    await groups.addToTransaction(7, 3, [{ partition: 1, offset: 9 }]);
    // Even at once: the first is on its way when the second is looked at.
    await Promise.all([groups.endTransaction(8, 0, true), groups.endTransaction(7, 3, true)]);
    expect(await groups.committed([0, 1])).toEqual([8, 9]);
    await groups.addToTransaction(7, 4, [{ partition: 0, offset: 10 }]);
    await groups.addToTransaction(8, 1, [{ partition: 0, offset: 11 }]);
    await groups.endTransaction(8, 1, false);
    await groups.endTransaction(7, 4, true);
    expect(await groups.committed([0])).toEqual([10]);
  });
});

describe('what is added', () => {
  test.each<[string, Partial<OffsetToCommit>, Reason]>([
    ['an offset above the high watermark', { offset: 21 }, 'OFFSET_OUT_OF_RANGE'],
    ['a partition that is not there', { partition: 4 }, 'UNKNOWN_TOPIC_OR_PARTITION'],
    ['another topic id', { topicId: OTHER_ID }, 'UNKNOWN_TOPIC_ID'],
    ['an internal topic', { topic: OFFSETS_TOPIC }, 'INVALID_TOPIC'],
    ['too much metadata', { metadata: 'ä'.repeat(2049) }, 'OFFSET_METADATA_TOO_LARGE'],
  ])('is checked as a commit is: %s is refused by itself', async (_, bad, reason) => {
    expect(await groups.addToTransaction(7, 3, [{ partition: 1, offset: 2, ...bad }])).toMatchObject([
      { error: { reason } },
    ]);
    expect(await groups.coordinator.find('g')).toBeUndefined();
    expect(
      await groups.addToTransaction(7, 3, [
        { partition: 0, offset: 2 },
        { partition: 1, offset: 2, ...bad },
      ]),
    ).toHaveLength(1);
    await groups.endTransaction(7, 3, true);
    expect(await groups.committed([0, 1])).toEqual([2, undefined]);
  });

  test('comes from a member that has the partition, or from nobody where there are none (invariant 9)', async () => {
    const a = await groups.join('a');
    const one = [{ partition: 0, offset: 5 }];
    await rejection(groups.addToTransaction(7, 3, one), 'UNKNOWN_MEMBER_ID');
    await rejection(groups.addToTransaction(7, 3, one, { memberId: 'x', memberEpoch: 1 }), 'UNKNOWN_MEMBER_ID');
    await rejection(
      groups.addToTransaction(7, 3, one, { memberId: 'a', memberEpoch: a.memberEpoch + 1 }),
      'FENCED_MEMBER_EPOCH',
    );
    await rejection(
      groups.addToTransaction(7, 3, one, { memberId: 'a', memberEpoch: 1, groupId: 'none' }),
      'GROUP_ID_NOT_FOUND',
    );
    await groups.reset([{ partition: 0, offset: 2 }]);
    const stale = await groups.addToTransaction(7, 3, one, { memberId: 'a', memberEpoch: a.memberEpoch });
    expect(stale).toMatchObject([{ error: { reason: 'FENCED_MEMBER_EPOCH' } }]);
    expect(groups.pending()).toEqual([]);
    const { memberEpoch } = await groups.heartbeat('a', a.memberEpoch);
    expect(await groups.addToTransaction(7, 3, one, { memberId: 'a', memberEpoch })).toEqual([]);
    await groups.coordinator.leave({ groupId: 'g', memberId: 'a', temporary: false });
    await groups.endTransaction(7, 3, true);
    expect(await groups.committed([0])).toEqual([5]);
  });

  test.each<[string, Partial<TransactionOffsetsCommand>, Reason]>([
    ['a group id that is none', { groupId: '' }, 'INVALID_GROUP_ID'],
    ['a member id that is none', { memberId: 'x'.repeat(101) }, 'INVALID_REQUEST'],
    ['a producer id that is none', { producerId: -1 }, 'INVALID_REQUEST'],
    ['a producer epoch that is none', { producerEpoch: 0.5 }, 'INVALID_REQUEST'],
  ])('is refused as a whole with %s', async (_, command, reason) => {
    await rejection(groups.addToTransaction(7, 3, [{ partition: 0, offset: 1 }], command), reason);
    expect(groups.pending()).toEqual([]);
  });

  test('is bounded in one transaction, and counts as committed offsets do (invariant 21)', async () => {
    await restart({ config: { maxOffsets: 4 } });
    await groups.commit('', 0, [{ partition: 0, offset: 1 }]);
    await groups.addToTransaction(
      7,
      3,
      [0, 1].map((partition) => ({ partition, offset: 5 })),
    );
    await groups.addToTransaction(7, 3, [{ partition: 1, offset: 6 }]);
    await rejection(
      groups.addToTransaction(8, 0, [{ partition: 2, offset: 1, metadata: 'm'.repeat(200) }]),
      'RESOURCE_LIMIT',
    );
    await rejection(
      groups.commit(
        '',
        0,
        [2, 3].map((partition) => ({ partition, offset: 1 })),
      ),
      'RESOURCE_LIMIT',
    );
    await groups.endTransaction(7, 3, true);
    await groups.commit(
      '',
      0,
      [2, 3].map((partition) => ({ partition, offset: 1 })),
    );
    await rejection(groups.addToTransaction(8, 0, [{ partition: 3, offset: 2 }]), 'RESOURCE_LIMIT');
    await groups.coordinator.delete('g');
    await groups.addToTransaction(
      8,
      0,
      [0, 1, 2, 3].map((partition) => ({ partition, offset: 5 })),
      { groupId: 'h' },
    );
    await groups.endTransaction(8, 0, false, 'h');
    await restart({ config: { maxOffsets: 4 }, epoch: 3 });
    await groups.commit(
      '',
      0,
      [0, 1, 2, 3].map((partition) => ({ partition, offset: 1 })),
    );
  });
});

describe('while offsets wait', () => {
  test('a reset of their partitions and a deletion of the group are refused, saying for what', async () => {
    await groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
    const error = await rejection(
      groups.reset([
        { partition: 1, offset: 1 },
        { partition: 0, offset: 1 },
      ]),
      'UNSTABLE_OFFSET_COMMIT',
    );
    expect(error.message).toMatch(/t-0 .* producer 7 \(epoch 3\).* timeout/);
    await groups.reset([{ partition: 1, offset: 1 }]);
    expect((await rejection(groups.coordinator.delete('g'), 'UNSTABLE_OFFSET_COMMIT')).metadata.producer_id).toBe('7');
    await groups.endTransaction(7, 3, false);
    await groups.reset([{ partition: 0, offset: 2 }]);
    expect(await groups.committed([0, 1])).toEqual([2, 1]);
    await groups.coordinator.delete('g');
  });

  test('also while they are on their way to the log, or the end of their transaction is', async () => {
    await groups.commit('', 0, [{ partition: 1, offset: 1 }]);
    const release = appends.hold();
    const adding = groups.addToTransaction(7, 3, [{ partition: 0, offset: 5 }]);
    await rejection(groups.reset([{ partition: 0, offset: 1 }]), 'UNSTABLE_OFFSET_COMMIT');
    await rejection(groups.coordinator.delete('g'), 'UNSTABLE_OFFSET_COMMIT');
    release();
    await adding;
    const releaseEnd = appends.hold();
    const ending = groups.endTransaction(7, 3, true);
    await rejection(groups.reset([{ partition: 0, offset: 1 }]), 'UNSTABLE_OFFSET_COMMIT');
    const deletion = held(groups.coordinator.delete('g'));
    await deletion.isHeld();
    releaseEnd();
    await Promise.all([ending, deletion.answer]);
    expect(await groups.coordinator.find('g')).toBeUndefined();
  });
});
