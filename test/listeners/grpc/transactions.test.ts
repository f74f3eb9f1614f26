/** Transactions over raw gRPC with a whole broker: what a client in another language would see. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Reason } from '../../../src/core/errors.js';
import type { ListOffsetsResponse, ProduceRequest } from '../../../src/rpc/messages.js';
import type {
  DescribeProducersResponse,
  ListHangingTransactionsResponse,
  ListTransactionsResponse,
  TransactionMessage,
} from '../../../src/rpc/transaction-messages.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { RawGroup, RawMember, refusal } from './group-support.js';
import { type Running, run } from './support.js';
import { batchOf, RawTransactions } from './transaction-support.js';

const RECORDS = 'RECORD_FORMAT_RECORDS' as const;
const ID = 'billing-1';
/** Longer than any test takes. */
const LONG_MS = 60_000;

let running: Running;

beforeEach(async () => {
  running = await run();
  await running.raw.createTopic('in');
  await running.raw.createTopic('out', 2);
});

afterEach(async () => {
  await running.stop();
});

async function values(topic: string, fields: object = {}): Promise<string[]> {
  const { records } = await running.raw.fetchOne(topic, 0, { format: RECORDS, ...fields });
  return records.map(({ value }) => value?.toString() ?? '');
}

async function describeTransaction(transactionalId: string = ID): Promise<TransactionMessage> {
  const answer = await running.raw.call<{ transaction: TransactionMessage }>('AdminService', 'GetTransaction', {
    transactionalId,
  });
  return answer.transaction;
}

/** Nothing is open anywhere, as far as readers and administrators see. */
async function expectNothingOpen(): Promise<void> {
  const { raw } = running;
  const hanging = await raw.call<ListHangingTransactionsResponse>('AdminService', 'ListHangingTransactions', {});
  expect(hanging.transactions).toEqual([]);
  for (const partition of [0, 1]) {
    const { producers } = await raw.call<DescribeProducersResponse>('AdminService', 'DescribeProducers', {
      topic: 'out',
      partition,
    });
    expect(producers.filter((producer) => producer.openTransactionFirstOffset !== undefined)).toEqual([]);
  }
  const { lastStableOffset, highWatermark } = await raw.fetchOne('out', 0);
  expect(lastStableOffset).toBe(highWatermark);
}

