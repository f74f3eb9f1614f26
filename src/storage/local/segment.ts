/** One segment of a log: a `.log` file of whole batches, and what is known about it. */
import { join } from 'node:path';
import {
  baseOffsetOf,
  isTracked,
  lastOffsetDeltaOf,
  leaderEpochOf,
  NO_TIMESTAMP,
  newestRecordTimeOf,
  nextOffsetOf,
  sizeInBytesOf,
} from '../../batch/layout.js';
import { assert } from '../../core/assert.js';
import { type EpochRun, EpochRuns } from './epoch-runs.js';
import type { Lease } from './file-cache.js';
import { OffsetIndex } from './offset-index.js';
import { DENSE, IndexedSequence, type OffsetSequence } from './offset-sequence.js';
import { TimeIndex } from './time-index.js';

export const LOG_SUFFIX = '.log';
export const OFFSET_INDEX_SUFFIX = '.index';
export const TIME_INDEX_SUFFIX = '.timeindex';
/** Of what is no longer part of the log and waits to be removed. */
export const DELETED_SUFFIX = '.deleted';
/** Of a segment that compaction is writing. */
export const CLEANED_SUFFIX = '.cleaned';
/** Of a segment that compaction has written and that takes the place of others. */
export const SWAP_SUFFIX = '.swap';

/** A segment's position and relative offsets are 32-bit integers in the index. */
export const MAX_SEGMENT_BYTES: number = 2 ** 31 - 1;
export const MAX_RELATIVE_OFFSET: number = 2 ** 31 - 1;

/** A batch larger than this is not taken, and a header that claims one is not believed. */
export const MAX_BATCH_BYTES: number = 64 * 1024 * 1024;

/** File name of a segment without suffix: its base offset in 20 digits. */
export function segmentName(baseOffset: number): string {
  return String(baseOffset).padStart(20, '0');
}

/** Suffixes of the files that make up a segment. */
export const SEGMENT_SUFFIXES: readonly string[] = [OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, LOG_SUFFIX];

/** Paths of the files of a segment. */
export function segmentFiles(directory: string, baseOffset: number): string[] {
  return SEGMENT_SUFFIXES.map((suffix) => join(directory, segmentName(baseOffset) + suffix));
}

const LOG_FILE = /^(\d{20})\.log$/;

/** Base offset in the name of a `.log` file; undefined for any other name. */
export function baseOffsetOfName(name: string): number | undefined {
  const digits = LOG_FILE.exec(name)?.[1];
  if (digits === undefined) return undefined;
  const baseOffset = Number(digits);
  return Number.isSafeInteger(baseOffset) ? baseOffset : undefined;
}

/** A piece of a segment that holds no intact batches although it should. Never cut off, never served. */
export interface Damage {
  /** Bytes `[position, endPosition)` of the file. */
  readonly position: number;
  readonly endPosition: number;
  /** Offsets `[offset, nextOffset)` are lost. */
  readonly offset: number;
  readonly nextOffset: number;
  readonly why: string;
}

/** Both indexes of a segment. */
export class SegmentIndexes {
  readonly offsets: OffsetIndex;
  readonly times: TimeIndex;

  constructor(offsets: OffsetIndex = new OffsetIndex(), times: TimeIndex = new TimeIndex()) {
    this.offsets = offsets;
    this.times = times;
  }

  get byteLength(): number {
    return this.offsets.byteLength + this.times.byteLength;
  }
}

/** What is known of a segment's batches without opening the file. */
export interface SegmentFacts {
  readonly baseOffset: number;
  /** Offset after the last intact batch. */
  readonly nextOffset: number;
  readonly sizeInBytes: number;
  /** Largest timestamp of the first batch; -1 when the segment is empty or the batch has none. */
  readonly firstTimestamp: number;
  /** Largest timestamp of all, and the last offset of the first batch that holds it; both -1 when there is none. */
  readonly maxTimestamp: number;
  readonly maxTimestampOffset: number;
  /** Leader epochs of the batches. */
  readonly epochs: readonly EpochRun[];
  /** Whether compaction wrote it: its offsets have holes, and its offset index holds every batch. */
  readonly cleaned: boolean;
  /** See `SegmentInfo`. */
  readonly hasProducers: boolean;
}

/**
 * The facts of a segment and its indexes, batch after batch: the same code runs when batches are appended and when a
 * file is scanned, so that an index built anew is the one that was lost.
 */
export class SegmentContents {
  readonly baseOffset: number;
  nextOffset: number;
  sizeInBytes = 0;
  firstTimestamp: number = NO_TIMESTAMP;
  maxTimestamp: number = NO_TIMESTAMP;
  maxTimestampOffset = -1;
  readonly epochs: EpochRuns;
  readonly cleaned: boolean;
  hasProducers: boolean;
  #entryDue = false;

  /** @param cleaned whether every batch gets an index entry; `facts` say so by themselves */
  constructor(baseOffset: number, facts?: SegmentFacts, cleaned: boolean = facts?.cleaned ?? false) {
    this.baseOffset = baseOffset;
    this.cleaned = cleaned;
    this.nextOffset = facts?.nextOffset ?? baseOffset;
    this.epochs = new EpochRuns(facts?.epochs);
    this.hasProducers = facts?.hasProducers ?? false;
    if (!facts) return;
    this.sizeInBytes = facts.sizeInBytes;
    this.firstTimestamp = facts.firstTimestamp;
    this.maxTimestamp = facts.maxTimestamp;
    this.maxTimestampOffset = facts.maxTimestampOffset;
  }

