/**
 * The offset index of one segment (`.index`): where in the `.log` file a batch lies. Kafka's format:
 *
 *     file  = entry*             strictly ascending
 *     entry = relativeOffset i32   last offset of a batch - base offset of the segment
 *             position       i32   byte at which that batch begins
 *
 * Sparse: a batch gets an entry when more than `index.interval.bytes` were appended since the last one, so the first
 * batch of a segment has none. Derived from the log: nothing but speed is lost with it. A segment that compaction wrote
 * has an entry for every batch, the first included (see `offset-sequence.ts`).
 */
import { partitionPoint } from '../../core/binary-search.js';

/** Bytes of one entry on disk. */
export const OFFSET_INDEX_ENTRY_BYTES = 8;
/** Entries at which the index is full and the segment is closed (Kafka: `segment.index.bytes`, 10 MiB). */
export const MAX_OFFSET_INDEX_ENTRIES: number = Math.floor((10 * 1024 * 1024) / OFFSET_INDEX_ENTRY_BYTES);

/** Where a search in the log begins: at or before the batch that is looked for. */
export interface IndexFloor {
  /** Relative last offset of the batch at `position`; -1 when no entry lies low enough and the start is meant. */
  readonly relativeOffset: number;
  readonly position: number;
}

const START: IndexFloor = { relativeOffset: -1, position: 0 };
const EMPTY = new Uint32Array(0);
const FIRST_CAPACITY = 32;

export class OffsetIndex {
  // Typed arrays: a lookup among 250,000 entries takes 0.2 us. They grow with use, as most partitions are idle.
  #relativeOffsets: Uint32Array<ArrayBuffer> = EMPTY;
  #positions: Uint32Array<ArrayBuffer> = EMPTY;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Memory that the entries take. */
  get byteLength(): number {
    return this.#relativeOffsets.byteLength + this.#positions.byteLength;
  }

  get isFull(): boolean {
    return this.#count >= MAX_OFFSET_INDEX_ENTRIES;
  }

  /** Position in the last entry; 0 when there is none. */
  get lastPosition(): number {
    return this.#count === 0 ? 0 : this.#positions[this.#count - 1]!;
  }

  add(relativeOffset: number, position: number): void {
    if (this.#count === this.#relativeOffsets.length) this.#grow();
    this.#relativeOffsets[this.#count] = relativeOffset;
    this.#positions[this.#count] = position;
    this.#count++;
  }

  /** The greatest entry at or below `relativeOffset`. */
  floor(relativeOffset: number): IndexFloor {
    const count = this.#countUpTo(relativeOffset);
    if (count === 0) return START;
    return { relativeOffset: this.#relativeOffsets[count - 1]!, position: this.#positions[count - 1]! };
  }

  /** Number of entries at or below `relativeOffset`. */
  #countUpTo(relativeOffset: number): number {
    return partitionPoint(this.#count, (entry) => this.#relativeOffsets[entry]! <= relativeOffset);
  }

  /** Position in the first entry above `relativeOffset`: whatever ends there has ended by then. Undefined: none. */
  positionAbove(relativeOffset: number): number | undefined {
    const above = this.#countUpTo(relativeOffset);
    return above < this.#count ? this.#positions[above]! : undefined;
  }

  relativeOffsetAt(entry: number): number {
    return this.#relativeOffsets[entry]!;
  }

  positionAt(entry: number): number {
    return this.#positions[entry]!;
  }

  /** The entry of the batch that begins at `position`; -1 when there is none. */
  entryAtPosition(position: number): number {
    const found = partitionPoint(this.#count, (entry) => this.#positions[entry]! < position);
    return found < this.#count && this.#positions[found] === position ? found : -1;
  }

  /** Whether it holds every batch, the first included, as compaction writes it. */
  get isComplete(): boolean {
    return this.#count > 0 && this.#positions[0] === 0;
  }

  encode(): Buffer {
    const bytes = Buffer.allocUnsafe(this.#count * OFFSET_INDEX_ENTRY_BYTES);
    for (let i = 0; i < this.#count; i++) {
      bytes.writeUInt32BE(this.#relativeOffsets[i]!, i * OFFSET_INDEX_ENTRY_BYTES);
      bytes.writeUInt32BE(this.#positions[i]!, i * OFFSET_INDEX_ENTRY_BYTES + 4);
    }
    return bytes;
  }

  /** Reads what `encode` wrote, or undefined when the entries are cut or not in order. */
  static decode(bytes: Buffer): OffsetIndex | undefined {
    if (bytes.length % OFFSET_INDEX_ENTRY_BYTES !== 0) return undefined;
    const index = new OffsetIndex();
    index.#reserve(bytes.length / OFFSET_INDEX_ENTRY_BYTES);
    let previousOffset = -1;
    let previousPosition = -1;
    for (let at = 0; at < bytes.length; at += OFFSET_INDEX_ENTRY_BYTES) {
      const relativeOffset = bytes.readInt32BE(at);
      const position = bytes.readInt32BE(at + 4);
      if (relativeOffset <= previousOffset || position <= previousPosition) return undefined;
      index.add(relativeOffset, position);
      previousOffset = relativeOffset;
      previousPosition = position;
    }
    return index;
  }

  #grow(): void {
    this.#reserve(Math.max(FIRST_CAPACITY, this.#count * 2));
  }

  #reserve(capacity: number): void {
    const relativeOffsets = new Uint32Array(capacity);
    const positions = new Uint32Array(capacity);
    relativeOffsets.set(this.#relativeOffsets.subarray(0, this.#count));
    positions.set(this.#positions.subarray(0, this.#count));
    this.#relativeOffsets = relativeOffsets;
    this.#positions = positions;
  }
}
