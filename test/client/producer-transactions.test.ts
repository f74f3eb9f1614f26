/** What a producer inside a transactional one does: one transaction after the other, each with an identity of its own. */
import { expect, test } from 'vitest';
import { Channel } from '../../src/client/channel.js';
import { MetadataCache } from '../../src/client/metadata-cache.js';
import { type ProducerOptions, resolveProducerOptions } from '../../src/client/options.js';
import { Producer } from '../../src/client/producer.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import { silentLogger } from '../../src/core/logger.js';
import { systemRandom } from '../../src/core/random.js';
import type { ProduceRequest } from '../../src/rpc/messages.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { FakeBroker } from './support/fake-broker.js';
import { isInTransaction, numbersOf, outcomesOf, places, values, words } from './support/faulty-producing.js';

const ABORTED = new LogError('TRANSACTION_ABORTABLE', 'given up on purpose');

interface Setting extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly producer: Producer;
}

async function start(options: ProducerOptions = {}, partitions = 1): Promise<Setting> {
  const broker = await FakeBroker.start();
  const topic = broker.addTopic('words', partitions);
  const channel = new Channel(broker.address, 'test', systemClock);
  const lookup = async (): Promise<never> => ({ ...topic, partitionCount: partitions }) as never;
  const producer = new Producer({
    channel,
    runtime: { clock: systemClock, random: systemRandom, logger: silentLogger },
    metadata: new MetadataCache(lookup, systemClock, 300_000),
    options: resolveProducerOptions({
      acks: 'written',
      batchBytes: 1,
      retryBackoffMs: 2,
      retryBackoffMaxMs: 10,
      ...options,
    }),
    requestTimeoutMs: 30_000,
    maxRequestBytes: 1024 * 1024,
    onClosed: () => {},
    transactional: { transactionalId: 'billing-1' },
  });
  return {
    broker,
    producer,
    async [Symbol.asyncDispose]() {
      await producer.close({ timeoutMs: 0 });
      channel.close();
      await broker.stop();
    },
  };
}

const send = (t: Setting, all: readonly string[], partition = 0): Promise<unknown>[] =>
  all.map((value) => t.producer.send(words, { value, partition }));

test('batches carry the identity of their transaction, sequences from 0 and the transactional id', async () => {
  await using t = await start({}, 2);
  const seen: ProduceRequest[] = [];
  t.broker.onProduce = (request) => {
    seen.push(request);
    return undefined;
  };
  for (const producerEpoch of [3, 4]) {
    t.producer.begin({ producerId: 9, producerEpoch });
    await Promise.all([...send(t, values(2)), ...send(t, ['x'], 1)]);
    await t.producer.flush();
    expect(t.producer.failure).toBeUndefined();
  }
  expect(places(t.broker.partition('words'))).toEqual(['3:0', '3:1', '4:0', '4:1']);
  expect(places(t.broker.partition('words', 1))).toEqual(['3:0', '4:0']);
  expect(t.broker.partition('words').batches.every(isInTransaction)).toBe(true);
  expect(seen.every(({ transactionalId, acks }) => transactionalId === 'billing-1' && acks === 'ACKS_WRITTEN')).toBe(
    true,
  );
  expect(t.broker.calls).not.toContain('InitProducer');
});

test('the parts of a batch that is too large, compressed, are transactional too', async () => {
  await using t = await start({ batchBytes: 64 * 1024, compression: 'gzip' });
  t.broker.onProduce = (_request, { records }) =>
    records > 2 ? { kind: 'error', error: new LogError('MESSAGE_TOO_LARGE', 'too large') } : undefined;
  t.producer.begin({ producerId: 9, producerEpoch: 0 });
  await t.producer.sendMany(
    words,
    values(4).map((value) => ({ value })),
  );
  const { batches } = t.broker.partition('words');
  expect(batches.map((batch) => numbersOf(batch).first)).toEqual([0, 2]);
  expect(batches.every(isInTransaction)).toBe(true);
});

test('outside of a transaction nothing is sent', async () => {
  await using t = await start();
  await rejection(t.producer.send(words, { value: 'a' }), 'INVALID_TXN_STATE');
});

