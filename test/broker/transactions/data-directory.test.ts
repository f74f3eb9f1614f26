/** Transactions of a whole broker over real files. */
import { readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import type { ProducerIdentity } from '../../../src/broker/transactions/coordinator-types.js';
import { type RunningBroker, startBroker } from '../../../src/broker.js';
import { LogError } from '../../../src/core/errors.js';
import { RawClient } from '../../listeners/grpc/support.js';
import { rejection } from '../../support/rejection.js';
import { temporaryDirectory } from '../../support/temporary-directory.js';
import { until } from '../../support/until.js';

const MARKER = '.clean_shutdown';

let dataDir: string;
let broker: RunningBroker;
let raw: RawClient;

async function start(): Promise<void> {
  broker = await startBroker({
    storage: { dataDir },
    groups: { offsetsTopicPartitions: 2 },
    transactions: { stateTopicPartitions: 2 },
  });
  raw = new RawClient(broker.address);
  await until(isLoaded, 'transactions are served');
}

async function isLoaded(): Promise<boolean> {
  try {
    await raw.call('AdminService', 'ListTransactions', {});
    return true;
  } catch (error) {
    if (error instanceof LogError && error.reason === 'COORDINATOR_LOAD_IN_PROGRESS') return false;
    throw error;
  }
}

async function stop(): Promise<void> {
  raw.close();
  await broker.close();
}

beforeEach(async () => {
  dataDir = temporaryDirectory();
  await start();
  await raw.createTopic('t', 2);
});

afterEach(stop);

const TX = { transactionalId: 'tx' };

function send(identity: ProducerIdentity, partition: number, value: string): Promise<unknown> {
  const record = { timestampMs: Date.now(), key: null, value: Buffer.from(value) };
  const batch = encodeBatch([record], { ...identity, baseSequence: 0, transactional: true });
  return raw.produce({ topic: 't', partition, batches: [batch], acks: 'ACKS_WRITTEN', ...TX });
}

async function end(call: 'Commit' | 'Abort', identity: ProducerIdentity): Promise<ProducerIdentity> {
  return await raw.call<ProducerIdentity>('TransactionService', call, { ...TX, ...identity });
}

async function init(): Promise<ProducerIdentity> {
  return await raw.call<ProducerIdentity>('ProduceService', 'InitProducer', TX);
}

test('after a clean stop a producer goes on; what was open is aborted', async () => {
  const first = await init();
  await send(first, 0, 'a');
  await send(first, 1, 'a');
  const second = await end('Commit', first);
  await stop();
  await start();
  expect(await end('Commit', first)).toEqual(second);
  await send(second, 0, 'b');
  await stop();
  await start();
  await rejection(send(second, 1, 'c'), 'TRANSACTION_ABORTABLE');
  const third = await end('Abort', second);
  await send(third, 1, 'd');
  await end('Commit', third);
  expect(await raw.call('AdminService', 'ListHangingTransactions', {})).toMatchObject({ transactions: [] });
});

test('after a stop that may have lost what was written, an identity of before commits nothing (invariant 11)', async () => {
  const first = await init();
  const second = await end('Abort', first);
  await stop();
  expect(readdirSync(dataDir)).toContain(MARKER);
  rmSync(path.join(dataDir, MARKER));
  await start();
  // What it had sent to partition 0 may be gone: with what it sends now it would be committed in part.
  await rejection(send(second, 1, 'b'), 'TRANSACTION_ABORTABLE');
  await rejection(end('Commit', second), 'TRANSACTION_ABORTABLE');
  const third = await end('Abort', second);
  await send(third, 1, 'c');
  await end('Commit', third);
});
