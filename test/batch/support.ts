import { type BatchOptions, encodeBatch, type RecordInput } from '../../src/batch/builder.js';
import { BATCH_LENGTH_AT, LOG_OVERHEAD, writeCrc, writeInt32 } from '../../src/batch/layout.js';
import { type DecodeLimits, openRecords } from '../../src/batch/records.js';
import { LogError, type Reason } from '../../src/core/errors.js';

/** Base timestamp of the test vectors. */
export const T0 = 1_700_000_000_000;

/** Batches that Kafka's own tools and several clients were seen to read; the names are the format description's. */
export const VECTORS: Readonly<Record<'A' | 'B' | 'C' | 'D' | 'E' | 'F', Buffer>> = {
  /** One record, key "k", value "v", no producer. */
  A: hex(
    '00000000000000000000003a0000000002e99b8dd80000000000000000018bcfe568000000018bcfe56800ffffffffffffffffffffffffff' +
      'ff0000000110000000026b027600',
  ),
  /** Transactional, at offset 5: a null key, then a null value with headers. */
  B: hex(
    '00000000000000050000004f000000020223e9c40d0010000000010000018bcfe568000000018bcfe56807000000000000109200030000' +
      '000a0000000216000000010a68656c6c6f0022000e02086b657932010402680231026e01',
  ),
  /** COMMIT marker at offset 7. */
  C: hex(
    '00000000000000070000004200000000028630596e0030000000000000018bcfe568000000018bcfe5680000000000000010920003ffff' +
      'ffff000000012000000008000000010c00000000000500',
  ),
  /** ABORT marker at offset 7. */
  D: hex(
    '0000000000000007000000420000000002720e8f260030000000000000018bcfe568000000018bcfe5680000000000000010920003ffff' +
      'ffff000000012000000008000000000c00000000000500',
  ),
  /** Left empty by compaction at offset 20, five slots. */
  E: hex(
    '0000000000000014000000310000000002a36ce896000000000004ffffffffffffffff0000018bcfe56800000000000000109200030000' +
      '000c00000000',
  ),
  /** As kafkajs 2.2.4 sends it. */
  F: hex(
    '0000000000000000000000480000000002a58cc244000000000001000001a20a40dd99000001a20a40dd99ffffffffffffffff00000000' +
      '0000000000021a000000026b0476310202680278100000020104763200',
  ),
};

export function hex(digits: string): Buffer {
  return Buffer.from(digits, 'hex');
}

/** A record as a test writes and compares it. */
export interface PlainRecord {
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: readonly (readonly [string, string | null])[];
}

/** Every record of a batch, bytes as latin-1 text. */
export async function readAll(batch: Buffer, limits?: DecodeLimits): Promise<PlainRecord[]> {
  const cursor = await openRecords(batch, limits);
  const records: PlainRecord[] = [];
  while (cursor.next()) {
    records.push({
      offset: cursor.offset,
      timestampMs: cursor.timestampMs,
      key: latin1(cursor.key),
      value: latin1(cursor.value),
      headers: cursor.headers.map(({ key, value }) => [key, latin1(value)] as const),
    });
  }
  return records;
}

export function latin1(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : Buffer.from(bytes).toString('latin1');
}

export function record(value: string | null, more: Partial<RecordInput> = {}): RecordInput {
  return { timestampMs: T0, key: null, value: value === null ? null : Buffer.from(value, 'latin1'), ...more };
}

/** A batch with these values, made through the public encoder. */
export function batchOf(values: readonly string[], options?: BatchOptions): Buffer {
  return encodeBatch(
    values.map((value) => record(value)),
    options,
  );
}

/** A copy of `batch` with other bytes behind its header, and the size and CRC to match. */
export function withSection(batch: Buffer, section: Buffer): Buffer {
  const changed = Buffer.concat([batch.subarray(0, 61), section]);
  writeInt32(changed, BATCH_LENGTH_AT, changed.length - LOG_OVERHEAD);
  writeCrc(changed, 0);
  return changed;
}

/** A copy of `batch` that `change` was applied to, with the CRC to match. */
export function altered(batch: Buffer, change: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(batch);
  change(copy);
  writeCrc(copy, 0);
  return copy;
}

/** The LogError that `run` throws or rejects with; fails the test when it does neither or throws anything else. */
export async function errorOf(run: () => unknown): Promise<LogError> {
  try {
    await run();
  } catch (error) {
    if (error instanceof LogError) return error;
    throw new Error(`threw ${String(error)}, which is no LogError`, { cause: error });
  }
  throw new Error('threw nothing');
}

export async function reasonOf(run: () => unknown): Promise<Reason> {
  return (await errorOf(run)).reason;
}
