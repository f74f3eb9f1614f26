/** What AdminService does with groups. */
import type { ServerUnaryCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { GroupStateLabel, GroupSummary, MemberDescription } from '../../broker/groups/coordinator-types.js';
import { GroupDescriber, type GroupPartition } from '../../broker/groups/describe.js';
import { type PartitionReset, type ResetTarget, resetGroupOffsets } from '../../broker/groups/reset.js';
import { LogError } from '../../core/errors.js';
import type {
  DeleteGroupRequest,
  DeleteGroupResponse,
  GetGroupRequest,
  GetGroupResponse,
  GroupMemberMessage,
  GroupMessage,
  GroupOffsetResetMessage,
  GroupPartitionMessage,
  GroupStateName,
  ListGroupsRequest,
  ListGroupsResponse,
  ResetGroupOffsetsRequest,
  ResetGroupOffsetsResponse,
} from '../../rpc/group-messages.js';
import type { OffsetPositionName } from '../../rpc/messages.js';
import type { BudgetsByKind } from './connection-budgets.js';
import { counted, type GroupCallContext, type Weights } from './group-calls.js';
import { unary } from './handlers.js';
import { pageByName } from './paging.js';

/** What a member or a partition weighs besides its texts. */
const PART_OVERHEAD_BYTES = 256;

const STATES: Readonly<Record<GroupStateLabel, GroupStateName>> = {
  empty: 'GROUP_STATE_EMPTY',
  assigning: 'GROUP_STATE_ASSIGNING',
  reconciling: 'GROUP_STATE_RECONCILING',
  stable: 'GROUP_STATE_STABLE',
};

const POSITIONS: Readonly<Partial<Record<OffsetPositionName, ResetTarget>>> = {
  OFFSET_POSITION_EARLIEST: { kind: 'earliest' },
  OFFSET_POSITION_LATEST: { kind: 'latest' },
  OFFSET_POSITION_LATEST_BY_TIMESTAMP: { kind: 'latest-by-timestamp' },
};

type GetGroupCall = ServerUnaryCall<GetGroupRequest, GetGroupResponse>;
type ResetCall = ServerUnaryCall<ResetGroupOffsetsRequest, ResetGroupOffsetsResponse>;

/** The handlers of AdminService that are about groups. */
export function groupAdminHandlers(broker: Broker, budgets: BudgetsByKind): UntypedServiceImplementation {
  const { groups, logger } = broker;
  const context: GroupCallContext = { broker, budgets };
  const describer = new GroupDescriber(broker.topics, broker.clock);
  return {
    ListGroups: unary(logger, async (request: ListGroupsRequest): Promise<ListGroupsResponse> => {
      const { items, nextPageToken } = pageByName(await groups.list(), (group) => group.groupId, request);
      return { groups: items.map(summarize), nextPageToken };
    }),
    GetGroup: unary(logger, (_request: GetGroupRequest, call: GetGroupCall) => getGroup(context, describer, call)),
    DeleteGroup: unary(logger, async (request: DeleteGroupRequest): Promise<DeleteGroupResponse> => {
      await groups.delete(request.groupId);
      return {};
    }),
    ResetGroupOffsets: unary(logger, (_request: ResetGroupOffsetsRequest, call: ResetCall) => reset(context, call)),
  };
}

const GET_GROUP: Weights<GetGroupRequest, GetGroupResponse> = {
  parts: () => 0,
  answer: ({ group }) =>
    group.partitions.reduce(
      (bytes, { topic, metadata }) => bytes + PART_OVERHEAD_BYTES + topic.length + metadata.length,
      group.members.length * PART_OVERHEAD_BYTES,
    ),
};

const RESET: Weights<ResetGroupOffsetsRequest, ResetGroupOffsetsResponse> = {
  parts: ({ partitions }) => partitions.length,
  answer: ({ partitions }) => partitions.length * PART_OVERHEAD_BYTES,
  alwaysAnswered: true,
};

async function getGroup(
  context: GroupCallContext,
  describer: GroupDescriber,
  call: GetGroupCall,
): Promise<GetGroupResponse> {
  return await counted(context, call, GET_GROUP, async () => {
    const snapshot = await context.broker.groups.snapshot(call.request.groupId);
    const members = snapshot.members.map(toMember).sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
    const partitions = (await describer.partitionsOf(snapshot)).map(toPartition);
    return { group: { ...summarize(snapshot), members, partitions } };
  });
}

function summarize({ groupId, state, epoch, assignor, memberCount }: GroupSummary): GroupMessage {
  return { groupId, state: STATES[state], epoch, assignor, memberCount, members: [], partitions: [] };
}

function toMember(member: MemberDescription): GroupMemberMessage {
  const { memberId, clientId, host, memberEpoch, subscription } = member;
  return {
    memberId,
    instanceId: member.instanceId ?? '',
    clientId,
    host,
    memberEpoch,
    topics: [...subscription.topics],
    topicPattern: subscription.pattern ?? '',
    partitionCount: member.partitions.length,
    away: member.away,
  };
}

function toPartition({ topic, topicId, partition, committed, ownerId, log }: GroupPartition): GroupPartitionMessage {
  return {
    topic,
    topicId,
    partition,
    committedOffset: committed?.offset,
    ...log,
    memberId: ownerId ?? '',
    metadata: committed?.metadata ?? '',
    commitTimeMs: committed?.commitTimeMs,
  };
}

async function reset(context: GroupCallContext, call: ResetCall): Promise<ResetGroupOffsetsResponse> {
  const { broker } = context;
  const { groupId, topic, partitions, validateOnly } = call.request;
  return await counted(context, call, RESET, async () => {
    const target = toTarget(call.request);
    const command = { groupId, topic, partitions, target, validateOnly };
    const answer = await resetGroupOffsets(broker.groups, broker.topics, command);
    const { memberCount, created } = answer;
    return { partitions: answer.partitions.map(toReset), memberCount, created };
  });
}

/** Fields of the oneof that are not set are undefined or null. */
function toTarget(request: ResetGroupOffsetsRequest): ResetTarget {
  const { position, offset, timestampMs, shiftBy, current } = request;
  const targets: ResetTarget[] = [];
  const named = position ? POSITIONS[position] : undefined;
  if (named !== undefined) targets.push(named);
  if (typeof offset === 'number') targets.push({ kind: 'offset', offset });
  if (typeof timestampMs === 'number') targets.push({ kind: 'time', timestampMs });
  if (typeof shiftBy === 'number') targets.push({ kind: 'shift', by: shiftBy });
  if (current === true) targets.push({ kind: 'current' });
  const [only] = targets;
  if (only !== undefined && targets.length === 1) return only;
  throw new LogError(
    'INVALID_REQUEST',
    'ResetGroupOffsets takes exactly one of position (EARLIEST, LATEST, LATEST_BY_TIMESTAMP), offset, timestamp_ms, ' +
      'shift_by and current=true.',
  );
}

function toReset(reset: PartitionReset): GroupOffsetResetMessage {
  const { partition, offsetBefore, offsetAfter, logStartOffset, highWatermark, ownerId } = reset;
  return { partition, offsetBefore, offsetAfter, logStartOffset, highWatermark, memberId: ownerId ?? '' };
}
