/** What the calls of transactions hand on, wait for and weigh; `transactions.test.ts` has them with a whole broker. */
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type {
  HangingTransaction,
  ProducerIdentity,
  TransactionCoordinatorApi,
  TransactionStatus,
  TransactionSummary,
} from '../../../src/broker/transactions/coordinator-types.js';
import { LogError } from '../../../src/core/errors.js';
import { SharedWork } from '../../../src/listeners/grpc/shared-work.js';
import type {
  ListHangingTransactionsResponse,
  ListTransactionsResponse,
  TransactionMessage,
} from '../../../src/rpc/transaction-messages.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { serveTransactions } from './fake-transactions.js';
import { refusal } from './group-support.js';
import type { RawClient } from './support.js';

async function served(methods: Partial<TransactionCoordinatorApi>, totalBytes?: number): Promise<RawClient> {
  const { raw, stop } = await serveTransactions(methods, totalBytes);
  onTestFinished(stop);
  return raw;
}

const PRODUCER = { transactionalId: 'billing', producerId: 7, producerEpoch: 3 };
const NEXT: ProducerIdentity = { producerId: 7, producerEpoch: 4 };

function summary(transactionalId: string, status: TransactionStatus): TransactionSummary {
  const identity = { transactionalId, producerId: 1, producerEpoch: 2 };
  return { ...identity, status, timeoutMs: 60_000, startMs: status === 'ongoing' ? 5 : undefined, updateMs: 9 };
}

describe('AddOffsets', () => {
  const OFFSET = { topic: 't', topicId: '', partition: 1, offset: 5, metadata: 'm' };
  const REQUEST = { ...PRODUCER, groupId: 'g', memberId: 'me', memberEpoch: 2, offsets: [OFFSET] };

  test('hands everything on, and tells of each offset that is refused', async () => {
    const error = new LogError('FENCED_MEMBER_EPOCH', 'moved on', { metadata: { member_epoch: 3 } });
    const addOffsets = vi.fn<TransactionCoordinatorApi['addOffsets']>(async () => [
      { topic: 't', partition: 1, error },
    ]);
    const raw = await served({ addOffsets });
    const answer = raw.call<{ refused: [] }>('TransactionService', 'AddOffsets', REQUEST);
    expect((await refusal(answer, 'FENCED_MEMBER_EPOCH')).metadata).toEqual({ member_epoch: '3' });
    expect(addOffsets).toHaveBeenCalledWith({ ...REQUEST, offsets: [{ ...OFFSET, leaderEpoch: -1 }] });
  });

  test('takes room while it is carried out (invariant 21)', async () => {
    let finish: (() => void) | undefined;
    const addOffsets = vi.fn<TransactionCoordinatorApi['addOffsets']>(
      () =>
        new Promise((resolve) => {
          finish = (): void => resolve([]);
        }),
    );
    const raw = await served({ addOffsets }, 64 * 1024);
    const offsets = Array.from({ length: 100 }, () => OFFSET);
    const large = raw.call('TransactionService', 'AddOffsets', { ...REQUEST, offsets });
    await until(() => addOffsets.mock.calls.length === 1, 'it is under way');
    await rejection(raw.call('TransactionService', 'AddOffsets', REQUEST), 'RESOURCE_LIMIT');
    finish?.();
    await large;
    const small = raw.call('TransactionService', 'AddOffsets', REQUEST);
    await until(() => addOffsets.mock.calls.length === 2, 'there is room again');
    finish?.();
    await small;
  });
});

describe('Commit and Abort', () => {
  test.each([
    ['Commit', true],
    ['Abort', false],
  ])('%s answers with the identity for the next transaction', async (name, commit) => {
    const end = vi.fn<TransactionCoordinatorApi['end']>(async () => NEXT);
    const raw = await served({ end });
    expect(await raw.call('TransactionService', name, PRODUCER)).toEqual(NEXT);
    expect(end).toHaveBeenCalledWith(PRODUCER, commit);
  });

  test.each(['PRODUCER_FENCED', 'INVALID_TXN_STATE', 'TRANSACTION_ABORTABLE', 'INVALID_PRODUCER_ID_MAPPING'] as const)(
    'carry %s with its metadata',
    async (reason) => {
      const refuse = async (): Promise<never> => {
        throw new LogError(reason, 'no', { metadata: { transactional_id: 'billing' } });
      };
      const raw = await served({ end: refuse });
      const error = await rejection(raw.call('TransactionService', 'Commit', PRODUCER), reason);
      expect(error.metadata).toEqual({ transactional_id: 'billing' });
    },
  );

  test('who gives up waiting ends the wait only; who asks again gets the answer', async () => {
    let finish: ((next: ProducerIdentity) => void) | undefined;
    const end = vi.fn<TransactionCoordinatorApi['end']>(
      () =>
        new Promise((resolve) => {
          finish = resolve;
        }),
    );
    const waits = vi.spyOn(SharedWork.prototype, 'wait');
    onTestFinished(() => waits.mockRestore());
    const raw = await served({ end });
    const call = raw.start('TransactionService', 'Commit', PRODUCER);
    await until(() => end.mock.calls.length === 1, 'it is under way');
    call.cancel();
    await rejection(waits.mock.results[0]?.value, 'CANCELLED');
    const again = raw.call('TransactionService', 'Commit', PRODUCER);
    await until(() => waits.mock.calls.length === 2, 'it is asked for again');
    finish?.(NEXT);
    expect(await again).toEqual(NEXT);
    expect(end).toHaveBeenCalledTimes(1);
  });
});

