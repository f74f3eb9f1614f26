/** What AdminService does with transactions and producers. */
import type { ServerUnaryCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import type {
  HangingTransaction,
  TransactionDescription,
  TransactionStatus,
  TransactionSummary,
} from '../../broker/transactions/coordinator-types.js';
import { LogError } from '../../core/errors.js';
import type { ProducerDescription } from '../../partition/producers/types.js';
import type {
  AbortTransactionRequest,
  AbortTransactionResponse,
  DescribeProducersRequest,
  DescribeProducersResponse,
  GetTransactionRequest,
  GetTransactionResponse,
  ListHangingTransactionsRequest,
  ListHangingTransactionsResponse,
  ListTransactionsRequest,
  ListTransactionsResponse,
  ProducerStateMessage,
  TransactionMessage,
  TransactionStateName,
} from '../../rpc/transaction-messages.js';
import type { BudgetsByKind } from './connection-budgets.js';
import { counted, type Weights } from './group-calls.js';
import { abortOnCancel, unary } from './handlers.js';
import { pageByName, pageByNumber } from './paging.js';
import { SharedWork } from './shared-work.js';
import type { TransactionBroker, TransactionCallContext } from './transactions.js';

/** What an element of a list weighs besides its texts. */
const PART_OVERHEAD_BYTES = 256;

const STATES: Readonly<Record<TransactionStatus, TransactionStateName>> = {
  empty: 'TRANSACTION_STATE_EMPTY',
  ongoing: 'TRANSACTION_STATE_ONGOING',
  'prepare-commit': 'TRANSACTION_STATE_PREPARE_COMMIT',
  'prepare-abort': 'TRANSACTION_STATE_PREPARE_ABORT',
  'complete-commit': 'TRANSACTION_STATE_COMPLETE_COMMIT',
  'complete-abort': 'TRANSACTION_STATE_COMPLETE_ABORT',
};
const STATE_NAMES: ReadonlySet<TransactionStateName> = new Set(Object.values(STATES));

type ListCall = ServerUnaryCall<ListTransactionsRequest, ListTransactionsResponse>;
type GetCall = ServerUnaryCall<GetTransactionRequest, GetTransactionResponse>;
type AbortCall = ServerUnaryCall<AbortTransactionRequest, AbortTransactionResponse>;
type HangingCall = ServerUnaryCall<ListHangingTransactionsRequest, ListHangingTransactionsResponse>;
type ProducersCall = ServerUnaryCall<DescribeProducersRequest, DescribeProducersResponse>;

/** The handlers of AdminService that are about transactions. */
export function transactionAdminHandlers(
  broker: TransactionBroker,
  budgets: BudgetsByKind,
): UntypedServiceImplementation {
  const { logger } = broker;
  const context: TransactionCallContext = { broker, budgets };
  const aborts = new SharedWork<TransactionDescription>();
  return {
    ListTransactions: unary(logger, (_request: ListTransactionsRequest, call: ListCall) => list(context, call)),
    GetTransaction: unary(logger, (_request: GetTransactionRequest, call: GetCall) => get(context, call)),
    AbortTransaction: unary(logger, (_request: AbortTransactionRequest, call: AbortCall) =>
      abort(context, aborts, call),
    ),
    ListHangingTransactions: unary(logger, (_request: ListHangingTransactionsRequest, call: HangingCall) =>
      listHanging(context, call),
    ),
    DescribeProducers: unary(logger, (_request: DescribeProducersRequest, call: ProducersCall) =>
      describeProducers(context, call),
    ),
  };
}

const LIST: Weights<ListTransactionsRequest, ListTransactionsResponse> = {
  parts: ({ states }) => states.length,
  answer: ({ transactions }) => transactions.reduce((bytes, transaction) => bytes + weightOf(transaction), 0),
};

const GET: Weights<GetTransactionRequest, GetTransactionResponse> = {
  parts: () => 0,
  answer: ({ transaction }) => weightOf(transaction),
};

const ABORT: Weights<AbortTransactionRequest, AbortTransactionResponse> = {
  parts: () => 0,
  answer: ({ transaction }) => weightOf(transaction),
  alwaysAnswered: true,
};

const HANGING: Weights<ListHangingTransactionsRequest, ListHangingTransactionsResponse> = {
  parts: () => 0,
  answer: ({ transactions }) =>
    transactions.reduce((bytes, { topic }) => bytes + PART_OVERHEAD_BYTES + topic.length, 0),
};

const PRODUCERS: Weights<DescribeProducersRequest, DescribeProducersResponse> = {
  parts: () => 0,
  answer: ({ producers }) => producers.length * PART_OVERHEAD_BYTES,
};

function weightOf({ transactionalId, partitions, groupIds }: TransactionMessage): number {
  let bytes = PART_OVERHEAD_BYTES + transactionalId.length;
  for (const { topic } of partitions) bytes += PART_OVERHEAD_BYTES + topic.length;
  for (const groupId of groupIds) bytes += PART_OVERHEAD_BYTES + groupId.length;
  return bytes;
}

async function list(context: TransactionCallContext, call: ListCall): Promise<ListTransactionsResponse> {
  const { request } = call;
  return await counted(context, call, LIST, async () => {
    const states = checkStates(request.states);
    const all = await context.broker.transactions.list();
    const wanted = states.size === 0 ? all : all.filter(({ status }) => states.has(STATES[status]));
    const { items, nextPageToken } = pageByName(wanted, ({ transactionalId }) => transactionalId, request);
    return { transactions: items.map(summarize), nextPageToken };
  });
}

/** A value that the proto files do not name comes as its number, which is none of these. */
function checkStates(names: readonly TransactionStateName[]): ReadonlySet<TransactionStateName> {
  for (const name of names) {
    if (STATE_NAMES.has(name)) continue;
    const known = [...STATE_NAMES].join(', ');
    throw new LogError('INVALID_REQUEST', `states has ${name}, which is no state of a transaction: ${known}.`);
  }
  return new Set(names);
}

async function get(context: TransactionCallContext, call: GetCall): Promise<GetTransactionResponse> {
  return await counted(context, call, GET, async () => {
    return { transaction: toMessage(await context.broker.transactions.describe(call.request.transactionalId)) };
  });
}

async function abort(
  context: TransactionCallContext,
  aborts: SharedWork<TransactionDescription>,
  call: AbortCall,
): Promise<AbortTransactionResponse> {
  const { transactionalId } = call.request;
  return await counted(context, call, ABORT, async () => {
    const work = (): Promise<TransactionDescription> => context.broker.transactions.abort(transactionalId);
    return { transaction: toMessage(await aborts.wait(transactionalId, abortOnCancel(call), work)) };
  });
}

async function listHanging(
  context: TransactionCallContext,
  call: HangingCall,
): Promise<ListHangingTransactionsResponse> {
  return await counted(context, call, HANGING, async () => {
    const hanging = await context.broker.transactions.findHanging();
    const { items, nextPageToken } = pageByName(hanging, keyOf, call.request);
    return { transactions: items.map((each) => ({ ...each })), nextPageToken };
  });
}

const PARTITION_DIGITS = 10;
const PRODUCER_ID_DIGITS = 16;

/** A producer has at most one open transaction in a partition. */
function keyOf({ topic, partition, producerId }: HangingTransaction): string {
  return `${topic}/${padded(partition, PARTITION_DIGITS)}/${padded(producerId, PRODUCER_ID_DIGITS)}`;
}

function padded(value: number, digits: number): string {
  return String(value).padStart(digits, '0');
}

async function describeProducers(
  context: TransactionCallContext,
  call: ProducersCall,
): Promise<DescribeProducersResponse> {
  const { topic, partition } = call.request;
  return await counted(context, call, PRODUCERS, async () => {
    const log = context.broker.topics.partition(topic, '', partition);
    const { items, nextPageToken } = pageByNumber(log.producerIds(), (producerId) => producerId, call.request);
    return { producers: log.producers(items).map(toProducerState), nextPageToken };
  });
}

function summarize(transaction: TransactionSummary): TransactionMessage {
  const { transactionalId, producerId, producerEpoch, timeoutMs, startMs, updateMs } = transaction;
  return {
    transactionalId,
    state: STATES[transaction.status],
    producerId,
    producerEpoch,
    timeoutMs,
    startTimeMs: startMs,
    updateTimeMs: updateMs,
    partitions: [],
    groupIds: [],
  };
}

function toMessage(transaction: TransactionDescription): TransactionMessage {
  const { partitions, groupIds } = transaction;
  return {
    ...summarize(transaction),
    partitions: partitions.map(({ topic, topicId, partition }) => ({ topic, topicId, partition })),
    groupIds: [...groupIds],
  };
}

function toProducerState(producer: ProducerDescription): ProducerStateMessage {
  const { producerId, producerEpoch, lastSequence, lastTimestampMs, openTransaction } = producer;
  return {
    producerId,
    producerEpoch,
    lastSequence,
    lastTimestampMs,
    openTransactionFirstOffset: openTransaction?.firstOffset,
    openTransactionStartTimeMs: openTransaction?.sinceMs,
  };
}
