/**
 * Appending to one log: where each batch goes, when a segment is closed, and what happens when the disk refuses.
 *
 * An append is planned, then written, then committed. Nothing that readers see changes before everything is written;
 * what was written of an append that fails is cut off again, durably: a power cut must not bring back what was refused.
 * No byte of a segment is written before those before it are durable: of two that no sync has covered, a power cut could
 * leave the later one, and its start would look like damage. The common case runs without waiting: writing a few
 * hundred KiB into the page cache takes a fifth of what handing it to a thread takes.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { LogError, toLogError } from '../../core/errors.js';
import type { Offset } from '../../core/types.js';
import { endOfBatches, wrongOffset } from '../batches.js';
import { EpochRecorder } from './epoch-recorder.js';
import type { Lease, Unpin } from './file-cache.js';
import { isOutOfSpace, isUntriedSync, syncing, toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import { openMode, type Placement, plan, releaseAll, withoutFirst, writeGroups } from './placements.js';
import { MAX_BATCH_BYTES, Segment, SegmentIndexes } from './segment.js';
import type { LogTail } from './tail-cache.js';

/** Larger appends let the event loop turn between their writes. */
const MAX_BYTES_WITHOUT_YIELD: number = 1024 * 1024;
/** Appends wait when this many closed segments have not been put in order yet; each holds its indexes in memory. */
const MAX_UNFINISHED_SEGMENTS = 8;

/** What the appender asks of the log around it. */
export interface AppendHooks {
  /** Makes what was appended durable. Throws as `PartitionLog.flush`. */
  readonly flush: () => Promise<void>;
  /** Runs a sync while no other of the log is under way. */
  readonly alone: (sync: () => Promise<void>) => Promise<void>;
  /** A segment was closed because a new one began. */
  readonly closed: (segment: Segment) => void;
  /** Resolves when there are fewer unfinished segments. */
  readonly finished: () => Promise<void>;
}

export class Appender {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #tail: LogTail;
  readonly #hooks: AppendHooks;
  readonly #epochs: EpochRecorder;
  /** Appends that must wait, and those behind them; bounded by the callers. */
  #queue: Promise<unknown> | undefined;

  constructor(context: EngineContext, state: LogState, tail: LogTail, hooks: AppendHooks) {
    this.#context = context;
    this.#state = state;
    this.#tail = tail;
    this.#hooks = hooks;
    this.#epochs = new EpochRecorder(context, state);
  }

