/** The files as they lie on disk. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { expect, test } from 'vitest';
import { nextOffsetOf } from '../../src/batch/layout.js';
import { toOffset } from '../../src/core/types.js';
import {
  decodeCheckpoint,
  encodeCheckpoint,
  type PartitionCheckpoint,
  type SegmentRecord,
} from '../../src/storage/local/checkpoint.js';
import { decodeRecoveryPoints, encodeRecoveryPoints } from '../../src/storage/local/recovery-points.js';
import { TimeIndex } from '../../src/storage/local/time-index.js';
import { BASE_TIME, batchAt, CONFIG, EPOCH, fill, LocalRig, partition } from './support.js';

/** Timestamps of Kafka's example, relative to BASE_TIME. */
const TIMES = [-5, 5, 15, 10, 20, 30, 25, 35, 45, 40, 50, 60, 55, 65, 75, 70, 80, 90, 85, 95];

test("index files of a rolled segment are Kafka's, byte for byte", async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, { ...CONFIG, segmentBytes: 1500, indexIntervalBytes: 300 });
  const batches: Buffer[] = [];
  for (const [i, delta] of [...TIMES, 100].entries()) {
    const batch = batchAt(i, { bytes: i < 10 ? 3 : 4, timestampMs: BASE_TIME + delta });
    batches.push(Buffer.from(batch));
    await log.append([batch], toOffset(i));
  }
  expect(batches.slice(0, 20).map((batch) => batch.length)).toEqual([...Array(10).fill(71), ...Array(10).fill(72)]);
  await engine.close();

  const names = readdirSync(rig.directory()).sort();
  const twenty = '00000000000000000020';
  const zero = '00000000000000000000';
  expect(names).toEqual([
    ...[zero, twenty].flatMap((base) => [`${base}.index`, `${base}.log`, `${base}.timeindex`]),
    'checkpoint',
  ]);
  expect(readFileSync(rig.file(0))).toEqual(Buffer.concat(batches.slice(0, 20)));
  const entry = (delta: number, offset: number): string =>
    (BASE_TIME + delta).toString(16).padStart(16, '0') + offset.toString(16).padStart(8, '0');
  expect(readFileSync(rig.file(0, '.index')).toString('hex')).toBe(
    ['00000005', '00000163', '0000000a', '000002c6', '0000000f', '0000042e'].join(''),
  );
  expect(readFileSync(rig.file(0, '.timeindex')).toString('hex')).toBe(
    [entry(30, 5), entry(50, 10), entry(75, 14), entry(95, 19)].join(''),
  );
});

test('nothing in the data directory is open to other users', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  await fill(await engine.open(partition(), EPOCH, CONFIG), 1);
  for (const path of [`${rig.dataDir}/logs`, rig.directory()]) expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(statSync(rig.file()).mode & 0o077).toBe(0);
});

test('a segment is closed by time, by size and never when it is empty', async () => {
  const engine = await new LocalRig().open();
  const config = { ...CONFIG, segmentBytes: 500, segmentMs: 1000 };
  const log = await engine.open(partition(), EPOCH, config);
  await log.append([batchAt(0, { bytes: 2000, timestampMs: BASE_TIME })], toOffset(0));
  expect(log.stats().segmentCount).toBe(1);
  await log.append([batchAt(1, { timestampMs: BASE_TIME })], toOffset(1));
  expect(log.stats().segmentCount).toBe(2);
  await log.append([batchAt(2, { timestampMs: BASE_TIME + 1000 })], toOffset(2));
  expect(log.stats().segmentCount).toBe(2);
  await log.append([batchAt(3, { timestampMs: BASE_TIME + 1001 })], toOffset(3));
  expect(log.stats().segmentCount).toBe(3);
});

