/** One partition of a producer: the batch being filled, those that wait to be sent, those that are unanswered. */

import type { BufferPool } from '../batch/buffer-pool.js';
import { BatchBuilder, type RecordHeader } from '../batch/builder.js';
import { type Completion, SendManyCall, SendManyPart } from './completions.js';
import type { TopicMetadata } from './metadata-cache.js';
import type { ProduceStream } from './produce-stream.js';
import type { ProducerBatch } from './producer-batch.js';
import type { LaneSequences } from './sequences.js';

const NO_HEADERS: readonly RecordHeader[] = [];

/**
 * Invariants: `open` < `queue` < `inFlight` in age; batches leave `queue` only at its head, those that were given up
 * included, because they may take up sequences; while `draining` or `held` nothing is sent; `stream` changes only while
 * nothing is in flight.
 */
export class Lane {
  readonly topic: string;
  readonly partition: number;
  readonly builder: BatchBuilder;
  /** Undefined without idempotence. */
  readonly sequences: LaneSequences | undefined;
  /** The topic as it was known when the records of the open batch were given their partition. */
  target: TopicMetadata;
  /** When the open batch got its first record, by the monotonic clock. */
  openedAtMs = 0;
  /** Sealed batches in order. Bounded by the producer's buffer. */
  queue: ProducerBatch[] = [];
  /**
   * Sent and unanswered, in order, and what was settled between them and takes up sequences. Nothing is sent while these are
   * `maxInFlight`: a partition remembers no more batches than that.
   */
  inFlight: ProducerBatch[] = [];
  stream: ProduceStream | undefined;
  /** One of those in flight has failed: the others are awaited, then all goes again in order. */
  draining = false;
  /** A batch at the head is being split, the topic is looked up because it was deleted, or a producer id is awaited. */
  held = false;
  /** Nothing is sent before this time on the monotonic clock. */
  retryAtMs = 0;
  /** Failed rounds since the last success. */
  failures = 0;
  #completions: Completion[] = [];
  /** The last completion, when it belongs to a `sendMany` that may go on. */
  #openPart: SendManyPart | undefined;

  /** @param pool where the buffers of batches come from */
  constructor(
    target: TopicMetadata,
    partition: number,
    batchBytes: number,
    pool: BufferPool,
    sequences: LaneSequences | undefined,
  ) {
    this.sequences = sequences;
    this.topic = target.name;
    this.target = target;
    this.partition = partition;
    this.builder = new BatchBuilder(batchBytes, undefined, pool);
  }

  /**
   * Appends a record to the open batch on behalf of a `send` (a completion) or a `sendMany` (its call).
   * @returns false when the batch has no room for it
   * @throws LogError INVALID_TIMESTAMP
   */
  tryAppend(
    timestampMs: number,
    key: Uint8Array | null,
    value: Uint8Array | null,
    headers: readonly RecordHeader[] | undefined,
    waiter: Completion | SendManyCall,
  ): boolean {
    if (!this.builder.tryAppend(timestampMs, key, value, headers ?? NO_HEADERS)) return false;
    if (!(waiter instanceof SendManyCall)) {
      this.#completions.push(waiter);
      this.#openPart = undefined;
      return true;
    }
    waiter.added();
    if (this.#openPart?.call === waiter) {
      this.#openPart.count++;
      return true;
    }
    this.#openPart = new SendManyPart(waiter, 1);
    this.#completions.push(this.#openPart);
    return true;
  }

  /** Drops settled batches from the head of the queue and returns the first that still counts. */
  nextUnsettled(): ProducerBatch | undefined {
    let [head] = this.queue;
    while (head?.settled) {
      this.queue.shift();
      this.sequences?.onGivenUp(head);
      // What is in flight may have to go again, and this one's sequences stay taken then.
      if (this.sequences !== undefined && head.maybeWritten && this.inFlight.length > 0) this.inFlight.push(head);
      head = this.queue[0];
    }
    return head;
  }

  /** The completions of the open batch, which is being sealed. */
  takeCompletions(): Completion[] {
    const completions = this.#completions;
    this.#completions = [];
    this.#openPart = undefined;
    return completions;
  }
}