  /**
   * Appends in call order.
   * @param mayWrite called right before anything is written; throws if the caller may not write any more
   */
  append(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Promise<Offset> {
    if (this.#queue || this.#mustWait(batches)) return this.#enqueue(() => this.#appendSlowly(batches, at, mayWrite));
    return this.#appendNow(batches, at, mayWrite);
  }

  /** Ends the active segment, unless it is empty, after the appends called before. */
  async roll(): Promise<void> {
    await this.#enqueue(async () => {
      const { directory, endOffset, active } = this.#state;
      while (this.#state.unfinishedCount >= MAX_UNFINISHED_SEGMENTS) await this.#hooks.finished();
      if (active.contents.sizeInBytes > 0) {
        this.#startSegment(new Segment(directory, endOffset, this.#context.clock.now(), false));
      }
      return endOffset;
    });
  }

  /** Resolves when no append waits any more. */
  async idle(): Promise<void> {
    while (this.#queue) await this.#queue;
  }

  #enqueue(work: () => Promise<Offset>): Promise<Offset> {
    const result = (this.#queue ?? Promise.resolve()).then(work);
    const settled: Promise<void> = result.then(
      () => this.#leave(settled),
      () => this.#leave(settled),
    );
    this.#queue = settled;
    return result;
  }

  #leave(settled: Promise<void>): void {
    if (this.#queue === settled) this.#queue = undefined;
  }

  #mustWait(batches: readonly Buffer[]): boolean {
    if (!this.#state.active.indexes || this.#state.unfinishedCount >= MAX_UNFINISHED_SEGMENTS) return true;
    if (!this.#epochs.areRecorded(batches)) return true;
    return byteLengthOf(batches) > MAX_BYTES_WITHOUT_YIELD;
  }

  /** Asynchronous in its results only: everything happens before it returns, unless it must wait for the disk. */
  async #appendNow(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Promise<Offset> {
    const end = this.#check(batches, at, mayWrite);
    const placements = this.#plan(batches);
    const slowly = (): Promise<Offset> => this.#enqueue(() => this.#appendSlowly(batches, at, mayWrite));
    if (placements.length > 1 || this.#beginsBehindUnsynced(placements)) return slowly();
    this.#takeRoom(batches);
    if (!this.#tryOpen(placements)) return slowly();
    try {
      for (const placement of placements) for (const _ of this.#writes(placement));
    } catch (error) {
      throw await this.#undo(placements, error);
    }
    this.#commit(placements, end);
    return end;
  }

  async #appendSlowly(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Promise<Offset> {
    const { active } = this.#state;
    if (!active.indexes) await this.#loadActiveIndexes(active);
    while (this.#state.unfinishedCount >= MAX_UNFINISHED_SEGMENTS) await this.#hooks.finished();
    this.#check(batches, at, mayWrite);
    const placements = this.#plan(batches);
    if (this.#beginsBehindUnsynced(placements)) await this.#flushFirst();
    if (!this.#epochs.areRecorded(batches)) await this.#epochs.record(batches);
    this.#takeRoom(batches);
    await this.#open(placements);
    const end = this.#checkOpened(placements, batches, at, mayWrite);
    try {
      await this.#writeInOrder(placements);
      // A flush may have failed meanwhile, and a failed log acknowledges nothing.
      if (this.#state.failure) throw this.#state.failure;
    } catch (error) {
      throw await this.#undo(placements, error);
    }
    this.#commit(placements, end);
    return end;
  }

  /** As `#check`, after a wait for file handles. */
  #checkOpened(placements: readonly Placement[], batches: readonly Buffer[], at: Offset, mayWrite: () => void): Offset {
    try {
      return this.#check(batches, at, mayWrite);
    } catch (error) {
      releaseAll(placements);
      throw error;
    }
  }

  /** @throws LogError RESOURCE_LIMIT, or what has poisoned the log: the append has not begun */
  async #flushFirst(): Promise<void> {
    try {
      await this.#hooks.flush();
    } catch (error) {
      const { reason, message } = toLogError(error);
      throw this.#state.failure ?? new LogError(reason, message, { cause: error, outcome: 'none' });
    }
  }

  #plan(batches: readonly Buffer[]): Placement[] {
    return plan(batches, this.#state, this.#context.clock.now());
  }

  /** Whether an append begins a segment while the one before it is not durable. */
  #beginsBehindUnsynced([first]: readonly Placement[]): boolean {
    return first?.isNew === true && this.#state.durableOffset < this.#state.endOffset;
  }

  async #writeInOrder(placements: readonly Placement[]): Promise<void> {
    for (const [i, placement] of placements.entries()) {
      for (const _ of this.#writes(placement)) await nextTurn();
      if (i + 1 < placements.length) await this.#sync(placement);
    }
  }

  /**
   * Makes a file durable that is not part of the log yet, and its entry: whether an earlier append has left that to the
   * flusher, and how far the flusher has got, does not matter then.
   * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT
   */
  async #sync(placement: Placement): Promise<void> {
    const { fs, files } = this.#context;
    const { directory } = placement.segment;
    await this.#syncData(placement);
    await syncing(directory, () => files.withHandle(() => fs.syncDirectory(directory)));
  }

  async #syncData({ segment, lease }: Placement): Promise<void> {
    const { fs } = this.#context;
    await syncing(segment.path, () => this.#hooks.alone(() => fs.fdatasync(lease!.fd)));
  }

  async #loadActiveIndexes(active: Segment): Promise<void> {
    const indexes = await this.#context.indexes.get(active, this.#state.config.indexIntervalBytes);
    active.indexes = indexes;
    active.checksums = undefined;
    this.#context.indexes.forget(active);
  }

  /** @throws LogError if the append may not or cannot be carried out; nothing has happened then */
  #check(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Offset {
    const state = this.#state;
    mayWrite();
    if (state.failure) throw state.failure;
    if (at !== state.endOffset) throw wrongOffset(at, state.endOffset);
    for (const batch of batches) {
      if (batch.length <= MAX_BATCH_BYTES) continue;
      throw new LogError('MESSAGE_TOO_LARGE', `A batch of ${batch.length} bytes is larger than ${MAX_BATCH_BYTES}.`);
    }
    return endOfBatches(batches, at);
  }

  /** @throws LogError STORAGE_FULL: nothing has happened */
  #takeRoom(batches: readonly Buffer[]): void {
    this.#context.reserve.take(byteLengthOf(batches));
  }

  #tryOpen(placements: readonly Placement[]): boolean {
    try {
      for (const placement of placements) {
        placement.lease = this.#context.files.tryAcquire(placement.segment.path, openMode(placement));
        if (placement.lease) continue;
        releaseAll(placements);
        return false;
      }
      return true;
    } catch (error) {
      releaseAll(placements);
      throw error;
    }
  }

