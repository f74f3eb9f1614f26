import { expect, test } from 'vitest';
import { addToSequence, MAX_SEQUENCE, nextSequence } from '../../../src/partition/producers/sequence.js';

test('sequences go on at 0 behind 2^31-1', () => {
  expect(nextSequence(-1)).toBe(0);
  expect(nextSequence(0)).toBe(1);
  expect(nextSequence(MAX_SEQUENCE)).toBe(0);
  expect(addToSequence(MAX_SEQUENCE, 0)).toBe(MAX_SEQUENCE);
  expect(addToSequence(MAX_SEQUENCE - 1, 1)).toBe(MAX_SEQUENCE);
  expect(addToSequence(MAX_SEQUENCE, 1)).toBe(0);
  expect(addToSequence(MAX_SEQUENCE, 2)).toBe(1);
  expect(addToSequence(MAX_SEQUENCE - 2, 5)).toBe(2);
  expect(addToSequence(MAX_SEQUENCE, MAX_SEQUENCE)).toBe(MAX_SEQUENCE - 1);
});
