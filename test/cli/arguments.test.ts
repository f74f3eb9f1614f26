/** Values of options. */
import { expect, test } from 'vitest';
import { brokerAddress, keyValue, parseTime, position, repeated, wholeNumber } from '../../src/cli/arguments.js';
import { failureLine } from '../../src/cli/failure.js';
import { count, formatDuration, formatTable } from '../../src/cli/output.js';

const from = position(['earliest', 'latest']);

test('a position is a word, an offset or a time', () => {
  expect(from('earliest')).toBe('earliest');
  expect(from('0')).toBe(0);
  expect(from('2001')).toBe(2001);
  expect(from('2001-02-03')).toEqual(new Date(Date.UTC(2001, 1, 3)));
});

test.each(['', 'end', '-1', '1.5', '1e3', '9007199254740992', '2001-13-01', '2001-02-03T25:00', 'yesterday'])(
  'the position %j is refused',
  (value) => {
    expect(() => from(value)).toThrow(/earliest, latest, an offset, or a time/);
  },
);

test('a time without a zone is UTC', () => {
  const noon = new Date(Date.UTC(2026, 0, 31, 12));
  for (const text of [
    '2026-01-31T12:00',
    '2026-01-31 12:00:00',
    '2026-01-31T12:00:00.000Z',
    '2026-01-31T13:00+01:00',
  ]) {
    expect(parseTime(text)).toEqual(noon);
  }
});

test('numbers and pairs are checked', () => {
  expect(wholeNumber(1)('12')).toBe(12);
  for (const value of ['0', '-1', '1.0', 'x', '']) expect(() => wholeNumber(1)(value)).toThrow('at least 1');
  expect(repeated(keyValue)('b=2=3', [['a', '1']])).toEqual([
    ['a', '1'],
    ['b', '2=3'],
  ]);
  for (const value of ['a', '=1', '']) expect(() => keyValue(value)).toThrow('key=value');
});

test('the broker is that of the flag, else of the environment, else the default', () => {
  expect(brokerAddress('a:1', { TIDELOG_BROKER: 'b:2' })).toBe('a:1');
  expect(brokerAddress(undefined, { TIDELOG_BROKER: 'b:2' })).toBe('b:2');
  expect(brokerAddress(undefined, {})).toBe('127.0.0.1:7171');
  expect(() => brokerAddress(undefined, { TIDELOG_BROKER: 'b' })).toThrow('TIDELOG_BROKER=b is not valid');
});

test('tables align text to the left, numbers to the right, and leave no spaces at the ends of lines', () => {
  expect(
    formatTable(
      ['name', 'n'],
      [
        ['a', 1],
        ['longer', 1000],
      ],
    ),
  ).toEqual(['NAME       N', 'a          1', 'longer  1000']);
  expect(
    formatTable(
      ['name', 'n', 'change'],
      [
        ['a', '-', -1],
        ['b', 10, '+200'],
      ],
    ),
  ).toEqual(['NAME   N  CHANGE', 'a      -      -1', 'b     10    +200']);
  expect(formatTable(['name', 'n'], [['a', '-']])).toEqual(['NAME  N', 'a     -']);
  expect(formatTable(['name', 'state'], [['a', 'ok']])).toEqual(['NAME  STATE', 'a     ok']);
});

test('a failure is one line, whatever its message holds', () => {
  expect(failureLine('REASON: first\n  second')).toBe('tidelog: REASON: first second.');
  expect(failureLine('REASON: done.')).toBe('tidelog: REASON: done.');
});

test('counts read as English', () => {
  expect([count(0, 'record'), count(1, 'record'), count(1234, 'record'), count(2, 'batch', 'batches')]).toEqual([
    '0 records',
    '1 record',
    '1,234 records',
    '2 batches',
  ]);
});

test.each([
  [0, '0 s'],
  [1, '1 ms'],
  [999.7, '1 s'],
  [1234, '1.2 s'],
  [9_960, '10 s'],
  [59_700, '1 min'],
  [180_000, '3 min'],
  [5_400_000, '1.5 h'],
  [129_600_000, '36 h'],
  [172_800_000, '2 d'],
  [86_400_000 * 1234, '1,234 d'],
])('%d ms read as %s', (durationMs, text) => {
  expect(formatDuration(durationMs)).toBe(text);
});
