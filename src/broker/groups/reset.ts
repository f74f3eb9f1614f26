/** ResetGroupOffsets: where a group is to go on, worked out and checked for every partition before any is moved. */
import { LogError } from '../../core/errors.js';
import { forEachLimit } from '../../core/semaphore.js';
import type { Partition } from '../../partition/partition.js';
import { type OffsetSpec, offsetAt } from '../list-offsets.js';
import { refuseInternal } from '../topic-errors.js';
import type { Topics } from '../topics.js';
import type { GroupCoordinatorApi, GroupSnapshot } from './coordinator-types.js';
import { type GroupPlace, placesOf } from './describe.js';

/** Partitions looked at once. */
const CONCURRENCY = 16;

export type ResetTarget =
  | OffsetSpec
  /** The same offset in each partition. */
  | { readonly kind: 'offset'; readonly offset: number }
  /** Forward, or back when negative, within what the partition holds. */
  | { readonly kind: 'shift'; readonly by: number }
  /** Where the group is. */
  | { readonly kind: 'current' };

export interface ResetCommand {
  readonly groupId: string;
  readonly topic: string;
  /** Empty: all partitions. */
  readonly partitions: readonly number[];
  readonly target: ResetTarget;
  /** Check everything, change nothing. */
  readonly validateOnly: boolean;
}

export interface PartitionReset {
  readonly partition: number;
  /** Undefined: nothing was committed. */
  readonly offsetBefore: number | undefined;
  readonly offsetAfter: number;
  readonly logStartOffset: number;
  readonly highWatermark: number;
  /** The member that owned it and begins again. */
  readonly ownerId: string | undefined;
}

export interface ResetAnswer {
  /** By partition. */
  readonly partitions: readonly PartitionReset[];
  readonly memberCount: number;
  /** Whether the group was not there before. */
  readonly created: boolean;
}

/**
 * Moves committed offsets of one topic, durably, of a group with or without members; a group that is not there is created.
 * All partitions are moved, or none.
 * @throws LogError INVALID_TOPIC (internal), UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID (recreated meanwhile),
 *   INVALID_REQUEST, OFFSET_OUT_OF_RANGE with the valid range, GROUP_ID_NOT_FOUND (the target is relative to what the
 *   group has committed), why a partition is out of service, and as `GroupCoordinatorApi.setOffsets`
 */
export async function resetGroupOffsets(
  groups: GroupCoordinatorApi,
  topics: Topics,
  command: ResetCommand,
): Promise<ResetAnswer> {
  const { groupId, topic: name, target } = command;
  refuseInternal(name, 'consumed by a group');
  checkTarget(target);
  const { record, slots } = topics.get(name);
  const indexes = command.partitions.length > 0 ? [...new Set(command.partitions)] : [...slots.keys()];
  const partitions = indexes.map((index) => topics.partition(name, record.id, index));
  const group = await groups.find(groupId);
  if (group === undefined && isRelative(target)) throw notFound(groupId, target);
  const places = placesInTopic(group, record.id);
  const resets: PartitionReset[] = [];
  await forEachLimit(partitions, CONCURRENCY, async (partition) => {
    resets.push(await planReset(partition, places.get(partition.index), target));
  });
  resets.sort((a, b) => a.partition - b.partition);
  if (!command.validateOnly) {
    const offsets = resets.map(({ partition, offsetAfter }) => ({ partition, offset: offsetAfter }));
    await groups.setOffsets({ groupId, topic: name, topicId: record.id, offsets });
  }
  return { partitions: resets, memberCount: group?.memberCount ?? 0, created: group === undefined };
}

function isRelative({ kind }: ResetTarget): boolean {
  return kind === 'shift' || kind === 'current';
}

function checkTarget(target: ResetTarget): void {
  if (target.kind === 'shift' && !Number.isSafeInteger(target.by)) {
    throw new LogError('INVALID_REQUEST', `shift_by is a whole number of offsets, not ${target.by}.`);
  }
}

function placesInTopic(group: GroupSnapshot | undefined, topicId: string): ReadonlyMap<number, GroupPlace> {
  const places = group === undefined ? [] : placesOf(group);
  return new Map(places.filter((place) => place.topicId === topicId).map((place) => [place.partition, place]));
}

async function planReset(
  partition: Partition,
  place: GroupPlace | undefined,
  target: ResetTarget,
): Promise<PartitionReset> {
  const offsetBefore = place?.committed?.offset;
  const offsetAfter = await targetOffset(partition, offsetBefore, target);
  const { index, logStartOffset, highWatermark } = partition;
  return { partition: index, offsetBefore, offsetAfter, logStartOffset, highWatermark, ownerId: place?.ownerId };
}

async function targetOffset(partition: Partition, committed: number | undefined, target: ResetTarget): Promise<number> {
  const { logStartOffset, highWatermark } = partition;
  if (target.kind === 'current') return committed ?? logStartOffset;
  if (target.kind === 'shift') {
    const shifted = (committed ?? logStartOffset) + target.by;
    return Math.min(Math.max(shifted, logStartOffset), highWatermark);
  }
  if (target.kind !== 'offset') return (await offsetAt(partition, target)).offset;
  if (target.offset >= logStartOffset && target.offset <= highWatermark) return target.offset;
  throw outside(partition, target.offset);
}

function outside({ topic, index, logStartOffset, highWatermark }: Partition, offset: number): LogError {
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `A group cannot go on at offset ${offset} of ${topic}-${index}: the valid range is ${logStartOffset} to ` +
      `${highWatermark}. Nothing was moved.`,
    {
      metadata: { topic, partition: index, offset, log_start_offset: logStartOffset, high_watermark: highWatermark },
    },
  );
}

function notFound(groupId: string, { kind }: ResetTarget): LogError {
  const target = kind === 'shift' ? 'shift_by' : 'current';
  return new LogError(
    'GROUP_ID_NOT_FOUND',
    `There is no group ${JSON.stringify(groupId)}, and ${target} goes from what a group has committed. ` +
      'Name a position, an offset or a time to create it.',
    { metadata: { group_id: groupId } },
  );
}
