/** The state machine of a transactional id: Kafka's tables (KIP-98, KIP-360, KIP-890), and what differs from them. */
import { describe, expect, test } from 'vitest';
import type { TransactionStatus } from '../../../src/broker/transactions/coordinator-types.js';
import { nextDeadlineMs } from '../../../src/broker/transactions/transaction.js';
import { id, Machine, machineIn, place } from './machine.js';

const OLD = id(100, 0);
const NOW = id(100, 1);

describe('initialising', () => {
  test('a new id begins with a fresh producer id and epoch 0, which is durable first', () => {
    const machine = new Machine();
    expect(machine.init()).toBe('ok 100/0');
    expect([machine.summary, machine.kinds]).toEqual(['empty 100/0', 'persist']);
  });

  test.each<[TransactionStatus, string]>([
    ['empty', 'ok 100/2'],
    ['complete-commit', 'ok 100/2'],
    ['complete-abort', 'ok 100/2'],
    ['prepare-commit', 'waits'],
    ['prepare-abort', 'waits'],
  ])('another producer takes over in state %s: %s', (status, outcome) => {
    const machine = machineIn(status);
    expect(machine.init()).toBe(outcome);
    expect(machine.enter(OLD)).not.toBe('accepted');
  });

  test('another producer that finds an open transaction waits for its abort, which fences who had begun it', () => {
    const machine = machineIn('ongoing');
    expect(machine.init()).toBe('waits');
    expect([machine.summary, machine.kinds]).toEqual(['prepare-abort 100/1 -> 100/2', 'persist markers end-offsets']);
    for (const attempt of [machine.enter(NOW), machine.end(NOW, true), machine.end(NOW, false), machine.init(NOW)]) {
      expect(attempt).toBe('PRODUCER_FENCED');
    }
    machine.completed();
    for (const attempt of [machine.enter(NOW), machine.end(NOW, false), machine.init(NOW)]) {
      expect(attempt).toBe('PRODUCER_FENCED');
    }
    expect(machine.init()).toBe('ok 100/3');
  });

  test('a producer that goes on with what it has is given the next epoch, and the same once more when it asks again', () => {
    const machine = new Machine();
    machine.init();
    expect(machine.init(id(100, 0))).toBe('ok 100/1');
    expect(machine.init(id(100, 0))).toBe('ok 100/1');
    expect(machine.kinds).toBe('');
    expect(machine.init(id(100, 0), 5)).toBe('ok 100/1');
    expect([machine.state.timeoutMs, machine.kinds]).toEqual([5, 'persist']);
    expect(machine.init(id(100, 1))).toBe('ok 100/2');
    expect(machine.init(id(100, 0))).toBe('PRODUCER_FENCED');
  });

  test('a producer that goes on over its own open transaction aborts it, and is given the epoch after it', () => {
    const machine = machineIn('ongoing');
    expect(machine.init(NOW, 7)).toBe('waits');
    expect(machine.init(NOW, 7)).toBe('waits');
    machine.completed();
    expect(machine.init(NOW, 7)).toBe('ok 100/2');
    expect(machine.state.timeoutMs).toBe(7);
    expect(machine.enter(NOW)).toBe('PRODUCER_FENCED');
  });

  test('whoever has an identity that is over cannot go on with it', () => {
    for (const status of ['empty', 'ongoing', 'prepare-commit', 'complete-commit'] as const) {
      const machine = machineIn(status);
      expect(machine.init(id(100, 7))).toBe('PRODUCER_FENCED');
      expect(machine.init(id(7, 0))).toBe('PRODUCER_FENCED');
    }
    expect(machineIn('ongoing').init(OLD)).toBe('PRODUCER_FENCED');
  });

  test('whoever had the id before another one took over is fenced, whatever it asks for', () => {
    const machine = machineIn('empty');
    expect(machine.init()).toBe('ok 100/2');
    for (const attempt of [machine.enter(NOW), machine.addOffsets(NOW), machine.end(NOW, true), machine.init(NOW)]) {
      expect(attempt).toBe('PRODUCER_FENCED');
    }
  });

  test('a new id takes a producer that comes with an identity: its own was forgotten', () => {
    expect(new Machine().init(id(5, 5))).toBe('ok 100/0');
  });
});

