/** Several consumers of a group against the production broker in memory: hand-overs, crashes, resets, recreated topics. */
import { expect, test } from 'vitest';
import type { Consumer } from '../../src/client/consumer.js';
import { longestTurnMs } from '../support/loop-delay.js';
import { recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { collect } from './support/collect.js';
import { append, collectInto, startGroup, words } from './support/consumer-setting.js';

/** Sessions that end soon. */
const SHORT = { groups: { sessionTimeoutMs: 600, minSessionTimeoutMs: 100 } };
const p0 = { topic: 'words', partition: 0 };

const range = (from: number, to: number, partition = 0): string[] =>
  Array.from({ length: to - from }, (_, i) => `p${partition}-${from + i}`);

test('two members share the partitions, and nothing is skipped or repeated when one leaves (invariants 7, 10)', async () => {
  await using t = await startGroup(4);
  for (const partition of [0, 1, 2, 3]) await append(t.client, partition, 20);
  const a = t.follow('g');
  const b = t.follow('g', { client: await t.connect() });
  await until(() => a.consumer.assignment().length === 2 && b.consumer.assignment().length === 2, 'both have two');
  await b.stop();
  await until(() => a.consumer.assignment().length === 4, 'one has all');
  for (const partition of [0, 1, 2, 3]) await append(t.client, partition, 5, 20);
  await until(() => a.seen.length + b.seen.length >= 100, 'all were handed out');
  await a.stop();
  const expected = [0, 1, 2, 3].flatMap((partition) => range(0, 25, partition));
  expect([...a.seen, ...b.seen].sort()).toEqual(expected.sort());
});

test('a partition is handed over only when the record in hand is finished, which is then committed (invariants 9, 10)', async () => {
  await using t = await startGroup(2);
  for (const partition of [0, 1]) await append(t.client, partition, 3);
  let release = (): void => {};
  const a = t.follow('g', {
    handle: () =>
      new Promise((resolve) => {
        release = resolve;
      }),
  });
  await until(() => a.seen.length === 1, 'a record is in hand');
  const inHand = Number(a.seen[0]?.[1]);
  const revoked: number[] = [];
  a.consumer.on('revoked', (partitions) => void revoked.push(...partitions.map(({ partition }) => partition)));
  const b = t.follow('g', { client: await t.connect() });
  const c = t.follow('g', { client: await t.connect() });
  // Three members and two partitions: whichever is in hand, the other one can move.
  await until(() => b.consumer.assignment().length + c.consumer.assignment().length === 1, 'the free one has moved');
  expect(revoked).toEqual([1 - inHand]);
  expect(a.consumer.assignment()).toEqual([{ topic: 'words', partition: inHand }]);
  await Promise.all([b.stop(), c.stop()]);
  const seenByOthers = [...b.seen, ...c.seen];
  expect(seenByOthers.filter((value) => value.startsWith(`p${inHand}`))).toEqual([]);
  a.consumer.pause({ topic: 'words', partition: 1 - inHand });
  const leaving = a.stop();
  release();
  await leaving;
  expect(await a.consumer.committed([{ topic: 'words', partition: inHand }])).toMatchObject([{ offset: 1 }]);
});

test('a revoked partition whose record is in hand goes when the loop asks for more, and begins after it elsewhere', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 3);
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const a = t.follow('g', { instanceId: 'z', assignor: 'range', handle: () => gate });
  await until(() => a.seen.length === 1, 'a record is in hand');
  // By range, static members come in the order of their names: the only partition goes to the first.
  const b = t.follow('g', { client: await t.connect(), instanceId: 'a', assignor: 'range' });
  await until(async () => (await t.stateOf('g')) === 'GROUP_STATE_RECONCILING', 'it is to be handed over');
  await append(t.client, 0, 1, 3);
  expect([a.consumer.assignment(), b.consumer.assignment(), b.seen]).toEqual([[p0], [], []]);
  release();
  await until(() => b.consumer.assignment().length === 1, 'it was handed over');
  await until(() => a.seen.length + b.seen.length === 4, 'the other one goes on');
  expect([...a.seen, ...b.seen]).toEqual(range(0, 4));
  await Promise.all([a.stop(), b.stop()]);
});

