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
  /** Written data is synced at the latest this long after the write, when nobody asked for it earlier. */
  readonly flushMs: number;
}