describe('adding partitions and offsets', () => {
  test('the first one begins the transaction, without a record; the same ones change nothing', () => {
    const machine = machineIn('empty');
    expect(machine.enter(NOW, 3)).toBe('accepted');
    const { state } = machine;
    expect([machine.summary, machine.kinds]).toEqual(['ongoing 100/1', '']);
    expect(machine.enter(NOW, 3)).toBe('accepted');
    expect(machine.state).toBe(state);
    machine.enter(NOW, 4);
    machine.addOffsets(NOW, 'g');
    expect([...machine.state.partitions.values()]).toEqual([place(3), place(4)]);
    expect([...machine.state.groups.values()]).toEqual(['g']);
    // What came of a state does not change it.
    expect([...state.partitions.values()]).toEqual([place(3)]);
  });

  test.each<[TransactionStatus, string, string]>([
    ['empty', 'accepted', 'PRODUCER_FENCED'],
    ['ongoing', 'accepted', 'PRODUCER_FENCED'],
    ['prepare-commit', 'CONCURRENT_TRANSACTIONS', 'CONCURRENT_TRANSACTIONS'],
    ['prepare-abort', 'CONCURRENT_TRANSACTIONS', 'CONCURRENT_TRANSACTIONS'],
    ['complete-commit', 'accepted', 'PRODUCER_FENCED'],
    ['complete-abort', 'accepted', 'PRODUCER_FENCED'],
  ])('in state %s: epoch 1 %s, epoch 0 %s', (status, one, zero) => {
    expect([machineIn(status).enter(NOW), machineIn(status).enter(OLD)]).toEqual([one, zero]);
    expect([machineIn(status).addOffsets(NOW), machineIn(status).addOffsets(OLD)]).toEqual([one, zero]);
    expect(machineIn(status).enter(id(9, 1))).toBe('INVALID_PRODUCER_ID_MAPPING');
  });

  test('nothing is added under an id that nobody has initialised', () => {
    expect(new Machine().enter(id(-1, -1))).toBe('INVALID_PRODUCER_ID_MAPPING');
    expect(new Machine().addOffsets(id(1, 0))).toBe('INVALID_PRODUCER_ID_MAPPING');
    expect(new Machine().end(id(-1, -1), true)).toBe('INVALID_PRODUCER_ID_MAPPING');
  });

  test('a transaction takes 10,000 partitions and 1,000 groups, and goes on without more', () => {
    const machine = machineIn('empty');
    for (let i = 0; i < 10_000; i++) machine.enter(NOW, i);
    expect(machine.enter(NOW, 10_000)).toBe('RESOURCE_LIMIT');
    expect(machine.enter(NOW, 9_999)).toBe('accepted');
    for (let i = 0; i < 1_000; i++) machine.addOffsets(NOW, `g${i}`);
    expect(machine.addOffsets(NOW, 'g1000')).toBe('RESOURCE_LIMIT');
    expect([machine.state.partitions.size, machine.state.groups.size]).toEqual([10_000, 1_000]);
  });
});

