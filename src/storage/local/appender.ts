/**
 * Appending to one log: where each batch goes, when a segment is closed, and what happens when the disk refuses.
 *
 * An append is planned, then written, then committed. Nothing that readers see changes before everything is written;
 * what was written of an append that fails is cut off again. The common case runs without waiting: writing a few
 * hundred KiB into the page cache takes a fifth of what handing it to a thread takes.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { maxTimestampOf, NO_TIMESTAMP, nextOffsetOf } from '../../batch/layout.js';
import { LogError } from '../../core/errors.js';
import type { Offset } from '../../core/types.js';
import { endOfBatches, wrongOffset } from '../batches.js';
import type { LogConfig } from '../engine.js';
import { EpochRecorder } from './epoch-recorder.js';
import type { Lease } from './file-cache.js';
import { isOutOfSpace, toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import { MAX_BATCH_BYTES, MAX_RELATIVE_OFFSET, MAX_SEGMENT_BYTES, Segment, SegmentIndexes } from './segment.js';
import type { LogTail } from './tail-cache.js';

/** One synchronous call writes at most this much: 0.1 ms into the page cache. */
const MAX_WRITE_BYTES = 256 * 1024;
const MAX_WRITE_BUFFERS = 512;
/** Larger appends let the event loop turn between their writes. */
const MAX_BYTES_WITHOUT_YIELD: number = 1024 * 1024;
/** Appends wait when this many closed segments have not been put in order yet; each holds its indexes in memory. */
const MAX_UNFINISHED_SEGMENTS = 8;

/** What the appender asks of the log around it. */
export interface AppendHooks {
  /** Makes what was appended durable, so that handles become free. Never rejects. */
  readonly unpin: () => Promise<void>;
  /** A segment was closed because a new one began. */
  readonly closed: (segment: Segment) => void;
  /** Resolves when there are fewer unfinished segments. */
  readonly finished: () => Promise<void>;
}

/** Batches that go to the end of one segment. */
interface Placement {
  readonly segment: Segment;
  readonly isNew: boolean;
  /** Where the first batch goes. */
  readonly position: number;
  readonly batches: Buffer[];
  byteLength: number;
  firstTimestamp: number;
  lease: Lease | undefined;
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

  /** Asynchronous in its results only: everything happens before it returns, unless no file handle is free. */
  async #appendNow(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Promise<Offset> {
    const end = this.#check(batches, at, mayWrite);
    this.#takeRoom(batches);
    const placements = this.#plan(batches);
    if (!this.#tryOpen(placements)) return this.#enqueue(() => this.#appendSlowly(batches, at, mayWrite));
    this.#guardWrites(placements, () => {
      for (const placement of placements) for (const _ of this.#writes(placement));
    });
    this.#commit(placements, end);
    return end;
  }

  async #appendSlowly(batches: readonly Buffer[], at: Offset, mayWrite: () => void): Promise<Offset> {
    const { active } = this.#state;
    if (!active.indexes) await this.#loadActiveIndexes(active);
    while (this.#state.unfinishedCount >= MAX_UNFINISHED_SEGMENTS) await this.#hooks.finished();
    let end = this.#check(batches, at, mayWrite);
    if (!this.#epochs.areRecorded(batches)) {
      await this.#epochs.record(batches);
      end = this.#check(batches, at, mayWrite);
    }
    this.#takeRoom(batches);
    const placements = this.#plan(batches);
    await this.#open(placements);
    try {
      for (const placement of placements) {
        for (const _ of this.#writes(placement)) await nextTurn();
      }
    } catch (error) {
      throw this.#undo(placements, error);
    }
    this.#commit(placements, end);
    return end;
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

  /** Distributes the batches over the active segment and, where it must be closed, new ones. */
  #plan(batches: readonly Buffer[]): Placement[] {
    const { active, config, directory } = this.#state;
    const placements: Placement[] = [];
    let current = placementAt(active, false);
    for (const batch of batches) {
      if (mustRoll(current, batch, config, this.#context.clock.now())) {
        const next = new Segment(directory, nextBase(current, this.#state.endOffset), this.#context.clock.now(), false);
        current = placementAt(next, true);
      }
      if (current.batches.length === 0) placements.push(current);
      if (current.position + current.byteLength === 0) current.firstTimestamp = maxTimestampOf(batch, 0);
      current.batches.push(batch);
      current.byteLength += batch.length;
    }
    return placements;
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

  #guardWrites(placements: readonly Placement[], write: () => void): void {
    try {
      write();
    } catch (error) {
      throw this.#undo(placements, error);
    }
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
        rest = withoutFirst(rest, count);
      }
      yield;
    }
  }

  /**
   * Cuts off what a failed append has written, and says what its caller gets. The log goes on only if the disk was
   * merely full and the cutting succeeded.
   */
  #undo(placements: readonly Placement[], cause: unknown): LogError {
    const path = placements[0]!.segment.path;
    try {
      // The last first: should one fail, what is left is the beginning of the append, without a gap.
      for (const placement of placements.toReversed()) {
        if (placement.lease) this.#context.fs.ftruncateSync(placement.lease.fd, placement.position);
      }
    } catch (error) {
      releaseAll(placements);
      return this.#poison(toStorageError('cut off a failed append from', path, error));
    }
    releaseAll(placements);
    const failure = toStorageError('append to', path, cause);
    if (isOutOfSpace(cause)) return failure;
    return this.#poison(failure);
  }

  #poison(failure: LogError): LogError {
    const { reason } = failure;
    const fatal =
      reason === 'STORAGE_ERROR' ? failure : new LogError('STORAGE_ERROR', failure.message, { cause: failure });
    this.#state.failure = fatal;
    this.#context.logger.error({ directory: this.#state.directory, err: fatal }, 'a log takes no more appends');
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
    this.#context.files.pin(segment.path, this.#hooks.unpin);
  }
}

