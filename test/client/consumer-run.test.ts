/** `consumer.run` against the production broker in memory: parallel handlers, their order, what is committed. */
import { expect, test } from 'vitest';
import type { ConsumerOptions, HandlingOrder, RunOptions } from '../../src/client/consumer-options.js';
import { randomFrom } from '../support/random.js';
import { recordingLogger } from '../support/recording-logger.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { append, appendKeys, collectInto, startGroup, words } from './support/consumer-setting.js';
import { SkippingClock } from './support/skipping-clock.js';

const p0 = { topic: 'words', partition: 0 };
const range = (from: number, to: number, partition = 0): string[] =>
  Array.from({ length: to - from }, (_, i) => `p${partition}-${from + i}`);

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Handlers that are released by hand. */
class Gates {
  readonly started: string[] = [];
  readonly finished: string[] = [];
  readonly #waiting = new Map<string, (error?: Error) => void>();

  readonly handle = async ({ value }: { readonly value: string }): Promise<void> => {
    this.started.push(value);
    await new Promise<void>((resolve, reject) => {
      this.#waiting.set(value, (error) => (error === undefined ? resolve() : reject(error)));
    });
    this.finished.push(value);
  };

  release(value: string, error?: Error): void {
    this.#waiting.get(value)?.(error);
    this.#waiting.delete(value);
  }

  releaseAll(): void {
    for (const value of [...this.#waiting.keys()]) this.release(value);
  }
}

test.each<[HandlingOrder, { readonly most: number; readonly overtakes: boolean }]>([
  ['partition', { most: 2, overtakes: false }],
  ['key', { most: 6, overtakes: true }],
  ['none', { most: 6, overtakes: true }],
])('ordered by %s, handlers run in parallel as far as their order allows', async (orderedBy, { most, overtakes }) => {
  await using t = await startGroup(2);
  const keys = 5;
  for (const partition of [0, 1]) await appendKeys(t.client, partition, 150, keys);
  const random = randomFrom(7);
  const consumer = t.client.consumer(words, { group: 'g' });
  const done: { readonly partition: number; readonly offset: number; readonly key: string | null }[] = [];
  let under = 0;
  let mostUnder = 0;
  const running = consumer.run(
    async ({ partition, offset, key }) => {
      under++;
      mostUnder = Math.max(mostUnder, under);
      await turns(Math.floor(random() * 4));
      under--;
      done.push({ partition, offset, key });
    },
    { concurrency: 6, orderedBy },
  );
  await until(() => done.length === 300, 'all were handled');
  await consumer.close();
  await running;
  expect(mostUnder).toBe(most);
  const offsetsBy = (nameOf: (record: (typeof done)[number]) => string): number[][] => {
    const names = [...new Set(done.map(nameOf))];
    return names.map((name) => done.filter((record) => nameOf(record) === name).map(({ offset }) => offset));
  };
  const isRising = (offsets: number[]): boolean =>
    offsets.every((offset, i) => i === 0 || offset > (offsets[i - 1] ?? 0));
  expect(offsetsBy(({ partition }) => `${partition}`).every(isRising)).toBe(!overtakes);
  expect(offsetsBy(({ partition, key }) => `${partition} ${key}`).every(isRising)).toBe(orderedBy !== 'none');
  expect(await consumer.committed([p0])).toMatchObject([{ offset: 150 }]);
});

test('without options one handler runs at a time, in the order of offsets, and compressed batches are handled too', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 20, 0, { compression: 'gzip' });
  await append(t.client, 0, 20, 20);
  await append(t.client, 0, 20, 40, { compression: 'lz4' });
  const consumer = t.client.consumer(words, { group: 'g' });
  const seen: string[] = [];
  let under = 0;
  const running = consumer.run(async ({ value }) => {
    expect(++under).toBe(1);
    await turns(1);
    under--;
    seen.push(value);
  });
  await until(() => seen.length === 60, 'all were handled');
  await consumer.close();
  await running;
  expect(seen).toEqual(range(0, 60));
});