describe('ending', () => {
  /** Outcomes of commit and abort under epoch 1, then of commit and abort under epoch 0, after which epoch 1 came. */
  const TABLE: readonly (readonly [TransactionStatus, readonly [string, string, string, string]])[] = [
    ['empty', ['INVALID_TXN_STATE', 'ok 100/2', 'PRODUCER_FENCED', 'PRODUCER_FENCED']],
    ['ongoing', ['waits', 'waits', 'PRODUCER_FENCED', 'PRODUCER_FENCED']],
    ['prepare-commit', ['waits', 'waits', 'waits', 'INVALID_TXN_STATE']],
    ['prepare-abort', ['waits', 'waits', 'INVALID_TXN_STATE', 'waits']],
    ['complete-commit', ['INVALID_TXN_STATE', 'ok 100/2', 'ok 100/1', 'INVALID_TXN_STATE']],
    ['complete-abort', ['INVALID_TXN_STATE', 'ok 100/2', 'INVALID_TXN_STATE', 'ok 100/1']],
  ];

  test.each(TABLE)('in state %s: %s', (status, outcomes) => {
    const attempts = [NOW, OLD].flatMap((producer) =>
      [true, false].map((commit) => machineIn(status).end(producer, commit)),
    );
    expect(attempts).toEqual(outcomes);
    expect(machineIn(status).end(id(9, 0), true)).toBe('INVALID_PRODUCER_ID_MAPPING');
    expect(machineIn(status).end(id(100, 9), true)).toBe('PRODUCER_FENCED');
  });

  test('a commit makes what was sent durable, then its decision, then what follows, with the next epoch in the markers', () => {
    const machine = machineIn('empty');
    machine.enter(NOW, 2);
    machine.addOffsets(NOW, 'g');
    expect(machine.end(NOW, true)).toBe('waits');
    expect(machine.effects).toMatchObject([
      { kind: 'flush', partitions: [place(2)] },
      {
        kind: 'persist',
        record: { status: 'prepare-commit', identity: NOW, next: id(100, 2), partitions: [place(2)], groupIds: ['g'] },
      },
      { kind: 'markers', partitions: [place(2)], commit: true, producerId: 100, producerEpoch: 2 },
      { kind: 'end-offsets', groupIds: ['g'], commit: true, producerId: 100, producerEpoch: 1 },
    ]);
    expect(machine.completed()).toBe('nothing');
    expect(machine.effects).toMatchObject([
      { kind: 'persist', record: { status: 'complete-commit', identity: id(100, 2), previous: NOW, partitions: [] } },
    ]);
    expect(machine.end(NOW, true)).toBe('ok 100/2');
  });

  test('an abort of nothing takes the next epoch', () => {
    const machine = machineIn('empty');
    expect(machine.end(NOW, false)).toBe('ok 100/2');
    expect([machine.summary, machine.kinds]).toEqual(['complete-abort 100/2', 'persist']);
    expect(machine.end(NOW, false)).toBe('ok 100/2');
    expect(machine.end(id(100, 2), false)).toBe('ok 100/3');
  });

  test('an answer that was lost is given again until the next transaction begins', () => {
    const machine = machineIn('complete-commit');
    expect(machine.end(OLD, true)).toBe('ok 100/1');
    machine.enter(NOW);
    expect(machine.end(OLD, true)).toBe('PRODUCER_FENCED');
  });
});

describe('epochs that run out', () => {
  function atLastEpoch(): Machine {
    const machine = new Machine();
    machine.init();
    machine.state = { ...machine.state, identity: id(100, 32_766) };
    return machine;
  }

  test('the marker has epoch 32767, and the next transaction another producer id', () => {
    const machine = atLastEpoch();
    const last = id(100, 32_766);
    machine.enter(last);
    machine.end(last, true);
    expect(machine.effects.find(({ kind }) => kind === 'markers')).toMatchObject({ producerEpoch: 32_767 });
    expect(machine.end(last, true)).toBe('waits');
    machine.completed();
    expect(machine.summary).toBe('complete-commit 101/0');
    expect(machine.end(last, true)).toBe('ok 101/0');
    expect(machine.init(last)).toBe('ok 101/0');
    expect(machine.enter(last)).toBe('PRODUCER_FENCED');
    expect(machine.enter(id(101, 0))).toBe('accepted');
    expect(machine.end(last, true)).toBe('INVALID_PRODUCER_ID_MAPPING');
  });

  test('so it is when a producer takes over, goes on, aborts nothing or is timed out', () => {
    const last = id(100, 32_766);
    expect(atLastEpoch().init()).toBe('ok 101/0');
    expect(atLastEpoch().init(last)).toBe('ok 101/0');
    expect(atLastEpoch().end(last, false)).toBe('ok 101/0');
    const machine = atLastEpoch();
    machine.enter(last);
    machine.nowMs += 60_000;
    machine.apply({ kind: 'tick' });
    machine.completed();
    expect(machine.enter(last)).toBe('TRANSACTION_ABORTABLE');
    expect(machine.end(last, false)).toBe('ok 101/0');
  });
});

