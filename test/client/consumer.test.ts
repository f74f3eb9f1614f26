/** The consumer against the production broker in memory: what it hands out, finishes and commits. */
import { expect, test } from 'vitest';
import type { Consumer } from '../../src/client/consumer.js';
import type { ConsumerEvent } from '../../src/client/group/consumer-events.js';
import { json, string, topic } from '../../src/client/serdes.js';
import { topicPattern } from '../../src/client/topic-pattern.js';
import { recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { collect } from './support/collect.js';
import { append, collectInto, startGroup, words } from './support/consumer-setting.js';
import { SkippingClock } from './support/skipping-clock.js';

const p0 = { topic: 'words', partition: 0 };
const p1 = { topic: 'words', partition: 1 };
const range = (from: number, to: number, partition = 0): string[] =>
  Array.from({ length: to - from }, (_, i) => `p${partition}-${from + i}`);

async function committedOf(consumer: Consumer<string, string>, partition = 0): Promise<number | undefined> {
  const [found] = await consumer.committed([{ topic: 'words', partition }]);
  return found?.offset;
}

test('what the loop was through with is committed when it is left, and the next one goes on there (invariants 7, 8)', async () => {
  await using t = await startGroup(2);
  await append(t.client, 0, 5);
  const consumer = t.client.consumer(words, { group: 'g' });
  const seen: string[] = [];
  await collectInto(seen, consumer, 3);
  // The third was in the loop's hands when it was left: not finished.
  expect(await committedOf(consumer)).toBe(2);
  await collectInto(seen, consumer, 6);
  expect(seen).toEqual([...range(0, 3), ...range(2, 5)]);
});

test('records come with every field, batches without an object for each record', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 5);
  for await (const record of t.client.consumer(words, { group: 'records' })) {
    expect(record).toMatchObject({ topic: 'words', partition: 0, offset: 0, key: 'k0', value: 'p0-0', headers: [] });
    break;
  }
  const consumer = t.client.consumer(words, { group: 'batches' });
  for await (const batch of consumer.batches()) {
    expect(batch).toMatchObject({ topic: 'words', partition: 0, baseOffset: 0, nextOffset: 5, count: 5 });
    expect((await batch.records()).map(({ value }) => value)).toEqual(range(0, 5));
    await batch.commit();
    expect(await committedOf(consumer)).toBe(5);
    break;
  }
});

test('a batch is finished when the loop asks for the next one, a part of it once its records are committed', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 5);
  await append(t.client, 0, 5, 5);
  const consumer = t.client.consumer(words, { group: 'g' });
  let batches = 0;
  for await (const batch of consumer.batches()) {
    batches++;
    if (batches === 1) continue;
    const [first, second] = await batch.records();
    if (first === undefined || second === undefined) throw new Error('A batch of five has two records.');
    await consumer.commit(second);
    expect(await committedOf(consumer)).toBe(5);
    await consumer.commit(first);
    expect(await committedOf(consumer)).toBe(7);
    break;
  }
});

test('without auto-commit only commit counts; it stops at a hole, and without an argument means all that was handed out', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 5);
  const consumer = t.client.consumer(words, { group: 'g', autoCommit: false });
  const records = [];
  for await (const record of consumer) {
    records.push(record);
    if (records.length < 3) continue;
    if (records.length === 3) {
      await consumer.commit(records[1]);
      expect(await committedOf(consumer)).toBeUndefined();
      await consumer.commit(records[0]);
      expect(await committedOf(consumer)).toBe(2);
    }
    if (records.length < 5) continue;
    await consumer.commit();
    expect(await committedOf(consumer)).toBe(5);
    break;
  }
  await append(t.client, 0, 1, 5);
  await collectInto([], consumer, 1);
  expect(await committedOf(consumer)).toBe(5);
});

test('what the loop has finished is committed every now and then', async () => {
  const clock = new SkippingClock();
  await using t = await startGroup(1, { clock });
  await append(t.client, 0, 3);
  const follower = t.follow('g', { autoCommit: { intervalMs: 20_000 } });
  await until(() => follower.seen.length === 3, 'all is read');
  expect(await committedOf(follower.consumer)).toBeUndefined();
  clock.skip(20_000);
  await until(async () => (await committedOf(follower.consumer)) === 3, 'it is committed');
  await follower.stop();
});

