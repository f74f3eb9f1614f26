/** From a user's record to bytes in the open batch of a partition. */
import type { BufferPool } from '../batch/buffer-pool.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Accumulator } from './accumulator.js';
import type { Completion, SendManyCall } from './completions.js';
import type { MetadataCache, TopicMetadata } from './metadata-cache.js';
import type { ClientRuntime, ResolvedProducerOptions } from './options.js';
import { checkPartition } from './partitioner.js';
import { largestBatchBytes, type RecordInput, toHeaders } from './record-input.js';
import { Scratch, serializeKey, serializeValue, type Topic } from './serdes.js';
import { TopicState, type TopicWaiter } from './topic-state.js';

/** Room in a request for everything that is not the batch. */
const REQUEST_OVERHEAD_BYTES = 1_024;

export interface IntakeContext {
  readonly runtime: ClientRuntime;
  readonly metadata: MetadataCache;
  readonly options: ResolvedProducerOptions;
  readonly maxRequestBytes: number;
}

/** What a producer knows of its topics, and the way of a record into a batch. */
export class Intake {
  readonly #context: IntakeContext;
  readonly #accumulator: Accumulator;
  readonly #pool: BufferPool;
  /** As many as the program names topics. */
  readonly #topics = new Map<string, TopicState>();
  readonly #keyScratch = new Scratch();
  readonly #valueScratch = new Scratch();
  readonly #largestBatchBytes: number;

  /** @throws LogError INVALID_CONFIG when batches would be larger than what the broker takes */
  constructor(context: IntakeContext, accumulator: Accumulator, pool: BufferPool) {
    const { options, maxRequestBytes } = context;
    this.#context = context;
    this.#accumulator = accumulator;
    this.#pool = pool;
    this.#largestBatchBytes = maxRequestBytes > 0 ? maxRequestBytes - REQUEST_OVERHEAD_BYTES : Number.POSITIVE_INFINITY;
    if (options.batchBytes <= this.#largestBatchBytes) return;
    throw new LogError(
      'INVALID_CONFIG',
      `The option batchBytes is ${options.batchBytes}, but the broker takes requests of at most ${maxRequestBytes} ` +
        `bytes: choose ${this.#largestBatchBytes} or less.`,
    );
  }

  topic(name: string): TopicState {
    const known = this.#topics.get(name);
    if (known !== undefined) return known;
    const { options, runtime } = this.#context;
    const state = new TopicState(name, options.batchBytes, this.#pool, runtime.random);
    this.#topics.set(name, state);
    return state;
  }

  /**
   * Appends a record of a topic that is ready.
   * @returns bytes that the record took
   * @throws LogError INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, UNKNOWN_TOPIC_OR_PARTITION
   */
  append<K, V>(
    state: TopicState,
    topic: Topic<K, V>,
    record: RecordInput<K, V>,
    timestampMs: number,
    waiter: Completion | SendManyCall,
  ): number {
    const key = serializeKey(topic, record.key, this.#keyScratch);
    const value = serializeValue(topic, record.value, this.#valueScratch);
    const headers = record.headers === undefined ? undefined : toHeaders(record.headers);
    this.#checkSize(topic.name, largestBatchBytes(key, value, headers));
    const partition = record.partition ?? this.#choosePartition(state, key);
    checkPartition(partition, state.partitionCount, topic.name);
    return this.#accumulator.append(state.lane(partition), timestampMs, key, value, headers, waiter);
  }

  /** Queues a waiter for the topic's description and sees to it that somebody looks it up. */
  whenKnown(state: TopicState, waiter: TopicWaiter): void {
    if (!state.wait(waiter)) return;
    this.#lookUp(state.name).then(
      (metadata) => state.onKnown(metadata),
      (error) => state.onFailed(toLogError(error)),
    );
  }

  known(state: TopicState): Promise<void> {
    return new Promise((resolve, reject) => this.whenKnown(state, { known: resolve, failed: reject }));
  }

  /** Resolves when the lookups under way have ended, after those who wait for them were resumed. Never rejects. */
  async settled(): Promise<void> {
    const unknown = [...this.#topics.values()].filter((state) => state.isWaitedFor);
    await Promise.all(unknown.map((state) => this.known(state).catch(() => {})));
  }

  /** Fails those who still wait for a topic's description. */
  abort(error: LogError): void {
    for (const state of this.#topics.values()) state.onFailed(error);
  }

  /** A batch of the topic was sealed: time for another sticky partition, and for what the cache has learnt. */
  onSealed(topic: string, partition: number): void {
    const state = this.#topics.get(topic);
    if (state?.metadata === undefined) return;
    state.sticky.onSealed(partition, state.partitionCount);
    const newest = this.#context.metadata.peek(topic);
    if (newest === undefined) return;
    state.metadata = newest;
    this.#context.metadata.refreshIfOld(newest);
  }

  async #lookUp(name: string): Promise<TopicMetadata> {
    const metadata = await this.#context.metadata.get(name);
    if (metadata.partitionCount > 0) return metadata;
    throw new LogError('UNKNOWN_TOPIC_OR_PARTITION', `Topic ${name} has no partitions.`);
  }

  #choosePartition(state: TopicState, key: Uint8Array | null): number {
    const chosen = this.#context.options.partitioner(key, state.partitionCount, state.name);
    return chosen ?? state.sticky.get(state.partitionCount);
  }

  #checkSize(topic: string, bytes: number): void {
    if (bytes <= this.#largestBatchBytes) return;
    throw new LogError(
      'MESSAGE_TOO_LARGE',
      `A record for topic ${topic} takes about ${bytes} bytes; the broker accepts at most ${this.#largestBatchBytes}.`,
      { metadata: { topic, actual_bytes: bytes, max_bytes: this.#largestBatchBytes } },
    );
  }
}
