/** What may be committed, and what was. */
import { LogError } from '../../core/errors.js';
import type { Partition } from '../../partition/partition.js';
import { refuseInternal, unknownPartition } from '../topic-errors.js';
import type { Topics } from '../topics.js';
import type {
  FetchOffsetsCommand,
  FoundOffset,
  OffsetToCommit,
  RefusedOffset,
  StoredOffset,
} from './coordinator-types.js';
import { checkCommittable, wasAddedLater } from './group.js';
import { metadataTooLarge, uncommittableOffset, unstableOffset, waitsForTransaction } from './group-errors.js';
import type { GroupPartition, GroupState, Member } from './group-types.js';
import type { CommittedOffsets, OffsetChange } from './offsets.js';
import type { GroupTransactions } from './pending-offsets.js';

/** Who commits; undefined: nobody, for a group without members. */
export interface Committer {
  readonly member: Member;
  readonly epoch: number;
}

export interface CommitRules {
  readonly topics: Topics;
  readonly metadataMaxBytes: number;
  /** Wall clock. */
  readonly nowMs: number;
}

/** An offset that may be committed. */
export interface AcceptedOffset extends OffsetChange {
  readonly value: StoredOffset;
}

export interface CheckedOffsets {
  readonly accepted: readonly AcceptedOffset[];
  readonly refused: readonly RefusedOffset[];
}

/** Each offset by itself: one that is refused does not keep the others from being committed. */
export function checkCommit(
  offsets: readonly OffsetToCommit[],
  committer: Committer | undefined,
  rules: CommitRules,
): CheckedOffsets {
  const accepted: AcceptedOffset[] = [];
  const refused: RefusedOffset[] = [];
  for (const offset of offsets) {
    try {
      accepted.push(checkOne(offset, committer, rules));
    } catch (error) {
      if (!(error instanceof LogError)) throw error;
      refused.push({ topic: offset.topic, partition: offset.partition, error });
    }
  }
  return { accepted, refused };
}

/** @throws LogError why it cannot be committed */
function checkOne(given: OffsetToCommit, committer: Committer | undefined, rules: CommitRules): AcceptedOffset {
  const { topic, partition, offset, leaderEpoch, metadata } = given;
  refuseInternal(topic, 'consumed by a group');
  const found = rules.topics.partition(topic, given.topicId, partition);
  const { topicId } = found.log.id;
  if (committer !== undefined) refuseUnless(committer, { topic, topicId, partition });
  checkRange(given, found);
  const bytes = Buffer.byteLength(metadata);
  if (bytes > rules.metadataMaxBytes) throw metadataTooLarge(topic, partition, bytes, rules.metadataMaxBytes);
  return { topicId, partition, value: { topic, offset, leaderEpoch, metadata, commitTimeMs: rules.nowMs } };
}

function refuseUnless({ member, epoch }: Committer, partition: Parameters<typeof checkCommittable>[2]): void {
  const refusal = checkCommittable(member, epoch, partition);
  if (refusal !== undefined) throw refusal;
}

/** What lies below the log start offset was there once: whoever reads on from it is told. */
function checkRange(given: OffsetToCommit, { logStartOffset, highWatermark }: Partition): void {
  if (given.offset > highWatermark) throw uncommittableOffset(given, logStartOffset, highWatermark);
}

/** What is known of a group's offsets. */
interface FoundGroup {
  readonly state: GroupState;
  readonly offsets: CommittedOffsets;
  readonly transactions: GroupTransactions | undefined;
}

/**
 * What is known of the committed offsets of the partitions that are asked for.
 * @param group undefined: there is none, so nothing was committed
 * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, UNSTABLE_OFFSET_COMMIT
 */
export function findOffsets(
  asked: FetchOffsetsCommand['topics'],
  group: FoundGroup | undefined,
  topics: Topics,
): FoundOffset[] {
  return asked.flatMap(({ topic: name, topicId: knownId, partitions }) => {
    const { record } = knownId === '' ? topics.get(name) : topics.withId(name, knownId);
    const offsets = group?.offsets;
    const topicCommitted = offsets?.hasTopic(record.id) === true;
    const earlierTopicId = offsets?.earlierTopicId(name, record.id);
    return partitions.map((partition): FoundOffset => {
      if (!isPartition(partition, record.partitionCount))
        throw unknownPartition(name, partition, record.partitionCount);
      refuseUnstable(group, { topic: name, topicId: record.id, partition });
      const committed = offsets?.get({ topicId: record.id, partition });
      const addedLater = group !== undefined && wasAddedLater(group.state, record.id, partition);
      return { topic: name, topicId: record.id, partition, committed, topicCommitted, addedLater, earlierTopicId };
    });
  });
}

function refuseUnstable(group: FoundGroup | undefined, partition: GroupPartition): void {
  const holder = group?.transactions?.durable.holderOf(partition);
  if (group !== undefined && holder !== undefined) throw unstableOffset(group.state.groupId, partition, holder);
}

function isPartition(partition: number, partitionCount: number): boolean {
  return Number.isInteger(partition) && partition >= 0 && partition < partitionCount;
}

/**
 * Everything that the group has committed, of topics that are gone as well.
 * @throws LogError UNSTABLE_OFFSET_COMMIT
 */
export function allOffsets({ state: { groupId }, offsets, transactions }: FoundGroup): FoundOffset[] {
  for (const holder of transactions?.durable.holders() ?? []) throw waitsForTransaction(groupId, holder);
  return [...offsets.all()].map(({ topicId, partition, ...committed }) => {
    const { topic } = committed;
    const fields = { topicCommitted: true, addedLater: false, earlierTopicId: undefined };
    return { topic, topicId, partition, committed, ...fields };
  });
}