test('when a member dies, another one goes on at what it had committed, and nothing is skipped (invariants 7, 8)', async () => {
  await using t = await startGroup(2, {}, SHORT);
  const mortal = await t.connectMortal();
  const a = t.follow('g', { client: mortal.client, autoCommit: { intervalMs: 5 } });
  const b = t.follow('g', { handle: () => new Promise((resolve) => setImmediate(resolve)) });
  await until(() => a.consumer.assignment().length === 1 && b.consumer.assignment().length === 1, 'they share');
  for (const partition of [0, 1]) await append(t.client, partition, 40);
  await until(() => a.seen.length > 3, 'it has begun');
  const lost: unknown[] = [];
  a.consumer.on('lost', (partitions) => void lost.push(...partitions));
  mortal.die();
  await until(() => b.consumer.assignment().length === 2, 'the other one has both');
  await until(() => lost.length === 1, 'the dead one knows that its time is over');
  for (const partition of [0, 1]) await append(t.client, partition, 5, 40);
  const all = [0, 1].flatMap((partition) => range(0, 45, partition));
  await until(() => new Set([...a.seen, ...b.seen]).size === all.length, 'all were handed out');
  for (const partition of [0, 1]) {
    const mine = b.seen.filter((value) => value.startsWith(`p${partition}`)).map((value) => Number(value.slice(3)));
    expect(mine).toEqual([...mine].sort((x, y) => x - y));
  }
  await b.stop();
  await a.stop();
});

test('members that keep their partitions go on while others come and go', async () => {
  await using t = await startGroup(3);
  const a = t.follow('g');
  await until(() => a.consumer.assignment().length === 3, 'it has all');
  const events: string[] = [];
  for (const event of ['assigned', 'revoked', 'lost'] as const) {
    a.consumer.on(event, (partitions) => void events.push(`${event} ${partitions.length}`));
  }
  const b = t.follow('g', { client: await t.connect() });
  await until(() => b.consumer.assignment().length === 1, 'one has moved');
  for (const partition of [0, 1, 2]) await append(t.client, partition, 10);
  await until(() => a.seen.length === 20 && b.seen.length === 10, 'each reads its own');
  await b.stop();
  await until(() => a.consumer.assignment().length === 3, 'it has all again');
  await a.stop();
  expect(events).toEqual(['revoked 1', 'assigned 1', 'revoked 3']);
});

test('a live group that is reset drops what it holds and goes on at the new offsets, without a commit in between (invariant 8)', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 20);
  const a = t.follow('g', { autoCommit: { intervalMs: 1 } });
  await until(() => a.seen.length === 20, 'all is read');
  await until(async () => (await a.consumer.committed())[0]?.offset === 20, 'all is committed');
  const events: string[] = [];
  for (const event of ['assigned', 'revoked', 'lost'] as const) a.consumer.on(event, () => void events.push(event));
  await t.reset('g', { offset: 15 });
  await until(() => a.seen.length === 25, 'the last five come again');
  expect(a.seen).toEqual([...range(0, 20), ...range(15, 20)]);
  expect(events).toEqual(['lost', 'assigned']);
  await a.stop();
  expect(await a.consumer.committed([p0])).toMatchObject([{ offset: 20 }]);
});

test('the record in hand when its group is reset cannot be committed (invariant 9)', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 5);
  const consumer = t.client.consumer(words, { group: 'g' });
  const lost = new Promise<void>((resolve) => {
    consumer.on('lost', () => resolve());
  });
  const seen: string[] = [];
  for await (const record of consumer) {
    seen.push(record.value);
    if (seen.length === 1) {
      await t.reset('g', { offset: 3 });
      await lost;
      await rejection(consumer.commit(record), 'FENCED_MEMBER_EPOCH');
    }
    if (seen.length === 3) break;
  }
  expect(seen).toEqual(['p0-0', 'p0-3', 'p0-4']);
});

test('a topic that is deleted and created anew is followed under the option from, and an error without it', async () => {
  const logger = recordingLogger();
  await using t = await startGroup(1, { logger });
  await append(t.client, 0, 5);
  const strict = t.follow('strict', { autoCommit: { intervalMs: 1 } });
  const lenient = t.follow('lenient', { autoCommit: { intervalMs: 1 }, from: 'earliest' });
  for (const { consumer } of [strict, lenient]) {
    await until(async () => (await consumer.committed())[0]?.offset === 5, 'all is committed');
  }
  await t.client.admin.deleteTopic('words');
  await t.client.admin.createTopic({ name: 'words', partitions: 1 });
  await append(t.client, 0, 2);
  expect(await strict.ended).toMatchObject({ reason: 'UNKNOWN_TOPIC_ID' });
  await until(() => lenient.seen.length === 7, 'the new topic is read');
  expect(lenient.seen.slice(5)).toEqual(range(0, 2));
  await lenient.stop();
});

test('a topic that is deleted leaves the group waiting for it, and others go on', async () => {
  await using t = await startGroup(1);
  await t.client.admin.createTopic({ name: 'other', partitions: 1 });
  const consumer = t.client.consumer([words, { ...words, name: 'other' }], { group: 'g' });
  const seen: string[] = [];
  const reading = collectInto(seen, consumer, 1);
  await until(() => consumer.assignment().length === 2, 'both are assigned');
  await t.client.admin.deleteTopic('other');
  await until(() => consumer.assignment().length === 1, 'one is gone');
  await append(t.client, 0, 1);
  await reading;
  expect(seen).toEqual(range(0, 1));
});

