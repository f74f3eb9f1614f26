import { validateForAppend, validateProducer } from '../batch/validate.js';
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { type Offset, toOffset } from '../core/types.js';
import type { LogSlice, PartitionLog } from '../storage/engine.js';
import type { AppendOptions, AppendResult } from './append-types.js';
import { checkCompactable } from './compactable.js';
import { partitionClosed, undeletableOffset, unreadableOffset } from './errors.js';
import { GroupSync } from './group-sync.js';
import { PartitionLifecycle } from './lifecycle.js';
import { checkMessageIdBit } from './message-ids/identified-records.js';
import { MessageIdPart } from './message-ids/message-id-part.js';
import { MessageIds } from './message-ids/message-ids.js';
import type { PartitionConfig } from './partition-config.js';
import { PartitionWriter } from './partition-writer.js';
import { abortedInSlice } from './producers/aborted-in-slice.js';
import { PartitionProducers } from './producers/partition-producers.js';
import type { SharedProducers } from './producers/shared-producers.js';
import type {
  AbortedTransaction,
  Isolation,
  OpenTransaction,
  ProducerDescription,
  TransactionEnd,
} from './producers/types.js';
import { findNewestRecord, findRecordByTime, type RecordPosition } from './time-lookup.js';

export type { Acks, AppendOptions, AppendResult } from './append-types.js';

/** What was read of a partition. */
export interface PartitionSlice extends LogSlice {
  /** Reading committed: the aborted transactions that have something in what was read; perhaps more. */
  readonly aborted: readonly AbortedTransaction[];
}

const NONE_ABORTED: readonly AbortedTransaction[] = [];

export interface PartitionOptions {
  readonly topic: string;
  readonly log: PartitionLog;
  readonly config: PartitionConfig;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Shared by all partitions of a broker. */
  readonly producers: SharedProducers;
}

/**
 * One partition: the single writer of its log, and the only one who decides offsets.
 *
 * Invariants: offsets are assigned in the order in which `append` was called; an append is acknowledged only after the
 * log has it as its `acks` demand; the high watermark is the durable offset, so that no reader sees a record which a
 * power cut could take back.
 */
export class Partition {
  readonly topic: string;
  /** Retention and compaction of this partition. */
  readonly lifecycle: PartitionLifecycle;
  readonly #log: PartitionLog;
  #config: PartitionConfig;
  readonly #clock: Clock;
  readonly #sync: GroupSync;
  readonly #producers: PartitionProducers;
  readonly #messageIds: MessageIds;
  readonly #writer: PartitionWriter;
  #closed = false;
  #closing: Promise<void> | undefined;

  private constructor(
    options: PartitionOptions,
    sync: GroupSync,
    producers: PartitionProducers,
    messageIds: MessageIds,
  ) {
    const { topic, log, config, clock, logger } = options;
    this.topic = topic;
    this.#log = log;
    this.#config = config;
    this.#clock = clock;
    this.#sync = sync;
    this.#producers = producers;
    this.#messageIds = messageIds;
    this.#writer = new PartitionWriter({ place: this, log, clock, logger, sync, producers, messageIds });
    this.lifecycle = new PartitionLifecycle(this, producers, clock, logger);
  }

  /**
   * Finds out what the producers of the log have sent and which message ids it has, and puts the partition into service. Owns the log from here on.
   * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT: the log cannot be read, and is closed
   */
  static async open(options: PartitionOptions): Promise<Partition> {
    const { topic, log, config, clock, producers: shared } = options;
    const sync = new GroupSync({ ...options, flushMs: config.flushMs });
    const ids = { topic, partition: log.id.partition, budget: shared.messageIds, windowMs: config.dedupeWindowMs };
    const messageIds = new MessageIds(ids);
    try {
      const producers = await PartitionProducers.load({
        ...options,
        shared,
        parts: [new MessageIdPart(messageIds, clock)],
        atRest: (capture) => partition.#writer.atRest(capture),
        whenDurable: (offset) => partition.#whenDurable(offset),
      });
      const partition: Partition = new Partition(options, sync, producers, messageIds);
      return partition;
    } catch (error) {
      messageIds.clear();
      await log.close();
      throw error;
    }
  }

  get index(): number {
    return this.#log.id.partition;
  }

  get logStartOffset(): Offset {
    return this.#log.startOffset;
  }

  /** Readers see everything below this; it is what survives power loss. */
  get highWatermark(): Offset {
    return this.#log.durableOffset;
  }

  /** Reading committed ends here: the first offset of the oldest open transaction, else the high watermark. */
  get lastStableOffset(): Offset {
    const { durableOffset, startOffset } = this.#log;
    const firstUnstable = this.#producers.states.firstUnstableOffset(durableOffset);
    return firstUnstable >= durableOffset ? durableOffset : toOffset(Math.max(firstUnstable, startOffset));
  }

