import { describe, expect, it } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { readControlRecord } from '../../src/batch/control.js';
import { writeInt32, writeInt64 } from '../../src/batch/layout.js';
import { openRecords, RecordCursor } from '../../src/batch/records.js';
import { altered, batchOf, errorOf, hex, readAll, reasonOf, record, T0, VECTORS, withSection } from './support.js';

function cursorOf(batch: Buffer): RecordCursor {
  const cursor = openRecords(batch);
  if (cursor instanceof RecordCursor) return cursor;
  throw new Error('an uncompressed batch was not opened at once');
}

/** Test vector A with another record body, its length set right. */
function withBody(body: string): Buffer {
  return withSection(VECTORS.A, hex(body.length.toString(16).padStart(2, '0') + body));
}

describe('RecordCursor', () => {
  it('reads test vector A', async () => {
    expect(await readAll(VECTORS.A)).toEqual([{ offset: 0, timestampMs: T0, key: 'k', value: 'v', headers: [] }]);
  });

  it('reads test vector B, with nulls and headers', async () => {
    const headers = [
      ['h', '1'],
      ['n', null],
    ];
    expect(await readAll(VECTORS.B)).toEqual([
      { offset: 5, timestampMs: T0, key: null, value: 'hello', headers: [] },
      { offset: 6, timestampMs: T0 + 7, key: 'key2', value: null, headers },
    ]);
  });

  it('reads test vector F, from kafkajs', async () => {
    expect(await readAll(VECTORS.F)).toMatchObject([
      { offset: 0, key: 'k', value: 'v1', headers: [['h', 'x']] },
      { offset: 1, key: null, value: 'v2', headers: [] },
    ]);
  });

  it('finds no record in test vector E, which compaction has emptied, compressed once or not', async () => {
    expect(await readAll(VECTORS.E)).toEqual([]);
    expect(await readAll(altered(VECTORS.E, (b) => b.writeInt8(0x14, 22)))).toEqual([]);
  });

  it('shows positions and lengths for readers that make no objects', () => {
    const cursor = cursorOf(VECTORS.B);
    cursor.next();
    expect([cursor.keyLength, cursor.valueLength]).toEqual([-1, 5]);
    expect(cursor.buffer.toString('latin1', cursor.valueStart, cursor.valueStart + 5)).toBe('hello');
    cursor.next();
    expect([cursor.keyLength, cursor.valueLength]).toEqual([4, -1]);
    expect(cursor.buffer.toString('latin1', cursor.keyStart, cursor.keyStart + 4)).toBe('key2');
  });

  it('shows where a record and the part of it lie that depends on neither offset nor time', () => {
    const cursor = cursorOf(VECTORS.B);
    const parts: string[] = [];
    let end = 61;
    while (cursor.next()) {
      expect(cursor.recordStart).toBe(end);
      parts.push(cursor.buffer.toString('hex', cursor.payloadStart, cursor.payloadEnd));
      end = cursor.payloadEnd;
    }
    expect(end).toBe(VECTORS.B.length);
    expect(parts).toEqual(['010a68656c6c6f00', '086b657932010402680231026e01']);
  });

  it('gives views, not copies', () => {
    const cursor = cursorOf(VECTORS.A);
    cursor.next();
    expect(cursor.value?.buffer).toBe(VECTORS.A.buffer);
    expect(cursor.buffer).toBe(VECTORS.A);
  });

  it('tells an empty key or value from a null one', async () => {
    const empty = Buffer.alloc(0);
    const records = await readAll(encodeBatch([record(null, { key: empty }), record('')]));
    expect(records.map((r) => [r.key, r.value])).toEqual([
      ['', null],
      [null, ''],
    ]);
  });

  it('walks again after rewinding, from any place', () => {
    const cursor = cursorOf(batchOf(['a', 'b', 'c']));
    const walk = (): string[] => {
      const seen: string[] = [];
      while (cursor.next()) seen.push(`${cursor.offset}${cursor.value}`);
      return seen;
    };
    cursor.next();
    cursor.rewind();
    expect(walk()).toEqual(['0a', '1b', '2c']);
    expect(cursor.next()).toBe(false);
    cursor.rewind();
    expect(walk()).toEqual(['0a', '1b', '2c']);
  });

  it('takes offsets from the records, so that holes left by compaction stay holes', async () => {
    // Slots 1 and 3 of five are left, at offset 100.
    const first = hex('0e00000201026100'); // offset delta 1, value "a"
    const second = hex('0e00000601026200'); // offset delta 3, value "b"
    const compacted = altered(withSection(VECTORS.A, Buffer.concat([first, second])), (batch) => {
      writeInt64(batch, 0, 100);
      writeInt32(batch, 23, 4);
      writeInt32(batch, 57, 2);
    });
    expect((await readAll(compacted)).map((r) => [r.offset, r.value])).toEqual([
      [101, 'a'],
      [103, 'b'],
    ]);
  });

  it('reads times relative to a delete horizon', async () => {
    const horizon = T0 + 86_400_000;
    // The delta is -86,400,000 ms, as compaction writes it for a record of time T0.
    const batch = altered(withBody('00ffefb25200026b0100'), (b) => {
      b.writeInt8(0x40, 22);
      writeInt64(b, 27, horizon);
    });
    expect(await readAll(batch)).toMatchObject([{ timestampMs: T0, key: 'k', value: null }]);
  });

  it('ignores record attributes, which have no meaning yet', async () => {
    expect(await readAll(withBody('ff0000026b027600'))).toMatchObject([{ key: 'k', value: 'v' }]);
  });

  const broken: readonly (readonly [string, Buffer, string])[] = [
    ['a length beyond the section', withSection(VECTORS.A, hex('12000000026b027600')), 'its length 9 does not fit'],
    ['a length too small for a record', withSection(VECTORS.A, hex('0800000001010000')), 'its length 4 does not fit'],
    ['a negative length', withSection(VECTORS.A, hex('01000000026b027600')), 'its length -1 does not fit'],
    ['a length of 6 bytes', withSection(VECTORS.A, hex('80808080800100000101')), 'more than 5 bytes'],
    ['a timestamp of 11 bytes', withSection(VECTORS.A, hex('24008080808080808080808001000101000000')), '10 bytes'],
    ['bytes behind the last field', withBody('000000026b02760000'), '1 of its bytes'],
    ['bytes behind the last record', withSection(VECTORS.A, hex('10000000026b02760000')), '1 bytes follow'],
    ['a key beyond the record', withBody('0000007e6b027600'), 'reaches beyond'],
    ['a key length of -2', withBody('000000036b027600'), 'reaches beyond'],
    ['a value beyond the record', withBody('000000026b7e7600'), 'reaches beyond'],
    ['a value length of -2', withBody('000000026b037600'), 'reaches beyond'],
    ['a largest key length', withBody('000000feffffff0f00'), 'reaches beyond'],
    ['no header count', withBody('000000026b0476ff'), 'reaches beyond'],
    ['a negative header count', withBody('000000026b027601'), 'reaches beyond'],
    ['more headers than fit', withBody('000000026b0276feffffff0f'), 'cannot fit in 0'],
    ['a header without a key', withBody('000000026b0276020102'), 'no key'],
    ['a header key beyond the record', withBody('000000026b0276027e61'), 'a header reaches beyond'],
    ['a header value beyond the record', withBody('000000026b02760202617e'), 'a header reaches beyond'],
    ['a header value length of -2', withBody('000000026b027602026103'), 'the length -2'],
    ['an offset beyond the last one', withBody('000002026b027600'), 'offset delta 1'],
    ['a negative offset delta', withBody('000001026b027600'), 'offset delta -1'],
  ];

  it.each(broken)('refuses %s', async (_what, batch, text) => {
    const error = await errorOf(() => readAll(batch));
    expect(error.reason).toBe('CORRUPT_MESSAGE');
    expect(error.message).toContain(text);
  });

  it('refuses offsets that do not rise, and says which record', async () => {
    const twice = altered(withSection(VECTORS.A, hex('10000000026b02760010000000026b027600')), (batch) => {
      writeInt32(batch, 23, 1);
      writeInt32(batch, 57, 2);
    });
    const error = await errorOf(() => readAll(twice));
    expect(error.message).toContain('record 1 of 2');
    expect(error.metadata).toEqual({ base_offset: '0', record_index: '1' });
  });

  it('refuses fewer records than the header claims', async () => {
    const long = batchOf(['a rather long value, so that two records would fit']);
    const claimsTwo = altered(long, (batch) => {
      writeInt32(batch, 23, 1);
      writeInt32(batch, 57, 2);
    });
    expect(await reasonOf(() => readAll(claimsTwo))).toBe('CORRUPT_MESSAGE');
  });

  it('refuses records in a batch that claims none', async () => {
    expect(await reasonOf(() => readAll(altered(VECTORS.A, (b) => writeInt32(b, 57, 0))))).toBe('CORRUPT_MESSAGE');
  });
});

