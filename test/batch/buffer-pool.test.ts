import { expect, test } from 'vitest';
import { BufferPool } from '../../src/batch/buffer-pool.js';

test('a buffer that was given back is handed out again, whole', () => {
  const pool = new BufferPool(1000, 10_000);
  const first = pool.take(800);
  expect(first.length).toBe(1000);
  pool.giveBack(first.subarray(0, 700));
  const again = pool.take(1000);
  expect(again.buffer).toBe(first.buffer);
  expect(again.length).toBe(1000);
  expect(pool.take(1000).buffer).not.toBe(first.buffer);
});

test('sizes that do not fit the pool are made apart', () => {
  const pool = new BufferPool(1000, 10_000);
  expect(pool.take(1001).length).toBe(1001);
  expect(pool.take(10).length).toBe(10);
});

test('memory of others is never handed out, not even of the same size', () => {
  const pool = new BufferPool(Buffer.poolSize, 10 * Buffer.poolSize);
  const shared = Buffer.from('a small buffer lies in memory that others share');
  expect(shared.buffer.byteLength).toBe(Buffer.poolSize);
  pool.giveBack(shared);
  expect(pool.take(Buffer.poolSize).buffer).not.toBe(shared.buffer);
});

test('no more is kept than allowed', () => {
  const pool = new BufferPool(1000, 2000);
  const taken = [pool.take(1000), pool.take(1000), pool.take(1000)];
  for (const buffer of taken) pool.giveBack(buffer);
  const kept = [pool.take(1000), pool.take(1000), pool.take(1000)].filter((buffer) =>
    taken.some((before) => before.buffer === buffer.buffer),
  );
  expect(kept).toHaveLength(2);
});