test('members that begin together at the latest record all begin there, and none reads the history', async () => {
  await using t = await startGroup(4);
  for (const partition of [0, 1, 2, 3]) await append(t.client, partition, 20);
  const clients = [await t.connect(), await t.connect(), await t.connect()];
  const all = clients.map((client) => t.follow('g', { from: 'latest', client }));
  await until(() => all.every(({ consumer }) => consumer.assignment().length >= 1), 'each has some');
  await until(async () => {
    const committed = await all[0]!.consumer.committed(
      [0, 1, 2, 3].map((partition) => ({ topic: 'words', partition })),
    );
    return committed.every(({ offset }) => offset === 20);
  }, 'the start of each partition is committed');
  for (const partition of [0, 1, 2, 3]) await append(t.client, partition, 1, 20);
  await until(() => all.flatMap(({ seen }) => seen).length >= 4, 'what is new was handed out');
  for (const member of all) await member.stop();
  expect(all.flatMap(({ seen }) => seen).sort()).toEqual(['p0-20', 'p1-20', 'p2-20', 'p3-20']);
});

test('partitions that are added to a topic are read from their beginning', async () => {
  await using t = await startGroup(1);
  const a = t.follow('g', { from: 'latest' });
  await until(() => a.consumer.position(p0) === 0, 'it has begun');
  await t.client.admin.updateTopic({ name: 'words', partitions: 2 });
  await append(t.client, 1, 3);
  await until(() => a.seen.length === 3, 'the new partition is read');
  await a.stop();
});

test('offsets that are below the log start when a group comes back are an error, or skipped under the option from', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 10);
  await collectInto([], t.client.consumer(words, { group: 'g' }), 3);
  await t.client.admin.deleteRecords('words', [{ partition: 0, beforeOffset: 5 }]);
  const error = await rejection(collect(t.client.consumer(words, { group: 'g' })), 'OFFSET_OUT_OF_RANGE');
  expect(error.metadata).toMatchObject({ log_start_offset: '5', high_watermark: '10' });
  const seen: string[] = [];
  await collectInto(seen, t.client.consumer(words, { group: 'g', from: 'earliest' }), 2);
  expect(seen).toEqual(range(5, 7));
});

test('a static member comes back to its partitions within its session, without moving those of others', async () => {
  await using t = await startGroup(2);
  const a = t.follow('g');
  const b = t.follow('g', { client: await t.connect(), instanceId: 'b' });
  await until(() => a.consumer.assignment().length === 1 && b.consumer.assignment().length === 1, 'they share');
  const mine = b.consumer.assignment();
  const events: string[] = [];
  for (const event of ['assigned', 'revoked', 'lost'] as const) a.consumer.on(event, () => void events.push(event));
  await b.stop();
  const away = (await t.client.admin.getGroup('g')).members.map((member) => [member.instanceId, member.away]);
  expect(new Map(away as [string | undefined, boolean][])).toEqual(
    new Map([
      [undefined, false],
      ['b', true],
    ]),
  );
  const again = t.follow('g', { client: await t.connect(), instanceId: 'b' });
  await until(() => again.consumer.assignment().length === 1, 'it is back');
  expect(again.consumer.assignment()).toEqual(mine);
  expect(events).toEqual([]);
  await Promise.all([a.stop(), again.stop()]);
});

test.each<[string, (consumer: Consumer<string, string>, handle: (value: string) => boolean) => Promise<void>]>([
  [
    'a loop over records',
    async (consumer, handle) => {
      for await (const { value } of consumer) if (handle(value)) break;
    },
  ],
  [
    'a loop over batches',
    async (consumer, handle) => {
      for await (const batch of consumer.batches()) {
        const values = (await batch.records()).map(({ value }) => value);
        if (values.map(handle).at(-1)) break;
      }
    },
  ],
  [
    'a run',
    (consumer, handle) =>
      consumer.run(({ value }) => {
        if (handle(value)) void consumer.close();
      }),
  ],
])('%s whose work never waits gives turns to heartbeats and commits', async (_, read) => {
  await using t = await startGroup(1);
  for (let from = 0; from < 600; from += 60) await append(t.client, 0, 60, from);
  const consumer = t.client.consumer(words, { group: 'g' });
  const seen: string[] = [];
  const work = (value: string): boolean => {
    const untilMs = performance.now() + 1;
    while (performance.now() < untilMs); // computes
    return seen.push(value) === 600;
  };
  expect(await longestTurnMs(() => read(consumer, work))).toBeLessThan(200);
  expect(seen).toEqual(range(0, 600));
});