describe('aborts over the producer’s head', () => {
  test('a transaction that takes too long is aborted at its deadline, not before', () => {
    const machine = machineIn('ongoing');
    expect(nextDeadlineMs(machine.state)).toBe(61_000);
    machine.nowMs = 60_999;
    machine.enter(NOW, 1);
    expect(machine.apply({ kind: 'tick' })).toBe('nothing');
    machine.nowMs = 61_000;
    expect(machine.apply({ kind: 'tick' })).toBe('waits');
    expect([machine.summary, machine.kinds]).toEqual(['prepare-abort 100/1 -> 100/2', 'persist markers end-offsets']);
    expect(nextDeadlineMs(machine.state)).toBeUndefined();
    expect(machine.apply({ kind: 'tick' })).toBe('nothing');
  });

  test.each(['tick', 'abort', 'recovered-open'] as const)(
    'after %s the producer is told so, and its abort gives it the identity to go on with',
    (kind) => {
      const machine = machineIn(kind === 'recovered-open' ? 'empty' : 'ongoing');
      machine.nowMs += 60_000;
      const open = { identity: NOW, partitions: [place(0)], groupIds: [] };
      expect(machine.apply(kind === 'recovered-open' ? { kind, open } : { kind })).toBe('waits');
      expect([machine.enter(NOW), machine.addOffsets(NOW), machine.end(NOW, true)]).toEqual(
        Array(3).fill('TRANSACTION_ABORTABLE'),
      );
      expect(machine.end(NOW, false)).toBe('waits');
      machine.completed();
      expect([machine.enter(NOW), machine.addOffsets(NOW), machine.end(NOW, true)]).toEqual(
        Array(3).fill('TRANSACTION_ABORTABLE'),
      );
      expect(machine.end(NOW, false)).toBe('ok 100/2');
      expect(machine.init(NOW)).toBe('ok 100/2');
      expect(machine.enter(id(100, 2))).toBe('accepted');
    },
  );

  test('after another producer has taken over, who was timed out before is fenced', () => {
    const machine = machineIn('ongoing');
    machine.apply({ kind: 'abort' });
    machine.completed();
    expect(machine.init()).toBe('ok 100/3');
    expect([machine.enter(NOW), machine.end(NOW, false), machine.init(NOW)]).toEqual(Array(3).fill('PRODUCER_FENCED'));
  });

  test('an administrator waits for what is decided, and is told when nothing is open', () => {
    expect(machineIn('prepare-commit').apply({ kind: 'abort' })).toBe('waits');
    for (const status of ['empty', 'complete-commit', 'complete-abort'] as const) {
      expect(machineIn(status).apply({ kind: 'abort' })).toBe('INVALID_TXN_STATE');
    }
  });
});