test('only what a consumer handed out can be committed, and only under the assignment it was handed out under (invariant 9)', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 3);
  const consumer = t.client.consumer(words, { group: 'g' });
  let last: Parameters<typeof consumer.commit>[0];
  for await (const record of consumer) {
    await rejection(consumer.commit({ ...record }), 'INVALID_REQUEST');
    last = record;
    break;
  }
  const error = await rejection(consumer.commit(last), 'FENCED_MEMBER_EPOCH');
  expect(error.metadata).toMatchObject({ topic: 'words', partition: '0' });
  for await (const _ of consumer) {
    await rejection(consumer.commit(last), 'FENCED_MEMBER_EPOCH');
    break;
  }
  expect(await committedOf(consumer)).toBeUndefined();
});

test('one iteration at a time; after it another one', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 3);
  const consumer = t.client.consumer(words, { group: 'g' });
  for await (const _ of consumer) {
    await rejection(collect(consumer.batches()), 'INVALID_REQUEST');
    await rejection(
      consumer.run(() => {}),
      'INVALID_REQUEST',
    );
    break;
  }
  await collectInto([], consumer, 1);
});

test('the signal ends a loop that waits, and one that works after its record, with what is finished committed', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 3);
  const abort = new AbortController();
  const consumer = t.client.consumer(words, { group: 'g', signal: abort.signal });
  const seen: string[] = [];
  const looping = (async () => {
    for await (const { value } of consumer) {
      seen.push(value);
      if (seen.length === 2) abort.abort(new Error('enough'));
    }
  })();
  const error = await rejection(looping, 'CANCELLED');
  expect(error.cause).toMatchObject({ message: 'enough' });
  expect(seen).toEqual(range(0, 2));
  expect(await committedOf(consumer)).toBe(2);
  expect(consumer.assignment()).toEqual([]);
  await rejection(collect(consumer), 'CANCELLED');
  const waiting = t.follow('g');
  await until(() => waiting.seen.length === 1, 'it waits');
  await waiting.stop();
  expect(await committedOf(consumer)).toBe(3);
});

test('close ends a loop without an error, closing the client with CLOSED; both commit what is finished', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 2);
  const first = t.follow('g');
  await until(() => first.seen.length === 2, 'all is read');
  await first.consumer.close();
  await first.consumer.close();
  expect(await first.ended).toBeUndefined();
  expect(await committedOf(first.consumer)).toBe(2);
  await rejection(collect(first.consumer), 'CLOSED');
  await append(t.client, 0, 1, 2);
  const client = await t.connect();
  const second = t.follow('g', { client });
  await until(() => second.seen.length === 1, 'the rest is read');
  await client.close();
  expect(await second.ended).toMatchObject({ reason: 'CLOSED' });
  await rejection(second.consumer.commit(), 'CLOSED');
  expect(await committedOf(first.consumer)).toBe(3);
});

test('close waits for the record that the loop works on, and lets it be committed', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 2);
  let release = (): void => {};
  const follower = t.follow('g', {
    handle: () =>
      new Promise((resolve) => {
        release = resolve;
      }),
  });
  await until(() => follower.seen.length === 1, 'a record is in hand');
  const closing = follower.consumer.close();
  release();
  await closing;
  expect(await follower.ended).toBeUndefined();
  expect(follower.seen).toEqual(range(0, 1));
  expect(await committedOf(follower.consumer)).toBe(1);
});

test('close of a loop that never asks for more leaves after five seconds, without committing its record', async () => {
  const clock = new SkippingClock();
  await using t = await startGroup(1, { clock });
  await append(t.client, 0, 2);
  const follower = t.follow('g', { handle: () => new Promise(() => {}) });
  await until(() => follower.seen.length === 1, 'a record is in hand');
  let closed = false;
  const closing = follower.consumer.close().then(() => {
    closed = true;
  });
  await until(() => clock.timerCount > 0, 'it waits');
  expect(closed).toBe(false);
  clock.skip(5_000);
  await closing;
  expect(await committedOf(follower.consumer)).toBeUndefined();
});

