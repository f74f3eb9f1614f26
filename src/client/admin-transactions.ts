/** Administration of transactions and producers: what `client.admin` does of it. */
import type {
  HangingTransactionMessage,
  ProducerStateMessage,
  TransactionMessage,
  TransactionStateName,
} from '../rpc/transaction-messages.js';
import { type AdminCalls, allPages, type CallOptions } from './admin-calls.js';
import { methods } from './methods.js';
import { oneOf } from './options.js';

/** Transactions or producers asked for per page when listing. */
const LIST_PAGE_SIZE = 1_000;

/**
 * `empty`: nothing was sent yet. `ongoing`: a transaction is open. `prepare-commit`, `prepare-abort`: it is decided, and
 * being carried out. `complete-commit`, `complete-abort`: the latest one has ended so. `unknown`: a state that only newer
 * brokers have.
 */
export type TransactionState =
  | 'empty'
  | 'ongoing'
  | 'prepare-commit'
  | 'prepare-abort'
  | 'complete-commit'
  | 'complete-abort'
  | 'unknown';

/** A transactional id and its latest transaction. */
export interface TransactionSummary {
  readonly transactionalId: string;
  readonly state: TransactionState;
  readonly producerId: number;
  readonly producerEpoch: number;
  /** How long a transaction may take before the broker aborts it, in ms. */
  readonly timeoutMs: number;
  /** When the open transaction began, in ms since the epoch; undefined without one. */
  readonly startTimeMs: number | undefined;
  /** When the state changed last, in ms since the epoch. */
  readonly updateTimeMs: number;
}

export interface TransactionDescription extends TransactionSummary {
  /** What the open or decided transaction writes to. */
  readonly partitions: readonly { readonly topic: string; readonly topicId: string; readonly partition: number }[];
  /** Groups whose offsets it commits. */
  readonly groupIds: readonly string[];
}

/** An open transaction in a partition that no transactional id answers for. */
export interface HangingTransaction {
  readonly topic: string;
  readonly partition: number;
  readonly producerId: number;
  readonly producerEpoch: number;
  /** Readers of what is committed wait here. */
  readonly firstOffset: number;
}

/** A producer that a partition remembers. */
export interface ProducerDescription {
  readonly producerId: number;
  readonly producerEpoch: number;
  /** -1: nothing was sent under this epoch. */
  readonly lastSequence: number;
  /** Of its last batch, in ms since the epoch; -1 when it had none. */
  readonly lastTimestampMs: number;
  readonly openTransaction:
    | {
        readonly firstOffset: number;
        /** When the broker saw it begin, in ms since the epoch; after a restart, when it found it. */
        readonly startTimeMs: number;
      }
    | undefined;
}

export interface ListTransactionsOptions extends CallOptions {
  /** Only those in one of these states. Default: all. */
  readonly states?: readonly Exclude<TransactionState, 'unknown'>[];
}

const STATE_NAMES: Readonly<Record<Exclude<TransactionState, 'unknown'>, TransactionStateName>> = {
  empty: 'TRANSACTION_STATE_EMPTY',
  ongoing: 'TRANSACTION_STATE_ONGOING',
  'prepare-commit': 'TRANSACTION_STATE_PREPARE_COMMIT',
  'prepare-abort': 'TRANSACTION_STATE_PREPARE_ABORT',
  'complete-commit': 'TRANSACTION_STATE_COMPLETE_COMMIT',
  'complete-abort': 'TRANSACTION_STATE_COMPLETE_ABORT',
};

const STATES: Readonly<Record<TransactionStateName, TransactionState>> = {
  TRANSACTION_STATE_UNSPECIFIED: 'unknown',
  TRANSACTION_STATE_EMPTY: 'empty',
  TRANSACTION_STATE_ONGOING: 'ongoing',
  TRANSACTION_STATE_PREPARE_COMMIT: 'prepare-commit',
  TRANSACTION_STATE_PREPARE_ABORT: 'prepare-abort',
  TRANSACTION_STATE_COMPLETE_COMMIT: 'complete-commit',
  TRANSACTION_STATE_COMPLETE_ABORT: 'complete-abort',
};

const NAMED_STATES = Object.keys(STATE_NAMES) as (keyof typeof STATE_NAMES)[];

export async function listTransactions(
  calls: AdminCalls,
  options: ListTransactionsOptions,
): Promise<TransactionSummary[]> {
  const states = (options.states ?? []).map((state) => STATE_NAMES[oneOf('states', NAMED_STATES, state)]);
  return allPages('transactions', async (pageToken) => {
    const request = { pageSize: LIST_PAGE_SIZE, pageToken, states };
    const page = await calls.idempotent(methods.listTransactions, request, options);
    return { items: page.transactions.map(summarize), nextPageToken: page.nextPageToken };
  });
}

export async function describeTransaction(
  calls: AdminCalls,
  transactionalId: string,
  options: CallOptions,
): Promise<TransactionDescription> {
  return describe((await calls.idempotent(methods.getTransaction, { transactionalId }, options)).transaction);
}

export async function abortTransaction(
  calls: AdminCalls,
  transactionalId: string,
  options: CallOptions,
): Promise<TransactionDescription> {
  // Carried out twice, it might abort the next transaction as well.
  return describe((await calls.change(methods.abortTransaction, { transactionalId }, options)).transaction);
}

export function findHangingTransactions(calls: AdminCalls, options: CallOptions): Promise<HangingTransaction[]> {
  return allPages<HangingTransactionMessage>('hanging transactions', async (pageToken) => {
    const request = { pageSize: LIST_PAGE_SIZE, pageToken };
    const page = await calls.idempotent(methods.listHangingTransactions, request, options);
    return { items: page.transactions, nextPageToken: page.nextPageToken };
  });
}

export function describeProducers(
  calls: AdminCalls,
  topic: string,
  partition: number,
  options: CallOptions,
): Promise<ProducerDescription[]> {
  return allPages('producers', async (pageToken) => {
    const request = { topic, partition, pageSize: LIST_PAGE_SIZE, pageToken };
    const page = await calls.idempotent(methods.describeProducers, request, options);
    return { items: page.producers.map(describeProducer), nextPageToken: page.nextPageToken };
  });
}

// Fields that the broker left out may be null or missing: here they are undefined.
function summarize(transaction: TransactionMessage): TransactionSummary {
  const { transactionalId, state, producerId, producerEpoch, timeoutMs, startTimeMs, updateTimeMs } = transaction;
  return {
    transactionalId,
    state: STATES[state] ?? 'unknown',
    producerId,
    producerEpoch,
    timeoutMs,
    startTimeMs: startTimeMs ?? undefined,
    updateTimeMs,
  };
}

function describe(transaction: TransactionMessage): TransactionDescription {
  const { partitions, groupIds } = transaction;
  return { ...summarize(transaction), partitions, groupIds };
}

function describeProducer(producer: ProducerStateMessage): ProducerDescription {
  const { producerId, producerEpoch, lastSequence, lastTimestampMs } = producer;
  const firstOffset = producer.openTransactionFirstOffset ?? undefined;
  const startTimeMs = producer.openTransactionStartTimeMs ?? -1;
  return {
    producerId,
    producerEpoch,
    lastSequence,
    lastTimestampMs,
    openTransaction: firstOffset === undefined ? undefined : { firstOffset, startTimeMs },
  };
}