  /** All handles or none: whoever held some while it waits for others could wait for ever. */
  async #open(placements: readonly Placement[]): Promise<void> {
    const { files } = this.#context;
    if (placements.length > files.maxOpen) {
      throw new LogError(
        'RESOURCE_LIMIT',
        `The append would need ${placements.length} file handles, of ${files.maxOpen}.`,
      );
    }
    while (!this.#tryOpen(placements)) await files.room();
  }

  /** Writes the batches of a placement, a call for each step. A short count is followed by a call for the rest. */
  *#writes(placement: Placement): Generator<void, void, void> {
    const { fs } = this.#context;
    const { lease, segment } = placement;
    let position = placement.position;
    for (const group of writeGroups(placement.batches)) {
      let rest = group;
      while (rest.length > 0) {
        const count = fs.writevSync(lease!.fd, rest, position);
        if (count <= 0)
          throw new LogError('STORAGE_ERROR', `A write to ${segment.path} at byte ${position} took nothing.`);
        position += count;
        placement.writtenBytes += count;
        rest = withoutFirst(rest, count);
      }
      yield;
    }
  }

  /**
   * Cuts off what a failed append has written, and says what its caller gets. The log goes on only if the disk was
   * merely full, or no handle free, and the cutting succeeded.
   */
  async #undo(placements: readonly Placement[], cause: unknown): Promise<Error> {
    const path = placements[0]!.segment.path;
    const failure = toStorageError('append to', path, cause);
    // Before anything is waited for: nobody may append or sync meanwhile.
    const fatal = isOutOfSpace(cause) || isUntriedSync(cause) ? undefined : this.#poison(failure);
    try {
      // The last first: should one fail, what is left is the beginning of the append, without a gap.
      for (const placement of placements.toReversed()) {
        if (!placement.lease) continue;
        this.#context.fs.ftruncateSync(placement.lease.fd, placement.position);
        if (placement.writtenBytes > 0) await this.#syncData(placement);
      }
      return fatal ?? failure;
    } catch (error) {
      return fatal ?? this.#poison(toStorageError('cut off a failed append from', path, error));
    } finally {
      releaseAll(placements);
    }
  }

  #poison(failure: LogError): Error {
    const state = this.#state;
    if (state.failure) return state.failure;
    const { reason } = failure;
    const fatal =
      reason === 'STORAGE_ERROR' ? failure : new LogError('STORAGE_ERROR', failure.message, { cause: failure });
    state.failure = fatal;
    this.#context.logger.error({ directory: state.directory, err: fatal }, 'a log takes no more appends');
    return fatal;
  }

  /** Makes written batches part of the log. */
  #commit(placements: readonly Placement[], end: Offset): void {
    const state = this.#state;
    const now = this.#context.clock.now();
    for (const placement of placements) {
      const { segment } = placement;
      if (placement.isNew) {
        this.#startSegment(segment);
        segment.exists = true;
        segment.createdMs = now;
        state.entriesDirty = true;
      }
      segment.modifiedMs = now;
      segment.indexes ??= new SegmentIndexes();
      for (const batch of placement.batches) {
        segment.contents.add(batch, 0, segment.indexes, state.config.indexIntervalBytes);
        this.#tail.push(batch);
      }
      this.#markDirty(segment, placement.lease!);
    }
    state.endOffset = end;
  }

  #startSegment(segment: Segment): void {
    const state = this.#state;
    const previous = state.active;
    if (previous === segment) return;
    // A segment that never got a batch leaves no file behind, so its successor takes its place.
    if (!previous.exists) {
      state.segments[state.segments.length - 1] = segment;
      return;
    }
    state.segments.push(segment);
    state.unfinishedCount++;
    this.#hooks.closed(previous);
  }

  #markDirty(segment: Segment, lease: Lease): void {
    this.#state.dirty.add(segment);
    if (segment.pin) {
      lease.release();
      return;
    }
    segment.pin = lease;
    const unpin: Unpin = () =>
      this.#hooks.flush().then(
        () => true,
        () => false,
      );
    this.#context.files.pin(segment.path, unpin);
  }
}

function byteLengthOf(batches: readonly Buffer[]): number {
  let byteLength = 0;
  for (const batch of batches) byteLength += batch.length;
  return byteLength;
}
