/** Reading topics as a member of a consumer group. */
import { LogError } from '../core/errors.js';
import { toOffset } from '../core/types.js';
import {
  type ConsumerOptions,
  type ResolvedConsumerOptions,
  type RunOptions,
  resolveConsumerOptions,
  resolveRunOptions,
} from './consumer-options.js';
import { cancelled, closedError, onAbort, throwIfAborted } from './failures.js';
import type { SessionContext } from './fetch-session.js';
import { ConsumedBatch, ConsumedRecord } from './group/consumed.js';
import { type ConsumerEvent, ConsumerEvents, type PartitionsListener } from './group/consumer-events.js';
import type { ConsumerContext } from './group/context.js';
import { keyOfPartition } from './group/holding.js';
import { BatchLoop, type LoopOwner, RecordLoop } from './group/loops.js';
import { notAssigned, overSince, Participation } from './group/participation.js';
import { type Handler, Runner } from './group/runner.js';
import { ConsumerOffsets, type TransactionalOffsets } from './group/transactional-offsets.js';
import type { TopicPartition } from './group/types.js';
import type { ReadRecord } from './record-batch.js';
import { resolveSubscription, type Subscribed, type Subscription } from './topic-pattern.js';

/** How long `close` waits for the record, the batch or the handlers under way, in ms. */
const CLOSE_WAIT_MS = 5_000;

/** What the group has committed of a partition. */
export interface CommittedPosition extends TopicPartition {
  /** The next offset to read; undefined: nothing was committed. */
  readonly offset: number | undefined;
  readonly metadata: string;
  /** When it was committed, ms since the epoch; undefined for nothing. */
  readonly commitTimeMs: number | undefined;
}

/** Where a consumer is moved to: an offset, the log start offset, the high watermark, or the first record at a time. */
export type SeekTo = number | 'earliest' | 'latest' | Date;

/** What a consumer needs of its client. */
export interface ConsumerParts
  extends SessionContext,
    Pick<ConsumerContext<unknown, unknown>, 'findStarts' | 'findOffset'> {
  readonly createMembership: (
    wanted: Subscription<unknown, unknown>['wanted'],
    options: ResolvedConsumerOptions,
    ...listener: Parameters<ConsumerContext<unknown, unknown>['createMembership']>
  ) => ReturnType<ConsumerContext<unknown, unknown>['createMembership']>;
  /** Warns of topics that do not exist: they are waited for, but somebody may have mistyped a name. Never rejects. */
  readonly warnOfMissing: (topics: readonly string[], signal: AbortSignal) => Promise<void>;
  readonly findCommitted: (
    partitions: readonly (TopicPartition & { readonly topicId: string })[],
  ) => Promise<CommittedPosition[]>;
  /** Where iterations under way are registered, so that closing the client ends them. */
  readonly open: Set<{ close(): Promise<void> }>;
  /** Where consumers that are iterated over are registered, for transactions. */
  readonly working: Set<TransactionalOffsets>;
  /** @throws LogError CLOSED once the client is closed */
  readonly throwIfClosed: () => void;
}

/**
 * Reads its share of the topics' partitions, made by `client.consumer`: iterate over it, over its `batches()`, or `run` a
 * handler. The first record asked for joins the group; leaving the loop commits what is finished and leaves the group.
 * Records of one partition come in offset order. At least once: what was not committed is handed out again.
 */
