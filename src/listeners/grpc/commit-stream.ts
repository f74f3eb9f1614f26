/** CommitOffsets, one call at a time and pipelined. */
import type {
  CommitCommand,
  GroupCoordinatorApi,
  OffsetToCommit,
  RefusedOffset,
} from '../../broker/groups/coordinator-types.js';
import { LogError } from '../../core/errors.js';
import type {
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  OffsetToCommitMessage,
  RefusedOffsetMessage,
} from '../../rpc/group-messages.js';
import { toStatusMessage } from '../../rpc/status-codec.js';
import type { Begun } from './pipelined-stream.js';

/** Commits of one stream that may wait for their answers. */
export const MAX_UNANSWERED_COMMITS = 1000;
/** What a request weighs besides its offsets. */
const REQUEST_OVERHEAD_BYTES = 256;
/** What an offset weighs besides its texts; should it be refused, as much for saying why. */
const OFFSET_OVERHEAD_BYTES = 512;

/** What a request weighs while it is carried out. */
export function weightOfCommit(request: Pick<CommitOffsetsRequest, 'offsets'>): number {
  let bytes = REQUEST_OVERHEAD_BYTES;
  for (const { topic, metadata } of request.offsets) bytes += OFFSET_OVERHEAD_BYTES + topic.length + metadata.length;
  return bytes;
}

/** Carries out one commit; the coordinator has it, in order with others, when this returns. */
export async function commitOffsets(
  groups: GroupCoordinatorApi,
  request: CommitOffsetsRequest,
): Promise<CommitOffsetsResponse> {
  return { refused: toRefusedOffsets(await groups.commit(toCommand(request))) };
}

export function toRefusedOffsets(refused: readonly RefusedOffset[]): RefusedOffsetMessage[] {
  return refused.map(({ topic, partition, error }) => ({ topic, partition, error: toStatusMessage(error) }));
}

/** Begins one commit of a stream. */
export function beginCommit(
  groups: GroupCoordinatorApi,
  request: CommitOffsetsRequest | null | undefined,
): Begun<CommitOffsetsResponse> {
  if (request === null || request === undefined) {
    const missing = new LogError('INVALID_REQUEST', 'The message has no request, so there is nothing to commit.');
    return { bytes: REQUEST_OVERHEAD_BYTES, outcome: Promise.reject(missing) };
  }
  return { bytes: weightOfCommit(request), outcome: commitOffsets(groups, request) };
}

function toCommand(request: CommitOffsetsRequest): CommitCommand {
  const { groupId, memberId, memberEpoch, sequence } = request;
  return { groupId, memberId, memberEpoch, sequence, offsets: toOffsetsToCommit(request.offsets) };
}

export function toOffsetsToCommit(messages: readonly OffsetToCommitMessage[]): OffsetToCommit[] {
  return messages.map(({ topic, topicId, partition, offset, metadata, leaderEpoch }) => ({
    topic,
    topicId,
    partition,
    offset,
    leaderEpoch: leaderEpoch ?? -1,
    metadata,
  }));
}