describe('openRecords', () => {
  it('refuses what is not one whole batch', async () => {
    const cases = [VECTORS.A.subarray(0, 69), VECTORS.A.subarray(0, 20), Buffer.concat([VECTORS.A, VECTORS.A])];
    for (const batch of cases) expect(await reasonOf(() => openRecords(batch))).toBe('CORRUPT_MESSAGE');
  });

  it('refuses more records than the limit before it reads any', async () => {
    const limits = { maxRecords: 1, maxDecompressedBytes: 1_000 };
    const error = await errorOf(() => openRecords(VECTORS.B, limits));
    expect(error.reason).toBe('MESSAGE_TOO_LARGE');
    expect(error.metadata).toEqual({ actual_records: '2', max_records: '1' });
    expect(await readAll(VECTORS.A, limits)).toHaveLength(1);
  });

  it('refuses codec numbers without a codec', async () => {
    for (const codec of [5, 6, 7]) {
      const batch = altered(VECTORS.A, (b) => b.writeInt8(codec, 22));
      expect(await reasonOf(() => openRecords(batch))).toBe('UNSUPPORTED_COMPRESSION_TYPE');
    }
  });
});

describe('readControlRecord', () => {
  it('tells test vectors C and D apart', () => {
    expect(readControlRecord(VECTORS.C)).toEqual({ type: 1, name: 'COMMIT', version: 0 });
    expect(readControlRecord(VECTORS.D)).toEqual({ type: 0, name: 'ABORT', version: 0 });
  });

  const marker = (key: string): Buffer =>
    encodeBatch([{ timestampMs: T0, key: hex(key), value: null }], { control: true });

  it('knows the other types and newer versions, and passes over unknown types', () => {
    expect(readControlRecord(marker('00000002')).name).toBe('LEADER_CHANGE');
    expect(readControlRecord(marker('00070006aabb'))).toEqual({ type: 6, name: 'KRAFT_VOTERS', version: 7 });
    expect(readControlRecord(marker('00000007')).name).toBe('UNKNOWN');
    expect(readControlRecord(marker('0000ffff'))).toEqual({ type: -1, name: 'UNKNOWN', version: 0 });
  });

  it('refuses what is no control record', async () => {
    const keyless = encodeBatch([record('x')], { control: true });
    const compressed = altered(VECTORS.C, (b) => b.writeInt8(0x31, 22));
    const emptied = altered(VECTORS.E, (b) => b.writeInt8(0x20, 22));
    for (const batch of [VECTORS.A, keyless, marker('0000'), compressed, emptied, Buffer.alloc(0)]) {
      expect(await reasonOf(() => readControlRecord(batch))).toBe('CORRUPT_MESSAGE');
    }
  });
});
