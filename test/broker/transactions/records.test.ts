import { describe, expect, test } from 'vitest';
import { decodeTransaction, encodeTransaction } from '../../../src/broker/transactions/records.js';
import type { StoredTransaction } from '../../../src/broker/transactions/transaction-types.js';
import { id, TOPIC } from './machine.js';

const OTHER = '00000000-0000-4000-8000-000000000002';

const FULL: StoredTransaction = {
  status: 'prepare-abort',
  identity: id(5, 32_766),
  previous: id(5, 32_765),
  next: id(9, 0),
  cause: 'timeout',
  timeoutMs: 60_000,
  startMs: 1,
  updateMs: 2,
  partitions: [
    { topic: 't', topicId: TOPIC, partition: 0 },
    { topic: 't', topicId: TOPIC, partition: 7 },
    { topic: 'u', topicId: OTHER, partition: 1 },
  ],
  groupIds: ['g', 'h'],
};

const LEAST: StoredTransaction = {
  status: 'empty',
  identity: id(0, 0),
  previous: undefined,
  next: undefined,
  cause: undefined,
  timeoutMs: 1,
  startMs: undefined,
  updateMs: 0,
  partitions: [],
  groupIds: [],
};

/** `value` as the log would have it, with some of it changed. */
function changed(value: object): Buffer {
  const { value: bytes } = encodeTransaction('x', LEAST);
  return Buffer.from(JSON.stringify({ ...JSON.parse(bytes!.toString()), ...value }));
}

describe('records of transactional ids', () => {
  test.each([
    ['with everything', FULL],
    ['with the least', LEAST],
  ])('come back as they were, %s', (_, stored) => {
    const { key, value } = encodeTransaction('billing "1" ü', stored);
    expect(decodeTransaction(key, value)).toEqual({ transactionalId: 'billing "1" ü', value: stored });
  });

  test('are laid out as documented', () => {
    const { key, value } = encodeTransaction('x', FULL);
    expect(key.toString()).toBe('["transaction","x"]');
    expect(JSON.parse(value!.toString())).toEqual({
      v: 1,
      status: 'prepare-abort',
      identity: [5, 32_766],
      previous: [5, 32_765],
      next: [9, 0],
      cause: 'timeout',
      timeoutMs: 60_000,
      startMs: 1,
      updateMs: 2,
      topics: [
        ['t', TOPIC, [0, 7]],
        ['u', OTHER, [1]],
      ],
      groups: ['g', 'h'],
    });
  });

  test('a tombstone removes', () => {
    const { key, value } = encodeTransaction('x', undefined);
    expect(value).toBeNull();
    expect(decodeTransaction(key, value)).toEqual({ transactionalId: 'x', value: undefined });
  });

  test('those of another kind or a newer version are left alone', () => {
    const { key } = encodeTransaction('x', LEAST);
    expect(decodeTransaction(Buffer.from('["lease",1]'), null)).toBe('unknown');
    expect(decodeTransaction(key, Buffer.from('{"v":2}'))).toBe('unknown');
  });

  test.each<[string, Buffer, Buffer | null]>([
    ['a key that is not JSON', Buffer.from('x'), null],
    ['a key without a kind', Buffer.from('{}'), null],
    ['a key without an id', Buffer.from('["transaction"]'), null],
    ['a value that is not JSON', encodeTransaction('x', LEAST).key, Buffer.from('{')],
    ['a value without a version', encodeTransaction('x', LEAST).key, Buffer.from('{}')],
    ['a status that does not exist', encodeTransaction('x', LEAST).key, changed({ status: 'ongoing' })],
    ['an epoch that cannot be', encodeTransaction('x', LEAST).key, changed({ identity: [1, 40_000] })],
    ['a topic id that is none', encodeTransaction('x', LEAST).key, changed({ topics: [['t', 'x', [0]]] })],
    [
      'a decision without what comes after it',
      encodeTransaction('x', LEAST).key,
      changed({ status: 'prepare-commit' }),
    ],
    ['what comes after a decision that is not there', encodeTransaction('x', LEAST).key, changed({ next: [1, 1] })],
  ])('%s is refused', (_, key, value) => {
    expect(() => decodeTransaction(key, value)).toThrow(/.+/);
  });
});
