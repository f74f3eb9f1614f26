/** One partition's log in memory: the reference for what a log does, without files. */

import { baseOffsetOf, isTracked, NO_TIMESTAMP, newestRecordTimeOf, nextOffsetOf } from '../../batch/layout.js';
import { checkBatch } from '../../batch/validate.js';
import { partitionPoint } from '../../core/binary-search.js';
import type { Clock } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import { type Epoch, type Offset, type TopicPartition, toOffset } from '../../core/types.js';
import {
  closedError,
  compactedAlready,
  endOfBatches,
  fencedEpoch,
  outOfRange,
  statsOf,
  wrongOffset,
} from '../batches.js';
import type {
  CompactOptions,
  CompactResult,
  LogConfig,
  LogSlice,
  LogStats,
  PartitionLog,
  SegmentInfo,
  SideFiles,
} from '../engine.js';
import { compactInMemory } from './compaction.js';
import { MemorySideFiles } from './side-files.js';

/** A run of batches that retention takes whole. */
export interface MemorySegment {
  readonly baseOffset: number;
  createdMs: number;
  modifiedMs: number;
  sizeInBytes: number;
}

/** What the handles of all epochs share. */
export class MemoryLogState {
  readonly clock: Clock;
  config: LogConfig;
  /** Batches in offset order; the first may lie below `startOffset` in part. */
  batches: Buffer[] = [];
  /** Ascending, never empty; the last one takes the appends. */
  segments: MemorySegment[];
  startOffset: Offset = toOffset(0);
  endOffset: Offset = toOffset(0);
  durableOffset: Offset = toOffset(0);
  cleanedOffset: Offset = toOffset(0);
  sizeInBytes = 0;
  currentEpoch: Epoch;
  readonly sideFiles: MemorySideFiles = new MemorySideFiles();

  constructor(epoch: Epoch, config: LogConfig, clock: Clock) {
    this.currentEpoch = epoch;
    this.config = config;
    this.clock = clock;
    this.segments = [this.newSegment(0)];
  }

  get active(): MemorySegment {
    return this.segments[this.segments.length - 1]!;
  }

  newSegment(baseOffset: number): MemorySegment {
    const now = this.clock.now();
    return { baseOffset, createdMs: now, modifiedMs: now, sizeInBytes: 0 };
  }

  /** Begins a new segment, unless the last one is empty. */
  roll(at: number): void {
    if (this.active.sizeInBytes > 0) this.segments.push(this.newSegment(at));
  }

  /** Index of the batch that contains `offset`, or of the first after it. */
  indexOf(offset: number): number {
    return indexOfBatch(this.batches, offset);
  }
}

/** Index of the batch that contains `offset`, or of the first after it. */
export function indexOfBatch(batches: readonly Buffer[], offset: number): number {
  return partitionPoint(batches.length, (at) => nextOffsetOf(batches[at]!, 0) <= offset);
}

export class MemoryLog implements PartitionLog {
  readonly id: TopicPartition;
  readonly epoch: Epoch;
  readonly failure: Error | undefined = undefined;
  readonly sideFiles: SideFiles;
  readonly #state: MemoryLogState;
  #closed = false;
  #compacting = false;