describe('a transaction', () => {
  let transactions: RawTransactions;
  let group: RawGroup;

  beforeEach(async () => {
    transactions = await RawTransactions.init(running.raw, ID);
    group = new RawGroup(running.raw);
    await running.raw.produce({ topic: 'in', batches: [batchOf(['1', '2'], {})] });
    await transactions.send('out', ['a']);
    await transactions.send('out', ['b'], { partition: 1, acks: 'ACKS_WRITTEN' });
    expect((await transactions.addOffset(group.groupId, 'in', 2)).refused).toEqual([]);
  });

  test('shows nothing before its end, and everything after its commit (invariant 11)', async () => {
    expect([await values('out'), await values('out', { isolationLevel: 'ISOLATION_LEVEL_READ_UNCOMMITTED' })]).toEqual([
      [],
      ['a'],
    ]);
    await rejection(group.committed([{ topic: 'in', partitions: [0] }]), 'UNSTABLE_OFFSET_COMMIT');
    const before = transactions.identity;
    await transactions.commit();
    expect(transactions.identity).toEqual({ ...before, producerEpoch: before.producerEpoch + 1 });
    expect(await values('out')).toEqual(['a']);
    expect(await group.committed([{ topic: 'in', partitions: [0] }])).toMatchObject([{ offset: 2 }]);
    await expectNothingOpen();
    // The next one begins at sequence 0 with the epoch of the answer.
    await transactions.send('out', ['c']);
    await transactions.commit();
    expect(await values('out')).toEqual(['a', 'c']);
  });

  test('shows nothing after its abort (invariant 11)', async () => {
    await transactions.abort();
    expect(await values('out')).toEqual([]);
    expect(await group.committed([{ topic: 'in', partitions: [0] }])).toMatchObject([{ offset: -1 }]);
    await expectNothingOpen();
  });

  test('may be ended again after a lost answer, the same way only', async () => {
    const { identity } = transactions;
    const answer = await transactions.call('Commit');
    expect(await transactions.call('Commit', identity)).toEqual(answer);
    await rejection(transactions.call('Abort', identity), 'INVALID_TXN_STATE');
  });

  test('is told of to administrators while it is open and after', async () => {
    const { raw } = running;
    const open = await describeTransaction();
    expect(open).toMatchObject({ state: 'TRANSACTION_STATE_ONGOING', ...transactions.identity, groupIds: ['g'] });
    expect(open.partitions.map(({ topic, partition }) => `${topic}-${partition}`).sort()).toEqual(['out-0', 'out-1']);
    expect(open.startTimeMs).toBeGreaterThan(0);
    const listed = { pageSize: 1, states: ['TRANSACTION_STATE_ONGOING'] };
    expect((await raw.call<ListTransactionsResponse>('AdminService', 'ListTransactions', listed)).transactions).toEqual(
      [{ ...open, partitions: [], groupIds: [] }],
    );
    const asked = { topic: 'out', partition: 1 };
    const { producers } = await raw.call<DescribeProducersResponse>('AdminService', 'DescribeProducers', asked);
    expect(producers).toMatchObject([{ ...transactions.identity, lastSequence: 0, openTransactionFirstOffset: 0 }]);
    await transactions.commit();
    const ended = await describeTransaction();
    expect(ended).toMatchObject({ state: 'TRANSACTION_STATE_COMPLETE_COMMIT', partitions: [], groupIds: [] });
    expect(ended.startTimeMs).toBeUndefined();
    expect(await raw.call('AdminService', 'ListTransactions', listed)).toEqual({ transactions: [], nextPageToken: '' });
  });

  test('that an administrator aborts is over for its producer, who goes on with the answer to Abort', async () => {
    const answer = await running.raw.call<{ transaction: TransactionMessage }>('AdminService', 'AbortTransaction', {
      transactionalId: ID,
    });
    expect(answer.transaction.state).toBe('TRANSACTION_STATE_COMPLETE_ABORT');
    await rejection(transactions.send('out', ['x']), 'TRANSACTION_ABORTABLE');
    await rejection(transactions.addOffset('g', 'in', 1), 'TRANSACTION_ABORTABLE');
    await rejection(transactions.commit(), 'TRANSACTION_ABORTABLE');
    await transactions.abort();
    await transactions.send('out', ['y']);
    await transactions.commit();
    expect(await values('out')).toEqual(['y']);
  });

  test('is over for whoever was replaced, whatever they try (invariant 9)', async () => {
    const replaced = transactions;
    transactions = await RawTransactions.init(running.raw, ID);
    expect(transactions.identity.producerId).toBe(replaced.identity.producerId);
    await rejection(replaced.send('out', ['x']), 'PRODUCER_FENCED');
    await rejection(replaced.addOffset('g', 'in', 1), 'PRODUCER_FENCED');
    await rejection(replaced.commit(), 'PRODUCER_FENCED');
    await rejection(replaced.abort(), 'PRODUCER_FENCED');
    await expectNothingOpen();
    await transactions.send('out', ['y']);
    await transactions.commit();
    expect(await values('out')).toEqual(['y']);
  });
});

test('a transaction that takes too long is aborted, and whoever waits behind it reads on (invariant 12)', async () => {
  const { raw } = running;
  const transactions = await RawTransactions.init(raw, ID, { transactionTimeoutMs: 100 });
  await transactions.send('out', ['a']);
  const fetched = await raw.fetchOne('out', 0, { maxWaitMs: LONG_MS, format: RECORDS });
  expect([fetched.records, fetched.nextOffset]).toEqual([[], 2]);
  await rejection(transactions.commit(), 'TRANSACTION_ABORTABLE');
});