test('a paused partition hands out nothing, others go on, and nothing is skipped or repeated', async () => {
  await using t = await startGroup(2);
  await append(t.client, 0, 50);
  const consumer = t.client.consumer(words, { group: 'g' });
  const seen: string[] = [];
  for await (const { value } of consumer) {
    seen.push(value);
    if (seen.length === 10) {
      consumer.pause(p0);
      expect(consumer.paused()).toEqual([p0]);
      expect(consumer.position(p0)).toBe(10);
      await append(t.client, 1, 5);
    }
    if (seen.length === 15) {
      expect(seen.slice(10)).toEqual(range(0, 5, 1));
      consumer.resume(p0);
    }
    if (seen.length === 55) break;
  }
  expect(seen.filter((value) => value.startsWith('p0'))).toEqual(range(0, 50));
  expect(await committedOf(consumer, 1)).toBe(5);
});

test('seek goes to an offset, an end or a time, and drops what was fetched; a seek in a listener decides the start', async () => {
  await using t = await startGroup(2);
  await append(t.client, 0, 50);
  const consumer = t.client.consumer(words, { group: 'g' });
  await rejection(consumer.seek(p0, 0), 'INVALID_REQUEST');
  consumer.on('assigned', () => consumer.seek(p0, 30));
  const seen: string[] = [];
  for await (const { value } of consumer) {
    seen.push(value);
    if (seen.length === 3) await consumer.seek(p0, 'earliest');
    if (seen.length === 5) await consumer.seek(p0, new Date(Date.now() + 60_000));
    if (seen.length === 5) await consumer.seek(p0, 48);
    if (seen.length === 7) {
      await append(t.client, 0, 1, 50);
      const seeking = consumer.seek(p0, 'latest');
      consumer.resume(p0);
      await seeking;
      expect(consumer.position(p0)).toBe(51);
      await append(t.client, 0, 1, 51);
    }
    if (seen.length === 8) break;
  }
  expect(seen).toEqual([...range(30, 33), ...range(0, 2), ...range(48, 50), ...range(51, 52)]);
  await rejection(consumer.seek(p1, 0), 'INVALID_REQUEST');
});

test('a seek is committed as a position, and makes what was handed out before of no concern', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 10);
  const consumer = t.client.consumer(words, { group: 'g', autoCommit: false });
  for await (const record of consumer) {
    await consumer.seek(p0, 5);
    await consumer.commit(record);
    expect(await committedOf(consumer)).toBeUndefined();
    await consumer.commit();
    expect(await committedOf(consumer)).toBe(5);
    break;
  }
});

test.each(['latest', new Date(Date.now() + 3_600_000)] as const)(
  'from %s the start is committed at once, so that a crash before the first commit skips nothing (invariant 7)',
  async (from) => {
    await using t = await startGroup(1);
    await append(t.client, 0, 5);
    const consumer = t.client.consumer(words, { group: 'g', from, autoCommit: false });
    const reading = collectInto([], consumer, 1);
    await until(() => consumer.position(p0) === 5, 'the start is known');
    await until(async () => (await committedOf(consumer)) === 5, 'it is committed');
    await append(t.client, 0, 1, 5);
    await reading;
    await append(t.client, 0, 1, 6);
    const again: string[] = [];
    await collectInto(again, t.client.consumer(words, { group: 'g', from }), 2);
    expect(again).toEqual(range(5, 7));
  },
);

