/** What the commands of `tidelog transaction` and `tidelog producer` print, over a broker that answers as told. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Confirm } from '../../src/cli/confirm.js';
import { LogError } from '../../src/core/errors.js';
import { FakeBroker } from '../client/support/fake-broker.js';
import { type Executed, executed } from './in-process.js';

let fake: FakeBroker;

beforeAll(async () => {
  fake = await FakeBroker.start();
});

afterAll(() => fake.stop());

function run(args: readonly string[], confirm?: Confirm): Promise<Executed> {
  return executed(fake.address, args, confirm);
}

const TIME = Date.UTC(2026, 10, 25, 9, 30);

const ongoing = {
  transactionalId: 'billing-1',
  state: 'TRANSACTION_STATE_ONGOING',
  producerId: 4001,
  producerEpoch: 7,
  timeoutMs: 60_000,
  startTimeMs: TIME,
  updateTimeMs: TIME + 5,
  partitions: [
    { topic: 'invoices', topicId: 'i', partition: 0 },
    { topic: 'invoices', topicId: 'i', partition: 3 },
  ],
  groupIds: ['billing'],
};
const ended = {
  ...ongoing,
  transactionalId: 'billing-2',
  state: 'TRANSACTION_STATE_COMPLETE_COMMIT',
  startTimeMs: undefined,
  partitions: [],
  groupIds: [],
};

test('transactional ids are listed', async () => {
  fake.onGroups = () => ({ transactions: [ongoing, ended] });
  expect((await run(['transaction', 'list'])).stdout).toMatchInlineSnapshot(`
    "ID         STATE            PRODUCER ID  EPOCH  TIMEOUT MS  STARTED                   CHANGED
    billing-1  ongoing                 4001      7       60000  2026-11-25T09:30:00.000Z  2026-11-25T09:30:00.005Z
    billing-2  complete-commit         4001      7       60000  -                         2026-11-25T09:30:00.005Z
    "
  `);
  const [first, second] = JSON.parse((await run(['transaction', 'list', '--json'])).stdout);
  expect(first).toMatchObject({ transactionalId: 'billing-1', state: 'ongoing', startTimeMs: TIME });
  expect(second).toMatchObject({ transactionalId: 'billing-2', state: 'complete-commit', startTimeMs: null });
  fake.onGroups = () => ({ transactions: [] });
  expect((await run(['transaction', 'list'])).stdout).toBe('There are no transactional ids.\n');
});

test('a transactional id is described with what its transaction writes to', async () => {
  fake.onGroups = () => ({ transaction: ongoing });
  expect((await run(['transaction', 'describe', 'billing-1'])).stdout).toMatchInlineSnapshot(`
    "Transactional id billing-1: ongoing, producer id 4001, epoch 7
    Transactions may take 60000 ms. Last change: 2026-11-25T09:30:00.005Z.
    The transaction began at 2026-11-25T09:30:00.000Z.
    It commits offsets of group billing.

    TOPIC     PARTITION
    invoices          0
    invoices          3
    "
  `);
  expect(JSON.parse((await run(['transaction', 'describe', 'billing-1', '--json'])).stdout)).toMatchObject({
    groupIds: ['billing'],
    partitions: ongoing.partitions,
  });
  fake.onGroups = () => ({ transaction: ended });
  expect((await run(['transaction', 'describe', 'billing-2'])).stdout).toMatchInlineSnapshot(`
    "Transactional id billing-2: complete-commit, producer id 4001, epoch 7
    Transactions may take 60000 ms. Last change: 2026-11-25T09:30:00.005Z.
    "
  `);
});

test('an unknown transactional id is refused in one line', async () => {
  fake.onGroups = () => {
    throw new LogError('TRANSACTIONAL_ID_NOT_FOUND', 'There is no transactional id "x".');
  };
  const { code, line } = await run(['transaction', 'describe', 'x']);
  expect([code, line]).toEqual([1, 'tidelog: TRANSACTIONAL_ID_NOT_FOUND: There is no transactional id "x".']);
});

test('a transaction is aborted with --yes, or by whoever says yes', async () => {
  const calls: string[] = [];
  fake.onGroups = (method) => {
    calls.push(method);
    return {
      transaction: method === 'AbortTransaction' ? { ...ended, state: 'TRANSACTION_STATE_COMPLETE_ABORT' } : ongoing,
    };
  };
  const aborted = await run(['transaction', 'abort', 'billing-1', '--yes']);
  expect(aborted).toMatchObject({ code: 0, stdout: 'The transaction of billing-1 is aborted.\n' });
  expect(calls).toEqual(['AbortTransaction']);

  expect(await run(['transaction', 'abort', 'billing-1'])).toMatchObject({ code: 2 });
  expect(calls).toHaveLength(1);

  let question = '';
  const answer =
    (yes: boolean): Confirm =>
    async (asked) => {
      question = asked;
      return yes;
    };
  expect((await run(['transaction', 'abort', 'billing-1'], answer(false))).stdout).toBe('Nothing was aborted.\n');
  expect(question).toBe('The transaction of billing-1 is ongoing, in 2 partitions. Abort it?');
  expect(calls).not.toContain(undefined);
  expect(calls.filter((method) => method === 'AbortTransaction')).toHaveLength(1);
  expect((await run(['transaction', 'abort', 'billing-1'], answer(true))).stdout).toContain('is aborted');
  expect(calls.filter((method) => method === 'AbortTransaction')).toHaveLength(2);
});

test('hanging transactions are listed, of which there should be none', async () => {
  fake.onGroups = () => ({ transactions: [] });
  expect((await run(['transaction', 'find-hanging'])).stdout).toBe('No transaction hangs.\n');
  fake.onGroups = () => ({
    transactions: [{ topic: 'invoices', partition: 3, producerId: 4001, producerEpoch: 7, firstOffset: 12 }],
  });
  expect((await run(['transaction', 'find-hanging'])).stdout).toMatchInlineSnapshot(`
    "TOPIC     PARTITION  PRODUCER ID  EPOCH  FIRST OFFSET
    invoices          3         4001      7            12
    "
  `);
});

test('the producers of a partition are described', async () => {
  const producer = { producerId: 4001, producerEpoch: 7, lastSequence: 41, lastTimestampMs: TIME };
  fake.onGroups = () => ({
    producers: [
      producer,
      {
        ...producer,
        producerId: 4002,
        lastSequence: -1,
        lastTimestampMs: -1,
        openTransactionFirstOffset: 12,
        openTransactionStartTimeMs: TIME,
      },
    ],
  });
  expect((await run(['producer', 'describe', 'invoices', '--partition', '3'])).stdout).toMatchInlineSnapshot(`
    "PRODUCER ID  EPOCH  LAST SEQUENCE  LAST TIMESTAMP            OPEN SINCE                AT OFFSET
           4001      7             41  2026-11-25T09:30:00.000Z  -                                 -
           4002      7              -  -                         2026-11-25T09:30:00.000Z         12

    2 producers
    "
  `);
  const [first, second] = JSON.parse(
    (await run(['producer', 'describe', 'invoices', '--partition', '3', '--json'])).stdout,
  );
  expect(first).toEqual({ ...producer, openTransaction: null });
  expect(second.openTransaction).toEqual({ firstOffset: 12, startTimeMs: TIME });
  fake.onGroups = () => ({ producers: [] });
  const { stdout } = await run(['producer', 'describe', 'invoices', '--partition', '3']);
  expect(stdout).toBe('invoices-3 remembers no producers.\n');
  expect((await run(['producer', 'describe', 'invoices'])).code).toBe(2);
});
