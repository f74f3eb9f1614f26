/** Records, and sends, that contradict each other. */
import { abcSeen, type Case } from './case.js';

export const RECORDS: readonly Case[] = [
  {
    kind: 'duplicate',
    when: 'a value stands at two offsets (invariant 6)',
    bad: (script) => {
      script.acked(1, 'a');
      script.sees('r', [0, 'a'], [1, 'a']);
    },
    butNot: 'they name two values',
    good: (script) => {
      script.acked(0, 'a');
      script.acked(1, 'b');
      script.sees('r', [0, 'a'], [1, 'b']);
    },
  },
  {
    kind: 'aborted-read',
    when: 'a send that failed without effect is seen (invariant 5)',
    bad: (script) => {
      script.failed('a', 'none');
      script.sees('r', [0, 'a']);
    },
    butNot: 'nobody knew whether it had failed',
    good: (script) => {
      script.failed('a', 'unknown');
      script.sees('r', [0, 'a']);
    },
  },
  {
    kind: 'aborted-read',
    when: 'a record of an aborted transaction is seen (invariant 11)',
    bad: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.asksToCommit('x');
      script.transactionEnds('x', 'unknown');
      script.transactionEnds('x', 'aborted');
      script.sees('r', [0, 'a']);
    },
    butNot: 'its reader asked for such',
    good: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.transactionEnds('x', 'aborted');
      script.seesAll('r', [0, 'a']);
    },
  },
  {
    kind: 'precommitted-read',
    when: 'a record of a transaction is seen before its commit is asked for (invariant 11)',
    bad: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.sees('r', [0, 'a']);
      script.asksToCommit('x');
      script.transactionEnds('x', 'committed');
    },
    butNot: 'it was asked for and not answered yet',
    good: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.asksToCommit('x');
      script.sees('r', [0, 'a']);
      script.transactionEnds('x', 'committed');
    },
  },
  {
    kind: 'precommitted-read',
    when: 'a record of a transaction without any end is seen (invariant 11)',
    bad: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.sees('r', [0, 'a']);
    },
    butNot: 'its reader asked for such',
    good: (script) => {
      script.acked(0, 'a', { transaction: 'x' });
      script.seesAll('r', [0, 'a']);
    },
  },
  {
    kind: 'inconsistent-offsets',
    when: 'an offset is acknowledged to two sends (invariant 4)',
    bad: (script) => {
      script.acked(0, 'a');
      script.acked(0, 'b', { by: 'q' });
    },
    butNot: 'they are in two partitions',
    good: (script) => {
      script.acked(0, 'a');
      script.sends('b', { by: 'q' }).ack(1, 0);
    },
  },
  {
    kind: 'inconsistent-offsets',
    when: 'an offset is read as another value than before (invariant 4)',
    bad: (script) => {
      abcSeen(script);
      script.sends('d');
      script.sees('r', [1, 'd']);
    },
    butNot: 'it is read as the same',
    good: (script) => {
      abcSeen(script);
      script.sees('r', [1, 'b']);
    },
  },
  {
    kind: 'foreign-value',
    when: 'a record is seen that nobody sent (invariant 4)',
    bad: (script) => script.sees('r', [0, 'a']),
    butNot: 'its send was never answered',
    good: (script) => {
      script.sends('a');
      script.sees('r', [0, 'a']);
    },
  },
  {
    kind: 'foreign-value',
    when: 'it was sent only later (invariant 4)',
    bad: (script) => {
      script.sees('r', [0, 'a']);
      script.acked(0, 'a');
    },
    butNot: 'it was seen before the answer',
    good: (script) => {
      const a = script.sends('a');
      script.sees('r', [0, 'a']);
      a.ack(0, 0);
    },
  },
];

export const SENDS: readonly Case[] = [
  {
    kind: 'nonmonotonic-send',
    when: 'the later of two sends has the lower offset (invariant 6)',
    bad: (script) => {
      script.acked(1, 'a');
      script.acked(0, 'b');
    },
    butNot: 'another producer sent it',
    good: (script) => {
      script.acked(1, 'a', { by: 'q' });
      script.acked(0, 'b');
    },
  },
  {
    kind: 'nonmonotonic-send',
    when: 'the answers come in the order of the offsets (invariant 6)',
    bad: (script) => {
      const a = script.sends('a');
      const b = script.sends('b');
      b.ack(0, 0);
      a.ack(0, 1);
    },
    butNot: 'only the answers change places',
    good: (script) => {
      const a = script.sends('a');
      const b = script.sends('b');
      b.ack(0, 1);
      a.ack(0, 0);
    },
  },
];
