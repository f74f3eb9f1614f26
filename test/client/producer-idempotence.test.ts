/** What an idempotent producer does so that its partitions hold every record once and in order, whatever gets lost. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { connect } from '../../src/client/client.js';
import type { SendResult } from '../../src/client/completions.js';
import { LogError } from '../../src/core/errors.js';
import { inForm, Programme } from '../support/programme.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { FakeBroker, type ProduceFault } from './support/fake-broker.js';
import {
  DELIVERY_MS,
  numbersOf,
  outcomesOf,
  type Producing,
  places,
  startProducing,
  values,
  words,
} from './support/faulty-producing.js';

const refused: ProduceFault = { kind: 'error', error: new LogError('INVALID_TIMESTAMP', 'refused on purpose') };
/** Nothing is sent before this share of the delivery timeout has passed. */
const busyFor = (share: number): ProduceFault => ({
  kind: 'error',
  error: new LogError('BROKER_DRAINING', 'busy on purpose', { retryAfterMs: DELIVERY_MS * share }),
});

/** What befalls the requests with these numbers, counted from 0. */
function at(faults: Readonly<Record<number, ProduceFault>>): () => ProduceFault | undefined {
  let count = 0;
  return () => faults[count++];
}

test('what does not go with idempotence is refused, saying what does', async () => {
  await using broker = await FakeBroker.start();
  await using client = await connect(broker.address);
  await rejection(() => client.producer({ acks: 'none', idempotent: true }), 'INVALID_CONFIG');
  const { message } = await rejection(() => client.producer({ maxInFlight: 6 }), 'INVALID_CONFIG');
  expect(message).toContain('at most 5 when idempotent');
  await client.producer({ maxInFlight: 6, idempotent: false }).close();
  await client.producer({ maxInFlight: 6, acks: 'none' }).close();
});

test.each([{ acks: 'none' }, { idempotent: false }] as const)('with %o batches carry no identity', async (options) => {
  await using t = await startProducing(options);
  await Promise.all(values(3).map((value) => t.producer.send(words, { value })));
  await until(() => t.broker.partition('words').endOffset === 3, 'the records arrived');
  expect(numbersOf(t.broker.partition('words').batches[2] as Buffer)).toMatchObject({ id: -1, epoch: -1, first: -1 });
  expect(t.broker.calls).not.toContain('InitProducer');
});

test('sequences count records in each partition, under one identity', async () => {
  await using t = await startProducing({ batchBytes: 64 * 1024, lingerMs: 0 }, 2);
  for (const count of [2, 3, 1]) {
    await t.producer.sendMany(
      words,
      values(count * 2).map((value, i) => ({ value, partition: i % 2 })),
    );
  }
  for (const partition of [0, 1]) {
    const { batches } = t.broker.partition('words', partition);
    expect(batches.map(numbersOf)).toEqual([
      { id: 1_000, epoch: 0, first: 0, count: 2 },
      { id: 1_000, epoch: 0, first: 2, count: 3 },
      { id: 1_000, epoch: 0, first: 5, count: 1 },
    ]);
  }
  expect(t.broker.calls.filter((call) => call === 'InitProducer')).toHaveLength(1);
});

test('an identity that cannot be had yet is asked for again', async () => {
  await using t = await startProducing();
  let asked = 0;
  t.broker.onUnary = (method) =>
    method === 'InitProducer' && asked++ < 2 ? new LogError('BROKER_DRAINING', 'later') : undefined;
  await t.producer.send(words, { value: 'a' });
  expect(asked).toBe(3);
});

test('an identity that is refused fails the sends that wait for it, and the next send asks anew', async () => {
  await using t = await startProducing();
  let asked = 0;
  t.broker.onUnary = (method) =>
    method === 'InitProducer' && asked++ === 0 ? new LogError('INVALID_REQUEST', 'no') : undefined;
  const sends = [t.producer.send(words, { value: 'a' }), t.producer.sendMany(words, [{ value: 'b' }])];
  expect(await outcomesOf(sends)).toEqual(['INVALID_REQUEST none', 'INVALID_REQUEST none']);
  await t.producer.send(words, { value: 'c' });
  expect(await t.broker.partition('words').values()).toEqual(['c']);
});

