/** What the transaction coordinator is asked and what it answers: the seam between it, the produce path and the listeners. */
import type { Partition } from '../../partition/partition.js';
import type { OffsetToCommit, RefusedOffset } from '../groups/coordinator-types.js';

/** As whom a producer sends. */
export interface ProducerIdentity {
  readonly producerId: number;
  readonly producerEpoch: number;
}

/** Kafka's states of a transactional id. */
export type TransactionStatus =
  | 'empty'
  | 'ongoing'
  | 'prepare-commit'
  | 'prepare-abort'
  | 'complete-commit'
  | 'complete-abort';

export interface InitProducerCommand {
  readonly transactionalId: string;
  /** 0: the default. */
  readonly timeoutMs: number;
  /** What the caller was given before; undefined: a new producer. */
  readonly current: ProducerIdentity | undefined;
}

/** Who acts for a transactional id. */
export interface TransactionalProducer extends ProducerIdentity {
  readonly transactionalId: string;
}

export interface AddOffsetsCommand extends TransactionalProducer {
  readonly groupId: string;
  readonly memberId: string;
  readonly memberEpoch: number;
  readonly offsets: readonly OffsetToCommit[];
}

export interface TransactionPartition {
  readonly topic: string;
  readonly topicId: string;
  readonly partition: number;
}

export interface TransactionSummary {
  readonly transactionalId: string;
  readonly status: TransactionStatus;
  readonly producerId: number;
  readonly producerEpoch: number;
  readonly timeoutMs: number;
  /** Of the open transaction, ms since the epoch. */
  readonly startMs: number | undefined;
  readonly updateMs: number;
}

export interface TransactionDescription extends TransactionSummary {
  readonly partitions: readonly TransactionPartition[];
  readonly groupIds: readonly string[];
}

export interface HangingTransaction {
  readonly topic: string;
  readonly partition: number;
  readonly producerId: number;
  readonly producerEpoch: number;
  readonly firstOffset: number;
}

/**
 * The coordinator of all transactions of this broker. Every method rejects with LogError: INVALID_REQUEST (a transactional
 * id or a number that cannot be), COORDINATOR_LOAD_IN_PROGRESS, BROKER_DRAINING, STORAGE_FULL and STORAGE_ERROR besides
 * what is said of it.
 */
export interface TransactionCoordinatorApi {
  /**
   * Takes a transactional id over: aborts what is open, and resolves when that is durable and the new epoch is.
   * @throws LogError INVALID_TRANSACTION_TIMEOUT, PRODUCER_FENCED (`current` is not, or no longer, the latest producer),
   *   RESOURCE_LIMIT
   */
  initProducer(command: InitProducerCommand): Promise<ProducerIdentity>;
  /**
   * Makes a partition part of the producer's transaction, beginning one if there is none. Synchronous: the batch is to be
   * given to the partition in the same turn, so that the end of the transaction comes behind it.
   * @throws LogError INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, TRANSACTION_ABORTABLE,
   *   RESOURCE_LIMIT
   */
  enter(producer: TransactionalProducer, partition: Partition): void;
  /**
   * Adds offsets of a consumer group to the producer's transaction, beginning one if there is none; durable when it
   * resolves, to those that were refused.
   * @throws LogError as `enter` and as `GroupCoordinatorApi.commit`
   */
  addOffsets(command: AddOffsetsCommand): Promise<readonly RefusedOffset[]>;
  /**
   * Commits or aborts; resolves when everything is durable and visible, to the identity for the next transaction. A repeated
   * call of the same epoch resolves alike.
   * @throws LogError INVALID_TXN_STATE (there is no transaction, or it ended the other way), INVALID_PRODUCER_ID_MAPPING,
   *   PRODUCER_FENCED, TRANSACTION_ABORTABLE (to commit what was aborted)
   */
  end(producer: TransactionalProducer, commit: boolean): Promise<ProducerIdentity>;
  /** In no order: there may be very many. */
  list(): Promise<readonly TransactionSummary[]>;
  /** @throws LogError TRANSACTIONAL_ID_NOT_FOUND */
  describe(transactionalId: string): Promise<TransactionDescription>;
  /**
   * Aborts the open transaction, or waits for the end of one that is decided; resolves to the state afterwards.
   * @throws LogError TRANSACTIONAL_ID_NOT_FOUND, INVALID_TXN_STATE (none is open)
   */
  abort(transactionalId: string): Promise<TransactionDescription>;
  /** Open transactions in partitions that no transactional id answers for. */
  findHanging(): Promise<readonly HangingTransaction[]>;
}
