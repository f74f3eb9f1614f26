import { describe, expect, test } from 'vitest';
import { encodeBatch, type RecordInput } from '../../../src/batch/builder.js';
import { computeBatchCrc } from '../../../src/batch/crc32c.js';
import { attributesOf, carriesMessageIds, stampBatch, storedCrcOf } from '../../../src/batch/layout.js';
import { openRecords, RecordCursor } from '../../../src/batch/records.js';
import { forEachMessageId, keepRecords, withMessageId } from '../../../src/partition/message-ids/identified-records.js';
import { fc } from '../../support/properties.js';

function record(value: string, timestampMs = 5): RecordInput {
  return { timestampMs, key: null, value: Buffer.from(value), headers: [{ key: 'h', value: null }] };
}

function identified(records: readonly (readonly [string, RecordInput])[]): Buffer {
  return encodeBatch(
    records.map(([id, input]) => withMessageId(input, id)),
    { messageIds: true },
  );
}

function idsOf(batch: Buffer): [string, number][] {
  const found: [string, number][] = [];
  forEachMessageId(batch, (id, offset) => found.push([id, offset]));
  return found;
}

function recordsOf(batch: Buffer): { offset: number; timestampMs: number; value: string | undefined }[] {
  const cursor = openRecords(batch);
  if (!(cursor instanceof RecordCursor)) throw new Error('compressed');
  const found = [];
  while (cursor.next()) {
    found.push({ offset: cursor.offset, timestampMs: cursor.timestampMs, value: cursor.value?.toString() });
  }
  return found;
}

describe('records with message ids', () => {
  test('keep their ids as their last header, in a batch that says so', () => {
    const batch = identified([
      ['eins', record('1')],
      ['zwei 🦩', record('2')],
    ]);
    stampBatch(batch, 0, 70, 1);
    expect(carriesMessageIds(attributesOf(batch, 0))).toBe(true);
    expect(idsOf(batch)).toEqual([
      ['eins', 70],
      ['zwei 🦩', 71],
    ]);
  });

  test('are not looked for in a batch that does not say so', () => {
    expect(idsOf(encodeBatch([withMessageId(record('1'), 'a')]))).toEqual([]);
  });

  test('lose those that are not kept, and nothing else', () => {
    const batch = identified([
      ['a', record('1', 1000)],
      ['b', record('2', 5)],
      ['c', record('3', 900_000)],
      ['d', record('4', 400)],
    ]);
    const kept = keepRecords(batch, [1, 3]);
    expect(idsOf(kept)).toEqual([
      ['b', 0],
      ['d', 1],
    ]);
    expect(recordsOf(kept)).toEqual([
      { offset: 0, timestampMs: 5, value: '2' },
      { offset: 1, timestampMs: 400, value: '4' },
    ]);
    expect(storedCrcOf(kept, 0)).toBe(computeBatchCrc(kept, 0, kept.length));
  });

  test('never take more when some are left out, whatever their times and sizes', () => {
    const item = fc.tuple(fc.nat({ max: 8.64e15 }), fc.string({ maxLength: 300 }), fc.boolean());
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 200 }), (items) => {
        const batch = identified(items.map(([timestampMs, value], i) => [`id ${i}`, record(value, timestampMs)]));
        const indexes = items.flatMap(([, , keep], index) => (keep ? [index] : []));
        if (indexes.length === 0) return;
        const kept = keepRecords(batch, indexes);
        expect(kept.length).toBeLessThanOrEqual(batch.length);
        expect(recordsOf(kept)).toEqual(
          indexes.map((index, offset) => ({ offset, timestampMs: items[index]![0], value: items[index]![1] })),
        );
        expect(idsOf(kept)).toEqual(indexes.map((index, offset) => [`id ${index}`, offset]));
      }),
    );
  });
});
