/** What compaction may remove, and what not. */
import type { HistoryOptions } from '../events.js';
import { TOPIC } from '../script.js';
import type { Case } from './case.js';

const COMPACTED: HistoryOptions = { compacted: new Set([TOPIC]) };

export const COMPACTION: readonly Case[] = [
  {
    kind: 'lost-write',
    when: 'it was the last of its key in a compacted topic (invariant 1)',
    options: COMPACTED,
    bad: (script) => {
      script.acked(0, 'a', { key: 'k' });
      script.acked(1, 'b', { key: 'other' });
      script.reads('r', 0);
      script.sees('r', [1, 'b']);
    },
    butNot: 'a later one replaces it',
    good: (script) => {
      script.acked(0, 'a', { key: 'k' });
      script.acked(1, 'b', { key: 'k' });
      script.reads('r', 0);
      script.sees('r', [1, 'b']);
    },
  },
  {
    kind: 'lost-write',
    when: 'it sets the key to a value (invariant 1)',
    options: COMPACTED,
    bad: (script) => {
      script.acked(0, 'a', { key: 'k' });
      script.reads('r', 0);
      script.ends('r', 1);
    },
    butNot: 'it is a tombstone',
    good: (script) => {
      script.acked(0, 'a', { key: 'k', tombstone: true });
      script.reads('r', 0);
      script.ends('r', 1);
    },
  },
  {
    kind: 'lost-write',
    when: 'whatever might have replaced it certainly failed (invariant 1)',
    options: COMPACTED,
    bad: (script) => {
      script.acked(0, 'a', { key: 'k' });
      script.failed('b', 'none', { key: 'k' });
      script.reads('r', 0);
      script.ends('r', 1);
    },
    butNot: 'nobody knows whether it failed',
    good: (script) => {
      script.acked(0, 'a', { key: 'k' });
      script.failed('b', 'unknown', { key: 'k' });
      script.reads('r', 0);
      script.ends('r', 2);
    },
  },
  {
    kind: 'lost-write',
    when: 'what its own producer sent before it may be in the log (invariants 1, 6)',
    options: COMPACTED,
    bad: (script) => {
      script.failed('b', 'unknown', { key: 'k' });
      script.acked(1, 'a', { key: 'k' });
      script.reads('r', 0);
      script.ends('r', 2);
    },
    butNot: 'another producer sent that',
    good: (script) => {
      script.failed('b', 'unknown', { key: 'k', by: 'q' });
      script.acked(0, 'a', { key: 'k' });
      script.reads('r', 0);
      script.ends('r', 2);
    },
  },
];
