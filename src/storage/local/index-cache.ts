/**
 * The indexes of segments that are on disk, loaded when they are needed and kept in memory up to a number of bytes. An
 * index that is missing, or is not what the checkpoint vouches for, is built anew from the log.
 */
import { LRUCache } from 'lru-cache';
import { crc32c } from '../../batch/crc32c.js';
import type { EpochAt } from './epoch-runs.js';
import type { FileCache } from './file-cache.js';
import type { FileSystem } from './fs.js';
import { toStorageError } from './io-errors.js';
import { OffsetIndex } from './offset-index.js';
import { ASCENDING, DENSE, IndexedSequence, type OffsetSequence } from './offset-sequence.js';
import { type ScanTail, scanBatches } from './scanner.js';
import { type Damage, type Segment, SegmentContents, SegmentIndexes } from './segment.js';
import { readSmallFile } from './small-files.js';
import { TimeIndex } from './time-index.js';

export const DEFAULT_INDEX_CACHE_BYTES: number = 64 * 1024 * 1024;

/** Larger than any index that is ever written: both end the segment at 10 MiB. */
const MAX_INDEX_FILE_BYTES: number = 16 * 1024 * 1024;
/** What an index costs besides its entries; it bounds the number of empty ones. */
const ENTRY_OVERHEAD_BYTES = 500;

/** What a scan of a whole segment found. */
export interface SegmentScan {
  readonly contents: SegmentContents;
  readonly indexes: SegmentIndexes;
  readonly damages: readonly Damage[];
  /** Bytes after the last intact batch, if any. */
  readonly tail: ScanTail | undefined;
}

/** How a segment is to be scanned. */
export interface ScanSettings {
  readonly endPosition: number;
  readonly indexIntervalBytes: number;
  /** What is known of leader epochs. */
  readonly epochAt: EpochAt;
  /** What is known of offsets; anything but dense ones: compaction wrote the segment. */
  readonly sequence: OffsetSequence;
}

/** Reads a segment from its first byte to an end with every check, building both indexes. */
export async function scanSegment(
  fs: FileSystem,
  files: FileCache,
  segment: Segment,
  { endPosition, indexIntervalBytes, epochAt, sequence }: ScanSettings,
): Promise<SegmentScan> {
  const contents = new SegmentContents(segment.baseOffset, undefined, sequence !== DENSE);
  const indexes = new SegmentIndexes();
  const damages: Damage[] = [];
  const lease = await files.acquire(segment.path);
  try {
    const result = await scanBatches(
      (buffer, position) => fs.pread(lease.fd, buffer, position),
      { position: 0, endPosition, offset: segment.baseOffset, epochAt, sequence },
      {
        batch(buf, at) {
          contents.add(buf, at, indexes, indexIntervalBytes);
          return true;
        },
        damage(damage) {
          damages.push(damage);
          const epoch = epochAt(damage.offset);
          if (epoch !== undefined) contents.epochs.add(damage.offset, epoch);
          contents.skip(damage);
        },
      },
    );
    return { contents, indexes, damages, tail: result.tail };
  } catch (error) {
    throw toStorageError('read', segment.path, error, 'none');
  } finally {
    lease.release();
  }
}

export class IndexCache {
  readonly #fs: FileSystem;
  readonly #files: FileCache;
  readonly #loaded: LRUCache<Segment, SegmentIndexes>;
  readonly #loading = new Map<Segment, Promise<SegmentIndexes>>();

