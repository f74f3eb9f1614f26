/**
 * The batches appended last, of all partitions of an engine, so that readers at the tail touch no file. Bounded in
 * bytes; what was appended first goes first, whatever partition it belongs to.
 */
import { baseOffsetOf, nextOffsetOf } from '../../batch/layout.js';
import { partitionPoint } from '../../core/binary-search.js';
import { type Offset, toOffset } from '../../core/types.js';
import type { LogSlice } from '../engine.js';

/**
 * Small on purpose. Buffers that stay a while outlive V8's young generation, and freeing them takes full collections:
 * 32 MiB cost a fifth of the append throughput. Behind it lies the page cache.
 */
export const DEFAULT_TAIL_CACHE_BYTES: number = 4 * 1024 * 1024;

/** What keeping a batch costs besides its bytes; it bounds the number of tiny ones. */
const ENTRY_OVERHEAD_BYTES = 200;
/** A slice of a much larger allocation keeps all of it alive; up to this size it is copied out instead. */
const MAX_COPIED_BYTES = 16 * 1024;
/** A removed prefix of the entry array is cut off when it is this long and half of the array. */
const COMPACT_AT = 64;

interface Entry {
  readonly owner: LogTail;
  readonly batch: Buffer;
  readonly baseOffset: number;
  readonly nextOffset: number;
  older: Entry | undefined;
  newer: Entry | undefined;
}

/** The cached tail of one log. Invariant: the entries are dense, the newest ends at the end of the log. */
export class LogTail {
  readonly #cache: TailCache;
  #entries: (Entry | undefined)[] = [];
  #first = 0;

  constructor(cache: TailCache) {
    this.#cache = cache;
  }

  /** Takes a batch that was just written at the end of the log. */
  push(batch: Buffer): void {
    const entry: Entry = {
      owner: this,
      batch: compact(batch),
      baseOffset: baseOffsetOf(batch, 0),
      nextOffset: nextOffsetOf(batch, 0),
      older: undefined,
      newer: undefined,
    };
    this.#entries.push(entry);
    this.#cache.add(entry);
  }

  /** Whole batches from the one that contains `from`, if that one is here. They were checked before they were appended. */
  read(from: Offset, to: Offset, maxBytes: number): LogSlice | undefined {
    let at = this.#indexOf(from);
    if (at < 0) return undefined;
    const chunks: Buffer[] = [];
    let byteLength = 0;
    let nextOffset: number = from;
    for (; at < this.#entries.length; at++) {
      const entry = this.#entries[at]!;
      if (entry.nextOffset > to || (chunks.length > 0 && byteLength + entry.batch.length > maxBytes)) break;
      chunks.push(entry.batch);
      byteLength += entry.batch.length;
      nextOffset = entry.nextOffset;
    }
    return { chunks, byteLength, nextOffset: toOffset(nextOffset) };
  }

  /** Lets go of the batches that end at or below `offset`. */
  dropBelow(offset: number): void {
    for (
      let entry = this.#entries[this.#first];
      entry && entry.nextOffset <= offset;
      entry = this.#entries[this.#first]
    ) {
      this.#cache.remove(entry);
      this.shift();
    }
  }

  clear(): void {
    for (let i = this.#first; i < this.#entries.length; i++) this.#cache.remove(this.#entries[i]!);
    this.#entries = [];
    this.#first = 0;
  }

  /** Called by the cache when it evicts the oldest entry of all, which is the oldest of its log. */
  shift(): void {
    this.#entries[this.#first] = undefined;
    this.#first++;
    if (this.#first < COMPACT_AT || this.#first * 2 < this.#entries.length) return;
    this.#entries = this.#entries.slice(this.#first);
    this.#first = 0;
  }

  /** Index of the entry that contains `offset`; -1 when it is not cached. */
  #indexOf(offset: number): number {
    const first = this.#first;
    const count = this.#entries.length - first;
    if (count === 0 || offset < this.#entries[first]!.baseOffset) return -1;
    const found = partitionPoint(count, (at) => this.#entries[first + at]!.nextOffset <= offset);
    return found < count ? first + found : -1;
  }
}

/** All entries in order of age, and their sum. */
export class TailCache {
  readonly #maxBytes: number;
  #bytes = 0;
  #oldest: Entry | undefined;
  #newest: Entry | undefined;

  constructor(maxBytes: number = DEFAULT_TAIL_CACHE_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes held, with what holding them costs. */
  get byteLength(): number {
    return this.#bytes;
  }

  add(entry: Entry): void {
    entry.older = this.#newest;
    if (this.#newest) this.#newest.newer = entry;
    else this.#oldest = entry;
    this.#newest = entry;
    this.#bytes += costOf(entry);
    while (this.#bytes > this.#maxBytes && this.#oldest) {
      const oldest = this.#oldest;
      this.remove(oldest);
      oldest.owner.shift();
    }
  }

  remove(entry: Entry): void {
    if (entry.older) entry.older.newer = entry.newer;
    else this.#oldest = entry.newer;
    if (entry.newer) entry.newer.older = entry.older;
    else this.#newest = entry.older;
    entry.older = undefined;
    entry.newer = undefined;
    this.#bytes -= costOf(entry);
  }
}

function costOf(entry: Entry): number {
  return entry.batch.length + ENTRY_OVERHEAD_BYTES;
}

function compact(batch: Buffer): Buffer {
  if (batch.length > MAX_COPIED_BYTES || batch.buffer.byteLength <= batch.length * 2) return batch;
  const copy = Buffer.allocUnsafeSlow(batch.length);
  batch.copy(copy);
  return copy;
}
