/** The producer as its users see it: what may be sent when, and who waits. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BufferPool } from '../batch/buffer-pool.js';
import { errorMessage, LogError, toLogError } from '../core/errors.js';
import { Accumulator } from './accumulator.js';
import { Alarm } from './alarm.js';
import { ByteGate, type GateEntry } from './byte-gate.js';
import type { Channel } from './channel.js';
import { SendCompletion, SendManyCall, type SendManyResult, type SendResult } from './completions.js';
import { cancelled, closedError, onAbort, throwIfAborted } from './failures.js';
import { Intake } from './intake.js';
import type { MetadataCache } from './metadata-cache.js';
import type { ClientRuntime, ResolvedProducerOptions } from './options.js';
import { type RecordInput, toTimestampMs } from './record-input.js';
import { Sender } from './sender.js';
import type { Topic } from './serdes.js';
import type { TopicState, TopicWaiter } from './topic-state.js';

/** `sendMany` lets the event loop turn after this much: long enough to fill batches, short enough for others. */
const TURN_BYTES = 256 * 1024;
/** Buffers of acknowledged batches that are kept for later ones. */
const POOLED_BYTES: number = 8 * 1024 * 1024;

/** For the client's own use. */
export interface ProducerContext {
  readonly channel: Channel;
  readonly runtime: ClientRuntime;
  readonly metadata: MetadataCache;
  readonly options: ResolvedProducerOptions;
  readonly requestTimeoutMs: number;
  readonly maxRequestBytes: number;
  readonly onClosed: () => void;
}

export interface SendOptions {
  /**
   * Gives up while waiting for room or for the topic's description. A record that is in a batch already is not called
   * back: its promise tells what became of it.
   */
  readonly signal?: AbortSignal;
}

/**
 * Sends records in batches, several in flight, in order within each partition.
 *
 * Delivery is at least once: a batch whose answer was lost with the connection is sent again and may then be in the log
 * twice. A promise that resolves means that the record is in the log as `acks` says; one that rejects means that
 * it will not be sent again (`error.outcome` tells whether it may be there all the same).
 */
export class Producer implements AsyncDisposable {
  readonly #context: ProducerContext;
  readonly #gate: ByteGate;
  readonly #alarm: Alarm;
  readonly #sender: Sender;
  readonly #accumulator: Accumulator;
  readonly #intake: Intake;
  /** Calls of `sendMany` under way. */
  readonly #calls = new Set<Promise<unknown>>();
  #waitingSends = 0;
  /** `closing` takes no new calls, `closed` appends nothing any more. */
  #state: 'open' | 'closing' | 'closed' = 'open';
  #closing: Promise<void> | undefined;

