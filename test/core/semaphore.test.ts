import { expect, test } from 'vitest';
import { forEachLimit, Semaphore } from '../../src/core/semaphore.js';

test('at most the limit runs at once, in order of arrival', async () => {
  const semaphore = new Semaphore(2);
  let running = 0;
  let most = 0;
  const order: number[] = [];
  const work = (index: number) => async (): Promise<void> => {
    order.push(index);
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
  };
  await Promise.all([0, 1, 2, 3, 4].map((index) => semaphore.run(work(index))));
  expect(most).toBe(2);
  expect(order).toEqual([0, 1, 2, 3, 4]);
});

test('a failure frees its place and is reported after all have settled', async () => {
  const done: number[] = [];
  const failing = forEachLimit([1, 2, 3], 1, async (item) => {
    if (item === 1) throw new Error('one');
    done.push(item);
  });
  await expect(failing).rejects.toThrow('one');
  expect(done).toEqual([2, 3]);
});
