import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import { offsetsPartitionOf } from '../../../src/broker/groups/offsets-topic.js';
import { placementOf } from '../../../src/broker/state-topic/placement.js';
import { encodeTransaction } from '../../../src/broker/transactions/records.js';
import { TRANSACTION_TOPIC } from '../../../src/broker/transactions/transaction-topic.js';
import { LogError } from '../../../src/core/errors.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { held } from '../groups/support.js';
import { withParts } from '../support.js';
import { machineIn } from './machine.js';
import { Transactions, type TransactionsOptions } from './support.js';

async function started(options: TransactionsOptions = {}): Promise<Transactions> {
  const transactions = await Transactions.started(options);
  onTestFinished(() => transactions.close());
  await transactions.usualTopics();
  return transactions;
}

describe('a transaction', () => {
  let tx: Transactions;

  beforeEach(async () => {
    tx = await started();
  });

  test('becomes visible as a whole when it commits, offsets of groups included (invariant 11)', async () => {
    const producer = await tx.init();
    await tx.send(producer, 0, 'a');
    await tx.send(producer, 1, 'b');
    await tx.send(producer, 0, 'c');
    expect(await tx.addOffsets(producer, 1)).toEqual([]);
    expect([await tx.committed(), await tx.groupOffset()]).toEqual([[[], [], []], 'UNSTABLE_OFFSET_COMMIT']);
    const after = await tx.commit(producer);
    expect(after).toEqual({ ...producer, producerEpoch: 1 });
    expect([await tx.committed(), await tx.groupOffset()]).toEqual([[['a', 'c'], ['b'], []], 1]);
    expect(tx.openCount()).toBe(0);
    await tx.send(after, 0, 'd');
    await tx.commit(after);
    expect(await tx.committed()).toEqual([['a', 'c', 'd'], ['b'], []]);
  });

  test('shows nothing when it aborts', async () => {
    const producer = await tx.init();
    await tx.send(producer, 0, 'a');
    await tx.addOffsets(producer, 1);
    const after = await tx.abort(producer);
    expect([await tx.committed(), await tx.groupOffset()]).toEqual([[[], [], []], undefined]);
    expect(tx.openCount()).toBe(0);
    await tx.send(after, 0, 'b');
    await tx.commit(after);
    expect(await tx.committed()).toEqual([['b'], [], []]);
  });

  test('of offsets only commits them', async () => {
    const producer = await tx.init();
    await tx.addOffsets(producer, 0);
    await tx.commit(producer);
    expect(await tx.groupOffset()).toBe(0);
  });

  test('is answered alike when the answer was lost, and a batch that comes late is fenced (KIP-890)', async () => {
    const producer = await tx.init();
    await tx.send(producer, 0, 'a');
    const [one, two] = await Promise.all([tx.commit(producer), tx.commit(producer)]);
    expect(two).toEqual(one);
    expect(await tx.commit(producer)).toEqual(one);
    await rejection(tx.abort(producer), 'INVALID_TXN_STATE');
    await rejection(tx.send(producer, 0, 'late'), 'PRODUCER_FENCED');
    expect(await tx.committed()).toEqual([['a'], [], []]);
  });

  test('is aborted by another producer that takes its id, and who had begun it is fenced (invariant 9)', async () => {
    const zombie = await tx.init();
    await tx.send(zombie, 0, 'zombie');
    await tx.addOffsets(zombie, 1);
    const producer = await tx.init();
    expect(producer.producerEpoch).toBe(2);
    expect([await tx.committed(), await tx.groupOffset(), tx.openCount()]).toEqual([[[], [], []], undefined, 0]);
    await rejection(tx.send(zombie, 1, 'zombie'), 'PRODUCER_FENCED');
    await rejection(tx.addOffsets(zombie, 1), 'PRODUCER_FENCED');
    await rejection(tx.commit(zombie), 'PRODUCER_FENCED');
    await tx.send(producer, 0, 'a');
    await tx.commit(producer);
    expect(await tx.committed()).toEqual([['a'], [], []]);
  });

  test('does not wait for another one', async () => {
    const [one, two] = await Promise.all([tx.init(), tx.init({ transactionalId: 'other' })]);
    await tx.send(one, 0, 'a');
    await tx.send(two, 0, 'b');
    await tx.commit(two);
    expect((await tx.committed())[0]).toEqual([]);
    await tx.commit(one);
    expect((await tx.committed())[0]).toEqual(['a', 'b']);
  });

  test('goes on when a topic of it is deleted', async () => {
    await tx.topic('u', 1);
    const producer = await tx.init();
    await tx.send(producer, 0, 'a');
    await tx.send(producer, 0, 'gone', 'written', 'u');
    await tx.topics.delete('u');
    await tx.topic('u', 1);
    await tx.commit(producer);
    expect([await tx.committed(), await tx.committed('u')]).toEqual([[['a'], [], []], [[]]]);
  });

  test('has a fresh producer id when the epochs run out, and an answer that was lost then is given again', async () => {
    const { producerId } = await tx.init();
    const last = { transactionalId: 'tx', producerId, producerEpoch: 32_766 };
    // As so many transactions would have left it.
    const log = tx.partition(placementOf('tx', 2), TRANSACTION_TOPIC);
    const { key, value } = encodeTransaction('tx', { ...machineIn('empty').record!, identity: last });
    const record = { timestampMs: tx.clock.now(), key, value };
    await log.append([encodeBatch([record])], { acks: 'durable' });
    await tx.close();
    tx = await Transactions.started({ engine: tx.engine, epoch: 2 });
    onTestFinished(() => tx.close());
    await tx.send(last, 0, 'a');
    await tx.addOffsets(last, 1);
    const after = await tx.commit(last);
    expect(after.producerEpoch).toBe(0);
    expect(after.producerId).not.toBe(producerId);
    expect(await tx.commit(last)).toEqual(after);
    await rejection(tx.send(last, 0, 'late'), 'PRODUCER_FENCED');
    await tx.send(after, 0, 'b');
    await tx.commit(after);
    expect([await tx.committed(), await tx.groupOffset()]).toEqual([[['a', 'b'], [], []], 1]);
  });
});

