/**
 * Snapshots of what a partition knows of its producers after all batches below an offset, which names the file. The
 * layout is version 1 of Kafka's, and readable by its tools; behind it stands what Kafka would have to read the log for.
 *
 *     snapshot  = version            i16   1
 *                 crc                u32   CRC-32C of everything behind it
 *                 entryCount         i32
 *                 entry*
 *                 extension                nothing at all when there is nothing to say: no entries and none of the rest
 *     entry     = producerId         i64
 *                 epoch              i16
 *                 lastSequence       i32   -1: nothing was sent under this epoch
 *                 lastOffset         i64   of the last batch; -1 without one
 *                 offsetDelta        i32   its last offset - its first
 *                 timestamp          i64   of the last batch or marker, ms
 *                 coordinatorEpoch   i32   -1: no marker yet
 *                 firstOffset        i64   of the open transaction; -1 without one
 *
 *     extension = version            i16   1
 *                 rest*                    one for each entry, in the same order
 *                 abortedCount       i32
 *                 aborted*                 transactions that are in no file, in the order of their markers
 *                 fileCount          i32
 *                 file*                    files of aborted transactions, in the order of their markers
 *                 sectionCount       i32
 *                 section*
 *     rest      = lastWrite          i64   by the broker's clock, ms
 *                 transactionSince   i64   -1 without an open transaction
 *                 batchCount         i8    0 to 5
 *                 batch*                   the oldest first
 *     batch     = firstSequence      i32
 *                 offsetDelta        i32
 *                 firstOffset        i64
 *                 timestamp          i64
 *                 flags              i8    bit 0: the timestamp is the time of the append
 *     aborted   = producerId i64, firstOffset i64, lastOffset i64, lastStableOffset i64
 *     file      = firstMarker i64, lastMarker i64, leastOffset i64, lastStableOffset i64, count i32, crc u32
 *     section   = kind i32, length i32, bytes     of whoever else keeps something there
 */
import { crc32c } from '../../batch/crc32c.js';
import { NO_SEQUENCE } from '../../batch/layout.js';
import type { Slices } from '../../core/slices.js';
import type { AbortedEntry } from './aborted-tail.js';
import { ByteReader, ByteWriter } from './byte-cursor.js';
import { lastSequenceOf, type ProducerBatch, type ProducerEntry, REMEMBERED_BATCHES } from './producer-entry.js';
import { addToSequence } from './sequence.js';
import type { AbortedFile } from './txn-index.js';

const VERSION = 1;
const EXTENSION_VERSION = 1;
/** Version, CRC and number of entries: all of a snapshot that says nothing. */
const HEADER_BYTES = 10;
const CRC_AT = 2;
const CRC_COVERS_FROM = 6;
const ENTRY_BYTES = 46;
const REST_BYTES = 17;
const BATCH_BYTES = 25;
const ABORTED_BYTES = 32;
const FILE_BYTES = 40;
const SECTION_HEADER_BYTES = 8;
/** The version and three counts. */
const EXTENSION_BYTES = 14;
const LOG_APPEND_TIME_FLAG = 1;
const NONE = -1;

/** Bytes of somebody else's that travel with a snapshot. */
export interface SnapshotSection {
  readonly kind: number;
  readonly bytes: Buffer;
}

export interface SnapshotContents {
  /** Those with an open transaction in the order of their first offsets. */
  readonly entries: readonly ProducerEntry[];
  readonly aborted: readonly AbortedEntry[];
  readonly abortedFiles: readonly AbortedFile[];
  readonly sections: readonly SnapshotSection[];
}

/** In turns, because there may be very many entries. */
export async function encodeSnapshot(contents: SnapshotContents, slices: Slices): Promise<Buffer> {
  const { entries, aborted, abortedFiles, sections } = contents;
  const isEmpty = entries.length + aborted.length + abortedFiles.length + sections.length === 0;
  const writer = new ByteWriter(isEmpty ? HEADER_BYTES : sizeOf(contents));
  writer.i16(VERSION);
  writer.i32(0);
  writer.i32(entries.length);
  for (const entry of entries) {
    writeEntry(writer, entry);
    const pause = slices.step();
    if (pause !== undefined) await pause;
  }
  if (!isEmpty) await writeExtension(writer, contents, slices);
  writer.buffer.writeUInt32BE(crc32c(writer.buffer.subarray(CRC_COVERS_FROM)), CRC_AT);
  return writer.buffer;
}