test('records deleted before they were consumed are an error with the valid range, or skipped with a warning under from', async () => {
  const logger = recordingLogger();
  await using t = await startGroup(1, { logger });
  await append(t.client, 0, 10);
  await append(t.client, 0, 10, 10);
  const runOver = async (consumer: Consumer<string, string>): Promise<string[]> => {
    const seen: string[] = [];
    for await (const { value } of consumer) {
      seen.push(value);
      if (seen.length === 1) {
        consumer.pause(p0);
        await t.client.admin.deleteRecords('words', [{ partition: 0, beforeOffset: 15 }]);
        consumer.resume(p0);
      }
      if (seen.length === 6) break;
    }
    return seen;
  };
  const error = await rejection(runOver(t.client.consumer(words, { group: 'strict' })), 'OFFSET_OUT_OF_RANGE');
  expect(error.metadata).toMatchObject({ offset: '1', log_start_offset: '15', high_watermark: '20' });
  await append(t.client, 0, 5, 20);
  const lenient = t.client.consumer(words, { group: 'lenient', from: 'earliest' });
  lenient.on('assigned', () => lenient.seek(p0, 2));
  const seen: string[] = [];
  await collectInto(seen, lenient, 3);
  expect(seen).toEqual(range(15, 18));
  expect(logger.lines.find(({ fields }) => fields.skipped !== undefined)).toMatchObject({
    level: 'warn',
    fields: { topic: 'words', partition: 0, position: 2, offset: 15, skipped: 13 },
  });
});

test('a position beyond the end is an error of its own, whatever from says', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 10);
  const consumer = t.client.consumer(words, { group: 'g', from: 'earliest' });
  consumer.on('assigned', () => consumer.seek(p0, 11));
  const error = await rejection(collect(consumer), 'LOG_TRUNCATED');
  expect(error.metadata).toMatchObject({ offset: '11', log_start_offset: '0', high_watermark: '10' });
});

test('a serde that refuses a record ends the iteration after the records before it, which are committed', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 5);
  const picky = topic('words', {
    value: {
      ...string(),
      deserialize: (bytes: Buffer) => {
        if (bytes.toString() === 'p0-3') throw new Error('not this one');
        return bytes.toString();
      },
    },
  });
  const consumer = t.client.consumer(picky, { group: 'g' });
  const seen: string[] = [];
  const error = await rejection(collectInto(seen, consumer, 5), 'INVALID_RECORD');
  expect(error.metadata).toMatchObject({ offset: '3' });
  expect(seen).toEqual(range(0, 3));
  expect(await committedOf(consumer)).toBe(3);
});

test('work that takes longer than maxPollIntervalMs makes the consumer leave, name its record, and join again when it asks for more', async () => {
  const clock = new SkippingClock();
  const logger = recordingLogger();
  await using t = await startGroup(1, { clock, logger });
  await append(t.client, 0, 5);
  const consumer = t.client.consumer(words, { group: 'g', maxPollIntervalMs: 10_000, sessionTimeoutMs: 600_000 });
  const lost: unknown[] = [];
  consumer.on('lost', (partitions) => void lost.push(...partitions));
  const seen: string[] = [];
  for await (const record of consumer) {
    seen.push(record.value);
    if (seen.length === 3) {
      await until(() => {
        clock.skip(1_000);
        return lost.length > 0;
      }, 'it has left');
      await rejection(consumer.commit(record), 'FENCED_MEMBER_EPOCH');
      expect(logger.lines.filter(({ level }) => level === 'warn')).toMatchObject([
        { fields: { group: 'g', topic: 'words', partition: 0, offset: 2 } },
      ]);
    }
    if (seen.length === 6) break;
  }
  // What was finished had been committed by itself; the record that took too long comes again.
  expect(seen).toEqual([...range(0, 3), ...range(2, 5)]);
});

test('listeners are awaited in order: assigned before the first record, revoked while commits still count', async () => {
  const logger = recordingLogger();
  await using t = await startGroup(1, { logger });
  await append(t.client, 0, 3);
  const consumer = t.client.consumer(words, { group: 'g', autoCommit: false });
  const happened: string[] = [];
  consumer.on('assigned', async () => {
    await until(() => consumer.assignment().length === 1, 'it is assigned');
    happened.push('assigned');
  });
  consumer.on('assigned', () => {
    throw new Error('a listener of no use');
  });
  const taken = (): void => void happened.push('taken off');
  consumer.on('assigned', taken);
  consumer.off('assigned', taken);
  consumer.on('revoked', async (partitions) => {
    expect(partitions).toEqual([p0]);
    await consumer.commit();
    happened.push('revoked');
  });
  for await (const { value } of consumer) {
    happened.push(value);
    if (value === 'p0-1') break;
  }
  expect(happened).toEqual(['assigned', 'p0-0', 'p0-1', 'revoked']);
  expect(await committedOf(consumer)).toBe(2);
  expect(logger.lines.filter(({ level }) => level === 'error')).toMatchObject([
    { fields: { event: 'assigned', error: 'a listener of no use' } },
  ]);
});

