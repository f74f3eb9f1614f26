/** What producers do when a topic gets more partitions, or is deleted and created anew. */
import { expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { connect } from '../../src/client/client.js';
import type { SendResult } from '../../src/client/completions.js';
import { keyPartitioner } from '../../src/client/partitioner.js';
import { LogError } from '../../src/core/errors.js';
import { Programme } from '../support/programme.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { count, follow, keyFor, MAX_AGE_MS, REQUEST_TIMEOUT_MS, start, words } from './support/changing-topic.js';
import { collect } from './support/collect.js';

test.each(['send', 'sendMany'] as const)(
  'a producer that keeps using %s goes by the new partition count',
  async (call) => {
    await using t = await start(2);
    const key = keyFor(3, 4);
    const before = keyPartitioner(Buffer.from(key), 2, 'words');
    const send = async (record: { key?: string; value: string }): Promise<number | undefined> =>
      call === 'send'
        ? (await t.producer.send(words, record)).partition
        : (await t.producer.sendMany(words, [record])).partitions[0]?.partition;
    expect(await send({ key, value: 'a' })).toBe(before);
    t.broker.addPartitions('words', 4);
    t.clock.skip(MAX_AGE_MS * 0.7);
    expect(await send({ key, value: 'b' })).toBe(before);
    expect(t.lookups()).toBe(1);
    t.clock.skip(MAX_AGE_MS * 0.2);
    // In steady use the lookup runs beside the records: none of them waits for it.
    await until(async () => (await send({ key, value: 'c' })) === 3, 'the key has moved');
    const unkeyed = new Set<number | undefined>();
    await until(
      async () => unkeyed.add(await send({ value: 'x' })).size === 4,
      'all partitions are used without a key',
    );
    expect(t.lookups()).toBe(2);
  },
);

test.each(['send', 'sendMany', 'sendMany of an async iterable'] as const)(
  'after a long pause the first record of %s waits for the new partition count',
  async (call) => {
    await using t = await start(2);
    const key = keyFor(3, 4);
    await t.producer.send(words, { key, value: 'a' });
    t.broker.addPartitions('words', 4);
    t.clock.skip(MAX_AGE_MS);
    if (call === 'send') await t.producer.send(words, { key, value: 'b' });
    else if (call === 'sendMany') await t.producer.sendMany(words, [{ key, value: 'b' }]);
    else {
      await t.producer.sendMany(
        words,
        (async function* () {
          yield { key, value: 'b' };
        })(),
      );
    }
    expect(await t.broker.partition('words', 3).values()).toEqual(['b']);
  },
);

test('records that wait for an aged description keep the order of their calls', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'first' });
  t.clock.skip(MAX_AGE_MS);
  await Promise.all(['a', 'b', 'c'].map((value) => t.producer.send(words, { value })));
  expect(await t.broker.partition('words').values()).toEqual(['first', 'a', 'b', 'c']);
  expect(t.lookups()).toBe(2);
});

test('an aged description goes on serving while no lookup succeeds', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'a' });
  t.broker.onUnary = (method) => (method === 'GetTopic' ? new LogError('BROKER_DRAINING', 'later') : undefined);
  t.clock.skip(MAX_AGE_MS);
  const sent = t.producer.send(words, { value: 'b' });
  await until(() => t.lookups() > 1, 'a lookup fails');
  t.clock.skip(REQUEST_TIMEOUT_MS);
  expect((await sent).offset).toBe(1);
});

test('lookups in the background that fail are repeated once a second at most', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'a' });
  t.broker.onUnary = (method) => (method === 'GetTopic' ? new LogError('STORAGE_ERROR', 'not now') : undefined);
  t.clock.skip(MAX_AGE_MS * 0.9);
  await until(async () => {
    await t.producer.send(words, { value: 'b' });
    return t.lookups() > 1;
  }, 'a lookup fails');
  t.broker.onUnary = () => undefined;
  for (let i = 0; i < 3; i++) await t.producer.send(words, { value: 'c' });
  expect(t.lookups()).toBe(2);
  t.clock.skip(1_000);
  await until(async () => {
    await t.producer.send(words, { value: 'd' });
    return t.lookups() > 2;
  }, 'the lookup is repeated');
});

test('the age is an option, in ms', async () => {
  await using t = await start(1, {}, { metadataMaxAgeMs: 2_000 });
  await t.producer.send(words, { value: 'a' });
  t.clock.skip(2_000);
  await t.producer.send(words, { value: 'b' });
  expect(t.lookups()).toBe(2);
  await rejection(connect(t.broker.address, { metadataMaxAgeMs: 999 }), 'INVALID_CONFIG');
});