test('a transaction does not begin while records of the one before are unsettled', async () => {
  await using t = await start();
  t.producer.begin({ producerId: 9, producerEpoch: 0 });
  const sent = t.producer.send(words, { value: 'a' });
  await rejection(() => t.producer.begin({ producerId: 9, producerEpoch: 1 }), 'INTERNAL');
  await sent;
});

test('lost answers are made up for inside a transaction as well', async () => {
  await using t = await start();
  let count = 0;
  t.broker.onProduce = () => (count++ === 1 ? { kind: 'cut after append' } : undefined);
  t.producer.begin({ producerId: 9, producerEpoch: 0 });
  await Promise.all(send(t, values(5)));
  expect(await t.broker.partition('words').values()).toEqual(values(5));
});

test('the first failure of a batch is kept until the next transaction begins, and no epoch is raised', async () => {
  await using t = await start();
  t.broker.onProduce = () => ({ kind: 'error', error: new LogError('OUT_OF_ORDER_SEQUENCE_NUMBER', 'missing') });
  t.producer.begin({ producerId: 9, producerEpoch: 5 });
  expect(await outcomesOf(send(t, values(1)))).toEqual(['OUT_OF_ORDER_SEQUENCE_NUMBER none']);
  expect(t.producer.failure?.reason).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  t.broker.onProduce = () => undefined;
  t.producer.begin({ producerId: 9, producerEpoch: 6 });
  expect(t.producer.failure).toBeUndefined();
  await Promise.all(send(t, values(2)));
  expect(places(t.broker.partition('words'))).toEqual(['6:0', '6:1']);
});

test('what is abandoned fails at once, in flight, sealed, lingering and waiting, and leaves nothing behind', async () => {
  await using t = await start({ maxInFlight: 2, bufferBytes: 400 });
  t.broker.onProduce = () => ({ kind: 'hold' });
  t.producer.begin({ producerId: 9, producerEpoch: 0 });
  const sends = send(t, values(20));
  const call = t.producer.sendMany(
    words,
    values(20, 'm').map((value) => ({ value })),
  );
  const outcomes = outcomesOf([...sends, call]);
  await until(() => t.broker.heldCount === 2, 'two are in flight');
  t.producer.abandon(ABORTED);
  const seen = await outcomes;
  expect(seen.every((outcome) => outcome.startsWith('TRANSACTION_ABORTABLE'))).toBe(true);
  expect(seen.filter((outcome) => outcome.endsWith('unknown'))).toHaveLength(2);
  t.broker.onProduce = () => undefined;
  t.producer.begin({ producerId: 9, producerEpoch: 1 });
  t.broker.releaseHeld();
  await Promise.all(send(t, values(20, 'x')));
  expect((await t.broker.partition('words').values()).slice(2)).toEqual(values(20, 'x'));
});

test('between what was abandoned and the next transaction nothing is sent, not even by a sendMany that is still at it', async () => {
  await using t = await start();
  t.producer.begin({ producerId: 9, producerEpoch: 0 });
  await Promise.all(send(t, ['first']));
  let goOn = (): void => {};
  const paused = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const endless = async function* (): AsyncGenerator<{ value: string }> {
    await paused;
    for (let i = 0; ; i++) yield { value: `late${i}` };
  };
  const call = rejection(t.producer.sendMany(words, endless()), 'TRANSACTION_ABORTABLE');
  t.producer.abandon(ABORTED);
  expect(await outcomesOf(send(t, ['between']))).toEqual(['TRANSACTION_ABORTABLE none']);
  t.producer.begin({ producerId: 9, producerEpoch: 1 });
  goOn();
  await call;
  await Promise.all(send(t, ['second']));
  expect(await t.broker.partition('words').values()).toEqual(['first', 'second']);
});

test('what lingers is abandoned without being sent', async () => {
  await using t = await start({ batchBytes: 64 * 1024, lingerMs: 10_000 });
  t.producer.begin({ producerId: 9, producerEpoch: 0 });
  const outcomes = outcomesOf(send(t, values(3)));
  await until(() => t.broker.producesOpen === 0, 'nothing is open');
  await t.producer.flush();
  const lingering = outcomesOf(send(t, values(3, 'x')));
  t.producer.abandon(ABORTED);
  expect(await outcomes).toEqual(Array(3).fill('fulfilled'));
  expect(await lingering).toEqual(Array(3).fill('TRANSACTION_ABORTABLE none'));
  expect(await t.broker.partition('words').values()).toEqual(values(3));
});
