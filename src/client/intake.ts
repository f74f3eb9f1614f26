/** From a user's record to bytes in the open batch of a partition. */
import type { BufferPool } from '../batch/buffer-pool.js';
import { assert } from '../core/assert.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Accumulator } from './accumulator.js';
import type { Completion, SendManyCall } from './completions.js';
import type { Identities, ProducerIdentity } from './identity.js';
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

/** What the records go into. */
export interface IntakeParts {
  readonly accumulator: Accumulator;
  readonly pool: BufferPool;
  /** Undefined without idempotence. */
  readonly identities: Identities | undefined;
}

/** What a producer knows of its topics, and the way of a record into a batch. */
export class Intake {
  readonly #context: IntakeContext;
  readonly #accumulator: Accumulator;
  readonly #pool: BufferPool;
  readonly #identities: Identities | undefined;
  /** As many as the program names topics. */
  readonly #topics = new Map<string, TopicState>();
  readonly #keyScratch = new Scratch();
  readonly #valueScratch = new Scratch();
  readonly #largestBatchBytes: number;

  /** @throws LogError INVALID_CONFIG when batches would be larger than what the broker takes */
  constructor(context: IntakeContext, parts: IntakeParts) {
    const { options, maxRequestBytes } = context;
    this.#context = context;
    this.#accumulator = parts.accumulator;
    this.#pool = parts.pool;
    this.#identities = parts.identities;
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
    const state = new TopicState(name, options.batchBytes, this.#pool, runtime.random, this.#identities);
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
    const target = state.metadata;
    assert(target !== undefined, 'a topic is known before records are appended');
    const { partitionCount } = target;
    const partition = record.partition ?? this.#choosePartition(state, partitionCount, key);
    checkPartition(partition, partitionCount, topic.name);
    const lane = state.lane(target, partition);
    return this.#accumulator.append(lane, target, timestampMs, key, value, headers, waiter);
  }

  /**
   * Whether a record may be appended with what is known: not while somebody waits for the topic's description, nor when
   * the record names a partition that may have been added since.
   */
  isReady(state: TopicState, partition: number | undefined): boolean {
    if (!state.isReady) return false;
    if (partition === undefined || partition < state.partitionCount || !Number.isInteger(partition)) return true;
    const known = this.#adoptNewest(state);
    if (known === undefined || known.outdated) return false;
    return partition < known.partitionCount || !this.#context.metadata.mayRecheck(known);
  }

  /**
   * Whether the topic's description is too old to go by. Producers that send all the time never see that: what they use
   * is renewed in the background. After a pause the first record waits for a lookup, because by an old number of
   * partitions its key might go elsewhere than the same key sent by others since.
   */
  isOld(state: TopicState): boolean {
    const { metadata } = this.#context;
    if (state.metadata === undefined || !metadata.isOld(state.metadata)) return false;
    const known = this.#adoptNewest(state);
    return known !== undefined && metadata.isOld(known);
  }

  /** Queues a waiter for the topic's description and sees to it that somebody looks it up. */
  whenKnown(state: TopicState, waiter: TopicWaiter): void {
    if (!state.wait(waiter)) return;
    this.#lookUp(state).then(
      (metadata) => state.onKnown(metadata),
      (error) => state.onFailed(toLogError(error)),
    );
  }

  known(state: TopicState): Promise<void> {
    return new Promise((resolve, reject) => this.whenKnown(state, { known: resolve, failed: reject }));
  }

  /** Resolves when the lookups under way have ended, after those who wait for them were resumed. Never rejects. */
  async settled(): Promise<void> {
    await Promise.all([...this.#topics.values()].map((state) => this.#settled(state)));
  }

  /** Those who are resumed may have to wait once more. */
  async #settled(state: TopicState): Promise<void> {
    while (state.isWaitedFor) await this.known(state).catch(() => {});
  }

  /** Fails those who still wait for a topic's description. */
  abort(error: LogError): void {
    for (const state of this.#topics.values()) state.onFailed(error);
  }

  /** Another transaction begins; everything before is settled. */
  restart(identity: ProducerIdentity): void {
    for (const state of this.#topics.values()) state.restart(identity);
  }

  /** Whatever comes of what was sent so far, it is of no interest any more. */
  forgetLanes(): void {
    for (const state of this.#topics.values()) state.forgetLanes();
  }

  /** A batch of the topic was sealed: time for another sticky partition, and for what the cache has learnt. */
  onSealed(topic: string, partition: number): void {
    const state = this.#topics.get(topic);
    if (state?.metadata === undefined) return;
    state.sticky.onSealed(partition, state.partitionCount);
    const newest = this.#adoptNewest(state);
    if (newest !== undefined) this.#context.metadata.refreshEarly(newest);
  }

  /** Takes over what others have found out since. */
  #adoptNewest(state: TopicState): TopicMetadata | undefined {
    state.metadata = this.#context.metadata.peek(state.name) ?? state.metadata;
    return state.metadata;
  }

  async #lookUp(state: TopicState): Promise<TopicMetadata> {
    const { metadata: cache } = this.#context;
    const known = state.metadata;
    const lookup = known === undefined || known.outdated ? cache.get(state.name) : cache.recheck(known);
    // Before the first record of a topic is put into a batch, the producer knows who it is.
    const [metadata] = await Promise.all([lookup, this.#identities?.known()]);
    if (metadata.partitionCount > 0) return metadata;
    throw new LogError('UNKNOWN_TOPIC_OR_PARTITION', `Topic ${state.name} has no partitions.`);
  }

  #choosePartition(state: TopicState, partitionCount: number, key: Uint8Array | null): number {
    const chosen = this.#context.options.partitioner(key, partitionCount, state.name);
    return chosen ?? state.sticky.get(partitionCount);
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