  get logEndOffset(): Offset {
    return this.#log.endOffset;
  }

  get log(): PartitionLog {
    return this.#log;
  }

  get config(): PartitionConfig {
    return this.#config;
  }

  /**
   * Appends whole record batches, each with base offset 0, in order and together. The buffers are patched in place and
   * belong to the partition from here on. On a compacted topic every record must have a key; finding that out may take
   * time, but not the append's place in the order. Batches of a producer that are in the log already are not appended again:
   * the answer is that of the first time, and comes when that is as safe as `acks` asks; so it is with records whose
   * message ids are remembered.
   * @throws LogError CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE,
   *   UNSUPPORTED_COMPRESSION_TYPE, WRONG_OFFSET, PRODUCER_FENCED, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE,
   *   RESOURCE_LIMIT (too many producers or message ids), STORAGE_FULL, PRECEDING_APPEND_FAILED (nothing was appended), STORAGE_ERROR
   *   (outcome unknown)
   */
  append(batches: readonly Buffer[], options: AppendOptions): Promise<AppendResult> {
    return new Promise((resolve, reject) => {
      const rejectInOrder = (error: LogError): void => {
        options.place?.fail(error);
        reject(error);
      };
      try {
        if (this.#closed) throw partitionClosed(this);
        const validated = this.#validate(batches, options);
        const { logAppendTime, cleanupCompact } = this.#config;
        const refusal = cleanupCompact ? checkCompactable(batches) : undefined;
        options.admit?.();
        this.#writer.push({
          kind: 'append',
          batches,
          ...validated,
          options,
          logAppendTime,
          refusal,
          resolve,
          reject: rejectInOrder,
        });
      } catch (error) {
        rejectInOrder(toLogError(error));
      }
    });
  }

  #validate(
    batches: readonly Buffer[],
    { messageIds }: AppendOptions,
  ): { readonly byteLength: number; readonly hasProducer: boolean } {
    if (batches.length === 0) {
      throw new LogError('INVALID_RECORD', 'There is nothing to append: the request has no record batch.');
    }
    const config = this.#config;
    const limits = {
      maxBatchBytes: Math.min(config.maxMessageBytes, config.segmentBytes),
      nowMs: this.#clock.now(),
      timestampAfterMaxMs: config.timestampAfterMaxMs,
      timestampBeforeMaxMs: config.timestampBeforeMaxMs,
      logAppendTime: config.logAppendTime,
    };
    let byteLength = 0;
    let hasProducer = false;
    for (const batch of batches) {
      validateForAppend(batch, limits);
      hasProducer = validateProducer(batch) || hasProducer;
      checkMessageIdBit(batch, messageIds);
      byteLength += batch.length;
    }
    return { byteLength, hasProducer };
  }

  /**
   * Resolves when everything that the log has now is durable.
   * @throws LogError STORAGE_ERROR, for good; RESOURCE_LIMIT: nothing is lost, try again
   */
  async flush(): Promise<void> {
    await this.#whenDurable(this.#log.endOffset);
  }

  #whenDurable(offset: Offset): Promise<void> {
    return new Promise((resolve, reject) => {
      if (offset <= this.#log.durableOffset) {
        resolve();
        return;
      }
      this.#sync.whenDurable({ endOffset: offset, resolve, reject });
      this.#sync.plan();
    });
  }

  /**
   * Whole record batches from the one that contains `from` up to the high watermark, or the last stable offset: about
   * `maxBytes`, at least one batch when there is one, empty at the tail.
   * @param isolation default: uncommitted
   * @throws LogError OFFSET_OUT_OF_RANGE with the valid range, CORRUPT_LOG
   */
  async read(from: Offset, maxBytes: number, isolation: Isolation = 'read_uncommitted'): Promise<PartitionSlice> {
    this.checkReadable(from);
    const committed = isolation === 'read_committed';
    const upTo = this.#readableEnd(isolation);
    if (from >= upTo) return { chunks: [], byteLength: 0, nextOffset: from, aborted: NONE_ABORTED };
    const slice = await this.#log.read(from, upTo, maxBytes);
    const { chunks, nextOffset } = slice;
    if (!committed) return { ...slice, aborted: NONE_ABORTED };
    const candidates = this.#producers.hasAborted ? await this.#producers.abortedIn(from, nextOffset) : NONE_ABORTED;
    // Of what was deleted meanwhile nobody knows any more what was aborted.
    if (from < this.#log.startOffset) throw unreadableOffset(this, from);
    return { ...slice, aborted: candidates.length === 0 ? NONE_ABORTED : abortedInSlice(chunks, candidates) };
  }

  /**
   * Appends a marker, which ends the producer's open transaction and lets nothing of an epoch below the marker's in from
   * then on. Without an open transaction of a lower epoch nothing is appended. Resolves when everything up to then is
   * durable.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION (closed), STORAGE_FULL, RESOURCE_LIMIT: nothing was appended;
   *   STORAGE_ERROR (outcome unknown)
   */
  async endTransaction(end: TransactionEnd): Promise<void> {
    if (this.#closed) throw partitionClosed(this);
    await this.#writer.end(end);
  }

  /** In the order of their first offsets. */
  openTransactions(): readonly OpenTransaction[] {
    return this.#producers.states.openTransactions();
  }

  /** The producers that are remembered, in no order: there may be very many. */
  producerIds(): Iterable<number> {
    this.#producers.expire();
    return this.#producers.states.producerIds();
  }

  /** What is known of these producers, of all by default; those that are not remembered are left out. */
  producers(producerIds?: readonly number[]): readonly ProducerDescription[] {
    this.#producers.expire();
    return this.#producers.states.describe(producerIds);
  }

  /** @throws LogError OFFSET_OUT_OF_RANGE unless reading could start at `from`; CLOSED */
  checkReadable(from: Offset): void {
    if (this.#closed) throw partitionClosed(this);
    const { startOffset, endOffset } = this.#log;
    if (from < startOffset || from > endOffset) throw unreadableOffset(this, from);
  }

  /** The first readable record with a timestamp at or after `timestampMs`, if there is one; it may have been aborted. */
  async findByTime(timestampMs: number, isolation?: Isolation): Promise<RecordPosition | undefined> {
    if (this.#closed) throw partitionClosed(this);
    return await findRecordByTime(this.#log, this.#readableEnd(isolation), timestampMs);
  }

  /** The first readable record that holds the largest timestamp of all readable ones, if any has one. */
  async findNewest(isolation?: Isolation): Promise<RecordPosition | undefined> {
    if (this.#closed) throw partitionClosed(this);
    return await findNewestRecord(this.#log, this.#readableEnd(isolation));
  }

  /** Where reading ends. */
  #readableEnd(isolation: Isolation | undefined): Offset {
    return isolation === 'read_committed' ? this.lastStableOffset : this.highWatermark;
  }

  /**
   * Follows a changed configuration: appends from the next one on, retention and compaction from the next check on, what
   * waits for flush.ms from now on.
   */
  configure(config: PartitionConfig): void {
    this.#config = config;
    this.#log.configure(config);
    this.#sync.configure(config.flushMs);
    this.#messageIds.configure(config.dedupeWindowMs);
  }

  /**
   * Raises the log start offset, durably; -1 stands for the high watermark.
   * @returns the log start offset afterwards: it never goes back
   * @throws LogError OFFSET_OUT_OF_RANGE with the valid range when `before` lies above the high watermark
   */
  async deleteRecords(before: number): Promise<Offset> {
    if (this.#closed) throw partitionClosed(this);
    this.checkDeletable(before);
    const log = this.#log;
    const newStart = before === -1 ? this.highWatermark : toOffset(before);
    await this.#producers.beforeForgetting(newStart);
    await log.trim(newStart);
    // The segment that takes the appends stays, unless another takes its place: an empty log gives back all its space.
    if (log.startOffset === log.endOffset && log.failure === undefined) {
      await log.roll();
      await log.trim(log.startOffset);
    }
    await this.#producers.afterDeletion();
    return log.startOffset;
  }

  /** @throws LogError as `deleteRecords`; nothing is changed */
  checkDeletable(before: number): void {
    const isInRange = before === -1 || (before <= this.highWatermark && toOffset(before) >= 0);
    if (!isInRange) throw undeletableOffset(this, before);
  }

  /**
   * Calls `listener` after each advance of the high watermark and when the partition closes, until unsubscribed.
   * While somebody listens, every write is synced at once, so that readers at the tail do not wait for flush.ms.
   */
  onAdvance(listener: () => void): () => void {
    return this.#sync.onAdvance(listener);
  }

  /** Takes no more calls from here on, and tells those who listen; `close` does the rest. Idempotent. */
  retire(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.lifecycle.close();
    this.#sync.notify();
  }

  /** Finishes what was accepted, makes it durable and lets go of the log. Idempotent. */
  close(): Promise<void> {
    this.retire();
    this.#closing ??= this.#finish();
    return this.#closing;
  }

  async #finish(): Promise<void> {
    await this.#writer.drain();
    await this.#sync.finish();
    await this.#producers.close();
    this.#messageIds.clear();
    await this.#log.close();
  }
}
