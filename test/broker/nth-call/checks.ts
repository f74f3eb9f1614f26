/** Holds what a broker has against what its users were told. */
import { baseOffsetOf, leaderEpochOf } from '../../../src/batch/layout.js';
import { openRecords, type RecordCursor } from '../../../src/batch/records.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { partitionsOf, slotFailure } from '../../../src/broker/partition-opener.js';
import type { Partition } from '../../../src/partition/partition.js';
import type { FaultyBroker } from './faulty-broker.js';
import type { KnownTopic, Sent } from './ledger.js';

/** How an acknowledgement binds a broker: by all that was told, or only by what a power cut must leave. */
export type Promised = 'all' | 'durable';

interface Found {
  readonly offset: number;
  readonly key: string;
  readonly value: string;
  readonly batch: Buffer;
}

/**
 * Checks every topic and every record.
 * @param mayFailToRead whether reading may fail, because the disk does right now
 */
export async function checkKept(broker: FaultyBroker, promised: Promised, mayFailToRead = false): Promise<void> {
  const { topics } = broker.broker;
  const served = new Map(topics.list().map((topic) => [topic.record.name, topic]));
  for (const known of broker.ledger.topics.values()) {
    const topic = served.get(known.name);
    if (known.state === 'there' && topic === undefined) throw new Error(`topic ${known.name} is gone`);
    if (known.state === 'gone' && topic !== undefined) throw new Error(`topic ${known.name} is there`);
    if (topic === undefined || known.state !== 'there') continue;
    if (topic.record.id !== known.id) throw new Error(`topic ${known.name} is another`);
    if (topic.record.partitionCount < known.partitionCount) throw new Error(`${known.name} has lost partitions`);
    const flushMs = topic.record.overrides['flush.ms'];
    if (!known.flushMs.includes(flushMs)) {
      throw new Error(`flush.ms of ${known.name} is ${flushMs}, not ${known.flushMs}`);
    }
    // Whether all are served, health tells: see `checkNothingFails`.
    for (const partition of partitionsOf(topic.slots)) {
      await checkPartition(broker, known, partition, promised, mayFailToRead);
    }
  }
}

/** Nothing takes no appends. */
export function checkNothingFails(broker: FaultyBroker): void {
  const failures = broker.broker.topics.failures();
  if (failures.length === 0) return;
  const named = failures.map(({ topic, partition, error }) => `${topic}-${partition}: ${error.message}`);
  throw new Error(`health shows a failure: ${named.join(', ')}`);
}

/** Nobody is told that all is well of a log whose sync has failed, and the sync is not tried again (invariant 3). */
export function checkFailedSyncs(
  broker: FaultyBroker,
  failed: readonly { name: string; path: string; number: number }[],
): void {
  for (const { name, path, number } of failed) {
    if (name !== 'fdatasync' || !path.endsWith('.log')) continue;
    const again = broker.callsOfLife(number).filter((call) => call.name === name && call.path === path);
    if (again.length > 1) throw new Error(`${path} was synced again after a failed sync`);
    for (const sent of broker.ledger.sent) {
      const isThere = path.includes(`/${sent.topicId}-${sent.partition}/`);
      if (isThere && isAcknowledged(sent) && sent.atCall > number) {
        throw new Error(`${nameOf(sent)} was acknowledged after a failed sync`);
      }
    }
  }
}

async function checkPartition(
  broker: FaultyBroker,
  known: KnownTopic,
  partition: Partition,
  promised: Promised,
  mayFailToRead: boolean,
): Promise<void> {
  const { index } = partition;
  const { ledger } = broker;
  const where = `${known.name}-${index}`;
  checkStart(broker, known, partition);
  const chunks = await broker.read(partition);
  if (chunks === undefined) {
    if (mayFailToRead) return;
    throw new Error(`reading ${where} fails: ${broker.lastFailure.message}`);
  }
  const found = recordsIn(chunks, partition.logStartOffset);
  if (!known.compacted) checkDense(where, found, partition);
  const byOffset = new Map(found.map((record) => [record.offset, record]));
  const values = new Set(found.map(({ value }) => value));
  // A log that takes no more appends serves what was durable; the rest is served after the next start.
  const end = slotFailure(partition) === undefined ? Number.POSITIVE_INFINITY : partition.highWatermark;
  for (const sent of ledger.sentTo(known.name, index)) {
    if (sent.state === 'failed' && values.has(sent.value)) throw new Error(`${nameOf(sent)} has failed and is there`);
    if (!isAcknowledged(sent) || sent.offset < partition.logStartOffset) continue;
    const isDue =
      sent.acks === 'durable' || (promised === 'all' && sent.offset < Math.min(end, partition.highWatermark));
    if (isDue) checkRecord(sent, byOffset.get(sent.offset), known, found);
  }
}

function checkStart({ ledger }: FaultyBroker, known: KnownTopic, partition: Partition): void {
  const { index, logStartOffset } = partition;
  const { retentionRecords } = known;
  const sentCount = ledger.sentTo(known.name, index).filter(({ state }) => state !== 'failed').length;
  const byRetention = retentionRecords === undefined ? 0 : Math.max(0, sentCount - retentionRecords);
  const most = Math.max(byRetention, known.deletable.get(index) ?? 0);
  if (logStartOffset > most)
    throw new Error(`${known.name}-${index} begins at ${logStartOffset}, nobody asked for more than ${most}`);
  const least = known.deleted.get(index) ?? 0;
  if (logStartOffset < least)
    throw new Error(`${known.name}-${index} begins at ${logStartOffset}, below ${least}: records came back`);
}

function checkDense(where: string, found: readonly Found[], { logStartOffset, highWatermark }: Partition): void {
  const offsets = found.map(({ offset }) => offset);
  const expected = Array.from({ length: highWatermark - logStartOffset }, (_, i) => logStartOffset + i);
  if (offsets.join() !== expected.join()) throw new Error(`${where} has offsets ${offsets}, not ${expected}`);
}

function checkRecord(sent: Sent, record: Found | undefined, known: KnownTopic, found: readonly Found[]): void {
  if (record === undefined) {
    const isSuperseded = known.compacted && found.some(({ key, offset }) => key === sent.key && offset > sent.offset);
    if (!isSuperseded) throw new Error(`${nameOf(sent)} was acknowledged at ${sent.offset} and is not there`);
    return;
  }
  if (record.value !== sent.value) throw new Error(`${nameOf(sent)}: another record is at its offset ${sent.offset}`);
  if (!known.compacted && !record.batch.equals(sent.bytes!)) throw new Error(`${nameOf(sent)} has other bytes`);
}

function recordsIn(chunks: readonly Buffer[], from: number): Found[] {
  const found: Found[] = [];
  for (const batch of chunks.flatMap(splitBatches)) {
    if (leaderEpochOf(batch, 0) < 1) throw new Error(`the batch at ${baseOffsetOf(batch, 0)} has no leader epoch`);
    const cursor = openRecords(batch) as RecordCursor;
    while (cursor.next()) {
      if (cursor.offset < from) continue;
      found.push({ offset: cursor.offset, key: String(cursor.key), value: String(cursor.value), batch });
    }
  }
  return found;
}

function isAcknowledged({ state }: Sent): boolean {
  return state === 'acknowledged';
}

function nameOf({ topic, partition, value, acks }: Sent): string {
  return `record ${Number.parseInt(value, 10)} for ${topic}-${partition} (${acks})`;
}
