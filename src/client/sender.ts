/** Sealed batches to the broker: pipelining, order, retries, deadlines. */
import type { Codec } from '../batch/layout.js';
import { LogError, toLogError } from '../core/errors.js';
import type { AcksName } from '../rpc/messages.js';
import type { Channel } from './channel.js';
import type { BatchAck } from './completions.js';
import { closedError } from './failures.js';
import { FlushWaiters } from './flush-waiters.js';
import type { Lane } from './lane.js';
import { isUnknownTopic, type MetadataCache, type TopicMetadata } from './metadata-cache.js';
import { methods } from './methods.js';
import type { Acks, ClientRuntime, ResolvedProducerOptions } from './options.js';
import { ProduceStream, type StreamOwner } from './produce-stream.js';
import type { ProducerBatch } from './producer-batch.js';
import { batchesFor, mayGoTo, recreatedMeanwhile } from './recreated-topic.js';
import { backoffMs } from './retry.js';

const ACKS: Readonly<Record<Acks, AcksName>> = { none: 'ACKS_NONE', written: 'ACKS_WRITTEN', durable: 'ACKS_DURABLE' };

export interface SenderContext {
  readonly channel: Channel;
  readonly runtime: ClientRuntime;
  readonly options: ResolvedProducerOptions;
  /** A stream whose oldest request is unanswered for longer is given up, in ms. */
  readonly requestTimeoutMs: number;
  /** A batch was settled, one way or the other; its bytes are free. */
  readonly onSettled: (batch: ProducerBatch) => void;
  /** Nobody uses these bytes of a batch any more. */
  readonly onReusable: (bytes: Buffer) => void;
  /** Is told what the broker contradicts, and asked for a topic that was recreated. */
  readonly metadata: MetadataCache;
  /** Asks for a call of `tick` at this time of the monotonic clock. */
  readonly wakeAt: (atMs: number) => void;
}

/**
 * Sends batches over one stream at a time. Invariants, by which order within a partition holds through failures:
 * a lane sends only its queue's head; after a failure it waits until nothing is in flight, puts what may be repeated
 * back at the head in the old order, and goes on over a stream that was opened after the failure.
 */
export class Sender implements StreamOwner {
  readonly #context: SenderContext;
  /** Everything sealed and unsettled. Bounded by the producer's buffer. */
  readonly #unsettled = new Set<ProducerBatch>();
  readonly #waitingForRetry = new Set<Lane>();
  readonly #waitingForStream = new Set<Lane>();
  readonly #streams = new Set<ProduceStream>();
  readonly #flushWaiters = new FlushWaiters();
  #current: ProduceStream | undefined;
  #closed = false;
  #whenStreamsEnded: (() => void) | undefined;

  constructor(context: SenderContext) {
    this.#context = context;
  }

  get isIdle(): boolean {
    return this.#unsettled.size === 0;
  }

