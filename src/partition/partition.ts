import { recordCountOf, setLogAppendTime, stampBatch } from '../batch/layout.js';
import { validateForAppend, validateProducer } from '../batch/validate.js';
import { assert } from '../core/assert.js';
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { type Offset, toOffset } from '../core/types.js';
import type { LogSlice, PartitionLog } from '../storage/engine.js';
import { type LanePlace, precedingFailed } from './append-lane.js';
import { checkCompactable } from './compactable.js';
import { partitionClosed, undeletableOffset, unreadableOffset, wrongOffset } from './errors.js';
import { GroupSync } from './group-sync.js';
import { PartitionLifecycle } from './lifecycle.js';
import type { PartitionConfig } from './partition-config.js';
import type {
  AbortedTransaction,
  Isolation,
  OpenTransaction,
  ProducerDescription,
  TransactionEnd,
} from './producers/types.js';
import { findNewestRecord, findRecordByTime, type RecordPosition } from './time-lookup.js';

/** What an acknowledgement waits for. */
export type Acks = 'none' | 'written' | 'durable';

export interface AppendResult {
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** The append time on LogAppendTime topics, else -1. */
  readonly logAppendTimeMs: number;
  readonly logStartOffset: number;
  /** Of records that came with message ids: where each is, those that were there already included. */
  readonly offsets?: readonly number[];
  /** Records that were there already. */
  readonly duplicateCount: number;
}

export interface AppendOptions {
  readonly acks: Acks;
  /** Append only if the log ends here. */
  readonly expectedOffset?: number | undefined;
  /** Place among the appends of one stream, which keep their order when one of them fails. */
  readonly place?: LanePlace | undefined;
}

interface PendingAppend {
  readonly batches: readonly Buffer[];
  readonly byteLength: number;
  readonly options: AppendOptions;
  /** Whether the broker stamps its own time: what the batches were judged by, whatever is configured later. */
  readonly logAppendTime: boolean;
  /** Why the records are refused, where finding that out takes time. Never rejects. */
  readonly refusal: Promise<LogError | undefined> | undefined;
  readonly resolve: (result: AppendResult) => void;
  readonly reject: (error: LogError) => void;
}

/** What was read of a partition. */
export interface PartitionSlice extends LogSlice {
  /** Reading committed: the aborted transactions that have something in what was read; perhaps more. */
  readonly aborted: readonly AbortedTransaction[];
}

/** One append to the log takes at most this much of what waits, so that a sync can begin in between. */
const GROUP_BYTES = 4 * 1024 * 1024;

export interface PartitionOptions {
  readonly topic: string;
  readonly log: PartitionLog;
  readonly config: PartitionConfig;
  readonly clock: Clock;
  readonly logger: Logger;
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
  readonly #logger: Logger;
  #queue: PendingAppend[] = [];
  #writing = false;
  #appendsFail = false;
  readonly #sync: GroupSync;
  #closed = false;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  constructor(options: PartitionOptions) {
    this.topic = options.topic;
    this.#log = options.log;
    this.#config = options.config;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#sync = new GroupSync({ ...options, flushMs: options.config.flushMs });
    this.lifecycle = new PartitionLifecycle(this, options.clock, options.logger);
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
    return this.highWatermark;
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
   * time, but not the append's place in the order.
   * @throws LogError CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE,
   *   UNSUPPORTED_COMPRESSION_TYPE, WRONG_OFFSET, STORAGE_FULL, PRECEDING_APPEND_FAILED (nothing was appended),
   *   STORAGE_ERROR (outcome unknown)
   */
  append(batches: readonly Buffer[], options: AppendOptions): Promise<AppendResult> {
    return new Promise((resolve, reject) => {
      const rejectInOrder = (error: LogError): void => {
        options.place?.fail(error);
        reject(error);
      };
      try {
        if (this.#closed) throw partitionClosed(this);
        const byteLength = this.#validate(batches);
        const { logAppendTime, cleanupCompact } = this.#config;
        const refusal = cleanupCompact ? checkCompactable(batches) : undefined;
        this.#queue.push({ batches, byteLength, options, logAppendTime, refusal, resolve, reject: rejectInOrder });
        this.#startWriting();
      } catch (error) {
        rejectInOrder(toLogError(error));
      }
    });
  }

  #validate(batches: readonly Buffer[]): number {
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
    for (const batch of batches) {
      validateForAppend(batch, limits);
      validateProducer(batch);
      byteLength += batch.length;
    }
    return byteLength;
  }

