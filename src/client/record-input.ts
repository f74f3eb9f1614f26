/** What users hand to a producer, turned into what a batch takes. */
import type { RecordHeader } from '../batch/builder.js';
import { LogError } from '../core/errors.js';

type HeaderValue = string | Uint8Array | null;

/** Headers by key, or in order where keys repeat. Strings are written as UTF-8. */
export type HeadersInput =
  | Readonly<Record<string, HeaderValue>>
  | readonly { readonly key: string; readonly value: HeaderValue }[];

/** A record to send. */
export interface RecordInput<K, V> {
  /** Records with equal keys go to the same partition. Absent or null: no key. */
  readonly key?: K | null;
  readonly value: V;
  readonly headers?: HeadersInput;
  /** ms since the epoch. Default: now. */
  readonly timestampMs?: number | Date;
  /** Default: chosen by the partitioner. */
  readonly partition?: number;
}

/** @throws LogError INVALID_TIMESTAMP unless it is a valid Date or a whole number of ms */
export function toTimestampMs(timestamp: number | Date): number {
  const timestampMs = typeof timestamp === 'number' ? timestamp : timestamp.getTime();
  if (!Number.isSafeInteger(timestampMs) || timestampMs < 0) {
    throw new LogError(
      'INVALID_TIMESTAMP',
      `A record's timestamp is a valid Date or a whole number of ms since the epoch, not ${String(timestamp)}.`,
    );
  }
  return timestampMs;
}

/** @throws LogError INVALID_RECORD */
export function toHeaders(headers: HeadersInput): RecordHeader[] {
  if (Array.isArray(headers)) {
    return headers.map(({ key, value }: { key: string; value: HeaderValue }) => toHeader(key, value));
  }
  return Object.entries(headers).map(([key, value]) => toHeader(key, value as HeaderValue));
}

function toHeader(key: unknown, value: HeaderValue): RecordHeader {
  if (typeof key !== 'string') throw new LogError('INVALID_RECORD', 'The key of a header is a string.');
  if (value === null || value instanceof Uint8Array) return { key, value };
  if (typeof value === 'string') return { key, value: Buffer.from(value, 'utf8') };
  throw new LogError(
    'INVALID_RECORD',
    `The value of header ${key} is a string, a Uint8Array or null, not ${typeof value}.`,
  );
}

/** Lengths, deltas and counts of one record, at their longest, and the header of its batch. */
const RECORD_OVERHEAD_BYTES = 100;
/** Lengths of one header at their longest; a UTF-16 unit of its key takes at most 3 bytes. */
const HEADER_OVERHEAD_BYTES = 10;

/** No batch with this one record is larger. */
export function largestBatchBytes(
  key: Uint8Array | null,
  value: Uint8Array | null,
  headers: readonly RecordHeader[] | undefined,
): number {
  let bytes = RECORD_OVERHEAD_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
  if (headers === undefined) return bytes;
  for (const header of headers) bytes += HEADER_OVERHEAD_BYTES + header.key.length * 3 + (header.value?.length ?? 0);
  return bytes;
}