test('a member that dies with handlers finished out of order skips nothing: the next one begins at the first hole (invariants 7, 8)', async () => {
  await using t = await startGroup(1, {}, { groups: { sessionTimeoutMs: 600, minSessionTimeoutMs: 100 } });
  await append(t.client, 0, 60);
  const { client, die } = await t.connectMortal();
  const gates = new Gates();
  const consumer = client.consumer(words, { group: 'g', autoCommit: { intervalMs: 2 } });
  const running = consumer.run(gates.handle, { concurrency: 8, orderedBy: 'none' });
  await until(() => gates.started.length === 8, 'the handlers are under way');
  for (const i of [0, 1, 3, 4, 7]) gates.release(`p0-${i}`);
  await until(() => gates.started.length === 13, 'others have begun');
  for (const i of [8, 9, 12]) gates.release(`p0-${i}`);
  await until(async () => (await committedBy(t.client)) === 2, 'the prefix is committed');
  die();
  gates.releaseAll();
  const rest: string[] = [];
  await collectInto(rest, t.client.consumer(words, { group: 'g' }), 58);
  expect(rest).toEqual(range(2, 60));
  const closing = consumer.close();
  gates.releaseAll();
  await closing;
  await running;
});

async function committedBy(client: Awaited<ReturnType<typeof startGroup>>['client']): Promise<number | undefined> {
  const [found] = await client.consumer(words, { group: 'g' }).committed([p0]);
  return found?.offset;
}

test('a handler that throws ends the run with its error, after the others are through and what is finished is committed', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 10);
  const gates = new Gates();
  const consumer = t.client.consumer(words, { group: 'g' });
  const failure = new Error('no more');
  const running = consumer.run(gates.handle, { concurrency: 4, orderedBy: 'none' }).then(
    () => undefined,
    (error: unknown) => error,
  );
  await until(() => gates.started.length === 4, 'handlers are under way');
  gates.release('p0-2', failure);
  await turns(3);
  expect(gates.started).toHaveLength(4);
  gates.releaseAll();
  expect(await running).toBe(failure);
  expect(gates.finished.sort()).toEqual(['p0-0', 'p0-1', 'p0-3']);
  expect(await committedBy(t.client)).toBe(2);
  expect(consumer.assignment()).toEqual([]);
});

test('the signal ends a run with CANCELLED once the handlers under way are through; close ends it without an error', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 10);
  const abort = new AbortController();
  const gates = new Gates();
  const running = t.client.consumer(words, { group: 'g', signal: abort.signal }).run(gates.handle, { concurrency: 1 });
  await until(() => gates.started.length === 1, 'a handler is under way');
  abort.abort();
  gates.releaseAll();
  await rejection(running, 'CANCELLED');
  expect(gates.finished).toEqual(range(0, 1));
  expect(await committedBy(t.client)).toBe(1);
  const second = t.client.consumer(words, { group: 'g' });
  const again = second.run(gates.handle);
  await until(() => gates.started.length === 2, 'the next one is under way');
  const closing = second.close();
  gates.releaseAll();
  await closing;
  await again;
  expect(await committedBy(t.client)).toBe(2);
});

test.each<[string, Partial<ConsumerOptions>, RunOptions]>([
  ['as much as may be buffered has been taken', { maxBufferedBytes: 100 }, { concurrency: 3 }],
  ['many records wait for their key', {}, { concurrency: 2, orderedBy: 'key' }],
])('a run ends also while %s', async (_, options, runOptions) => {
  await using t = await startGroup(1);
  for (let from = 0; from < 300; from += 50) await append(t.client, 0, 50, from);
  await appendKeys(t.client, 0, 300, 1);
  const gates = new Gates();
  const consumer = t.client.consumer(words, { group: 'g', ...options });
  const running = consumer.run(gates.handle, runOptions);
  await until(() => gates.started.length >= 1, 'a handler is under way');
  for (let i = 0; i < 305; i++) {
    await turns(1);
    gates.releaseAll();
  }
  await turns(20);
  const closing = consumer.close();
  gates.releaseAll();
  await Promise.all([closing, running]);
  expect(await committedBy(t.client)).toBe(gates.finished.length);
});

test('without auto-commit a handler commits its own record, and the offset stops at a hole', async () => {
  await using t = await startGroup(1);
  await append(t.client, 0, 6);
  const consumer = t.client.consumer(words, { group: 'g', autoCommit: false });
  let handled = 0;
  const running = consumer.run(
    async (record) => {
      if (record.offset !== 3) await consumer.commit(record);
      await consumer.commit();
      handled++;
    },
    { concurrency: 3, orderedBy: 'none' },
  );
  await until(() => handled === 6, 'all were handled');
  await consumer.close();
  await running;
  expect(await committedBy(t.client)).toBe(3);
});