describe('timeouts', () => {
  test('what takes too long is aborted, readers go on, and the producer is told (invariant 12)', async () => {
    const tx = await started();
    const producer = await tx.init({ timeoutMs: 5000 });
    const other = await tx.init({ transactionalId: 'other', timeoutMs: 9000 });
    await tx.send(producer, 0, 'a');
    await tx.send(other, 1, 'b');
    await tx.addOffsets(producer, 1);
    tx.clock.advance(4900);
    await tx.send(producer, 0, 'a2');
    expect(await tx.status()).toBe('ongoing 0/0');
    tx.clock.advance(100);
    await tx.whileTimePasses(() => tx.openCount() === 1, 'the transaction is aborted', 1);
    expect(await tx.status('other')).toMatch(/^ongoing/);
    const error = await rejection(tx.send(producer, 1, 'c'), 'TRANSACTION_ABORTABLE');
    expect(error.metadata).toEqual({ transactional_id: 'tx', producer_id: '0', producer_epoch: '0', cause: 'timeout' });
    await rejection(tx.commit(producer), 'TRANSACTION_ABORTABLE');
    const after = await tx.abort(producer);
    await tx.send(after, 0, 'd');
    await tx.commit(after);
    expect([(await tx.committed())[0], await tx.groupOffset()]).toEqual([['d'], undefined]);
    tx.clock.advance(5000);
    await tx.whileTimePasses(() => tx.openCount() === 0, 'the other is aborted', 1);
  });

  test('one that was ended leaves no timer that aborts the next one early', async () => {
    const tx = await started();
    const producer = await tx.init({ timeoutMs: 5000 });
    await tx.send(producer, 0, 'a');
    tx.clock.advance(4000);
    const after = await tx.commit(producer);
    await tx.send(after, 0, 'b');
    tx.clock.advance(4000);
    await tx.send(after, 0, 'c');
    await tx.commit(after);
    expect((await tx.committed())[0]).toEqual(['a', 'b', 'c']);
  });

  test('1,000 that are due together are all aborted', async () => {
    const tx = await started();
    const ids = Array.from({ length: 1000 }, (_, i) => `tx-${i}`);
    const producers = await Promise.all(ids.map((transactionalId) => tx.init({ transactionalId, timeoutMs: 1000 })));
    await Promise.all(producers.map((producer) => tx.send(producer, 0, 'x')));
    expect(tx.openCount()).toBe(1000);
    tx.clock.advance(1000);
    await tx.whileTimePasses(() => tx.openCount() === 0, 'all are aborted', 20);
    expect((await tx.committed())[0]).toEqual([]);
  });
});

