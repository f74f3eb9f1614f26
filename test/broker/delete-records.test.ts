import { expect, test } from 'vitest';
import { deleteRecords } from '../../src/broker/delete-records.js';
import type { Offset } from '../../src/core/types.js';
import type { Partition } from '../../src/partition/partition.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { batchOf, openPartition, overriding } from '../partition/support.js';

const NOW = Date.now();

test('deleting what is older than a time spares a record of that time that comes in meanwhile', async () => {
  let append = async (): Promise<void> => undefined;
  const wrap = (log: PartitionLog): PartitionLog =>
    overriding(log, {
      async batchForTime(timestampMs: number): Promise<Offset | undefined> {
        const found = await log.batchForTime(timestampMs);
        await append();
        return found;
      },
    });
  const { partition, log } = await openPartition({}, wrap);
  await partition.append([batchOf(['old', 'old'], NOW - 10_000)], { acks: 'durable' });
  append = async () => void (await partition.append([batchOf(['new'], NOW)], { acks: 'durable' }));
  const topics = { partition: (): Partition => partition };
  const partitions = [{ partition: 0, beforeOffset: undefined, beforeTimeMs: NOW - 5000 }];
  await deleteRecords(topics, { topic: 't', topicId: '', partitions });
  expect(log.startOffset).toBe(2);
  expect(log.endOffset).toBe(3);
});
