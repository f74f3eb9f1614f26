/**
 * THE SEAM between Tidelog and whatever keeps its bytes. Interfaces only.
 *
 * What lies above (partitions, groups, transactions) decides offsets and checks producers; an engine stores bytes if
 * the log still ends where the caller believes, and nobody has opened a newer epoch. A shared engine can then keep two
 * brokers from both winning. Every engine passes `test/storage/conformance.ts`.
 */
import type { Epoch, Offset, TopicPartition } from '../core/types.js';

/** One value of the metadata store. */
export interface MetadataEntry {
  readonly key: string;
  readonly value: string;
  /** Rises with every change of this key, from 1. */
  readonly version: number;
}

/** Result of a compare-and-set: the new version, or what stood there instead (undefined: no such key). */
export type CasResult =
  | { readonly ok: true; readonly version: number }
  | { readonly ok: false; readonly current: MetadataEntry | undefined };

/** A small, durable key-value store with compare-and-set: topics, cluster id, epochs. */
export interface MetadataStore {
  /** Why this store takes no more changes, if so. Reading goes on. */
  readonly failure: Error | undefined;
  get(key: string): Promise<MetadataEntry | undefined>;
  /**
   * Sets `key` if its version is still `expectedVersion` (0: the key must not exist). Resolves when durable.
   * `value` undefined deletes the key.
   */
  compareAndSet(key: string, value: string | undefined, expectedVersion: number): Promise<CasResult>;
  /** Entries whose key begins with `prefix`, in key order. */
  list(prefix: string): Promise<readonly MetadataEntry[]>;
  /** Calls `listener` after each change below `prefix` (`entry` undefined: deleted). Returns the unsubscriber. */
  watch(prefix: string, listener: (key: string, entry: MetadataEntry | undefined) => void): () => void;
}

/** How an engine lays out one partition's log; topic configuration in Kafka's terms. */
export interface LogConfig {
  /** A segment is closed before it would grow past this. */
  readonly segmentBytes: number;
  /** A segment is closed when a record arrives this much later (by timestamp) than the segment's first. */
  readonly segmentMs: number;
  /** Bytes of log between two entries of the offset index. */
  readonly indexIntervalBytes: number;
  /** Files that are no longer part of the log are kept under another name for this long before they are removed. */
  readonly fileDeleteDelayMs: number;
}

/** Whole record batches, in offset order, as views that stay valid as long as they are held. */
export interface LogSlice {
  readonly chunks: readonly Buffer[];
  readonly byteLength: number;
  /** Offset after the last record in the slice; equal to the offset asked for when the slice is empty. */
  readonly nextOffset: Offset;
}

/** Facts about a partition's log, for describing it. */
export interface LogStats {
  readonly segmentCount: number;
  readonly sizeInBytes: number;
  /**
   * Largest timestamp of the first batch of the first segment that has one, in ms since the epoch; -1 when none has. Of
   * segments as a whole: what lies below `startOffset` counts until its segment goes.
   */
  readonly oldestTimestamp: number;
  /** Largest timestamp of all segments, in ms since the epoch; -1 when none has one. */
  readonly newestTimestamp: number;
}

/** A piece of a log, which retention and compaction take whole. */
export interface SegmentInfo {
  readonly baseOffset: Offset;
  /** Offset after its last record slot. */
  readonly nextOffset: Offset;
  readonly sizeInBytes: number;
  /** Largest timestamp of its first batch, -1 when it is empty or that batch has none. */
  readonly firstTimestamp: number;
  /** Largest timestamp of all its records, -1 when none has one. */
  readonly maxTimestamp: number;
  /** Wall clock in ms of its beginning and of the last append to it, as well as they are known after a restart. */
  readonly createdMs: number;
  readonly modifiedMs: number;
  /**
   * Whether any of its batches names a producer, or has records that came with message ids: only these need to be read to
   * find out what producers have sent.
   */
  readonly hasProducers: boolean;
}

