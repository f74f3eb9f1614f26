import type { LogConfig } from '../storage/engine.js';

/** What a partition obeys of its topic's configuration. */
export interface PartitionConfig extends LogConfig {
  /** Largest record batch, header included. */
  readonly maxMessageBytes: number;
  /** The broker stamps its own time on every batch (message.timestamp.type=LogAppendTime). */
  readonly logAppendTime: boolean;
  /** How far a record's timestamp may lie in the future. */
  readonly timestampAfterMaxMs: number;
  /** How far a record's timestamp may lie in the past. */
  readonly timestampBeforeMaxMs: number;
  /** Segments whose largest record timestamp is older are deleted; -1 for never. */
  readonly retentionMs: number;
  /** The oldest segments are deleted while the rest still holds this many bytes; -1 for never. */
  readonly retentionBytes: number;
  /** The oldest segments are deleted while the rest still spans this many offsets; -1 for never. */
  readonly retentionRecords: number;
  /** What cleanup.policy names: the three limits above, compaction by key, or both. */
  readonly cleanupDelete: boolean;
  readonly cleanupCompact: boolean;
  /** Compaction is due when the part of the log that is not compacted exceeds this share, 0 to 1, ... */
  readonly minCleanableDirtyRatio: number;
  /** ... or when something in it is older than this; and nothing younger than the minimum is touched. */
  readonly maxCompactionLagMs: number;
  readonly minCompactionLagMs: number;
  /** How long tombstones outlive the compaction that met them first. */
  readonly deleteRetentionMs: number;
  /** Written data is synced at the latest this long after the write, when nobody asked for it earlier. */
  readonly flushMs: number;
  /** How long the ids of records that came with one are remembered. */
  readonly dedupeWindowMs: number;
}
