/** Transactions over a storage that fails: each call says why, and nothing is left open for good. */
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import { OFFSETS_TOPIC } from '../../../src/broker/groups/offsets-topic.js';
import type { TransactionalProducer } from '../../../src/broker/transactions/coordinator-types.js';
import { TRANSACTION_TOPIC } from '../../../src/broker/transactions/transaction-topic.js';
import type { LogError } from '../../../src/core/errors.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { held } from '../groups/support.js';
import { FailingEngine, failure } from './failing-engine.js';
import { Transactions, type TransactionsOptions } from './support.js';

let storage: FailingEngine;
let tx: Transactions;
let producer: TransactionalProducer;

async function started(options: TransactionsOptions = {}): Promise<Transactions> {
  const transactions = await Transactions.started({ engine: storage.engine, ...options });
  onTestFinished(async () => {
    storage.fault = () => undefined;
    await transactions.close();
  });
  return transactions;
}

/** From here on; `partition` undefined: all of the topic. */
function breakTopic(
  topic: string,
  what: 'append' | 'flush',
  error: LogError | Promise<void>,
  partition?: number,
): void {
  const topicId = tx.topics.idOf(topic);
  storage.fault = (attempted, id) => {
    const isMeant = attempted === what && id.topicId === topicId;
    return isMeant && (partition === undefined || id.partition === partition) ? error : undefined;
  };
}

function heal(): void {
  storage.fault = () => undefined;
}

beforeEach(async () => {
  storage = new FailingEngine(openMemoryEngine({ clock: new ManualClock(BASE_TIME) }));
  tx = await started();
  await tx.usualTopics();
  producer = await tx.init();
  await tx.send(producer, 0, 'a');
  await tx.send(producer, 1, 'a');
  await tx.addOffsets(producer, 1);
});

describe('a commit that cannot be decided', () => {
  test.each([
    ['the decision', TRANSACTION_TOPIC, 'append', 'STORAGE_FULL'],
    ['the records', 't', 'flush', 'RESOURCE_LIMIT'],
    ['the records, for good', 't', 'flush', 'STORAGE_ERROR'],
  ] as const)('because of %s has not happened, and may be tried again or aborted', async (_, topic, what, reason) => {
    breakTopic(topic, what, failure(reason));
    const error = await rejection(tx.commit(producer), reason);
    expect(error.outcome).toBe('none');
    expect(await tx.status()).toBe('ongoing 0/0');
    await tx.send(producer, 0, 'b', 'none').catch(() => undefined);
    heal();
    expect((await tx.commit(producer)).producerEpoch).toBe(1);
    expect([(await tx.committed())[1], await tx.groupOffset()]).toEqual([['a'], 1]);
  });

  test('is timed out when that goes on, as soon as it can be', async () => {
    breakTopic(TRANSACTION_TOPIC, 'append', failure('STORAGE_FULL'));
    await rejection(tx.commit(producer), 'STORAGE_FULL');
    tx.clock.advance(61_000);
    await held(tx.coordinator.list()).turns();
    expect(await tx.status()).toBe('ongoing 0/0');
    heal();
    await tx.whileTimePasses(() => tx.openCount() === 0, 'it is aborted');
    await rejection(tx.commit(producer), 'TRANSACTION_ABORTABLE');
  });
});

