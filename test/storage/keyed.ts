/** Logs of records with keys, as the tests of compaction over files need them. */
import { expect } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { openRecords, type RecordCursor } from '../../src/batch/records.js';
import { splitBatches } from '../../src/batch/validate.js';
import { toOffset } from '../../src/core/types.js';
import type { CompactOptions, LogConfig, PartitionLog } from '../../src/storage/engine.js';
import type { FileSystem } from '../../src/storage/local/fs.js';
import { verifyDataDirectory } from '../../src/storage/local/verify.js';
import { BASE_TIME, CONFIG, END } from './support.js';

/** Segments of some twenty records. */
export const SMALL: LogConfig = { ...CONFIG, segmentBytes: 1500, indexIntervalBytes: 200 };
const KEYS = 7;

export function optionsFor(log: PartitionLog, more: Partial<CompactOptions> = {}): CompactOptions {
  return {
    upTo: log.durableOffset,
    nowMs: BASE_TIME,
    deleteRetentionMs: 1000,
    producerExpirationMs: 86_400_000,
    maxMapBytes: 1 << 20,
    ...more,
  };
}

/** Appends records one to three a batch, keys in turn, now and then a tombstone; flushed. */
export async function fillKeyed(log: PartitionLog, count: number): Promise<void> {
  for (let i = 0; i < count; ) {
    const at = log.endOffset;
    const records = Array.from({ length: 1 + (at % 3) }, (_, n) => {
      const offset = at + n;
      const value = offset % 11 === 5 ? null : Buffer.from(`value-${offset}`.padEnd(30, '.'));
      return { timestampMs: BASE_TIME + offset, key: Buffer.from(`key-${(offset * 5) % KEYS}`), value };
    });
    await log.append([encodeBatch(records, { baseOffset: at, leaderEpoch: 1 })], at);
    i += records.length;
  }
  await log.flush(log.endOffset);
}

export interface Seen {
  readonly records: readonly { readonly offset: number; readonly key: string; readonly value: string | null }[];
  /** Key to value, as a consumer from the start ends with. */
  readonly table: ReadonlyMap<string, string>;
}

/** Everything that a reader from `from` sees; checks that it always gets on. */
export async function consume(log: PartitionLog, from: number = log.startOffset, maxBytes = 300): Promise<Seen> {
  const records: { offset: number; key: string; value: string | null }[] = [];
  const table = new Map<string, string>();
  let offset = toOffset(from);
  while (offset < log.endOffset) {
    const slice = await log.read(offset, END, maxBytes);
    expect(slice.nextOffset).toBeGreaterThan(offset);
    for (const batch of slice.chunks.flatMap(splitBatches)) {
      const cursor = openRecords(batch) as RecordCursor;
      while (cursor.next()) {
        if (cursor.offset < from) continue;
        const key = String(cursor.key);
        const value = cursor.value === null ? null : String(cursor.value);
        records.push({ offset: cursor.offset, key, value });
        if (value === null) table.delete(key);
        else table.set(key, value);
      }
    }
    offset = slice.nextOffset;
  }
  return { records, table };
}

export function expectOneOfEachKey(seen: Seen, below: number): void {
  const keys = seen.records.filter(({ offset }) => offset < below).map(({ key }) => key);
  expect(keys).toHaveLength(new Set(keys).size);
}

export async function problemsOf(dataDir: string, fs?: FileSystem): Promise<unknown[]> {
  const problems: unknown[] = [];
  for await (const report of verifyDataDirectory(dataDir, fs)) {
    problems.push(...report.problems, ...report.indexProblems, ...report.snapshotProblems);
  }
  return problems;
}
