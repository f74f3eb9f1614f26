import { describe, expect, test } from 'vitest';
import { GrowingMap } from '../../../src/broker/transactions/growing-map.js';

function contents(map: GrowingMap<number>): number[] {
  return [...map.values()];
}

describe('a map that only grows', () => {
  test('another one that grows out of it does not change it', () => {
    const one = GrowingMap.empty<number>().with('a', 1);
    const two = one.with('b', 2);
    const other = one.with('c', 3);
    const three = two.with('c', 4);
    expect([one, two, other, three].map(contents)).toEqual([[1], [1, 2], [1, 3], [1, 2, 4]]);
    expect([one.has('b'), two.has('b'), other.has('b'), other.has('c'), two.has('c')]).toEqual([
      false,
      true,
      false,
      true,
      false,
    ]);
    expect(three.with('a', 9)).toBe(three);
  });

  test('grows to 100,000 in a fraction of a second', () => {
    const begin = performance.now();
    let map = GrowingMap.empty<number>();
    for (let i = 0; i < 100_000; i++) map = map.with(`${i}`, i);
    expect(map.size).toBe(100_000);
    expect(performance.now() - begin).toBeLessThan(2000);
  });
});
