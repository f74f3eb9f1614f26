/** GroupService over the coordinator. */
import type { ServerUnaryCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { FoundOffset, MemberAssignment } from '../../broker/groups/coordinator-types.js';
import type { OwnedPartitions, Subscription } from '../../broker/groups/group-types.js';
import { partitionKey, toTopicId } from '../../core/types.js';
import type {
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  CommittedOffsetMessage,
  FetchOffsetsRequest,
  FetchOffsetsResponse,
  GroupAssignmentMessage,
  GroupSubscriptionMessage,
  HeartbeatRequest,
  HeartbeatResponse,
  JoinGroupRequest,
  JoinGroupResponse,
  LeaveGroupRequest,
  LeaveGroupResponse,
  TopicPartitionsMessage,
} from '../../rpc/group-messages.js';
import { beginCommit, commitOffsets, MAX_UNANSWERED_COMMITS, weightOfCommit } from './commit-stream.js';
import type { BudgetsByKind } from './connection-budgets.js';
import { counted, type GroupCallContext, type Weights } from './group-calls.js';
import { abortOnCancel, unary } from './handlers.js';
import { Pipeline, type PipelinedCall } from './pipelined-stream.js';
import type { ReceiveBudget } from './receive-budget.js';

/** What a partition of an assignment, or an offset, weighs besides its texts. */
const PART_OVERHEAD_BYTES = 128;

/** GroupService, and the streams of commits that are open. */
export class GroupSessions {
  readonly #context: GroupCallContext;
  readonly #commits: Pipeline<CommitOffsetsRequest, CommitOffsetsResponse>;

  constructor(broker: Broker, budgets: BudgetsByKind, received: ReceiveBudget) {
    this.#context = { broker, budgets };
    this.#commits = new Pipeline({
      logger: broker.logger,
      budgets: budgets.commitStreams,
      received,
      maxUnanswered: MAX_UNANSWERED_COMMITS,
      drained: 'The broker is stopping. Commit again after it is back.',
      open: () => (request) => beginCommit(broker.groups, request),
    });
  }

  handlers(): UntypedServiceImplementation {
    const context = this.#context;
    const { groups, logger } = context.broker;
    return {
      JoinGroup: unary(logger, (_request: JoinGroupRequest, call: JoinCall) => join(context, call)),
      Heartbeat: unary(logger, (_request: HeartbeatRequest, call: HeartbeatCall) => heartbeat(context, call)),
      LeaveGroup: unary(logger, async (request: LeaveGroupRequest): Promise<LeaveGroupResponse> => {
        const { groupId, memberId, temporary } = request;
        await groups.leave({ groupId, memberId, temporary });
        return {};
      }),
      CommitOffsets: unary(logger, (request: CommitOffsetsRequest, call) =>
        context.budgets.unary.whileCharged(call.getPeer(), weightOfCommit(request), () =>
          commitOffsets(groups, request),
        ),
      ),
      CommitOffsetsStream: (call: PipelinedCall<CommitOffsetsRequest, CommitOffsetsResponse>): void =>
        this.#commits.handle(call),
      FetchOffsets: unary(logger, (_request: FetchOffsetsRequest, call: FetchOffsetsCall) =>
        fetchOffsets(context, call),
      ),
    };
  }

  /** Ends every stream of commits, each after everything it sent was answered. */
  drain(): void {
    this.#commits.drain();
  }
}

type JoinCall = ServerUnaryCall<JoinGroupRequest, JoinGroupResponse>;
type HeartbeatCall = ServerUnaryCall<HeartbeatRequest, HeartbeatResponse>;
type FetchOffsetsCall = ServerUnaryCall<FetchOffsetsRequest, FetchOffsetsResponse>;

const JOIN: Weights<JoinGroupRequest, JoinGroupResponse> = {
  parts: ({ subscription }) => subscription?.topics.length ?? 0,
  answer: ({ assignment }) => weightOfAssignment(assignment),
};

const HEARTBEAT: Weights<HeartbeatRequest, HeartbeatResponse> = {
  parts: ({ subscription, owned }) => (subscription?.topics.length ?? 0) + partsOf(owned),
  answer: ({ assignment }) => weightOfAssignment(assignment),
};

const FETCH_OFFSETS: Weights<FetchOffsetsRequest, FetchOffsetsResponse> = {
  parts: ({ topics }) => partsOf(topics),
  answer: ({ offsets }) =>
    offsets.reduce((bytes, { topic, metadata }) => bytes + PART_OVERHEAD_BYTES + topic.length + metadata.length, 0),
};

