/** A coordinator of transactions over an engine, with topics and groups, without a network. */
import { encodeBatch } from '../../../src/batch/builder.js';
import {
  attributesOf,
  baseOffsetOf,
  isControl,
  isTransactional,
  producerIdOf,
  sizeInBytesOf,
} from '../../../src/batch/layout.js';
import { openRecords } from '../../../src/batch/records.js';
import { GroupCoordinator } from '../../../src/broker/groups/coordinator.js';
import type { RefusedOffset } from '../../../src/broker/groups/coordinator-types.js';
import { Producer } from '../../../src/broker/produce.js';
import { ProducerIds } from '../../../src/broker/producer-ids.js';
import type { Topics } from '../../../src/broker/topics.js';
import { TransactionCoordinator } from '../../../src/broker/transactions/coordinator.js';
import type {
  AddOffsetsCommand,
  InitProducerCommand,
  ProducerIdentity,
  TransactionalProducer,
} from '../../../src/broker/transactions/coordinator-types.js';
import type { TransactionConfig } from '../../../src/broker/transactions/transaction-config.js';
import { LogError } from '../../../src/core/errors.js';
import { toEpoch } from '../../../src/core/types.js';
import type { Acks, AppendResult, Partition } from '../../../src/partition/partition.js';
import type { AbortedTransaction } from '../../../src/partition/producers/types.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { batchOf } from '../../partition/support.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { type RecordingLogger, recordingLogger } from '../../support/recording-logger.js';
import { until } from '../../support/until.js';
import { GROUP_CONFIG } from '../groups/support.js';
import { openTopics } from '../support.js';

export const TRANSACTION_CONFIG: TransactionConfig = {
  maxTimeoutMs: 900_000,
  idExpirationMs: 7 * 24 * 3_600_000,
  maxIds: 100_000,
  stateTopicPartitions: 2,
};

export interface TransactionsOptions {
  readonly engine?: StorageEngine;
  readonly clock?: ManualClock;
  readonly config?: Partial<TransactionConfig>;
  readonly maxOpenPlaces?: number;
  /** Of the broker: rises with each start. */
  readonly epoch?: number;
  readonly startedClean?: boolean;
}

/** One run of what a broker has of transactions. */
export class Transactions implements AsyncDisposable {
  readonly engine: StorageEngine;
  readonly clock: ManualClock;
  readonly topics: Topics;
  readonly groups: GroupCoordinator;
  readonly coordinator: TransactionCoordinator;
  readonly logger: RecordingLogger;
  readonly #producer: Producer;
  readonly #sequences = new Map<string, number>();

  private constructor(engine: StorageEngine, clock: ManualClock, topics: Topics, options: TransactionsOptions) {
    this.engine = engine;
    this.clock = clock;
    this.topics = topics;
    this.logger = recordingLogger();
    const { logger } = this;
    const producerIds = new ProducerIds(engine.metadata);
    this.groups = new GroupCoordinator({ topics, config: GROUP_CONFIG, clock, logger });
    this.coordinator = new TransactionCoordinator({
      topics,
      groups: this.groups,
      allocateProducerId: () => producerIds.allocate(),
      config: { ...TRANSACTION_CONFIG, ...options.config },
      startedClean: options.startedClean ?? true,
      maxOpenPlaces: options.maxOpenPlaces,
      clock,
      logger,
    });
    this.#producer = new Producer({ topics, transactions: this.coordinator, clock, isDraining: () => false });
  }

  static async start(options: TransactionsOptions = {}): Promise<Transactions> {
    const clock = options.clock ?? new ManualClock(BASE_TIME);
    const engine = options.engine ?? openMemoryEngine({ clock });
    const epoch = toEpoch(options.epoch ?? 1);
    const producers = { expirationMs: 86_400_000, maxProducers: 10_000, maxMessageIds: 1000 };
    const topics = await openTopics(engine, { epoch, clock, producers });
    return new Transactions(engine, clock, topics, options);
  }

  /** As `start`, once transactions are served. */
  static async started(options: TransactionsOptions = {}): Promise<Transactions> {
    const transactions = await Transactions.start(options);
    await transactions.loaded();
    return transactions;
  }

  /** Resolves when transactions are served. */
  async loaded(): Promise<void> {
    const isLoaded = async (): Promise<boolean> => {
      try {
        await this.coordinator.list();
        return true;
      } catch (error) {
        if (!(error instanceof LogError && error.reason === 'COORDINATOR_LOAD_IN_PROGRESS')) throw error;
        this.clock.advance(50);
        return false;
      }
    };
    await until(isLoaded, 'transactions are served');
  }

  async topic(name: string, partitionCount: number): Promise<void> {
    await this.topics.create(name, partitionCount, {}, false);
  }

  /** Topic `t` of three partitions to write to, and `in` with ten records of which groups commit offsets. */
  async usualTopics(): Promise<void> {
    await this.topic('t', 3);
    await this.topic('in', 1);
    const values = Array.from({ length: 10 }, (_, i) => `${i}`);
    await this.partition(0, 'in').append([batchOf(values, this.clock.now())], { acks: 'durable' });
  }

