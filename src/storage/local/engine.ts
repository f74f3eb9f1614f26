/** The storage engine on local files. */
import { join } from 'node:path';
import type { Clock, Timer } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import { type Logger, silentLogger } from '../../core/logger.js';
import { Semaphore } from '../../core/semaphore.js';
import { Turnstile } from '../../core/turnstile.js';
import { type Epoch, partitionKey, type TopicPartition, toEpoch } from '../../core/types.js';
import { closedError, fencedEpoch } from '../batches.js';
import type { LogConfig, MetadataStore, PartitionLog, StorageEngine } from '../engine.js';
import { CleanerThread } from './cleaning/cleaner-thread.js';
import { LOGS_NAME, type OwnedDataDir, takeDataDir } from './data-dir.js';
import { DiskReserve } from './disk-reserve.js';
import { FileCache } from './file-cache.js';
import { type FileSystem, nodeFileSystem } from './fs.js';
import { IndexCache } from './index-cache.js';
import { toStorageError } from './io-errors.js';
import { LogDirectories } from './log-directories.js';
import { LogHandle } from './log-handle.js';
import { type EngineContext, LogState } from './log-state.js';
import { LocalMetadataStore, METADATA_LOG_NAME } from './metadata-store.js';
import { recoverLog } from './recovery.js';
import type { RecoveryPoint } from './recovery-points.js';
import { RecoveryPointsFile } from './recovery-points-file.js';
import { Removals } from './removals.js';
import { SegmentedLog } from './segmented-log.js';
import { TailCache } from './tail-cache.js';

export interface LocalEngineOptions {
  /** Created if need be. Belongs to one process at a time. */
  readonly dataDir: string;
  readonly clock: Clock;
  readonly logger?: Logger;
  readonly fileSystem?: FileSystem;
  /** Open `.log` files, at most. Default 4,096. */
  readonly maxOpenFiles?: number;
  /** Memory for indexes of segments that are not appended to. Default 64 MiB. */
  readonly indexCacheBytes?: number;
  /** Memory for the batches appended last, of all partitions. Default 32 MiB. */
  readonly tailCacheBytes?: number;
  /** Syncs that run at once, at most. Default 8, so that reads keep some threads of a pool of 16. */
  readonly syncConcurrency?: number;
  /** Appends are refused while less is free on the disk. Default 0: no reserve. */
  readonly diskReserveBytes?: number;
}

/** What the local engine tells beyond the seam. */
export interface LocalEngine extends StorageEngine {
  /** Whether the data directory was left in order by its last user. */
  readonly startedClean: boolean;
  /** `.log` files open now. */
  readonly openFileCount: number;
}

const DEFAULT_SYNC_CONCURRENCY = 8;
/** Index files and checkpoints that are written at once. */
const MAINTENANCE_CONCURRENCY = 4;
/** Each creates a file, for 0.1 ms. */
const FIRST_APPENDS_PER_TURN = 64;
const RECOVERY_POINT_INTERVAL_MS = 10_000;
/** Logs that are closed at once. */
const CLOSE_CONCURRENCY = 16;

/** A partition as this engine knows it since it was opened first; kept until it is removed. */
interface Known {
  readonly id: TopicPartition;
  /** The highest epoch that has opened it. */
  epoch: Epoch;
  log: SegmentedLog | undefined;
  handle: LogHandle | undefined;
  /** Opening, closing and removing happen one after the other. */
  turn: Promise<unknown>;
}

class LocalStorageEngine implements LocalEngine {
  readonly metadata: MetadataStore;
  readonly startedClean: boolean;
  readonly #context: EngineContext;
  readonly #dataDir: OwnedDataDir;
  readonly #metadataStore: LocalMetadataStore;
  readonly #known = new Map<string, Known>();
  readonly #points: RecoveryPointsFile;
  readonly #directories: LogDirectories;
  #timer: Timer | undefined;
  /** Whether a log could not be left in order. */
  #disorder = false;
  #closing: Promise<void> | undefined;

