/** What a producer does when the broker refuses, is silent, or goes away: order, no loss, no wait for ever. */
import { expect, test } from 'vitest';
import { type Client, connect } from '../../src/client/client.js';
import type { ConnectOptions, ProducerOptions } from '../../src/client/options.js';
import type { Producer } from '../../src/client/producer.js';
import { string, topic } from '../../src/client/serdes.js';
import { LogError, type Reason } from '../../src/core/errors.js';
import { Programme } from '../support/programme.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { FakeBroker, type ProduceFault } from './support/fake-broker.js';
import { SkippingClock } from './support/skipping-clock.js';

const words = topic('words', { value: string() });

interface Setting extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly client: Client;
  readonly producer: Producer;
}

async function start(
  options: ProducerOptions = {},
  partitions = 1,
  clientOptions: ConnectOptions = {},
): Promise<Setting> {
  const broker = await FakeBroker.start();
  broker.addTopic('words', partitions);
  const client = await connect(broker.address, clientOptions);
  const producer = client.producer({ retryBackoffMs: 2, retryBackoffMaxMs: 10, batchBytes: 1, ...options });
  return {
    broker,
    client,
    producer,
    async [Symbol.asyncDispose]() {
      await producer.close({ timeoutMs: 0 });
      await client.close();
      await broker.stop();
    },
  };
}

/** Time that passes when the test says so, however slow the machine is. */
class PassedTime {
  readonly clock: SkippingClock = new SkippingClock();
  /** Attempts of which the producer knows that they failed, and which it puts off. */
  failedAttempts = 0;

  get options(): ConnectOptions {
    const ignore = (): void => {};
    const debug = (_: object, text: string): void => {
      if (text === 'produce will be repeated') this.failedAttempts++;
    };
    return { clock: this.clock, logger: { debug, info: ignore, warn: ignore, error: ignore } };
  }
}

/** Far longer than a test takes. */
const DELIVERY_MS = 600_000;
/** Long enough a wait that no attempt is unanswered when time is over. */
const BUSY: LogError = new LogError('BROKER_DRAINING', 'nothing happened', { retryAfterMs: DELIVERY_MS * 10 });

const values = (count: number): string[] => Array.from({ length: count }, (_, i) => `w${i}`);

/** Fails the requests with these numbers, counted from 0. */
function failing(reason: Reason, ...numbers: number[]): () => ProduceFault | undefined {
  let count = 0;
  return () =>
    numbers.includes(count++) ? { kind: 'error', error: new LogError(reason, `${reason} on purpose`) } : undefined;
}

/** Without repetitions: without idempotence, a retried batch may be in the log twice. */
function firsts(all: readonly string[]): string[] {
  return [...new Set(all)];
}

test('a passing failure is repeated on a fresh stream and order is kept (invariant 6)', async () => {
  await using t = await start({ maxInFlight: 5 });
  t.broker.onProduce = failing('BROKER_DRAINING', 2, 8);
  const sent = await Promise.all(values(20).map((value) => t.producer.send(words, { value })));
  expect(sent.map(({ offset }) => offset)).toEqual(values(20).map((_, i) => i));
  expect(await t.broker.partition('words').values()).toEqual(values(20));
  expect(new Set(t.broker.requests.map(({ stream }) => stream)).size).toBe(3);
  await until(() => t.broker.producesOpen <= 1, 'retired streams are closed');
});