/** A kind of side file, which is its suffix: see `src/partition/producers`. */
export type SideFileKind = 'snapshot' | 'txnindex';

/**
 * Files that the user of a log keeps beside it, to be found again with it and removed with it. Each belongs to an offset
 * and is replaced whole. What is in them is derived from the log: one that is missing or damaged is no loss. Those above
 * the end of the log are gone when it is opened: what they speak of is lost, and their offsets will name other records.
 * What is asked for is carried out in call order.
 */
export interface SideFiles {
  /** The offsets of which there is one, ascending. */
  offsets(kind: SideFileKind): readonly Offset[];
  /**
   * Undefined: there is none, or one that is larger than any that is written.
   * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT, CLOSED
   */
  read(kind: SideFileKind, offset: Offset): Promise<Buffer | undefined>;
  /**
   * Resolves when it is durable, as far as the log is: one beside a log of which nothing is durable yet may go with it.
   * `contents`, at most 64 MiB, must not change until then.
   * @throws LogError STORAGE_FULL, STORAGE_ERROR, RESOURCE_LIMIT (also when it is too large): the one before is still
   *   there, or the new one; CLOSED, FENCED_EPOCH: the one before
   */
  write(kind: SideFileKind, offset: Offset, contents: Uint8Array): Promise<void>;
  /** Does nothing where there is none. After a power cut it may be there again. @throws LogError as `write` */
  remove(kind: SideFileKind, offset: Offset): Promise<void>;
}

/** What one compaction may do. Times in ms since the epoch, spans in ms. */
export interface CompactOptions {
  /** Only segments that end at or below this are touched: at most the last stable offset. */
  readonly upTo: Offset;
  readonly nowMs: number;
  /** How long a tombstone outlives the compaction that met it first (`delete.retention.ms`). */
  readonly deleteRetentionMs: number;
  /** A producer without writes for longer need not be remembered by its last batch. */
  readonly producerExpirationMs: number;
  /** Memory for the map of keys; when the keys do not fit, several passes are made. */
  readonly maxMapBytes: number;
  /** Ends the compaction between two pieces of work; what is done by then stays done. */
  readonly signal?: AbortSignal;
}

/** What a compaction did. */
export interface CompactResult {
  /** Passes over the log; more than one when the map of keys was too small. */
  readonly passCount: number;
  /** Everything below holds at most one record for each key; records from here on were left as they are. */
  readonly cleanedOffset: Offset;
  /** Bytes of the segments that were read, and of those that took their place. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly recordsBefore: number;
  readonly recordsAfter: number;
}

/**
 * The log of one partition: record batches (magic 2) with ascending offsets, dense as they are appended; compaction
 * leaves holes. Invariants: `startOffset <= durableOffset <= endOffset`; an offset below `durableOffset` names the same
 * record for ever and survives power loss; an append is whole or absent.
 */
export interface PartitionLog extends AsyncDisposable {
  readonly id: TopicPartition;
  readonly epoch: Epoch;
  /** Log start offset: nothing below it can be read. */
  readonly startOffset: Offset;
  /** Log end offset: what the next record will get. */
  readonly endOffset: Offset;
  /** Everything below survives power loss. */
  readonly durableOffset: Offset;
  /** Everything below was compacted: it holds at most one record for each key. At least `startOffset`. */
  readonly cleanedOffset: Offset;
  /** Why this log takes no more appends, if so. Reading goes on. */
  readonly failure: Error | undefined;
  readonly sideFiles: SideFiles;

