/** What is wrong with the group, the member or the commit that a caller names. */
import { LogError, toLogError } from '../../core/errors.js';
import type { PendingTransaction } from './coordinator-types.js';
import type { GroupPartition } from './group-types.js';
import { OFFSETS_TOPIC } from './offsets-topic.js';

/** Until a shard is loaded, in ms: callers ask again after this. */
const LOAD_RETRY_MS = 100;

export function groupNotFound(groupId: string): LogError {
  return new LogError(
    'GROUP_ID_NOT_FOUND',
    `There is no group ${JSON.stringify(groupId)}. List those that there are: tidelog group list.`,
    {
      metadata: { group_id: groupId },
    },
  );
}

/** The member of a group that is not there. */
export function noSuchMember(groupId: string, memberId: string): LogError {
  return new LogError(
    'UNKNOWN_MEMBER_ID',
    `There is no group ${JSON.stringify(groupId)}, and so no member. Join anew.`,
    {
      metadata: { group_id: groupId, member_id: memberId },
    },
  );
}

export function nonEmptyGroup(groupId: string, memberCount: number): LogError {
  return new LogError(
    'NON_EMPTY_GROUP',
    `Group ${JSON.stringify(groupId)} has members (${memberCount}). Stop them first, or wait until their sessions end.`,
    { metadata: { group_id: groupId, member_count: memberCount } },
  );
}

/** @param groupId undefined: all groups are asked for */
export function loadInProgress(groupId: string | undefined): LogError {
  const what = groupId === undefined ? 'The groups are' : `Group ${JSON.stringify(groupId)} is`;
  return new LogError('COORDINATOR_LOAD_IN_PROGRESS', `${what} being read from ${OFFSETS_TOPIC}. Try again.`, {
    metadata: groupId === undefined ? {} : { group_id: groupId },
    retryAfterMs: LOAD_RETRY_MS,
  });
}

export function coordinatorDraining(): LogError {
  return new LogError('BROKER_DRAINING', 'The broker is stopping: groups go on after it is back.');
}

/**
 * A change of a group could not be written.
 * @param isInLog whether the log has it all the same, though perhaps not for good
 */
export function notWritten(partition: number, cause: unknown, isInLog: boolean): LogError {
  const { reason, message, metadata, outcome: known, retryAfterMs } = toLogError(cause);
  const outcome = isInLog ? 'unknown' : known;
  const became = outcome === 'none' ? 'it was taken back' : 'whether it is there, the log will show when it is read';
  return new LogError(
    reason,
    `A change of groups could not be written to ${OFFSETS_TOPIC}-${partition}, and ${became}: ${message}`,
    {
      cause,
      metadata: { ...metadata, offsets_partition: partition },
      outcome,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  );
}

/** The groups of one partition of the offsets topic cannot be read. */
export function notReadable(partition: number, cause: unknown): LogError {
  const { reason, message, metadata, retryAfterMs } = toLogError(cause);
  return new LogError(reason, `The groups kept in ${OFFSETS_TOPIC}-${partition} cannot be read: ${message}`, {
    cause,
    metadata: { ...metadata, offsets_partition: partition },
    outcome: 'none',
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

export function tooManyGroups(limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `This broker keeps at most ${limit} groups (groups.max). Delete some: tidelog group delete NAME.`,
    { metadata: { limit } },
  );
}

export function tooManyMembers(limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `The groups of this broker have at most ${limit} members together (members.max). Join when others have left.`,
    { metadata: { limit } },
  );
}

export function tooManyOffsets(limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `This broker keeps at most ${limit} committed offsets (offsets.max). Delete groups that nobody needs.`,
    { metadata: { limit } },
  );
}

export function tooManyPlaces(limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `The groups of this broker read as many topics and partitions as it keeps committed offsets: ${limit} ` +
      '(offsets.max). Join when others have left, or delete groups that nobody needs.',
    { metadata: { limit } },
  );
}

type Holder = Omit<PendingTransaction, 'groupId'>;

function unstable(
  what: string,
  { producerId, producerEpoch }: Holder,
  metadata: Record<string, string | number>,
): LogError {
  return new LogError(
    'UNSTABLE_OFFSET_COMMIT',
    `${what} of producer ${producerId} (epoch ${producerEpoch}), which is not decided: it ends by its timeout at the ` +
      'latest. Try again then, or abort it: tidelog transaction list.',
    { metadata: { ...metadata, producer_id: producerId, producer_epoch: producerEpoch } },
  );
}

/** A transaction has an offset of the partition. */
export function unstableOffset(groupId: string, { topic, partition }: GroupPartition, holder: Holder): LogError {
  const what = `The offset of ${topic}-${partition} in group ${JSON.stringify(groupId)} waits for a transaction`;
  return unstable(what, holder, { group_id: groupId, topic, partition });
}

/** A transaction has offsets of the group. */
export function waitsForTransaction(groupId: string, holder: Holder): LogError {
  return unstable(`Offsets of group ${JSON.stringify(groupId)} wait for a transaction`, holder, { group_id: groupId });
}

/** Of the same producer, offsets of a later transaction wait. */
export function lateTransactionOffsets(groupId: string, producerId: number, epoch: number, current: number): LogError {
  return new LogError(
    'PRODUCER_FENCED',
    `Offsets of producer ${producerId} with epoch ${epoch} come too late for group ${JSON.stringify(groupId)}: those of ` +
      `epoch ${current} are there already.`,
    { metadata: { group_id: groupId, producer_id: producerId, producer_epoch: epoch, current_epoch: current } },
  );
}

export function tooManyPending(groupId: string, limit: number, metadataLimit: number): LogError {
  return new LogError(
    'INVALID_REQUEST',
    `One transaction commits at most ${limit} offsets of group ${JSON.stringify(groupId)}, with at most ${metadataLimit} ` +
      'characters of metadata together. Commit what there is first.',
    { metadata: { group_id: groupId, limit, metadata_limit: metadataLimit } },
  );
}

export function overtakenCommit(groupId: string, memberId: string, sequence: number, last: number): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `A later commit of member ${memberId} has overtaken this one (sequence ${sequence}, the last was ${last}).`,
    { metadata: { group_id: groupId, member_id: memberId, sequence, last_sequence: last } },
  );
}

export function uncommittableOffset(
  { topic, partition, offset }: { readonly topic: string; readonly partition: number; readonly offset: number },
  logStartOffset: number,
  highWatermark: number,
): LogError {
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Offset ${offset} of ${topic}-${partition} cannot be committed: the next offset to read is 0 to ${highWatermark}.`,
    {
      metadata: { topic, partition, offset, log_start_offset: logStartOffset, high_watermark: highWatermark },
    },
  );
}

export function metadataTooLarge(topic: string, partition: number, bytes: number, limit: number): LogError {
  return new LogError(
    'OFFSET_METADATA_TOO_LARGE',
    `The metadata of ${topic}-${partition} takes ${bytes} bytes; at most ${limit} are kept (offset.metadata.max.bytes).`,
    { metadata: { topic, partition, actual_bytes: bytes, max_bytes: limit } },
  );
}
