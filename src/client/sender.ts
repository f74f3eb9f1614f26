/** Sealed batches to the broker: pipelining, order, retries, deadlines. */
import { LogError } from '../core/errors.js';
import type { AcksName } from '../rpc/messages.js';
import type { Channel } from './channel.js';
import type { BatchAck } from './completions.js';
import { closedError } from './failures.js';
import { FlushWaiters } from './flush-waiters.js';
import type { Lane } from './lane.js';
import { isUnknownTopic } from './metadata-cache.js';
import { methods } from './methods.js';
import type { Acks } from './options.js';
import { ProduceStream, type StreamOwner } from './produce-stream.js';
import type { ProducerBatch } from './producer-batch.js';
import { Recovery, type RecoveryContext } from './recovery.js';

const ACKS: Readonly<Record<Acks, AcksName>> = { none: 'ACKS_NONE', written: 'ACKS_WRITTEN', durable: 'ACKS_DURABLE' };

export interface SenderContext extends RecoveryContext {
  readonly channel: Channel;
  /** Of a transactional producer; else empty. */
  readonly transactionalId: string;
  /** A stream whose oldest request is unanswered for longer is given up, in ms. */
  readonly requestTimeoutMs: number;
  /** A batch was settled, one way or the other; its bytes are free. */
  readonly onSettled: (batch: ProducerBatch) => void;
  /** Nobody uses these bytes of a batch any more. */
  readonly onReusable: (bytes: Buffer) => void;
  /** Asks for a call of `tick` at this time of the monotonic clock. */
  readonly wakeAt: (atMs: number) => void;
}

/**
 * Sends batches over one stream at a time. Invariants, by which order within a partition holds through failures:
 * a lane sends only its queue's head; after a failure it waits until nothing is in flight, puts what may be repeated
 * back at the head in the old order, and goes on over a stream that was opened after the failure. What is repeated is
 * the same bytes with the same sequences, so that an idempotent producer's partition holds them once (see `Recovery`).
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
  /** Why nothing is taken or sent any more, once it is closed. */
  #closed: LogError | undefined;
  /** Why nothing is taken or sent until the next transaction begins. */
  #abandoned: LogError | undefined;
  /** The first failure since `begin`. */
  #failure: LogError | undefined;
  readonly #recovery: Recovery;
  #whenStreamsEnded: (() => void) | undefined;

  constructor(context: SenderContext) {
    this.#context = context;
    this.#recovery = new Recovery(context, {
      succeed: (lane, batch, ack) => this.#succeed(lane, batch, ack),
      fail: (batch, error) => this.#fail(batch, error),
      replaced: (batch, parts) => this.#replaced(batch, parts),
      pump: (lane) => this.pump(lane),
    });
  }

  get #refusal(): LogError | undefined {
    return this.#closed ?? this.#abandoned;
  }

  /** Why a batch failed that was sealed since `begin`: the first one of them. */
  get failure(): LogError | undefined {
    return this.#failure;
  }

  get isIdle(): boolean {
    return this.#unsettled.size === 0;
  }

  /** Takes over a sealed batch. */
  add(lane: Lane, batch: ProducerBatch): void {
    this.#unsettled.add(batch);
    lane.queue.push(batch);
    this.#context.wakeAt(batch.sealedAtMs + this.#context.options.deliveryTimeoutMs);
    const refusal = this.#refusal;
    if (refusal !== undefined) this.#fail(batch, batch.withOutcome(refusal));
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
    if (lane.draining || lane.held || this.#refusal !== undefined) return;
    const nowMs = this.#context.runtime.clock.monotonic();
    while (lane.inFlight.length < this.#context.options.maxInFlight) {
      const batch = lane.nextUnsettled();
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
      lane.sequences?.onSend(lane.queue);
      lane.queue.shift();
      lane.inFlight.push(batch);
      batch.inFlight = true;
      this.#context.wakeAt(nowMs + this.#context.requestTimeoutMs);
      stream.send(lane, batch, batch.numberedBytes(), nowMs);
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

  /** A transaction begins: nothing is unsettled. */
  begin(): void {
    this.#failure = undefined;
    this.#abandoned = undefined;
  }

  /** Fails whatever is unsettled and drops the streams; takes nothing any more. */
  abort(error: LogError): void {
    this.#closed = closedError('producer');
    this.#drop(error);
  }

  /**
   * Fails whatever is unsettled, and what still comes until a transaction begins, and drops the streams. Answers that
   * come later are of no interest.
   * @param sealOpen seals what is not sealed yet, so that it fails as well
   */
  abandon(error: LogError, sealOpen: () => void): void {
    this.#abandoned = error;
    sealOpen();
    this.#drop(error);
  }

  #drop(error: LogError): void {
    for (const batch of [...this.#unsettled]) this.#fail(batch, batch.withOutcome(error));
    for (const stream of [...this.#streams]) stream.abort(error);
    this.#waitingForRetry.clear();
    this.#waitingForStream.clear();
  }

  onAnswer(lane: Lane): void {
    if (lane.inFlight.some((batch) => batch.error !== undefined)) this.#startDraining(lane);
    this.#settleHead(lane);
    if (lane.draining && lane.inFlight.every((batch) => batch.answered)) this.#recovery.recover(lane);
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
    const { channel, options, transactionalId } = this.#context;
    const call = channel.duplex(methods.produceStream);
    const stream = new ProduceStream(call, ACKS[options.acks], transactionalId, this);
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
    for (let head = lane.inFlight[0]; head?.answered && head.error === undefined; head = lane.inFlight[0]) {
      lane.inFlight.shift();
      if (head.ack === undefined) continue;
      lane.failures = 0;
      this.#succeed(lane, head, head.ack);
    }
  }

  #replaced(batch: ProducerBatch, parts: readonly ProducerBatch[]): void {
    this.#unsettled.delete(batch);
    for (const part of parts) this.#unsettled.add(part);
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

  #succeed(lane: Lane, batch: ProducerBatch, ack: BatchAck): void {
    lane.sequences?.onAcknowledged(batch);
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
    this.#failure ??= error;
    batch.fail(error);
    this.#onSettled(batch);
  }

  #onSettled(batch: ProducerBatch): void {
    this.#unsettled.delete(batch);
    this.#context.onSettled(batch);
    this.#flushWaiters.onSettled(batch);
  }
}

function deliveryTimedOut(batch: ProducerBatch, timeoutMs: number): LogError {
  const last = batch.lastError === undefined ? '' : ` The last attempt failed: ${batch.lastError.message}`;
  const where = `${batch.topic}-${batch.partition}`;
  return new LogError('REQUEST_TIMED_OUT', `Records for ${where} were not delivered in ${timeoutMs} ms.${last}`, {
    metadata: { topic: batch.topic, partition: batch.partition },
    cause: batch.lastError,
  });
}
