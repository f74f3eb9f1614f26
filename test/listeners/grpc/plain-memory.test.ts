/** Plain records may have a thousand times the size of the batch that they are in. */
import { expect, test, vi } from 'vitest';
import { encodeBatch } from '../../../src/batch/builder.js';
import { compressBatch } from '../../../src/batch/compression.js';
import type { PlainRecords } from '../../../src/listeners/grpc/records.js';
import type { FetchStreamResponse } from '../../../src/rpc/messages.js';
import { until } from '../../support/until.js';
import { run } from './support.js';

const MIB = 1024 * 1024;
const STREAMS = 30;
const RECORDS = 400;
const POSITIONS = [{ topic: 't', topicId: '', partition: 0, offset: 0 }];
const PLAIN = { positions: POSITIONS, format: 'RECORD_FORMAT_RECORDS' } as const;

/** How many answers of plain records are made at once. */
const making = vi.hoisted(() => ({ now: 0, most: 0 }));

vi.mock('../../../src/listeners/grpc/records.js', async (importOriginal) => {
  const original = await importOriginal<typeof import('../../../src/listeners/grpc/records.js')>();
  return {
    ...original,
    async toRecordMessages(...args: Parameters<typeof original.toRecordMessages>): Promise<PlainRecords> {
      making.now++;
      making.most = Math.max(making.most, making.now);
      try {
        return await original.toRecordMessages(...args);
      } finally {
        making.now--;
      }
    },
  };
});

async function largeWhenOpened(): Promise<Buffer> {
  const value = Buffer.alloc(10_000);
  const records = Array.from({ length: RECORDS }, () => ({ timestampMs: 0, key: null, value, headers: [] }));
  return await compressBatch(encodeBatch(records), 'gzip');
}

test('of many who read plain records, few answers are made at once, and all come (invariant 21)', async () => {
  const running = await run({ limits: { totalInFlightBytes: 8 * MIB, requestMaxBytes: MIB } });
  try {
    await running.raw.createTopic('t');
    await running.raw.produce({ topic: 't', batches: [await largeWhenOpened()] });
    const offsets = Array.from({ length: STREAMS }, () => 0);
    const streams = offsets.map((_, index) => {
      const stream = running.raw.fetchStream(PLAIN);
      stream.on('error', () => undefined);
      stream.on('data', ({ partition }: FetchStreamResponse) => {
        expect(partition.records[0]?.offset).toBe(offsets[index]);
        offsets[index] = partition.nextOffset;
      });
      return stream;
    });
    await until(() => offsets.every((offset) => offset === RECORDS), 'everybody has read all', 20_000);
    expect(making.most).toBeGreaterThan(0);
    expect(making.most).toBeLessThanOrEqual(8);
    for (const stream of streams) stream.cancel();

    making.most = 0;
    const answers = Array.from({ length: STREAMS }, () => running.raw.fetch({ ...PLAIN, maxWaitMs: 0 }));
    await Promise.allSettled(answers);
    expect(making.most).toBeLessThanOrEqual(8);
  } finally {
    await running.stop();
  }
});

test('one answer has room for so many plain records, of however many partitions they are', async () => {
  const running = await run();
  try {
    await running.raw.createTopic('t', 3);
    const batch = await largeWhenOpened();
    for (const partition of [0, 1, 2]) await running.raw.produce({ topic: 't', partition, batches: [batch] });
    const positions = [0, 1, 2].map((partition) => ({ topic: 't', topicId: '', partition, offset: 0 }));
    const answer = await running.raw.fetch({ positions, format: 'RECORD_FORMAT_RECORDS', maxWaitMs: 0 });
    const counts = answer.partitions.map(({ records }) => records.length);
    expect(counts.reduce((sum, count) => sum + count) * 10_000).toBeLessThan(2.1 * MIB);
    for (const partition of answer.partitions) expect(partition.nextOffset).toBe(partition.records.length);
  } finally {
    await running.stop();
  }
});
