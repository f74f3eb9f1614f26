/** Records as lines: what `produce` reads and `consume` prints. */
import { describe, expect, test } from 'vitest';
import { formatJsonRecord, formatTime } from '../../src/cli/record-format.js';
import { linesParser, parseJsonRecord } from '../../src/cli/record-parser.js';

function parse(value: unknown): ReturnType<typeof parseJsonRecord> {
  return parseJsonRecord(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));
}

describe('lines', () => {
  test('without a separator the line is the value, byte for byte', () => {
    const line = Buffer.from([0xff, 0x3a, 0x00]);
    expect(linesParser(undefined)(line)).toEqual({ value: line });
  });

  test('the first separator divides key and value', () => {
    const record = linesParser('::')(Buffer.from('k::v::w'));
    expect(record?.key?.toString()).toBe('k');
    expect(record?.value?.toString()).toBe('v::w');
  });

  test('a line without the separator is refused', () => {
    expect(() => linesParser(':')(Buffer.from('kv'))).toThrow('does not contain the key separator ":"');
  });
});

describe('JSON input', () => {
  test('takes all fields', () => {
    const record = parse({
      key: 'k',
      value: 'v',
      headers: { a: 'x', n: null },
      timestamp: '2026-01-31T12:00:00Z',
      partition: 3,
    });
    expect(record).toEqual({
      key: Buffer.from('k'),
      value: Buffer.from('v'),
      headers: [
        { key: 'a', value: Buffer.from('x') },
        { key: 'n', value: null },
      ],
      timestampMs: Date.UTC(2026, 0, 31, 12),
      partition: 3,
    });
  });

  test('writes values that are no text as compact JSON, and null as null', () => {
    expect(parse('{"value": {"a": [1, 2]}}')?.value?.toString()).toBe('{"a":[1,2]}');
    expect(parse('{"value": 7}')?.value?.toString()).toBe('7');
    expect(parse('{"value": null}')?.value).toBeNull();
    expect(parse('{"value": ""}')?.value?.length).toBe(0);
  });

  test('skips blank lines', () => {
    expect(parse('  ')).toBeUndefined();
  });

  test.each([
    ['{bad', 'not JSON'],
    ['[1]', 'not a JSON object'],
    ['null', 'not a JSON object'],
    ['{"key":"k"}', 'no "value"'],
    ['{"value":"v","ts":1}', 'unknown field "ts"'],
    ['{"value":"v","timestamp":"yesterday"}', 'timestamp'],
    ['{"value":"v","timestamp":-1}', 'timestamp'],
    ['{"value":"v","partition":-1}', 'partition'],
    ['{"value":"v","partition":"1"}', 'partition'],
    ['{"valueBase64":"?"}', 'Base64'],
    ['{"value":"v","headers":"x"}', 'headers'],
    ['{"value":"v","headers":[{"value":"x"}]}', 'no "key"'],
  ])('refuses %s', (line, why) => {
    expect(() => parse(line)).toThrow(why);
  });

  test('refuses bytes that are not UTF-8', () => {
    expect(() => parseJsonRecord(Buffer.from([0x22, 0xff, 0x22]))).toThrow('not UTF-8');
  });
});

test('what is printed is taken back without loss', () => {
  const binary = Buffer.from([0, 0xff, 0xfe]);
  const record = {
    topic: 't',
    partition: 2,
    offset: 41,
    timestampMs: 1_700_000_000_123,
    key: binary,
    value: binary,
    headers: [
      { key: 'h', value: Buffer.from('one') },
      { key: 'h', value: binary },
      { key: 'n', value: null },
    ],
  };
  const { key, value, headers, timestampMs, partition } = record;
  const line = formatJsonRecord(record);
  expect(JSON.parse(line)).toMatchObject({
    topic: 't',
    partition: 2,
    offset: 41,
    timestamp: '2023-11-14T22:13:20.123Z',
  });
  expect(parse(line)).toEqual({ key, value, headers, timestampMs, partition });
  expect(parse(formatJsonRecord({ ...record, key: null, value: null }))).toMatchObject({ key: null, value: null });
});

test('a missing timestamp, and one beyond any calendar, is null', () => {
  expect(formatTime(-1)).toBeNull();
  expect(formatTime(Number.MAX_SAFE_INTEGER)).toBeNull();
  expect(formatTime(0)).toBe('1970-01-01T00:00:00.000Z');
});
