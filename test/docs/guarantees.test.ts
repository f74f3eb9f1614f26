/** Every promise in docs/guarantees.md names a test that exists. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const DOCS = fileURLToPath(new URL('../../docs', import.meta.url));
const text = readFileSync(path.join(DOCS, 'guarantees.md'), 'utf8');

/** A link to a test file and, behind it, one or more names in quotes. */
const CITATION = /\]\((\.\.\/test\/[^)]+\.test\.ts)\)((?:,? "[^"]+")+)/g;

const citations = [...text.matchAll(CITATION)].flatMap(([, file = '', names = '']) =>
  [...names.matchAll(/"([^"]+)"/g)].map(([, name = '']) => ({ file, name })),
);

/** Rows of the tables whose last column says which test shows it. */
const promises = text
  .split('\n\n')
  .filter((block) => /\| test \|\n/.test(block))
  .flatMap((block) => block.split('\n').slice(2))
  .filter((line) => line.startsWith('|'));

/** What stands in quotes in a source: names of tests, among others. */
const LITERAL = /(['"`])((?:\\.|(?!\1).)*)\1/g;

test('every promise names a test', () => {
  expect(promises.length).toBeGreaterThan(20);
  for (const line of promises) expect(line).toMatch(/\.test\.ts\)/);
  expect(citations.length).toBeGreaterThanOrEqual(promises.length);
});

test.each(citations)('$file has a test of the name "$name"', ({ file, name }) => {
  const source = path.join(DOCS, file);
  expect(existsSync(source)).toBe(true);
  const literals = [...readFileSync(source, 'utf8').matchAll(LITERAL)].map(([, , literal]) => literal);
  expect(literals.filter((literal) => literal?.includes(name))).not.toEqual([]);
});