describe('while a decision is on its way to the log', () => {
  test('nothing is added to the transaction, nobody is answered, and other ids go on', async () => {
    let release = (): void => undefined;
    const other = await tx.init({ transactionalId: 'other-1' });
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    breakTopic('t', 'flush', gate, 1);
    const commit = held(tx.commit(producer));
    await commit.isHeld();
    await rejection(tx.send(producer, 0, 'late'), 'CONCURRENT_TRANSACTIONS');
    const init = held(tx.init());
    const more = held(tx.addOffsets(producer, 2));
    await tx.send(other, 2, 'other');
    await tx.commit(other);
    for (const one of [commit, init, more]) await one.isHeld();
    expect(await tx.status()).toBe('ongoing 0/0');
    release();
    expect((await commit.answer).producerEpoch).toBe(1);
    expect((await init.answer).producerEpoch).toBe(2);
    await more.answer.then(
      () => expect.fail('offsets came into a transaction that was decided'),
      () => undefined,
    );
    expect([await tx.committed(), await tx.groupOffset()]).toEqual([[['a'], ['a'], ['other']], 1]);
  });

  test('offsets that are being added belong to it', async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    breakTopic(OFFSETS_TOPIC, 'append', gate);
    const adding = held(tx.addOffsets(producer, 7));
    await adding.isHeld();
    const commit = held(tx.commit(producer));
    await commit.isHeld();
    release();
    expect(await adding.answer).toEqual([]);
    await commit.answer;
    expect(await tx.groupOffset()).toBe(7);
  });
});

describe('a decided transaction that cannot be completed', () => {
  test.each([
    ['a partition', 't', 'STORAGE_FULL'],
    ['a group', OFFSETS_TOPIC, 'STORAGE_FULL'],
  ] as const)('because of %s is completed as soon as that works, and its producer waits', async (_, topic, reason) => {
    breakTopic(topic, 'append', failure(reason));
    const commit = held(tx.commit(producer));
    await commit.turns();
    await tx.whileTimePasses(async () => (await tx.status()) === 'prepare-commit 0/0', 'it is decided', 0);
    await commit.isHeld();
    await rejection(tx.send(producer, 0, 'late'), 'CONCURRENT_TRANSACTIONS');
    await rejection(tx.abort(producer), 'INVALID_TXN_STATE');
    const init = held(tx.init());
    await init.isHeld();
    heal();
    await tx.whileTimePasses(async () => tx.openCount() === 0 && (await tx.groupOffset()) === 1, 'it is completed');
    expect(await commit.answer).toMatchObject({ producerEpoch: 1 });
    expect(await init.answer).toMatchObject({ producerEpoch: 2 });
    expect(await tx.committed()).toEqual([['a'], ['a'], []]);
  });

  test('before the broker stops is left to the next start, which is said', async () => {
    breakTopic('t', 'append', failure('STORAGE_ERROR'), 1);
    const commit = held(tx.commit(producer));
    await commit.turns();
    await tx.whileTimePasses(async () => (await tx.status()) === 'prepare-commit 0/0', 'it is decided', 0);
    await tx.coordinator.drain();
    await commit.isHeld();
    const refused = rejection(commit.answer, 'BROKER_DRAINING');
    await tx.close();
    expect((await refused).outcome).toBe('unknown');
    heal();
    const after = await started({ epoch: 2 });
    await after.whileTimePasses(() => after.openCount() === 0, 'it is completed');
    expect(await after.commit(producer)).toMatchObject({ producerEpoch: 1 });
    expect([await after.committed(), await after.groupOffset()]).toEqual([[['a'], ['a'], []], 1]);
  });

  test('does not keep an abort of nothing, or other ids, from their answers', async () => {
    breakTopic('t', 'append', failure('STORAGE_FULL'), 0);
    const commit = held(tx.commit(producer));
    await commit.turns();
    const other = await tx.init({ transactionalId: 'other' });
    await tx.send(other, 2, 'x');
    await tx.commit(other);
    await tx.abort({ ...other, producerEpoch: 1 });
    heal();
    await tx.whileTimePasses(() => tx.openCount() === 0, 'it is completed');
    await commit.answer;
  });
});

