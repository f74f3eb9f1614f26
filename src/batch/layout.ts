/**
 * Byte layout of Kafka's record batch, format version ("magic") 2: constants, field readers and the few fields that a
 * broker writes. All integers are big-endian two's complement.
 *
 *     batch = baseOffset            i64    0   offset of the first record slot; the broker sets it
 *             batchLength           i32    8   bytes after this field: total size - 12, at least 49
 *             partitionLeaderEpoch  i32   12   the broker sets it; -1 unknown
 *             magic                 i8    16   2
 *             crc                   u32   17   CRC-32C over everything from `attributes` to the end
 *             attributes            i16   21   bits 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control,
 *                                              6 baseTimestamp is a delete horizon, 7 unused,
 *                                              8 records carry message ids (ours: Kafka looks at 0-7), 9-15 unused
 *             lastOffsetDelta       i32   23   offset of the last record slot - baseOffset
 *             baseTimestamp         i64   27   ms; record timestamps are relative to it
 *             maxTimestamp          i64   35   ms; of the records, or the append time (LogAppendTime)
 *             producerId            i64   43   -1 without idempotence
 *             producerEpoch         i16   51
 *             baseSequence          i32   53
 *             recordCount           i32   57   never compressed
 *             records                     61   record*, or one compressed stream of them
 *
 *     record = length          varint         bytes after this field
 *              attributes      i8             0
 *              timestampDelta  varlong        timestamp - baseTimestamp
 *              offsetDelta     varint         offset - baseOffset
 *              keyLength       varint, key    -1: null
 *              valueLength     varint, value  -1: null (a tombstone on a compacted topic)
 *              headerCount     varint
 *              header*  =  keyLength varint, key (UTF-8), valueLength varint (-1: null), value
 *
 *     varint, varlong = zigzag, then groups of 7 bits, least significant first; the high bit says "more follows"
 *
 * The CRC covers neither baseOffset nor partitionLeaderEpoch, so a broker assigns both without touching it.
 *
 * The readers here validate nothing and read 64-bit fields as two 32-bit halves: a value beyond 2^53 comes out rounded,
 * never as a bigint. Offsets inside a checked batch are safe integers (see `validate.ts`).
 */
import { assert } from '../core/assert.js';
import { computeBatchCrc } from './crc32c.js';

/** Bytes before the field that counts the rest: baseOffset and batchLength. */
export const LOG_OVERHEAD = 12;
/** Bytes of a batch header; the size of a batch without records. */
export const RECORD_BATCH_OVERHEAD = 61;
/** The only supported format version. */
export const MAGIC = 2;
export const NO_PRODUCER_ID = -1;
export const NO_PRODUCER_EPOCH = -1;
export const NO_SEQUENCE = -1;
/** Timestamp of a record that has none. */
export const NO_TIMESTAMP = -1;
/** partitionLeaderEpoch of a batch that no broker has taken yet. */
export const NO_LEADER_EPOCH = -1;
/** Length, attributes, two deltas, two lengths and a header count, one byte each: no record is smaller. */
export const MIN_RECORD_BYTES = 7;

/** The latest time that a `Date` can hold. Beyond it no timestamp is accepted: it could not be shown. */
export const MAX_TIMESTAMP_MS = 8.64e15;
/**
 * Most records in one batch. An uncompressed batch of 1 MiB, the usual limit, holds at most 150,000; the rest is room for
 * compressed ones, while a reader that makes an object of each record stays within some 100 MB.
 */
export const MAX_RECORDS_PER_BATCH = 1_000_000;

/** Positions of the header's fields, from the start of the batch. */
export const BASE_OFFSET_AT = 0;
export const BATCH_LENGTH_AT = 8;
export const LEADER_EPOCH_AT = 12;
export const MAGIC_AT = 16;
export const CRC_AT = 17;
export const ATTRIBUTES_AT = 21;
export const LAST_OFFSET_DELTA_AT = 23;
export const BASE_TIMESTAMP_AT = 27;
export const MAX_TIMESTAMP_AT = 35;
export const PRODUCER_ID_AT = 43;
export const PRODUCER_EPOCH_AT = 51;
export const BASE_SEQUENCE_AT = 53;
export const RECORD_COUNT_AT = 57;

