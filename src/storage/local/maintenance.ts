/**
 * What is done for a log behind the scenes, one thing after the other: index files of closed segments, the checkpoint,
 * removal of trimmed segments. Nothing here is needed for durability of records; what is cut short is done again, or
 * scanned, at the next start.
 */
import { join } from 'node:path';
import { crc32c } from '../../batch/crc32c.js';
import { type Offset, toOffset } from '../../core/types.js';
import { CHECKPOINT_NAME, type SegmentRecord, writeCheckpoint } from './checkpoint.js';
import { toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import { DELETED_SUFFIX, type Segment } from './segment.js';
import { writeSynced } from './small-files.js';

export class Maintenance {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #flush: (upTo: Offset) => Promise<void>;
  #last: Promise<void> = Promise.resolve();

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
      if (before > state.startOffset) await this.#replaceCheckpoint(before);
      state.startOffset = before;
      await this.#dropBelow(before);
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

  #inTurn(work: () => Promise<void>): Promise<void> {
    const result = this.#last.then(() => this.#context.maintenance.run(work));
    this.#last = result.catch(() => undefined);
    return result;
  }

  async #writeIndexes(segment: Segment, isClosed: boolean): Promise<void> {
    if (segment.dropped) return;
    const { fs, indexes: cache } = this.#context;
    const indexes = await cache.get(segment, this.#state.config.indexIntervalBytes);
    segment.contents.addLastTime(indexes);
    const offsets = indexes.offsets.encode();
    const times = indexes.times.encode();
    try {
      await writeSynced(fs, segment.offsetIndexPath, offsets);
      await writeSynced(fs, segment.timeIndexPath, times);
    } catch (error) {
      throw toStorageError('write the indexes of', segment.path, error, 'none');
    }
    segment.checksums = { offsetIndexCrc: crc32c(offsets), timeIndexCrc: crc32c(times) };
    if (!isClosed) return;
    segment.indexes = undefined;
    cache.keep(segment, indexes);
  }

  async #replaceCheckpoint(logStartOffset: Offset = this.#state.startOffset): Promise<void> {
    const { directory, segments } = this.#state;
    const path = join(directory, CHECKPOINT_NAME);
    const records: SegmentRecord[] = [];
    for (const segment of segments)
      if (segment.checksums) records.push({ ...segment.contents.facts, ...segment.checksums });
    try {
      await writeCheckpoint(this.#context.fs, path, { version: 1, logStartOffset, segments: records });
    } catch (error) {
      throw toStorageError('replace', path, error, 'none');
    }
  }

  async #dropBelow(before: Offset): Promise<void> {
    const { segments } = this.#state;
    let count = 0;
    while (count < segments.length - 1 && segments[count + 1]!.baseOffset <= before) count++;
    if (count === 0) return;
    const dropped = segments.slice(0, count);
    this.#state.segments = segments.slice(count);
    for (const segment of dropped) {
      segment.dropped = true;
      this.#context.indexes.forget(segment);
      this.#context.files.forget(segment.path);
      await this.#removeFiles(segment);
    }
  }

  /** What cannot be removed now is removed at the next start: it lies below the log start offset. */
  async #removeFiles(segment: Segment): Promise<void> {
    const { fs, logger } = this.#context;
    try {
      await fs.rename(segment.path, segment.path + DELETED_SUFFIX);
      await fs.unlink(segment.path + DELETED_SUFFIX);
      await fs.unlink(segment.offsetIndexPath);
      await fs.unlink(segment.timeIndexPath);
    } catch (error) {
      logger.warn({ file: segment.path, err: error }, 'a trimmed segment could not be removed');
    }
  }
}