describe('ListTransactions', () => {
  const ALL = [summary('a', 'empty'), summary('b', 'ongoing'), summary('c', 'complete-abort'), summary('d', 'ongoing')];

  async function list(request: object): Promise<ListTransactionsResponse> {
    const raw = await served({ list: async () => ALL });
    return await raw.call('AdminService', 'ListTransactions', request);
  }

  test('pages by transactional id', async () => {
    const first = await list({ pageSize: 3 });
    expect(first.transactions.map(({ transactionalId }) => transactionalId)).toEqual(['a', 'b', 'c']);
    const second = await list({ pageSize: 3, pageToken: first.nextPageToken });
    expect(second).toMatchObject({ transactions: [{ transactionalId: 'd' }], nextPageToken: '' });
  });

  test('filters by state; a transaction that is not open has no start', async () => {
    const { transactions } = await list({ states: ['TRANSACTION_STATE_ONGOING', 'TRANSACTION_STATE_COMPLETE_ABORT'] });
    expect(transactions.map(({ transactionalId, startTimeMs }) => [transactionalId, startTimeMs])).toEqual([
      ['b', 5],
      ['c', undefined],
      ['d', 5],
    ]);
  });

  test.each([
    ['a state that there is not', { states: [9] }],
    ['no state at all', { states: [0] }],
    ['a negative page size', { pageSize: -1 }],
  ])('refuses %s', async (_what, request) => {
    await rejection(list(request), 'INVALID_REQUEST');
  });
});

const DESCRIPTION = {
  ...summary('b', 'ongoing'),
  partitions: [{ topic: 't', topicId: 'id', partition: 4 }],
  groupIds: ['g'],
};

test('GetTransaction tells of the partitions and groups of the transaction', async () => {
  const raw = await served({ describe: async () => DESCRIPTION });
  const answer = await raw.call<{ transaction: TransactionMessage }>('AdminService', 'GetTransaction', {
    transactionalId: 'b',
  });
  expect(answer.transaction).toEqual({
    transactionalId: 'b',
    state: 'TRANSACTION_STATE_ONGOING',
    producerId: 1,
    producerEpoch: 2,
    timeoutMs: 60_000,
    startTimeMs: 5,
    updateTimeMs: 9,
    partitions: DESCRIPTION.partitions,
    groupIds: ['g'],
  });
});

test('AbortTransaction answers with what has become of it, and without room, too', async () => {
  const abort = vi.fn(async () => ({ ...DESCRIPTION, partitions: Array(500).fill(DESCRIPTION.partitions[0]) }));
  const raw = await served({ abort }, 1024);
  const answer = await raw.call<{ transaction: TransactionMessage }>('AdminService', 'AbortTransaction', {
    transactionalId: 'b',
  });
  expect(answer.transaction.partitions).toHaveLength(500);
});

test('ListHangingTransactions pages by topic, partition and producer, in whatever order they were found', async () => {
  const found: HangingTransaction[] = [];
  for (const topic of ['u', 't']) {
    for (const partition of [10, 9]) {
      for (const producerId of [100, 20]) {
        found.push({ topic, partition, producerId, producerEpoch: 0, firstOffset: 1 });
      }
    }
  }
  const raw = await served({ findHanging: async () => found });
  const seen: string[] = [];
  let pageToken = '';
  do {
    const page: ListHangingTransactionsResponse = await raw.call('AdminService', 'ListHangingTransactions', {
      pageSize: 3,
      pageToken,
    });
    for (const { topic, partition, producerId } of page.transactions) seen.push(`${topic} ${partition} ${producerId}`);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  expect(seen).toEqual(
    ['t', 'u'].flatMap((topic) => [9, 10].flatMap((p) => [20, 100].map((id) => `${topic} ${p} ${id}`))),
  );
});

test('DescribeProducers refuses a partition that there is not', async () => {
  const raw = await served({});
  for (const partition of [0, -1]) {
    await rejection(
      raw.call('AdminService', 'DescribeProducers', { topic: 'absent', partition }),
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
  }
});
