import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MAX_TIMER_MS, systemClock } from '../../src/core/clock.js';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

test.each([MAX_TIMER_MS + 1, Number.POSITIVE_INFINITY])(
  'a timer of %d ms fires after 24 days, not at once',
  (delayMs) => {
    const fired = vi.fn();
    systemClock.setTimer(delayMs, fired);
    vi.advanceTimersByTime(MAX_TIMER_MS - 1);
    expect(fired).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(fired).toHaveBeenCalledOnce();
  },
);

test('nor does a sleep end at once', async () => {
  const woken = vi.fn();
  const sleep = systemClock.sleep(Number.POSITIVE_INFINITY).then(woken);
  await vi.advanceTimersByTimeAsync(MAX_TIMER_MS - 1);
  expect(woken).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  await sleep;
  expect(woken).toHaveBeenCalledOnce();
});
