/** Input of `tidelog produce`: lines of any length in pieces of any size. */
import { expect, test } from 'vitest';
import { LineSplitter, MAX_LINE_BYTES } from '../../src/cli/input.js';

/** Lines of a text that arrives in pieces of `size` bytes, all in the same memory, as a reader reuses it. */
function split(text: string, size: number): string[] {
  const lines = new LineSplitter();
  const found: string[] = [];
  const memory = Buffer.alloc(size);
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) {
    const length = bytes.copy(memory, 0, at);
    for (const line of lines.split(memory.subarray(0, length))) found.push(line.toString());
  }
  for (const line of lines.end()) found.push(line.toString());
  expect(lines.lineNumber).toBe(found.length);
  return found;
}

test.each([1, 2, 3, 5, 8, 100])('lines come out whole when the input arrives in pieces of %i bytes', (size) => {
  expect(split('one\n\ntwo\r\nthrée\n', size)).toEqual(['one', '', 'two', 'thrée']);
  expect(split('no line feed at the end', size)).toEqual(['no line feed at the end']);
  expect(split('', size)).toEqual([]);
  expect(split('\n', size)).toEqual(['']);
});

test('a line beyond the limit is refused before it is held in memory', () => {
  const lines = new LineSplitter();
  const piece = Buffer.alloc(MAX_LINE_BYTES / 4);
  const feed = (): void => {
    for (let i = 0; i < 5; i++) for (const _ of lines.split(piece)) throw new Error('there is no line');
  };
  expect(feed).toThrow(/line 1 is longer than 67108864 bytes/);
});