  /** Use `client.producer()`. */
  constructor(context: ProducerContext) {
    const { runtime, options } = context;
    this.#context = context;
    this.#gate = new ByteGate(options.bufferBytes);
    this.#alarm = new Alarm(runtime.clock, () => this.#onAlarm());
    const pool = new BufferPool(options.batchBytes, POOLED_BYTES);
    const wakeAt = (atMs: number): void => this.#alarm.wakeAt(atMs);
    this.#sender = new Sender({
      channel: context.channel,
      runtime,
      options,
      requestTimeoutMs: context.requestTimeoutMs,
      onSettled: (batch) => this.#onSettled(batch.chargedBytes),
      onReusable: (bytes) => pool.giveBack(bytes),
      metadata: context.metadata,
      wakeAt,
    });
    this.#accumulator = new Accumulator({
      runtime,
      options,
      gate: this.#gate,
      sender: this.#sender,
      onSealed: (lane) => this.#intake.onSealed(lane.topic, lane.partition),
      wakeAt,
    });
    this.#intake = new Intake(context, this.#accumulator, pool);
  }

  /**
   * Sends one record. Resolves when the broker has acknowledged it. Order within a partition is the order of the calls.
   * The record must not be changed before that.
   * @throws LogError INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID
   *   (the topic was deleted meanwhile), REQUEST_TIMED_OUT (not delivered in `deliveryTimeoutMs`),
   *   RESOURCE_LIMIT (too many calls wait already), CLOSED, CANCELLED
   */
  send<K, V>(topic: Topic<K, V>, record: RecordInput<K, V>, options?: SendOptions): Promise<SendResult> {
    return new Promise((resolve, reject) => {
      if (this.#state !== 'open') throw closedError('producer');
      const signal = options?.signal;
      throwIfAborted(signal);
      const state = this.#intake.topic(topic.name);
      const isCurrent = this.#isCurrent(state, record.partition);
      if (isCurrent && this.#gate.isOpen) this.#append(state, topic, record, resolve, reject);
      else this.#sendLater(state, topic, record, resolve, reject, signal);
    });
  }

  /**
   * Sends many records with one promise. Their order is kept within each partition; records of other calls may come
   * between. Waits for room as it goes, so an endless or asynchronous iterable is welcome. After a failure no
   * more records are taken, and the promise rejects once those under way are settled.
   * @throws LogError as `send`, with `delivered_count` and `failed_count` in its metadata; whatever the iterable throws
   */
  sendMany<K, V>(
    topic: Topic<K, V>,
    records: Iterable<RecordInput<K, V>> | AsyncIterable<RecordInput<K, V>>,
    options: SendOptions = {},
  ): Promise<SendManyResult> {
    if (this.#state !== 'open') return Promise.reject(closedError('producer'));
    const call = this.#sendMany(topic, records, options.signal);
    this.#calls.add(call);
    const forget = (): void => {
      this.#calls.delete(call);
    };
    call.then(forget, forget);
    return call;
  }

  /**
   * Sends at once what lingers, and resolves when everything accepted before is settled, delivered or not: the
   * promises of the records tell. For a `sendMany` under way that means the records taken from its iterable so far.
   * @throws LogError CANCELLED
   */
  async flush(options: SendOptions = {}): Promise<void> {
    const { signal } = options;
    throwIfAborted(signal);
    const flushed = this.#flush();
    if (signal === undefined) return flushed;
    let stopListening = (): void => {};
    const aborted = new Promise<never>((_, reject) => {
      stopListening = onAbort(signal, () => reject(cancelled(signal)));
    });
    try {
      await Promise.race([flushed, aborted]);
    } finally {
      stopListening();
    }
  }

  /**
   * Takes no new records, delivers what was accepted, then lets go of everything. What is not delivered within the limit
   * rejects with CLOSED. Never rejects; idempotent.
   * @param options.timeoutMs default: the producer's `closeTimeoutMs`
   */
  close(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.timeoutMs ?? this.#context.options.closeTimeoutMs);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Appends for `send`, whose promise this settles. Must not throw. */
  #append<K, V>(
    state: TopicState,
    topic: Topic<K, V>,
    record: RecordInput<K, V>,
    resolve: (result: SendResult) => void,
    reject: (error: LogError) => void,
  ): void {
    try {
      const timestampMs =
        record.timestampMs === undefined ? this.#context.runtime.clock.now() : toTimestampMs(record.timestampMs);
      this.#intake.append(state, topic, record, timestampMs, new SendCompletion(timestampMs, resolve, reject));
    } catch (error) {
      reject(toLogError(error));
    }
  }

  /** Queues a `send` until its topic is known and there is room. */
  #sendLater<K, V>(
    state: TopicState,
    topic: Topic<K, V>,
    record: RecordInput<K, V>,
    resolve: (result: SendResult) => void,
    reject: (error: LogError) => void,
    signal: AbortSignal | undefined,
  ): void {
    const { maxWaitingSends } = this.#context.options;
    if (this.#waitingSends >= maxWaitingSends) {
      throw new LogError(
        'RESOURCE_LIMIT',
        `${maxWaitingSends} calls of send wait for room already: await some of them, or use sendMany.`,
        { metadata: { max_waiting_sends: maxWaitingSends } },
      );
    }
    this.#waitingSends++;
    const entry: GateEntry = {
      abandoned: false,
      run: () => {
        leave();
        if (this.#state === 'closed') reject(closedError('producer'));
        else this.#append(state, topic, record, resolve, reject);
      },
    };
    const leave = (): void => {
      this.#waitingSends--;
      stopListening();
    };
    const giveUp = (error: LogError): void => {
      entry.abandoned = true;
      leave();
      reject(error);
    };
    const stopListening = onAbort(signal, () => giveUp(cancelled(signal as AbortSignal)));
    const waiter: TopicWaiter = {
      known: () => {
        if (entry.abandoned) return;
        // What was known to others already may not be enough for this record, or for one before it.
        if (this.#intake.isReady(state, record.partition)) this.#enterGate(entry);
        else this.#intake.whenKnown(state, waiter);
      },
      failed: (error) => {
        if (!entry.abandoned) giveUp(error);
      },
    };
    if (this.#isCurrent(state, record.partition)) this.#enterGate(entry);
    else this.#intake.whenKnown(state, waiter);
  }

  #enterGate(entry: GateEntry): void {
    this.#gate.enter(entry);
    this.#sealWhenStuck();
  }

  /** When everything that uses up the buffer lingers in open batches, nothing would ever free it but time. */
  #sealWhenStuck(): void {
    if (this.#gate.waitingCount > 0 && this.#sender.isIdle) this.#accumulator.sealAll();
  }

  async #sendMany<K, V>(
    topic: Topic<K, V>,
    records: Iterable<RecordInput<K, V>> | AsyncIterable<RecordInput<K, V>>,
    signal: AbortSignal | undefined,
  ): Promise<SendManyResult> {
    const call = new SendManyCall();
    try {
      if (Symbol.asyncIterator in records) await this.#takeAsync(topic, records, call, signal);
      else await this.#takeSync(topic, records, call, signal);
    } catch (error) {
      // What the iterable throws is its own business; the failures of records are counted.
      if (!(error instanceof LogError)) {
        await call.idle();
        throw error;
      }
      call.stop(error);
    }
    await call.idle();
    return call.result();
  }

  async #takeSync<K, V>(
    topic: Topic<K, V>,
    records: Iterable<RecordInput<K, V>>,
    call: SendManyCall,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { clock } = this.#context.runtime;
    const state = this.#intake.topic(topic.name);
    let nowMs = clock.now();
    let turnBytes = 0;
    let isOld = this.#intake.isOld(state);
    for (const record of records) {
      if (turnBytes >= TURN_BYTES) {
        await nextTurn();
        turnBytes = 0;
        nowMs = clock.now();
        isOld = this.#intake.isOld(state);
      }
      if (isOld || !this.#mayAppend(state, record.partition, signal)) {
        await this.#admitted(state, record.partition, signal);
        nowMs = clock.now();
        isOld = false;
      }
      if (call.failure !== undefined) return;
      const timestampMs = record.timestampMs === undefined ? nowMs : toTimestampMs(record.timestampMs);
      turnBytes += this.#intake.append(state, topic, record, timestampMs, call);
    }
  }

  async #takeAsync<K, V>(
    topic: Topic<K, V>,
    records: AsyncIterable<RecordInput<K, V>>,
    call: SendManyCall,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { clock } = this.#context.runtime;
    const state = this.#intake.topic(topic.name);
    for await (const record of records) {
      if (this.#intake.isOld(state) || !this.#mayAppend(state, record.partition, signal)) {
        await this.#admitted(state, record.partition, signal);
      }
      if (call.failure !== undefined) return;
      const timestampMs = record.timestampMs === undefined ? clock.now() : toTimestampMs(record.timestampMs);
      this.#intake.append(state, topic, record, timestampMs, call);
    }
  }

  /** Whether a record that names this partition, or none, may be appended without asking the broker first. */
  #isCurrent(state: TopicState, partition: number | undefined): boolean {
    return this.#intake.isReady(state, partition) && !this.#intake.isOld(state);
  }

  #mayAppend(state: TopicState, partition: number | undefined, signal: AbortSignal | undefined): boolean {
    if (this.#state === 'closed' || signal?.aborted) return false;
    return this.#gate.isOpen && this.#intake.isReady(state, partition);
  }

  /** Resolves when the topic is known, as far as the record's partition asks for it, and there is room. */
  async #admitted(state: TopicState, partition: number | undefined, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    this.#throwIfClosed();
    if (!this.#isCurrent(state, partition)) await this.#intake.known(state);
    while (!this.#intake.isReady(state, partition)) await this.#intake.known(state);
    // Others may have been resumed before and used the room up again.
    while (!this.#gate.isOpen) await this.#room(signal);
    this.#throwIfClosed();
  }

  #throwIfClosed(): void {
    if (this.#state === 'closed') throw closedError('producer');
  }

  #room(signal: AbortSignal | undefined): Promise<void> {
    const room = this.#gate.room(signal);
    this.#sealWhenStuck();
    return room;
  }

  async #flush(): Promise<void> {
    // Calls that wait for a topic's description go first, then those that wait for room, then all is in batches.
    await this.#intake.settled();
    await this.#room(undefined);
    this.#accumulator.sealAll();
    await this.#sender.flush();
  }

  async #close(timeoutMs: number): Promise<void> {
    this.#state = 'closing';
    const { clock, logger } = this.#context.runtime;
    const limit = new AbortController();
    const timedOut = clock.sleep(timeoutMs, limit.signal).then(
      () => 'timed out' as const,
      () => 'timed out' as const,
    );
    const drained = this.#drain().then(
      () => 'drained' as const,
      (error) => {
        logger.error({ error: errorMessage(error) }, 'a producer could not be drained');
        return 'failed' as const;
      },
    );
    const outcome = await Promise.race([drained, timedOut]);
    limit.abort();
    if (outcome !== 'drained') logger.warn({ timeoutMs }, 'a producer was closed before everything was delivered');
    this.#state = 'closed';
    this.#intake.abort(closedError('producer'));
    this.#accumulator.sealAll();
    this.#sender.abort(new LogError('CLOSED', `The producer was closed before the record was acknowledged.`));
    this.#alarm.cancel();
    this.#context.onClosed();
  }

  async #drain(): Promise<void> {
    this.#accumulator.stopLingering();
    await Promise.allSettled([...this.#calls]);
    await this.#flush();
    await this.#sender.finish();
  }

  #onAlarm(): void {
    const nowMs = this.#context.runtime.clock.monotonic();
    const sealAt = this.#accumulator.sealDue(nowMs);
    const tickAt = this.#sender.tick(nowMs);
    const nextAt = Math.min(sealAt, tickAt);
    if (nextAt < Number.POSITIVE_INFINITY) this.#alarm.wakeAt(nextAt);
  }

  #onSettled(bytes: number): void {
    this.#gate.release(bytes);
    this.#sealWhenStuck();
    if (this.#sender.isIdle && this.#accumulator.isEmpty) this.#alarm.cancel();
  }
}
