/** What is wrong with the transactional id, the producer or the transaction that a caller names. */
import { LogError, toLogError } from '../../core/errors.js';
import type { ProducerIdentity } from './coordinator-types.js';
import { TRANSACTION_TOPIC } from './transaction-topic.js';
import { type AbortCause, MAX_GROUPS, MAX_PARTITIONS, type TransactionState } from './transaction-types.js';

/** Until everything is loaded, in ms: callers ask again after this. */
const LOAD_RETRY_MS = 100;
/** Until a transaction is completed, in ms: the same. */
const COMPLETION_RETRY_MS = 20;
const MAX_SHOWN = 300;

function shown(text: string): string {
  return JSON.stringify(text.slice(0, MAX_SHOWN));
}

interface Facts {
  readonly transactional_id: string;
  readonly producer_id: number;
  readonly producer_epoch: number;
}

function factsOf(transactionalId: string, { producerId, producerEpoch }: ProducerIdentity): Facts {
  return {
    transactional_id: transactionalId.slice(0, MAX_SHOWN),
    producer_id: producerId,
    producer_epoch: producerEpoch,
  };
}

export function invalidTransactionalId(transactionalId: string, maxLength: number): LogError {
  return new LogError(
    'INVALID_REQUEST',
    `${shown(transactionalId)} is not a transactional id: use 1 to ${maxLength} characters, none of them a control character.`,
    { metadata: { transactional_id: transactionalId.slice(0, MAX_SHOWN) } },
  );
}

export function invalidIdentity({ producerId, producerEpoch }: ProducerIdentity): LogError {
  return new LogError(
    'INVALID_REQUEST',
    `Producer id ${producerId} with epoch ${producerEpoch} was never given out: send what InitProducer has answered.`,
    { metadata: { producer_id: producerId, producer_epoch: producerEpoch } },
  );
}

export function invalidTimeout(transactionalId: string, timeoutMs: number, maxMs: number): LogError {
  return new LogError(
    'INVALID_TRANSACTION_TIMEOUT',
    `A transaction may take 1 to ${maxMs} ms (transaction.max.timeout.ms), not ${timeoutMs}.`,
    {
      metadata: { transactional_id: transactionalId, transaction_timeout_ms: timeoutMs, max_ms: maxMs },
    },
  );
}

/** The producer's id is not that of the transactional id, which may be one that nobody uses. */
export function otherProducerId(transactionalId: string, producer: ProducerIdentity): LogError {
  return new LogError(
    'INVALID_PRODUCER_ID_MAPPING',
    `Transactional id ${shown(transactionalId)} does not belong to producer id ${producer.producerId}, or no longer. ` +
      'Initialise the producer (InitProducer).',
    { metadata: { ...factsOf(transactionalId, producer) } },
  );
}

export function producerFenced({ transactionalId, identity }: TransactionState, producer: ProducerIdentity): LogError {
  return new LogError(
    'PRODUCER_FENCED',
    `Another producer has taken over transactional id ${shown(transactionalId)}, or this one has gone on: epoch ` +
      `${producer.producerEpoch} is over. Stop it.`,
    { metadata: { ...factsOf(transactionalId, producer), current_epoch: identity.producerEpoch } },
  );
}

export function concurrentTransactions(transactionalId: string, producer: ProducerIdentity): LogError {
  return new LogError(
    'CONCURRENT_TRANSACTIONS',
    `The transaction before of ${shown(transactionalId)} is being completed. Try again.`,
    { metadata: { ...factsOf(transactionalId, producer) }, retryAfterMs: COMPLETION_RETRY_MS },
  );
}

const ABORTED_BY: Readonly<Record<AbortCause, string>> = {
  producer: 'its producer has aborted it',
  takeover: 'another producer has taken over',
  timeout: 'it took longer than its timeout',
  administrator: 'an administrator has aborted it',
  restart: 'the broker was restarted',
};

/** The producer is the latest of its id, but what it has begun cannot be committed any more. */
export function transactionAborted(transactionalId: string, producer: ProducerIdentity, cause: AbortCause): LogError {
  return new LogError(
    'TRANSACTION_ABORTABLE',
    `The transaction of ${shown(transactionalId)} cannot go on: ${ABORTED_BY[cause]}. Abort it (Abort) and begin another.`,
    { metadata: { ...factsOf(transactionalId, producer), cause } },
  );
}

export function nothingToCommit({ transactionalId }: TransactionState, producer: ProducerIdentity): LogError {
  return new LogError(
    'INVALID_TXN_STATE',
    `${shown(transactionalId)} has no open transaction to commit: send records or offsets first.`,
    { metadata: { ...factsOf(transactionalId, producer) } },
  );
}

