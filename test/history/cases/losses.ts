/** Records that are gone. */
import { abc, abcSeen, type Case } from './case.js';

export const LOSSES: readonly Case[] = [
  {
    kind: 'lost-write',
    when: 'a reader passes over an acknowledged record that nobody ever saw (invariant 1)',
    bad: (script) => {
      abc(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a'], [2, 'c']);
    },
    butNot: 'it began behind the record',
    good: (script) => {
      abc(script);
      script.reads('r', 2);
      script.sees('r', [2, 'c']);
    },
  },
  {
    kind: 'lost-write',
    when: 'the end that a reader came to lies beyond the record (invariant 1)',
    bad: (script) => {
      abc(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.ends('r', 3);
    },
    butNot: 'the record was sent later',
    good: (script) => {
      script.reads('r', 0);
      abc(script);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.ends('r', 2);
    },
  },
  {
    kind: 'lost-write',
    when: 'the record lies at a trim or above it (invariants 1, 16)',
    bad: (script) => {
      abc(script);
      script.trims(1);
      script.reads('r', 0);
      script.sees('r', [2, 'c']);
    },
    butNot: 'all that is missing lies below it',
    good: (script) => {
      abc(script);
      script.trims(2);
      script.reads('r', 0);
      script.sees('r', [2, 'c']);
    },
  },
  {
    kind: 'lost-write',
    when: 'a record that was seen lies at or above the end that a later reader came to (invariants 1, 4)',
    bad: (script) => {
      abcSeen(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.ends('r', 2);
    },
    butNot: 'that reader began before the record was seen',
    good: (script) => {
      script.reads('r', 0);
      abcSeen(script);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.ends('r', 2);
    },
  },
  {
    kind: 'lost-write',
    when: 'that reader was assigned the partition (invariants 1, 4)',
    bad: (script) => {
      abcSeen(script);
      script.reads('r', 1);
      script.sees('r', [1, 'b']);
      script.ends('r', 2);
    },
    butNot: 'nobody knows since when it read',
    good: (script) => {
      abcSeen(script);
      script.sees('r', [1, 'b']);
      script.ends('r', 2);
    },
  },
  {
    kind: 'lost-write',
    when: 'the record belongs to a transaction that was committed (invariants 1, 11)',
    bad: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.asksToCommit('x');
      script.transactionEnds('x', 'committed');
      script.reads('r', 0);
      script.ends('r', 2);
    },
    butNot: 'the transaction was aborted',
    good: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.transactionEnds('x', 'aborted');
      script.reads('r', 0);
      script.ends('r', 2);
    },
  },
  {
    kind: 'torn-transaction',
    when: 'nobody ever sees one record of a transaction of which others were seen (invariant 11)',
    bad: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.acked(1, 'b', { transaction: 'x' });
      script.asksToCommit('x');
      script.transactionEnds('x', 'unknown');
      script.reads('r', 0);
      script.sees('r', [0, 'a']);
      script.ends('r', 3);
    },
    butNot: 'none of them was',
    good: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.acked(1, 'b', { transaction: 'x' });
      script.asksToCommit('x');
      script.transactionEnds('x', 'unknown');
      script.reads('r', 0);
      script.ends('r', 3);
    },
  },
];

export const UNSEEN: readonly Case[] = [
  {
    kind: 'unseen',
    when: 'a reader that began after the acknowledgement finds the end below the record (invariants 1, 4)',
    bad: (script) => {
      abc(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.ends('r', 2);
    },
    butNot: 'it began before the acknowledgement',
    good: (script) => {
      const b = script.sends('b');
      script.reads('r', 0);
      b.ack(0, 0);
      script.ends('r', 0);
    },
  },
  {
    kind: 'unseen',
    when: 'that reader was the last (invariants 1, 4)',
    bad: (script) => {
      script.acked(0, 'a');
      script.reads('r', 0);
      script.ends('r', 0);
    },
    butNot: 'a later one saw it',
    good: (script) => {
      script.acked(0, 'a');
      script.reads('r', 0);
      script.ends('r', 0);
      script.reads('last', 0);
      script.sees('last', [0, 'a']);
      script.ends('last', 1);
    },
  },
];
