/**
 * Records as JSON lines: topic, partition, offset, timestamp (ISO, null for none), key, value, headers.
 *
 * Bytes that are UTF-8 are text. Others stand in Base64 under the name with `Base64` appended (`valueBase64`), and the
 * plain name is absent: nothing is lost. Headers are `[{"key", "value"}]`, for their order counts and names may repeat.
 */
import { isUtf8 } from 'node:buffer';

import type { RecordHeader } from '../batch/builder.js';

/** What a record says of itself. */
export interface PrintableFields {
  readonly offset: number;
  /** -1 for none. */
  readonly timestampMs: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly RecordHeader[];
}

/** A record and where it was read. */
export interface PrintableRecord extends PrintableFields {
  readonly topic: string;
  readonly partition: number;
}

/** The record on one line, without a line feed. */
export function formatJsonRecord(record: PrintableRecord): string {
  const { topic, partition } = record;
  return JSON.stringify({ topic, partition, ...formatJsonFields(record) });
}

/** The fields as an object for JSON. */
export function formatJsonFields({ offset, timestampMs, key, value, headers }: PrintableFields): object {
  return {
    offset,
    timestamp: formatTime(timestampMs),
    ...named('key', key),
    ...named('value', value),
    headers: headers.map((header) => ({ key: header.key, ...named('value', header.value) })),
  };
}

/** The time that was formatted last. Neighbours were mostly written in the same millisecond. */
let formattedMs = -1;
let formatted: string | null = null;

/** ISO 8601 in UTC; null for the timestamp -1, and for one beyond what a calendar has. */
export function formatTime(timestampMs: number): string | null {
  if (timestampMs === formattedMs) return formatted;
  const time = new Date(timestampMs);
  formatted = timestampMs < 0 || Number.isNaN(time.getTime()) ? null : time.toISOString();
  formattedMs = timestampMs;
  return formatted;
}

function named(name: string, bytes: Uint8Array | null): Readonly<Record<string, string | null>> {
  if (bytes === null) return { [name]: null };
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isUtf8(view)) return { [name]: view.toString('utf8') };
  return { [`${name}Base64`]: view.toString('base64') };
}
