/** One partition's log in memory: the reference for what a log does, without files. */
import { baseOffsetOf, maxTimestampOf, nextOffsetOf } from '../../batch/layout.js';
import { checkBatch } from '../../batch/validate.js';
import { LogError } from '../../core/errors.js';
import { type Epoch, type Offset, type TopicPartition, toOffset } from '../../core/types.js';
import { closedError, endOfBatches, fencedEpoch, outOfRange, wrongOffset } from '../batches.js';
import type { LogSlice, LogStats, PartitionLog } from '../engine.js';

/** What the handles of all epochs share. */
export class MemoryLogState {
  /** Batches in offset order; the first may lie below `startOffset` in part. */
  batches: Buffer[] = [];
  startOffset: Offset = toOffset(0);
  endOffset: Offset = toOffset(0);
  durableOffset: Offset = toOffset(0);
  sizeInBytes = 0;
  currentEpoch: Epoch;

  constructor(epoch: Epoch) {
    this.currentEpoch = epoch;
  }

  /** Index of the batch that contains `offset`, or of the first after it. */
  indexOf(offset: number): number {
    let low = 0;
    let high = this.batches.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (nextOffsetOf(this.batches[middle]!, 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export class MemoryLog implements PartitionLog {
  readonly id: TopicPartition;
  readonly epoch: Epoch;
  readonly failure: Error | undefined = undefined;
  readonly #state: MemoryLogState;
  #closed = false;

  constructor(id: TopicPartition, epoch: Epoch, state: MemoryLogState) {
    this.id = id;
    this.epoch = epoch;
    this.#state = state;
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

  get isClosed(): boolean {
    return this.#closed;
  }

  async append(batches: readonly Buffer[], at: Offset): Promise<Offset> {
    this.#checkWritable();
    const state = this.#state;
    if (at !== state.endOffset) throw wrongOffset(at, state.endOffset);
    const end = endOfBatches(batches, at);
    for (const batch of batches) {
      state.batches.push(batch);
      state.sizeInBytes += batch.length;
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
      if (maxTimestampOf(batch, 0) >= timestampMs) return toOffset(Math.max(baseOffsetOf(batch, 0), startOffset));
    }
    return undefined;
  }

  async trim(before: Offset): Promise<void> {
    this.#checkWritable();
    const state = this.#state;
    if (before <= state.startOffset) return;
    if (before > state.endOffset) throw outOfRange(before, state.startOffset, state.endOffset);
    await this.flush(before);
    state.startOffset = before;
    for (const batch of state.batches.splice(0, state.indexOf(before))) state.sizeInBytes -= batch.length;
  }

  stats(): LogStats {
    return { segmentCount: 1, sizeInBytes: this.#state.sizeInBytes };
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

  #checkOpen(): void {
    if (this.#closed) throw closedError('log');
  }

  #checkWritable(): void {
    this.#checkOpen();
    if (this.#state.currentEpoch !== this.epoch) throw fencedEpoch(this.epoch, this.#state.currentEpoch);
  }
}

function corruptInMemory(batch: Buffer, why: string): LogError {
  const offset = baseOffsetOf(batch, 0);
  return new LogError('CORRUPT_LOG', `The batch at offset ${offset} changed in memory: ${why}.`, {
    metadata: { offset, next_valid_offset: nextOffsetOf(batch, 0) },
  });
}
