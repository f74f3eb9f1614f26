import type { RecordInput } from '../batch/builder.js';
import { encodeBatch } from '../batch/builder.js';
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import { type AppendLane, precedingFailed } from '../partition/append-lane.js';
import type { Acks, AppendResult, Partition } from '../partition/partition.js';
import { isInternal } from './topic-name.js';
import type { Topics } from './topics.js';

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
   * Resolves when the records are as safe as `acks` asks; see Partition.append for the errors.
   * @param lane of the stream that the command came in on, for this partition
   */
  async produce(command: ProduceCommand, lane?: AppendLane): Promise<AppendResult> {
    const { acks, expectedOffset } = command;
    const place = lane?.enter();
    try {
      const preceding = place?.precedingFailure;
      if (preceding !== undefined) throw precedingFailed(command.topic, command.partition, preceding);
      const partition = this.#partitionFor(command);
      const batches = this.#batchesOf(command);
      return await partition.append(batches, { acks, expectedOffset, place });
    } catch (error) {
      const failure = toLogError(error);
      place?.fail(failure);
      throw failure;
    }
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
    if (command.records.length === 0) return command.batches;
    if (command.batches.length > 0) {
      throw new LogError(
        'INVALID_REQUEST',
        'A produce request carries either record batches or plain records, not both.',
      );
    }
    const nowMs = this.#options.clock.now();
    const records = command.records.map((record) => ({ ...record, timestampMs: record.timestampMs ?? nowMs }));
    return [encodeBatch(records)];
  }
}
