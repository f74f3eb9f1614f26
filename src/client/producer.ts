/** The producer as its users see it: what may be sent when, and who waits. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BufferPool } from '../batch/buffer-pool.js';
import { assert } from '../core/assert.js';
import { errorMessage, LogError, toLogError } from '../core/errors.js';
import { Accumulator } from './accumulator.js';
import { Admission } from './admission.js';
import { Alarm } from './alarm.js';
import { ByteGate } from './byte-gate.js';
import type { Channel } from './channel.js';
import { SendCompletion, SendManyCall, type SendManyResult, type SendResult } from './completions.js';
import { cancelled, closedError, onAbort, throwIfAborted } from './failures.js';
import { Identities, type ProducerIdentity } from './identity.js';
import { Intake } from './intake.js';
import type { MetadataCache } from './metadata-cache.js';
import type { ClientRuntime, ResolvedProducerOptions } from './options.js';
import { type RecordInput, toTimestampMs } from './record-input.js';
import { Sender } from './sender.js';
import type { Topic } from './serdes.js';
import type { TopicState } from './topic-state.js';

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
  /**
   * Makes it the producer inside a transactional one: its batches are transactional and carry identities that `begin`
   * is given. With `idempotent` and acks `written`: the commit makes all of it durable.
   */
  readonly transactional?: { readonly transactionalId: string };
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
 * Idempotent unless told otherwise: a batch whose answer was lost is sent again, and is in the log once all the same. A promise
 * that resolves means that the record is in the log as `acks` says; one that rejects means that it will not be sent
 * again (`error.outcome` tells whether it may be there all the same, or may still arrive). Without idempotence, what
 * was sent again may be in the log twice.
 */
export class Producer implements AsyncDisposable {
  readonly #context: ProducerContext;
  readonly #gate: ByteGate;
  readonly #alarm: Alarm;
  readonly #sender: Sender;
  readonly #accumulator: Accumulator;
  readonly #intake: Intake;
  readonly #admission: Admission;
  /** Undefined without idempotence. */
  readonly #identities: Identities | undefined;
  /** Calls of `sendMany` under way. */
  readonly #calls = new Map<SendManyCall, Promise<unknown>>();
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
    this.#identities = options.idempotent ? new Identities(context) : undefined;
    this.#sender = new Sender({
      channel: context.channel,
      runtime,
      options,
      requestTimeoutMs: context.requestTimeoutMs,
      transactionalId: context.transactional?.transactionalId ?? '',
      identities: this.#identities,
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
    const parts = { accumulator: this.#accumulator, pool, identities: this.#identities };
    this.#intake = new Intake(context, parts);
    this.#admission = new Admission({
      intake: this.#intake,
      gate: this.#gate,
      maxWaitingSends: options.maxWaitingSends,
      onWaiting: () => this.#sealWhenStuck(),
    });
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
      const { partition } = record;
      if (this.#admission.isCurrent(state, partition) && this.#gate.isOpen) {
        this.#append(state, topic, record, resolve, reject);
        return;
      }
      const append = (): void => this.#append(state, topic, record, resolve, reject);
      this.#admission.later({ state, partition, signal, append, reject });
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
    const call = new SendManyCall();
    const result = this.#sendMany(call, topic, records, options.signal);
    this.#calls.set(call, result);
    const forget = (): void => {
      this.#calls.delete(call);
    };
    result.then(forget, forget);
    return result;
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

  /**
   * For the client's own use, with `transactional`: the records sent from now on belong to the transaction of this
   * identity, their sequences begin at 0 in every partition. Nothing of the transaction before may be unsettled.
   */
  begin(identity: ProducerIdentity): void {
    assert(this.#identities?.transactional === true, 'only a transactional producer begins transactions');
    if (this.failure !== undefined) this.abandon(this.failure);
    const isSettled = this.#sender.isIdle && this.#accumulator.isEmpty && this.#admission.waitingCount === 0;
    // One that was abandoned takes no more records, whenever its iterable yields again.
    const isAnySending = [...this.#calls.keys()].some((call) => call.failure === undefined);
    assert(isSettled && !isAnySending, 'one transaction at a time');
    this.#sender.begin();
    this.#identities.adopt(identity);
    this.#intake.restart(identity);
  }

  /**
   * For the client's own use: why a batch failed since `begin`, the first one of them. Records that were refused before
   * they were in a batch have only their own promises.
   */
  get failure(): LogError | undefined {
    return this.#sender.failure;
  }

  /**
   * For the client's own use: fails at once all that is unsettled, lingers or waits, and forgets what is in flight. So does
   * whatever is sent until the next transaction begins. Calls of `sendMany` take no more records and fail, each when its
   * iterable has yielded once more at the latest.
   */
  abandon(error: LogError): void {
    this.#admission.giveUp(error);
    for (const call of this.#calls.keys()) call.stop(error);
    this.#sender.abandon(error, () => this.#accumulator.sealAll());
    this.#intake.forgetLanes();
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

  /** When everything that uses up the buffer lingers in open batches, nothing would ever free it but time. */
  #sealWhenStuck(): void {
    if (this.#gate.waitingCount > 0 && this.#sender.isIdle) this.#accumulator.sealAll();
  }

  async #sendMany<K, V>(
    call: SendManyCall,
    topic: Topic<K, V>,
    records: Iterable<RecordInput<K, V>> | AsyncIterable<RecordInput<K, V>>,
    signal: AbortSignal | undefined,
  ): Promise<SendManyResult> {
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
      if (isOld || !this.#admission.mayAppend(state, record.partition, signal)) {
        await this.#admission.admitted(state, record.partition, signal);
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
      if (this.#intake.isOld(state) || !this.#admission.mayAppend(state, record.partition, signal)) {
        await this.#admission.admitted(state, record.partition, signal);
      }
      if (call.failure !== undefined) return;
      const timestampMs = record.timestampMs === undefined ? clock.now() : toTimestampMs(record.timestampMs);
      this.#intake.append(state, topic, record, timestampMs, call);
    }
  }

  async #flush(): Promise<void> {
    // Calls that wait for a topic's description go first, then those that wait for room, then all is in batches.
    await this.#intake.settled();
    await this.#admission.room(undefined);
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
    this.#admission.close();
    this.#intake.abort(closedError('producer'));
    this.#identities?.close();
    this.#accumulator.sealAll();
    this.#sender.abort(new LogError('CLOSED', `The producer was closed before the record was acknowledged.`));
    this.#alarm.cancel();
    this.#context.onClosed();
  }

  async #drain(): Promise<void> {
    this.#accumulator.stopLingering();
    await Promise.allSettled([...this.#calls.values()]);
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
