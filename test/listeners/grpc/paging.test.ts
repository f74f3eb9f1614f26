import { describe, expect, test } from 'vitest';
import { pageByName, pageByNumber } from '../../../src/listeners/grpc/paging.js';
import { rejection } from '../../support/rejection.js';

/** 0 to count - 1, each once, in an order of its own. */
function scattered(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * 7919) % count);
}

describe('pages', () => {
  test.each([
    [1, 40],
    [7, 700],
    [1000, 20_000],
    [10_000, 20_000],
  ])('of %i of %i items in any order tell each of them once and in order', (pageSize, count) => {
    const ascending = Array.from({ length: count }, (_, i) => i);
    for (const items of [scattered(count), ascending, ascending.toReversed()]) {
      const told: number[] = [];
      let pageToken = '';
      do {
        const page = pageByNumber(items, (item) => item, { pageSize, pageToken });
        expect(page.items.length).toBe(Math.min(pageSize, items.length - told.length));
        told.push(...page.items);
        pageToken = page.nextPageToken;
      } while (pageToken !== '');
      expect(told).toEqual(ascending);
    }
  });

  test('by name go on behind the last name, whatever has come or gone meanwhile', () => {
    const first = pageByName(['d', 'b', 'c', 'a'], (name) => name, { pageSize: 2, pageToken: '' });
    expect(first.items).toEqual(['a', 'b']);
    const rest = pageByName(['bb', 'd', 'a'], (name) => name, { pageSize: 2, pageToken: first.nextPageToken });
    expect(rest).toEqual({ items: ['bb', 'd'], nextPageToken: '' });
  });

  test('of a size that cannot be, or behind a token of something else, are refused', async () => {
    await rejection(() => pageByName(['a'], (name) => name, { pageSize: -1, pageToken: '' }), 'INVALID_REQUEST');
    await rejection(() => pageByNumber([1], (item) => item, { pageSize: 0, pageToken: 'YWJj' }), 'INVALID_REQUEST');
  });
});
