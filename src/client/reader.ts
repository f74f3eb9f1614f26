/** Reading a topic without a group: batches, and records on top of them. */
import { type LogError, toLogError } from '../core/errors.js';
import type { Admin } from './admin.js';
import { decodeAhead } from './decode-ahead.js';
import { cancelled, closedError, onAbort, throwIfAborted } from './failures.js';
import { FetchSession, type FetchSource, type SessionContext } from './fetch-session.js';
import type { MetadataCache } from './metadata-cache.js';
import { PartitionWatch } from './partition-watch.js';
import { type PartitionSpan, planRead } from './positions.js';
import type { ResolvedReadOptions } from './read-options.js';
import { type BatchCursor, type MakeBatch, type ReadRecord, RecordBatch, splitFetched } from './record-batch.js';
import type { Topic } from './serdes.js';

export interface ReaderContext extends SessionContext {
  readonly admin: Admin;
  readonly metadata: MetadataCache;
  /** Where iterations under way are registered, so that closing the client ends them. */
  readonly open: Set<{ close(): Promise<void> }>;
}

/**
 * A topic to be iterated over, made by `client.read`. Records of one partition come in offset order; between
 * partitions there is no order. A lost connection is made anew where it broke off.
 */
export class TopicReader<K, V> implements AsyncIterable<ReadRecord<K, V>> {
  readonly #topic: Topic<K, V>;
  readonly #options: ResolvedReadOptions;
  readonly #context: ReaderContext;

  /** Use `client.read`. */
  constructor(topic: Topic<K, V>, options: ResolvedReadOptions, context: ReaderContext) {
    this.#topic = topic;
    this.#options = options;
    this.#context = context;
  }