  constructor(id: TopicPartition, epoch: Epoch, state: MemoryLogState) {
    this.id = id;
    this.epoch = epoch;
    this.#state = state;
    this.sideFiles = this.#guarded(state.sideFiles);
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
    const { cleanedOffset, startOffset } = this.#state;
    return toOffset(Math.max(cleanedOffset, startOffset));
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  async append(batches: readonly Buffer[], at: Offset): Promise<Offset> {
    this.#checkWritable();
    const state = this.#state;
    if (at !== state.endOffset) throw wrongOffset(at, state.endOffset);
    const end = endOfBatches(batches, at);
    const now = state.clock.now();
    for (const batch of batches) {
      if (state.active.sizeInBytes + batch.length > state.config.segmentBytes) state.roll(baseOffsetOf(batch, 0));
      state.batches.push(batch);
      state.sizeInBytes += batch.length;
      if (state.active.sizeInBytes === 0) state.active.createdMs = now;
      state.active.sizeInBytes += batch.length;
      state.active.modifiedMs = now;
    }
    state.endOffset = end;
    return end;
  }

  async flush(upTo: Offset): Promise<void> {
    this.#checkOpen();
    const state = this.#state;
    if (upTo > state.endOffset) throw outOfRange(upTo, state.startOffset, state.endOffset);
    // A file engine makes everything appended durable at once, so this one does too.
    if (upTo > state.durableOffset) state.durableOffset = state.endOffset;
  }

  async read(from: Offset, to: Offset, maxBytes: number): Promise<LogSlice> {
    this.#checkOpen();
    const state = this.#state;
    if (from < state.startOffset || from > state.endOffset) throw outOfRange(from, state.startOffset, state.endOffset);
    const chunks: Buffer[] = [];
    let byteLength = 0;
    let nextOffset = from;
    for (let i = state.indexOf(from); i < state.batches.length; i++) {
      const batch = state.batches[i]!;
      const next = nextOffsetOf(batch, 0);
      if (next > to || (chunks.length > 0 && byteLength + batch.length > maxBytes)) break;
      // The buffers are shared with whoever appended and read them before: memory is checked like a file.
      const broken = checkBatch(batch, 0, batch.length);
      if (broken !== undefined) {
        if (chunks.length > 0) break;
        throw corruptInMemory(batch, broken);
      }
      chunks.push(batch);
      byteLength += batch.length;
      nextOffset = toOffset(next);
    }
    return { chunks, byteLength, nextOffset };
  }

  async batchForTime(timestampMs: number): Promise<Offset | undefined> {
    this.#checkOpen();
    const { batches, startOffset } = this.#state;
    for (const batch of batches) {
      if (nextOffsetOf(batch, 0) <= startOffset || newestRecordTimeOf(batch, 0) < timestampMs) continue;
      return toOffset(Math.max(baseOffsetOf(batch, 0), startOffset));
    }
    return undefined;
  }

  async batchForMaxTimestamp(to: Offset): Promise<Offset | undefined> {
    this.#checkOpen();
    let newest: number = NO_TIMESTAMP;
    let found: number | undefined;
    const { batches, startOffset } = this.#state;
    for (const batch of batches) {
      const next = nextOffsetOf(batch, 0);
      const timestampMs = newestRecordTimeOf(batch, 0);
      if (next <= startOffset || next > to || timestampMs <= newest) continue;
      newest = timestampMs;
      found = baseOffsetOf(batch, 0);
    }
    return found === undefined ? undefined : toOffset(Math.max(found, startOffset));
  }

  async trim(before: Offset): Promise<void> {
    this.#checkWritable();
    const state = this.#state;
    if (before < state.startOffset) return;
    if (before > state.endOffset) throw outOfRange(before, state.startOffset, state.endOffset);
    await this.flush(before);
    state.startOffset = before;
    while (state.segments.length > 1 && state.segments[1]!.baseOffset <= before) state.segments.shift();
    for (const batch of state.batches.splice(0, state.indexOf(state.segments[0]!.baseOffset))) {
      state.sizeInBytes -= batch.length;
    }
  }

  async roll(): Promise<void> {
    this.#checkWritable();
    this.#state.roll(this.#state.endOffset);
  }

  async compact(options: CompactOptions): Promise<CompactResult> {
    this.#checkWritable();
    if (this.#compacting) throw compactedAlready(`${this.id.topicId}-${this.id.partition}`);
    this.#compacting = true;
    try {
      return await compactInMemory(this.#state, options, {
        writable: () => this.#checkWritable(),
        intact: checkIntact,
      });
    } finally {
      this.#compacting = false;
    }
  }

  configure(config: LogConfig): void {
    this.#state.config = config;
  }

  segments(): readonly SegmentInfo[] {
    const { segments, endOffset, batches } = this.#state;
    return segments.map((segment, i) => {
      const baseOffset = toOffset(segment.baseOffset);
      const nextOffset = toOffset(segments[i + 1]?.baseOffset ?? endOffset);
      const own = batches.slice(this.#state.indexOf(baseOffset), this.#state.indexOf(nextOffset));
      const timestamps = own.map((batch) => newestRecordTimeOf(batch, 0));
      const { sizeInBytes, createdMs, modifiedMs } = segment;
      const hasProducers = own.some((batch) => isTracked(batch, 0));
      const firstTimestamp = timestamps[0] ?? NO_TIMESTAMP;
      const maxTimestamp = timestamps.reduce((max, timestamp) => Math.max(max, timestamp), NO_TIMESTAMP);
      const times = { firstTimestamp, maxTimestamp, createdMs, modifiedMs };
      return { baseOffset, nextOffset, sizeInBytes, ...times, hasProducers };
    });
  }

  stats(): LogStats {
    return statsOf(this.segments());
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // A fenced log has nothing more to say about the newer one's.
    if (this.#state.currentEpoch !== this.epoch) return;
    this.#state.durableOffset = this.#state.endOffset;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #guarded(files: MemorySideFiles): SideFiles {
    return {
      offsets: (kind) => files.offsets(kind),
      read: async (kind, offset) => {
        this.#checkOpen();
        return files.read(kind, offset);
      },
      write: async (kind, offset, contents) => {
        this.#checkWritable();
        files.write(kind, offset, contents);
      },
      remove: async (kind, offset) => {
        this.#checkWritable();
        files.remove(kind, offset);
      },
    };
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError('log');
  }

  #checkWritable(): void {
    this.#checkOpen();
    if (this.#state.currentEpoch !== this.epoch) throw fencedEpoch(this.epoch, this.#state.currentEpoch);
  }
}

function checkIntact(batch: Buffer): void {
  const broken = checkBatch(batch, 0, batch.length);
  if (broken !== undefined) throw corruptInMemory(batch, broken);
}

function corruptInMemory(batch: Buffer, why: string): LogError {
  const offset = baseOffsetOf(batch, 0);
  return new LogError('CORRUPT_LOG', `The batch at offset ${offset} changed in memory: ${why}.`, {
    metadata: { offset, next_valid_offset: nextOffsetOf(batch, 0) },
  });
}