test('a pattern follows every topic that it matches, those to come included', async () => {
  await using t = await startGroup(1);
  await t.client.admin.createTopic({ name: 'orders-eu', partitions: 1 });
  const seen: string[] = [];
  const pattern = topicPattern('orders-.*', { value: string() });
  const reading = (async () => {
    for await (const record of t.client.consumer(pattern, { group: 'g' })) {
      seen.push(`${record.topic} ${record.value}`);
      if (seen.length === 2) break;
    }
  })();
  await using producer = t.client.producer({ lingerMs: 0 });
  await producer.send(topic('orders-eu', { value: string() }), { value: 'a' });
  await until(() => seen.length === 1, 'the first topic is read');
  await t.client.admin.createTopic({ name: 'orders-us', partitions: 1 });
  await producer.send(topic('orders-us', { value: string() }), { value: 'b' });
  await reading;
  expect(seen).toEqual(['orders-eu a', 'orders-us b']);
});

test('several topics are read at once, each with its own serdes', async () => {
  await using t = await startGroup(1);
  await t.client.admin.createTopic({ name: 'numbers', partitions: 1 });
  const numbers = topic('numbers', { value: json<number>() });
  await append(t.client, 0, 1);
  await using producer = t.client.producer({ lingerMs: 0 });
  await producer.send(numbers, { value: 7 });
  const seen: (string | number)[] = [];
  for await (const { value } of t.client.consumer([words, numbers], { group: 'g' })) {
    seen.push(value);
    if (seen.length === 2) break;
  }
  expect(seen.sort()).toEqual([7, 'p0-0']);
});

test('a topic that does not exist is warned of, once, and waited for', async () => {
  const logger = recordingLogger();
  await using t = await startGroup(1, { logger });
  const late = topic('late', { value: string() });
  const seen: string[] = [];
  const reading = collectInto(seen, t.client.consumer([words, late], { group: 'g' }), 1);
  await until(() => logger.messages('warn').length === 1, 'it is warned of');
  expect(logger.lines.find(({ level }) => level === 'warn')?.fields).toEqual({ group: 'g', topic: 'late' });
  await t.client.admin.createTopic({ name: 'late', partitions: 1 });
  await using producer = t.client.producer({ lingerMs: 0 });
  await producer.send(late, { value: 'a' });
  await reading;
  expect([seen, logger.messages('warn').length]).toEqual([['a'], 1]);
});

test('options and groups that make no sense are refused', async () => {
  await using t = await startGroup(1);
  const refused = (options: object, reason: Parameters<typeof rejection>[1]): Promise<unknown> =>
    rejection(async () => t.client.consumer(words, { group: 'g', ...options }), reason);
  await refused({ group: '' }, 'INVALID_GROUP_ID');
  await refused({ from: 5 }, 'INVALID_REQUEST');
  await refused({ from: new Date(Number.NaN) }, 'INVALID_REQUEST');
  await refused({ autoCommit: { intervalMs: 0 } }, 'INVALID_CONFIG');
  await refused({ maxPollIntervalMs: 0 }, 'INVALID_CONFIG');
  await refused({ instanceId: '' }, 'INVALID_REQUEST');
  await rejection(async () => t.client.consumer([], { group: 'g' }), 'INVALID_REQUEST');
  const unknownEvent = 'gone' as unknown as ConsumerEvent;
  await rejection(async () => t.client.consumer(words, { group: 'g' }).on(unknownEvent, () => {}), 'INVALID_REQUEST');
  await rejection(async () => t.client.consumer([words, words], { group: 'g' }), 'INVALID_REQUEST');
  await rejection(collect(t.client.consumer(topicPattern('('), { group: 'g' })), 'INVALID_REGULAR_EXPRESSION');
  const internal = topic('__group_offsets', { value: string() });
  await rejection(collect(t.client.consumer(internal, { group: 'g' })), 'INVALID_TOPIC');
});
