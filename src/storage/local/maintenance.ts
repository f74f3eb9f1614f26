/**
 * What is done for a log behind the scenes, one thing after the other: index files of closed segments, the checkpoint,
 * removal of trimmed segments, replacement of compacted ones. Nothing here is needed for durability of records; what is cut short is done again, or
 * scanned, at the next start.
 */
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32c } from '../../batch/crc32c.js';
import { LogError } from '../../core/errors.js';
import { type Offset, toOffset } from '../../core/types.js';
import { CHECKPOINT_NAME, type SegmentRecord, type Swap, writeCheckpoint } from './checkpoint.js';
import type { CleanedGroup, CleanedSegment } from './cleaning/clean-pass.js';
import { errnoOf, type FileSystem } from './fs.js';
import { toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import {
  CLEANED_SUFFIX,
  DELETED_SUFFIX,
  type IndexChecksums,
  LOG_SUFFIX,
  OFFSET_INDEX_SUFFIX,
  Segment,
  SegmentContents,
  SWAP_SUFFIX,
  segmentFiles,
  segmentName,
  TIME_INDEX_SUFFIX,
} from './segment.js';
import { writeSynced, writeWhole } from './small-files.js';

/** Segments that lose their names before others get a turn of the event loop: three renames of some 20 us each. */
const RETIRED_PER_TURN = 64;

export class Maintenance {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #flush: (upTo: Offset) => Promise<void>;
  #last: Promise<void> = Promise.resolve();
  /** Whether a replacement may have been decided on disk that is not known to have been: its checkpoint has failed. */
  #isUndecided = false;

  /** @param flush makes the log durable up to an offset */
  constructor(context: EngineContext, state: LogState, flush: (upTo: Offset) => Promise<void>) {
    this.#context = context;
    this.#state = state;
    this.#flush = flush;
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
      await writeCheckpoint(this.#context.fs, path, checkpoint);
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
    const doomed = dropped.flatMap((segment) => this.#retire(segment));
    this.#context.removals.add(doomed, config.fileDeleteDelayMs);
    return count === most;
  }

  /**
   * Takes a segment out of service: its files lose their names at once, and whoever reads one finishes.
   * @returns the files to remove. One that cannot be renamed goes at the next start: it lies below the log start offset,
   *   or another has its name
   */
  #retire(segment: Segment): string[] {
    const { fs, indexes, files, logger } = this.#context;
    segment.dropped = true;
    indexes.forget(segment);
    files.forget(segment.path);
    const doomed: string[] = [];
    for (const path of [segment.path, segment.offsetIndexPath, segment.timeIndexPath]) {
      try {
        fs.renameSync(path, path + DELETED_SUFFIX);
        doomed.push(path + DELETED_SUFFIX);
      } catch (error) {
        // A segment that was not put in order has no index files.
        if (errnoOf(error) === 'ENOENT') continue;
        logger.warn({ file: path, err: error }, 'a file that is no longer part of a log could not be renamed');
      }
    }
    return doomed;
  }

  /**
   * Puts segments that compaction has written, still under `.cleaned`, in the place of those they were made from. The
   * replacement of the checkpoint decides: before it a start removes the new files, after it one finishes the renaming.
   * @returns false, nothing being changed, when a source is no longer part of the log
   * @throws LogError STORAGE_FULL, STORAGE_ERROR: nothing is changed for readers, and the sources stay
   */
  replaceSegments({ sources, outputs }: CleanedGroup): Promise<boolean> {
    return this.#inTurn(async () => {
      const swap = { sources, outputs: outputs.map(({ facts }) => facts.baseOffset) };
      const first = this.#indexOfSources(sources);
      if (first < 0) {
        await this.#discard(swap.outputs);
        return false;
      }
      const replaced = this.#state.segments.slice(first, first + sources.length);
      const segments = outputs.map((output) => this.#openOutput(output, replaced));
      try {
        await this.#finishSwap();
        await this.#decide(swap, segments);
      } catch (error) {
        await this.#discard(swap.outputs);
        throw toStorageError('replace segments in', this.#state.directory, error, 'none');
      }
      this.#install(swap, segments);
      await this.#finishSwap();
      return true;
    });
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
      await this.#removeLeftovers();
      const { segments, durableOffset } = this.#state;
      const closed = segments.slice(0, -1).filter(({ contents }) => contents.nextOffset <= durableOffset);
      for (const segment of closed) if (!segment.checksums) await this.#writeIndexes(segment, true);
    });
  }

  async #removeLeftovers(): Promise<void> {
    const { fs } = this.#context;
    const { directory } = this.#state;
    try {
      for (const name of await fs.readdir(directory)) {
        if (name.endsWith(CLEANED_SUFFIX)) await fs.unlink(join(directory, name));
      }
    } catch (error) {
      throw toStorageError('tidy up', directory, error, 'none');
    }
  }

  /** Place of the sources in the list of segments; -1 when they are not all there, one after the other. */
  #indexOfSources(sources: readonly number[]): number {
    const { segments } = this.#state;
    const first = segments.findIndex(({ baseOffset }) => baseOffset === sources[0]);
    const areThere = sources.every((base, i) => segments[first + i]?.baseOffset === base);
    return areThere && first + sources.length < segments.length ? first : -1;
  }

  #openOutput({ facts, checksums }: CleanedSegment, sources: readonly Segment[]): Segment {
    // Timestamps may be missing in the records, so what stands in for them must not become younger by compaction.
    const createdMs = Math.min(...sources.map((source) => source.createdMs));
    const segment = new Segment(this.#state.directory, facts.baseOffset, createdMs, true);
    segment.modifiedMs = Math.max(...sources.map((source) => source.modifiedMs));
    segment.contents = new SegmentContents(facts.baseOffset, facts);
    segment.checksums = checksums;
    return segment;
  }

  /** Makes the files of the new segments and the decision for them durable. */
  async #decide(swap: Swap, segments: readonly Segment[]): Promise<void> {
    const { fs } = this.#context;
    const { directory } = this.#state;
    // Files under `.swap` may be what a checkpoint on disk counts on, until one is there that does not.
    if (this.#isUndecided) await this.#replaceCheckpoint();
    this.#isUndecided = false;
    for (const base of swap.outputs) renameSegmentFiles(fs, directory, base, CLEANED_SUFFIX, SWAP_SUFFIX);
    await fs.syncDirectory(directory);
    const all = [...this.#state.segments];
    all.splice(this.#indexOfSources(swap.sources), swap.sources.length, ...segments);
    this.#isUndecided = true;
    await this.#replaceCheckpoint({ segments: all, swap });
    this.#isUndecided = false;
  }

  /** Removes what came to nothing. Should that fail, the next start does it. */
  async #discard(outputs: readonly number[]): Promise<void> {
    const { fs, logger } = this.#context;
    const { directory } = this.#state;
    try {
      if (this.#isUndecided) await this.#replaceCheckpoint();
      this.#isUndecided = false;
      for (const path of outputs.flatMap((base) => segmentFiles(directory, base))) {
        await fs.unlink(path + CLEANED_SUFFIX);
        if (!this.#isInUse(path + SWAP_SUFFIX)) await fs.unlink(path + SWAP_SUFFIX);
      }
    } catch (error) {
      logger.warn({ directory, err: error }, 'what compaction wrote in vain could not be removed');
    }
  }

  /** Whether the file serves a segment under this name: one that an earlier replacement could not give its own. */
  #isInUse(path: string): boolean {
    return this.#state.segments.some((segment) =>
      [segment.path, segment.offsetIndexPath, segment.timeIndexPath].includes(path),
    );
  }

  /** In one go, so that nobody meets a name without its file. */
  #install(swap: Swap, segments: readonly Segment[]): void {
    const state = this.#state;
    const first = this.#indexOfSources(swap.sources);
    const sources = state.segments.slice(first, first + swap.sources.length);
    for (const source of sources) source.replaced = true;
    const doomed = sources.flatMap((source) => this.#retire(source));
    for (const segment of segments) takeNames(this.#context.fs, segment);
    // A new list: whoever goes through the old one meets segments that say that they were replaced.
    state.segments = state.segments.toSpliced(first, sources.length, ...segments);
    state.swap = swap;
    this.#context.removals.add(doomed, state.config.fileDeleteDelayMs);
  }

  /** Completes what `#install` has begun; should a name not be had, it is tried again before the next replacement. */
  async #finishSwap(): Promise<void> {
    const state = this.#state;
    const { swap } = state;
    if (!swap) return;
    const { fs, files } = this.#context;
    for (const segment of state.segments) {
      if (hasItsNames(segment)) continue;
      files.forget(segment.path);
      takeNames(fs, segment);
      if (!hasItsNames(segment)) throw unfinishedSwap(segment.path);
    }
    await fs.syncDirectory(state.directory);
    state.swap = undefined;
    try {
      await this.#replaceCheckpoint();
    } catch (error) {
      state.swap = swap;
      throw error;
    }
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

/** What a checkpoint is to say before the state says it: the state follows once that is durable. */
interface CheckpointChanges {
  readonly startOffset?: Offset;
  readonly cleanedOffset?: number;
  readonly segments?: readonly Segment[];
  readonly swap?: Swap;
}

function renameSegmentFiles(fs: FileSystem, directory: string, base: number, from: string, to: string): void {
  for (const path of segmentFiles(directory, base)) fs.renameSync(path + from, path + to);
}

/** Renames the files of a segment from `.swap` to their names; one that cannot be is used under the name it has. */
function takeNames(fs: FileSystem, segment: Segment): void {
  const path = join(segment.directory, segmentName(segment.baseOffset));
  segment.offsetIndexPath = takeName(fs, path + OFFSET_INDEX_SUFFIX);
  segment.timeIndexPath = takeName(fs, path + TIME_INDEX_SUFFIX);
  segment.path = takeName(fs, path + LOG_SUFFIX);
}

function hasItsNames({ path, offsetIndexPath, timeIndexPath }: Segment): boolean {
  return ![path, offsetIndexPath, timeIndexPath].some((name) => name.endsWith(SWAP_SUFFIX));
}

function takeName(fs: FileSystem, name: string): string {
  try {
    fs.renameSync(name + SWAP_SUFFIX, name);
    return name;
  } catch (error) {
    // Renamed by an earlier attempt.
    return errnoOf(error) === 'ENOENT' ? name : name + SWAP_SUFFIX;
  }
}

function unfinishedSwap(path: string): LogError {
  return new LogError('STORAGE_ERROR', `${path} could not be given its name; that is tried again.`, {
    metadata: { path },
    outcome: 'none',
  });
}
