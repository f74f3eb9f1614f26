import { describe, expect, test } from 'vitest';
import { ProducerBudget } from '../../../src/partition/producers/producer-budget.js';
import { MAX_SEQUENCE } from '../../../src/partition/producers/sequence.js';
import { DAY_MS, StatesUnderTest } from './support.js';

describe('sequences', () => {
  test('batches that follow one another are appended, a repeated one has its first offset', () => {
    const t = new StatesUnderTest();
    expect(t.send({ sequence: 0, count: 3 })).toBe(0);
    expect(t.send({ sequence: 3, count: 2 })).toBe(3);
    expect(t.send({ sequence: 0, count: 3 })).toBe('dup 0');
    expect(t.send({ sequence: 5 })).toBe(5);
  });

  test('the last five batches are recognised, the one before them is out of order', () => {
    const t = new StatesUnderTest();
    for (let sequence = 0; sequence < 6; sequence++) t.send({ sequence });
    expect(t.send({ sequence: 1 })).toBe('dup 1');
    expect(t.send({ sequence: 0 })).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  test('a batch with other boundaries is no repetition', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: 0, count: 3 });
    expect(t.send({ sequence: 0, count: 2 })).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(t.send({ sequence: 1, count: 2 })).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  test('a gap is refused and says what comes next', () => {
    const t = new StatesUnderTest();
    t.send({ id: 9, epoch: 2, sequence: 0, count: 4 });
    const { reason, metadata, outcome } = t.refusal({ id: 9, epoch: 2, sequence: 5 });
    expect([reason, outcome]).toEqual(['OUT_OF_ORDER_SEQUENCE_NUMBER', 'none']);
    expect(metadata).toEqual({
      topic: 't',
      partition: '0',
      producer_id: '9',
      producer_epoch: '2',
      expected_sequence: '4',
      actual_sequence: '5',
    });
    expect(t.send({ id: 9, epoch: 2, sequence: 4 })).toBe(4);
  });

  test('they wrap within a batch and between two', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: MAX_SEQUENCE, count: 3 });
    expect(t.send({ sequence: 2 })).toBe(3);
    expect(t.send({ sequence: MAX_SEQUENCE, count: 3 })).toBe('dup 0');
    const exact = new StatesUnderTest();
    exact.send({ sequence: MAX_SEQUENCE });
    expect(exact.send({ sequence: 0 })).toBe(1);
  });

  test('a producer that is not known may begin anywhere', () => {
    const t = new StatesUnderTest();
    expect(t.send({ sequence: 17 })).toBe(0);
    expect(t.send({ id: 2, sequence: 17, transactional: true })).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(t.send({ id: 2, sequence: 0, transactional: true })).toBe(1);
  });
});

describe('epochs', () => {
  test('an old one is fenced before its sequence is looked at (invariant 9)', () => {
    const t = new StatesUnderTest();
    t.send({ epoch: 3, sequence: 0 });
    expect(t.refusal({ epoch: 2, sequence: 1 })).toMatchObject({
      reason: 'PRODUCER_FENCED',
      metadata: { producer_epoch: '2', current_epoch: '3' },
    });
    expect(t.reason({ epoch: 2, sequence: 0 })).toBe('PRODUCER_FENCED');
  });

  test('a new one begins at 0 and knows nothing of the batches before', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: 0 });
    expect(t.reason({ epoch: 1, sequence: 1 })).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(t.send({ epoch: 1, sequence: 0 })).toBe(1);
    expect(t.send({ epoch: 1, sequence: 0 })).toBe('dup 1');
  });

  test('a marker raises it: what comes next begins at 0, what comes late is fenced', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: 0, count: 2, transactional: true });
    t.marker(1, 1, true);
    expect(t.reason({ sequence: 0, count: 2, transactional: true })).toBe('PRODUCER_FENCED');
    expect(t.reason({ epoch: 1, sequence: 2, transactional: true })).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(t.send({ epoch: 1, sequence: 0, transactional: true })).toBe(3);
  });
});