describe('a decision of which nobody knows whether the log has it', () => {
  test('is written again until it is durable: it is never taken back', async () => {
    // Written, and the sync failed for want of a file handle.
    breakTopic(TRANSACTION_TOPIC, 'flush', failure('RESOURCE_LIMIT'));
    const commit = held(tx.commit(producer));
    await commit.turns();
    tx.clock.advance(61_000);
    await commit.isHeld();
    await rejection(tx.send(producer, 0, 'late'), 'CONCURRENT_TRANSACTIONS');
    heal();
    await tx.whileTimePasses(() => tx.openCount() === 0, 'it is completed');
    expect(await commit.answer).toMatchObject({ producerEpoch: 1 });
    expect((await tx.committed())[0]).toEqual(['a']);
  });

  test('on a disk that failed puts the ids of its partition out of service until the next start', async () => {
    breakTopic(TRANSACTION_TOPIC, 'append', failure('STORAGE_ERROR'));
    expect((await rejection(tx.commit(producer), 'STORAGE_ERROR')).outcome).toBe('unknown');
    await rejection(tx.send(producer, 0, 'late'), 'STORAGE_ERROR');
    await rejection(tx.abort(producer), 'STORAGE_ERROR');
    await rejection(tx.init(), 'STORAGE_ERROR');
    await rejection(tx.coordinator.describe('tx'), 'STORAGE_ERROR');
    expect(tx.logger.messages('error')).toContain('the transactional ids of a partition are out of service');
    await tx.close();
    heal();
    const after = await started({ epoch: 2 });
    await after.whileTimePasses(() => after.openCount() === 0, 'it is aborted');
    await rejection(after.commit(producer), 'TRANSACTION_ABORTABLE');
  });
});

describe('what nobody answers for', () => {
  /** As a defect would leave it. */
  async function leave(producerId: number): Promise<void> {
    const record = { timestampMs: tx.clock.now(), key: null, value: Buffer.from('x') };
    const batch = encodeBatch([record], { producerId, producerEpoch: 3, baseSequence: 0, transactional: true });
    await tx.partition(2).append([batch], { acks: 'durable' });
  }

  test('is shown, and aborted when it is older than any transaction may be (invariant 12)', async () => {
    await tx.commit(producer);
    tx.clock.advance(10_000);
    await tx.whileTimePasses(() => tx.clock.nextTimerMs !== undefined, 'the search is over', 0);
    await leave(777_777);
    expect(await tx.coordinator.findHanging()).toEqual([
      { topic: 't', partition: 2, producerId: 777_777, producerEpoch: 3, firstOffset: 0 },
    ]);
    tx.clock.advance(890_000);
    await held(tx.coordinator.list()).turns();
    expect(tx.openCount()).toBe(1);
    tx.clock.advance(20_000);
    await tx.whileTimePasses(() => tx.openCount() === 0, 'it is aborted');
    expect([await tx.coordinator.findHanging(), (await tx.committed())[2]]).toEqual([[], []]);
    expect(tx.partition(2).producers()[0]).toMatchObject({ producerId: 777_777, producerEpoch: 4 });
  });

  test('after a restart is aborted at once, whoever it belongs to', async () => {
    await leave(777_777);
    await tx.close();
    const after = await started({ epoch: 2 });
    await after.whileTimePasses(() => after.openCount() === 0, 'all are aborted', 0);
    expect([await after.committed(), await after.groupOffset()]).toEqual([[[], [], []], undefined]);
    expect(await after.status()).toBe('complete-abort 0/1');
  });
});

describe('a partition that comes back later', () => {
  test('has what it was left with aborted then, and no identity of before goes on meanwhile', async () => {
    const other = await tx.init({ transactionalId: 'other' });
    const topicId = tx.topics.idOf('t');
    await tx.close();
    storage.fault = (what, id) =>
      what === 'open' && id.topicId === topicId && id.partition === 1 ? failure('RESOURCE_LIMIT') : undefined;
    const after = await started({ epoch: 2 });
    await rejection(after.send(other, 0, 'b'), 'TRANSACTION_ABORTABLE');
    await rejection(after.send(producer, 0, 'b'), 'TRANSACTION_ABORTABLE');
    const next = await after.abort(producer);
    await after.send(next, 0, 'b');
    await after.commit(next);
    heal();
    after.clock.advance(10_000);
    await until(() => after.topics.failures().length === 0, 'it is opened');
    expect(after.openCount()).toBe(1);
    await after.whileTimePasses(() => after.openCount() === 0, 'it is aborted', 1000);
    expect(await after.committed()).toEqual([['b'], [], []]);
  });
});