export const CODEC_MASK = 0x07;
export const LOG_APPEND_TIME_BIT = 0x08;
export const TRANSACTIONAL_BIT = 0x10;
export const CONTROL_BIT = 0x20;
export const DELETE_HORIZON_BIT = 0x40;
/** Not Kafka's, which knows the low byte alone and leaves the high one as it is. */
export const MESSAGE_IDS_BIT = 0x100;

export type Codec = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Every codec; the index is its number in the attributes. */
export const CODECS: readonly Codec[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

const TWO_POW_32 = 0x1_0000_0000;

// Plain byte arithmetic: several times faster than Buffer's checked readers and exact for what it is used on. The
// callers have made sure that the bytes are there; a byte that is not reads as 0.

function readInt16(buf: Buffer, at: number): number {
  return ((buf[at]! << 24) >> 16) | buf[at + 1]!;
}

function readInt32(buf: Buffer, at: number): number {
  return (buf[at]! << 24) | (buf[at + 1]! << 16) | (buf[at + 2]! << 8) | buf[at + 3]!;
}

function readInt64(buf: Buffer, at: number): number {
  return readInt32(buf, at) * TWO_POW_32 + (readInt32(buf, at + 4) >>> 0);
}

/** Writes a 32-bit integer, signed or unsigned; higher bits are cut off. */
export function writeInt32(buf: Buffer, at: number, value: number): void {
  buf[at] = value >>> 24;
  buf[at + 1] = value >>> 16;
  buf[at + 2] = value >>> 8;
  buf[at + 3] = value;
}

/** Writes a safe integer as a 64-bit field. */
export function writeInt64(buf: Buffer, at: number, value: number): void {
  writeInt32(buf, at, Math.floor(value / TWO_POW_32));
  // Bitwise operators take the value modulo 2^32, which is exactly the low half, also of a negative number.
  writeInt32(buf, at + 4, value >>> 0);
}

export function baseOffsetOf(buf: Buffer, at: number): number {
  return readInt64(buf, at + BASE_OFFSET_AT);
}

/** Size of the whole batch in bytes, as its header says: batchLength + 12. Nonsense below 61. */
export function sizeInBytesOf(buf: Buffer, at: number): number {
  return readInt32(buf, at + BATCH_LENGTH_AT) + LOG_OVERHEAD;
}

export function leaderEpochOf(buf: Buffer, at: number): number {
  return readInt32(buf, at + LEADER_EPOCH_AT);
}

export function magicOf(buf: Buffer, at: number): number {
  return (buf[at + MAGIC_AT]! << 24) >> 24;
}

/** The CRC that the header carries, unsigned. */
export function storedCrcOf(buf: Buffer, at: number): number {
  return readInt32(buf, at + CRC_AT) >>> 0;
}

export function attributesOf(buf: Buffer, at: number): number {
  return readInt16(buf, at + ATTRIBUTES_AT);
}

export function lastOffsetDeltaOf(buf: Buffer, at: number): number {
  return readInt32(buf, at + LAST_OFFSET_DELTA_AT);
}

/** Offset after the batch's last record slot: baseOffset + lastOffsetDelta + 1. */
export function nextOffsetOf(buf: Buffer, at: number): number {
  return baseOffsetOf(buf, at) + lastOffsetDeltaOf(buf, at) + 1;
}

export function baseTimestampOf(buf: Buffer, at: number): number {
  return readInt64(buf, at + BASE_TIMESTAMP_AT);
}

export function maxTimestampOf(buf: Buffer, at: number): number {
  return readInt64(buf, at + MAX_TIMESTAMP_AT);
}

export function producerIdOf(buf: Buffer, at: number): number {
  return readInt64(buf, at + PRODUCER_ID_AT);
}

export function producerEpochOf(buf: Buffer, at: number): number {
  return readInt16(buf, at + PRODUCER_EPOCH_AT);
}

export function baseSequenceOf(buf: Buffer, at: number): number {
  return readInt32(buf, at + BASE_SEQUENCE_AT);
}

export function recordCountOf(buf: Buffer, at: number): number {
  return readInt32(buf, at + RECORD_COUNT_AT);
}

/** The codec that the attributes name; undefined for the numbers 5 to 7, which name none. */
export function codecOf(attributes: number): Codec | undefined {
  return CODECS[attributes & CODEC_MASK];
}

export function isTransactional(attributes: number): boolean {
  return (attributes & TRANSACTIONAL_BIT) !== 0;
}

/** Whether the batch holds a transaction marker or the like, never shown to consumers. */
export function isControl(attributes: number): boolean {
  return (attributes & CONTROL_BIT) !== 0;
}

/**
 * Largest timestamp of the records of a batch that a reader is shown. What compaction has emptied keeps its time, but holds
 * no record of it; and the time of a marker is nobody's.
 */
export function newestRecordTimeOf(buf: Buffer, at: number): number {
  return recordCountOf(buf, at) === 0 || isControl(attributesOf(buf, at)) ? NO_TIMESTAMP : maxTimestampOf(buf, at);
}

/** Whether every record of the batch carries the batch's maxTimestamp. */
export function isLogAppendTime(attributes: number): boolean {
  return (attributes & LOG_APPEND_TIME_BIT) !== 0;
}

/** Whether baseTimestamp is the time from which compaction may drop the batch's tombstones. */
export function hasDeleteHorizon(attributes: number): boolean {
  return (attributes & DELETE_HORIZON_BIT) !== 0;
}

/** Whether the broker made the batch of records that came with message ids, which each of them carries in a header. */
export function carriesMessageIds(attributes: number): boolean {
  return (attributes & MESSAGE_IDS_BIT) !== 0;
}

/** Whether a start has to look at the batch: it names a producer, or its records came with message ids. */
export function isTracked(buf: Buffer, at: number): boolean {
  return producerIdOf(buf, at) >= 0 || carriesMessageIds(attributesOf(buf, at));
}

/**
 * Assigns a batch its place in the log: base offset (a safe integer >= 0) and leader epoch (i32). Writes bytes 0-7 and
 * 12-15 only; the CRC covers neither.
 */
export function stampBatch(buf: Buffer, at: number, baseOffset: number, leaderEpoch: number): void {
  assert(Number.isSafeInteger(baseOffset) && baseOffset >= 0, 'a base offset is a safe integer >= 0');
  assert((leaderEpoch | 0) === leaderEpoch, 'a leader epoch fits 32 bits');
  writeInt64(buf, at + BASE_OFFSET_AT, baseOffset);
  writeInt32(buf, at + LEADER_EPOCH_AT, leaderEpoch);
}

/** Gives every record of the batch the time of its append: attribute bit 3, maxTimestamp, and the CRC anew. */
export function setLogAppendTime(buf: Buffer, at: number, timestampMs: number): void {
  assert(Number.isSafeInteger(timestampMs), 'a timestamp is a safe integer');
  buf[at + ATTRIBUTES_AT + 1] = buf[at + ATTRIBUTES_AT + 1]! | LOG_APPEND_TIME_BIT;
  writeInt64(buf, at + MAX_TIMESTAMP_AT, timestampMs);
  writeCrc(buf, at);
}

/** Whether the batch is numbered like this. */
export function isNumbered(buf: Buffer, at: number, producerId: number, epoch: number, sequence: number): boolean {
  return (
    baseSequenceOf(buf, at) === sequence && producerEpochOf(buf, at) === epoch && producerIdOf(buf, at) === producerId
  );
}

/** Gives the batch another place in the sequence of its producer: id, epoch (i16), first sequence (i32), and the CRC anew. */
export function setProducer(buf: Buffer, at: number, producerId: number, epoch: number, sequence: number): void {
  assert(Number.isSafeInteger(producerId), 'a producer id is a safe integer');
  assert((epoch << 16) >> 16 === epoch, 'a producer epoch fits 16 bits');
  assert((sequence | 0) === sequence, 'a sequence fits 32 bits');
  writeInt64(buf, at + PRODUCER_ID_AT, producerId);
  buf[at + PRODUCER_EPOCH_AT] = epoch >>> 8;
  buf[at + PRODUCER_EPOCH_AT + 1] = epoch;
  writeInt32(buf, at + BASE_SEQUENCE_AT, sequence);
  writeCrc(buf, at);
}

/** Computes the CRC of the batch at `at`, whose size field is already right, and stores it. */
export function writeCrc(buf: Buffer, at: number): void {
  writeInt32(buf, at + CRC_AT, computeBatchCrc(buf, at, sizeInBytesOf(buf, at)));
}
