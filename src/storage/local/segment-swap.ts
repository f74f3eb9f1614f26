/**
 * Segments that compaction has written take the place of those they were made from:
 *
 *     X.cleaned           written and synced by the pass
 *     X.swap              renamed, names synced
 *     checkpoint          lists X in the place of its sources, and the replacement as pending: THE DECISION
 *     sources.deleted, X  renamed in one go, names synced
 *     checkpoint          without the replacement
 *
 * Before the decision a start removes the new files; after it, it finishes the renaming (see `recovery.ts`). Who calls
 * sees to it that nothing else replaces the checkpoint or drops segments meanwhile.
 */
import { join } from 'node:path';
import { LogError } from '../../core/errors.js';
import type { Offset } from '../../core/types.js';
import type { Swap } from './checkpoint.js';
import type { CleanedGroup } from './cleaning/clean-pass.js';
import type { CleanedSegment } from './cleaning/segment-writer.js';
import { errnoOf, type FileSystem } from './fs.js';
import { toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import {
  CLEANED_SUFFIX,
  LOG_SUFFIX,
  OFFSET_INDEX_SUFFIX,
  Segment,
  SegmentContents,
  SWAP_SUFFIX,
  segmentFiles,
  segmentName,
  TIME_INDEX_SUFFIX,
} from './segment.js';

/** What a checkpoint is to say before the state says it: the state follows once that is durable. */
export interface CheckpointChanges {
  readonly startOffset?: Offset;
  readonly cleanedOffset?: number;
  readonly segments?: readonly Segment[];
  readonly swap?: Swap;
}

/** What became of the files of a segment that was taken out of service. */
export interface RetiredFiles {
  /** Under the names they have now; to be removed. */
  readonly renamed: readonly string[];
  /** Those that still have their names. */
  readonly stuck: readonly string[];
}

export interface SwapHooks {
  /** Replaces the checkpoint, with what it is to say beyond the state. */
  readonly replaceCheckpoint: (changes: CheckpointChanges) => Promise<void>;
  /** Takes a segment out of service. */
  readonly retire: (segment: Segment) => RetiredFiles;
}

export class SegmentSwap {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #hooks: SwapHooks;
  /** Whether a replacement may have been decided on disk that is not known to have been: its checkpoint has failed. */
  #isUndecided = false;
  /** Files of replaced segments that could not be renamed and whose names nobody else takes. */
  #stuck: readonly string[] = [];

  constructor(context: EngineContext, state: LogState, hooks: SwapHooks) {
    this.#context = context;
    this.#state = state;
    this.#hooks = hooks;
  }

  /**
   * Puts segments that compaction has written, still under `.cleaned`, in the place of those they were made from. The
   * replacement of the checkpoint decides: before it a start removes the new files, after it one finishes the renaming.
   * @returns false, nothing being changed, when a source is no longer part of the log
   * @throws LogError STORAGE_FULL, STORAGE_ERROR: nothing is changed for readers, and the sources stay
   */
  async replace({ sources, outputs }: CleanedGroup): Promise<boolean> {
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
    try {
      await this.#finishSwap();
    } catch (error) {
      throw toStorageError('finish the replacement of segments in', this.#state.directory, error, 'none');
    }
    return true;
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
    await this.#decideAgainst();
    for (const base of swap.outputs) renameSegmentFiles(fs, directory, base, CLEANED_SUFFIX, SWAP_SUFFIX);
    await fs.syncDirectory(directory);
    const first = this.#indexOfSources(swap.sources);
    const all = this.#state.segments.toSpliced(first, swap.sources.length, ...segments);
    this.#isUndecided = true;
    await this.#hooks.replaceCheckpoint({ segments: all, swap });
    this.#isUndecided = false;
  }

  /**
   * Removes what replacements have left that came to nothing and could not be tidied up.
   * @throws LogError STORAGE_FULL, STORAGE_ERROR
   */
  async removeLeftovers(): Promise<void> {
    const { fs } = this.#context;
    const { directory } = this.#state;
    try {
      await this.#decideAgainst();
      for (const name of await fs.readdir(directory)) {
        const path = join(directory, name);
        const isLeft = name.endsWith(CLEANED_SUFFIX) || (name.endsWith(SWAP_SUFFIX) && !this.#isInUse(path));
        if (isLeft) await fs.unlink(path);
      }
    } catch (error) {
      throw toStorageError('tidy up', directory, error, 'none');
    }
  }

  /** Files under `.swap` may be what a checkpoint on disk counts on, until one is there that does not. */
  async #decideAgainst(): Promise<void> {
    if (this.#isUndecided) await this.#hooks.replaceCheckpoint({});
    this.#isUndecided = false;
  }

  /** Removes what came to nothing. Should that fail, the next compaction or the next start does it. */
  async #discard(outputs: readonly number[]): Promise<void> {
    const { fs, logger } = this.#context;
    const { directory } = this.#state;
    try {
      await this.#decideAgainst();
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
    const retired = sources.map((source) => ({ source, files: this.#hooks.retire(source) }));
    this.#stuck = retired.flatMap(({ source, files }) => (swap.outputs.includes(source.baseOffset) ? [] : files.stuck));
    for (const segment of segments) takeNames(this.#context.fs, segment);
    // A new list: whoever goes through the old one meets segments that say that they were replaced.
    state.segments = state.segments.toSpliced(first, sources.length, ...segments);
    state.swap = swap;
    const renamed = retired.flatMap(({ files }) => files.renamed);
    this.#context.removals.add(renamed, state.config.fileDeleteDelayMs);
  }

  /**
   * Completes what `#install` has begun; should a name not be had, or be left to a replaced segment that the next start
   * would take for one of the log, it is tried again before the next replacement.
   */
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
    for (const path of this.#stuck) await fs.unlink(path);
    this.#stuck = [];
    await fs.syncDirectory(state.directory);
    state.swap = undefined;
    try {
      await this.#hooks.replaceCheckpoint({});
    } catch (error) {
      state.swap = swap;
      throw error;
    }
  }
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