  partition(index: number, topic: string = 't'): Partition {
    return this.topics.partition(topic, '', index);
  }

  async init(command: Partial<InitProducerCommand> = {}): Promise<TransactionalProducer> {
    const { transactionalId = 'tx', timeoutMs = 0, current } = command;
    return { transactionalId, ...(await this.coordinator.initProducer({ transactionalId, timeoutMs, current })) };
  }

  /** One batch, with the sequence that the producer is at there. */
  async send(
    producer: TransactionalProducer,
    index: number,
    value: string,
    acks: Acks = 'written',
    topic: string = 't',
  ): Promise<AppendResult> {
    const { transactionalId, producerId, producerEpoch } = producer;
    const key = `${producerId}/${producerEpoch}/${topic}/${index}`;
    const baseSequence = this.#sequences.get(key) ?? 0;
    const record = { timestampMs: this.clock.now(), key: null, value: Buffer.from(value) };
    const batch = encodeBatch([record], { producerId, producerEpoch, baseSequence, transactional: true });
    const command = { topic, topicId: '', partition: index, records: [], expectedOffset: undefined, messageIds: [] };
    const result = await this.#producer.produce({ ...command, acks, batches: [batch], transactionalId });
    this.#sequences.set(key, baseSequence + 1);
    return result;
  }

  /** Of topic `in`. */
  addOffsets(
    producer: TransactionalProducer,
    offset: number,
    command: Partial<AddOffsetsCommand> = {},
  ): Promise<readonly RefusedOffset[]> {
    const offsets = [{ topic: 'in', topicId: '', partition: 0, offset, leaderEpoch: -1, metadata: '' }];
    const byDefault = { groupId: 'g', memberId: '', memberEpoch: 0, offsets };
    return this.coordinator.addOffsets({ ...byDefault, ...producer, ...command });
  }

  async commit(producer: TransactionalProducer): Promise<TransactionalProducer> {
    return next(producer, await this.coordinator.end(producer, true));
  }

  async abort(producer: TransactionalProducer): Promise<TransactionalProducer> {
    return next(producer, await this.coordinator.end(producer, false));
  }

  /** What a reader of committed records sees of the topic: partition by partition. */
  async committed(topic: string = 't'): Promise<string[][]> {
    const { slots } = this.topics.get(topic);
    return await Promise.all(slots.map((_, index) => readCommitted(this.partition(index, topic))));
  }

  /** The committed offset of the group, or why it is not told. */
  async groupOffset(groupId: string = 'g'): Promise<number | string | undefined> {
    try {
      const topics = [{ topic: 'in', topicId: '', partitions: [0] }];
      const [found] = await this.groups.fetchOffsets({ groupId, memberId: '', memberEpoch: 0, topics });
      return found?.committed?.offset;
    } catch (error) {
      if (error instanceof LogError) return error.reason;
      throw error;
    }
  }

  /** Of all partitions, users' and internal ones: transactions that no marker has ended. */
  openCount(): number {
    let count = 0;
    for (const { partition } of this.topics.partitions()) count += partition.openTransactions().length;
    return count;
  }

  async status(transactionalId: string = 'tx'): Promise<string> {
    const { status, producerId, producerEpoch } = await this.coordinator.describe(transactionalId);
    return `${status} ${producerId}/${producerEpoch}`;
  }

  /** Waits for a condition while time goes on. */
  async whileTimePasses(
    condition: () => boolean | Promise<boolean>,
    what: string,
    stepMs: number = 100,
  ): Promise<void> {
    await until(async () => {
      if (await condition()) return true;
      this.clock.advance(stepMs);
      return false;
    }, what);
  }

  /** As a broker stops. */
  async close(): Promise<void> {
    await this.coordinator.close();
    await this.groups.close();
    await this.topics.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function next({ transactionalId }: TransactionalProducer, identity: ProducerIdentity): TransactionalProducer {
  return { transactionalId, ...identity };
}

async function readCommitted(partition: Partition): Promise<string[]> {
  const values: string[] = [];
  let from = partition.logStartOffset;
  for (;;) {
    const { chunks, nextOffset, aborted } = await partition.read(from, 1_000_000, 'read_committed');
    if (nextOffset === from) return values;
    for (const chunk of chunks) await addValues(values, chunk, aborted);
    from = nextOffset;
  }
}

async function addValues(values: string[], chunk: Buffer, aborted: readonly AbortedTransaction[]): Promise<void> {
  for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
    const batch = chunk.subarray(at, at + sizeInBytesOf(chunk, at));
    if (isControl(attributesOf(batch, 0)) || isAborted(batch, aborted)) continue;
    const cursor = await openRecords(batch);
    while (cursor.next()) values.push(cursor.value?.toString() ?? '');
  }
}

function isAborted(batch: Buffer, aborted: readonly AbortedTransaction[]): boolean {
  if (!isTransactional(attributesOf(batch, 0))) return false;
  const offset = baseOffsetOf(batch, 0);
  return aborted.some(
    ({ producerId, firstOffset, lastOffset }) =>
      producerId === producerIdOf(batch, 0) && firstOffset <= offset && offset <= lastOffset,
  );
}
