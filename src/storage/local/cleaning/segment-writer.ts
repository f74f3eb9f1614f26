/** Writing segments anew, under names that end in `.cleaned`: log and indexes, all synced when finished. */
import { join } from 'node:path';
import { crc32c } from '../../../batch/crc32c.js';
import type { LogError } from '../../../core/errors.js';
import type { FileSystem } from '../fs.js';
import { toStorageError } from '../io-errors.js';
import {
  CLEANED_SUFFIX,
  type IndexChecksums,
  LOG_SUFFIX,
  MAX_SEGMENT_BYTES,
  OFFSET_INDEX_SUFFIX,
  SegmentContents,
  type SegmentFacts,
  SegmentIndexes,
  segmentFiles,
  segmentName,
  TIME_INDEX_SUFFIX,
} from '../segment.js';
import { closeFile, writeFully, writeSynced } from '../small-files.js';

/** A segment that was written: what a checkpoint says of it. */
export interface CleanedSegment {
  readonly facts: SegmentFacts;
  readonly checksums: IndexChecksums;
}

/** Output is written in pieces of this size, ... */
const WRITE_BYTES: number = 1024 * 1024;
/** ... and synced after this much, so that no sync keeps the disk from others for long. */
const SYNC_BYTES: number = 16 * 1024 * 1024;

/** Writes the batches of a group into one segment, or several when one would grow too large. */
export class GroupWriter {
  readonly #fs: FileSystem;
  readonly #directory: string;
  readonly #segmentBytes: number;
  readonly #finished: CleanedSegment[] = [];
  #segment: SegmentWriter;

  /** @param segmentBytes size that a segment of more than one batch stays within */
  constructor(fs: FileSystem, directory: string, baseOffset: number, segmentBytes: number) {
    this.#fs = fs;
    this.#directory = directory;
    this.#segmentBytes = segmentBytes;
    this.#segment = new SegmentWriter(fs, directory, baseOffset);
  }

  async write(batch: Buffer): Promise<void> {
    if (!this.#segment.takes(batch, this.#segmentBytes)) {
      const { nextOffset } = this.#segment;
      this.#finished.push(await this.#segment.finish());
      this.#segment = new SegmentWriter(this.#fs, this.#directory, nextOffset);
    }
    await this.#segment.write(batch);
  }

  async finish(): Promise<readonly CleanedSegment[]> {
    this.#finished.push(await this.#segment.finish());
    return this.#finished;
  }

  /** Removes everything written. A file that cannot be removed is rubbish to the next start. */
  async discard(): Promise<void> {
    this.#segment.close();
    const bases = [...this.#finished.map(({ facts }) => facts.baseOffset), this.#segment.baseOffset];
    for (const path of bases.flatMap((base) => segmentFiles(this.#directory, base))) {
      await this.#fs.unlink(path + CLEANED_SUFFIX).catch(() => undefined);
    }
  }
}

class SegmentWriter {
  readonly baseOffset: number;
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #fd: number;
  readonly #contents: SegmentContents;
  readonly #indexes = new SegmentIndexes();
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #position = 0;
  #unsyncedBytes = 0;
  #closed = false;

  constructor(fs: FileSystem, directory: string, baseOffset: number) {
    this.#fs = fs;
    this.baseOffset = baseOffset;
    this.#path = join(directory, segmentName(baseOffset));
    this.#contents = new SegmentContents(baseOffset, undefined, true);
    this.#fd = this.#attempt(() => fs.openSync(this.#path + LOG_SUFFIX + CLEANED_SUFFIX, 'create'));
  }

  get nextOffset(): number {
    return this.#contents.nextOffset;
  }

  /** Whether the batch fits. An empty segment takes anything. */
  takes(batch: Buffer, segmentBytes: number): boolean {
    const { sizeInBytes } = this.#contents;
    if (sizeInBytes === 0) return true;
    if (sizeInBytes + batch.length > Math.min(segmentBytes, MAX_SEGMENT_BYTES)) return false;
    return !this.#indexes.offsets.isFull && !this.#indexes.times.isFull;
  }

  async write(batch: Buffer): Promise<void> {
    // Every batch has an entry in the index, so its interval does not matter.
    this.#contents.add(batch, 0, this.#indexes, 0);
    this.#pending.push(batch);
    this.#pendingBytes += batch.length;
    if (this.#pendingBytes >= WRITE_BYTES) await this.#flush();
  }

  /** Makes all its files durable; their names are not yet. */
  async finish(): Promise<CleanedSegment> {
    await this.#flush();
    this.#contents.addLastTime(this.#indexes);
    const offsets = this.#indexes.offsets.encode();
    const times = this.#indexes.times.encode();
    try {
      await this.#fs.fdatasync(this.#fd);
      this.close();
      await writeSynced(this.#fs, this.#path + OFFSET_INDEX_SUFFIX + CLEANED_SUFFIX, offsets);
      await writeSynced(this.#fs, this.#path + TIME_INDEX_SUFFIX + CLEANED_SUFFIX, times);
    } catch (error) {
      throw this.#failure(error);
    }
    const checksums = { offsetIndexCrc: crc32c(offsets), timeIndexCrc: crc32c(times) };
    return { facts: this.#contents.facts, checksums };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeFile(this.#fs, this.#fd);
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending);
    this.#attempt(() => writeFully(this.#fs, this.#fd, bytes, this.#position));
    this.#position += bytes.length;
    this.#unsyncedBytes += bytes.length;
    this.#pending = [];
    this.#pendingBytes = 0;
    if (this.#unsyncedBytes < SYNC_BYTES) return;
    this.#unsyncedBytes = 0;
    try {
      await this.#fs.fdatasync(this.#fd);
    } catch (error) {
      throw this.#failure(error);
    }
  }

  #attempt<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw this.#failure(error);
    }
  }

  #failure(error: unknown): LogError {
    return toStorageError('write', this.#path + LOG_SUFFIX + CLEANED_SUFFIX, error, 'none');
  }
}
