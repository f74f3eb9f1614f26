import type { RecordInput } from '../batch/builder.js';
import { encodeBatch } from '../batch/builder.js';
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import { type AppendLane, precedingFailed } from '../partition/append-lane.js';
import { withMessageId } from '../partition/message-ids/identified-records.js';
import type { Acks, AppendResult, Partition } from '../partition/partition.js';
import { checkMessageIds, concernsTransaction, transactionalProducerOf } from './produce-checks.js';
import { isInternal } from './topic-name.js';
import type { Topics } from './topics.js';
import type { TransactionCoordinatorApi } from './transactions/coordinator-types.js';

/** A record without an encoder: the broker makes the batch. */
export interface PlainRecord extends Omit<RecordInput, 'timestampMs'> {
  /** Undefined: now. */
  readonly timestampMs: number | undefined;
}

export interface ProduceCommand {
  readonly topic: string;
  /** The id the caller knows, or empty. */
  readonly topicId: string;
  readonly partition: number;
  readonly acks: Acks;
  /** Record batches; the buffers belong to the broker from here on. */
  readonly batches: readonly Buffer[];
  readonly records: readonly PlainRecord[];
  readonly expectedOffset: number | undefined;
  /** Of transactional batches; else empty. */
  readonly transactionalId: string;
  /** One for each plain record, or none. */
  readonly messageIds: readonly string[];
}

export interface ProducerOptions {
  readonly topics: Topics;
  readonly transactions: Pick<TransactionCoordinatorApi, 'enter'>;
  readonly clock: Clock;
  readonly isDraining: () => boolean;
}

/** The produce path between the listeners and the partitions. */
export class Producer {
  readonly #options: ProducerOptions;

  constructor(options: ProducerOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the records are as safe as `acks` asks; see Partition.append and, for transactional batches,
   * TransactionCoordinatorApi.enter for the errors. INVALID_REQUEST and INVALID_TXN_STATE: the parts of the command do not
   * go together.
   * @param lane of the stream that the command came in on, for this partition
   */
  async produce(command: ProduceCommand, lane?: AppendLane): Promise<AppendResult> {
    const { acks, expectedOffset, messageIds } = command;
    const place = lane?.enter();
    try {
      const preceding = place?.precedingFailure;
      if (preceding !== undefined) throw precedingFailed(command.topic, command.partition, preceding);
      const partition = this.#partitionFor(command);
      const batches = this.#batchesOf(command);
      // Nothing of what is not valid makes a partition part of a transaction.
      const admit = concernsTransaction(command) ? () => this.#enterTransaction(command, partition) : undefined;
      return await partition.append(batches, { acks, expectedOffset, place, messageIds, admit });
    } catch (error) {
      const failure = toLogError(error);
      place?.fail(failure);
      throw failure;
    }
  }

  #enterTransaction(command: ProduceCommand, partition: Partition): void {
    this.#options.transactions.enter(transactionalProducerOf(command), partition);
  }

  #partitionFor(command: ProduceCommand): Partition {
    if (this.#options.isDraining()) {
      throw new LogError('BROKER_DRAINING', 'The broker is stopping and takes no more records. Send them again later.');
    }
    if (isInternal(command.topic)) {
      throw new LogError('INVALID_TOPIC', `${command.topic} is an internal topic: only the broker writes to it.`, {
        metadata: { topic: command.topic },
      });
    }
    return this.#options.topics.partition(command.topic, command.topicId, command.partition);
  }

  #batchesOf(command: ProduceCommand): readonly Buffer[] {
    const { batches, records, messageIds } = command;
    checkMessageIds(command);
    if (records.length === 0) return batches;
    if (batches.length > 0) {
      throw new LogError(
        'INVALID_REQUEST',
        'A produce request carries either record batches or plain records, not both.',
      );
    }
    const nowMs = this.#options.clock.now();
    const stamped = records.map((record) => ({ ...record, timestampMs: record.timestampMs ?? nowMs }));
    if (messageIds.length === 0) return [encodeBatch(stamped)];
    const identified = stamped.map((record, index) => withMessageId(record, messageIds[index]!));
    return [encodeBatch(identified, { messageIds: true })];
  }
}