function partsOf(topics: readonly TopicPartitionsMessage[]): number {
  return topics.reduce((parts, { partitions }) => parts + 1 + partitions.length, 0);
}

function weightOfAssignment(assignment: GroupAssignmentMessage | undefined): number {
  if (assignment === undefined) return 0;
  return assignment.partitions.reduce((bytes, { topic }) => bytes + PART_OVERHEAD_BYTES + topic.length, 0);
}

async function join(context: GroupCallContext, call: JoinCall): Promise<JoinGroupResponse> {
  const { groupId, memberId, instanceId, clientId, assignor, sessionTimeoutMs, rebalanceTimeoutMs } = call.request;
  return await counted(context, call, JOIN, async () => {
    const command = {
      groupId,
      memberId,
      instanceId: instanceId === '' ? undefined : instanceId,
      clientId,
      host: hostOf(call.getPeer()),
      subscription: toSubscription(call.request.subscription) ?? { topics: [], pattern: undefined },
      assignor,
      sessionTimeoutMs,
      rebalanceTimeoutMs,
    };
    const answer = await context.broker.groups.join(command, abortOnCancel(call));
    const { memberEpoch, heartbeatIntervalMs } = answer;
    const assignment = toAssignment(answer);
    return { memberEpoch, sessionTimeoutMs: answer.sessionTimeoutMs, heartbeatIntervalMs, assignment };
  });
}

async function heartbeat(context: GroupCallContext, call: HeartbeatCall): Promise<HeartbeatResponse> {
  const { broker } = context;
  const { groupId, memberId, memberEpoch, maxWaitMs } = call.request;
  return await counted(context, call, HEARTBEAT, async () => {
    const owned = toOwned(broker, call.request.owned);
    const subscription = toSubscription(call.request.subscription);
    const command = { groupId, memberId, memberEpoch, owned, subscription, maxWaitMs };
    const answer = await broker.groups.heartbeat(command, abortOnCancel(call));
    const { heartbeatIntervalMs, assignment } = answer;
    const told = assignment === undefined ? {} : { assignment: toAssignment(assignment) };
    return { memberEpoch: answer.memberEpoch, heartbeatIntervalMs, ...told };
  });
}

async function fetchOffsets(context: GroupCallContext, call: FetchOffsetsCall): Promise<FetchOffsetsResponse> {
  const { groupId, memberId, memberEpoch, topics } = call.request;
  return await counted(context, call, FETCH_OFFSETS, async () => {
    const found = await context.broker.groups.fetchOffsets({ groupId, memberId, memberEpoch, topics });
    return { offsets: found.map(toCommittedOffset) };
  });
}

/** Of the peer's address, without the port. */
export function hostOf(peer: string): string {
  return peer.replace(/:\d+$/, '');
}

/** @param message null: not set */
function toSubscription(message: GroupSubscriptionMessage | null | undefined): Subscription | undefined {
  if (message === null || message === undefined) return undefined;
  return { topics: message.topics, pattern: message.topicPattern === '' ? undefined : message.topicPattern };
}

/**
 * Without a topic id, that of the topic which has the name now is meant; a topic that is gone can no longer be owned.
 * @throws LogError INVALID_REQUEST: an id that is none
 */
function toOwned({ topics }: Broker, messages: readonly TopicPartitionsMessage[]): OwnedPartitions {
  const owned = new Set<string>();
  for (const { topic, topicId, partitions } of messages) {
    const id = topicId === '' ? topics.idOf(topic) : toTopicId(topicId);
    if (id === undefined) continue;
    for (const partition of partitions) owned.add(partitionKey({ topicId: id, partition }));
  }
  return owned;
}

function toAssignment({ partitions }: MemberAssignment): GroupAssignmentMessage {
  return {
    partitions: partitions.map(({ topic, topicId, partition, since }) => ({
      topic,
      topicId,
      partition,
      assignmentEpoch: since,
    })),
  };
}

function toCommittedOffset(found: FoundOffset): CommittedOffsetMessage {
  const { topic, topicId, partition, committed, topicCommitted, addedLater } = found;
  const known = { topicCommitted, addedLater, earlierTopicId: found.earlierTopicId ?? '' };
  const place = { topic, topicId, partition, ...known };
  if (committed === undefined) return { ...place, offset: -1, metadata: '', commitTimeMs: 0 };
  const { offset, leaderEpoch, metadata, commitTimeMs } = committed;
  return { ...place, offset, metadata, commitTimeMs, ...(leaderEpoch < 0 ? {} : { leaderEpoch }) };
}