function sizeOf({ entries, aborted, abortedFiles, sections }: SnapshotContents): number {
  let size = HEADER_BYTES + EXTENSION_BYTES + aborted.length * ABORTED_BYTES + abortedFiles.length * FILE_BYTES;
  for (const { batches } of entries) size += ENTRY_BYTES + REST_BYTES + batches.length * BATCH_BYTES;
  for (const { bytes } of sections) size += SECTION_HEADER_BYTES + bytes.length;
  return size;
}

function writeEntry(writer: ByteWriter, entry: ProducerEntry): void {
  const last = entry.batches[entry.batches.length - 1];
  writer.i64(entry.producerId);
  writer.i16(entry.epoch);
  writer.i32(lastSequenceOf(entry));
  writer.i64(last?.lastOffset ?? NONE);
  writer.i32(last === undefined ? 0 : last.lastOffset - last.baseOffset);
  writer.i64(entry.lastTimestampMs);
  writer.i32(entry.coordinatorEpoch);
  writer.i64(entry.transaction?.firstOffset ?? NONE);
}

async function writeExtension(writer: ByteWriter, contents: SnapshotContents, slices: Slices): Promise<void> {
  writer.i16(EXTENSION_VERSION);
  for (const entry of contents.entries) {
    writeRest(writer, entry);
    const pause = slices.step();
    if (pause !== undefined) await pause;
  }
  writer.i32(contents.aborted.length);
  for (const { producerId, firstOffset, lastOffset, lastStableOffset } of contents.aborted) {
    for (const value of [producerId, firstOffset, lastOffset, lastStableOffset]) writer.i64(value);
  }
  writer.i32(contents.abortedFiles.length);
  for (const { firstMarker, lastMarker, leastOffset, lastStableOffset, count, crc } of contents.abortedFiles) {
    for (const value of [firstMarker, lastMarker, leastOffset, lastStableOffset]) writer.i64(value);
    writer.i32(count);
    writer.i32(crc);
  }
  writer.i32(contents.sections.length);
  for (const { kind, bytes } of contents.sections) {
    writer.i32(kind);
    writer.i32(bytes.length);
    writer.bytes(bytes);
  }
}

function writeRest(writer: ByteWriter, { lastWriteMs, transaction, batches }: ProducerEntry): void {
  writer.i64(lastWriteMs);
  writer.i64(transaction?.sinceMs ?? NONE);
  writer.i8(batches.length);
  for (const { firstSequence, baseOffset, lastOffset, timestampMs, logAppendTime } of batches) {
    writer.i32(firstSequence);
    writer.i32(lastOffset - baseOffset);
    writer.i64(baseOffset);
    writer.i64(timestampMs);
    writer.i8(logAppendTime ? LOG_APPEND_TIME_FLAG : 0);
  }
}

/**
 * Reads a snapshot, also one that Kafka has written, in turns.
 * @param nowMs what is taken for the time of the last write where none is told; none is later than this
 * @throws Error saying why it is not one
 */
export async function decodeSnapshot(bytes: Buffer, nowMs: number, slices: Slices): Promise<SnapshotContents> {
  const reader = new ByteReader(bytes);
  const version = reader.i16();
  if (version !== VERSION) throw new Error(`its version is ${version}, not ${VERSION}`);
  const crc = reader.u32();
  if (crc !== crc32c(bytes.subarray(CRC_COVERS_FROM))) throw new Error('its CRC does not hold');
  const entries: ProducerEntry[] = [];
  for (let left = reader.count(ENTRY_BYTES); left > 0; left--) {
    entries.push(readEntry(reader, nowMs));
    const pause = slices.step();
    if (pause !== undefined) await pause;
  }
  if (reader.left === 0) return { entries, aborted: [], abortedFiles: [], sections: [] };
  return await readExtension(reader, entries, nowMs, slices);
}

