import { expect, test } from 'vitest';
import { ByteBudget } from '../../src/core/byte-budget.js';

test('a charge counts at every level, and the innermost level without room is named', () => {
  const total = new ByteBudget(100);
  const connection = new ByteBudget(80, total);
  const stream = new ByteBudget(50, connection);
  const other = new ByteBudget(50, total);
  stream.charge(40);
  expect(stream.exhausted).toBeUndefined();
  stream.charge(20);
  expect(stream.exhausted).toBe(stream);
  other.charge(40);
  expect(other.exhausted).toBe(total);
  stream.release(60);
  expect(stream.exhausted).toBeUndefined();
  expect(total.usedBytes).toBe(40);
});

test('who waits is called once, when there is room again', () => {
  const budget = new ByteBudget(10);
  let calls = 0;
  budget.charge(25);
  budget.whenBelow(() => calls++);
  budget.release(10);
  expect(calls).toBe(0);
  budget.release(10);
  budget.release(5);
  expect(calls).toBe(1);
});

test('who gives up waiting is not called, and not kept', () => {
  const budget = new ByteBudget(10);
  let calls = 0;
  budget.charge(25);
  const giveUp = budget.whenBelow(() => calls++);
  expect(budget.waitingCount).toBe(1);
  giveUp();
  expect(budget.waitingCount).toBe(0);
  budget.release(25);
  expect(calls).toBe(0);
});