describe('what cannot be, is refused with its reason and leaves nothing open', () => {
  let transactions: RawTransactions;

  beforeEach(async () => {
    transactions = await RawTransactions.init(running.raw, ID);
  });

  const UNKNOWN = { producerId: 4_000_000, producerEpoch: 0 };

  test.each<[string, Reason, object]>([
    ['no transaction', 'INVALID_TXN_STATE', {}],
    ['an id that nobody has initialised', 'INVALID_PRODUCER_ID_MAPPING', { transactionalId: 'nobody' }],
    ['another producer id', 'INVALID_PRODUCER_ID_MAPPING', UNKNOWN],
    ['an epoch that was not given out', 'PRODUCER_FENCED', { producerEpoch: 9 }],
    ['no id', 'INVALID_REQUEST', { transactionalId: '' }],
    ['an id that is too long', 'INVALID_REQUEST', { transactionalId: 'x'.repeat(250) }],
    ['a control character', 'INVALID_REQUEST', { transactionalId: 'a\nb' }],
    ['a negative producer id', 'INVALID_REQUEST', { producerId: -1 }],
    ['a negative epoch', 'INVALID_REQUEST', { producerEpoch: -1 }],
    ['an epoch that no batch can have', 'INVALID_REQUEST', { producerEpoch: 40_000 }],
  ])('Commit with %s: %s', async (_what, reason, fields) => {
    await rejection(transactions.call('Commit', fields), reason);
    await expectNothingOpen();
  });

  test('Abort without a transaction gives the next epoch all the same', async () => {
    const before = transactions.identity;
    await transactions.abort();
    expect(transactions.identity.producerEpoch).toBe(before.producerEpoch + 1);
  });

  test.each<[string, Reason, object]>([
    ['a timeout above the maximum', 'INVALID_TRANSACTION_TIMEOUT', { transactionTimeoutMs: 900_001 }],
    ['a negative timeout', 'INVALID_TRANSACTION_TIMEOUT', { transactionTimeoutMs: -1 }],
    ['an id that is too long', 'INVALID_REQUEST', { transactionalId: 'x'.repeat(250) }],
    ['an identity that is not the latest', 'PRODUCER_FENCED', UNKNOWN],
    ['half an identity', 'INVALID_REQUEST', { producerId: 0 }],
  ])('InitProducer with %s: %s', async (_what, reason, fields) => {
    await rejection(RawTransactions.init(running.raw, ID, fields), reason);
    await expectNothingOpen();
  });

  test.each<[string, Reason, object]>([
    ['without transactional_id', 'INVALID_TXN_STATE', { transactionalId: '' }],
    ['with the transactional_id of nobody', 'INVALID_PRODUCER_ID_MAPPING', { transactionalId: 'nobody' }],
    ['to an internal topic', 'INVALID_TOPIC', { topic: '__transaction_state' }],
    ['to a topic that there is not', 'UNKNOWN_TOPIC_OR_PARTITION', { topic: 'nowhere' }],
    ['to a partition that there is not', 'UNKNOWN_TOPIC_OR_PARTITION', { partition: 7 }],
  ])('a transactional batch %s: %s', async (_what, reason, fields) => {
    await rejection(transactions.send('out', ['x'], fields as Partial<ProduceRequest>), reason);
    await expectNothingOpen();
  });

  test.each<[string, Reason, object]>([
    ['of a producer that never began', 'INVALID_PRODUCER_ID_MAPPING', { ...UNKNOWN, transactional: true }],
    ['that is a control batch', 'INVALID_RECORD', { transactional: true, control: true }],
    ['that is not transactional', 'INVALID_REQUEST', {}],
    ['that begins behind a gap', 'OUT_OF_ORDER_SEQUENCE_NUMBER', { transactional: true, baseSequence: 5 }],
  ])('a batch %s: %s', async (_what, reason, fields) => {
    const batch = batchOf(['x'], { ...transactions.identity, baseSequence: 0, ...fields });
    await rejection(running.raw.produce({ topic: 'out', transactionalId: ID, batches: [batch] }), reason);
    // Whatever it made of the transaction, its end leaves nothing.
    await transactions.abort();
    await expectNothingOpen();
    expect(await values('out')).toEqual([]);
  });

  test('AddOffsets by whoever is no member, or one of another epoch (invariant 9)', async () => {
    const group = new RawGroup(running.raw);
    const member = await RawMember.joined(group, ['in']);
    await running.raw.produce({ topic: 'in', batches: [batchOf(['1'], {})] });
    const as = { memberId: member.memberId, memberEpoch: member.epoch };
    await rejection(transactions.addOffset('g', 'in', 1, { ...as, memberId: 'other' }), 'UNKNOWN_MEMBER_ID');
    await rejection(transactions.addOffset('g', 'in', 1, { ...as, memberEpoch: 99 }), 'FENCED_MEMBER_EPOCH');
    await rejection(transactions.addOffset('g', 'in', 1), 'UNKNOWN_MEMBER_ID');
    await rejection(transactions.addOffset('', 'in', 1), 'INVALID_GROUP_ID');
    await refusal(transactions.addOffset('g', 'out', 0, as), 'FENCED_MEMBER_EPOCH');
    await rejection(transactions.addOffset('g', 'in', -1, as), 'INVALID_REQUEST');
    await refusal(transactions.addOffset('g', 'nowhere', 0, as), 'UNKNOWN_TOPIC_OR_PARTITION');
    expect((await transactions.addOffset('g', 'in', 1, as)).refused).toEqual([]);
    await transactions.commit();
    expect(await group.committed([{ topic: 'in', partitions: [0] }])).toMatchObject([{ offset: 1 }]);
    await expectNothingOpen();
  });

  test('administrators ask for an id that there is not, or abort where nothing is open', async () => {
    const { raw } = running;
    for (const name of ['GetTransaction', 'AbortTransaction']) {
      await rejection(raw.call('AdminService', name, { transactionalId: 'nobody' }), 'TRANSACTIONAL_ID_NOT_FOUND');
    }
    await rejection(raw.call('AdminService', 'AbortTransaction', { transactionalId: ID }), 'INVALID_TXN_STATE');
  });
});

