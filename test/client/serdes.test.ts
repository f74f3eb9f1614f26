import { expect, test } from 'vitest';
import {
  bytes,
  deserializeKey,
  deserializeValue,
  json,
  nullable,
  Scratch,
  serializeKey,
  serializeValue,
  string,
  topic,
} from '../../src/client/serdes.js';
import { rejection } from '../support/rejection.js';

const AT = { partition: 3, offset: 42 };

test.each([
  '',
  'a',
  'key-17',
  'ä',
  'x'.repeat(24),
  'x'.repeat(25),
  '日本語',
  '😀'.repeat(2_000),
  'y'.repeat(20_000),
  `${'a'.repeat(23)}ß`,
])('a string comes back as it was (%#)', (text) => {
  const scratch = new Scratch();
  const written = Buffer.from(string().serialize(text, scratch) ?? []);
  expect(written).toEqual(Buffer.from(text, 'utf8'));
  expect(string().deserialize(written)).toBe(text);
});

test('the scratch memory of one string is not seen in the next', () => {
  const scratch = new Scratch();
  const lengths = ['abcdef', 'x', 'öö', 'abc'].map((text) => Buffer.from(scratch.utf8(text)).toString());
  expect(lengths).toEqual(['abcdef', 'x', 'öö', 'abc']);
});

test('JSON refuses what has no JSON form, naming the topic', async () => {
  const orders = topic('orders', { value: json() });
  const error = await rejection(() => serializeValue(orders, undefined, new Scratch()), 'INVALID_RECORD');
  expect(error.message).toContain('orders');
  const cyclic: { self?: object } = {};
  cyclic.self = cyclic;
  await rejection(() => serializeValue(orders, cyclic, new Scratch()), 'INVALID_RECORD');
});

test('bytes that a serde refuses are reported with their position', async () => {
  const orders = topic('orders', { value: json() });
  const error = await rejection(() => deserializeValue(orders, Buffer.from('{'), AT), 'INVALID_RECORD');
  expect(error.metadata).toEqual({ topic: 'orders', partition: '3', offset: '42' });
});

test('null values need a serde that allows them', async () => {
  const plain = topic('t', { value: string() });
  await rejection(() => serializeValue(plain, null as never, new Scratch()), 'INVALID_RECORD');
  await rejection(() => deserializeValue(plain, null, AT), 'INVALID_RECORD');
  const loose = topic('t', { value: nullable(string()) });
  expect(serializeValue(loose, null, new Scratch())).toBeNull();
  expect(deserializeValue(loose, null, AT)).toBeNull();
  expect(deserializeValue(loose, Buffer.from('x'), AT)).toBe('x');
});

test('a serde of the wrong type refuses instead of writing nonsense', async () => {
  const scratch = new Scratch();
  await rejection(() => serializeValue(topic('t', { value: bytes() }), 'x' as never, scratch), 'INVALID_RECORD');
  await rejection(() => serializeKey(topic('t'), 5 as never, scratch), 'INVALID_RECORD');
});

test('without serdes, keys are strings and values are bytes or null', () => {
  const plain = topic('t');
  expect(serializeKey(plain, undefined, new Scratch())).toBeNull();
  expect(deserializeKey(plain, Buffer.from('k'), AT)).toBe('k');
  expect(deserializeKey(plain, null, AT)).toBeNull();
  expect(deserializeValue(plain, Buffer.from('v'), AT)?.toString()).toBe('v');
  expect(deserializeValue(plain, null, AT)).toBeNull();
});
