import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Turnstile } from '../../src/core/turnstile.js';

test('a turnstile lets so many through in one turn of the event loop, in order, and all in the end', async () => {
  const turnstile = new Turnstile(10);
  const passed: number[] = [];
  let isDone = false;
  const all = Promise.all(
    Array.from({ length: 95 }, async (_, i) => {
      await turnstile.pass();
      passed.push(i);
    }),
  ).then(() => {
    isDone = true;
  });
  let before = 0;
  for (let turn = 0; turn < 1000 && !isDone; turn++) {
    await nextTurn();
    expect(passed.length - before).toBeLessThanOrEqual(20);
    before = passed.length;
  }
  await all;
  expect(passed).toEqual(Array.from({ length: 95 }, (_, i) => i));
});

test('a turnstile holds up nobody who comes alone', async () => {
  const turnstile = new Turnstile(1);
  let turns = 0;
  const count = setImmediate(() => turns++);
  await turnstile.pass();
  expect(turns).toBe(0);
  clearImmediate(count);
});
