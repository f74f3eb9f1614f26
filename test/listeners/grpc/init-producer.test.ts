import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import type { InitProducerRequest, InitProducerResponse, ProduceResponse } from '../../../src/rpc/messages.js';
import { rejection } from '../../support/rejection.js';
import { type Running, run } from './support.js';

let running: Running;

beforeEach(async () => {
  running = await run();
});

afterEach(async () => {
  await running.stop();
});

function init(request: Partial<InitProducerRequest> = {}): Promise<InitProducerResponse> {
  return running.raw.call('ProduceService', 'InitProducer', request);
}

describe('InitProducer without a transactional id', () => {
  test('gives everybody another id, with epoch 0', async () => {
    const given = await Promise.all(Array.from({ length: 20 }, () => init()));
    expect(new Set(given.map(({ producerId }) => producerId)).size).toBe(20);
    expect(new Set(given.map(({ producerEpoch }) => producerEpoch))).toEqual(new Set([0]));
  });

  test('does not go on from an id given before', async () => {
    const { producerId, producerEpoch } = await init();
    const refusal = await rejection(init({ producerId, producerEpoch }), 'INVALID_REQUEST');
    expect(refusal.message).toContain('go with a transactional_id');
  });
});

test.each([
  ['an id without an epoch', { producerId: 1 }],
  ['an epoch without an id', { producerEpoch: 1 }],
  ['a negative id', { producerId: -1, producerEpoch: 0 }],
  ['a negative epoch', { producerId: 1, producerEpoch: -1 }],
  ['an epoch beyond 16 bits', { producerId: 1, producerEpoch: 32_768 }],
])('InitProducer refuses %s', async (_name, identity) => {
  await rejection(init({ transactionalId: 'x', ...identity }), 'INVALID_REQUEST');
});

describe('with a transactional id', () => {
  function transactional(baseSequence: number, { producerId, producerEpoch }: InitProducerResponse): Buffer {
    const record = { timestampMs: Date.now(), key: null, value: Buffer.from('v') };
    return encodeBatch([record], { producerId, producerEpoch, baseSequence, transactional: true });
  }

  function send(who: InitProducerResponse, baseSequence = 0): Promise<ProduceResponse> {
    return running.raw.produce({ topic: 't', transactionalId: 'x', batches: [transactional(baseSequence, who)] });
  }

  beforeEach(async () => {
    await running.raw.createTopic('t');
  });

  test('InitProducer takes over: what was open is aborted, who was there before is refused', async () => {
    const first = await init({ transactionalId: 'x' });
    expect(await send(first)).toMatchObject({ baseOffset: 0 });
    const second = await init({ transactionalId: 'x' });
    expect(second.producerId).toBe(first.producerId);
    expect(second.producerEpoch).toBeGreaterThan(first.producerEpoch);
    await rejection(send(first, 1), 'PRODUCER_FENCED');
    await rejection(init({ transactionalId: 'x', ...first }), 'PRODUCER_FENCED');
    // The marker lies between.
    expect(await send(second)).toMatchObject({ baseOffset: 2 });
  });

  test('a batch of a producer that never began is refused and leaves nothing open', async () => {
    await rejection(send({ producerId: 7, producerEpoch: 0 }), 'INVALID_PRODUCER_ID_MAPPING');
    const fetched = await running.raw.fetchOne('t', 0);
    expect(fetched).toMatchObject({ highWatermark: 0, lastStableOffset: 0 });
  });

  test('a repeated batch is answered with where it is', async () => {
    const who = await init({ transactionalId: 'x' });
    await send(who);
    expect(await send(who)).toMatchObject({ baseOffset: 0, duplicateCount: 1 });
  });

  test('a control batch of a client is refused', async () => {
    const who = await init({ transactionalId: 'x' });
    const { producerId, producerEpoch } = who;
    const record = { timestampMs: Date.now(), key: Buffer.from([0, 0, 0, 1]), value: Buffer.alloc(6) };
    const options = { producerId, producerEpoch, baseSequence: 0, transactional: true, control: true };
    const request = { topic: 't', transactionalId: 'x', batches: [encodeBatch([record], options)] };
    await rejection(running.raw.produce(request), 'INVALID_RECORD');
  });
});