  constructor(fs: FileSystem, files: FileCache, maxBytes: number = DEFAULT_INDEX_CACHE_BYTES) {
    this.#fs = fs;
    this.#files = files;
    this.#loaded = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: (indexes) => indexes.byteLength + ENTRY_OVERHEAD_BYTES,
    });
  }

  /** The indexes if they are in memory. */
  peek(segment: Segment): SegmentIndexes | undefined {
    return segment.indexes ?? this.#loaded.get(segment);
  }

  /**
   * The indexes, from memory, from their files, or built anew from the log.
   * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT
   */
  async get(segment: Segment, indexIntervalBytes: number): Promise<SegmentIndexes> {
    const found = this.peek(segment);
    if (found) return found;
    let loading = this.#loading.get(segment);
    if (!loading) {
      loading = this.#load(segment, indexIntervalBytes).finally(() => this.#loading.delete(segment));
      this.#loading.set(segment, loading);
    }
    return loading;
  }

  /** Takes over the indexes of a segment whose files are written. */
  keep(segment: Segment, indexes: SegmentIndexes): void {
    if (!segment.dropped) this.#loaded.set(segment, indexes);
  }

  forget(segment: Segment): void {
    this.#loaded.delete(segment);
  }

  /**
   * Scans a segment that turned out not to be as expected: notes its damages and, unless its indexes are the ones in
   * memory that appends maintain, replaces them.
   */
  async rebuild(segment: Segment, indexIntervalBytes: number): Promise<SegmentIndexes> {
    const { epochs, sizeInBytes, cleaned } = segment.contents;
    const scan = await scanSegment(this.#fs, this.#files, segment, {
      endPosition: sizeInBytes,
      indexIntervalBytes,
      epochAt: (baseOffset) => epochs.epochAt(baseOffset),
      sequence: cleaned ? await this.#cleanedSequence(segment) : DENSE,
    });
    segment.damages = withTail(scan, segment);
    if (segment.indexes) return segment.indexes;
    // The files are not to be trusted; they are written again with the next checkpoint.
    segment.offsetIndexCrc = segment.checksums?.offsetIndexCrc ?? segment.offsetIndexCrc;
    segment.checksums = undefined;
    scan.contents.addLastTime(scan.indexes);
    this.keep(segment, scan.indexes);
    return scan.indexes;
  }

  async #cleanedSequence(segment: Segment): Promise<OffsetSequence> {
    const crc = segment.checksums?.offsetIndexCrc ?? segment.offsetIndexCrc;
    return crc === undefined ? ASCENDING : cleanedSequence(this.#fs, segment.baseOffset, segment.offsetIndexPath, crc);
  }

  async #load(segment: Segment, indexIntervalBytes: number): Promise<SegmentIndexes> {
    const indexes = (await this.#read(segment)) ?? (await this.rebuild(segment, indexIntervalBytes));
    this.keep(segment, indexes);
    return indexes;
  }

  async #read(segment: Segment): Promise<SegmentIndexes | undefined> {
    const { checksums } = segment;
    if (!checksums) return undefined;
    try {
      const offsetIndex = await readOffsetIndex(this.#fs, segment.offsetIndexPath, checksums.offsetIndexCrc);
      const times = await readChecked(this.#fs, segment.timeIndexPath, checksums.timeIndexCrc);
      const timeIndex = times && TimeIndex.decode(times);
      return offsetIndex && timeIndex && new SegmentIndexes(offsetIndex, timeIndex);
    } catch (error) {
      if (error instanceof RangeError) return undefined;
      throw toStorageError('read the indexes of', segment.path, error, 'none');
    }
  }
}

/**
 * The offset index in a file; undefined when there is none, or not an intact one.
 * @param crc its checksum; undefined when nobody knows it
 */
export async function readOffsetIndex(
  fs: FileSystem,
  path: string,
  crc: number | undefined,
): Promise<OffsetIndex | undefined> {
  const bytes = await readChecked(fs, path, crc).catch(undefinedIfTooLarge);
  return bytes && OffsetIndex.decode(bytes);
}

/** What the offsets of a segment that compaction wrote must be, as far as the index in that file tells. */
export async function cleanedSequence(
  fs: FileSystem,
  baseOffset: number,
  indexPath: string,
  crc: number,
): Promise<OffsetSequence> {
  const index = await readOffsetIndex(fs, indexPath, crc);
  return index ? new IndexedSequence(baseOffset, index) : ASCENDING;
}

async function readChecked(fs: FileSystem, path: string, crc: number | undefined): Promise<Buffer | undefined> {
  const bytes = await readSmallFile(fs, path, MAX_INDEX_FILE_BYTES);
  return bytes && (crc === undefined || crc32c(bytes) === crc) ? bytes : undefined;
}

function undefinedIfTooLarge(error: unknown): undefined {
  if (error instanceof RangeError) return undefined;
  throw error;
}

/** The damages of a scan; what a segment lacks at its end is one more. */
function withTail(scan: SegmentScan, segment: Segment): readonly Damage[] {
  const { nextOffset, sizeInBytes } = segment.contents;
  const found = scan.contents.nextOffset;
  if (nextOffset <= found) return scan.damages;
  const position = scan.tail?.position ?? sizeInBytes;
  const why = scan.tail?.why ?? 'the file ends too early';
  return [...scan.damages, { position, endPosition: sizeInBytes, offset: found, nextOffset, why }];
}