function placementAt(segment: Segment, isNew: boolean): Placement {
  const { sizeInBytes, firstTimestamp } = segment.contents;
  return {
    segment,
    isNew: isNew || !segment.exists,
    position: sizeInBytes,
    batches: [],
    byteLength: 0,
    firstTimestamp,
    lease: undefined,
  };
}

function byteLengthOf(batches: readonly Buffer[]): number {
  let byteLength = 0;
  for (const batch of batches) byteLength += batch.length;
  return byteLength;
}

function nextBase(placement: Placement, endOffset: Offset): number {
  const last = placement.batches[placement.batches.length - 1];
  return last ? nextOffsetOf(last, 0) : endOffset;
}

/** Kafka's conditions: by size, by time, by full index, by relative offset. An empty segment takes anything. */
function mustRoll(placement: Placement, batch: Buffer, config: LogConfig, nowMs: number): boolean {
  const { segment } = placement;
  const size = placement.position + placement.byteLength;
  if (size === 0) return false;
  if (size > Math.min(config.segmentBytes, MAX_SEGMENT_BYTES) - batch.length) return true;
  if (nextOffsetOf(batch, 0) - 1 - segment.baseOffset > MAX_RELATIVE_OFFSET) return true;
  if (segment.indexes && (segment.indexes.offsets.isFull || segment.indexes.times.isFull)) return true;
  const since = placement.firstTimestamp === NO_TIMESTAMP ? segment.createdMs : placement.firstTimestamp;
  const now = placement.firstTimestamp === NO_TIMESTAMP ? nowMs : maxTimestampOf(batch, 0);
  return now - since > config.segmentMs;
}

function openMode(placement: Placement): 'update' | 'create' {
  return placement.isNew ? 'create' : 'update';
}

function releaseAll(placements: readonly Placement[]): void {
  for (const placement of placements) {
    placement.lease?.release();
    placement.lease = undefined;
  }
}

/** The buffers in groups of which each fits one call; a batch larger than that is divided. */
function* writeGroups(batches: readonly Buffer[]): Generator<Buffer[], void, void> {
  let group: Buffer[] = [];
  let byteLength = 0;
  for (const batch of batches) {
    for (let from = 0; from < batch.length; from += MAX_WRITE_BYTES) {
      const piece = batch.length <= MAX_WRITE_BYTES ? batch : batch.subarray(from, from + MAX_WRITE_BYTES);
      if (group.length === MAX_WRITE_BUFFERS || byteLength + piece.length > MAX_WRITE_BYTES) {
        yield group;
        group = [];
        byteLength = 0;
      }
      group.push(piece);
      byteLength += piece.length;
    }
  }
  if (group.length > 0) yield group;
}

/** The buffers without their first `count` bytes. */
function withoutFirst(buffers: Buffer[], count: number): Buffer[] {
  let skipped = 0;
  for (let i = 0; i < buffers.length; i++) {
    const buffer = buffers[i]!;
    if (skipped + buffer.length > count) return [buffer.subarray(count - skipped), ...buffers.slice(i + 1)];
    skipped += buffer.length;
  }
  return [];
}