describe('what is refused leaves nothing open', () => {
  let tx: Transactions;

  beforeEach(async () => {
    tx = await started();
  });

  test('transactional ids and times that cannot be', async () => {
    for (const transactionalId of ['', 'x'.repeat(250), 'a\nb', '\ud800']) {
      await rejection(tx.init({ transactionalId }), 'INVALID_REQUEST');
      await rejection(tx.coordinator.describe(transactionalId), 'INVALID_REQUEST');
    }
    for (const timeoutMs of [-1, 900_001, 1.5, Number.NaN]) {
      await rejection(tx.init({ timeoutMs }), 'INVALID_TRANSACTION_TIMEOUT');
    }
    await rejection(tx.init({ current: { producerId: -1, producerEpoch: 0 } }), 'INVALID_REQUEST');
    await rejection(tx.init({ current: { producerId: 0, producerEpoch: 40_000 } }), 'INVALID_REQUEST');
    expect(await tx.coordinator.list()).toEqual([]);
    await tx.init({ transactionalId: 'x'.repeat(249), timeoutMs: 900_000 });
    await tx.init();
    expect((await tx.coordinator.describe('tx')).timeoutMs).toBe(60_000);
  });

  test('a commit without a transaction', async () => {
    const producer = await tx.init();
    await rejection(tx.commit(producer), 'INVALID_TXN_STATE');
    await rejection(tx.commit({ ...producer, transactionalId: 'other' }), 'INVALID_PRODUCER_ID_MAPPING');
    await rejection(tx.commit({ ...producer, producerId: 77 }), 'INVALID_PRODUCER_ID_MAPPING');
    await rejection(tx.commit({ ...producer, producerEpoch: 5 }), 'PRODUCER_FENCED');
  });

  test('a batch of a producer that never began, of another one, or of another epoch', async () => {
    const nobody = { transactionalId: 'nobody', producerId: 5, producerEpoch: 0 };
    await rejection(tx.send(nobody, 0, 'x'), 'INVALID_PRODUCER_ID_MAPPING');
    const producer = await tx.init();
    await rejection(tx.send({ ...producer, producerEpoch: 3 }, 0, 'x'), 'PRODUCER_FENCED');
    await rejection(tx.send({ ...producer, producerId: 3 }, 0, 'x'), 'INVALID_PRODUCER_ID_MAPPING');
    expect([tx.openCount(), await tx.status()]).toEqual([0, 'empty 0/0']);
    expect(await tx.coordinator.list()).toHaveLength(1);
  });

  test('offsets of a group that cannot be, of no member, or without a transactional id', async () => {
    const producer = await tx.init();
    await rejection(tx.addOffsets(producer, 0, { groupId: '' }), 'INVALID_GROUP_ID');
    expect(await tx.status()).toBe('empty 0/0');
    await rejection(tx.addOffsets(producer, 0, { memberId: 'm', memberEpoch: 1 }), 'GROUP_ID_NOT_FOUND');
    await rejection(tx.addOffsets({ ...producer, transactionalId: 'y' }, 0), 'INVALID_PRODUCER_ID_MAPPING');
    const [refused] = await tx.addOffsets(producer, 99);
    expect(refused?.error.reason).toBe('OFFSET_OUT_OF_RANGE');
    await tx.abort(producer);
    expect(await tx.groupOffset()).toBeUndefined();
  });

  test('more partitions and groups than all open transactions may have together (invariant 21)', async () => {
    const few = await started({ maxOpenPlaces: 2 });
    const [one, two] = [await few.init(), await few.init({ transactionalId: 'b' })];
    await few.send(one, 0, 'x');
    // A group that is never made is one as well.
    await few.addOffsets(two, 99);
    const refused = [few.send(one, 1, 'x'), few.addOffsets(one, 0), few.addOffsets(two, 0, { groupId: 'h' })];
    for (const one of refused) expect((await rejection(one, 'RESOURCE_LIMIT')).metadata).toEqual({ limit: '2' });
    await few.addOffsets(two, 0);
    await few.commit(two);
    await few.addOffsets(one, 0);
  });

  test('more calls than may wait under one transactional id (invariant 21)', async () => {
    const producer = await tx.init();
    const calls = Array.from({ length: 1001 }, (_, producerEpoch) =>
      tx.commit({ ...producer, producerEpoch: 1 + producerEpoch }),
    );
    const reasons = calls.map(
      async (call, i) => await rejection(call, i < 1000 ? 'PRODUCER_FENCED' : 'CONCURRENT_TRANSACTIONS'),
    );
    await Promise.all(reasons);
    await rejection(tx.commit(producer), 'INVALID_TXN_STATE');
  });

  test('more transactional ids than there may be', async () => {
    const few = await started({ config: { maxIds: 2 } });
    await few.init();
    await few.init({ transactionalId: 'b' });
    const error = await rejection(few.init({ transactionalId: 'c' }), 'RESOURCE_LIMIT');
    expect(error.metadata).toEqual({ limit: '2' });
    await few.init();
    expect(await few.coordinator.list()).toHaveLength(2);
  });
});

