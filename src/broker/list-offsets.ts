import { LogError } from '../core/errors.js';
import type { Partition } from '../partition/partition.js';
import type { Isolation } from '../partition/producers/types.js';
import type { Topics } from './topics.js';

export type OffsetSpec =
  | { readonly kind: 'earliest' }
  | { readonly kind: 'latest' }
  | { readonly kind: 'latest-by-timestamp' }
  | { readonly kind: 'time'; readonly timestampMs: number };

export interface OffsetQuery {
  readonly topic: string;
  /** Empty: all partitions. */
  readonly partitions: readonly number[];
  readonly spec: OffsetSpec;
  /** Default: uncommitted. */
  readonly isolation?: Isolation | undefined;
}

export interface OffsetAnswer {
  readonly partition: number;
  readonly offset: number;
  /** Of the record found by its time. */
  readonly timestampMs: number | undefined;
}

/**
 * One offset per partition asked for. A time after every record, and `latest-by-timestamp` where no record has a
 * timestamp, give the high watermark. Reading committed, all that counts ends at the last stable offset, which takes its
 * place; records of aborted transactions count as any others, because who begins at one of them misses nothing.
 */
export async function listOffsets(topics: Topics, query: OffsetQuery): Promise<OffsetAnswer[]> {
  const topic = topics.get(query.topic);
  const indexes = query.partitions.length > 0 ? [...new Set(query.partitions)] : [...topic.slots.keys()];
  const answers: OffsetAnswer[] = [];
  for (const index of indexes) {
    answers.push(await offsetAt(topics.partition(query.topic, '', index), query.spec, query.isolation));
  }
  return answers;
}

/**
 * The offset of one partition; see `listOffsets`.
 * @throws LogError INVALID_REQUEST: the time is no whole number of ms
 */
export async function offsetAt(
  partition: Partition,
  spec: OffsetSpec,
  isolation: Isolation = 'read_uncommitted',
): Promise<OffsetAnswer> {
  if (spec.kind === 'time' && !Number.isSafeInteger(spec.timestampMs)) {
    throw new LogError('INVALID_REQUEST', `A timestamp is a whole number of ms, not ${spec.timestampMs}.`);
  }
  const at = { partition: partition.index, timestampMs: undefined };
  if (spec.kind === 'earliest') return { ...at, offset: partition.logStartOffset };
  const end = isolation === 'read_committed' ? partition.lastStableOffset : partition.highWatermark;
  if (spec.kind === 'latest') return { ...at, offset: end };
  const found =
    spec.kind === 'latest-by-timestamp'
      ? await partition.findNewest(isolation)
      : await partition.findByTime(spec.timestampMs, isolation);
  if (found === undefined) return { ...at, offset: end };
  return { partition: partition.index, offset: found.offset, timestampMs: found.timestampMs };
}