  /** Takes up the batch that `buf` holds at `at` and that lies at the end of the file. */
  add(buf: Buffer, at: number, indexes: SegmentIndexes, indexIntervalBytes: number): void {
    const position = this.sizeInBytes;
    const lastOffset = nextOffsetOf(buf, at) - 1;
    const maxTimestamp = newestRecordTimeOf(buf, at);
    if (position === 0) this.firstTimestamp = maxTimestamp;
    this.epochs.add(baseOffsetOf(buf, at), leaderEpochOf(buf, at));
    if (maxTimestamp > this.maxTimestamp) {
      this.maxTimestamp = maxTimestamp;
      this.maxTimestampOffset = lastOffset;
    }
    if (this.cleaned || this.#entryDue || position - indexes.offsets.lastPosition > indexIntervalBytes) {
      indexes.offsets.add(lastOffset - this.baseOffset, position);
      if (this.maxTimestampOffset >= 0) indexes.times.add(this.maxTimestamp, this.#relativeMaxOffset());
      this.#entryDue = false;
    }
    if (isTracked(buf, at)) this.hasProducers = true;
    this.sizeInBytes = position + sizeInBytesOf(buf, at);
    this.nextOffset = lastOffset + 1;
    assert(lastOffsetDeltaOf(buf, at) >= 0, 'a batch in the log ends after it begins');
  }

  get facts(): SegmentFacts {
    const { baseOffset, nextOffset, sizeInBytes, firstTimestamp, maxTimestamp, maxTimestampOffset } = this;
    const { cleaned, hasProducers } = this;
    const times = { firstTimestamp, maxTimestamp, maxTimestampOffset };
    return { baseOffset, nextOffset, sizeInBytes, ...times, epochs: this.epochs.runs, cleaned, hasProducers };
  }

  /**
   * Leaves out a damaged piece. The batch after it gets an index entry, or no walk would find the way past it. Nobody
   * knows whether the piece names producers, and who restores the file must not have that overlooked.
   */
  skip(damage: Damage): void {
    this.hasProducers = true;
    this.sizeInBytes = damage.endPosition;
    this.nextOffset = damage.nextOffset;
    this.#entryDue = true;
  }

  /** Adds the time index entry that a segment gets when it is closed. */
  addLastTime(indexes: SegmentIndexes): void {
    if (this.maxTimestampOffset >= 0) indexes.times.add(this.maxTimestamp, this.#relativeMaxOffset());
  }

  #relativeMaxOffset(): number {
    return this.maxTimestampOffset - this.baseOffset;
  }
}

/** Checksums of the index files as they were written and synced. */
export interface IndexChecksums {
  readonly offsetIndexCrc: number;
  readonly timeIndexCrc: number;
}

/**
 * Invariants: `contents.sizeInBytes` is the position of the next append and never beyond the end of the file;
 * everything in `[0, sizeInBytes)` is intact batches, or in `damages`. Their offsets are dense, or, where compaction
 * wrote them, as the offset index has them; the last one ends where the next segment begins.
 */
export class Segment {
  readonly baseOffset: number;
  readonly directory: string;
  /** Of the three files. They change only should the last step of replacing it fail (see `SegmentSwap`). */
  path: string;
  offsetIndexPath: string;
  timeIndexPath: string;
  contents: SegmentContents;
  /** In memory for as long as they are not on disk; else the index cache has them, or nobody. */
  indexes: SegmentIndexes | undefined;
  /** Set when both index files are on disk, synced and complete. */
  checksums: IndexChecksums | undefined;
  /** Of the offset index on disk as it is meant to be, while there are no `checksums`. Compacted segments only need it. */
  offsetIndexCrc: number | undefined;
  /** Ascending. */
  damages: readonly Damage[] = [];
  /** Keeps the file open while it holds bytes that no sync has covered. */
  pin: Lease | undefined;
  /** Whether the file exists; a new segment's is created by its first append. */
  exists: boolean;
  /** Whether it was removed from the log; a read that is under way finds out by this. */
  dropped = false;
  /** Whether it was removed because compaction put another in its place. */
  replaced = false;
  /** Wall clock in ms of its first append; stands in for the first timestamp of records that have none. */
  createdMs: number;
  /** Wall clock in ms of the last append; stands in for the largest timestamp of records that have none. */
  modifiedMs: number;

  constructor(directory: string, baseOffset: number, createdMs: number, exists: boolean) {
    this.directory = directory;
    this.baseOffset = baseOffset;
    const path = join(directory, segmentName(baseOffset));
    this.path = path + LOG_SUFFIX;
    this.offsetIndexPath = path + OFFSET_INDEX_SUFFIX;
    this.timeIndexPath = path + TIME_INDEX_SUFFIX;
    this.createdMs = createdMs;
    this.modifiedMs = createdMs;
    this.exists = exists;
    this.contents = new SegmentContents(baseOffset);
    this.indexes = exists ? undefined : new SegmentIndexes();
  }

  /** The damage that swallowed `offset`, if any. */
  damageAt(offset: number): Damage | undefined {
    return this.damages.find((damage) => offset >= damage.offset && offset < damage.nextOffset);
  }

  /** What the offsets of its batches must be. @param indexes its own */
  sequence(indexes: SegmentIndexes): OffsetSequence {
    return this.contents.cleaned ? new IndexedSequence(this.baseOffset, indexes.offsets) : DENSE;
  }

  /** The damage that begins at or covers byte `position`, if any. */
  damageAtPosition(position: number): Damage | undefined {
    return this.damages.find((damage) => position >= damage.position && position < damage.endPosition);
  }
}
