/** What arrives from the broker for one reader or consumer: one FetchStream after the other, and a bounded buffer. */
import type { ClientReadableStream } from '@grpc/grpc-js';
import { LogError } from '../core/errors.js';
import type { FetchedPartition, FetchStreamResponse } from '../rpc/messages.js';
import { fromStatusMessage } from '../rpc/status-codec.js';
import { type Channel, cancelCall } from './channel.js';
import { callFailure } from './failures.js';
import { Fifo } from './fifo.js';
import { type Isolation, isolationLevelOf } from './isolation.js';
import { methods } from './methods.js';
import type { ClientRuntime } from './options.js';
import { TRANSPORT_MESSAGES } from './read-options.js';
import { backoffMs, DEFAULT_BACKOFF } from './retry.js';

export interface SessionContext {
  readonly channel: Channel;
  readonly runtime: ClientRuntime;
}

/**
 * A partition to be read: `[start, end)`, without end when it is followed. The object itself tells one reading of a
 * partition from a later one.
 */
export interface FetchSource {
  readonly topic: string;
  /** By which the broker tells when the topic has been deleted since, recreated or not. */
  readonly topicId: string;
  readonly partition: number;
  readonly start: number;
  readonly end: number | undefined;
}

/** What arrived for one source: batches, or why it cannot be read on, which only a changing session tells. */
export interface Delivery {
  readonly source: FetchSource;
  readonly message: FetchedPartition;
  readonly error: LogError | undefined;
}

export interface FetchSessionOptions {
  /** Bytes fetched ahead at most, what the transport holds included. */
  readonly maxBufferedBytes: number;
  /** About how much one message of the broker holds, in bytes. */
  readonly fetchBytes: number;
  readonly isolation: Isolation;
  /** How long to go on trying without an answer, in ms. */
  readonly retryTimeoutMs: number;
  /**
   * Whether sources come and go one by one: then the session does not end by itself, and what one of them fails with
   * concerns no other. Otherwise it ends with the last source, and fails with the first.
   */
  readonly changing: boolean;
}

interface SourceProgress {
  readonly source: FetchSource;
  /** What the broker has to send next. */
  nextOffset: number;
  failed: boolean;
}

type FetchCall = ClientReadableStream<FetchStreamResponse>;

/** Unambiguous, since a partition is a number. */
const keyOf = (topic: string, partition: number): string => `${topic}-${partition}`;

/**
 * Invariants: `nextOffset` of a source covers exactly what was put into the buffer, so a stream opened anew neither
 * skips nor repeats; the buffer holds nothing of a source that was removed; only the current call is listened to; after
 * `#failure` nothing is received.
 */
export class FetchSession {
  readonly #options: FetchSessionOptions;
  readonly #context: SessionContext;
  readonly #progress = new Map<string, SourceProgress>();
  readonly #buffer = new Fifo<Delivery>();
  /** Beyond this the call is paused; what the transport holds then is counted in advance. */
  readonly #pauseAtBytes: number;
  readonly #stopped = new AbortController();
  #bufferedBytes = 0;
  /** Size of the message that the reader is working on. */
  #heldBytes = 0;
  #call: FetchCall | undefined;
  /** A call is about to be opened: at the end of the turn, or after the wait that a failure has caused. */
  #opening = false;
  #paused = false;
  #failure: LogError | undefined;
  #ended = false;
  #wakeReader: (() => void) | undefined;
  #failures = 0;
  /** When the first of the failures in a row happened, by the monotonic clock. */
  #failingSinceMs = 0;

  constructor(sources: readonly FetchSource[], options: FetchSessionOptions, context: SessionContext) {
    this.#options = options;
    this.#context = context;
    this.#plan(sources);
    const inTransport = TRANSPORT_MESSAGES * options.fetchBytes;
    this.#pauseAtBytes = Math.max(options.fetchBytes, options.maxBufferedBytes - inTransport);
    this.#open();
  }

