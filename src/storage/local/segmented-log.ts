/** One partition's log on disk, shared by the handles of all epochs that have opened it. */
import { dirname } from 'node:path';
import { type Epoch, type Offset, toOffset } from '../../core/types.js';
import { closedError, outOfRange, statsOf } from '../batches.js';
import type { CompactOptions, CompactResult, LogConfig, LogSlice, LogStats, SegmentInfo } from '../engine.js';
import { Appender } from './appender.js';
import { Compactor } from './compactor.js';
import { Flusher } from './flusher.js';
import { failedSync, isUntriedSync, toStorageError } from './io-errors.js';
import { LogReader } from './log-reader.js';
import { LogSideFiles } from './log-side-files.js';
import type { EngineContext, LogState } from './log-state.js';
import { LogTimes } from './log-times.js';
import { Maintenance } from './maintenance.js';
import type { RecoveryPoint } from './recovery-points.js';
import type { Segment } from './segment.js';
import { LogTail } from './tail-cache.js';

/** See `PartitionLog` for what the operations promise. */
export class SegmentedLog {
  readonly sideFiles: LogSideFiles;
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #tail: LogTail;
  readonly #appender: Appender;
  readonly #reader: LogReader;
  readonly #times: LogTimes;
  readonly #flusher: Flusher;
  readonly #maintenance: Maintenance;
  readonly #compactor: Compactor;
  /** Whether the checkpoint on disk still says everything. */
  #checkpointed: boolean;
  #closing: Promise<void> | undefined;
  readonly #underWay = new Set<Promise<unknown>>();

