import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { InitProducerRequest, InitProducerResponse } from '../../../src/rpc/messages.js';
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
