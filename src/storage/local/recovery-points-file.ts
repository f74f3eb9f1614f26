/** The recovery points of an engine, and when they are written. */
import { join } from 'node:path';
import type { Logger } from '../../core/logger.js';
import type { FileCache } from './file-cache.js';
import type { FileSystem } from './fs.js';
import { toStorageError } from './io-errors.js';
import {
  encodeRecoveryPoints,
  NO_RECOVERY_POINT,
  NO_RECOVERY_POINTS,
  RECOVERY_POINTS_NAME,
  type RecoveryPoint,
  type RecoveryPoints,
  readRecoveryPoints,
} from './recovery-points.js';
import { replaceFile } from './small-files.js';

/** Where the points come from, and who wants to know that they are written. */
export interface PointSource {
  /** Brings the points up to date; called right before they are written. */
  readonly collect: () => void;
  /** These are durable now. */
  readonly written: (points: ReadonlyMap<string, RecoveryPoint>) => void;
}

export class RecoveryPointsFile {
  readonly #fs: FileSystem;
  readonly #files: FileCache;
  readonly #path: string;
  readonly #logger: Logger;
  readonly #points: Map<string, RecoveryPoint>;
  #journalOffset: number;
  #source: PointSource = { collect: () => undefined, written: () => undefined };
  /** Whether the points in memory differ from those on disk. */
  #isStale = false;
  /** Settles when the write that is under way does; never rejects. */
  #writing: Promise<unknown> = Promise.resolve();
  /** The write after it, which takes everything that is known when it begins. */
  #next: Promise<void> | undefined;

  private constructor(fs: FileSystem, files: FileCache, path: string, logger: Logger, points: RecoveryPoints) {
    this.#fs = fs;
    this.#files = files;
    this.#path = path;
    this.#logger = logger;
    this.#points = new Map(points.partitions);
    this.#journalOffset = points.journalOffset;
  }

  /**
   * Reads the points of a data directory. Goes without any when the file does not hold.
   * @param files give back some handles when there is none to write the points with: appends wait for that
   */
  static async open(fs: FileSystem, files: FileCache, dataDir: string, logger: Logger): Promise<RecoveryPointsFile> {
    const path = join(dataDir, RECOVERY_POINTS_NAME);
    const read = (await readRecoveryPoints(fs, path)) ?? NO_RECOVERY_POINTS;
    if (typeof read !== 'string') return new RecoveryPointsFile(fs, files, path, logger, read);
    logger.warn({ file: path, why: read }, 'the recovery points do not hold; going without');
    return new RecoveryPointsFile(fs, files, path, logger, NO_RECOVERY_POINTS);
  }

  connect(source: PointSource): void {
    this.#source = source;
  }

  /** Everything in the metadata journal below was durable once. */
  get journalOffset(): number {
    return this.#journalOffset;
  }

  set journalOffset(offset: number) {
    if (this.#journalOffset === offset) return;
    this.#journalOffset = offset;
    this.#isStale = true;
  }

  of(key: string): RecoveryPoint {
    return this.#points.get(key) ?? NO_RECOVERY_POINT;
  }

  set(key: string, point: RecoveryPoint): void {
    const before = this.#points.get(key);
    if (before !== undefined && isSame(before, point)) return;
    this.#points.set(key, point);
    this.#isStale = true;
  }

  delete(key: string): void {
    if (this.#points.delete(key)) this.#isStale = true;
  }

  /**
   * Resolves when everything known by now is durable. Calls during a write share the next one.
   * @throws LogError STORAGE_ERROR, STORAGE_FULL, RESOURCE_LIMIT: the old points are still there, or the new ones
   */
  save(): Promise<void> {
    this.#next ??= this.#writing.then(() => {
      this.#next = undefined;
      const write = this.#write();
      this.#writing = write.catch(() => undefined);
      return write;
    });
    return this.#next;
  }

  /** As `save`, for what may as well be written later. */
  saveSoon(): void {
    this.save().catch((error: unknown) => {
      this.#logger.warn({ err: error }, 'the recovery points were not written; a later start may scan more');
    });
  }

  async #write(): Promise<void> {
    this.#source.collect();
    if (!this.#isStale) return;
    this.#isStale = false;
    const partitions = new Map(this.#points);
    const contents = encodeRecoveryPoints({ journalOffset: this.#journalOffset, partitions });
    try {
      await this.#files.withHandle(() => replaceFile(this.#fs, this.#path, contents));
    } catch (error) {
      this.#isStale = true;
      throw toStorageError('replace', this.#path, error, 'none');
    }
    this.#source.written(partitions);
  }
}

function isSame(a: RecoveryPoint, b: RecoveryPoint): boolean {
  return a.offset === b.offset && a.logStartOffset === b.logStartOffset && a.epochs === b.epochs;
}
