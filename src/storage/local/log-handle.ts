/** One epoch's hold on a partition's log. Fenced as soon as a newer epoch has opened the partition. */
import type { Epoch, Offset, TopicPartition } from '../../core/types.js';
import { closedError, fencedEpoch } from '../batches.js';
import type {
  CompactOptions,
  CompactResult,
  LogConfig,
  LogSlice,
  LogStats,
  PartitionLog,
  SegmentInfo,
  SideFiles,
} from '../engine.js';
import type { LogSideFiles } from './log-side-files.js';
import type { SegmentedLog } from './segmented-log.js';

export interface HandleHooks {
  /** The newest epoch that has opened the partition. */
  readonly currentEpoch: () => Epoch;
  /** Closes the log behind the handle. */
  readonly close: () => Promise<void>;
}

export class LogHandle implements PartitionLog {
  readonly id: TopicPartition;
  readonly epoch: Epoch;
  readonly sideFiles: SideFiles;
  readonly #log: SegmentedLog;
  readonly #hooks: HandleHooks;
  readonly #mayWrite: () => void;
  #closing: Promise<void> | undefined;

  constructor(id: TopicPartition, epoch: Epoch, log: SegmentedLog, hooks: HandleHooks) {
    this.id = id;
    this.epoch = epoch;
    this.#log = log;
    this.#hooks = hooks;
    this.#mayWrite = () => this.#checkEpoch();
    this.sideFiles = this.#guarded(log.sideFiles);
  }

  get startOffset(): Offset {
    return this.#log.startOffset;
  }

  get endOffset(): Offset {
    return this.#log.endOffset;
  }

  get durableOffset(): Offset {
    return this.#log.durableOffset;
  }

  get cleanedOffset(): Offset {
    return this.#log.cleanedOffset;
  }

  get failure(): Error | undefined {
    return this.#log.failure;
  }

  async append(batches: readonly Buffer[], at: Offset): Promise<Offset> {
    this.#checkOpen();
    this.#checkEpoch();
    return this.#log.append(batches, at, this.#mayWrite);
  }

  async flush(upTo: Offset): Promise<void> {
    this.#checkOpen();
    return this.#log.flush(upTo);
  }

  async read(from: Offset, to: Offset, maxBytes: number): Promise<LogSlice> {
    this.#checkOpen();
    return this.#log.read(from, to, maxBytes);
  }

  async batchForTime(timestampMs: number): Promise<Offset | undefined> {
    this.#checkOpen();
    return this.#log.batchForTime(timestampMs);
  }

  async batchForMaxTimestamp(to: Offset): Promise<Offset | undefined> {
    this.#checkOpen();
    return this.#log.batchForMaxTimestamp(to);
  }

  async trim(before: Offset): Promise<void> {
    this.#checkOpen();
    this.#checkEpoch();
    return this.#log.trim(before);
  }

  async roll(): Promise<void> {
    this.#checkOpen();
    this.#checkEpoch();
    return this.#log.roll();
  }

  async compact(options: CompactOptions): Promise<CompactResult> {
    this.#checkOpen();
    this.#checkEpoch();
    return this.#log.compact(options);
  }

  configure(config: LogConfig): void {
    if (!this.#isFenced()) this.#log.configure(config);
  }

  segments(): readonly SegmentInfo[] {
    return this.#log.segments();
  }

  stats(): LogStats {
    return this.#log.stats();
  }

  /** A fenced handle lets go of nothing: the log belongs to the newer epoch. */
  close(): Promise<void> {
    this.#closing ??= this.#isFenced() ? Promise.resolve() : this.#hooks.close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The log is being closed from elsewhere; later calls fail with CLOSED. */
  detach(): void {
    this.#closing ??= Promise.resolve();
  }

  #guarded(files: LogSideFiles): SideFiles {
    return {
      offsets: (kind) => files.offsets(kind),
      read: async (kind, offset) => {
        this.#checkOpen();
        return files.read(kind, offset);
      },
      write: async (kind, offset, contents) => {
        this.#checkOpen();
        return files.write(kind, offset, contents, this.#mayWrite);
      },
      remove: async (kind, offset) => {
        this.#checkOpen();
        return files.remove(kind, offset, this.#mayWrite);
      },
    };
  }

  #isFenced(): boolean {
    return this.#hooks.currentEpoch() !== this.epoch;
  }

  #checkOpen(): void {
    if (this.#closing) throw closedError('log');
  }

  #checkEpoch(): void {
    if (this.#isFenced()) throw fencedEpoch(this.epoch, this.#hooks.currentEpoch());
  }
}
