/**
 * Files of aborted transactions, in Kafka's layout of a transaction index:
 *
 *     txnindex = entry*             in the order of the markers
 *     entry    = version            i16   0
 *                producerId         i64
 *                firstOffset        i64   of the transaction in this partition
 *                lastOffset         i64   of its ABORT marker
 *                lastStableOffset   i64   see `AbortedEntry`
 */
import { crc32c } from '../../batch/crc32c.js';
import type { AbortedEntry } from './aborted-tail.js';
import { ByteReader, ByteWriter } from './byte-cursor.js';

export const TXN_INDEX_ENTRY_BYTES = 34;
const VERSION = 0;

/** What is kept in memory of a file of aborted transactions. */
export interface AbortedFile {
  /** Offsets of the first and the last marker of its transactions; the first names the file. */
  readonly firstMarker: number;
  readonly lastMarker: number;
  /** No transaction of it, and none that was open at any of its markers, begins below. */
  readonly leastOffset: number;
  /** No transaction that was open at its last marker, or began after it, begins below. */
  readonly lastStableOffset: number;
  readonly count: number;
  readonly crc: number;
}

export interface EncodedTxnIndex {
  readonly file: AbortedFile;
  readonly bytes: Buffer;
}

/** @param entries at least one, in the order of their markers */
export function encodeTxnIndex(entries: readonly AbortedEntry[]): EncodedTxnIndex {
  const writer = new ByteWriter(entries.length * TXN_INDEX_ENTRY_BYTES);
  let leastOffset = Number.POSITIVE_INFINITY;
  for (const { producerId, firstOffset, lastOffset, lastStableOffset } of entries) {
    writer.i16(VERSION);
    for (const value of [producerId, firstOffset, lastOffset, lastStableOffset]) writer.i64(value);
    leastOffset = Math.min(leastOffset, firstOffset, lastStableOffset);
  }
  const last = entries[entries.length - 1]!;
  const file: AbortedFile = {
    firstMarker: entries[0]!.lastOffset,
    lastMarker: last.lastOffset,
    leastOffset,
    lastStableOffset: last.lastStableOffset,
    count: entries.length,
    crc: crc32c(writer.buffer),
  };
  return { file, bytes: writer.buffer };
}

/** The entries of a file; undefined when the bytes are not those that were written. */
export function decodeTxnIndex(file: AbortedFile, bytes: Buffer): AbortedEntry[] | undefined {
  if (bytes.length !== file.count * TXN_INDEX_ENTRY_BYTES || crc32c(bytes) !== file.crc) return undefined;
  const reader = new ByteReader(bytes);
  return Array.from({ length: file.count }, () => {
    reader.i16();
    return {
      producerId: reader.i64(),
      firstOffset: reader.i64(),
      lastOffset: reader.i64(),
      lastStableOffset: reader.i64(),
    };
  });
}
