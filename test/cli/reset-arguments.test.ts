/** What `tidelog group reset-offsets` takes for partitions and positions. */
import { expect, test } from 'vitest';
import { parseDuration, resetPosition, shift, topicSpec } from '../../src/cli/reset-arguments.js';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

test.each([
  ['90s', 90 * SECOND],
  ['15m', 15 * MINUTE],
  ['1h30m', 1.5 * HOUR],
  ['7d', 7 * DAY],
  ['2w1d', 15 * DAY],
  ['250ms', 250],
  ['1m5ms', MINUTE + 5],
  ['0.5h', 30 * MINUTE],
  ['P1DT2H', DAY + 2 * HOUR],
  ['PT1H30M', 1.5 * HOUR],
  ['PT0.25S', 250],
  ['P2W', 14 * DAY],
])('the duration %s is %d ms', (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test.each([
  '',
  '90',
  's',
  '30m1h',
  '1h 30m',
  '-1h',
  '1y',
  '1.h',
  'P',
  'PT',
  'P1DT',
  'P1H',
  'P1Y',
  'P1M',
  'p1d',
  '1D',
  '9e9d',
])('%j is no duration', (text) => {
  expect(parseDuration(text)).toBeUndefined();
});

test('a position is a word, an offset, a time or a duration back from now', () => {
  for (const word of ['earliest', 'latest', 'current']) expect(resetPosition(word)).toBe(word);
  expect(resetPosition('120')).toBe(120);
  expect(resetPosition('2026-01-31T12:00:00Z')).toEqual(new Date(Date.UTC(2026, 0, 31, 12)));
  expect(resetPosition('-1h30m')).toEqual({ agoMs: 1.5 * HOUR });
  expect(resetPosition('-P1DT2H')).toEqual({ agoMs: DAY + 2 * HOUR });
});

test.each(['', '-', '-5', '+5', '5m', '1.5', '9007199254740992', 'end', '2026-13-01', `-${'9'.repeat(20)}d`])(
  'the position %j is refused, and the message shows what there is',
  (value) => {
    expect(() => resetPosition(value)).toThrow(/earliest, latest, current, an offset, a time such as .*-1h30m/);
  },
);

test('a topic stands for all its partitions, or for those behind the colon', () => {
  expect(topicSpec('orders.v1')).toEqual({ topic: 'orders.v1', partitions: [] });
  expect(topicSpec('orders:3')).toEqual({ topic: 'orders', partitions: [3] });
  expect(topicSpec('orders:0,12,3')).toEqual({ topic: 'orders', partitions: [0, 12, 3] });
  for (const value of [
    '',
    ':1',
    'orders:',
    'orders:x',
    'orders:1,',
    'orders:-1',
    'a:1:2',
    'a b',
    'a,b',
    'a:99999999999999999',
  ]) {
    expect(() => topicSpec(value)).toThrow('orders:0,3');
  }
  expect(() => topicSpec('orders:1,2,1')).toThrow('partition 1 twice');
});

test('a shift goes forward or back', () => {
  expect([shift('100'), shift('+100'), shift('-100'), shift('0')]).toEqual([100, 100, -100, 0]);
  for (const value of ['', '1.5', '--1', 'x', '9007199254740992']) expect(() => shift(value)).toThrow('-100 or 100');
});
