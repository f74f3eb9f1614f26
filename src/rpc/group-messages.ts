/** The messages of consumer groups, as `messages.ts` has those of the other services. */
import type { OffsetPositionName, StatusMessage } from './messages.js';

export type GroupStateName =
  | 'GROUP_STATE_UNSPECIFIED'
  | 'GROUP_STATE_EMPTY'
  | 'GROUP_STATE_ASSIGNING'
  | 'GROUP_STATE_RECONCILING'
  | 'GROUP_STATE_STABLE';

export interface GroupSubscriptionMessage {
  topics: string[];
  topicPattern: string;
}
export interface TopicPartitionsMessage {
  topic: string;
  topicId: string;
  partitions: number[];
}
export interface AssignedPartitionMessage {
  topic: string;
  topicId: string;
  partition: number;
  assignmentEpoch: number;
}
export interface GroupAssignmentMessage {
  partitions: AssignedPartitionMessage[];
}

export interface JoinGroupRequest {
  groupId: string;
  memberId: string;
  instanceId: string;
  clientId: string;
  subscription?: GroupSubscriptionMessage | undefined;
  assignor: string;
  sessionTimeoutMs: number;
  rebalanceTimeoutMs: number;
}
export interface JoinGroupResponse {
  memberEpoch: number;
  sessionTimeoutMs: number;
  heartbeatIntervalMs: number;
  assignment?: GroupAssignmentMessage | undefined;
}
export interface HeartbeatRequest {
  groupId: string;
  memberId: string;
  memberEpoch: number;
  owned: TopicPartitionsMessage[];
  subscription?: GroupSubscriptionMessage | undefined;
  maxWaitMs: number;
}
export interface HeartbeatResponse {
  memberEpoch: number;
  heartbeatIntervalMs: number;
  assignment?: GroupAssignmentMessage | undefined;
}
export interface LeaveGroupRequest {
  groupId: string;
  memberId: string;
  temporary: boolean;
}
export type LeaveGroupResponse = Record<string, never>;

export interface OffsetToCommitMessage {
  topic: string;
  topicId: string;
  partition: number;
  offset: number;
  leaderEpoch?: number | undefined;
  metadata: string;
}
export interface CommitOffsetsRequest {
  groupId: string;
  memberId: string;
  memberEpoch: number;
  sequence: number;
  offsets: OffsetToCommitMessage[];
}
export interface RefusedOffsetMessage {
  topic: string;
  partition: number;
  error?: StatusMessage | undefined;
}
export interface CommitOffsetsResponse {
  refused: RefusedOffsetMessage[];
}
export interface CommitOffsetsStreamRequest {
  correlationId: number;
  request: CommitOffsetsRequest;
}
export interface CommitOffsetsStreamResult {
  correlationId: number;
  response?: CommitOffsetsResponse | undefined;
  error?: StatusMessage | undefined;
}
export interface CommitOffsetsStreamResponse {
  results: CommitOffsetsStreamResult[];
}
export interface FetchOffsetsRequest {
  groupId: string;
  memberId: string;
  memberEpoch: number;
  topics: TopicPartitionsMessage[];
}
export interface CommittedOffsetMessage {
  topic: string;
  topicId: string;
  partition: number;
  offset: number;
  leaderEpoch?: number | undefined;
  metadata: string;
  commitTimeMs: number;
  topicCommitted: boolean;
  earlierTopicId: string;
  addedLater: boolean;
}
export interface FetchOffsetsResponse {
  offsets: CommittedOffsetMessage[];
}

export interface GroupMemberMessage {
  memberId: string;
  instanceId: string;
  clientId: string;
  host: string;
  memberEpoch: number;
  topics: string[];
  topicPattern: string;
  partitionCount: number;
  away: boolean;
}
export interface GroupPartitionMessage {
  topic: string;
  topicId: string;
  partition: number;
  committedOffset?: number | undefined;
  logStartOffset?: number | undefined;
  highWatermark?: number | undefined;
  lag?: number | undefined;
  lagMs?: number | undefined;
  memberId: string;
  metadata: string;
  commitTimeMs?: number | undefined;
}
export interface GroupMessage {
  groupId: string;
  state: GroupStateName;
  epoch: number;
  assignor: string;
  memberCount: number;
  members: GroupMemberMessage[];
  partitions: GroupPartitionMessage[];
}
export interface ListGroupsRequest {
  pageSize: number;
  pageToken: string;
}
export interface ListGroupsResponse {
  groups: GroupMessage[];
  nextPageToken: string;
}
export interface GetGroupRequest {
  groupId: string;
}
export interface GetGroupResponse {
  group: GroupMessage;
}
export interface DeleteGroupRequest {
  groupId: string;
}
export type DeleteGroupResponse = Record<string, never>;

/** Exactly one of the five targets is set. */
export interface ResetGroupOffsetsRequest {
  groupId: string;
  topic: string;
  partitions: number[];
  position?: OffsetPositionName | undefined;
  offset?: number | undefined;
  timestampMs?: number | undefined;
  shiftBy?: number | undefined;
  current?: boolean | undefined;
  validateOnly: boolean;
}
export interface GroupOffsetResetMessage {
  partition: number;
  offsetBefore?: number | undefined;
  offsetAfter: number;
  logStartOffset: number;
  highWatermark: number;
  memberId: string;
}
export interface ResetGroupOffsetsResponse {
  partitions: GroupOffsetResetMessage[];
  memberCount: number;
  created: boolean;
}