/** @param committed how it has ended, or is about to */
export function endedOtherwise(
  { transactionalId }: TransactionState,
  producer: ProducerIdentity,
  committed: boolean,
): LogError {
  return new LogError(
    'INVALID_TXN_STATE',
    committed
      ? `The transaction of ${shown(transactionalId)} is committed and cannot be aborted any more.`
      : `The transaction of ${shown(transactionalId)} is aborted and cannot be committed any more.`,
    { metadata: { ...factsOf(transactionalId, producer) } },
  );
}

export function noneOpen({ transactionalId, identity, status }: TransactionState): LogError {
  return new LogError('INVALID_TXN_STATE', `${shown(transactionalId)} has no open transaction to abort (${status}).`, {
    metadata: { ...factsOf(transactionalId, identity), status },
  });
}

export function tooManyPartitions({ transactionalId, identity }: TransactionState): LogError {
  return new LogError('RESOURCE_LIMIT', `A transaction has at most ${MAX_PARTITIONS} partitions. Commit more often.`, {
    metadata: { ...factsOf(transactionalId, identity), limit: MAX_PARTITIONS },
  });
}

export function tooManyGroups({ transactionalId, identity }: TransactionState): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `A transaction has offsets of at most ${MAX_GROUPS} groups. Commit more often.`,
    {
      metadata: { ...factsOf(transactionalId, identity), limit: MAX_GROUPS },
    },
  );
}

/** All open transactions together. */
export function tooManyOpenPlaces(limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `The open transactions of this broker have at most ${limit} partitions and groups together. Try again when others have ` +
      'ended.',
    { metadata: { limit } },
  );
}

export function tooManyIds(limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `This broker keeps at most ${limit} transactional ids (transactional.ids.max). Use the same ones again after a restart ` +
      'of the producer; those that nobody uses are forgotten after transactional.id.expiration.ms.',
    { metadata: { limit } },
  );
}

export function transactionalIdNotFound(transactionalId: string): LogError {
  return new LogError(
    'TRANSACTIONAL_ID_NOT_FOUND',
    `There is no transactional id ${shown(transactionalId)}. List those that there are: tidelog transaction list.`,
    { metadata: { transactional_id: transactionalId.slice(0, MAX_SHOWN) } },
  );
}

export function loadInProgress(): LogError {
  return new LogError(
    'COORDINATOR_LOAD_IN_PROGRESS',
    `Transactions are being read from ${TRANSACTION_TOPIC}, and what a stop of the broker left open is looked for. Try again.`,
    { retryAfterMs: LOAD_RETRY_MS },
  );
}

export function coordinatorDraining(): LogError {
  return new LogError('BROKER_DRAINING', 'The broker is stopping: transactions go on after it is back.');
}

/** The broker has stopped over a decided transaction: what was decided is carried out with its next start. */
export function completedLater(): LogError {
  return new LogError(
    'BROKER_DRAINING',
    'The broker is stopping. The transaction is decided and will be completed when it is back: ask again then.',
    { outcome: 'unknown' },
  );
}

/** A change could not be written. @param isInLog whether the log has it all the same, though perhaps not for good */
export function notWritten(partition: number, cause: unknown, isInLog: boolean): LogError {
  const { reason, message, metadata, outcome: known, retryAfterMs } = toLogError(cause);
  const outcome = isInLog ? 'unknown' : known;
  const became = outcome === 'none' ? 'nothing has changed' : 'whether it is there, the log will show when it is read';
  return new LogError(
    reason,
    `A change of transactions could not be written to ${TRANSACTION_TOPIC}-${partition}, and ${became}: ${message}`,
    {
      cause,
      metadata: { ...metadata, transaction_state_partition: partition },
      outcome,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  );
}

/** The transactional ids of one partition of their topic cannot be served. */
export function outOfService(partition: number, cause: unknown): LogError {
  const { reason, message, metadata, retryAfterMs } = toLogError(cause);
  return new LogError(
    reason,
    `The transactional ids kept in ${TRANSACTION_TOPIC}-${partition} are out of service: ${message}`,
    {
      cause,
      metadata: { ...metadata, transaction_state_partition: partition },
      outcome: 'none',
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  );
}

/** What was sent to a partition cannot be made durable: the transaction stays open. */
export function notFlushed(transactionalId: string, cause: unknown): LogError {
  const { reason, message, metadata, retryAfterMs } = toLogError(cause);
  return new LogError(
    reason,
    `The transaction of ${shown(transactionalId)} was not committed, because its records are not durable: ${message}`,
    {
      cause,
      metadata: { ...metadata, transactional_id: transactionalId },
      outcome: 'none',
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  );
}