test('a lasting failure rejects its own records only; those behind it are sent again in order (invariants 5, 6)', async () => {
  await using t = await start({ maxInFlight: 5 });
  t.broker.onProduce = failing('INVALID_RECORD', 1);
  const results = await Promise.allSettled(values(6).map((value) => t.producer.send(words, { value })));
  expect(results.map(({ status }) => status)).toEqual([
    'fulfilled',
    'rejected',
    'fulfilled',
    'fulfilled',
    'fulfilled',
    'fulfilled',
  ]);
  expect((results[1] as PromiseRejectedResult).reason).toMatchObject({ reason: 'INVALID_RECORD' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w2', 'w3', 'w4', 'w5']);
});

test('a failure in one partition leaves the others where they are until they have drained', async () => {
  await using t = await start({ maxInFlight: 3 }, 2);
  let failed = false;
  t.broker.onProduce = ({ partition }) => {
    if (partition !== 0 || failed) return undefined;
    failed = true;
    return { kind: 'error', error: new LogError('BROKER_DRAINING', 'once') };
  };
  const sends = values(60).map((value, i) => t.producer.send(words, { value, partition: i % 2 }));
  await Promise.all(sends);
  for (const partition of [0, 1]) {
    expect(await t.broker.partition('words', partition).values()).toEqual(
      values(60).filter((_, i) => i % 2 === partition),
    );
    const streams = t.broker.requests.filter((request) => request.partition === partition).map(({ stream }) => stream);
    expect(streams).toEqual([...streams].sort((a, b) => a - b));
  }
});

test('a batch that is too large for the topic is halved until it fits, and a single record is refused', async () => {
  await using t = await start({ batchBytes: 64 * 1024 });
  t.broker.onProduce = (_request, { bytes }) =>
    bytes > 1_000 ? { kind: 'error', error: new LogError('MESSAGE_TOO_LARGE', 'too large') } : undefined;
  const small = values(200).map((value) => value.padEnd(20, '.'));
  // Once the topic is known, calls are served in their order.
  await t.producer.send(words, { value: 'first' });
  const call = t.producer.sendMany(
    words,
    small.slice(0, 50).map((value) => ({ value })),
  );
  const sends = small.slice(50).map((value) => t.producer.send(words, { value }));
  const sent = await Promise.all(sends);
  expect((await call).partitions).toEqual([{ partition: 0, firstOffset: 1, lastOffset: 50, count: 50 }]);
  expect(sent.map(({ offset }) => offset)).toEqual(sends.map((_, i) => 51 + i));
  expect(await t.broker.partition('words').values()).toEqual(['first', ...small]);
  await rejection(t.producer.send(words, { value: 'L'.repeat(2_000) }), 'MESSAGE_TOO_LARGE');
  expect((await t.producer.send(words, { value: 'after' })).offset).toBe(201);
});

test('a compressed batch that is too large is split as well', async () => {
  await using t = await start({ batchBytes: 64 * 1024, compression: 'gzip' });
  t.broker.onProduce = (_request, { records }) =>
    records > 10 ? { kind: 'error', error: new LogError('MESSAGE_TOO_LARGE', 'too large') } : undefined;
  expect(
    (
      await t.producer.sendMany(
        words,
        values(35).map((value) => ({ value })),
      )
    ).count,
  ).toBe(35);
  expect(await t.broker.partition('words').values()).toEqual(values(35));
});

test('a connection lost before the append loses nothing and repeats nothing (invariant 6)', async () => {
  await using t = await start({ maxInFlight: 1 });
  let count = 0;
  t.broker.onProduce = () => (count++ === 3 ? { kind: 'cut' } : undefined);
  await Promise.all(values(10).map((value) => t.producer.send(words, { value })));
  expect(await t.broker.partition('words').values()).toEqual(values(10));
});

test('a connection lost after the append is retried, and the log holds everything once (invariant 6)', async () => {
  await using t = await start({ maxInFlight: 4 });
  let count = 0;
  t.broker.onProduce = () => (count++ === 3 ? { kind: 'cut after append' } : undefined);
  const sent = await Promise.all(values(20).map((value) => t.producer.send(words, { value })));
  expect(await t.broker.partition('words').values()).toEqual(values(20));
  expect(sent.map(({ offset }) => offset)).toEqual(values(20).map((_, i) => i));
  expect(t.broker.partition('words').producers.duplicates).toBeGreaterThan(0);
});

test('without idempotence a connection lost after the append is retried: at least once, first copies in order', async () => {
  await using t = await start({ maxInFlight: 4, idempotent: false });
  let count = 0;
  t.broker.onProduce = () => (count++ === 3 ? { kind: 'cut after append' } : undefined);
  const sent = await Promise.all(values(20).map((value) => t.producer.send(words, { value })));
  const log = await t.broker.partition('words').values();
  expect(firsts(log)).toEqual(values(20));
  expect(log.length).toBeGreaterThan(20);
  // Every promise names a place where its record really is.
  expect(sent.map(({ offset }) => log[offset])).toEqual(values(20));
});

test('a broker that comes back gets everything that was sent meanwhile', async () => {
  await using t = await start({ lingerMs: 1, batchBytes: 1_000 });
  await t.producer.send(words, { value: 'before' });
  await t.broker.stop();
  const sends = values(50).map((value) => t.producer.send(words, { value }));
  await new Promise((resolve) => setTimeout(resolve, 30));
  await t.broker.listen();
  await Promise.all(sends);
  expect(await t.broker.partition('words').values()).toEqual(['before', ...values(50)]);
});

test('records that cannot be delivered in time are rejected, saying that nothing was written (invariant 5)', async () => {
  await using t = await start({ deliveryTimeoutMs: 60 });
  await t.producer.send(words, { value: 'before' });
  await t.broker.stop();
  const error = await rejection(t.producer.send(words, { value: 'lost' }), 'REQUEST_TIMED_OUT');
  expect(error.message).toContain('60 ms');
  await t.broker.listen();
  await until(async () => {
    const { offset } = await t.producer.send(words, { value: 'after' }).catch(() => ({ offset: -1 }));
    return offset >= 0;
  }, 'the broker is found again');
  expect(await t.broker.partition('words').values()).not.toContain('lost');
});

test('records whose attempts may have been carried out are rejected with their outcome unknown (invariant 5)', async () => {
  const time = new PassedTime();
  await using t = await start({ deliveryTimeoutMs: DELIVERY_MS }, 1, time.options);
  let count = 0;
  t.broker.onProduce = () => (count++ === 0 ? { kind: 'cut after append' } : { kind: 'error', error: BUSY });
  const sent = t.producer.send(words, { value: 'perhaps' });
  await until(() => time.failedAttempts === 2, 'the second attempt was refused');
  time.clock.skip(DELIVERY_MS);
  expect((await rejection(sent, 'REQUEST_TIMED_OUT')).outcome).toBe('unknown');
});

test('records that were only ever refused are rejected with the outcome none (invariant 5)', async () => {
  const time = new PassedTime();
  await using t = await start({ deliveryTimeoutMs: DELIVERY_MS }, 1, time.options);
  t.broker.onProduce = () => ({ kind: 'error', error: BUSY });
  const sent = t.producer.send(words, { value: 'never' });
  await until(() => time.failedAttempts === 1, 'the attempt was refused');
  time.clock.skip(DELIVERY_MS);
  expect((await rejection(sent, 'REQUEST_TIMED_OUT')).outcome).toBe('none');
  expect(t.broker.partition('words').endOffset).toBe(0);
});

test('an unanswered record is rejected when its time is over, with its outcome unknown, and never sent again (invariant 5)', async () => {
  await using t = await start({ deliveryTimeoutMs: 60 }, 1, { requestTimeoutMs: 100 });
  t.broker.onProduce = () => ({ kind: 'silence' });
  const error = await rejection(t.producer.send(words, { value: 'silent' }), 'REQUEST_TIMED_OUT');
  expect(error.outcome).toBe('unknown');
  t.broker.onProduce = () => undefined;
  await t.producer.send(words, { value: 'next' });
  expect((await t.broker.partition('words').values()).filter((value) => value === 'silent')).toHaveLength(1);
});

test('a stream that does not answer is given up and its requests are repeated', async () => {
  await using t = await start({}, 1, { requestTimeoutMs: 50 });
  let count = 0;
  t.broker.onProduce = () => (count++ === 0 ? { kind: 'silence' } : undefined);
  const { offset } = await t.producer.send(words, { value: 'once' });
  expect(offset).toBe(0);
  expect(t.broker.requests).toHaveLength(2);
  expect(await t.broker.partition('words').values()).toEqual(['once']);
});

test('with acks none a failure is logged, the stream is replaced, and later records arrive', async () => {
  await using broker = await FakeBroker.start();
  broker.addTopic('words');
  const warnings: string[] = [];
  const ignore = (): void => {};
  const logger = { debug: ignore, info: ignore, error: ignore, warn: (_: object, text: string) => warnings.push(text) };
  await using client = await connect(broker.address, { logger });
  await using producer = client.producer({ acks: 'none', batchBytes: 1 });
  broker.onProduce = failing('INVALID_RECORD', 0);
  await producer.send(words, { value: 'refused' });
  await until(() => warnings.length > 0, 'the failure is logged');
  await producer.send(words, { value: 'later' });
  await until(() => broker.partition('words').endOffset === 1, 'the later record arrived');
  expect(await broker.partition('words').values()).toEqual(['later']);
});

test('what the broker asks to wait is waited', async () => {
  await using t = await start();
  let first = true;
  const times: number[] = [];
  t.broker.onProduce = () => {
    times.push(performance.now());
    if (!first) return undefined;
    first = false;
    return { kind: 'error', error: new LogError('RESOURCE_LIMIT', 'busy', { retryAfterMs: 80 }) };
  };
  await t.producer.send(words, { value: 'x' });
  expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(75);
});

test('under random faults nothing is lost, repeated or out of order (invariants 1, 6)', async (context) => {
  const programme = new Programme(context);
  const { random } = programme;
  await using t = await start({ batchBytes: 120, maxInFlight: 4, bufferBytes: 4_000 }, 3);
  t.broker.onProduce = () => {
    const dice = random();
    if (dice < 0.02) return { kind: 'cut' };
    if (dice < 0.04) return { kind: 'cut after append' };
    if (dice < 0.1) return { kind: 'error', error: new LogError('BROKER_DRAINING', 'dice') };
    return undefined;
  };
  const sends = values(1_500).map((value, i) => t.producer.send(words, { value, partition: i % 3 }));
  const sent = await Promise.all(sends);
  programme.tried('sends', sent.length);
  for (const partition of [0, 1, 2]) {
    const log = await t.broker.partition('words', partition).values();
    const mine = values(1_500).filter((_, i) => i % 3 === partition);
    expect(log).toEqual(mine);
    const offsets = sent.filter((result) => result.partition === partition).map(({ offset }) => log[offset]);
    expect(offsets).toEqual(mine);
  }
});