  #startWriting(): void {
    if (this.#writing) return;
    this.#writing = true;
    // After the current round of input, so that everything the network delivered together is written together.
    setImmediate(() => {
      this.#writeAll().catch((error: unknown) => this.#reportDefect(error));
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#queue.length > 0) await this.#writeGroup(this.#takeGroup());
    this.#writing = false;
    if (this.#closed) this.#drained?.();
  }

  #takeGroup(): PendingAppend[] {
    let bytes = 0;
    let count = 0;
    for (const pending of this.#queue) {
      if (count > 0 && bytes + pending.byteLength > GROUP_BYTES) break;
      bytes += pending.byteLength;
      count++;
    }
    if (count === this.#queue.length) {
      const all = this.#queue;
      this.#queue = [];
      return all;
    }
    return this.#queue.splice(0, count);
  }

  async #writeGroup(group: readonly PendingAppend[]): Promise<void> {
    const at = this.#log.endOffset;
    const accepted: { pending: PendingAppend; result: AppendResult }[] = [];
    const batches: Buffer[] = [];
    let next: number = at;
    for (const pending of group) {
      // Waits in place, so that no later append overtakes this one; what others sent to this partition waits along.
      const refusedRecords = pending.refusal === undefined ? undefined : await pending.refusal;
      const refusal = this.#refusal(pending.options, next) ?? refusedRecords;
      if (refusal !== undefined) {
        pending.reject(refusal);
        continue;
      }
      const result = this.#assignOffsets(pending, next);
      next = result.lastOffset + 1;
      accepted.push({ pending, result });
      for (const batch of pending.batches) batches.push(batch);
    }
    if (accepted.length === 0) return;
    try {
      const end = await this.#log.append(batches, at);
      assert(end === next, `the log ends at ${end} after an append that should end at ${next}`);
    } catch (error) {
      const failure = toLogError(error);
      for (const { pending } of accepted) pending.reject(failure);
      this.#noteAppend(failure);
      return;
    }
    this.#noteAppend(undefined);
    for (const { pending, result } of accepted) this.#written(pending, result);
    this.#sync.plan();
  }

  /** One line when appends begin to fail, one when they work again: not one for each of thousands in between. */
  #noteAppend(failure: LogError | undefined): void {
    if ((failure !== undefined) === this.#appendsFail) return;
    this.#appendsFail = failure !== undefined;
    const at = { topic: this.topic, partition: this.index };
    if (failure === undefined) this.#logger.info(at, 'appends work again');
    else this.#logger.error({ ...at, reason: failure.reason, err: failure }, 'appends fail');
  }

  #refusal({ place, expectedOffset }: AppendOptions, next: number): LogError | undefined {
    const preceding = place?.precedingFailure;
    if (preceding !== undefined) return precedingFailed(this.topic, this.index, preceding);
    if (expectedOffset !== undefined && expectedOffset !== next) return wrongOffset(this, expectedOffset, next);
    return undefined;
  }

  #assignOffsets(pending: PendingAppend, from: number): AppendResult {
    const appendTime = pending.logAppendTime ? this.#clock.now() : -1;
    let next = from;
    for (const batch of pending.batches) {
      if (appendTime >= 0) setLogAppendTime(batch, 0, appendTime);
      stampBatch(batch, 0, next, this.#log.epoch);
      next += recordCountOf(batch, 0);
    }
    return {
      baseOffset: from,
      lastOffset: next - 1,
      logAppendTimeMs: appendTime,
      logStartOffset: this.#log.startOffset,
      duplicateCount: 0,
    };
  }

  #written(pending: PendingAppend, result: AppendResult): void {
    this.#sync.noteWritten(pending.byteLength);
    if (pending.options.acks !== 'durable') {
      pending.resolve(result);
      return;
    }
    const { resolve, reject } = pending;
    this.#sync.whenDurable({ endOffset: result.lastOffset + 1, resolve: () => resolve(result), reject });
  }

  /**
   * Whole record batches from the one that contains `from` up to the high watermark: about `maxBytes`, at least one
   * batch when there is one, empty at the tail.
   * @param isolation default: uncommitted
   * @throws LogError OFFSET_OUT_OF_RANGE with the valid range, CORRUPT_LOG
   */
  async read(from: Offset, maxBytes: number, isolation: Isolation = 'read_uncommitted'): Promise<PartitionSlice> {
    this.checkReadable(from);
    const upTo = isolation === 'read_committed' ? this.lastStableOffset : this.highWatermark;
    if (from >= upTo) return { chunks: [], byteLength: 0, nextOffset: from, aborted: [] };
    return { ...(await this.#log.read(from, upTo, maxBytes)), aborted: [] };
  }

  /**
   * Appends a marker, which ends the producer's open transaction and lets nothing of an epoch below the marker's in from
   * then on. Without an open transaction of a lower epoch nothing is appended. Resolves when that is durable.
   * @throws LogError as `append`
   */
  endTransaction(_end: TransactionEnd): Promise<void> {
    throw new LogError('INTERNAL', 'not there yet');
  }

  /** In the order of their first offsets. */
  openTransactions(): readonly OpenTransaction[] {
    return [];
  }

  /** The producers that are remembered, by their ids. */
  producers(): readonly ProducerDescription[] {
    return [];
  }

  /** @throws LogError OFFSET_OUT_OF_RANGE unless reading could start at `from`; CLOSED */
  checkReadable(from: Offset): void {
    if (this.#closed) throw partitionClosed(this);
    const { startOffset, endOffset } = this.#log;
    if (from < startOffset || from > endOffset) throw unreadableOffset(this, from);
  }

  /** The first readable record with a timestamp at or after `timestampMs`, if there is one. */
  async findByTime(timestampMs: number): Promise<RecordPosition | undefined> {
    if (this.#closed) throw partitionClosed(this);
    return await findRecordByTime(this.#log, this.highWatermark, timestampMs);
  }

  /** The first readable record that holds the largest timestamp of all readable ones, if any has one. */
  async findNewest(): Promise<RecordPosition | undefined> {
    if (this.#closed) throw partitionClosed(this);
    return await findNewestRecord(this.#log, this.highWatermark);
  }

  /**
   * Follows a changed configuration: appends from the next one on, retention and compaction from the next check on, what
   * waits for flush.ms from now on.
   */
  configure(config: PartitionConfig): void {
    this.#config = config;
    this.#log.configure(config);
    this.#sync.configure(config.flushMs);
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
    await log.trim(before === -1 ? this.highWatermark : toOffset(before));
    // The segment that takes the appends stays, unless another takes its place: an empty log gives back all its space.
    if (log.startOffset === log.endOffset && log.failure === undefined) {
      await log.roll();
      await log.trim(log.startOffset);
    }
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
    if (this.#writing) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    await this.#sync.finish();
    await this.#log.close();
  }

  #reportDefect(error: unknown): void {
    this.#logger.error({ topic: this.topic, partition: this.index, err: error }, 'defect in the partition writer');
  }
}
