/**
 * Control records: transaction markers and the like. They take an offset each and are never shown to consumers.
 *
 *     control batch = attribute bit 5, one record, never compressed
 *     key           = version i16, type i16; later versions may append fields
 *     value         = version i16, coordinatorEpoch i32, of types 0 and 1, which are transaction markers
 */
import { LogError } from '../core/errors.js';
import { encodeBatch } from './builder.js';
import { attributesOf, baseOffsetOf, CODEC_MASK, isControl, recordCountOf } from './layout.js';
import { openRecords, RecordCursor } from './records.js';

/** What a control record says of itself. */
export interface ControlRecord {
  readonly type: number;
  /** Kafka's name of the type; UNKNOWN for those that readers are to ignore. */
  readonly name: string;
  /** Version of the key. */
  readonly version: number;
}

/** Kafka's control record types; the index is the number in the key. */
const CONTROL_TYPES: readonly string[] = [
  'ABORT',
  'COMMIT',
  'LEADER_CHANGE',
  'SNAPSHOT_HEADER',
  'SNAPSHOT_FOOTER',
  'KRAFT_VERSION',
  'KRAFT_VOTERS',
];

const KEY_BYTES = 4;
const MARKER_VALUE_BYTES = 6;
const ABORT_TYPE = 0;
const COMMIT_TYPE = 1;

/** Size of the batch that `encodeTransactionMarker` makes. */
export const MARKER_BATCH_BYTES = 78;

/** The end of a producer's transaction in one partition. */
export interface TransactionMarker {
  readonly producerId: number;
  /** The epoch that the producer has from here on. */
  readonly producerEpoch: number;
  readonly commit: boolean;
  readonly coordinatorEpoch: number;
  /** Of the append, ms since the epoch. */
  readonly timestampMs: number;
}

/** What the batch of a marker says of the transaction. */
export interface MarkerFacts {
  /** Unknown of a marker of which compaction has left the header alone: none of its transaction's records are left. */
  readonly outcome: 'commit' | 'abort' | 'unknown';
  readonly coordinatorEpoch: number | undefined;
}

/** The batch of a marker, to be given its offset. */
export function encodeTransactionMarker(marker: TransactionMarker): Buffer {
  const key = Buffer.alloc(KEY_BYTES);
  key.writeInt16BE(marker.commit ? COMMIT_TYPE : ABORT_TYPE, 2);
  const value = Buffer.alloc(MARKER_VALUE_BYTES);
  value.writeInt32BE(marker.coordinatorEpoch, 2);
  const { producerId, producerEpoch, timestampMs } = marker;
  const options = { producerId, producerEpoch, transactional: true, control: true };
  return encodeBatch([{ timestampMs, key, value }], options);
}

/** What a control batch says of its producer's transaction; undefined when it is no marker, or none that can be read. */
export function readTransactionMarker(batch: Buffer): MarkerFacts | undefined {
  if (recordCountOf(batch, 0) === 0) return { outcome: 'unknown', coordinatorEpoch: undefined };
  try {
    const cursor = openControlBatch(batch);
    if (!cursor.next()) return undefined;
    const { key, value } = cursor;
    const type = key === null || key.length < KEY_BYTES ? undefined : key.readInt16BE(2);
    if (type !== ABORT_TYPE && type !== COMMIT_TYPE) return undefined;
    const hasEpoch = value !== null && value.length >= MARKER_VALUE_BYTES;
    return {
      outcome: type === COMMIT_TYPE ? 'commit' : 'abort',
      coordinatorEpoch: hasEpoch ? value.readInt32BE(2) : undefined,
    };
  } catch (error) {
    if (error instanceof LogError && error.reason === 'CORRUPT_MESSAGE') return undefined;
    throw error;
  }
}

/**
 * The first record of a control batch; types that are not known are told as UNKNOWN.
 * @throws LogError CORRUPT_MESSAGE when `batch` is no control batch or holds no control record
 */
export function readControlRecord(batch: Buffer): ControlRecord {
  const cursor = openControlBatch(batch);
  if (!cursor.next()) throw corrupt(batch, 'it holds no record');
  const key = cursor.key;
  if (key === null || key.length < KEY_BYTES) throw corrupt(batch, 'its key is too short');
  const type = key.readInt16BE(2);
  return { type, name: CONTROL_TYPES[type] ?? 'UNKNOWN', version: key.readInt16BE(0) };
}

function openControlBatch(batch: Buffer): RecordCursor {
  const attributes = attributesOf(batch, 0);
  if (!isControl(attributes)) throw corrupt(batch, 'it does not have the control bit');
  if ((attributes & CODEC_MASK) !== 0) throw corrupt(batch, 'it is compressed');
  const cursor = openRecords(batch);
  if (cursor instanceof RecordCursor) return cursor;
  throw corrupt(batch, 'it is compressed');
}

function corrupt(batch: Buffer, detail: string): LogError {
  return new LogError('CORRUPT_MESSAGE', `The control batch at offset ${baseOffsetOf(batch, 0)} is broken: ${detail}.`);
}
