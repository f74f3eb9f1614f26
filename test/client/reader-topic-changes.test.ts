/** What readers do when a topic gets more partitions, or is deleted and created anew. */
import { expect, test } from 'vitest';
import type { ReadOptions } from '../../src/client/read-options.js';
import { LogError } from '../../src/core/errors.js';
import { until } from '../support/until.js';
import { follow, MAX_AGE_MS, start, words } from './support/changing-topic.js';

test.each<[string, ReadOptions]>([
  ['the earliest', {}],
  ['the latest', { from: 'latest' }],
  ['an offset', { from: 1 }],
  ['a time', { from: new Date(2_000) }],
])('a reader that follows from %s reads added partitions from their beginning', async (_, from) => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'old', timestampMs: 1_000, partition: 0 });
  const reading = follow(t.client, { ...from, maxBufferedBytes: 1_000, fetchBytes: 100 });
  await until(() => t.broker.fetchesOpen === 1, 'the stream is open');
  t.broker.addPartitions('words', 3);
  await t.producer.send(words, { value: 'p1-0', timestampMs: 1_000, partition: 1 });
  await t.producer.send(words, { value: 'p2-0', timestampMs: 1_000, partition: 2 });
  t.clock.skip(MAX_AGE_MS);
  await until(() => reading.seen.includes('p1-0') && reading.seen.includes('p2-0'), 'added partitions are read');
  for (const partition of [0, 1, 2]) await t.producer.send(words, { value: `p${partition}-1`, partition });
  await until(() => ['p0-1', 'p1-1', 'p2-1'].every((value) => reading.seen.includes(value)), 'all are followed');
  expect(new Set(reading.seen).size).toBe(reading.seen.length);
  await until(() => t.broker.fetchesOpen === 1, 'one stream reads them all');
  await reading.stop();
  expect(t.clock.timerCount).toBe(0);
});

test('records that expired in an added partition before it was noticed are passed over', async () => {
  await using t = await start(1);
  const reading = follow(t.client);
  await until(() => t.broker.fetchesOpen === 1, 'the stream is open');
  t.broker.addPartitions('words', 2);
  for (const value of ['gone', 'kept']) await t.producer.send(words, { value, partition: 1 });
  t.broker.partition('words', 1).startOffset = 1;
  t.clock.skip(MAX_AGE_MS);
  await until(() => reading.seen.length === 1, 'what is left is read');
  expect(reading.seen).toEqual(['kept']);
  await reading.stop();
});

test('partitions are added to a busy reader without losing or repeating a record', async () => {
  await using t = await start(2, { batchBytes: 60 });
  const reading = follow(t.client, { maxBufferedBytes: 500, fetchBytes: 100 });
  const sent: string[] = [];
  let partitions = 2;
  for (let i = 0; i < 300; i++) {
    if (i % 100 === 50) {
      t.broker.addPartitions('words', ++partitions);
      t.clock.skip(MAX_AGE_MS);
    }
    sent.push(`w${i}`);
    await t.producer.send(words, { value: `w${i}`, partition: i % partitions });
  }
  await until(() => reading.seen.length >= sent.length, 'all was read');
  expect([...reading.seen].sort()).toEqual([...sent].sort());
  for (let partition = 0; partition < partitions; partition++) {
    const log = await t.broker.partition('words', partition).values();
    const mine = new Set(log);
    expect(reading.seen.filter((value) => mine.has(value))).toEqual(log);
  }
  await reading.stop();
});

test('an added partition is found although a lookup failed before', async () => {
  await using t = await start(1, {}, { requestTimeoutMs: 50 });
  const reading = follow(t.client);
  await until(() => t.broker.fetchesOpen === 1, 'the stream is open');
  t.broker.addPartitions('words', 2);
  await t.producer.send(words, { value: 'new', partition: 1 });
  let failed = false;
  t.broker.onUnary = () => {
    failed = true;
    return new LogError('STORAGE_ERROR', 'not now');
  };
  t.clock.skip(MAX_AGE_MS);
  await until(() => failed, 'the lookup failed');
  t.broker.onUnary = () => undefined;
  await until(() => t.clock.timerCount > 0, 'the next lookup is due some time');
  await until(() => {
    t.clock.skip(MAX_AGE_MS);
    return reading.seen.length > 0;
  }, 'the partition is read');
  await reading.stop();
});

test.each<[string, ReadOptions]>([
  ['has an end', { to: 'end' }],
  ['names its partitions', { partitions: [0] }],
  ['has an offset for each partition', { from: { 0: 0 } }],
])('a reading that %s does not look for partitions', async (_, options) => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'a' });
  const iterator = t.client.read(words, options)[Symbol.asyncIterator]();
  expect((await iterator.next()).value.value).toBe('a');
  const lookups = t.lookups();
  t.broker.addPartitions('words', 2);
  t.clock.skip(MAX_AGE_MS);
  await t.client.admin.describeCluster();
  expect(t.lookups()).toBe(lookups);
  await iterator.return?.();
});

test('a reader looks nothing up before it is iterated over nor after', async () => {
  await using t = await start(1);
  const reader = t.client.read(words);
  expect(t.clock.timerCount).toBe(0);
  const iterator = reader[Symbol.asyncIterator]();
  const waiting = iterator.next();
  await until(() => t.broker.fetchesOpen === 1, 'the stream is open');
  await iterator.return?.();
  expect((await waiting).done).toBe(true);
  expect(t.clock.timerCount).toBe(0);
});

test('a recreated topic is not mixed into what is read of the old one', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'old' });
  const reading = follow(t.client);
  await until(() => reading.seen.length === 1, 'the old record was read');
  t.broker.recreate('words', 3);
  await t.producer.close();
  await using producer = t.client.producer();
  const lookups = t.lookups();
  t.clock.skip(MAX_AGE_MS);
  await until(() => t.lookups() > lookups, 'the topic is looked up');
  const { partition } = await producer.send(words, { value: 'new' });
  expect(partition).toBeLessThan(3);
  expect((await reading.ended)?.reason).toBe('UNKNOWN_TOPIC_ID');
  expect(reading.seen).toEqual(['old']);
});
