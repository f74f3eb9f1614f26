/** From "earliest", "end" and dates to offsets. */
import { LogError } from '../core/errors.js';
import type { Admin, OffsetSpec } from './admin.js';
import type { Isolation } from './isolation.js';
import type { MetadataCache } from './metadata-cache.js';
import { checkPartition } from './partitioner.js';
import { isPerPartition, type ResolvedReadOptions } from './read-options.js';

/** What to read of one partition: `[start, end)`, without end when it is followed. */
export interface PartitionSpan {
  readonly partition: number;
  readonly start: number;
  readonly end: number | undefined;
}

export interface ReadPlan {
  /** By which the broker tells when the topic has been deleted since, recreated or not. */
  readonly topicId: string;
  /** Of the topic, whether they are read or not. */
  readonly partitionCount: number;
  /** Partitions with nothing to read are left out. */
  readonly spans: readonly PartitionSpan[];
}

export interface PlanContext {
  readonly admin: Admin;
  readonly metadata: MetadataCache;
}

/**
 * Fixes where reading begins and ends.
 * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, OFFSET_OUT_OF_RANGE (an offset beyond the end that was asked for)
 */
export async function planRead(name: string, options: ResolvedReadOptions, context: PlanContext): Promise<ReadPlan> {
  const { topicId, partitionCount } = await context.metadata.refresh(name);
  const partitions = options.partitions ?? Array.from({ length: partitionCount }, (_, partition) => partition);
  for (const partition of partitions) checkPartition(partition, partitionCount, name);

  const { isolation, signal } = options;
  const find = (spec: OffsetSpec): Promise<Map<number, number>> =>
    findOffsets(name, spec, partitions, { isolation, signal }, context);
  const [starts, ends] = await Promise.all([startsOf(options, partitions, find), endsOf(options, partitions, find)]);
  const spans = partitions.map((partition) => ({
    partition,
    start: starts.get(partition) ?? 0,
    end: ends?.get(partition),
  }));
  if (options.to === 'end') await checkWithin(name, spans, signal, context);
  return { topicId, partitionCount, spans: spans.filter(({ start, end }) => end === undefined || start < end) };
}

/**
 * What to read of partitions that were added while their topic is followed: everything. They did not exist when reading
 * began, so nothing in them lies before its start, whatever that was.
 * @throws LogError what asking for their log start offsets failed with
 */
export async function planAdded(
  name: string,
  partitions: readonly number[],
  signal: AbortSignal,
  context: PlanContext,
): Promise<PartitionSpan[]> {
  const starts = await findOffsets(name, 'earliest', partitions, { isolation: 'read_uncommitted', signal }, context);
  return partitions.map((partition) => ({ partition, start: starts.get(partition) ?? 0, end: undefined }));
}

type FindOffsets = (spec: OffsetSpec) => Promise<Map<number, number>>;

async function findOffsets(
  name: string,
  spec: OffsetSpec,
  partitions: readonly number[],
  { isolation, signal }: { readonly isolation: Isolation; readonly signal: AbortSignal | undefined },
  { admin }: PlanContext,
): Promise<Map<number, number>> {
  const options = signal === undefined ? { isolation } : { isolation, signal };
  const found = await admin.listOffsets(name, spec, partitions, options);
  const offsets = new Map(found.map(({ partition, offset }) => [partition, offset]));
  for (const partition of partitions) {
    if (!offsets.has(partition)) {
      throw new LogError('INTERNAL', `The broker named no offset for partition ${partition} of topic ${name}.`);
    }
  }
  return offsets;
}

async function startsOf(
  { from }: ResolvedReadOptions,
  partitions: readonly number[],
  find: FindOffsets,
): Promise<Map<number, number>> {
  if (typeof from === 'number') return everywhere(partitions, from);
  if (isPerPartition(from)) return new Map(partitions.map((partition) => [partition, from[partition] ?? 0]));
  return find(from);
}

async function endsOf(
  { to }: ResolvedReadOptions,
  partitions: readonly number[],
  find: FindOffsets,
): Promise<Map<number, number> | undefined> {
  if (to === undefined) return undefined;
  if (typeof to === 'number') return everywhere(partitions, to);
  return find(to === 'end' ? 'latest' : to);
}

function everywhere(partitions: readonly number[], offset: number): Map<number, number> {
  return new Map(partitions.map((partition) => [partition, offset]));
}

/**
 * A start beyond the last record is a mistake, and would be one of the broker's errors without an end. One that lies behind
 * an open transaction is none: there is nothing to read yet.
 */
async function checkWithin(
  name: string,
  spans: readonly PartitionSpan[],
  signal: AbortSignal | undefined,
  context: PlanContext,
): Promise<void> {
  const beyond = spans.filter(({ start, end }) => end !== undefined && start > end);
  if (beyond.length === 0) return;
  const partitions = beyond.map(({ partition }) => partition);
  const found = await findOffsets(name, 'latest', partitions, { isolation: 'read_uncommitted', signal }, context);
  for (const { partition, start } of beyond) {
    const highWatermark = found.get(partition) ?? 0;
    if (start <= highWatermark) continue;
    throw new LogError(
      'OFFSET_OUT_OF_RANGE',
      `Offset ${start} lies beyond the end of ${name}-${partition}, whose high watermark is ${highWatermark}.`,
      { metadata: { topic: name, partition, offset: start, high_watermark: highWatermark } },
    );
  }
}
