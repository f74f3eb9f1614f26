/** The search for an intact batch behind damage: it holds up nobody, whatever the bytes are (invariant 22). */
import { expect, test } from 'vitest';
import { type ScanResult, scanBatches } from '../../src/storage/local/scanner.js';
import { batchAt } from './support.js';

const MIB = 1 << 20;
const FILE_BYTES: number = 8 * MIB;
/** What a search may do without a turn; it lets others have theirs more often. */
const BYTES_PER_TURN: number = 256 * 1024;

/** A bad batch that begins with a header as it should be. */
function badBatch(bytes: number, claimedBytes?: number): Buffer {
  const batch = batchAt(5, { bytes });
  batch[batch.length - 1]! ^= 1;
  if (claimedBytes !== undefined) batch.writeInt32BE(claimedBytes, 8);
  return batch;
}

/** Nothing but the same bytes over and over. */
function repeated(piece: Buffer): Buffer {
  return Buffer.alloc(FILE_BYTES, piece);
}

/** Scans a file from offset 0, and counts the turns of the event loop meanwhile. */
async function scan(file: Buffer): Promise<{ readonly result: ScanResult; readonly turns: number }> {
  let turns = 0;
  let isDone = false;
  const count = (): void => {
    turns++;
    if (!isDone) setImmediate(count);
  };
  setImmediate(count);
  const result = await scanBatches(
    async (buffer, position) => file.copy(buffer, 0, position, position + buffer.length),
    { position: 0, endPosition: file.length, offset: 0 },
    { batch: () => true, damage: () => undefined },
  );
  isDone = true;
  return { result, turns };
}

test.each([
  ['bytes of which each may be the magic of a header', Buffer.alloc(MIB, 2)],
  ['small batches that are bad', repeated(badBatch(0))],
  ['zeros', Buffer.alloc(MIB)],
])('goes through %s in turns, also behind a header that claims nearly all of the file', async (_name, piece) => {
  const file = repeated(piece);
  file.fill(0, 0, 200);
  badBatch(0, FILE_BYTES - 500).copy(file, 100);
  const { result, turns } = await scan(file);
  expect(result.tail).toMatchObject({ position: 0, searched: true });
  expect(turns).toBeGreaterThan(FILE_BYTES / BYTES_PER_TURN);
});

test('tries the lengths that a bad batch may have in turns', async () => {
  const file = Buffer.alloc(FILE_BYTES, 7);
  const batch = batchAt(0);
  batch.writeInt32BE(FILE_BYTES - 500, 8);
  batch.copy(file, 0);
  const { result, turns } = await scan(file);
  expect(result.tail).toMatchObject({ position: 0, searched: true });
  // Five bits of the length are those of more than 128 KiB, and without them it is no longer than the file.
  expect(turns).toBeGreaterThan(5);
});

test('finds an intact batch wherever it lies, at the seams of its turns as well', async () => {
  for (const position of [MIB - 70, MIB - 1, MIB, MIB + 1, 128 * 1024 + 15, 128 * 1024 + 16, 128 * 1024 + 17]) {
    const file = Buffer.alloc(2 * MIB, 2);
    const batch = batchAt(9);
    batch.copy(file, position);
    const damages: unknown[] = [];
    await scanBatches(
      async (buffer, at) => file.copy(buffer, 0, at, at + buffer.length),
      { position: 0, endPosition: position + batch.length, offset: 0 },
      { batch: () => true, damage: (damage) => damages.push(damage) },
    );
    expect(damages).toMatchObject([{ position: 0, endPosition: position, nextOffset: 9 }]);
  }
});
