/**
 * Reads its part of a topic again and again, each time it is told: as a member of a group that commits by itself, or
 * without a group. Every record is visited.
 */
import { bytes, connect, type RecordBatch, topic } from 'tidelog';
import { parent, sharedMs } from '../support/child.js';

export interface ReaderTask {
  readonly broker: string;
  readonly topic: string;
  /** Absent: reads `partitions` without a group. */
  readonly group?: string;
  /** As a member, it is to be given as many. */
  readonly partitions: readonly number[];
  /** Records in each partition. */
  readonly recordsEach: number;
  readonly commitIntervalMs: number;
}

export type ReaderReport =
  | { readonly kind: 'ready' }
  /** All records were visited since the order, the last at this time of `sharedMs`. */
  | { readonly kind: 'done'; readonly atMs: number; readonly records: number };

/** Begin again at the start. A member has read everything by then. */
export interface ReaderOrder {
  readonly kind: 'go';
}

const { task, report, onOrder } = parent<ReaderTask, ReaderReport, ReaderOrder>();
const client = await connect(task.broker);
const from = topic(task.topic, { value: bytes() });

async function visit(batch: RecordBatch<string, Uint8Array>): Promise<number> {
  let records = 0;
  const cursor = await batch.cursor();
  while (cursor.next()) records++;
  return records;
}

async function read(): Promise<void> {
  let records = 0;
  const reader = client.read(from, { partitions: task.partitions, from: 'earliest', to: 'end' });
  for await (const batch of reader.batches()) records += await visit(batch);
  report({ kind: 'done', atMs: sharedMs(), records });
}

async function consume(group: string): Promise<void> {
  const consumer = client.consumer(from, { group, autoCommit: { intervalMs: task.commitIntervalMs } });
  const total = task.partitions.length * task.recordsEach;
  let records = 0;
  onOrder(async () => {
    records = 0;
    await Promise.all(consumer.assignment().map((partition) => consumer.seek(partition, 0)));
  });
  report({ kind: 'ready' });
  for await (const batch of consumer.batches()) {
    records += await visit(batch);
    if (records === total) report({ kind: 'done', atMs: sharedMs(), records });
  }
}

if (task.group === undefined) {
  onOrder(() => void read());
  report({ kind: 'ready' });
} else {
  await consume(task.group);
}