test('a record that names an added partition finds it at once, and calls keep their order', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'first' });
  t.broker.addPartitions('words', 3);
  const sent = await Promise.all([
    t.producer.send(words, { value: 'a', partition: 0 }),
    t.producer.send(words, { value: 'b', partition: 2 }),
    t.producer.send(words, { value: 'c', partition: 0 }),
    t.producer.send(words, { value: 'd', partition: 2 }),
  ]);
  expect(sent.map(({ partition, offset }) => [partition, offset])).toEqual([
    [0, 1],
    [2, 0],
    [0, 2],
    [2, 1],
  ]);
  expect(t.lookups()).toBe(2);
});

test('a producer whose first record names a partition added since others looked finds it, and calls keep their order', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'known' });
  t.broker.addPartitions('words', 2);
  await using second = t.client.producer({ lingerMs: 0 });
  const sends = ['a', 'b', 'c', 'd'].map((value) => second.send(words, { value, partition: 1 }));
  const others = ['x', 'y'].map((value) => second.send(words, { value, partition: 0 }));
  await second.flush();
  await Promise.all([...sends, ...others]);
  expect(await t.broker.partition('words', 1).values()).toEqual(['a', 'b', 'c', 'd']);
  expect(await t.broker.partition('words', 0).values()).toEqual(['known', 'x', 'y']);
  expect(t.lookups()).toBe(2);
});

test('sendMany finds added partitions too', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'first' });
  t.broker.addPartitions('words', 2);
  const records = [
    { value: 'a', partition: 0 },
    { value: 'b', partition: 1 },
    { value: 'c', partition: 1 },
  ];
  const { partitions } = await t.producer.sendMany(words, records);
  expect(partitions.map((range) => range.count)).toEqual([1, 2]);
});

test('a partition that does not exist is asked for once a second at most, and disturbs nobody', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'first' });
  const results = await Promise.allSettled(
    [0, 7, 0, 7, 0].map((partition, i) => t.producer.send(words, { value: `w${i}`, partition })),
  );
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled']);
  await rejection(t.producer.send(words, { value: 'x', partition: 7 }), 'UNKNOWN_TOPIC_OR_PARTITION');
  await rejection(t.producer.send(words, { value: 'x', partition: -1 }), 'UNKNOWN_TOPIC_OR_PARTITION');
  expect(t.lookups()).toBe(2);
  expect(await t.broker.partition('words').values()).toEqual(['first', 'w0', 'w2', 'w4']);
  t.clock.skip(1_000);
  t.broker.addPartitions('words', 8);
  expect((await t.producer.send(words, { value: 'y', partition: 7 })).partition).toBe(7);
  expect(t.lookups()).toBe(3);
});

test('records sent after a topic was recreated go to the new one, in order', async () => {
  await using t = await start(2, { batchBytes: 1, maxInFlight: 5 });
  await t.producer.send(words, { value: 'old', partition: 0 });
  t.broker.recreate('words', 2);
  const values = Array.from({ length: 20 }, (_, i) => `w${i}`);
  await Promise.all(values.map((value, i) => t.producer.send(words, { value, partition: i % 2 })));
  expect(await t.broker.partition('words', 0).values()).toEqual(values.filter((_, i) => i % 2 === 0));
  expect(await t.broker.partition('words', 1).values()).toEqual(values.filter((_, i) => i % 2 === 1));
  expect(t.lookups()).toBe(2);
});

test('records placed by the old number of partitions fail clearly, and the next go by the new one', async () => {
  await using t = await start(2);
  await t.producer.send(words, { value: 'old' });
  t.broker.recreate('words', 4);
  const key = keyFor(3, 4);
  const error = await rejection(t.producer.send(words, { key, value: 'a' }), 'UNKNOWN_TOPIC_ID');
  expect(error.outcome).toBe('none');
  expect(error.message).toContain('4 partitions now, not 2');
  expect((await t.producer.send(words, { key, value: 'b' })).partition).toBe(3);
  expect([0, 1, 2, 3].map((partition) => count(t.broker, partition))).toEqual([0, 0, 0, 1]);
});

test('a record that may be in the old topic fails with its outcome unknown; those behind it go to the new one', async () => {
  await using t = await start(1, { batchBytes: 1, maxInFlight: 1 });
  await t.producer.send(words, { value: 'old' });
  let cut = false;
  t.broker.onProduce = () => {
    if (cut) return undefined;
    cut = true;
    // Deleted and created anew between the append, whose answer is lost, and its repetition.
    setImmediate(() => t.broker.recreate('words'));
    return { kind: 'cut after append' };
  };
  const [first, second] = await Promise.allSettled([
    t.producer.send(words, { value: 'perhaps' }),
    t.producer.send(words, { value: 'behind' }),
  ]);
  expect(first).toMatchObject({ status: 'rejected', reason: { reason: 'UNKNOWN_TOPIC_ID', outcome: 'unknown' } });
  expect(second).toMatchObject({ status: 'fulfilled', value: { offset: 0 } });
  expect(await t.broker.partition('words').values()).toEqual(['behind']);
});