/** What Kafka remembers of a producer: its last batch alone. */
function readEntry(reader: ByteReader, nowMs: number): ProducerEntry {
  const producerId = natural(reader.i64());
  const epoch = natural(reader.i16());
  const lastSequence = reader.i32();
  const lastOffset = reader.i64();
  const offsetDelta = natural(reader.i32());
  const timestampMs = reader.i64();
  const coordinatorEpoch = reader.i32();
  const firstOffset = reader.i64();
  const baseOffset = lastOffset - offsetDelta;
  const last =
    lastSequence === NO_SEQUENCE
      ? undefined
      : batchOf(
          firstSequenceOf(natural(lastSequence), offsetDelta),
          offsetDelta,
          natural(baseOffset),
          timestampMs,
          false,
        );
  return {
    producerId,
    epoch,
    batches: last === undefined ? [] : [last],
    coordinatorEpoch,
    lastTimestampMs: timestampMs,
    lastWriteMs: nowMs,
    transaction: firstOffset < 0 ? undefined : { producerId, producerEpoch: epoch, firstOffset, sinceMs: nowMs },
  };
}

function firstSequenceOf(lastSequence: number, offsetDelta: number): number {
  return lastSequence >= offsetDelta ? lastSequence - offsetDelta : lastSequence - offsetDelta + 2 ** 31;
}

function batchOf(
  firstSequence: number,
  offsetDelta: number,
  baseOffset: number,
  timestampMs: number,
  logAppendTime: boolean,
): ProducerBatch {
  return {
    firstSequence,
    lastSequence: addToSequence(firstSequence, offsetDelta),
    baseOffset,
    lastOffset: baseOffset + offsetDelta,
    timestampMs,
    logAppendTime,
  };
}

async function readExtension(
  reader: ByteReader,
  known: readonly ProducerEntry[],
  nowMs: number,
  slices: Slices,
): Promise<SnapshotContents> {
  const version = reader.i16();
  if (version !== EXTENSION_VERSION)
    throw new Error(`the version of its extension is ${version}, not ${EXTENSION_VERSION}`);
  const entries: ProducerEntry[] = [];
  for (const entry of known) {
    entries.push(withRest(entry, reader, nowMs));
    const pause = slices.step();
    if (pause !== undefined) await pause;
  }
  const aborted = Array.from({ length: reader.count(ABORTED_BYTES) }, () => readAborted(reader));
  const abortedFiles = Array.from({ length: reader.count(FILE_BYTES) }, () => readFile(reader));
  const sections = Array.from({ length: reader.count(SECTION_HEADER_BYTES) }, () => readSection(reader));
  if (reader.left > 0) throw new Error(`${reader.left} bytes are left behind its end`);
  return { entries, aborted, abortedFiles, sections };
}

function withRest(entry: ProducerEntry, reader: ByteReader, nowMs: number): ProducerEntry {
  const lastWriteMs = Math.min(reader.i64(), nowMs);
  const sinceMs = reader.i64();
  const count = natural(reader.i8());
  if (count > REMEMBERED_BATCHES) throw new Error(`it remembers ${count} batches of a producer`);
  const batches = Array.from({ length: count }, () => readBatch(reader));
  const { transaction } = entry;
  return { ...entry, batches, lastWriteMs, transaction: transaction && { ...transaction, sinceMs } };
}

function readBatch(reader: ByteReader): ProducerBatch {
  const firstSequence = natural(reader.i32());
  const offsetDelta = natural(reader.i32());
  const baseOffset = natural(reader.i64());
  const timestampMs = reader.i64();
  return batchOf(firstSequence, offsetDelta, baseOffset, timestampMs, (reader.i8() & LOG_APPEND_TIME_FLAG) !== 0);
}

function readAborted(reader: ByteReader): AbortedEntry {
  return {
    producerId: natural(reader.i64()),
    firstOffset: natural(reader.i64()),
    lastOffset: natural(reader.i64()),
    lastStableOffset: natural(reader.i64()),
  };
}

function readFile(reader: ByteReader): AbortedFile {
  return {
    firstMarker: natural(reader.i64()),
    lastMarker: natural(reader.i64()),
    leastOffset: natural(reader.i64()),
    lastStableOffset: natural(reader.i64()),
    count: natural(reader.i32()),
    crc: reader.u32(),
  };
}

function readSection(reader: ByteReader): SnapshotSection {
  const kind = reader.i32();
  return { kind, bytes: reader.bytes(natural(reader.i32())) };
}

function natural(value: number): number {
  if (value < 0) throw new Error(`it holds the number ${value} where none below 0 can be`);
  return value;
}