test('one append over several segments is split where each is full', async () => {
  const rig = new LocalRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, { ...CONFIG, segmentBytes: 400 });
  const batches: Buffer[] = [];
  for (let at = 0; at < 9; ) {
    const batch = batchAt(at, { bytes: 100 });
    batches.push(batch);
    at = nextOffsetOf(batch, 0);
  }
  await log.append(batches, toOffset(0));
  expect(log.stats()).toMatchObject({ segmentCount: 5, sizeInBytes: Buffer.concat(batches).length });
  expect(readdirSync(rig.directory()).filter((name) => name.endsWith('.log'))).toHaveLength(5);
});

test('recovery points with any byte changed or cut off are not believed', () => {
  const { topicId } = partition(1);
  const points = {
    journalOffset: 70,
    partitions: new Map([
      [`${topicId}-0`, { offset: 5, logStartOffset: 3, epochs: [] }],
      [`${topicId}-12`, { offset: 2 ** 40, logStartOffset: 0, epochs: [[0, -1] as const, [2 ** 40 - 1, 33] as const] }],
    ]),
  };
  const bytes = encodeRecoveryPoints(points);
  expect(bytes.toString()).toMatch(
    new RegExp(`^1\n70\n2\n${topicId} 0 5 3\n${topicId} 12 1099511627776 0 0:-1 1099511627775:33\n[0-9a-f]{8}\n$`),
  );
  expect(decodeRecoveryPoints(bytes)).toEqual(points);
  for (let at = 0; at < bytes.length; at++) {
    expect(typeof decodeRecoveryPoints(bytes.subarray(0, at))).toBe('string');
    for (let bit = 0; bit < 8; bit++) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1 << bit;
      expect(typeof decodeRecoveryPoints(changed), `bit ${bit} of byte ${at}`).toBe('string');
    }
  }
});

test('recovery points in the text format of Kafka are read', () => {
  const { topicId } = partition(1);
  expect(decodeRecoveryPoints(Buffer.from(`0\n2\n${topicId} 0 5\n${topicId} 12 1099511627776\n`))).toEqual({
    journalOffset: 0,
    partitions: new Map([
      [`${topicId}-0`, { offset: 5, logStartOffset: 0, epochs: [] }],
      [`${topicId}-12`, { offset: 2 ** 40, logStartOffset: 0, epochs: [] }],
    ]),
  });
});

const SEGMENT: SegmentRecord = {
  baseOffset: 0,
  nextOffset: 7,
  sizeInBytes: 700,
  firstTimestamp: 1,
  maxTimestamp: 2,
  maxTimestampOffset: 6,
  epochs: [[0, 1]],
  cleaned: true,
  hasProducers: true,
  offsetIndexCrc: 1,
  timeIndexCrc: 0xffffffff,
};
const CHECKPOINT: PartitionCheckpoint = {
  version: 1,
  logStartOffset: 3,
  cleanedOffset: 5,
  segments: [SEGMENT],
  swap: { sources: [0, 4], outputs: [0] },
};

test('a checkpoint with any byte changed or cut off is not believed', () => {
  const bytes = encodeCheckpoint(CHECKPOINT);
  expect(decodeCheckpoint(bytes)).toEqual(CHECKPOINT);
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at] = changed[at]! ^ 0x04;
    expect(typeof decodeCheckpoint(changed)).toBe('string');
    expect(typeof decodeCheckpoint(bytes.subarray(0, at))).toBe('string');
  }
});

test.each([1.5, 1.7e21])(
  'a checkpoint with the timestamp %d, which no index can hold, is not believed',
  (maxTimestamp) => {
    const bytes = encodeCheckpoint({ ...CHECKPOINT, segments: [{ ...SEGMENT, maxTimestamp }] });
    expect(typeof decodeCheckpoint(bytes)).toBe('string');
  },
);

test('nor is a time index with the largest number of 64 bits, which is none here', () => {
  const bytes = Buffer.alloc(12);
  bytes.writeBigInt64BE(2n ** 63n - 1n);
  expect(TimeIndex.decode(bytes)).toBeUndefined();
});