  /**
   * What comes next; undefined when every source has reached its end. What was returned before counts as done with.
   * @throws LogError what reading failed with, after everything that was received before
   */
  async next(): Promise<Delivery | undefined> {
    this.#release();
    for (;;) {
      const delivery = this.#buffer.shift();
      if (delivery !== undefined) {
        this.#heldBytes = delivery.message.batches.length;
        return delivery;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
    }
  }

  /**
   * Reads these as well, in the place of others of the same partitions. The stream is opened anew with all sources, so
   * that one buffer limit holds for all; what the old one had under way is fetched again. What is buffered stays.
   */
  add(sources: readonly FetchSource[]): void {
    if (sources.length === 0 || this.#failure !== undefined || this.#ended) return;
    this.#plan(sources);
    this.#reopen();
  }

  /** Reads these no more and drops what is buffered of them; others stay as they are. */
  remove(sources: readonly FetchSource[]): void {
    const removed = new Set<FetchSource>();
    let fetching = false;
    for (const source of sources) {
      const key = keyOf(source.topic, source.partition);
      const progress = this.#progress.get(key);
      if (progress?.source !== source) continue;
      this.#progress.delete(key);
      removed.add(source);
      fetching ||= isUnfinished(progress);
    }
    if (removed.size === 0) return;
    this.#dropBuffered(removed);
    if (fetching && this.#failure === undefined && !this.#ended) this.#reopen();
    else this.#pauseOrResume();
  }

  /** Stops at once and drops what is buffered; `next` throws `error` from now on. */
  stop(error: LogError): void {
    this.#buffer.takeAll();
    this.#bufferedBytes = 0;
    this.#heldBytes = 0;
    this.#fail(error);
  }

  #plan(sources: readonly FetchSource[]): void {
    for (const source of sources) {
      const progress = { source, nextOffset: source.start, failed: false };
      this.#progress.set(keyOf(source.topic, source.partition), progress);
    }
  }

  #dropBuffered(removed: ReadonlySet<FetchSource>): void {
    for (const delivery of this.#buffer.takeAll()) {
      if (removed.has(delivery.source)) this.#bufferedBytes -= delivery.message.batches.length;
      else this.#buffer.push(delivery);
    }
  }

  /** Several changes of one turn share a call. */
  #reopen(): void {
    this.#dropCall();
    if (this.#opening) return;
    this.#opening = true;
    queueMicrotask(() => this.#openAfterWait());
  }

  #openAfterWait(): void {
    this.#opening = false;
    if (this.#failure === undefined && !this.#ended) this.#open();
  }

  #open(): void {
    const positions = this.#unfinished().map(({ source, nextOffset }) => ({
      topic: source.topic,
      topicId: source.topicId,
      partition: source.partition,
      offset: nextOffset,
      endOffset: source.end,
    }));
    if (positions.length === 0) {
      if (!this.#options.changing) this.#end();
      return;
    }
    const call = this.#context.channel.serverStream(methods.fetchStream, {
      positions,
      maxBytes: this.#options.fetchBytes,
      format: 'RECORD_FORMAT_BATCHES',
      isolationLevel: isolationLevelOf(this.#options.isolation),
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

  #unfinished(): SourceProgress[] {
    return [...this.#progress.values()].filter(isUnfinished);
  }

  #heard(): void {
    this.#failures = 0;
  }

  #onMessage({ partition: message }: FetchStreamResponse): void {
    this.#heard();
    if (message === undefined || message === null) return;
    const progress = this.#progress.get(keyOf(message.topic, message.partition));
    if (message.error !== undefined && message.error !== null) {
      this.#onRefused(message, progress, fromStatusMessage(message.error));
      return;
    }
    if (progress === undefined || message.nextOffset < progress.nextOffset) return;
    progress.nextOffset = message.nextOffset;
    if (message.batches.length === 0) return;
    this.#buffer.push({ source: progress.source, message, error: undefined });
    this.#bufferedBytes += message.batches.length;
    this.#pauseOrResume();
    this.#wake();
  }

  #onRefused(message: FetchedPartition, progress: SourceProgress | undefined, error: LogError): void {
    if (error.retryable || !this.#options.changing) {
      this.#onFailure(error);
      return;
    }
    if (progress === undefined) return;
    progress.failed = true;
    this.#buffer.push({ source: progress.source, message, error });
    this.#wake();
  }

  #onEnd(): void {
    if (this.#unfinished().length > 0) {
      this.#onFailure(new LogError('CONNECTION_LOST', 'The broker ended the stream before its end was reached.'));
    } else if (this.#options.changing) this.#dropCall();
    else this.#end();
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
    const topics = [...new Set(this.#unfinished().map(({ source }) => source.topic))];
    logger.debug({ topics, reason: error.reason, error: error.message, waitMs }, 'fetch will be repeated');
    this.#opening = true;
    clock.sleep(waitMs, this.#stopped.signal).then(
      () => this.#openAfterWait(),
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
    if (call === undefined) return;
    cancelCall(call);
    call.resume();
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

function isUnfinished({ source, nextOffset, failed }: SourceProgress): boolean {
  return !failed && (source.end === undefined || nextOffset < source.end);
}
