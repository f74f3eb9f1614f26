import { expect, test } from 'vitest';
import { murmur2 } from '../../src/client/murmur2.js';
import { checkPartition, keyPartitioner, StickyPartition } from '../../src/client/partitioner.js';
import type { Random } from '../../src/core/random.js';
import { rejection } from '../support/rejection.js';

const VECTORS: readonly (readonly [string, number])[] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
];

test.each(VECTORS)('murmur2 of %s is what Java computes', (text, expected) => {
  expect(murmur2(Buffer.from(text))).toBe(expected);
});

test.each(VECTORS)('the key %s goes to the partition that Java chooses', (text, hash) => {
  expect(keyPartitioner(Buffer.from(text), 7, 't')).toBe((hash & 0x7fffffff) % 7);
});

test('bytes above 127 count as unsigned', () => {
  // The same bytes through views that do and do not begin at 0.
  const bytes = Buffer.from([0xff, 0x80, 0xfe, 0x81, 0xc3, 0xbf, 0x90]);
  expect(murmur2(Buffer.concat([Buffer.from([1]), bytes]).subarray(1))).toBe(murmur2(bytes));
  expect(murmur2(bytes)).not.toBe(murmur2(Buffer.from([0x7f, 0, 0x7e, 1, 0x43, 0x3f, 0x10])));
});

function sequence(...values: number[]): Random {
  return { next: () => values.shift() ?? 0.5, uuid: () => '' };
}

test('the sticky partition stays until its batch is sealed and then is another one', () => {
  const sticky = new StickyPartition(sequence(0.5, 0, 0.99));
  expect([sticky.get(4), sticky.get(4)]).toEqual([2, 2]);
  sticky.onSealed(1, 4);
  expect(sticky.get(4)).toBe(2);
  sticky.onSealed(2, 4);
  expect(sticky.get(4)).toBe(3);
  sticky.onSealed(3, 4);
  expect(sticky.get(4)).toBe(2);
});

test('a partition that the topic does not have is refused', async () => {
  for (const partition of [-1, 3, 1.5, Number.NaN]) {
    await rejection(() => checkPartition(partition, 3, 't'), 'UNKNOWN_TOPIC_OR_PARTITION');
  }
});
