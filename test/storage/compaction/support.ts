/** Batches with keys, producers and markers, and passes over them. */
import { type BatchOptions, encodeBatch } from '../../../src/batch/builder.js';
import { compressBatch } from '../../../src/batch/compression.js';
import { baseOffsetOf, type Codec, nextOffsetOf } from '../../../src/batch/layout.js';
import { checkBatch } from '../../../src/batch/validate.js';
import { type BatchSource, CompactionPass, type PassOptions } from '../../../src/storage/compaction/compaction-pass.js';
import { readAll as readRecords, T0 } from '../../batch/support.js';

export const HOUR = 3_600_000;
export const DAY: number = 24 * HOUR;

/** `key=value`, `key` alone for a tombstone, `=value` without a key. */
export type Written = string;

export interface KeyedShape extends BatchOptions {
  readonly timestampMs?: number;
  readonly codec?: Codec;
}

/** A batch at `at`; its i-th record has the time `timestampMs + i`. */
export function keyed(at: number, records: readonly Written[], shape: KeyedShape = {}): Buffer {
  const { timestampMs = T0 + at, codec: _codec, ...options } = shape;
  const inputs = records.map((written, i) => {
    const [, key, value] = /^([^=]*)(?:=(.*))?$/s.exec(written) ?? [];
    return {
      timestampMs: timestampMs < 0 ? timestampMs : timestampMs + i,
      key: key === '' ? null : Buffer.from(key ?? ''),
      value: value === undefined ? null : Buffer.from(value),
      headers: i === 1 ? [{ key: 'h', value: Buffer.from('x') }] : [],
    };
  });
  return encodeBatch(inputs, { baseOffset: at, leaderEpoch: 1, ...options });
}

export function compressed(at: number, records: readonly Written[], shape: KeyedShape = {}): Promise<Buffer> {
  return compressBatch(keyed(at, records, shape), shape.codec ?? 'none');
}

/** A control record's batch; type 0 is ABORT, 1 COMMIT. */
export function control(at: number, type: number, producerId: number, timestampMs: number = T0 + at): Buffer {
  const key = Buffer.alloc(4);
  key.writeInt16BE(type, 2);
  const options = { baseOffset: at, leaderEpoch: 1, producerId, producerEpoch: 0, transactional: true, control: true };
  return encodeBatch([{ timestampMs, key, value: Buffer.from([0, 0, 0, 0, 0, 5]) }], options);
}

export function abort(at: number, producerId: number): Buffer {
  return control(at, 0, producerId);
}

export function commit(at: number, producerId: number): Buffer {
  return control(at, 1, producerId);
}

export function inTransaction(producerId: number, baseSequence = 0): KeyedShape {
  return { producerId, producerEpoch: 0, baseSequence, transactional: true };
}

export function byProducer(producerId: number, baseSequence = 0): KeyedShape {
  return { producerId, producerEpoch: 0, baseSequence };
}

export function sourceOf(batches: readonly Buffer[]): BatchSource {
  return async function* (from, to) {
    for (const batch of batches) {
      if (nextOffsetOf(batch, 0) > from && baseOffsetOf(batch, 0) < to) yield batch;
    }
  };
}

export interface PassResult {
  readonly pass: CompactionPass;
  /** What each batch became. */
  readonly results: readonly (Buffer | undefined)[];
  readonly batches: readonly Buffer[];
}

/** One pass over `batches`, all of them dirty unless told otherwise. Checks what must hold of every batch. */
export async function runPass(batches: readonly Buffer[], options: Partial<PassOptions> = {}): Promise<PassResult> {
  const last = batches[batches.length - 1];
  const pass = await CompactionPass.plan(sourceOf(batches), {
    firstDirty: 0,
    upTo: last === undefined ? 0 : nextOffsetOf(last, 0),
    nowMs: T0 + HOUR,
    deleteRetentionMs: DAY,
    producerExpirationMs: DAY,
    maxMapBytes: 1 << 20,
    ...options,
  });
  const results: (Buffer | undefined)[] = [];
  for (const batch of batches) {
    const before = Buffer.from(batch);
    const cleaned = await pass.clean(batch);
    if (!before.equals(batch)) throw new Error('a pass wrote to a batch it was given');
    if (cleaned !== undefined) checkPlace(batch, cleaned);
    results.push(cleaned);
  }
  return { pass, results, batches: results.filter((batch) => batch !== undefined) };
}

/** A cleaned batch is intact and stands where the one before stood, with the same producer. */
function checkPlace(before: Buffer, after: Buffer): void {
  const broken = checkBatch(after, 0, after.length);
  if (broken !== undefined) throw new Error(broken);
  // Base offset; leader epoch and magic; last offset delta; producer id, epoch and sequence.
  const parts = [
    [0, 8],
    [12, 17],
    [23, 27],
    [43, 57],
  ] as const;
  for (const [start, end] of parts) {
    if (!before.subarray(start, end).equals(after.subarray(start, end))) throw new Error(`bytes from ${start} changed`);
  }
}

/** The records of batches as `offset:key=value`. */
export async function recordsOf(batches: readonly Buffer[]): Promise<string[]> {
  const lines: string[] = [];
  for (const batch of batches) {
    for (const { offset, key, value } of await readRecords(batch)) {
      lines.push(`${offset}:${key ?? ''}${value === null ? '' : `=${value}`}`);
    }
  }
  return lines;
}

export { readRecords, T0 };
