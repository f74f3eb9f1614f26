import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 2;

/** Waits until `condition` holds; fails with `what` after `limitMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  limitMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited ${limitMs} ms in vain until ${what}`);
    await sleep(POLL_MS);
  }
}
