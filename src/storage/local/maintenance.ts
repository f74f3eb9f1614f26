/**
 * What is done for a log behind the scenes, one thing after the other: index files of closed segments, the checkpoint,
 * removal of trimmed segments, replacement of compacted ones. Nothing here is needed for durability of records; what is
 * cut short is done again, or scanned, at the next start.
 */
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32c } from '../../batch/crc32c.js';
import { type Offset, toOffset } from '../../core/types.js';
import { CHECKPOINT_NAME, type SegmentRecord, writeCheckpoint } from './checkpoint.js';
import type { CleanedGroup } from './cleaning/clean-pass.js';
import { errnoOf } from './fs.js';
import { toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import { DELETED_SUFFIX, type IndexChecksums, type Segment } from './segment.js';
import { type CheckpointChanges, type RetiredFiles, SegmentSwap } from './segment-swap.js';
import { writeSynced, writeWhole } from './small-files.js';

/** Segments that lose their names before others get a turn of the event loop: three renames of some 20 us each. */
const RETIRED_PER_TURN = 64;

export class Maintenance {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #flush: (upTo: Offset) => Promise<void>;
  readonly #swap: SegmentSwap;
  #last: Promise<void> = Promise.resolve();

  /** @param flush makes the log durable up to an offset */
  constructor(context: EngineContext, state: LogState, flush: (upTo: Offset) => Promise<void>) {
    this.#context = context;
    this.#state = state;
    this.#flush = flush;
    this.#swap = new SegmentSwap(context, state, {
      replaceCheckpoint: (changes) => this.#replaceCheckpoint(changes),
      retire: (segment) => this.#retire(segment),
    });
  }

  /** Resolves when everything asked for so far is done or has failed. */
  idle(): Promise<void> {
    return this.#last;
  }

  /** Puts a closed segment in order: log synced, indexes written and synced, checkpoint replaced. */
  finishClosed(segment: Segment): void {
    this.#inTurn(async () => {
      try {
        await this.#flush(toOffset(segment.contents.nextOffset));
        await this.#writeIndexes(segment, true);
        await this.#replaceCheckpoint();
        this.#context.recoveryPointMoved();
      } finally {
        this.#state.unfinishedCount--;
      }
    }).catch((error: unknown) => {
      const fields = { file: segment.path, err: error };
      this.#context.logger.warn(fields, 'a closed segment was not put in order; an unclean start will scan it');
    });
  }

  /** Puts the closed segments in order that the start had to scan, so that the next one need not. */
  finishRecovered(): void {
    const scanned = this.#state.segments.filter((segment) => segment.indexes && segment !== this.#state.active);
    if (scanned.length === 0) return;
    this.#inTurn(async () => {
      for (const segment of scanned) await this.#writeIndexes(segment, true);
      await this.#replaceCheckpoint();
    }).catch((error: unknown) => {
      const fields = { directory: this.#state.directory, err: error };
      this.#context.logger.warn(
        fields,
        'recovered segments were not put in order; an unclean start will scan them again',
      );
    });
  }

  /**
   * Makes a new log start offset durable, then removes the segments wholly below it.
   * @throws LogError STORAGE_FULL, STORAGE_ERROR: the start offset did not move
   */
  trim(before: Offset): Promise<void> {
    return this.#inTurn(async () => {
      const state = this.#state;
      if (before < state.startOffset) return;
      if (before > state.startOffset) await this.#replaceCheckpoint({ startOffset: before });
      state.startOffset = before;
      while (this.#dropSomeBelow(before)) await nextTurn();
    });
  }

  /**
   * Writes down everything that a clean start needs. The log must be durable and nobody may append any more.
   * @throws LogError when the files cannot be written
   */
  writeFinalCheckpoint(): Promise<void> {
    return this.#inTurn(async () => {
      for (const segment of this.#state.segments) {
        if (segment.exists && !segment.checksums) await this.#writeIndexes(segment, segment !== this.#state.active);
      }
      await this.#replaceCheckpoint();
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(() => this.#context.maintenance.run(work));
    this.#last = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  async #writeIndexes(segment: Segment, isClosed: boolean): Promise<void> {
    if (segment.dropped) return;
    const { fs, indexes: cache } = this.#context;
    const indexes = await cache.get(segment, this.#state.config.indexIntervalBytes);
    segment.contents.addLastTime(indexes);
    const offsets = indexes.offsets.encode();
    const times = indexes.times.encode();
    // A segment that goes on growing is put in order only so that a start need not read it. Its indexes are checked when
    // they are used, and built anew should a power cut have taken them: not worth a sync for each of thousands.
    const write = isClosed ? writeSynced : writeWhole;
    try {
      await write(fs, segment.offsetIndexPath, offsets);
      await write(fs, segment.timeIndexPath, times);
    } catch (error) {
      throw toStorageError('write the indexes of', segment.path, error, 'none');
    }
    segment.checksums = { offsetIndexCrc: crc32c(offsets), timeIndexCrc: crc32c(times) };
    if (!isClosed) return;
    segment.indexes = undefined;
    cache.keep(segment, indexes);
  }

  /** @param changes what the checkpoint says that the state does not say yet */
  async #replaceCheckpoint(changes: CheckpointChanges = {}): Promise<void> {
    const { fs, files } = this.#context;
    const { directory, startOffset, segments, cleanedOffset, swap } = this.#state;
    const path = join(directory, CHECKPOINT_NAME);
    const records: SegmentRecord[] = [];
    for (const segment of changes.segments ?? segments) {
      const checksums = segment.checksums ?? checksumsOfCleaned(segment);
      if (checksums) records.push({ ...segment.contents.facts, ...checksums, ...timesOfCleaned(segment) });
    }
    const checkpoint = {
      version: 1 as const,
      logStartOffset: changes.startOffset ?? startOffset,
      cleanedOffset: changes.cleanedOffset ?? cleanedOffset,
      segments: records,
      swap: changes.swap ?? swap,
    };
    try {
      await files.withHandle(() => writeCheckpoint(fs, path, checkpoint));
    } catch (error) {
      throw toStorageError('replace', path, error, 'none');
    }
  }

  /** Drops the first segments that lie below an offset. @returns whether there may be more */
  #dropSomeBelow(before: Offset): boolean {
    const { segments, config } = this.#state;
    const most = Math.min(segments.length - 1, RETIRED_PER_TURN);
    let count = 0;
    while (count < most && segments[count + 1]!.baseOffset <= before) count++;
    if (count === 0) return false;
    const dropped = segments.slice(0, count);
    this.#state.segments = segments.slice(count);
    for (const segment of dropped) {
      const { renamed, stuck } = this.#retire(segment);
      // No other segment ever gets the names of these: they may be removed as they are.
      this.#context.removals.add([...renamed, ...stuck], config.fileDeleteDelayMs);
    }
    return count === most;
  }

  /**
   * Takes a segment out of service: its files lose their names at once, and whoever reads one finishes.
   */
  #retire(segment: Segment): RetiredFiles {
    const { fs, indexes, files, logger } = this.#context;
    segment.dropped = true;
    indexes.forget(segment);
    files.forget(segment.path);
    const renamed: string[] = [];
    const stuck: string[] = [];
    for (const path of [segment.path, segment.offsetIndexPath, segment.timeIndexPath]) {
      try {
        fs.renameSync(path, path + DELETED_SUFFIX);
        renamed.push(path + DELETED_SUFFIX);
      } catch (error) {
        // A segment that was not put in order has no index files.
        if (errnoOf(error) === 'ENOENT') continue;
        stuck.push(path);
        logger.warn({ file: path, err: error }, 'a file that is no longer part of a log could not be renamed');
      }
    }
    return { renamed, stuck };
  }

  /** See `SegmentSwap.replace`. */
  replaceSegments(group: CleanedGroup): Promise<boolean> {
    return this.#inTurn(() => this.#swap.replace(group));
  }

  /** Notes, durably, that everything below was compacted. */
  noteCleaned(cleanedOffset: number): Promise<void> {
    return this.#inTurn(async () => {
      if (cleanedOffset <= this.#state.cleanedOffset) return;
      await this.#replaceCheckpoint({ cleanedOffset });
      this.#state.cleanedOffset = cleanedOffset;
    });
  }

  /**
   * Puts every closed and durable segment in order that is not, and removes what a compaction has left that broke off.
   * @throws LogError when the files cannot be written
   */
  prepareCompaction(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#swap.removeLeftovers();
      const { segments, durableOffset } = this.#state;
      const closed = segments.slice(0, -1).filter(({ contents }) => contents.nextOffset <= durableOffset);
      for (const segment of closed) if (!segment.checksums) await this.#writeIndexes(segment, true);
    });
  }
}

/** No file has it: 2^32 is no CRC-32C. */
const NO_CHECKSUM: number = 2 ** 32;

/**
 * A compacted segment is in every checkpoint, also while its indexes are not as they should be: without a record, the
 * next start would take its holes for damage.
 */
function checksumsOfCleaned({ contents, offsetIndexCrc }: Segment): IndexChecksums | undefined {
  if (!contents.cleaned) return undefined;
  return { offsetIndexCrc: offsetIndexCrc ?? NO_CHECKSUM, timeIndexCrc: NO_CHECKSUM };
}

/** The file of a compacted segment is younger than what it holds. */
function timesOfCleaned({ contents, createdMs, modifiedMs }: Segment): Pick<SegmentRecord, 'createdMs' | 'modifiedMs'> {
  return contents.cleaned ? { createdMs, modifiedMs } : {};
}