  /**
   * Appends whole batches whose base offsets are already set, the first to `at`, each to the end of the one before.
   * The buffers belong to the log from here on. Several appends may be under way; they are carried out in call order.
   * Resolves to the new end offset when the bytes survive the death of this process.
   * @throws LogError WRONG_OFFSET (the log does not end at `at`), FENCED_EPOCH, STORAGE_FULL: nothing was appended;
   *   STORAGE_ERROR: outcome unknown, the log is poisoned
   */
  append(batches: readonly Buffer[], at: Offset): Promise<Offset>;
  /**
   * Resolves when everything below `upTo` (at most `endOffset`) survives power loss. Calls made while a sync is under
   * way share the next one.
   * @throws LogError STORAGE_ERROR: the log is poisoned; a sync is never tried twice. RESOURCE_LIMIT: no file handle
   *   was free, nothing was synced, and a later call may succeed
   */
  flush(upTo: Offset): Promise<void>;
  /**
   * Whole batches from the one that contains `from`, or the first after it where compaction left a hole, up to but
   * excluding offset `to`, about `maxBytes` in all but at least one batch if there is one. Every batch served was checked
   * against its CRC.
   * @throws LogError OFFSET_OUT_OF_RANGE (below `startOffset` or above `endOffset`), CORRUPT_LOG, STORAGE_ERROR
   */
  read(from: Offset, to: Offset, maxBytes: number): Promise<LogSlice>;
  /**
   * Base offset of the first batch at or above `startOffset` whose largest record timestamp is `>= timestampMs`, if any. A
   * batch that compaction has emptied has no record, and so no timestamp.
   */
  batchForTime(timestampMs: number): Promise<Offset | undefined>;
  /**
   * Base offset of the first of the batches from `startOffset` up to but excluding `to` that hold the largest timestamp
   * of them all; undefined when none of them has a timestamp.
   */
  batchForMaxTimestamp(to: Offset): Promise<Offset | undefined>;
  /**
   * Raises the log start offset, durably, unless it is there already; then drops the segments wholly below it, but never
   * the last one. At most `endOffset`.
   */
  trim(before: Offset): Promise<void>;
  /** Ends the segment that takes the appends, unless it is empty; the next append begins another. */
  roll(): Promise<void>;
  /**
   * Removes records that a later record with the same key has made obsolete, old tombstones and what aborted
   * transactions left, from the segments below `upTo`. Offsets stay as they are. The last segment is never touched. A
   * crash at any point leaves each replaced segment as it was or as it is meant to be.
   * @throws LogError CORRUPT_LOG (a segment is damaged), STORAGE_FULL, STORAGE_ERROR: what was not replaced by then
   *   is as it was; CONCURRENT_UPDATE: the log is being compacted already; CLOSED
   */
  compact(options: CompactOptions): Promise<CompactResult>;
  /** Follows a changed configuration from the next append on. */
  configure(config: LogConfig): void;
  /** The segments, ascending; the last one takes the appends. A snapshot. */
  segments(): readonly SegmentInfo[];
  stats(): LogStats;
  /** Flushes and lets go of files. Idempotent; later calls on the log fail with CLOSED. */
  close(): Promise<void>;
}

export interface StorageEngine extends AsyncDisposable {
  readonly metadata: MetadataStore;
  /**
   * Whether everything that was ever accepted is there: nothing but a clean stop came before this start. False or absent:
   * what was written and not durable may be missing.
   */
  readonly startedClean?: boolean;
  /**
   * Opens a partition's log, creating it if there is none, and fences every log opened under an older epoch.
   * @throws LogError FENCED_EPOCH when a newer epoch has opened it, STORAGE_ERROR
   */
  open(id: TopicPartition, epoch: Epoch, config: LogConfig): Promise<PartitionLog>;
  /** Deletes a partition's log for good. An open one is closed first. Does nothing when there is none. */
  remove(id: TopicPartition): Promise<void>;
  /**
   * Removes the logs that never held anything and of which `isKnown` does not know: what a user that stopped while it
   * opened them has left. One that holds something is kept and reported. To be called before anything else is opened.
   */
  removeUnknown(isKnown: (id: TopicPartition) => boolean): Promise<void>;
  /** Closes every log and marks the storage as cleanly stopped. Idempotent. */
  close(): Promise<void>;
}
