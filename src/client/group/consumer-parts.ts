/** What a consumer uses of its client's. */
import { type Reason, toLogError } from '../../core/errors.js';
import type { Admin } from '../admin.js';
import type { CommittedPosition, ConsumerParts } from '../consumer.js';
import type { SessionContext } from '../fetch-session.js';
import type { CommitStreams } from './commit-stream.js';
import { startPositions } from './committed-offsets.js';
import { type CommittedOffset, fetchCommittedOffsets } from './fetch-offsets.js';
import { GroupMembership } from './membership.js';

export interface ConsumerClient extends SessionContext, Pick<ConsumerParts, 'open' | 'working' | 'throwIfClosed'> {
  readonly admin: Admin;
  readonly clientId: string;
  readonly requestTimeoutMs: number;
  readonly commitStreams: CommitStreams;
}

export function consumerParts(client: ConsumerClient, group: string): ConsumerParts {
  const { channel, runtime, open, working, throwIfClosed, admin } = client;
  return {
    channel,
    runtime,
    open,
    working,
    throwIfClosed,
    createMembership: (subscription, options, listener) =>
      new GroupMembership({ ...options, groupId: options.group, subscription }, client, listener),
    findStarts: (partitions, policy, signal) => startPositions(group, partitions, policy, client, signal),
    findOffset: async ({ topic, partition }, spec, isolation, signal) => {
      const options = signal === undefined ? { isolation } : { isolation, signal };
      const [found] = await admin.listOffsets(topic, spec, [partition], options);
      return found?.offset ?? 0;
    },
    warnOfMissing: async (topics, signal) => {
      for (const topic of topics) {
        const reason = await admin.getTopic(topic, { signal }).then(() => undefined, reasonOf);
        if (reason !== 'UNKNOWN_TOPIC_OR_PARTITION' || signal.aborted) continue;
        runtime.logger.warn({ group, topic }, 'a topic to consume does not exist: it is waited for');
      }
    },
    findCommitted: async (partitions) => {
      if (partitions.length === 0) return [];
      const topics = partitions.map(({ topic, topicId, partition }) => ({ topic, topicId, partitions: [partition] }));
      return (await fetchCommittedOffsets(group, topics, client)).map(toCommittedPosition);
    },
  };
}

const reasonOf = (error: unknown): Reason => toLogError(error).reason;

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
