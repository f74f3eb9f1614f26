/** What a consumer uses of its client's. */
import type { Admin } from '../admin.js';
import type { CommittedPosition, ConsumerParts } from '../consumer.js';
import type { SessionContext } from '../fetch-session.js';
import type { CommitStreams } from './commit-stream.js';
import { type CommittedOffset, fetchCommittedOffsets, startPositions } from './committed-offsets.js';
import { GroupMembership } from './membership.js';

export interface ConsumerClient extends SessionContext, Pick<ConsumerParts, 'open' | 'throwIfClosed'> {
  readonly admin: Admin;
  readonly clientId: string;
  readonly requestTimeoutMs: number;
  readonly commitStreams: CommitStreams;
}

export function consumerParts(client: ConsumerClient, group: string): ConsumerParts {
  const { channel, runtime, open, throwIfClosed, admin } = client;
  return {
    channel,
    runtime,
    open,
    throwIfClosed,
    createMembership: (subscription, options, listener) =>
      new GroupMembership({ ...options, groupId: options.group, subscription }, client, listener),
    findStarts: (partitions, from, signal) => startPositions(group, partitions, from, client, signal),
    findOffset: async ({ topic, partition }, spec, signal) => {
      const [found] = await admin.listOffsets(topic, spec, [partition], signal === undefined ? {} : { signal });
      return found?.offset ?? 0;
    },
    findCommitted: async (partitions) => {
      if (partitions.length === 0) return [];
      const topics = partitions.map(({ topic, topicId, partition }) => ({ topic, topicId, partitions: [partition] }));
      return (await fetchCommittedOffsets(group, topics, client)).map(toCommittedPosition);
    },
  };
}

function toCommittedPosition({ topic, partition, offset, metadata, commitTimeMs }: CommittedOffset): CommittedPosition {
  const isCommitted = offset >= 0;
  return {
    topic,
    partition,
    offset: isCommitted ? offset : undefined,
    metadata,
    commitTimeMs: isCommitted ? commitTimeMs : undefined,
  };
}
