/** Plain records, for clients without an encoder for record batches. */
import { attributesOf, isControl, nextOffsetOf, sizeInBytesOf } from '../../batch/layout.js';
import { openRecords, type RecordCursor } from '../../batch/records.js';
import type { Fetched } from '../../broker/fetch.js';
import type { PlainRecord } from '../../broker/produce.js';
import type { RecordMessage } from '../../rpc/messages.js';
import { AbortedBatches } from './aborted-batches.js';

/**
 * Plain records in one answer, about: gRPC clients take 4 MiB by default, and compressed batches may hold far more
 * than their size on disk.
 */
export const MAX_PLAIN_BYTES: number = 2 * 1024 * 1024;
/** What a record takes besides its key, value and headers. */
const RECORD_OVERHEAD_BYTES = 32;

/** Records of a produce request, as the broker takes them. Timestamp 0 means now. */
export function toPlainRecords(messages: readonly RecordMessage[]): PlainRecord[] {
  return messages.map((message) => ({
    timestampMs: message.timestampMs === 0 ? undefined : message.timestampMs,
    key: message.key ?? null,
    value: message.value ?? null,
    headers: message.headers.map((header) => ({ key: header.key, value: header.value ?? null })),
  }));
}

export interface PlainRecords {
  readonly records: RecordMessage[];
  /** Where to read on: after the last record, or after the last batch when all fitted. */
  readonly nextOffset: number;
}

/**
 * The records at or above `fromOffset` in what was read, until they have `maxBytes`; at least one, if there is one to
 * show: control records and those of aborted transactions are passed over.
 */
export async function toRecordMessages(
  { chunks, aborted }: Pick<Fetched, 'chunks' | 'aborted'>,
  fromOffset: number,
  maxBytes: number,
): Promise<PlainRecords> {
  const records: RecordMessage[] = [];
  let bytes = 0;
  let nextOffset = fromOffset;
  const abortedBatches = new AbortedBatches(aborted);
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
      const batch = chunk.subarray(at, at + sizeInBytesOf(chunk, at));
      if (nextOffsetOf(batch, 0) <= fromOffset) continue;
      const isHidden = isControl(attributesOf(batch, 0)) || abortedBatches.has(batch);
      const cursor = isHidden ? undefined : await openRecords(batch);
      while (cursor?.next()) {
        if (cursor.offset < fromOffset) continue;
        if (bytes >= maxBytes) return { records, nextOffset };
        const record = toRecordMessage(cursor);
        records.push(record);
        bytes += sizeOf(record);
        nextOffset = cursor.offset + 1;
      }
      nextOffset = nextOffsetOf(batch, 0);
    }
  }
  return { records, nextOffset };
}

function toRecordMessage(cursor: RecordCursor): RecordMessage {
  return {
    offset: cursor.offset,
    timestampMs: cursor.timestampMs,
    key: cursor.key ?? undefined,
    value: cursor.value ?? undefined,
    headers: cursor.headers.map(({ key, value }) => ({
      key,
      value: value === null ? undefined : Buffer.from(value),
    })),
  };
}

function sizeOf({ key, value, headers }: RecordMessage): number {
  let bytes = RECORD_OVERHEAD_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
  for (const header of headers) bytes += header.key.length + (header.value?.length ?? 0);
  return bytes;
}
