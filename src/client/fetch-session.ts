/** What arrives from the broker for one reader: one FetchStream after the other, and a bounded buffer. */
import type { ClientReadableStream } from '@grpc/grpc-js';
import { LogError } from '../core/errors.js';
import type { FetchedPartition, FetchStreamResponse } from '../rpc/messages.js';
import { fromStatusMessage } from '../rpc/status-codec.js';
import type { Channel } from './channel.js';
import { callFailure } from './failures.js';
import { Fifo } from './fifo.js';
import { methods } from './methods.js';
import type { ClientRuntime } from './options.js';
import type { PartitionSpan, ReadPlan } from './positions.js';
import { type ResolvedReadOptions, TRANSPORT_MESSAGES } from './read-options.js';
import { backoffMs, DEFAULT_BACKOFF } from './retry.js';

export interface SessionContext {
  readonly channel: Channel;
  readonly runtime: ClientRuntime;
}

interface PartitionProgress {
  readonly partition: number;
  /** What the broker has to send next. */
  nextOffset: number;
  readonly endOffset: number | undefined;
}

type FetchCall = ClientReadableStream<FetchStreamResponse>;

/**
 * Invariants: `nextOffset` of a partition covers exactly what was put into the buffer, so a stream opened anew neither
 * skips nor repeats; only the current call is listened to; after `#failure` nothing is received.
 */
export class FetchSession {
  readonly #topic: string;
  readonly #topicId: string;
  readonly #options: ResolvedReadOptions;
  readonly #context: SessionContext;
  readonly #progress = new Map<number, PartitionProgress>();
  readonly #buffer = new Fifo<FetchedPartition>();
  /** Beyond this the call is paused; what the transport holds then is counted in advance. */
  readonly #pauseAtBytes: number;
  readonly #stopped = new AbortController();
  #bufferedBytes = 0;
  /** Size of the message that the reader is working on. */
  #heldBytes = 0;
  #call: FetchCall | undefined;
  #paused = false;
  #failure: LogError | undefined;
  #ended = false;
  #wakeReader: (() => void) | undefined;
  #failures = 0;
  /** When the first of the failures in a row happened, by the monotonic clock. */
  #failingSinceMs = 0;

  constructor(topic: string, plan: ReadPlan, options: ResolvedReadOptions, context: SessionContext) {
    this.#topic = topic;
    this.#topicId = plan.topicId;
    this.#options = options;
    this.#context = context;
    this.#plan(plan.spans);
    const inTransport = TRANSPORT_MESSAGES * options.fetchBytes;
    this.#pauseAtBytes = Math.max(options.fetchBytes, options.maxBufferedBytes - inTransport);
    this.#open();
  }

