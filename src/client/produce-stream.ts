/** One ProduceStream call: requests out, results in, nothing about retries. */

import type { ClientDuplexStream } from '@grpc/grpc-js';
import { LogError } from '../core/errors.js';
import type { AcksName, ProduceStreamRequest, ProduceStreamResponse, ProduceStreamResult } from '../rpc/messages.js';
import { fromStatusMessage } from '../rpc/status-codec.js';
import { cancelCall } from './channel.js';
import { callFailure } from './failures.js';
import type { Lane } from './lane.js';
import type { ProducerBatch } from './producer-batch.js';

/** Bytes handed to the transport and not yet taken by the socket, beyond which lanes wait. */
const MAX_UNSENT_BYTES = 4 * 1024 * 1024;

/** What a stream tells its owner. */
export interface StreamOwner {
  /** `lane`'s `batch` was answered: `batch.ack` or `batch.error` is set. */
  onAnswer(lane: Lane): void;
  /** A request that expected no answer failed. */
  onUnexpectedError(stream: ProduceStream, error: LogError): void;
  /** The transport has room again. */
  onRoom(stream: ProduceStream): void;
  /** The call is over. What was unanswered has `batch.error` set and was reported through `onAnswer`. */
  onEnd(stream: ProduceStream): void;
}

interface PendingRequest {
  readonly lane: Lane;
  readonly batch: ProducerBatch;
  readonly sentAtMs: number;
}

/** Invariant: every batch sent is answered exactly once through the owner, in whatever order results arrive. */
export class ProduceStream {
  /** A retired stream takes no new requests; it ends when the last one was answered. */
  retired = false;
  ended = false;
  readonly #call: ClientDuplexStream<ProduceStreamRequest, ProduceStreamResponse>;
  readonly #owner: StreamOwner;
  readonly #acks: AcksName;
  readonly #transactionalId: string;
  readonly #pending = new Map<number, PendingRequest>();
  #nextCorrelationId = 1;
  #unsentBytes = 0;
  #failure: LogError | undefined;
  #halfClosed = false;

  /** @param transactionalId of the transactional producer; else empty */
  constructor(
    call: ClientDuplexStream<ProduceStreamRequest, ProduceStreamResponse>,
    acks: AcksName,
    transactionalId: string,
    owner: StreamOwner,
  ) {
    this.#call = call;
    this.#acks = acks;
    this.#transactionalId = transactionalId;
    this.#owner = owner;
    call.on('data', (response: ProduceStreamResponse) => this.#onResponse(response));
    call.on('error', (error: Error) => this.#onOver(this.#failure ?? callFailure(error)));
    call.on('end', () =>
      this.#onOver(this.#failure ?? new LogError('CONNECTION_LOST', 'The broker ended the stream.')),
    );
  }

  get hasRoom(): boolean {
    return this.#unsentBytes < MAX_UNSENT_BYTES;
  }

  /** When the oldest unanswered request was sent; Infinity when there is none. */
  get oldestSentAtMs(): number {
    for (const request of this.#pending.values()) return request.sentAtMs;
    return Number.POSITIVE_INFINITY;
  }

  send(lane: Lane, batch: ProducerBatch, bytes: Buffer, nowMs: number): void {
    const correlationId = this.#nextCorrelationId++;
    this.#pending.set(correlationId, { lane, batch, sentAtMs: nowMs });
    this.#unsentBytes += bytes.length;
    const request = {
      topic: batch.topic,
      topicId: batch.target.topicId,
      partition: batch.partition,
      acks: this.#acks,
      batches: [bytes],
      records: [],
      transactionalId: this.#transactionalId,
      messageIds: [],
    };
    this.#call.write({ correlationId, request }, (error: Error | null | undefined) => {
      if (this.ended) return;
      this.#onTaken(correlationId, bytes.length, error ?? undefined);
    });
  }

  /** No new requests; ends once the last one was answered. */
  retire(): void {
    this.retired = true;
    this.#halfCloseWhenEmpty();
  }

  /** Gives the call up: what is unanswered fails with `error`. */
  abort(error: LogError): void {
    if (this.ended) return;
    this.#failure = error;
    cancelCall(this.#call);
    this.#onOver(error);
  }

  /** The transport has taken a request. */
  #onTaken(correlationId: number, byteLength: number, error: Error | undefined): void {
    const hadRoom = this.hasRoom;
    this.#unsentBytes -= byteLength;
    // A failed write is followed by the call's own error, which knows more.
    if (error === undefined && this.#acks === 'ACKS_NONE') {
      this.#answer(correlationId, (batch) => {
        batch.ack = { partition: batch.partition, baseOffset: -1, logAppendTimeMs: -1 };
      });
    }
    if (!hadRoom && this.hasRoom && !this.ended) this.#owner.onRoom(this);
  }

  #onResponse(response: ProduceStreamResponse): void {
    for (const result of response.results) this.#onResult(result);
  }

  #onResult({ correlationId, response, error }: ProduceStreamResult): void {
    if (error !== undefined && error !== null) {
      const failure = fromStatusMessage(error);
      const known = this.#answer(correlationId, (batch) => {
        batch.error = failure;
      });
      if (!known) this.#owner.onUnexpectedError(this, failure);
      return;
    }
    if (response === undefined || response === null) return;
    const { baseOffset, logAppendTimeMs } = response;
    this.#answer(correlationId, (batch) => {
      batch.ack = { partition: batch.partition, baseOffset, logAppendTimeMs };
    });
  }

  /** Whether the request was still waiting for its answer. */
  #answer(correlationId: number, record: (batch: ProducerBatch) => void): boolean {
    const request = this.#pending.get(correlationId);
    if (request === undefined) return false;
    this.#pending.delete(correlationId);
    record(request.batch);
    this.#owner.onAnswer(request.lane);
    this.#halfCloseWhenEmpty();
    return true;
  }

  #halfCloseWhenEmpty(): void {
    if (!this.retired || this.#pending.size > 0 || this.ended || this.#halfClosed) return;
    this.#halfClosed = true;
    this.#call.end();
  }

  #onOver(error: LogError): void {
    if (this.ended) return;
    this.ended = true;
    this.retired = true;
    const unanswered = [...this.#pending.values()];
    this.#pending.clear();
    const failure = unanswered.length > 1 ? ofOneOfMany(error) : error;
    for (const { batch } of unanswered) batch.error = failure;
    for (const { lane } of unanswered) this.#owner.onAnswer(lane);
    this.#owner.onEnd(this);
  }
}

/**
 * Why a call with several unanswered requests has ended: what the broker refused is one of them, the others may have been
 * carried out. Unless it says that it did not look at any of them.
 */
function ofOneOfMany(error: LogError): LogError {
  const { reason, message, metadata, retryAfterMs } = error;
  if (error.outcome === 'unknown' || reason === 'BROKER_UNAVAILABLE' || reason === 'BROKER_DRAINING') return error;
  return new LogError(reason, message, {
    metadata,
    cause: error.cause,
    outcome: 'unknown',
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