describe('after a restart', () => {
  test('what is open under the present epoch, or a later one, is aborted with all its partitions and groups', () => {
    for (const epoch of [1, 4]) {
      const machine = machineIn('ongoing');
      machine.restart();
      expect(machine.summary).toBe('empty 100/1');
      const open = { identity: id(100, epoch), partitions: [place(5)], groupIds: ['g'] };
      expect(machine.apply({ kind: 'recovered-open', open })).toBe('waits');
      expect(machine.summary).toBe(`prepare-abort 100/${epoch} -> 100/${epoch + 1}`);
      expect(machine.record).toMatchObject({ cause: 'restart', partitions: [place(5)], groupIds: ['g'] });
    }
  });

  test('what is open under an earlier epoch, or another id, is not the business of this one', () => {
    const machine = machineIn('complete-commit');
    for (const identity of [OLD, id(9, 5)]) {
      expect(machine.apply({ kind: 'recovered-open', open: { identity, partitions: [], groupIds: [] } })).toBe(
        'nothing',
      );
    }
  });

  test('what comes after a decided transaction waits until that is completed, and is then aborted', () => {
    const machine = machineIn('prepare-commit');
    machine.restart();
    const open = { identity: id(100, 1), partitions: [place(0)], groupIds: [] };
    expect(machine.apply({ kind: 'recovered-open', open: { ...open, identity: OLD } })).toBe('nothing');
    expect(machine.apply({ kind: 'recovered-open', open })).toBe('waits');
    machine.completed();
    expect(machine.apply({ kind: 'recovered-open', open })).toBe('waits');
    expect(machine.summary).toBe('prepare-abort 100/1 -> 100/2');
  });

  test.each(['prepare-commit', 'prepare-abort'] as const)(
    'a producer that was told of %s before waits until it is completed again',
    (status) => {
      const machine = machineIn(status);
      machine.restart();
      expect([machine.enter(NOW), machine.addOffsets(NOW)]).toEqual(Array(2).fill('CONCURRENT_TRANSACTIONS'));
      expect([machine.end(NOW, true), machine.end(NOW, false), machine.init(NOW)]).toEqual(Array(3).fill('waits'));
      machine.completed();
      expect(machine.enter(NOW)).toBe('TRANSACTION_ABORTABLE');
      expect(machine.init(NOW)).toBe('ok 100/2');
    },
  );

  test('nobody has the identity that would come after a transaction whose id was taken over', () => {
    const machine = machineIn('ongoing');
    machine.init();
    machine.restart();
    const next = id(100, 2);
    expect([machine.enter(next), machine.end(next, true), machine.init(next)]).toEqual(
      Array(3).fill('PRODUCER_FENCED'),
    );
  });

  test('an open transaction of this run is not aborted by what a search has found before it began', () => {
    const machine = machineIn('ongoing');
    const open = { identity: NOW, partitions: [place(0)], groupIds: [] };
    expect(machine.apply({ kind: 'recovered-open', open })).toBe('nothing');
    expect(machine.summary).toBe('ongoing 100/1');
  });

  test('a lost answer is given again', () => {
    const machine = machineIn('complete-commit');
    machine.restart();
    expect(machine.end(OLD, true)).toBe('ok 100/1');
    expect(machine.init(OLD)).toBe('ok 100/1');
  });

  test.each(['empty', 'complete-commit', 'complete-abort', 'prepare-commit', 'prepare-abort'] as const)(
    'from %s, where acknowledged records may be missing, the identity of before begins nothing until it was given up',
    (status) => {
      const machine = machineIn(status);
      machine.restart(true);
      if (status.startsWith('prepare')) machine.completed();
      expect([machine.enter(NOW), machine.addOffsets(NOW), machine.end(NOW, true)]).toEqual(
        Array(3).fill('TRANSACTION_ABORTABLE'),
      );
      expect(machine.end(NOW, false)).toBe('ok 100/2');
      expect(machine.enter(id(100, 2))).toBe('accepted');
    },
  );

  test('after a clean stop it begins the next transaction as if nothing had been', () => {
    const machine = machineIn('complete-commit');
    machine.restart(false);
    expect(machine.end(NOW, true)).toBe('INVALID_TXN_STATE');
    expect(machine.enter(NOW)).toBe('accepted');
  });
});