export class Consumer<K, V> implements AsyncIterable<ReadRecord<K, V>>, AsyncDisposable {
  readonly #subscription: Subscription<K, V>;
  readonly #options: ResolvedConsumerOptions;
  readonly #parts: ConsumerParts;
  readonly #events: ConsumerEvents;
  readonly #offsets: ConsumerOffsets;
  readonly #paused = new Map<string, TopicPartition>();
  readonly #owner: LoopOwner<K, V> = {
    begin: () => this.#begin(),
    end: (participation) => this.#end(participation),
    isQuietEnd: (error) => error === this.#closedBy,
  };
  #current: Participation<K, V> | undefined;
  #stopListening: () => void = () => {};
  /** Set by `close`. */
  #closedBy: LogError | undefined;
  #closing: Promise<void> | undefined;
  #isRunning = false;
  readonly #closable = { close: () => this.#stopBy(closedError('client')) };

  /** Use `client.consumer`. */
  constructor(subscribed: Subscribed<K, V>, options: ConsumerOptions, parts: ConsumerParts) {
    this.#subscription = resolveSubscription(subscribed);
    this.#options = resolveConsumerOptions(options);
    this.#parts = parts;
    this.#events = new ConsumerEvents(parts.runtime.logger);
    this.#offsets = new ConsumerOffsets(this.#options.group, () => this.#current);
  }

  /** For the client's own use. */
  static offsetsOf<K, V>(consumer: Consumer<K, V>): ConsumerOffsets {
    return consumer.#offsets;
  }

  /**
   * One record at a time; asking for the next one finishes the one before (unless `autoCommit` is false). One iteration
   * at a time: another one while it is under way throws INVALID_REQUEST. The iteration throws LogError: CANCELLED (the
   * signal), CLOSED (the client), OFFSET_OUT_OF_RANGE, LOG_TRUNCATED and UNKNOWN_TOPIC_ID (no valid position to go on
   * from, see the option `from`), CORRUPT_LOG, CORRUPT_MESSAGE, INVALID_RECORD (a serde refused a record), what the broker
   * refuses the member for, such as INVALID_GROUP_ID or GROUP_MAX_SIZE_REACHED.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<ReadRecord<K, V>> {
    return new RecordLoop(this.#owner);
  }

  /** The fast path: whole batches, each finished when the loop asks for the next one. Throws as the iteration of records. */
  batches(): AsyncIterable<ConsumedBatch<K, V>> {
    return { [Symbol.asyncIterator]: () => new BatchLoop(this.#owner) };
  }

  /**
   * Has every record handled, several at a time if asked for. A record is finished when its handler is (unless `autoCommit`
   * is false), and the committed offset never passes one that is not. A handler that throws ends it: the others under way
   * finish, what is finished is committed, the group is left. Resolves once the consumer was closed.
   * @throws what the handler threw; LogError as the iteration
   */
  async run(handler: Handler<K, V>, options: RunOptions = {}): Promise<void> {
    const resolved = resolveRunOptions(options);
    const participation = this.#begin();
    this.#isRunning = true;
    const { clock } = this.#parts.runtime;
    const { maxPollIntervalMs, maxBufferedBytes } = this.#options;
    const limits = { monotonic: () => clock.monotonic(), maxPollIntervalMs, maxBytes: maxBufferedBytes };
    try {
      await new Runner(participation, handler, resolved, limits).run();
    } catch (error) {
      if (error !== this.#closedBy) throw error;
    } finally {
      this.#isRunning = false;
      await this.#end(participation);
    }
  }

  /**
   * Finishes a record or a batch, or with no argument all that was handed out (during `run`: nothing), and commits what is
   * finished without a hole; resolves when that is durable. While something before it is unfinished, it resolves without
   * committing anything new.
   * @throws LogError FENCED_MEMBER_EPOCH (the partition is no longer this consumer's, or no longer the same assignment:
   *   whoever has it consumes the record again), UNKNOWN_MEMBER_ID, UNKNOWN_TOPIC_ID, INVALID_REQUEST (not a record of a
   *   consumer), CLOSED; what did not pass within the client's `requestTimeoutMs`
   */
  async commit(what?: ReadRecord<K, V> | ConsumedBatch<K, V>): Promise<void> {
    this.#parts.throwIfClosed();
    if (what instanceof ConsumedBatch) return what.commit();
    if (what !== undefined) return this.#commitRecord(what);
    const participation = this.#current;
    if (participation === undefined) return;
    const holdings = [...participation.holdings];
    if (!this.#isRunning) for (const { progress } of holdings) progress?.finishAll();
    await participation.commits.commit(holdings);
  }

  /**
   * Calls `listener` when partitions come (`assigned`, before a record of them is handed out), go (`revoked`, before they
   * are given up) or are gone (`lost`). Async listeners are awaited, one after the other; one that fails is logged.
   */
  on(event: ConsumerEvent, listener: PartitionsListener): this {
    this.#events.on(event, listener);
    return this;
  }

  off(event: ConsumerEvent, listener: PartitionsListener): this {
    this.#events.off(event, listener);
    return this;
  }

  /**
   * Hands out nothing of these until `resume`, also when they go and come back meanwhile. Nothing is skipped and nothing
   * handed out twice; other partitions go on.
   */
  pause(...partitions: TopicPartition[]): void {
    for (const { topic, partition } of partitions) {
      this.#paused.set(keyOfPartition({ topic, partition }), { topic, partition });
    }
    this.#current?.pause(partitions);
  }

  resume(...partitions: TopicPartition[]): void {
    for (const partition of partitions) this.#paused.delete(keyOfPartition(partition));
    this.#current?.resume(partitions);
  }

  /** What is paused, whether it is assigned or not. */
  paused(): TopicPartition[] {
    return [...this.#paused.values()];
  }

  /**
   * Goes on at another position of an assigned partition; from then on nothing from before is handed out. The next commit
   * commits the new position.
   * @throws LogError INVALID_REQUEST when the partition is not assigned; what looking the position up fails with
   */
  async seek(partition: TopicPartition, to: SeekTo): Promise<void> {
    if (this.#current === undefined) throw notAssigned(partition);
    await this.#current.seek(partition, typeof to === 'number' ? toOffset(to) : to);
  }

  /** The partitions that this consumer has now. */
  assignment(): TopicPartition[] {
    return [...(this.#current?.holdings ?? [])].map(({ topicPartition }) => topicPartition);
  }

  /** The next offset to be handed out; undefined while that is not known, or the partition is not assigned. */
  position(partition: TopicPartition): number | undefined {
    return this.#current?.holding(partition)?.progress?.position;
  }

  /**
   * What the group has committed, of these partitions or else of those assigned.
   * @throws LogError what asking the broker fails with
   */
  committed(partitions: readonly TopicPartition[] = this.assignment()): Promise<CommittedPosition[]> {
    const asked = partitions.map(({ topic, partition }) => ({
      topic,
      partition,
      topicId: this.#current?.holding({ topic, partition })?.assigned.topicId ?? '',
    }));
    return this.#parts.findCommitted(asked);
  }

  /**
   * Ends the iteration, or `run`, without an error: hands out nothing more, waits up to 5 s for what is being worked on,
   * commits what is finished, leaves the group. In the body of a loop use `break` instead. Idempotent.
   */
  close(): Promise<void> {
    this.#closedBy ??= closedError('consumer');
    this.#closing ??= this.#stopBy(this.#closedBy);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #stopBy(error: LogError): Promise<void> {
    const participation = this.#current;
    if (participation === undefined) return;
    participation.stop(error);
    const waited = new AbortController();
    const timeout = this.#parts.runtime.clock.sleep(CLOSE_WAIT_MS, waited.signal).catch(() => {});
    await Promise.race([participation.whenFree(), timeout]);
    waited.abort();
    participation.stopWaiting();
    await this.#end(participation);
  }

  #begin(): Participation<K, V> {
    const { signal } = this.#options;
    this.#parts.throwIfClosed();
    if (this.#closedBy !== undefined) throw this.#closedBy;
    throwIfAborted(signal);
    if (this.#current !== undefined) {
      throw new LogError('INVALID_REQUEST', 'The consumer is being iterated over already: one iteration at a time.');
    }
    const participation = new Participation<K, V>({
      ...this.#parts,
      options: this.#options,
      events: this.#events,
      isBound: () => this.#offsets.isBound,
      paused: this.#paused,
      topicOf: this.#subscription.topicOf,
      createMembership: (listener) => this.#parts.createMembership(this.#subscription.wanted, this.#options, listener),
    });
    this.#current = participation;
    this.#parts.open.add(this.#closable);
    this.#parts.working.add(this.#offsets);
    const { wanted } = this.#subscription;
    if ('topics' in wanted) void this.#parts.warnOfMissing(wanted.topics, participation.stopped);
    this.#stopListening = onAbort(signal, () => participation.stop(cancelled(signal as AbortSignal)));
    return participation;
  }

  async #end(participation: Participation<K, V>): Promise<void> {
    await participation.end();
    if (this.#current !== participation) return;
    this.#current = undefined;
    this.#stopListening();
    this.#parts.open.delete(this.#closable);
    this.#parts.working.delete(this.#offsets);
  }

  async #commitRecord(record: ReadRecord<K, V>): Promise<void> {
    const origin = ConsumedRecord.originOf(record);
    if (origin === undefined) {
      throw new LogError(
        'INVALID_REQUEST',
        'Only a record that this consumer has handed out can be committed, not a copy.',
      );
    }
    const { holding, progress } = origin;
    progress.finish(record.offset, record.offset + 1);
    if (holding.phase === 'gone' || this.#current === undefined) throw overSince(holding.assigned);
    await this.#current.commitOf(holding, progress);
  }
}