  constructor(
    parts: Omit<EngineContext, 'recoveryPointMoved' | 'recordEpochs'>,
    dataDir: OwnedDataDir,
    metadata: LocalMetadataStore,
    points: RecoveryPointsFile,
  ) {
    this.#context = {
      ...parts,
      recoveryPointMoved: () => points.saveSoon(),
      recordEpochs: () => points.save(),
    };
    this.#dataDir = dataDir;
    this.#directories = new LogDirectories(parts.fs, join(dataDir.path, LOGS_NAME), parts.logger);
    this.startedClean = dataDir.wasClean;
    this.#metadataStore = metadata;
    this.metadata = metadata;
    this.#points = points;
    points.connect({ collect: () => this.#collectPoints(), written: (partitions) => this.#pointsWritten(partitions) });
  }

  get openFileCount(): number {
    return this.#context.files.openCount;
  }

  open(id: TopicPartition, epoch: Epoch, config: LogConfig): Promise<PartitionLog> {
    return this.#inTurn(id, async (known) => {
      if (epoch < known.epoch) throw fencedEpoch(epoch, known.epoch);
      if (known.log && known.handle && epoch === known.epoch) {
        known.log.configure(config);
        return known.handle;
      }
      known.log ??= await this.#recover(id, epoch, config);
      known.log.configure(config);
      known.epoch = epoch;
      const handle: LogHandle = new LogHandle(id, epoch, known.log, {
        currentEpoch: () => known.epoch,
        close: () => this.#closeInTurn(known, handle),
      });
      known.handle = handle;
      return handle;
    });
  }

  async remove(id: TopicPartition): Promise<void> {
    await this.#inTurn(id, async (known) => {
      const key = partitionKey(id);
      known.handle?.detach();
      await known.log?.abandon();
      known.log = undefined;
      known.handle = undefined;
      this.#points.delete(key);
      this.#known.delete(key);
      await this.#directories.remove(key);
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async removeUnknown(isKnown: (id: TopicPartition) => boolean): Promise<void> {
    try {
      await this.#directories.removeUnknown(isKnown);
    } catch (error) {
      throw toStorageError('tidy up', this.#dataDir.path, error);
    }
  }

  /**
   * Deletes what removals before the last stop have left, and begins to write the recovery points now and then: not
   * before nothing can fail any more, or they would be written into a directory that was given back.
   */
  async start(): Promise<void> {
    await this.#directories.cleanUp();
    this.#startTimer();
  }

  #inTurn<T>(id: TopicPartition, work: (known: Known) => Promise<T>): Promise<T> {
    if (this.#closing) return Promise.reject(closedError('storage engine'));
    const key = partitionKey(id);
    let known = this.#known.get(key);
    if (!known) {
      known = { id, epoch: toEpoch(0), log: undefined, handle: undefined, turn: Promise.resolve() };
      this.#known.set(key, known);
    }
    const mine = known;
    const result = mine.turn.then(() => {
      // Removed while this waited: begin again with what is known now, which is nothing.
      if (this.#known.get(key) !== mine) return this.#inTurn(id, work);
      return work(mine);
    });
    mine.turn = result.catch(() => undefined);
    return result;
  }

  async #recover(id: TopicPartition, epoch: Epoch, config: LogConfig): Promise<SegmentedLog> {
    const key = partitionKey(id);
    const directory = this.#directories.pathOf(key);
    const recovered = await recoverLog(this.#context, directory, config, this.#points.of(key));
    const state = new LogState(id, directory, config, recovered);
    const log = new SegmentedLog(this.#context, state, recovered.clean, recovered.sideFiles);
    log.expectEpoch(epoch);
    return log;
  }

  /** Closes the log behind a handle, unless somebody else holds it by then. */
  #closeInTurn(known: Known, handle: LogHandle): Promise<void> {
    const result = known.turn.then(() => (known.handle === handle ? this.#closeLog(known) : undefined));
    known.turn = result.catch(() => undefined);
    return result;
  }

  /** Leaves the log in order. A failure that was known before is not thrown again. */
  async #closeLog(known: Known): Promise<void> {
    const { log } = known;
    if (!log) return;
    const alreadyFailed = log.failure !== undefined;
    try {
      await log.close();
    } catch (error) {
      this.#disorder = true;
      if (!alreadyFailed) throw error;
    } finally {
      this.#notePoint(known, log);
      if (known.log === log) known.log = undefined;
      known.handle = undefined;
    }
  }

  async #close(): Promise<void> {
    const { logger } = this.#context;
    this.#timer?.cancel();
    const gate = new Semaphore(CLOSE_CONCURRENCY);
    const results = await Promise.allSettled(
      [...this.#known.values()].map((known) =>
        gate.run(async () => {
          await known.turn;
          known.handle?.detach();
          await this.#closeLog(known);
        }),
      ),
    );
    const failed = results.find((result) => result.status === 'rejected');
    await this.#context.removals.close();
    await this.#context.reserve.close();
    await this.#context.cleaner.close();
    await this.#directories.close();
    await this.#metadataStore.close();
    this.#context.files.closeIdle();
    try {
      await this.#points.save();
      if (!this.#disorder) await this.#dataDir.markClean();
      else
        logger.warn({ directory: this.#dataDir.path }, 'not everything was left in order; the next start will check');
    } catch (error) {
      throw toStorageError('close', this.#dataDir.path, error, 'none');
    } finally {
      this.#dataDir.release();
    }
    if (failed) throw failed.reason;
  }

  #startTimer(): void {
    this.#timer = this.#context.clock.setTimer(RECOVERY_POINT_INTERVAL_MS, () => {
      if (this.#closing) return;
      this.#points.saveSoon();
      this.#directories.retry();
      this.#startTimer();
    });
  }

  #collectPoints(): void {
    for (const known of this.#known.values()) if (known.log) this.#notePoint(known, known.log);
    this.#points.journalOffset = this.#metadataStore.durableOffset;
  }

  #pointsWritten(partitions: ReadonlyMap<string, RecoveryPoint>): void {
    for (const { id, log } of this.#known.values()) {
      const point = log && partitions.get(partitionKey(id));
      if (point) log.pointRecorded(point);
    }
  }

  #notePoint(known: Known, log: SegmentedLog): void {
    const key = partitionKey(known.id);
    if (this.#known.has(key)) this.#points.set(key, log.recoveryPoint);
  }
}

/**
 * Opens a data directory.
 * @throws LogError DATA_DIR_LOCKED, DATA_DIR_UNUSABLE, UNSUPPORTED_FORMAT, CORRUPT_LOG (metadata journal),
 *   STORAGE_ERROR, STORAGE_FULL
 */
export async function openLocalEngine(options: LocalEngineOptions): Promise<LocalEngine> {
  const { dataDir, clock, logger = silentLogger, fileSystem: fs = nodeFileSystem } = options;
  const owned = await takeDataDir(fs, dataDir, logger);
  let metadata: LocalMetadataStore | undefined;
  try {
    const files = new FileCache(fs, options.maxOpenFiles);
    const points = await RecoveryPointsFile.open(fs, files, dataDir, logger);
    metadata = await LocalMetadataStore.open(fs, join(dataDir, METADATA_LOG_NAME), logger, {
      durableOffset: points.journalOffset,
      beforeRewrite: () => points.save(),
    });
    const parts = {
      fs,
      clock,
      logger,
      files,
      indexes: new IndexCache(fs, files, options.indexCacheBytes),
      tail: new TailCache(options.tailCacheBytes),
      syncs: new Semaphore(options.syncConcurrency ?? DEFAULT_SYNC_CONCURRENCY),
      maintenance: new Semaphore(MAINTENANCE_CONCURRENCY),
      firstAppends: new Turnstile(FIRST_APPENDS_PER_TURN),
      removals: new Removals(fs, clock, logger),
      reserve: new DiskReserve(fs, dataDir, options.diskReserveBytes ?? 0, clock, logger),
      cleaner: new CleanerThread(fs, clock, logger),
    };
    await parts.reserve.refresh();
    const engine = new LocalStorageEngine(parts, owned, metadata, points);
    await engine.start();
    logger.debug({ directory: dataDir, clean: owned.wasClean }, 'opened the data directory');
    return engine;
  } catch (error) {
    await metadata?.close();
    owned.release();
    throw error instanceof LogError ? error : toStorageError('open', dataDir, error, 'none');
  }
}