test('a producer that is closed while it asks for its identity fails what waits', async () => {
  await using t = await startProducing();
  t.broker.onUnary = (method) => (method === 'InitProducer' ? new LogError('BROKER_DRAINING', 'later') : undefined);
  const sent = rejection(t.producer.send(words, { value: 'a' }), 'CLOSED');
  await until(() => t.broker.calls.includes('InitProducer'), 'it asks');
  await t.producer.close({ timeoutMs: 0 });
  await sent;
});

test.each(['cut', 'cut after append', 'late'] as const)(
  'whichever request the fault "%s" befalls, every record is there once and in order (invariant 6)',
  async (kind) => {
    for (let position = 0; position < 8; position++) {
      await using t = await startProducing({ maxInFlight: 3 });
      t.broker.onProduce = at({ [position]: { kind } });
      const sent = await Promise.all(values(8).map((value) => t.producer.send(words, { value })));
      expect(t.broker.releaseLate()).toBe(0);
      expect(await t.broker.partition('words').values()).toEqual(values(8));
      expect(sent.map(({ offset }) => offset)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    }
  },
);

test('five batches in flight keep their order when answers come in any order and the connection breaks (invariant 6)', async () => {
  await using t = await startProducing({ maxInFlight: 5 });
  let held = 0;
  t.broker.onProduce = () => (held++ < 5 ? { kind: 'hold' } : undefined);
  const sends = values(12).map((value) => t.producer.send(words, { value }));
  await until(() => t.broker.heldCount === 5, 'five are in flight');
  t.broker.releaseHeld('last to first');
  const sent = await Promise.all(sends);
  expect(sent.map(({ offset }) => offset)).toEqual(values(12).map((_, i) => i));
});

test('a batch that is refused leaves its sequence to the next, under the same epoch (invariant 5)', async () => {
  await using t = await startProducing({ maxInFlight: 5 });
  t.broker.onProduce = at({ 0: refused, 4: refused });
  const sends = values(8).map((value) => t.producer.send(words, { value }));
  const outcomes = await outcomesOf(sends);
  expect(outcomes.filter((outcome) => outcome !== 'fulfilled')).toEqual(Array(2).fill('INVALID_TIMESTAMP none'));
  const log = t.broker.partition('words');
  expect(await log.values()).toEqual(values(8).filter((_, i) => outcomes[i] === 'fulfilled'));
  expect(places(log)).toEqual(['0:0', '0:1', '0:2', '0:3', '0:4', '0:5']);
});

test('a compressed batch that is refused leaves its sequence to the next as well', async () => {
  await using t = await startProducing({ compression: 'gzip' });
  t.broker.onProduce = at({ 1: refused });
  const outcomes = await outcomesOf(values(4).map((value) => t.producer.send(words, { value })));
  expect(outcomes).toEqual(['fulfilled', 'INVALID_TIMESTAMP none', 'fulfilled', 'fulfilled']);
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w2', 'w3']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1', '0:2']);
});

test('a batch that ran out of time before anything could write it leaves its sequence to the next (invariant 5)', async () => {
  await using t = await startProducing();
  await t.producer.send(words, { value: 'w0' });
  t.broker.onProduce = at({ 0: busyFor(1.25) });
  const lost = t.producer.send(words, { value: 'w1' });
  await until(() => t.repeats() === 1, 'it was refused');
  t.clock.standStill(DELIVERY_MS / 2);
  const next = t.producer.send(words, { value: 'w2' });
  await new Promise((resolve) => setImmediate(resolve));
  t.clock.skip(DELIVERY_MS / 2);
  expect(await outcomesOf([lost])).toEqual(['REQUEST_TIMED_OUT none']);
  t.clock.skip(DELIVERY_MS * 0.3);
  await next;
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w2']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1']);
});