describe('transactions', () => {
  test('the first unstable offset is that of the oldest open one, or of one whose marker is not durable', () => {
    const t = new StatesUnderTest();
    expect(t.states.firstUnstableOffset(0)).toBe(Number.POSITIVE_INFINITY);
    t.send({ id: 1, sequence: 0, count: 2, transactional: true });
    t.send({ id: 2, sequence: 0, count: 2, transactional: true });
    expect(t.states.firstUnstableOffset(0)).toBe(0);
    const marker = t.marker(1, 1, false);
    expect(t.states.firstUnstableOffset(marker)).toBe(0);
    expect(t.states.firstUnstableOffset(marker + 1)).toBe(2);
    t.marker(2, 1, true);
    expect(t.states.firstUnstableOffset(t.end)).toBe(Number.POSITIVE_INFINITY);
  });

  test('the aborted ones are as Kafka indexes them', () => {
    const t = new StatesUnderTest();
    t.send({ id: 1, sequence: 0, count: 2, transactional: true });
    t.send({ id: 2, sequence: 0, count: 2, transactional: true });
    t.marker(1, 1, false);
    t.send({ id: 1, epoch: 1, sequence: 0, transactional: true });
    t.marker(2, 1, true);
    t.marker(1, 2, false);
    expect(t.states.aborted.entries).toEqual([
      { producerId: 1, firstOffset: 0, lastOffset: 4, lastStableOffset: 2 },
      { producerId: 1, firstOffset: 5, lastOffset: 7, lastStableOffset: 8 },
    ]);
    expect(t.states.aborted.in(5, 8).map(({ firstOffset }) => firstOffset)).toEqual([5]);
    expect(t.states.aborted.in(0, 5).map(({ firstOffset }) => firstOffset)).toEqual([0]);
    expect(t.states.aborted.in(4, 6).map(({ firstOffset }) => firstOffset)).toEqual([0, 5]);
  });

  test('open ones are told in the order of their first offsets', () => {
    const t = new StatesUnderTest();
    for (const id of [3, 1, 2]) t.send({ id, sequence: 0, transactional: true });
    t.send({ id: 3, sequence: 1, transactional: true });
    expect(t.states.openTransactions()).toEqual([
      { producerId: 3, producerEpoch: 0, firstOffset: 0, sinceMs: 1000 },
      { producerId: 1, producerEpoch: 0, firstOffset: 1, sinceMs: 1000 },
      { producerId: 2, producerEpoch: 0, firstOffset: 2, sinceMs: 1000 },
    ]);
    t.marker(3, 1, true);
    t.send({ id: 3, epoch: 1, sequence: 0, transactional: true });
    expect(t.states.openTransactions().map(({ producerId }) => producerId)).toEqual([1, 2, 3]);
  });

  test('nothing outside of it, and nothing of another epoch, gets into an open one (invariant 11)', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: 0, transactional: true });
    expect(t.reason({ sequence: 1 })).toBe('INVALID_TXN_STATE');
    expect(t.reason({ epoch: 1, sequence: 0 })).toBe('INVALID_TXN_STATE');
    expect(t.reason({ epoch: 1, sequence: 0, transactional: true })).toBe('INVALID_TXN_STATE');
    expect(t.send({ sequence: 1, transactional: true })).toBe(1);
  });

  test('one whose marker was lost with a damaged part of the log ends where the next epoch begins', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: 0, transactional: true });
    // The marker was here.
    t.end = 10;
    t.replay({ epoch: 1, sequence: 0, transactional: true });
    expect(t.states.openTransactions().map(({ firstOffset }) => firstOffset)).toEqual([10]);
  });
});

describe('taking back what the log did not take', () => {
  test('leaves everything as it was', () => {
    const t = new StatesUnderTest();
    t.send({ id: 1, sequence: 0, transactional: true });
    t.send({ id: 2, sequence: 0, transactional: true });
    t.send({ id: 3, sequence: 0 });
    t.states.settle(0);
    const before = { entries: [...t.states.entries()], open: t.states.openTransactions() };
    const savepoint = t.states.savepoint();
    t.marker(1, 1, false);
    t.send({ id: 1, epoch: 1, sequence: 0, transactional: true });
    t.send({ id: 3, sequence: 1 });
    t.send({ id: 4, sequence: 0 });
    t.states.undoTo(savepoint);
    expect([...t.states.entries()]).toEqual(before.entries);
    expect(t.states.openTransactions()).toEqual(before.open);
    expect(t.states.aborted.count).toBe(0);
    expect(t.states.firstUnstableOffset(2)).toBe(0);
    expect(t.states.count).toBe(3);
  });

  test('goes back to a point in between', () => {
    const t = new StatesUnderTest();
    t.send({ sequence: 0 });
    const savepoint = t.states.savepoint();
    t.send({ sequence: 1 });
    t.states.undoTo(savepoint);
    expect(t.send({ sequence: 1 })).toBe(2);
    t.states.undoTo(0);
    expect(t.states.count).toBe(0);
  });
});

