/** What must hold of a data directory after each start: on its topics, and on its files. */
import { readdirSync } from 'node:fs';
import { expect } from 'vitest';
import type { Client, PartitionDescription, Topic } from '../../../src/index.js';
import { readAll } from '../../history/recorded/reader.js';
import { until } from '../../support/until.js';
import { churn, events, type Life, trimmed } from './life.js';

export const SEGMENT_BYTES = 16_384;
export const RETENTION_BYTES = 65_536;

/** Reads everything, which the history checker judges later, and checks what the history does not say. */
export async function verify(life: Life, client: Client, logsDir: string): Promise<void> {
  await verifyTable(life, client);
  await verifyEvents(life, client);
  await verifyTrimmed(life, client);
  await verifyChurn(life, client);
  await verifyFiles(client, logsDir);
}

/** Read while the broker may be compacting what the last one had left to do. */
async function verifyTable(life: Life, client: Client): Promise<void> {
  const { follower, shown, expectedTable } = life;
  const found = new Map<string, string | null>();
  for (const { partition, offset, key, value } of await readAll(life.tableRecorded, client, reader(life, 'table'))) {
    const position = follower.positions[partition] ?? 0;
    // The history allows for what compaction removed before the follower came by; what is still there was there then.
    if (offset < position && !shown[partition]?.has(offset)) {
      throw new Error(`a reader that went on to ${position} was never shown ${partition}/${offset}`);
    }
    if (key === null) throw new Error(`${partition}/${offset} has no key`);
    found.set(key, value);
  }
  expectedTable.compare(found);
  life.tombstonesRemoved = expectedTable.deletedKeys.filter((key) => !found.has(key)).length;
}

async function verifyEvents(life: Life, client: Client): Promise<void> {
  await until(
    async () => (await describePartition(client, events)).sizeBytes < RETENTION_BYTES + SEGMENT_BYTES,
    'retention has deleted all that it may',
  );
  const { logStartOffset, sizeBytes } = await verifyDense(life, client, events);
  expect(logStartOffset).toBeGreaterThanOrEqual(life.eventStart);
  life.eventStart = logStartOffset;
  if (logStartOffset > 0) expect(sizeBytes).toBeGreaterThanOrEqual(RETENTION_BYTES);
}

/** A log start offset that was acknowledged stays; one that was asked for may be there. */
async function verifyTrimmed(life: Life, client: Client): Promise<void> {
  const { trimming } = life;
  const { logStartOffset } = await verifyDense(life, client, trimmed);
  expect([trimming.acknowledged, trimming.asked]).toContain(logStartOffset);
  trimming.acknowledged = logStartOffset;
}

/** Everything from the log start on is there. */
async function verifyDense(life: Life, client: Client, topic: Topic<string, string>): Promise<PartitionDescription> {
  const partition = await describePartition(client, topic);
  const { logStartOffset, highWatermark } = partition;
  // Of retention nobody but the broker knows how far it went.
  life.history.trim({ topic: topic.name, partition: 0, offset: logStartOffset });
  const offsets = (await readAll(life.recorded(topic), client, reader(life, topic.name))).map(({ offset }) => offset);
  expect(offsets).toEqual(Array.from({ length: highWatermark - logStartOffset }, (_, i) => logStartOffset + i));
  return partition;
}

async function describePartition(client: Client, { name }: Topic<string, string>): Promise<PartitionDescription> {
  return (await client.admin.getTopic(name)).partitions[0]!;
}

/** A topic whose deletion was acknowledged stays away, one whose making was is there, with its own records alone. */
async function verifyChurn(life: Life, client: Client): Promise<void> {
  const { churning } = life;
  const isThere = (await client.admin.listTopics()).some(({ name }) => name === churn.name);
  if (churning.state === 'gone') expect(isThere).toBe(false);
  if (churning.state === 'there') expect(isThere).toBe(true);
  if (!isThere) return;
  await readAll(life.churnRecorded, client, reader(life, churn.name));
  await client.admin.deleteTopic(churn.name);
  churning.state = 'gone';
}

function reader({ round }: Life, name: string): string {
  return `reader of ${name} ${round}`;
}

/** Once the broker rests there are the directories of its topics, and in them nothing that is half done or replaced. */
async function verifyFiles(client: Client, logsDir: string): Promise<void> {
  const topics = await client.admin.listTopics();
  const wanted = topics.flatMap(({ topicId, partitionCount }) =>
    Array.from({ length: partitionCount }, (_, partition) => `${topicId}-${partition}`),
  );
  const directories = (): string[] => readdirSync(logsDir).sort();
  await expect.poll(directories, { timeout: 10_000 }).toEqual(wanted.sort());
  await expect.poll(() => leftOver(logsDir), { timeout: 10_000 }).toEqual([]);
}

function leftOver(logsDir: string): string[] {
  const names = readdirSync(logsDir, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => /\.(cleaned|swap|deleted|tmp)$/.test(name));
}
