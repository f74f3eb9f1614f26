/** Consumer groups. */
import type { Case } from './case.js';

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
