/** Readers that pass over records, or go backward. */
import { abcSeen, type Case } from './case.js';

export const READING: readonly Case[] = [
  {
    kind: 'poll-skip',
    when: 'a reader passes over a record that another one saw (invariant 7)',
    bad: (script) => {
      abcSeen(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a']);
      script.sees('r', [2, 'c']);
    },
    butNot: 'nobody knows of a record there',
    good: (script) => {
      script.acked(0, 'a');
      script.acked(2, 'c');
      script.reads('r', 0);
      script.sees('r', [0, 'a']);
      script.sees('r', [2, 'c']);
    },
  },
  {
    kind: 'poll-skip',
    when: 'the first record lies beyond the position assigned (invariant 7)',
    bad: (script) => {
      abcSeen(script);
      script.reads('r', 1);
      script.sees('r', [2, 'c']);
    },
    butNot: 'it lies there',
    good: (script) => {
      abcSeen(script);
      script.reads('r', 2);
      script.sees('r', [2, 'c']);
    },
  },
  {
    kind: 'poll-skip',
    when: 'a reader comes to the end without the last record (invariant 7)',
    bad: (script) => {
      abcSeen(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.ends('r', 3);
    },
    butNot: 'it was stopped before',
    good: (script) => {
      abcSeen(script);
      script.reads('r', 0);
      script.sees('r', [0, 'a'], [1, 'b']);
      script.stops('r');
      script.ends('r', 3);
    },
  },
  {
    kind: 'poll-skip',
    when: 'a trim comes only later (invariants 7, 16)',
    bad: (script) => {
      abcSeen(script);
      script.reads('r', 0);
      script.sees('r', [1, 'b']);
      script.trims(1);
    },
    butNot: 'it came before',
    good: (script) => {
      abcSeen(script);
      script.trims(1);
      script.reads('r', 0);
      script.sees('r', [1, 'b']);
    },
  },
  {
    kind: 'poll-skip',
    when: 'a reader of everything passes over an aborted record (invariants 7, 11)',
    bad: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.acked(1, 'b');
      script.transactionEnds('x', 'aborted');
      script.seesAll('first', [0, 'a'], [1, 'b']);
      script.reads('r', 0);
      script.seesAll('r', [1, 'b']);
    },
    butNot: 'it reads committed data',
    good: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.acked(1, 'b');
      script.transactionEnds('x', 'aborted');
      script.seesAll('first', [0, 'a'], [1, 'b']);
      script.reads('r', 0);
      script.sees('r', [1, 'b']);
    },
  },
  {
    kind: 'nonmonotonic-poll',
    when: 'a reader goes backward (invariant 7)',
    bad: (script) => {
      abcSeen(script);
      script.sees('first', [1, 'b'], [2, 'c']);
    },
    butNot: 'the partition was assigned anew',
    good: (script) => {
      abcSeen(script);
      script.reads('first', 1);
      script.sees('first', [1, 'b'], [2, 'c']);
    },
  },
  {
    kind: 'nonmonotonic-poll',
    when: 'a poll shows one offset twice (invariant 7)',
    bad: (script) => {
      script.acked(0, 'a');
      script.sees('r', [0, 'a'], [0, 'a']);
    },
    butNot: 'two readers see it',
    good: (script) => {
      script.acked(0, 'a');
      script.sees('r', [0, 'a']);
      script.sees('s', [0, 'a']);
    },
  },
];
