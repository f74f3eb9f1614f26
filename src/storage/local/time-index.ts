/**
 * The time index of one segment (`.timeindex`): how far the timestamps had risen at which offset. Kafka's format:
 *
 *     file  = entry*               strictly ascending in both fields
 *     entry = timestamp      i64   largest timestamp in the segment so far, ms
 *             relativeOffset i32   last offset of the batch that holds it - base offset of the segment
 *
 * No batch at or before an entry's offset has a larger timestamp; what comes after may have any. An entry is added
 * together with one of the offset index if the maximum has risen, and a last one when the segment is closed.
 */

import { NO_TIMESTAMP } from '../../batch/layout.js';
import { partitionPoint } from '../../core/binary-search.js';

/** Bytes of one entry on disk. */
export const TIME_INDEX_ENTRY_BYTES = 12;
/** Entries at which the index is full: 10 MiB, less one place kept for the entry that closing adds. */
export const MAX_TIME_INDEX_ENTRIES: number = Math.floor((10 * 1024 * 1024) / TIME_INDEX_ENTRY_BYTES) - 1;

/** A point of the rise: `timestamp` was first reached by the batch that ends at `relativeOffset`. */
export interface TimeIndexEntry {
  readonly timestamp: number;
  readonly relativeOffset: number;
}

const FIRST_CAPACITY = 32;

export class TimeIndex {
  #timestamps: Float64Array<ArrayBuffer> = new Float64Array(0);
  #relativeOffsets: Uint32Array<ArrayBuffer> = new Uint32Array(0);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Memory that the entries take. */
  get byteLength(): number {
    return this.#timestamps.byteLength + this.#relativeOffsets.byteLength;
  }

  get isFull(): boolean {
    return this.#count >= MAX_TIME_INDEX_ENTRIES;
  }

  /** Adds an entry unless the maximum has not risen since the last one. */
  add(timestamp: number, relativeOffset: number): void {
    const last = this.#count === 0 ? NO_TIMESTAMP : this.#timestamps[this.#count - 1]!;
    if (timestamp <= last) return;
    if (this.#count === this.#timestamps.length) this.#reserve(Math.max(FIRST_CAPACITY, this.#count * 2));
    this.#timestamps[this.#count] = timestamp;
    this.#relativeOffsets[this.#count] = relativeOffset;
    this.#count++;
  }

  /** The first entry whose timestamp is at least `timestamp`: nothing before the entry before it reaches `timestamp`. */
  ceiling(timestamp: number): TimeIndexEntry | undefined {
    return this.#at(partitionPoint(this.#count, (entry) => this.#timestamps[entry]! < timestamp));
  }

  /** The last entry below `relativeOffset`: no batch at or before its own has a larger timestamp. */
  lastBelow(relativeOffset: number): TimeIndexEntry | undefined {
    return this.#at(partitionPoint(this.#count, (entry) => this.#relativeOffsets[entry]! < relativeOffset) - 1);
  }

  #at(entry: number): TimeIndexEntry | undefined {
    if (entry < 0 || entry >= this.#count) return undefined;
    return { timestamp: this.#timestamps[entry]!, relativeOffset: this.#relativeOffsets[entry]! };
  }

  encode(): Buffer {
    const bytes = Buffer.allocUnsafe(this.#count * TIME_INDEX_ENTRY_BYTES);
    for (let i = 0; i < this.#count; i++) {
      const at = i * TIME_INDEX_ENTRY_BYTES;
      bytes.writeBigInt64BE(BigInt(this.#timestamps[i]!), at);
      bytes.writeUInt32BE(this.#relativeOffsets[i]!, at + 8);
    }
    return bytes;
  }

  /** Reads what `encode` wrote, or undefined when the entries are cut, not in order, or of times that there are not. */
  static decode(bytes: Buffer): TimeIndex | undefined {
    if (bytes.length % TIME_INDEX_ENTRY_BYTES !== 0) return undefined;
    const index = new TimeIndex();
    index.#reserve(bytes.length / TIME_INDEX_ENTRY_BYTES);
    let previousTimestamp = NO_TIMESTAMP;
    let previousOffset = -1;
    for (let at = 0; at < bytes.length; at += TIME_INDEX_ENTRY_BYTES) {
      const timestamp = Number(bytes.readBigInt64BE(at));
      const relativeOffset = bytes.readInt32BE(at + 8);
      if (!Number.isSafeInteger(timestamp)) return undefined;
      if (timestamp <= previousTimestamp || relativeOffset <= previousOffset) return undefined;
      index.add(timestamp, relativeOffset);
      previousTimestamp = timestamp;
      previousOffset = relativeOffset;
    }
    return index;
  }

  #reserve(capacity: number): void {
    const timestamps = new Float64Array(capacity);
    const relativeOffsets = new Uint32Array(capacity);
    timestamps.set(this.#timestamps.subarray(0, this.#count));
    relativeOffsets.set(this.#relativeOffsets.subarray(0, this.#count));
    this.#timestamps = timestamps;
    this.#relativeOffsets = relativeOffsets;
  }
}
