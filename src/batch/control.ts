/**
 * Control records: transaction markers and the like. They take an offset each and are never shown to consumers.
 *
 *     control batch = attribute bit 5, one record, never compressed
 *     key           = version i16, type i16; later versions may append fields
 */
import { LogError } from '../core/errors.js';
import { attributesOf, baseOffsetOf, CODEC_MASK, isControl } from './layout.js';
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