describe('administrators', () => {
  test('see transactional ids, and the partitions and groups of what is open', async () => {
    const tx = await started();
    const producer = await tx.init({ transactionalId: 'b', timeoutMs: 1000 });
    await tx.init({ transactionalId: 'a' });
    await tx.send(producer, 2, 'x');
    await tx.send(producer, 0, 'x');
    await tx.addOffsets(producer, 0);
    const summaries = [...(await tx.coordinator.list())].reverse();
    expect(summaries.map(({ transactionalId, status }) => `${transactionalId} ${status}`)).toEqual([
      'a empty',
      'b ongoing',
    ]);
    const described = await tx.coordinator.describe('b');
    expect(described).toMatchObject({ status: 'ongoing', timeoutMs: 1000, startMs: tx.clock.now(), groupIds: ['g'] });
    expect(described.partitions.map(({ topic, partition }) => `${topic}-${partition}`)).toEqual(['t-0', 't-2']);
    await tx.commit(producer);
    expect(await tx.coordinator.describe('b')).toMatchObject({
      status: 'complete-commit',
      startMs: undefined,
      partitions: [],
      groupIds: [],
    });
    await rejection(tx.coordinator.describe('c'), 'TRANSACTIONAL_ID_NOT_FOUND');
  });

  test('abort what is open, and its producer is told', async () => {
    const tx = await started();
    const producer = await tx.init();
    await rejection(tx.coordinator.abort('tx'), 'INVALID_TXN_STATE');
    await rejection(tx.coordinator.abort('c'), 'TRANSACTIONAL_ID_NOT_FOUND');
    await tx.send(producer, 0, 'x');
    expect(await tx.coordinator.abort('tx')).toMatchObject({ status: 'complete-abort', producerEpoch: 1 });
    expect(tx.openCount()).toBe(0);
    await rejection(tx.send(producer, 0, 'x'), 'TRANSACTION_ABORTABLE');
    expect(await tx.abort(producer)).toMatchObject({ producerEpoch: 1 });
  });

  test('are shown what nobody ends', async () => {
    const tx = await started();
    const producer = await tx.init();
    await tx.send(producer, 1, 'x');
    expect(await tx.coordinator.findHanging()).toEqual([]);
  });
});