  /**
   * @param checkpointed whether the checkpoint on disk vouches for all of `state`
   * @param sideFiles names of those that are there
   */
  constructor(context: EngineContext, state: LogState, checkpointed: boolean, sideFiles: readonly string[]) {
    this.#context = context;
    this.#state = state;
    this.#checkpointed = checkpointed;
    this.sideFiles = new LogSideFiles(context, state.directory, sideFiles, (work) => this.#whileOpen(work));
    this.#tail = new LogTail(context.tail);
    this.#reader = new LogReader(context, state, this.#tail);
    this.#times = new LogTimes(state, this.#reader.createTimeLookup());
    this.#flusher = new Flusher(context.syncs, () => this.#sync());
    this.#maintenance = new Maintenance(context, state, (upTo) => this.#flush(upTo));
    this.#appender = new Appender(context, state, this.#tail, {
      flush: () => this.#flusher.flush(),
      alone: (sync) => this.#flusher.alone(sync),
      closed: (segment) => this.#maintenance.finishClosed(segment),
      finished: () => this.#maintenance.idle(),
    });
    this.#compactor = new Compactor(context, state, this.#maintenance, {
      replaced: (below) => {
        this.#tail.dropBelow(below);
        this.#reader.forgetPositions();
      },
    });
    if (!checkpointed) this.#maintenance.finishRecovered();
  }

  get startOffset(): Offset {
    return this.#state.startOffset;
  }

  get endOffset(): Offset {
    return this.#state.endOffset;
  }

  get durableOffset(): Offset {
    return this.#state.durableOffset;
  }

  get cleanedOffset(): Offset {
    return toOffset(Math.max(this.#state.cleanedOffset, this.#state.startOffset));
  }

  get failure(): Error | undefined {
    return this.#state.failure;
  }

  /** What an unclean start is to know of this log. */
  get recoveryPoint(): RecoveryPoint {
    const { durableOffset, startOffset, epochs } = this.#state;
    return { offset: durableOffset, logStartOffset: startOffset, epochs: epochs.runs };
  }

  /** Expects that the next batches carry an epoch. Before the first append only: later, what is under way counts. */
  expectEpoch(epoch: Epoch): void {
    this.#state.epochs = this.#state.epochs.continuedAt(this.#state.endOffset, epoch);
  }

  /** A recovery point of this log has become durable. */
  pointRecorded({ epochs }: RecoveryPoint): void {
    if (epochs === this.#state.epochs.runs) this.#state.recordedEpochs = this.#state.epochs;
  }

  configure(config: LogConfig): void {
    this.#state.config = config;
  }

  segments(): readonly SegmentInfo[] {
    return this.#state.segments.map(({ contents, createdMs, modifiedMs }) => {
      const { sizeInBytes, firstTimestamp, maxTimestamp, hasProducers } = contents;
      const baseOffset = toOffset(contents.baseOffset);
      const nextOffset = toOffset(contents.nextOffset);
      const times = { firstTimestamp, maxTimestamp, createdMs, modifiedMs };
      return { baseOffset, nextOffset, sizeInBytes, ...times, hasProducers };
    });
  }

  stats(): LogStats {
    return statsOf(this.segments());
  }

  async roll(): Promise<void> {
    this.#checkOpen();
    this.#checkpointed = false;
    return this.#appender.roll();
  }

  compact(options: CompactOptions): Promise<CompactResult> {
    return this.#whileOpen(async () => {
      this.#checkpointed = false;
      return await this.#compactor.compact(options);
    });
  }

  /** @param mayWrite throws if the caller may not write any more; called right before anything is written */
  async append(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Promise<Offset> {
    this.#checkOpen();
    this.#checkpointed = false;
    return this.#appender.append(batches, at, mayWrite);
  }

  async flush(upTo: Offset): Promise<void> {
    this.#checkOpen();
    return this.#flush(upTo);
  }

  read(from: Offset, to: Offset, maxBytes: number): Promise<LogSlice> {
    return this.#whileOpen(() => this.#reader.read(from, to, maxBytes));
  }

  batchForTime(timestampMs: number): Promise<Offset | undefined> {
    return this.#whileOpen(() => this.#times.batchForTime(timestampMs));
  }

  batchForMaxTimestamp(to: Offset): Promise<Offset | undefined> {
    return this.#whileOpen(() => this.#times.batchForMaxTimestamp(to));
  }

  trim(before: Offset): Promise<void> {
    return this.#whileOpen(async () => {
      const { startOffset, endOffset } = this.#state;
      if (before < startOffset) return;
      if (before > endOffset) throw outOfRange(before, startOffset, endOffset);
      await this.#flush(before);
      this.#checkpointed = false;
      await this.#maintenance.trim(before);
    });
  }

  /**
   * Makes everything durable, writes the checkpoint and lets go of all files.
   * @throws LogError when the log could not be left in order; it is closed all the same
   */
  close(): Promise<void> {
    this.#closing ??= this.#close(true);
    return this.#closing;
  }

  /** Lets go of all files without writing anything more: the log is about to be removed. */
  abandon(): Promise<void> {
    this.#closing ??= this.#close(false);
    return this.#closing.catch(() => undefined);
  }

  async #close(inOrder: boolean): Promise<void> {
    try {
      this.#compactor.close();
      await this.#appender.idle();
      await Promise.allSettled(this.#underWay);
      if (inOrder) await this.#leaveInOrder();
    } finally {
      await this.#maintenance.idle();
      this.#tail.clear();
      for (const segment of this.#state.segments) this.#letGo(segment);
    }
  }

  async #leaveInOrder(): Promise<void> {
    if (this.#state.failure) throw this.#state.failure;
    await this.#flush(this.#state.endOffset);
    await this.#maintenance.idle();
    const { segments } = this.#state;
    const unwritten = segments.some((segment) => segment.exists && !segment.checksums);
    if (!this.#checkpointed || unwritten) await this.#maintenance.writeFinalCheckpoint();
  }

  #letGo(segment: Segment): void {
    const { pin } = segment;
    segment.pin = undefined;
    this.#context.indexes.forget(segment);
    pin?.release();
    this.#context.files.forget(segment.path);
  }

  #checkOpen(): void {
    if (this.#closing) throw closedError('log');
  }

  async #whileOpen<T>(work: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    const result = work();
    this.#underWay.add(result);
    try {
      return await result;
    } finally {
      this.#underWay.delete(result);
    }
  }

  async #flush(upTo: Offset): Promise<void> {
    const { startOffset, endOffset, durableOffset, failure } = this.#state;
    if (upTo > endOffset) throw outOfRange(upTo, startOffset, endOffset);
    if (upTo <= durableOffset) return;
    if (failure) throw failure;
    await this.#flusher.flush();
  }

  /** One pass of group commit: what was appended when it began is durable when it ends. */
  async #sync(): Promise<void> {
    const state = this.#state;
    if (state.failure) throw this.#giveUp(state.failure);
    const { dirty, endOffset } = state;
    state.dirty = new Set();
    try {
      for (const segment of dirty) await this.#syncData(segment);
      await this.#syncEntries();
    } catch (error) {
      if (!isUntriedSync(error)) throw this.#giveUp(error);
      // Left to the next pass.
      for (const segment of dirty) state.dirty.add(segment);
      throw error;
    }
    // An append has failed meanwhile, perhaps with the error of a file that was synced here.
    if (state.failure) throw this.#giveUp(state.failure);
    state.durableOffset = endOffset;
    for (const segment of dirty) if (!state.dirty.has(segment)) this.#unpin(segment);
  }

  async #syncData(segment: Segment): Promise<void> {
    try {
      await this.#context.fs.fdatasync(segment.pin!.fd);
    } catch (error) {
      throw this.#giveUp(toStorageError('sync', segment.path, error, 'unknown'));
    }
  }

  /** Makes the entries of new files durable, before any of their bytes count as such. */
  async #syncEntries(): Promise<void> {
    const state = this.#state;
    const { directory, entriesDirty, parentDirty } = state;
    const { fs, files } = this.#context;
    state.entriesDirty = false;
    state.parentDirty = false;
    try {
      if (entriesDirty) await files.withHandle(() => fs.syncDirectory(directory));
      if (parentDirty) await files.withHandle(() => fs.syncDirectory(dirname(directory)));
    } catch (error) {
      state.entriesDirty ||= entriesDirty;
      state.parentDirty ||= parentDirty;
      throw toStorageError('sync', directory, error, 'unknown');
    }
  }

  /** After a failed write or sync nothing is synced any more: poisons the log and frees the handles kept for it. */
  #giveUp(error: unknown): Error {
    const state = this.#state;
    if (!state.failure) {
      state.failure = failedSync(state.directory, error);
      const fields = { directory: state.directory, err: error };
      this.#context.logger.error(fields, 'a sync failed: the log takes no more appends');
    }
    for (const segment of state.segments) this.#unpin(segment);
    state.dirty.clear();
    return state.failure;
  }

  #unpin(segment: Segment): void {
    const { pin } = segment;
    if (!pin) return;
    segment.pin = undefined;
    this.#context.files.unpin(segment.path);
    pin.release();
  }
}