describe('forgetting', () => {
  test('goes by the time of the last write, and never with an open transaction', () => {
    const t = new StatesUnderTest();
    t.send({ id: 1, sequence: 0, timestampMs: 5 * DAY_MS });
    t.send({ id: 2, sequence: 0, transactional: true });
    t.nowMs += 1;
    t.send({ id: 3, sequence: 0, timestampMs: 0 });
    t.states.expire(1000 + DAY_MS - 1);
    expect(t.states.count).toBe(3);
    t.states.expire(1000 + DAY_MS);
    expect(t.states.describe().map(({ producerId }) => producerId)).toEqual([2, 3]);
    t.states.expire(1001 + DAY_MS);
    expect(t.states.describe().map(({ producerId }) => producerId)).toEqual([2]);
  });

  test('a new producer beyond the bound takes the place of the longest idle one', () => {
    const t = new StatesUnderTest({ limit: 2 });
    t.send({ id: 1, sequence: 0 });
    t.send({ id: 2, sequence: 0 });
    t.send({ id: 1, sequence: 1 });
    expect(t.send({ id: 3, sequence: 0 })).toBe(3);
    expect(t.states.describe().map(({ producerId }) => producerId)).toEqual([1, 3]);
  });

  test('with none that is idle a new producer is refused', () => {
    const t = new StatesUnderTest({ limit: 2 });
    t.send({ id: 1, sequence: 0, transactional: true });
    t.send({ id: 2, sequence: 0, transactional: true });
    expect(t.refusal({ id: 3, sequence: 0 })).toMatchObject({
      reason: 'RESOURCE_LIMIT',
      metadata: { max_producers: '2' },
    });
    expect(t.send({ id: 2, sequence: 1, transactional: true })).toBe(2);
    t.marker(1, 1, true);
    expect(t.send({ id: 3, sequence: 0 })).toBe(4);
  });

  test('one partition full of idle producers does not keep those of others out', () => {
    const budget = new ProducerBudget(3);
    const full = new StatesUnderTest({ budget });
    const other = new StatesUnderTest({ budget });
    for (const id of [1, 2, 3]) full.send({ id, sequence: 0 });
    other.nowMs += 1;
    expect(other.send({ id: 4, sequence: 0 })).toBe(0);
    expect(full.states.describe().map(({ producerId }) => producerId)).toEqual([2, 3]);
    // By now its own producer is younger than those there.
    expect(other.send({ id: 5, sequence: 0 })).toBe(1);
    expect(other.states.count).toBe(2);
    full.states.clear();
    expect(budget.used).toBe(2);
  });
});

test('producers are described by their ids', () => {
  const t = new StatesUnderTest();
  t.send({ id: 12, epoch: 1, sequence: 4, count: 2, timestampMs: 77 });
  t.send({ id: 3, sequence: 0, transactional: true });
  t.send({ id: 100, sequence: 0, transactional: true });
  t.nowMs = 2000;
  t.marker(100, 1, true);
  expect(t.states.describe()).toEqual([
    {
      producerId: 3,
      producerEpoch: 0,
      lastSequence: 0,
      lastTimestampMs: 1000,
      openTransaction: { producerId: 3, producerEpoch: 0, firstOffset: 2, sinceMs: 1000 },
    },
    { producerId: 12, producerEpoch: 1, lastSequence: 5, lastTimestampMs: 77, openTransaction: undefined },
    { producerId: 100, producerEpoch: 1, lastSequence: -1, lastTimestampMs: 2000, openTransaction: undefined },
  ]);
});