describe('ids that nobody uses', () => {
  test('are forgotten after their time, but not with an open transaction', async () => {
    const tx = await started({ config: { idExpirationMs: 1.75 * 3_600_000 } });
    const idle = await tx.init({ transactionalId: 'idle' });
    const used = await tx.init({ transactionalId: 'used' });
    tx.clock.advance(1_800_000);
    await tx.send(used, 0, 'x');
    await tx.commit(used);
    tx.clock.advance(1_800_000);
    await held(tx.coordinator.list()).turns();
    expect(await tx.coordinator.list()).toHaveLength(2);
    tx.clock.advance(3_600_000);
    await tx.whileTimePasses(async () => (await tx.coordinator.list()).length === 1, 'it is forgotten', 0);
    await rejection(tx.commit(idle), 'INVALID_PRODUCER_ID_MAPPING');
    const again = await tx.init({ transactionalId: 'idle', current: idle });
    expect(again.producerId).not.toBe(idle.producerId);
    await tx.close();
    await using after = await Transactions.started({ engine: tx.engine, clock: tx.clock, epoch: 2 });
    expect((await after.coordinator.list()).map(({ producerId }) => producerId).sort()).toEqual(
      [again.producerId, used.producerId].sort(),
    );
  });
});

describe('a stop of the broker', () => {
  test('takes nothing new in, and leaves nothing decided half done', async () => {
    const tx = await started();
    const producer = await tx.init();
    await tx.send(producer, 0, 'a');
    await tx.addOffsets(producer, 1);
    const commit = tx.commit(producer);
    const drained = tx.coordinator.drain();
    await rejection(tx.init(), 'BROKER_DRAINING');
    await rejection(tx.send(producer, 0, 'b'), 'BROKER_DRAINING');
    await rejection(tx.addOffsets(producer, 1), 'BROKER_DRAINING');
    await rejection(tx.commit(producer), 'BROKER_DRAINING');
    await rejection(tx.coordinator.abort('tx'), 'BROKER_DRAINING');
    await drained;
    expect(await commit).toMatchObject({ producerEpoch: 1 });
    expect([await tx.committed(), await tx.groupOffset()]).toEqual([[['a'], [], []], 1]);
    await tx.close();
    await tx.coordinator.close();
    expect(tx.clock.timerCount).toBe(0);
  });

  test('while transactions are read callers are told to come again', async () => {
    const tx = await Transactions.start();
    onTestFinished(() => tx.close());
    const error = await rejection(tx.init(), 'COORDINATOR_LOAD_IN_PROGRESS');
    expect(error).toMatchObject({ retryable: true, retryAfterMs: 100 });
    await rejection(tx.coordinator.list(), 'COORDINATOR_LOAD_IN_PROGRESS');
    await rejection(
      () => tx.coordinator.enter({ transactionalId: 'a', producerId: 0, producerEpoch: 0 }, tx.partition(0)),
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
    await tx.loaded();
    await held(tx.init()).turns();
  });

  test('offsets of what was open are given up, also while other groups cannot be read (invariant 12)', async () => {
    const clock = new ManualClock(BASE_TIME);
    const engine = openMemoryEngine({ clock });
    const before = await Transactions.started({ engine, clock });
    await before.usualTopics();
    await before.addOffsets(await before.init(), 1);
    const groupsTopic = before.topics.get('__group_offsets').record.id;
    await before.close();
    const broken = withParts(engine, {
      open: (id, epoch, config) =>
        id.topicId === groupsTopic && id.partition !== offsetsPartitionOf('g', 4)
          ? Promise.reject(new LogError('CORRUPT_LOG', 'It does not open.'))
          : engine.open(id, epoch, config),
    });
    const after = await Transactions.started({ engine: broken, clock, epoch: 2 });
    onTestFinished(() => after.close());
    await after.whileTimePasses(async () => (await after.groupOffset()) === undefined, 'the offsets are given up');
  });
});