test('through random faults, increases and recreations no record is in two topics and order holds (invariants 5, 6)', async (context) => {
  const programme = new Programme(context);
  const { random } = programme;
  await using t = await start(2, { batchBytes: 100, maxInFlight: 4 });
  const topics = [t.broker.topics.get('words')];
  let partitions = 2;
  t.broker.onProduce = () => {
    const dice = random();
    if (dice < 0.02) return { kind: 'cut' };
    if (dice < 0.04) return { kind: 'cut after append' };
    if (dice < 0.08) return { kind: 'error', error: new LogError('BROKER_DRAINING', 'dice') };
    if (dice < 0.1) {
      setImmediate(() => {
        t.broker.recreate('words', partitions);
        topics.push(t.broker.topics.get('words'));
      });
    } else if (dice < 0.11 && partitions < 6) setImmediate(() => t.broker.addPartitions('words', ++partitions));
    return undefined;
  };
  const values = Array.from({ length: 1_000 }, (_, i) => `w${i}`);
  const sends: Promise<SendResult>[] = [];
  for (const [i, value] of values.entries()) {
    const partition = Math.floor(random() * partitions);
    const sent = t.producer.send(words, { value, partition });
    sent.catch(() => {}); // counted below
    sends.push(sent);
    if (i % 50 === 49) await Promise.allSettled(sends);
  }
  const results = await Promise.allSettled(sends);
  programme.tried('sends', results.length);
  const homes = new Map<string, number>();
  const logs = new Map<string, string[]>();
  for (const [home, made] of topics.entries()) {
    for (const [partition, log] of (made?.partitions ?? []).entries()) {
      const all = await log.values();
      logs.set(`${home}/${partition}`, all);
      expect(all).toEqual([...new Set(all)].toSorted((a, b) => values.indexOf(a) - values.indexOf(b)));
      for (const value of all) {
        expect(homes.get(value) ?? home, value).toBe(home);
        homes.set(value, home);
      }
    }
  }
  for (const [i, result] of results.entries()) {
    const value = values[i] ?? '';
    const home = homes.get(value);
    if (result.status === 'fulfilled') {
      const { partition, offset } = result.value;
      expect(logs.get(`${home}/${partition}`)?.[offset]).toBe(value);
    } else if (result.reason.outcome === 'none') expect(home, value).toBeUndefined();
  }
  expect(results.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(100);
});

test('records for a topic that stays deleted fail, saying so', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'old' });
  t.broker.onProduce = () => {
    t.broker.topics.delete('words');
    return { kind: 'error', error: new LogError('UNKNOWN_TOPIC_ID', 'deleted', { metadata: { topic: 'words' } }) };
  };
  const error = await rejection(t.producer.send(words, { value: 'lost' }), 'UNKNOWN_TOPIC_OR_PARTITION');
  expect(error.message).toContain('does not exist');
  expect(error.outcome).toBe('none');
});

test('a recreated topic is found when the first lookups fail', async () => {
  await using t = await start(1);
  await t.producer.send(words, { value: 'old' });
  t.broker.recreate('words');
  let fails = true;
  t.broker.onUnary = () => (fails ? new LogError('STORAGE_ERROR', 'not now') : undefined);
  const sent = t.producer.send(words, { value: 'new' });
  await until(() => t.lookups() > 1, 'a lookup fails');
  const failed = t.lookups();
  await until(() => t.lookups() > failed, 'it is looked up again');
  fails = false;
  expect((await sent).offset).toBe(0);
});

test('a real broker takes records for a recreated topic from a producer that knew the old one', async () => {
  await using broker = await startBroker({ storage: 'memory' });
  await using client = await connect(broker.address);
  await client.admin.createTopic({ name: 'words', partitions: 2 });
  await using producer = client.producer({ lingerMs: 0 });
  await producer.send(words, { value: 'old', partition: 1 });
  const reading = follow(client);
  await until(() => reading.seen.length === 1, 'the old record was read');
  await client.admin.deleteTopic('words');
  await client.admin.createTopic({ name: 'words', partitions: 2 });
  expect((await producer.send(words, { value: 'new', partition: 1 })).offset).toBe(0);
  expect((await collect(client.read(words, { to: 'end' }))).map(({ value }) => value)).toEqual(['new']);
  expect((await reading.ended)?.reason).toBe('UNKNOWN_TOPIC_ID');
  expect(reading.seen).toEqual(['old']);
});

test('with acks none a recreated topic is found after the first failure', async () => {
  await using t = await start(1, { acks: 'none', batchBytes: 1 });
  await t.producer.send(words, { value: 'old' });
  await until(() => count(t.broker, 0) === 1, 'the record arrived');
  t.broker.recreate('words');
  await t.producer.send(words, { value: 'lost' });
  await until(async () => {
    await t.producer.send(words, { value: 'new' });
    return count(t.broker, 0) > 0;
  }, 'records arrive in the new topic');
});