  /** Takes over a sealed batch. */
  add(lane: Lane, batch: ProducerBatch): void {
    this.#unsettled.add(batch);
    lane.queue.push(batch);
    this.#context.wakeAt(batch.sealedAtMs + this.#context.options.deliveryTimeoutMs);
    if (this.#closed) this.#fail(batch, closedError('producer'));
    else this.pump(lane);
  }

  /** A batch that was being compressed is ready, or could not be compressed. */
  onCompressed(lane: Lane, batch: ProducerBatch, result: Buffer | LogError): void {
    if (batch.settled) return;
    if (result instanceof LogError) this.#fail(batch, result);
    else batch.bytes = result;
    this.pump(lane);
  }

  /** Sends as much of the lane's queue as may go. */
  pump(lane: Lane): void {
    if (lane.draining || lane.held || this.#closed) return;
    const nowMs = this.#context.runtime.clock.monotonic();
    while (lane.inFlight.length < this.#context.options.maxInFlight) {
      const batch = firstUnsettled(lane.queue);
      if (batch?.bytes === undefined) return;
      if (lane.retryAtMs > nowMs) {
        this.#waitingForRetry.add(lane);
        this.#context.wakeAt(lane.retryAtMs);
        return;
      }
      const stream = this.#streamFor(lane);
      if (stream === undefined) return;
      if (!stream.hasRoom) {
        this.#waitingForStream.add(lane);
        return;
      }
      lane.queue.shift();
      lane.inFlight.push(batch);
      batch.inFlight = true;
      this.#context.wakeAt(nowMs + this.#context.requestTimeoutMs);
      stream.send(lane, batch, batch.bytes, nowMs);
    }
  }

  /** Does what is due. Returns when to be called next; Infinity for never. */
  tick(nowMs: number): number {
    for (const lane of [...this.#waitingForRetry]) {
      if (lane.retryAtMs > nowMs) continue;
      this.#waitingForRetry.delete(lane);
      this.pump(lane);
    }
    this.#giveUpSilentStreams(nowMs);
    this.#expire(nowMs);
    return this.#nextTickAt();
  }

  /** Resolves when everything that was sealed so far is settled. */
  flush(): Promise<void> {
    return this.#flushWaiters.wait([...this.#unsettled]);
  }

  /** Half-closes the streams and resolves when the broker has ended them: what it was sent, it has. */
  finish(): Promise<void> {
    for (const stream of [...this.#streams]) stream.retire();
    this.#current = undefined;
    if (this.#streams.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenStreamsEnded = resolve;
    });
  }

  /** Fails whatever is unsettled and drops the streams. */
  abort(error: LogError): void {
    this.#closed = true;
    for (const batch of [...this.#unsettled]) this.#fail(batch, batch.withOutcome(error));
    for (const stream of [...this.#streams]) stream.abort(error);
    this.#waitingForRetry.clear();
    this.#waitingForStream.clear();
  }

  onAnswer(lane: Lane): void {
    if (lane.inFlight.some((batch) => batch.error !== undefined)) this.#startDraining(lane);
    this.#settleHead(lane);
    if (lane.draining && lane.inFlight.every((batch) => batch.answered)) this.#recover(lane);
    this.pump(lane);
  }

  onUnexpectedError(stream: ProduceStream, error: LogError): void {
    this.#context.runtime.logger.warn({ reason: error.reason, error: error.message }, 'an unacknowledged batch failed');
    // Nobody knows any more which batch that was; the error names the topic.
    if (isUnknownTopic(error) && error.metadata.topic !== undefined) {
      this.#context.metadata.invalidate(error.metadata.topic);
    }
    this.#retire(stream);
  }

  onRoom(stream: ProduceStream): void {
    const lanes = [...this.#waitingForStream];
    this.#waitingForStream.clear();
    for (const lane of lanes) {
      if (!stream.hasRoom) this.#waitingForStream.add(lane);
      else this.pump(lane);
    }
  }

  onEnd(stream: ProduceStream): void {
    this.#streams.delete(stream);
    if (this.#current === stream) this.#current = undefined;
    if (this.#streams.size === 0) this.#whenStreamsEnded?.();
    // Lanes that waited for this stream to take more must look for another.
    const lanes = [...this.#waitingForStream];
    this.#waitingForStream.clear();
    for (const lane of lanes) this.pump(lane);
  }

  /** The stream to send over; undefined while the lane must first drain from a retired one. */
  #streamFor(lane: Lane): ProduceStream | undefined {
    const known = lane.stream;
    if (known !== undefined && !known.retired) return known;
    if (lane.inFlight.length > 0) return undefined;
    this.#current ??= this.#open();
    lane.stream = this.#current;
    return this.#current;
  }

  #open(): ProduceStream {
    const { channel, options } = this.#context;
    const stream = new ProduceStream(channel.duplex(methods.produceStream), ACKS[options.acks], this);
    this.#streams.add(stream);
    return stream;
  }

  #retire(stream: ProduceStream): void {
    if (this.#current === stream) this.#current = undefined;
    stream.retire();
  }

  #startDraining(lane: Lane): void {
    lane.draining = true;
    if (lane.stream !== undefined) this.#retire(lane.stream);
  }

  /** Settles answered successes from the oldest on, so that promises resolve in order. */
  #settleHead(lane: Lane): void {
    for (let head = lane.inFlight[0]; head?.ack !== undefined; head = lane.inFlight[0]) {
      lane.inFlight.shift();
      lane.failures = 0;
      this.#succeed(head, head.ack);
    }
  }

  /** Everything in flight has been answered and something failed: sort out what goes again. */
  #recover(lane: Lane): void {
    const answered = lane.inFlight;
    lane.inFlight = [];
    lane.stream = undefined;
    lane.draining = false;
    const again: ProducerBatch[] = [];
    let tooLarge: ProducerBatch | undefined;
    let recreated: TopicMetadata | undefined;
    let waitFor: LogError | undefined;
    for (const batch of answered) {
      const { ack, error } = batch;
      batch.error = undefined;
      batch.ack = undefined;
      batch.inFlight = false;
      if (ack !== undefined) this.#succeed(batch, ack);
      if (batch.settled || error === undefined) continue;
      batch.noteFailure(error);
      if (error.reason === 'MESSAGE_TOO_LARGE' && batch.recordCount > 1) {
        tooLarge ??= batch;
        again.push(batch);
      } else if (error.retryable) {
        // The follow-up of a failure says nothing about when to try again; alone, it is one like any other.
        if (error.reason !== 'PRECEDING_APPEND_FAILED' || batch === answered[0]) waitFor ??= error;
        again.push(batch);
      } else if (error.reason === 'UNKNOWN_TOPIC_ID' && !batch.maybeWritten) {
        recreated ??= batch.target;
        waitFor ??= error;
        again.push(batch);
      } else this.#fail(batch, batch.withOutcome(error));
    }
    lane.queue = [...again, ...lane.queue];
    if (waitFor !== undefined) this.#backOff(lane, waitFor);
    // A topic has been recreated: whether its batches are too large for the new one is another question.
    if (recreated !== undefined) this.#findAgain(lane, recreated);
    else if (tooLarge !== undefined) this.#split(lane, tooLarge);
  }

  /**
   * The lane's topic was deleted. Records are sent to a topic by its name, and until its promise is settled a record may
   * arrive at any time: if there is a new topic of that name, they go there. Nothing of the lane is sent meanwhile.
   */
  #findAgain(lane: Lane, lost: TopicMetadata): void {
    const { metadata } = this.#context;
    lane.held = true;
    metadata.invalidate(lost.name, lost.topicId);
    metadata
      .get(lost.name)
      .then(
        (found) => this.#retarget(lane, lost, found),
        (error) => {
          // When nobody answers, the next attempt leads here again.
          if (isUnknownTopic(error)) this.#failAll(lane, lost, error);
        },
      )
      .finally(() => {
        lane.held = false;
        this.pump(lane);
      });
  }

  /** Batches of a topic that is gone go to the one that took its name, unless that could repeat or misplace records. */
  #retarget(lane: Lane, lost: TopicMetadata, found: TopicMetadata): void {
    // What the client has learnt may be older than what the broker said; the next attempt leads here again.
    if (found.topicId === lost.topicId) return;
    for (const batch of batchesFor(lane, lost)) {
      if (mayGoTo(found, batch)) batch.target = found;
      else this.#fail(batch, recreatedMeanwhile(batch, found));
    }
  }

  #failAll(lane: Lane, lost: TopicMetadata, error: LogError): void {
    for (const batch of batchesFor(lane, lost)) this.#fail(batch, batch.withOutcome(error));
  }

  #backOff(lane: Lane, error: LogError): void {
    lane.failures++;
    const { runtime, options } = this.#context;
    const wait = backoffMs(lane.failures, options, runtime.random, error);
    lane.retryAtMs = runtime.clock.monotonic() + wait;
    runtime.logger.debug(
      { topic: lane.topic, partition: lane.partition, reason: error.reason, error: error.message, waitMs: wait },
      'produce will be repeated',
    );
  }

  /** Replaces a batch that the broker found too large by two. Nothing of the lane is sent meanwhile. */
  #split(lane: Lane, batch: ProducerBatch): void {
    const codec: Codec = this.#context.options.compression;
    lane.held = true;
    batch
      .split(codec)
      .then(
        (parts) => this.#replace(lane, batch, parts),
        (error) => {
          if (!batch.settled) this.#fail(batch, toLogError(error));
        },
      )
      .finally(() => {
        lane.held = false;
        this.pump(lane);
      });
  }

  #replace(lane: Lane, batch: ProducerBatch, parts: readonly ProducerBatch[]): void {
    // It may have run out of time meanwhile.
    if (batch.settled) return;
    batch.settled = true;
    batch.bytes = undefined;
    const at = lane.queue.indexOf(batch);
    lane.queue.splice(at, 1, ...parts);
    this.#unsettled.delete(batch);
    for (const part of parts) {
      part.maybeWritten = batch.maybeWritten;
      part.lastError = batch.lastError;
      this.#unsettled.add(part);
    }
    this.#flushWaiters.onReplaced(batch, parts.length);
  }

  #giveUpSilentStreams(nowMs: number): void {
    const { requestTimeoutMs } = this.#context;
    for (const stream of [...this.#streams]) {
      if (stream.oldestSentAtMs + requestTimeoutMs > nowMs) continue;
      stream.abort(
        new LogError('REQUEST_TIMED_OUT', `The broker did not answer a produce request in ${requestTimeoutMs} ms.`),
      );
    }
  }

  /** Fails what could not be delivered in time. */
  #expire(nowMs: number): void {
    const { deliveryTimeoutMs } = this.#context.options;
    for (const batch of [...this.#unsettled]) {
      if (batch.sealedAtMs + deliveryTimeoutMs > nowMs) continue;
      this.#fail(batch, batch.withOutcome(deliveryTimedOut(batch, deliveryTimeoutMs)));
    }
  }

  #nextTickAt(): number {
    const { requestTimeoutMs, options } = this.#context;
    let at = Number.POSITIVE_INFINITY;
    for (const lane of this.#waitingForRetry) at = Math.min(at, lane.retryAtMs);
    for (const stream of this.#streams) at = Math.min(at, stream.oldestSentAtMs + requestTimeoutMs);
    for (const batch of this.#unsettled) at = Math.min(at, batch.sealedAtMs + options.deliveryTimeoutMs);
    return at;
  }

  #succeed(batch: ProducerBatch, ack: BatchAck): void {
    if (batch.settled) return;
    const { bytes, lastError } = batch;
    batch.succeed(ack);
    this.#onSettled(batch);
    // Acknowledged at the first attempt: the transport has nothing of it left. What was sent more than once, or without
    // an answer, may still stand in a stream's queue.
    const { options, onReusable } = this.#context;
    if (bytes !== undefined && lastError === undefined && options.acks !== 'none') onReusable(bytes);
  }

  #fail(batch: ProducerBatch, error: LogError): void {
    if (isUnknownTopic(error)) this.#context.metadata.invalidate(batch.topic, batch.target.topicId);
    batch.fail(error);
    this.#onSettled(batch);
  }

  #onSettled(batch: ProducerBatch): void {
    this.#unsettled.delete(batch);
    this.#context.onSettled(batch);
    this.#flushWaiters.onSettled(batch);
  }
}

/** Drops batches that ran out of time from the head and returns the first that still counts. */
function firstUnsettled(queue: ProducerBatch[]): ProducerBatch | undefined {
  while (queue[0]?.settled) queue.shift();
  return queue[0];
}

function deliveryTimedOut(batch: ProducerBatch, timeoutMs: number): LogError {
  const last = batch.lastError === undefined ? '' : ` The last attempt failed: ${batch.lastError.message}`;
  const where = `${batch.topic}-${batch.partition}`;
  return new LogError('REQUEST_TIMED_OUT', `Records for ${where} were not delivered in ${timeoutMs} ms.${last}`, {
    metadata: { topic: batch.topic, partition: batch.partition },
    cause: batch.lastError,
  });
}
