import type { Slices } from '../../core/slices.js';
import type { SegmentInfo } from '../../storage/engine.js';

/**
 * Something besides producers that a partition derives from its log, keeps in its snapshots and rebuilds from the batches
 * above the snapshot.
 */
export interface SnapshotPart {
  /** What tells its section of a snapshot from those of others; never changes its meaning. */
  readonly kind: number;
  /** Whether it knows nothing. Cheap. */
  readonly isEmpty: boolean;
  /** Whether enough has been added since it was saved that a start would rather not read it from the log. Cheap. */
  readonly isDue: boolean;
  /** Whether what it has saved has become wrong by the passing of time alone. Cheap. */
  readonly isOutdated: boolean;
  /**
   * What it knows of the batches that the log has. Called between two appends, when nothing is provisional; the bytes are
   * made afterwards, in turns.
   */
  save(): (slices: Slices) => Promise<Buffer>;
  /**
   * Forgets what it knows and takes over what `save` gave, or nothing.
   * @throws Error when the bytes are not that: the snapshot is then not used
   */
  restore(bytes: Buffer | undefined): void | Promise<void>;
  /** Whether the batches of this segment can matter to it. */
  needs(segment: SegmentInfo): boolean;
  /** Takes note of the batch at `at`, which the log has. */
  replay(buf: Buffer, at: number): void;
}