  /**
   * One record at a time. The iteration throws LogError: UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID (the topic was
   * deleted meanwhile), OFFSET_OUT_OF_RANGE, CORRUPT_LOG, CORRUPT_MESSAGE, INVALID_RECORD (a serde refused a record), CANCELLED
   * (the signal), CLOSED (the client).
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<ReadRecord<K, V>> {
    return new RecordIterator(new BatchIterator(this.#topic, this.#options, this.#context));
  }

  /** The fast path: whole batches, whose records are decoded only where asked for. Throws as the iteration of records. */
  batches(): AsyncIterable<RecordBatch<K, V>> {
    return {
      [Symbol.asyncIterator]: () => new BatchIterator(this.#topic, this.#options, this.#context),
    };
  }
}

/** Invariant: `#session` exists from the first `next` until the end; afterwards every `next` is done. */
class BatchIterator<K, V> implements AsyncIterableIterator<RecordBatch<K, V>> {
  readonly #topic: Topic<K, V>;
  readonly #options: ResolvedReadOptions;
  readonly #context: ReaderContext;
  readonly #makeBatch: MakeBatch<RecordBatch<K, V>> = (fetched, bytes, bounds) =>
    new RecordBatch(this.#topic, fetched, bytes, bounds);
  /** Per partition: the offset that comes next, and the end. */
  readonly #bounds = new Map<number, { from: number; readonly to: number | undefined }>();
  #session: FetchSession | undefined;
  /** While all partitions are followed, those to come included. */
  #watch: PartitionWatch | undefined;
  #batches: readonly RecordBatch<K, V>[] = [];
  #index = 0;
  #state: 'new' | 'reading' | 'done' = 'new';
  #stoppedBy: LogError | undefined;
  #stopListening: () => void = () => {};
  /** Ends the wait for the plan; does nothing at other times. */
  #abandonStart: (error: LogError) => void = () => {};
  /** Calls of `next` run one after the other, as those of an async generator. */
  #turn: Promise<unknown> = Promise.resolve();
  #running = 0;

  constructor(topic: Topic<K, V>, options: ResolvedReadOptions, context: ReaderContext) {
    this.#topic = topic;
    this.#options = options;
    this.#context = context;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Why the iteration was ended from outside, if so. */
  get stoppedBy(): LogError | undefined {
    return this.#stoppedBy;
  }

  next(): Promise<IteratorResult<RecordBatch<K, V>>> {
    const result = this.#running === 0 ? this.#next() : this.#turn.then(() => this.#next());
    this.#running++;
    const done = (): void => {
      this.#running--;
    };
    this.#turn = result.then(done, done);
    return result;
  }

  /** Ends the iteration and cancels what is under way; a `next` that waits is done. */
  async return(): Promise<IteratorResult<RecordBatch<K, V>>> {
    this.#finish();
    this.#abandonStart(closedError('reader'));
    this.#session?.stop(closedError('reader'));
    return { done: true, value: undefined };
  }

  /** The client is being closed. */
  async close(): Promise<void> {
    this.#stop(closedError('client'));
  }

  async #next(): Promise<IteratorResult<RecordBatch<K, V>>> {
    try {
      const batch = await this.#nextBatch();
      if (batch !== undefined) return { done: false, value: batch };
      this.#finish();
      return { done: true, value: undefined };
    } catch (error) {
      const ended = this.#state === 'done';
      this.#finish();
      this.#session?.stop(closedError('reader'));
      if (ended) return { done: true, value: undefined };
      throw toLogError(error);
    }
  }

  async #nextBatch(): Promise<RecordBatch<K, V> | undefined> {
    if (this.#state === 'done') return undefined;
    if (this.#stoppedBy !== undefined) throw this.#stoppedBy;
    this.#session ??= await this.#start();
    while (this.#index >= this.#batches.length) {
      const fetched = (await this.#session.next())?.message;
      if (fetched === undefined || this.#isDone) return undefined;
      const bounds = this.#bounds.get(fetched.partition);
      if (bounds === undefined) continue;
      this.#batches = splitFetched(fetched, bounds, this.#options.verifyCrc, this.#makeBatch);
      this.#index = 0;
      bounds.from = Math.max(bounds.from, fetched.nextOffset);
    }
    const batch = this.#batches[this.#index++]!;
    if (batch.isOpen) return batch;
    await batch.open();
    if (this.#stoppedBy !== undefined) throw this.#stoppedBy;
    return this.#isDone ? undefined : batch;
  }

  // A getter, because the state may change while a call above is suspended.
  get #isDone(): boolean {
    return this.#state === 'done';
  }

  async #start(): Promise<FetchSession> {
    const { signal } = this.#options;
    throwIfAborted(signal);
    this.#state = 'reading';
    this.#context.open.add(this);
    this.#stopListening = onAbort(signal, () => this.#stop(cancelled(signal as AbortSignal)));
    const abandoned = new Promise<never>((_, reject) => {
      this.#abandonStart = reject;
    });
    const plan = await Promise.race([planRead(this.#topic.name, this.#options, this.#context), abandoned]);
    // Whoever ended the iteration while the plan was on its way found nothing to stop.
    if (this.#stoppedBy !== undefined) throw this.#stoppedBy;
    if (this.#isDone) throw closedError('reader');
    this.#bound(plan.spans);
    const sourceOf = (span: PartitionSpan): FetchSource => ({
      topic: this.#topic.name,
      topicId: plan.topicId,
      partition: span.partition,
      start: span.start,
      end: span.end,
    });
    const options = { ...this.#options, changing: false };
    const session = new FetchSession(plan.spans.map(sourceOf), options, this.#context);
    const { to, partitions } = this.#options;
    if (to === undefined && partitions === undefined) {
      this.#watch = new PartitionWatch(this.#topic.name, plan, this.#context, (added) => {
        this.#bound(added);
        session.add(added.map(sourceOf));
      });
    }
    return session;
  }

  #bound(spans: readonly PartitionSpan[]): void {
    for (const { partition, start, end } of spans) this.#bounds.set(partition, { from: start, to: end });
  }

  #stop(error: LogError): void {
    this.#stoppedBy ??= error;
    this.#batches = [];
    this.#abandonStart(error);
    this.#watch?.stop();
    this.#session?.stop(error);
  }

  #finish(): void {
    this.#state = 'done';
    this.#batches = [];
    this.#stopListening();
    this.#watch?.stop();
    this.#context.open.delete(this);
  }
}

/** Records of one batch after the other; what is decoded already costs no more than a resolved promise. */
class RecordIterator<K, V> implements AsyncIterableIterator<ReadRecord<K, V>> {
  readonly #source: BatchIterator<K, V>;
  #records: readonly ReadRecord<K, V>[] = [];
  #index = 0;
  #batch: RecordBatch<K, V> | undefined;
  #cursor: BatchCursor | undefined;
  /** Thrown once the records before it are through. */
  #failure: LogError | undefined;
  #turn: Promise<unknown> | undefined;

  constructor(source: BatchIterator<K, V>) {
    this.#source = source;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<ReadRecord<K, V>>> {
    const record = this.#records[this.#index];
    if (record !== undefined && this.#turn === undefined && this.#source.stoppedBy === undefined) {
      this.#index++;
      return Promise.resolve({ done: false, value: record });
    }
    const turn = this.#turn === undefined ? this.#slowNext() : this.#turn.then(() => this.#slowNext());
    const done = (): void => {
      if (this.#turn === settled) this.#turn = undefined;
    };
    const settled: Promise<void> = turn.then(done, done);
    this.#turn = settled;
    return turn;
  }

  async return(): Promise<IteratorResult<ReadRecord<K, V>>> {
    this.#clear();
    await this.#source.return();
    return { done: true, value: undefined };
  }

  async #slowNext(): Promise<IteratorResult<ReadRecord<K, V>>> {
    for (;;) {
      if (this.#source.stoppedBy !== undefined) this.#clear();
      const record = this.#records[this.#index];
      if (record !== undefined) {
        this.#index++;
        return { done: false, value: record };
      }
      if (this.#failure !== undefined) await this.#throwFailure(this.#failure);
      if (this.#batch !== undefined && this.#cursor !== undefined) {
        this.#decodeSome(this.#batch, this.#cursor);
        continue;
      }
      const next = await this.#source.next();
      if (next.done) return { done: true, value: undefined };
      this.#batch = next.value;
      try {
        this.#cursor = await next.value.cursor();
      } catch (error) {
        this.#failure = toLogError(error);
      }
    }
  }

  #decodeSome(batch: RecordBatch<K, V>, cursor: BatchCursor): void {
    const { records, isEnd, failure } = decodeAhead(batch, cursor);
    this.#records = records;
    this.#index = 0;
    this.#failure = failure;
    if (isEnd) this.#batch = undefined;
    if (isEnd || failure !== undefined) this.#cursor = undefined;
  }

  async #throwFailure(failure: LogError): Promise<never> {
    this.#clear();
    await this.#source.return();
    throw failure;
  }

  #clear(): void {
    this.#records = [];
    this.#index = 0;
    this.#batch = undefined;
    this.#cursor = undefined;
    this.#failure = undefined;
  }
}
