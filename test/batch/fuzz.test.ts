import { describe, expect, it } from 'vitest';
import { compressBatch, decompressRecords } from '../../src/batch/compression.js';
import { readControlRecord } from '../../src/batch/control.js';
import { CODECS, RECORD_BATCH_OVERHEAD, writeCrc, writeInt32 } from '../../src/batch/layout.js';
import { openRecords } from '../../src/batch/records.js';
import { checkBatch, splitBatches, validateForAppend } from '../../src/batch/validate.js';
import { LogError } from '../../src/core/errors.js';
import { mutate } from '../support/mutate.js';
import { inForm, Programme } from '../support/programme.js';
import { batchOf, T0, VECTORS } from './support.js';

const EXECUTIONS = inForm({ short: 20_000, long: 1_000_000 });
const DECODE_LIMITS = { maxRecords: 1_000, maxDecompressedBytes: 256 * 1024 };
const APPEND_LIMITS = {
  maxBatchBytes: 1024 * 1024,
  nowMs: T0,
  timestampAfterMaxMs: 1_000,
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  logAppendTime: false,
};

/** Makes size and CRC right again, so that what lies behind those checks is reached. */
function repair(bytes: Buffer): void {
  if (bytes.length < RECORD_BATCH_OVERHEAD) return;
  writeInt32(bytes, 8, bytes.length - 12);
  writeCrc(bytes, 0);
}

function attempt(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof LogError) || error.reason === 'INTERNAL') throw error;
  }
}

/** Walks all records and touches everything of them. Returns how many there were. */
async function walk(bytes: Buffer): Promise<number> {
  let count = 0;
  try {
    const cursor = await openRecords(bytes, DECODE_LIMITS);
    while (cursor.next()) {
      count += 1;
      const sum = (cursor.key?.length ?? 0) + (cursor.value?.length ?? 0);
      if (sum > cursor.buffer.length) throw new Error('key and value are longer than the batch');
      for (const header of cursor.headers)
        if (header.value && header.value.length > cursor.buffer.length) throw new Error('header');
      if (!Number.isSafeInteger(cursor.offset)) throw new Error(`offset ${cursor.offset}`);
    }
  } catch (error) {
    if (!(error instanceof LogError) || error.reason === 'INTERNAL') throw error;
  }
  return count;
}

describe('batch decoders', () => {
  it(`throw nothing but typed errors on ${EXECUTIONS} broken batches (invariant 22)`, async (context) => {
    const programme = new Programme(context);
    const below = (limit: number) => programme.below(limit);
    const plain = batchOf(Array.from({ length: 12 }, (_, i) => `{"id":"o${i}","cents":${i * 99}}`));
    const valid = [...Object.values(VECTORS), plain, Buffer.concat([plain, VECTORS.A])];
    for (const codec of CODECS) valid.push(await compressBatch(plain, codec));
    let opened = 0;
    for (let run = 0; run < EXECUTIONS; run++) {
      const bytes = mutate(valid[below(valid.length)]!, below);
      if (below(8) > 0) repair(bytes);
      try {
        checkBatch(bytes, 0, bytes.length);
        attempt(() => splitBatches(bytes));
        attempt(() => validateForAppend(bytes, APPEND_LIMITS));
        attempt(() => readControlRecord(bytes));
        if ((await walk(bytes)) > 0) opened++;
      } catch (error) {
        const input = bytes.toString('hex');
        throw new Error(`execution ${run}, input ${input}: ${String(error)}`, { cause: error });
      }
    }
    programme.tried('broken batches', EXECUTIONS);
    // The test would prove little if nothing got past the first checks.
    expect(opened).toBeGreaterThan(EXECUTIONS / 10);
  }, 600_000);

  it('throw nothing but typed errors on broken compressed sections, and never exceed the limit (invariants 21, 22)', async (context) => {
    const programme = new Programme(context);
    const below = (limit: number) => programme.below(limit);
    const section = Buffer.from(Array.from({ length: 200 }, (_, i) => `line ${i % 17} of a text, `).join(''));
    const holder = batchOf([section.toString()]);
    for (const codec of CODECS.filter((each) => each !== 'none')) {
      const valid = (await compressBatch(holder, codec)).subarray(RECORD_BATCH_OVERHEAD);
      programme.tried('broken compressed sections', EXECUTIONS / 10);
      for (let run = 0; run < EXECUTIONS / 10; run++) {
        const bytes = mutate(valid, below);
        const limit = 1 + below(8_000);
        try {
          const result = await decompressRecords(bytes, codec, limit);
          if (result.length > limit) throw new Error(`${result.length} bytes, the limit is ${limit}`);
        } catch (error) {
          if (error instanceof LogError && error.reason !== 'INTERNAL') continue;
          const input = `${codec} ${bytes.toString('hex')}`;
          throw new Error(`execution ${run}, input ${input}: ${String(error)}`, { cause: error });
        }
      }
    }
  }, 600_000);
});
