/** Consumer groups. */
import type { Script } from '../script.js';
import { abc, type Case } from './case.js';

export const GROUPS: readonly Case[] = [
  {
    kind: 'lost-commit',
    when: 'a member begins below the committed offset (invariant 8)',
    bad: (script) => {
      script.commits('r', 'g', 5);
      script.reads('s', 4, 'g');
    },
    butNot: 'the offsets were reset',
    good: (script) => {
      script.commits('r', 'g', 5);
      script.resets('g', 4);
      script.reads('s', 4, 'g');
    },
  },
  {
    kind: 'lost-commit',
    when: 'that was the last commit (invariant 8)',
    bad: (script) => {
      script.commits('r', 'g', 4);
      script.commits('r', 'g', 5);
      script.reads('s', 4, 'g');
    },
    butNot: 'another group committed that',
    good: (script) => {
      script.commits('r', 'g', 4);
      script.commits('r', 'h', 5);
      script.reads('s', 4, 'g');
    },
  },
  {
    kind: 'lost-commit',
    when: 'a member begins below what was committed before the last commit (invariant 8)',
    bad: (script) => {
      script.commits('r', 'g', 5);
      script.commits('s', 'g', 4);
      script.reads('t', 4, 'g');
    },
    butNot: 'the offsets were reset between the two',
    good: (script) => {
      script.commits('r', 'g', 5);
      script.resets('g', 3);
      script.commits('s', 'g', 4);
      script.reads('t', 4, 'g');
    },
  },
  {
    kind: 'group-skip',
    when: 'a group commits an offset above a record that is not finished (invariants 7, 8)',
    bad: (script) => {
      readsAbc(script);
      script.finishes('r', 0, 2);
      script.commits('r', 'g', 3);
    },
    butNot: 'another member has finished it',
    good: (script) => {
      readsAbc(script);
      script.finishes('r', 0, 2);
      script.crash('killed', 'r');
      script.reads('s', 1, 'g');
      script.sees('s', [1, 'b'], [2, 'c']);
      script.finishes('s', 1);
      script.commits('s', 'g', 3);
    },
  },
  {
    kind: 'group-skip',
    when: 'a member begins above a record that is not finished (invariants 7, 8)',
    bad: (script) => {
      readsAbc(script);
      script.finishes('r', 0);
      script.crash('killed', 'r');
      script.reads('s', 2, 'g');
    },
    butNot: 'it may be gone',
    good: (script) => {
      readsAbc(script);
      script.finishes('r', 0);
      script.crash('killed', 'r');
      script.trims(2);
      script.reads('s', 2, 'g');
    },
  },
  {
    kind: 'group-skip',
    when: 'a record was finished before the offset was reset to it (invariants 7, 8)',
    bad: (script) => {
      readsAbc(script);
      script.finishes('r', 0, 1, 2);
      script.asksToReset('g', 1);
      script.resets('g', 1);
      script.stops('r');
      script.reads('s', 2, 'g');
    },
    butNot: 'a member that began there finishes it before the reset is acknowledged',
    good: (script) => {
      readsAbc(script);
      script.finishes('r', 0, 1, 2);
      script.asksToReset('g', 1);
      script.stops('r');
      script.reads('r', 1, 'g');
      script.sees('r', [1, 'b']);
      script.finishes('r', 1);
      script.resets('g', 1);
      script.commits('r', 'g', 2);
      script.stops('r');
      script.reads('s', 2, 'g');
    },
  },
  {
    kind: 'two-owners',
    when: 'a record is handed to a member while another one has the partition (invariants 9, 10)',
    bad: (script) => {
      readsAbc(script);
      script.stops('r');
      script.reads('s', 0, 'g');
      script.sees('r', [0, 'a']);
    },
    butNot: 'that one has given it up again',
    good: (script) => {
      readsAbc(script);
      script.stops('r');
      script.reads('s', 0, 'g');
      script.stops('s');
      script.sees('r', [0, 'a']);
    },
  },
  {
    kind: 'two-owners',
    when: 'a partition is assigned while another member has it (invariant 10)',
    bad: (script) => {
      script.reads('r', 0, 'g');
      script.reads('s', 0, 'g');
    },
    butNot: 'it was taken from that one',
    good: (script) => {
      script.reads('r', 0, 'g');
      script.stops('r');
      script.reads('s', 0, 'g');
    },
  },
  {
    kind: 'two-owners',
    when: 'another client was killed (invariant 10)',
    bad: (script) => {
      script.reads('r', 0, 'g');
      script.crash('killed', 'other');
      script.reads('s', 0, 'g');
    },
    butNot: 'its owner was killed',
    good: (script) => {
      script.reads('r', 0, 'g');
      script.crash('killed', 'r');
      script.reads('s', 0, 'g');
    },
  },
];

/** A member sees three records. */
function readsAbc(script: Script): void {
  abc(script);
  script.reads('r', 0, 'g');
  script.sees('r', [0, 'a'], [1, 'b'], [2, 'c']);
}