test('DescribeProducers pages by producer id, also of internal topics', async () => {
  const { raw } = running;
  const ids = [5, 100, 20];
  for (const producerId of ids) {
    const batch = batchOf(['x', 'y'], { producerId, producerEpoch: 3, baseSequence: 7 });
    await raw.produce({ topic: 'out', batches: [batch] });
  }
  const asked = { topic: 'out', partition: 0, pageSize: 2 };
  const first = await raw.call<DescribeProducersResponse>('AdminService', 'DescribeProducers', asked);
  expect(first.producers).toMatchObject([
    { producerId: 5, producerEpoch: 3, lastSequence: 8 },
    { producerId: 20, producerEpoch: 3, lastSequence: 8 },
  ]);
  const pageToken = first.nextPageToken;
  const second = await raw.call<DescribeProducersResponse>('AdminService', 'DescribeProducers', {
    ...asked,
    pageToken,
  });
  expect(second).toMatchObject({ producers: [{ producerId: 100 }], nextPageToken: '' });
  await rejection(raw.call('AdminService', 'DescribeProducers', { ...asked, pageToken: 'bm8' }), 'INVALID_REQUEST');
  await rejection(raw.call('AdminService', 'DescribeProducers', { ...asked, pageSize: -1 }), 'INVALID_REQUEST');
  await new RawGroup(raw).commit([{ topic: 'in', partition: 0, offset: 0 }]);
  const internal = { topic: '__group_offsets', partition: 0 };
  expect(await raw.call('AdminService', 'DescribeProducers', internal)).toEqual({ producers: [], nextPageToken: '' });
});

test('ListOffsets answers for the isolation that is asked for, uncommitted unless told otherwise', async () => {
  const { raw } = running;
  const transactions = await RawTransactions.init(raw, ID);
  await transactions.send('out', ['a']);
  const latest = async (fields: object = {}): Promise<number | undefined> => {
    const request = { topic: 'out', partitions: [0], position: 'OFFSET_POSITION_LATEST', ...fields };
    return (await raw.call<ListOffsetsResponse>('AdminService', 'ListOffsets', request)).offsets[0]?.offset;
  };
  await until(async () => (await latest()) === 1, 'the batch is durable');
  expect(await latest({ isolationLevel: 'ISOLATION_LEVEL_READ_COMMITTED' })).toBe(0);
  expect(await latest({ isolationLevel: 'ISOLATION_LEVEL_READ_UNCOMMITTED' })).toBe(1);
  await rejection(latest({ isolationLevel: 3 }), 'INVALID_REQUEST');
});

test('the health service knows the service of transactions', async () => {
  const { client } = running.raw;
  const status = await new Promise<Buffer>((resolve, reject) => {
    const name = 'tidelog.v1.TransactionService';
    const request = Buffer.concat([Buffer.from([0x0a, name.length]), Buffer.from(name)]);
    const bytes = (buffer: Buffer): Buffer => buffer;
    client.makeUnaryRequest('/grpc.health.v1.Health/Check', bytes, bytes, request, (error, answer) => {
      if (error === null && answer !== undefined) resolve(answer);
      else reject(error);
    });
  });
  expect([...status]).toEqual([0x08, 1]);
});
