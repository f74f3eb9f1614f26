/** What the parts of one partition's log share: its segments and offsets, and the means of its engine. */
import { partitionPoint } from '../../core/binary-search.js';
import type { Clock } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import type { Semaphore } from '../../core/semaphore.js';
import type { Turnstile } from '../../core/turnstile.js';
import { type Offset, type TopicPartition, toOffset } from '../../core/types.js';
import type { LogConfig } from '../engine.js';
import type { Swap } from './checkpoint.js';
import type { CleanerThread } from './cleaning/cleaner-thread.js';
import type { DiskReserve } from './disk-reserve.js';
import type { EpochRuns } from './epoch-runs.js';
import type { FileCache } from './file-cache.js';
import type { FileSystem } from './fs.js';
import type { IndexCache } from './index-cache.js';
import type { Removals } from './removals.js';
import type { Segment } from './segment.js';
import type { TailCache } from './tail-cache.js';

/** What all logs of an engine share. */
export interface EngineContext {
  readonly fs: FileSystem;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly files: FileCache;
  readonly indexes: IndexCache;
  readonly tail: TailCache;
  /** Bounds the data syncs that run at once. */
  readonly syncs: Semaphore;
  /** Bounds what is done behind the scenes (index files, checkpoints), so that it takes neither all threads nor all handles. */
  readonly maintenance: Semaphore;
  /** Spreads the work of appends that have waited for the same write of the recovery points. */
  readonly firstAppends: Turnstile;
  readonly removals: Removals;
  readonly reserve: DiskReserve;
  readonly cleaner: CleanerThread;
  /** Told when a closed segment has become durable: the recovery points are worth writing. */
  readonly recoveryPointMoved: () => void;
  /**
   * Makes the leader epochs of all logs as they are now (`LogState.epochs`) durable.
   * @throws LogError STORAGE_FULL, STORAGE_ERROR, RESOURCE_LIMIT
   */
  readonly recordEpochs: () => Promise<void>;
}

/**
 * Invariants: `segments` is not empty, ascends and its last one takes the appends; a segment ends where the next begins
 * unless records were lost between them; `startOffset <= durableOffset <= endOffset`.
 */
export class LogState {
  readonly id: TopicPartition;
  readonly directory: string;
  config: LogConfig;
  segments: Segment[];
  startOffset: Offset;
  endOffset: Offset;
  durableOffset: Offset;
  /** Everything below was compacted; may lie below `startOffset`. */
  cleanedOffset: number;
  /** A replacement of segments whose last step, giving the files their names, has failed so far. */
  swap: Swap | undefined = undefined;
  /** Why nothing may be appended any more; final until the log is recovered from disk. */
  failure: Error | undefined = undefined;
  /**
   * Leader epochs of the batches that the next unclean start may have to scan, and of those that will be appended next.
   * Never changed in place.
   */
  epochs: EpochRuns;
  /** Those that are durable. No batch is written while they differ from `epochs`, or from what it carries. */
  recordedEpochs: EpochRuns | undefined = undefined;
  /** Segments with bytes that no sync has covered. */
  dirty: Set<Segment> = new Set();
  /** Whether a file was created in the directory, or the directory itself, and that is not yet durable. */
  entriesDirty: boolean;
  parentDirty: boolean;
  /** Segments that were closed and whose index files are not on disk yet. */
  unfinishedCount = 0;

  constructor(id: TopicPartition, directory: string, config: LogConfig, recovered: RecoveredLog) {
    this.id = id;
    this.directory = directory;
    this.config = config;
    this.segments = recovered.segments;
    this.startOffset = toOffset(recovered.startOffset);
    this.endOffset = toOffset(recovered.endOffset);
    this.durableOffset = this.endOffset;
    this.cleanedOffset = recovered.cleanedOffset;
    this.epochs = recovered.epochs;
    this.entriesDirty = recovered.unsynced;
    this.parentDirty = recovered.unsynced;
  }

  get active(): Segment {
    return this.segments[this.segments.length - 1]!;
  }

  /** Index of the last segment that begins at or below `offset`; -1 when all begin above. */
  segmentIndexFor(offset: number): number {
    return partitionPoint(this.segments.length, (at) => this.segments[at]!.baseOffset <= offset) - 1;
  }
}

/** A log as it was found on disk, put in order. */
export interface RecoveredLog {
  readonly segments: Segment[];
  readonly startOffset: number;
  readonly endOffset: number;
  readonly cleanedOffset: number;
  /** Leader epochs from the first segment on that was scanned; from the last one on when none was. */
  readonly epochs: EpochRuns;
  /** Whether nothing has made the directory's own entry durable yet. */
  readonly unsynced: boolean;
  /** Whether the checkpoint on disk vouches for everything, the active segment included. */
  readonly clean: boolean;
  /** Names of the side files in the directory. */
  readonly sideFiles: readonly string[];
}