test('what was given up and perhaps written keeps its sequence: the next finds it in its place', async () => {
  await using t = await startProducing({ maxInFlight: 1 });
  t.broker.onProduce = at({ 1: { kind: 'cut after append' }, 2: busyFor(2) });
  await t.producer.send(words, { value: 'w0' });
  const lost = t.producer.send(words, { value: 'w1' });
  await until(() => t.repeats() === 2, 'the repetition was refused');
  t.clock.skip(DELIVERY_MS);
  expect(await outcomesOf([lost])).toEqual(['REQUEST_TIMED_OUT unknown']);
  t.clock.skip(DELIVERY_MS * 1.1);
  await t.producer.send(words, { value: 'w2' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w1', 'w2']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1', '0:2']);
});

test('where what was given up is missing, the lane goes on under the next epoch, which fences late copies (invariant 5)', async () => {
  await using t = await startProducing({ maxInFlight: 1 });
  t.broker.onProduce = at({ 1: { kind: 'late' }, 2: busyFor(2) });
  await t.producer.send(words, { value: 'w0' });
  const lost = t.producer.send(words, { value: 'w1' });
  await until(() => t.repeats() === 2, 'the repetition was refused');
  t.clock.skip(DELIVERY_MS);
  expect(await outcomesOf([lost])).toEqual(['REQUEST_TIMED_OUT unknown']);
  t.clock.skip(DELIVERY_MS * 1.1);
  await Promise.all(['w2', 'w3'].map((value) => t.producer.send(words, { value })));
  expect(t.broker.releaseLate()).toBe(0);
  await t.producer.send(words, { value: 'w4' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w2', 'w3', 'w4']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '1:0', '1:1', '1:2']);
  expect(t.warnings).toEqual([]);
});

test('what was sent behind a batch that was given up may arrive with it, so it never goes under another number (invariant 6)', async () => {
  await using t = await startProducing({ maxInFlight: 2 });
  await t.producer.send(words, { value: 'w0' });
  t.broker.onProduce = at({ 0: { kind: 'late', count: 2 }, 1: busyFor(0.75) });
  const first = t.producer.send(words, { value: 'w1' });
  await until(() => t.broker.requests.length === 2, 'the first is under way');
  t.clock.standStill(DELIVERY_MS / 2);
  const second = outcomesOf([t.producer.send(words, { value: 'w2' })]);
  await until(() => t.repeats() === 2, 'the connection broke, and the repetition was refused');
  t.clock.skip(DELIVERY_MS / 2);
  expect(await outcomesOf([first])).toEqual(['REQUEST_TIMED_OUT unknown']);
  t.clock.skip(DELIVERY_MS * 0.3);
  expect(await second).toEqual(['OUT_OF_ORDER_SEQUENCE_NUMBER unknown']);
  expect(t.broker.releaseLate()).toBe(2);
  await t.producer.send(words, { value: 'w3' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w1', 'w2', 'w3']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1', '0:2', '1:0']);
});

test('what was acknowledged behind a batch that goes again, in vain, keeps its sequences', async () => {
  await using t = await startProducing({ maxInFlight: 3 }, 1, DELIVERY_MS / 4);
  await t.producer.send(words, { value: 'w0' });
  t.broker.onProduce = at({ 0: { kind: 'silence' }, 3: refused });
  const outcomes = outcomesOf(['w1', 'w2', 'w3'].map((value) => t.producer.send(words, { value })));
  await until(() => t.broker.partition('words').endOffset === 4, 'all of it is appended');
  // What comes over the same connection afterwards tells that the other two were answered.
  await t.client.admin.listTopics();
  t.clock.skip(DELIVERY_MS / 4);
  expect(await outcomes).toEqual(['INVALID_TIMESTAMP unknown', 'fulfilled', 'fulfilled']);
  expect((await t.producer.send(words, { value: 'w4' })).offset).toBe(4);
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w1', 'w2', 'w3', 'w4']);
});

test('records that the broker has lost are told of, and the lane goes on under the next epoch', async () => {
  await using t = await startProducing({ acks: 'written' });
  await Promise.all(values(4).map((value) => t.producer.send(words, { value })));
  t.broker.partition('words').lose(2);
  await Promise.all(values(3, 'x').map((value) => t.producer.send(words, { value })));
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w1', 'x0', 'x1', 'x2']);
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1', '1:0', '1:1', '1:2']);
  expect(t.warnings).toEqual(['the broker has lost records of this producer']);
});

test('a broker that finds sequence 0 of a new epoch out of order is believed, record by record', async () => {
  await using t = await startProducing();
  const nonsense = new LogError('OUT_OF_ORDER_SEQUENCE_NUMBER', 'nonsense');
  t.broker.onProduce = at({ 0: { kind: 'error', error: nonsense }, 1: { kind: 'error', error: nonsense } });
  await rejection(t.producer.send(words, { value: 'w0' }), 'OUT_OF_ORDER_SEQUENCE_NUMBER');
  await t.producer.send(words, { value: 'w1' });
  expect(places(t.broker.partition('words'))).toEqual(['1:0']);
});

test('when there is no next epoch, the lane goes on under another producer id', async () => {
  await using t = await startProducing({ acks: 'written' });
  t.broker.firstEpoch = 32_767;
  await Promise.all(values(3).map((value) => t.producer.send(words, { value })));
  t.broker.partition('words').lose(1);
  t.broker.firstEpoch = 0;
  await Promise.all(values(3, 'x').map((value) => t.producer.send(words, { value })));
  const log = t.broker.partition('words');
  expect(await log.values()).toEqual(['w0', 'x0', 'x1', 'x2']);
  expect(places(log)).toEqual(['32767:0', '0:0', '0:1', '0:2']);
  expect(log.producers.producerIds).toEqual([1_000, 1_001]);
});

test('another producer id that cannot be had fails what waits for it; the next send asks anew', async () => {
  await using t = await startProducing({ acks: 'written' });
  t.broker.firstEpoch = 32_767;
  await Promise.all(values(2).map((value) => t.producer.send(words, { value })));
  t.broker.partition('words').lose(1);
  t.broker.onUnary = (method) => (method === 'InitProducer' ? new LogError('INVALID_REQUEST', 'no') : undefined);
  await rejection(t.producer.send(words, { value: 'x0' }), 'INVALID_REQUEST');
  t.broker.onUnary = () => undefined;
  await t.producer.send(words, { value: 'x1' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'x1']);
});

test('a producer whose id somebody else uses fails what is under way and goes on under another id', async () => {
  await using t = await startProducing();
  await t.producer.send(words, { value: 'w0' });
  const records = [{ timestampMs: 0, key: null, value: Buffer.from('stranger') }];
  const strange = encodeBatch(records, { producerId: 1_000, producerEpoch: 7, baseSequence: 0 });
  t.broker.partition('words').append(strange);
  const outcomes = await outcomesOf(values(3, 'x').map((value) => t.producer.send(words, { value })));
  expect(outcomes).toEqual(Array(3).fill('PRODUCER_FENCED none'));
  await t.producer.send(words, { value: 'w1' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'stranger', 'w1']);
});

test('the parts of a batch that is too large share its sequences', async () => {
  await using t = await startProducing({ batchBytes: 64 * 1024 });
  t.broker.onProduce = (_request, { records }) =>
    records > 2 ? { kind: 'error', error: new LogError('MESSAGE_TOO_LARGE', 'too large') } : undefined;
  await t.producer.sendMany(
    words,
    values(7).map((value) => ({ value })),
  );
  await t.producer.send(words, { value: 'w7' });
  expect(await t.broker.partition('words').values()).toEqual(values(8));
  expect(places(t.broker.partition('words'))).toEqual(['0:0', '0:1', '0:3', '0:5', '0:7']);
  expect(t.broker.partition('words').producers.duplicates).toBe(0);
});

test('a batch that may have been written is not split (invariants 5, 6)', async () => {
  await using t = await startProducing({ batchBytes: 64 * 1024 });
  const tooLarge: ProduceFault = { kind: 'error', error: new LogError('MESSAGE_TOO_LARGE', 'too large') };
  t.broker.onProduce = at({ 0: { kind: 'cut after append' }, 1: tooLarge });
  const outcomes = await outcomesOf(['a', 'b'].map((value) => t.producer.send(words, { value })));
  expect(outcomes).toEqual(Array(2).fill('MESSAGE_TOO_LARGE unknown'));
  await t.producer.send(words, { value: 'c' });
  expect(await t.broker.partition('words').values()).toEqual(['a', 'b', 'c']);
});

test('the error that ends a stream is that of one request: the others may have been carried out (invariant 5)', async () => {
  await using t = await startProducing({ maxInFlight: 3 });
  await t.producer.send(words, { value: 'w0' });
  const ended: ProduceFault = { kind: 'end', error: new LogError('INVALID_REQUEST', 'one of them') };
  t.broker.onProduce = at({ 0: { kind: 'silence' }, 1: ended });
  const sends = ['w1', 'w2'].map((value) => t.producer.send(words, { value }));
  expect(await outcomesOf(sends)).toEqual(Array(2).fill('INVALID_REQUEST unknown'));
  await t.producer.send(words, { value: 'w3' });
  expect(await t.broker.partition('words').values()).toEqual(['w0', 'w1', 'w3']);
});

const CHAOS_WAVES = inForm({ short: 25, long: 1_000 });
const CHAOS_WAVE = 36;

/** One of all the things that can happen to a request. */
function anyFault({ broker }: Producing, programme: Programme): ProduceFault | undefined {
  const dice = programme.random();
  // What was lost on the way may turn up at any moment.
  if (dice < 0.05) broker.releaseLate();
  else if (dice < 0.07) return { kind: 'cut' };
  else if (dice < 0.09) return { kind: 'cut after append' };
  else if (dice < 0.12) return { kind: 'late', count: 1 + programme.below(4) };
  else if (dice < 0.13) return { kind: 'silence' };
  else if (dice < 0.15) return { kind: 'end', error: new LogError('INVALID_REQUEST', 'dice') };
  else if (dice < 0.18) return { kind: 'error', error: new LogError('BROKER_DRAINING', 'dice') };
  else if (dice < 0.21) return refused;
  else if (dice < 0.22) return busyFor(programme.random());
  return undefined;
}

test('whatever happens to requests, nothing is lost, repeated, out of order or there in spite of a refusal (invariants 1, 5, 6)', async (context) => {
  const programme = new Programme(context);
  await using t = await startProducing({ maxInFlight: 5, batchBytes: 100 }, 3, DELIVERY_MS / 3);
  t.broker.onProduce = () => anyFault(t, programme);
  const passing = setInterval(() => t.clock.skip(programme.below(DELIVERY_MS * 0.1)), 2);
  const sent: { value: string; partition: number; result: Promise<SendResult> }[] = [];
  for (let wave = 0; wave < CHAOS_WAVES; wave++) {
    for (let i = 0; i < CHAOS_WAVE; i++) {
      const partition = programme.below(3);
      const value = `w${sent.length}`;
      const result = t.producer.send(words, { value, partition });
      result.catch(() => {}); // looked at below
      sent.push({ value, partition, result });
    }
    if (programme.random() < 0.7) await t.producer.flush();
    else await nextTurn();
  }
  const results = await Promise.allSettled(sent.map(({ result }) => result));
  clearInterval(passing);
  t.broker.releaseLate();
  const logs = await Promise.all([0, 1, 2].map((partition) => t.broker.partition('words', partition).values()));
  const placeOf = (value: string): number => Number(value.slice(1));
  for (const log of logs) expect(log).toEqual([...new Set(log)].toSorted((a, b) => placeOf(a) - placeOf(b)));
  for (const [i, result] of results.entries()) {
    const { value, partition } = sent[i] as { value: string; partition: number };
    if (result.status === 'fulfilled') expect(logs[partition]?.[result.value.offset]).toBe(value);
    else if (result.reason.outcome === 'none') expect(logs[partition]).not.toContain(value);
  }
  programme.tried('sends', sent.length);
  const bumps = [0, 1, 2].map((partition) => t.broker.partition('words', partition).producers.epochOf(1_000) ?? 0);
  programme.tried(
    'epochs',
    bumps.reduce((sum, epoch) => sum + epoch, 0),
  );
});
