import { recordCountOf, setLogAppendTime, stampBatch } from '../batch/layout.js';
import { refuseProducerState, validateForAppend } from '../batch/validate.js';
import { assert } from '../core/assert.js';
import type { Clock, Timer } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { type Offset, toOffset } from '../core/types.js';
import type { LogSlice, PartitionLog } from '../storage/engine.js';
import { type LanePlace, precedingFailed } from './append-lane.js';
import type { PartitionConfig } from './partition-config.js';
import { findNewestRecord, findRecordByTime, type RecordPosition } from './time-lookup.js';

/** What an acknowledgement waits for. */
export type Acks = 'none' | 'written' | 'durable';

export interface AppendResult {
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** The append time on LogAppendTime topics, else -1. */
  readonly logAppendTimeMs: number;
  readonly logStartOffset: number;
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
  readonly resolve: (result: AppendResult) => void;
  readonly reject: (error: LogError) => void;
}

interface AwaitingSync {
  readonly endOffset: number;
  readonly result: AppendResult;
  readonly pending: PendingAppend;
}

/** Data written but not asked to be durable is synced once this much has gathered, whatever flush.ms says. */
const FLUSH_BYTES = 8 * 1024 * 1024;
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
  readonly #log: PartitionLog;
  #config: PartitionConfig;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #queue: PendingAppend[] = [];
  #writing = false;
  #appendsFail = false;
  readonly #awaitingSync: AwaitingSync[] = [];
  /** The run of syncs under way, if any. Never rejects. */
  #syncRun: Promise<void> | undefined;
  #syncWanted = false;
  #unsyncedBytes = 0;
  #syncTimer: Timer | undefined;
  readonly #listeners = new Set<() => void>();
  #closed = false;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  constructor(options: PartitionOptions) {
    this.topic = options.topic;
    this.#log = options.log;
    this.#config = options.config;
    this.#clock = options.clock;
    this.#logger = options.logger;
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

  get logEndOffset(): Offset {
    return this.#log.endOffset;
  }

  get log(): PartitionLog {
    return this.#log;
  }

  /**
   * Appends whole record batches, each with base offset 0, in order and together. The buffers are patched in place and
   * belong to the partition from here on.
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
        if (this.#closed) throw this.#closedError();
        const byteLength = this.#validate(batches);
        this.#queue.push({ batches, byteLength, options, resolve, reject: rejectInOrder });
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
      refuseProducerState(batch);
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
      const refusal = this.#refusal(pending.options, next);
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
    this.#planSync();
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
    if (expectedOffset !== undefined && expectedOffset !== next) return this.#wrongOffset(expectedOffset, next);
    return undefined;
  }

  #assignOffsets(pending: PendingAppend, from: number): AppendResult {
    const appendTime = this.#config.logAppendTime ? this.#clock.now() : -1;
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
    };
  }

  #written(pending: PendingAppend, result: AppendResult): void {
    this.#unsyncedBytes += pending.byteLength;
    if (pending.options.acks === 'durable') {
      this.#awaitingSync.push({ endOffset: result.lastOffset + 1, result, pending });
    } else {
      pending.resolve(result);
    }
  }

  /** Syncs now when somebody waits for it - a producer, or a reader at the tail - or when much has gathered. */
  #planSync(): void {
    if (this.#awaitingSync.length > 0 || this.#listeners.size > 0 || this.#unsyncedBytes >= FLUSH_BYTES) {
      this.#startSync();
    } else {
      this.#syncTimer ??= this.#clock.setTimer(this.#config.flushMs, () => {
        this.#syncTimer = undefined;
        this.#startSync();
      });
    }
  }

  #startSync(): void {
    this.#syncWanted = true;
    this.#syncRun ??= this.#syncAll()
      .catch((error: unknown) => this.#reportDefect(error))
      .finally(() => {
        this.#syncRun = undefined;
      });
  }

  async #syncAll(): Promise<void> {
    while (this.#syncWanted) {
      this.#syncWanted = false;
      this.#syncTimer?.cancel();
      this.#syncTimer = undefined;
      this.#unsyncedBytes = 0;
      try {
        await this.#log.flush(this.#log.endOffset);
      } catch (error) {
        this.#failAwaiting(toLogError(error));
        break;
      }
      this.#acknowledgeDurable();
      this.#notify();
      if (this.#awaitingSync.length > 0) this.#syncWanted = true;
    }
  }

  #acknowledgeDurable(): void {
    const durable = this.#log.durableOffset;
    let count = 0;
    for (const waiting of this.#awaitingSync) {
      if (waiting.endOffset > durable) break;
      waiting.pending.resolve(waiting.result);
      count++;
    }
    this.#awaitingSync.splice(0, count);
  }

  #failAwaiting(error: LogError): void {
    this.#logger.error(
      { topic: this.topic, partition: this.index, reason: error.reason, err: error },
      'sync failed: the partition acknowledges nothing more until the broker is restarted',
    );
    for (const waiting of this.#awaitingSync.splice(0)) waiting.pending.reject(error);
  }

  /**
   * Whole record batches from the one that contains `from` up to the high watermark: about `maxBytes`, at least one
   * batch when there is one, empty at the tail.
   * @throws LogError OFFSET_OUT_OF_RANGE with the valid range, CORRUPT_LOG
   */
  async read(from: Offset, maxBytes: number): Promise<LogSlice> {
    this.checkReadable(from);
    const upTo = this.highWatermark;
    if (from >= upTo) return { chunks: [], byteLength: 0, nextOffset: from };
    return await this.#log.read(from, upTo, maxBytes);
  }

  /** @throws LogError OFFSET_OUT_OF_RANGE unless reading could start at `from`; CLOSED */
  checkReadable(from: Offset): void {
    if (this.#closed) throw this.#closedError();
    const { startOffset, endOffset } = this.#log;
    if (from >= startOffset && from <= endOffset) return;
    const why =
      from < startOffset
        ? `it was deleted; the log starts at ${startOffset}`
        : `the log ends at ${endOffset}: it was never written here, or the topic was recreated`;
    throw new LogError(
      'OFFSET_OUT_OF_RANGE',
      `Offset ${from} of ${this.topic}-${this.index} cannot be read: ${why}. ` +
        'Read from an offset in the valid range, from earliest or from latest.',
      {
        metadata: {
          topic: this.topic,
          partition: this.index,
          offset: from,
          log_start_offset: startOffset,
          high_watermark: this.highWatermark,
          log_end_offset: endOffset,
        },
      },
    );
  }

  /** The first readable record with a timestamp at or after `timestampMs`, if there is one. */
  async findByTime(timestampMs: number): Promise<RecordPosition | undefined> {
    if (this.#closed) throw this.#closedError();
    return await findRecordByTime(this.#log, this.highWatermark, timestampMs);
  }

  /** The first readable record that holds the largest timestamp of all readable ones, if any has one. */
  async findNewest(): Promise<RecordPosition | undefined> {
    if (this.#closed) throw this.#closedError();
    return await findNewestRecord(this.#log, this.highWatermark);
  }

  /** Follows a changed configuration: appends from the next one on, retention and compaction from the next check on. */
  configure(config: PartitionConfig): void {
    this.#config = config;
    this.#log.configure(config);
  }

  /**
   * Raises the log start offset, durably; -1 stands for the high watermark.
   * @returns the log start offset afterwards: it never goes back
   * @throws LogError OFFSET_OUT_OF_RANGE with the valid range when `before` lies above the high watermark
   */
  async deleteRecords(before: number): Promise<Offset> {
    if (this.#closed) throw this.#closedError();
    this.checkDeletable(before);
    await this.#log.trim(before === -1 ? this.highWatermark : toOffset(before));
    return this.#log.startOffset;
  }

  /** @throws LogError as `deleteRecords`; nothing is changed */
  checkDeletable(before: number): void {
    const { highWatermark, logStartOffset } = this;
    if (before === -1 || (before <= highWatermark && toOffset(before) >= 0)) return;
    throw new LogError(
      'OFFSET_OUT_OF_RANGE',
      `Records of ${this.topic}-${this.index} can be deleted up to its high watermark ${highWatermark}, not up to ` +
        `${before}. The valid range is ${logStartOffset} to ${highWatermark}.`,
      {
        metadata: {
          topic: this.topic,
          partition: this.index,
          offset: before,
          log_start_offset: logStartOffset,
          high_watermark: highWatermark,
        },
      },
    );
  }

  /**
   * Calls `listener` after each advance of the high watermark and when the partition closes, until unsubscribed.
   * While somebody listens, every write is synced at once, so that readers at the tail do not wait for flush.ms.
   */
  onAdvance(listener: () => void): () => void {
    this.#listeners.add(listener);
    if (this.#log.durableOffset < this.#log.endOffset && this.#log.failure === undefined) this.#startSync();
    return () => this.#listeners.delete(listener);
  }

  #notify(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Takes no more calls from here on, and tells those who listen; `close` does the rest. Idempotent. */
  retire(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#notify();
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
    this.#syncTimer?.cancel();
    if (this.#log.failure === undefined && this.#log.durableOffset < this.#log.endOffset) this.#startSync();
    this.#notify();
    await this.#syncRun;
    await this.#log.close();
  }

  #wrongOffset(expected: number, actual: number): LogError {
    return new LogError(
      'WRONG_OFFSET',
      `${this.topic}-${this.index} ends at offset ${actual}, not at the expected ${expected}. Nothing was appended.`,
      { metadata: { topic: this.topic, partition: this.index, expected_offset: expected, log_end_offset: actual } },
    );
  }

  #closedError(): LogError {
    return new LogError(
      'UNKNOWN_TOPIC_OR_PARTITION',
      `${this.topic}-${this.index} is closed: its topic was deleted or the broker is stopping.`,
      { metadata: { topic: this.topic, partition: this.index } },
    );
  }

  #reportDefect(error: unknown): void {
    this.#logger.error({ topic: this.topic, partition: this.index, err: error }, 'defect in the partition writer');
  }
}
