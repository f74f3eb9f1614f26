/** Each kind of violation by hand, and what the checker says of it. */
import { describe, expect, test } from 'vitest';
import { abcSeen } from './cases/case.js';
import { COMPACTION } from './cases/compaction.js';
import { GROUPS } from './cases/groups.js';
import { LOSSES, UNSEEN } from './cases/losses.js';
import { READING } from './cases/reading.js';
import { RECORDS, SENDS } from './cases/records.js';
import { checkHistory, expectNoViolations } from './checker.js';
import { Script, TOPIC } from './script.js';
import { INVARIANTS } from './violations.js';

const CASES = [...LOSSES, ...UNSEEN, ...COMPACTION, ...READING, ...RECORDS, ...SENDS, ...GROUPS];

describe('the history checker reports', () => {
  for (const { kind, when, bad, butNot, good, options } of CASES) {
    test(`${kind} when ${when}`, () => {
      const script = new Script();
      bad(script);
      expect(checkHistory(script.events, options).map((violation) => violation.kind)).toEqual([kind]);
    });

    test(`no ${kind} when ${butNot}`, () => {
      const script = new Script();
      good(script);
      expect(checkHistory(script.events, options)).toEqual([]);
    });
  }
});

test('every kind of violation has its case', () => {
  const kinds = Object.keys(INVARIANTS);
  expect([...new Set(CASES.map(({ kind }) => kind as string))].sort()).toEqual(kinds.sort());
});

test('the evidence is the few events that show the violation, with only what matters of their records', () => {
  const script = new Script();
  abcSeen(script);
  script.sends('d');
  script.reads('r', 0);
  script.sees('r', [0, 'a'], [2, 'c'], [3, 'd']);
  const [violation] = checkHistory(script.events);
  const place = { topic: TOPIC, partition: 0 };
  expect(violation?.evidence).toEqual([
    { index: 2, ...script.events[2] },
    { index: 3, ...script.events[3] },
    {
      index: 10,
      kind: 'poll',
      process: 'r',
      records: [
        { ...place, offset: 0, value: 'a' },
        { ...place, offset: 2, value: 'c' },
      ],
    },
  ]);
});

test('a history is described by kind, with the evidence and a count of what is left out', () => {
  const script = new Script();
  for (let offset = 0; offset < 25; offset++) script.acked(offset, `value-${offset}`);
  script.reads('r', 0);
  script.ends('r', 25);
  script.sees('r', [30, 'stray']);
  expect(() => expectNoViolations(script)).toThrow(
    [
      '26 violations in a history of 53 events',
      'foreign-value (invariants 4): 1',
      '  nobody had sent "stray" at orders/0@30',
      '    #52 r poll: orders/0@30 stray',
      'lost-write (invariants 1, 4): 25',
      '  "value-0" at orders/0@0 was acknowledged, r read past it, and nobody ever saw it',
      '    #0 p send 1 to orders: value-0',
      '    #1 p ack of send 1: partition 0 offset 0',
      '    #50 r assigned: orders/0@0',
      '    #51 r end: orders/0@25',
    ].join('\n'),
  );
  expect(() => expectNoViolations(script)).toThrow('  and 15 more');
});

test('a good history is passed', () => {
  const script = new Script();
  abcSeen(script);
  expectNoViolations(script);
});

test.each([
  ['a value is sent twice', (script: Script) => [script.sends('a'), script.sends('a')]],
  [
    'a transaction is both committed and aborted',
    (script: Script) => {
      script.transactionEnds('x', 'committed');
      script.transactionEnds('x', 'aborted');
    },
  ],
  ['an answer has no send', (script: Script) => script.add({ kind: 'error', process: 'p', send: 7, outcome: 'none' })],
])('a history in which %s is refused', (_, record) => {
  const script = new Script();
  record(script);
  expect(() => checkHistory(script.events)).toThrow('recorded wrongly');
});