  /**
   * The next message with batches; undefined when every partition has reached its end. The message before it counts as
   * done with.
   * @throws LogError what reading failed with, after everything that was received before
   */
  async next(): Promise<FetchedPartition | undefined> {
    this.#release();
    for (;;) {
      const message = this.#buffer.shift();
      if (message !== undefined) {
        this.#heldBytes = message.batches.length;
        return message;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
    }
  }

  /**
   * Reads these partitions as well. The stream is opened anew with all of them, so that one buffer limit holds for all;
   * what the old one had under way is fetched again, which happens once in the life of an added partition.
   */
  add(spans: readonly PartitionSpan[]): void {
    if (this.#failure !== undefined || this.#ended) return;
    this.#plan(spans);
    // Without a call, one is about to be opened after a failure.
    if (this.#call === undefined) return;
    this.#dropCall();
    this.#open();
  }

  /** Stops at once and drops what is buffered; `next` throws `error` from now on. */
  stop(error: LogError): void {
    this.#buffer.takeAll();
    this.#bufferedBytes = 0;
    this.#heldBytes = 0;
    this.#fail(error);
  }

  #plan(spans: readonly PartitionSpan[]): void {
    for (const { partition, start, end } of spans) {
      this.#progress.set(partition, { partition, nextOffset: start, endOffset: end });
    }
  }

  #open(): void {
    const positions = this.#unfinished().map(({ partition, nextOffset, endOffset }) => ({
      topic: this.#topic,
      topicId: this.#topicId,
      partition,
      offset: nextOffset,
      endOffset,
    }));
    if (positions.length === 0) {
      this.#end();
      return;
    }
    const call = this.#context.channel.serverStream(methods.fetchStream, {
      positions,
      maxBytes: this.#options.fetchBytes,
      format: 'RECORD_FORMAT_BATCHES',
    });
    this.#call = call;
    this.#paused = false;
    const ifCurrent = (action: () => void): void => {
      if (this.#call === call) action();
    };
    call.on('metadata', () => ifCurrent(() => this.#heard()));
    call.on('data', (message: FetchStreamResponse) => ifCurrent(() => this.#onMessage(message)));
    call.on('error', (error: Error) => ifCurrent(() => this.#onFailure(callFailure(error))));
    call.on('end', () => ifCurrent(() => this.#onEnd()));
    this.#pauseOrResume();
  }

  #unfinished(): PartitionProgress[] {
    return [...this.#progress.values()].filter(
      ({ nextOffset, endOffset }) => endOffset === undefined || nextOffset < endOffset,
    );
  }

  #heard(): void {
    this.#failures = 0;
  }

  #onMessage({ partition: message }: FetchStreamResponse): void {
    this.#heard();
    if (message === undefined || message === null) return;
    if (message.error !== undefined && message.error !== null) {
      this.#onFailure(fromStatusMessage(message.error));
      return;
    }
    const progress = this.#progress.get(message.partition);
    if (progress === undefined || message.nextOffset < progress.nextOffset) return;
    progress.nextOffset = message.nextOffset;
    if (message.batches.length === 0) return;
    this.#buffer.push(message);
    this.#bufferedBytes += message.batches.length;
    this.#pauseOrResume();
    this.#wake();
  }

  #onEnd(): void {
    if (this.#unfinished().length === 0) this.#end();
    else this.#onFailure(new LogError('CONNECTION_LOST', 'The broker ended the stream before its end was reached.'));
  }

  #onFailure(error: LogError): void {
    this.#dropCall();
    if (!error.retryable) {
      this.#fail(error);
      return;
    }
    const { clock, random, logger } = this.#context.runtime;
    const nowMs = clock.monotonic();
    if (this.#failures === 0) this.#failingSinceMs = nowMs;
    this.#failures++;
    const waitMs = backoffMs(this.#failures, DEFAULT_BACKOFF, random, error);
    if (nowMs + waitMs - this.#failingSinceMs > this.#options.retryTimeoutMs) {
      this.#fail(error);
      return;
    }
    logger.debug({ topic: this.#topic, reason: error.reason, error: error.message, waitMs }, 'fetch will be repeated');
    clock.sleep(waitMs, this.#stopped.signal).then(
      () => {
        if (this.#failure === undefined) this.#open();
      },
      () => {}, // stopped
    );
  }

  #end(): void {
    this.#ended = true;
    this.#dropCall();
    this.#wake();
  }

  #fail(error: LogError): void {
    this.#failure ??= error;
    this.#dropCall();
    this.#stopped.abort();
    this.#wake();
  }

  #dropCall(): void {
    const call = this.#call;
    this.#call = undefined;
    // The listener for errors stays on: a cancelled call reports its cancellation.
    call?.cancel();
    call?.resume();
  }

  #release(): void {
    this.#bufferedBytes -= this.#heldBytes;
    this.#heldBytes = 0;
    this.#pauseOrResume();
  }

  #pauseOrResume(): void {
    const call = this.#call;
    if (call === undefined) return;
    if (!this.#paused && this.#bufferedBytes >= this.#pauseAtBytes) {
      this.#paused = true;
      call.pause();
    } else if (this.#paused && this.#bufferedBytes <= this.#pauseAtBytes / 2) {
      this.#paused = false;
      call.resume();
    }
  }

  #wake(): void {
    const wake = this.#wakeReader;
    this.#wakeReader = undefined;
    wake?.();
  }
}
