import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { LogError } from '../../src/core/errors.js';
import { Semaphore } from '../../src/core/semaphore.js';
import { Flusher } from '../../src/storage/local/flusher.js';
import { reasonOf } from './support.js';

interface FailingOnce {
  readonly flusher: Flusher;
  /** Of the flush that was asked for while the pass that fails was under way. */
  readonly behind: () => Promise<void>;
  readonly passCount: () => number;
}

/** A flusher whose first pass fails, with another flush waiting behind it. */
function failingOnce(error: LogError): FailingOnce {
  let passCount = 0;
  let behind = Promise.resolve();
  const flusher = new Flusher(new Semaphore(1), async () => {
    if (++passCount > 1) return;
    await nextTurn();
    behind = flusher.flush();
    // It is awaited only later.
    behind.catch(() => undefined);
    await nextTurn();
    throw error;
  });
  return { flusher, behind: () => behind, passCount: () => passCount };
}

test('a flush that waits behind one without a file handle has a pass of its own, and so has each later one (invariant 20)', async () => {
  const { flusher, behind, passCount } = failingOnce(new LogError('RESOURCE_LIMIT', 'no file handle'));
  expect(await reasonOf(flusher.flush())).toBe('RESOURCE_LIMIT');
  await behind();
  await flusher.flush();
  expect(passCount()).toBe(3);
});

test('a flush that waits behind a failed sync fails, and nothing is synced any more (invariant 3)', async () => {
  const { flusher, behind, passCount } = failingOnce(new LogError('STORAGE_ERROR', 'the sync failed'));
  expect(await reasonOf(flusher.flush())).toBe('STORAGE_ERROR');
  expect(await reasonOf(behind())).toBe('STORAGE_ERROR');
  expect(await reasonOf(flusher.flush())).toBe('STORAGE_ERROR');
  expect(passCount()).toBe(1);
});