test('a partition that is paused starts no handler, what waits for its key included, and goes on without a gap', async () => {
  await using t = await startGroup(1);
  await appendKeys(t.client, 0, 40, 2);
  const gates = new Gates();
  const consumer = t.client.consumer(words, { group: 'g' });
  const running = consumer.run(gates.handle, { concurrency: 3, orderedBy: 'key' });
  await until(() => gates.started.length === 2, 'one handler of each key is under way');
  consumer.pause(p0);
  gates.releaseAll();
  await until(() => gates.finished.length === 2, 'they are through');
  await turns(5);
  expect(gates.started).toHaveLength(2);
  consumer.resume(p0);
  await until(() => {
    gates.releaseAll();
    return gates.finished.length === 40;
  }, 'all were handled');
  await consumer.close();
  await running;
  expect(gates.started.sort()).toEqual(range(0, 40).sort());
  expect(await committedBy(t.client)).toBe(40);
});

test('records of a paused partition that wait for their key do not keep other partitions waiting', async () => {
  await using t = await startGroup(2);
  await appendKeys(t.client, 0, 300, 1);
  const gates = new Gates();
  const consumer = t.client.consumer(words, { group: 'g' });
  const running = consumer.run(gates.handle, { concurrency: 2, orderedBy: 'key' });
  await until(() => gates.started.length === 1, 'a handler is under way, and others wait for its key');
  await turns(5);
  consumer.pause(p0);
  gates.releaseAll();
  await until(() => gates.finished.length === 1, 'it is through');
  await append(t.client, 1, 10);
  await until(() => {
    gates.releaseAll();
    return gates.finished.length === 11;
  }, 'the other partition is handled');
  consumer.resume(p0);
  await until(() => {
    gates.releaseAll();
    return gates.finished.length === 310;
  }, 'all were handled');
  expect(gates.started.filter((value) => value.startsWith('p0'))).toEqual(range(0, 300));
  await consumer.close();
  await running;
});

test('a partition is let go when its handlers are through, what has not begun is handled by the next owner alone (invariant 10)', async () => {
  await using t = await startGroup(1);
  await appendKeys(t.client, 0, 20, 1);
  const gates = new Gates();
  const a = t.client.consumer(words, { group: 'g', instanceId: 'z', assignor: 'range' });
  const running = a.run(gates.handle, { concurrency: 2, orderedBy: 'key' });
  await until(() => gates.started.length === 1, 'a handler is under way, and others wait for their key');
  const b = t.follow('g', { client: await t.connect(), instanceId: 'a', assignor: 'range' });
  await until(async () => (await t.stateOf('g')) === 'GROUP_STATE_RECONCILING', 'it is to be handed over');
  const revoked = new Promise<void>((resolve) => {
    a.on('revoked', () => resolve());
  });
  await until(() => {
    gates.releaseAll();
    return b.seen.length + gates.finished.length === 20;
  }, 'the other one goes on');
  await revoked;
  expect([...gates.finished, ...b.seen]).toEqual(range(0, 20));
  await b.stop();
  await a.close();
  await running;
});

test('a handler that takes longer than maxPollIntervalMs makes the consumer leave, and join again once it is through', async () => {
  const clock = new SkippingClock();
  const logger = recordingLogger();
  await using t = await startGroup(1, { clock, logger });
  await append(t.client, 0, 6);
  const gates = new Gates();
  const consumer = t.client.consumer(words, {
    group: 'g',
    maxPollIntervalMs: 10_000,
    sessionTimeoutMs: 600_000,
    autoCommit: { intervalMs: 600_000 },
  });
  let lost = 0;
  consumer.on('lost', () => void lost++);
  const running = consumer.run(gates.handle, { concurrency: 2, orderedBy: 'none' });
  await until(() => gates.started.length === 2, 'two handlers are under way');
  await until(() => {
    clock.skip(1_000);
    return lost === 1;
  }, 'it has left');
  expect(logger.lines.filter(({ level }) => level === 'warn')).toMatchObject([{ fields: { partition: 0, offset: 0 } }]);
  gates.release('p0-1');
  await turns(5);
  expect(gates.started).toHaveLength(2);
  gates.release('p0-0');
  await until(() => {
    gates.releaseAll();
    return gates.finished.length === 8;
  }, 'everything was handled, the first two again');
  expect(gates.finished.slice(2).sort()).toEqual(range(0, 6));
  await consumer.close();
  await running;
});

test('options of a run that make no sense are refused', async () => {
  await using t = await startGroup(1);
  const consumer = t.client.consumer(words, { group: 'g' });
  await rejection(
    consumer.run(() => {}, { concurrency: 0 }),
    'INVALID_CONFIG',
  );
  const wrong = 'offset' as HandlingOrder;
  await rejection(
    consumer.run(() => {}, { orderedBy: wrong }),
    'INVALID_REQUEST',
  );
});
