/** Administration of consumer groups: what `client.admin` does of it. */
import { LogError } from '../core/errors.js';
import type {
  GroupMemberMessage,
  GroupMessage,
  GroupOffsetResetMessage,
  GroupPartitionMessage,
  GroupStateName,
  ResetGroupOffsetsRequest,
} from '../rpc/group-messages.js';
import { type AdminCalls, allPages, type CallOptions } from './admin-calls.js';
import { methods } from './methods.js';

/** Groups asked for per page when listing. */
const LIST_PAGE_SIZE = 1_000;

/**
 * `empty`: no members. `assigning`: the assignment is about to be worked out. `reconciling`: some partition is still on its
 * way to the member that is to have it. `stable`: every member has what it is to have. `unknown`: a state that only newer
 * brokers have.
 */
export type GroupState = 'empty' | 'assigning' | 'reconciling' | 'stable' | 'unknown';

export interface GroupSummary {
  readonly groupId: string;
  readonly state: GroupState;
  /** Rises with every change of what some member may hold. */
  readonly epoch: number;
  /** `uniform` or `range`. */
  readonly assignor: string;
  readonly memberCount: number;
}

export interface GroupMemberDescription {
  /** A UUID, another one for each session. */
  readonly memberId: string;
  /** Of a static member: the name that outlives its process. */
  readonly instanceId: string | undefined;
  readonly clientId: string;
  /** The address that it connects from, without a port. */
  readonly host: string;
  /** The group's epoch when the member's own assignment last changed. */
  readonly memberEpoch: number;
  /** The topics that it subscribes to by name; none when it does so by pattern. */
  readonly topics: readonly string[];
  /** In RE2's syntax; undefined when it subscribes by names. */
  readonly topicPattern: string | undefined;
  /** Partitions that it holds. */
  readonly partitionCount: number;
  /** A static member that left for a while: nobody works on its partitions, which wait for it until its session is over. */
  readonly away: boolean;
}

/** A partition that the group has committed an offset of, or that a member owns. */
export interface GroupPartitionDescription {
  readonly topic: string;
  readonly topicId: string;
  readonly partition: number;
  /** The next offset to read; undefined: nothing was committed. */
  readonly committedOffset: number | undefined;
  /** This and what follows up to the lag is undefined when the partition is gone or out of service. */
  readonly logStartOffset: number | undefined;
  readonly highWatermark: number | undefined;
  /** Offsets between the committed one, or the log start offset without one, and the high watermark. */
  readonly lag: number | undefined;
  /** Age of the first record that is not covered by the committed offset, in ms; 0 without lag; undefined when not known. */
  readonly lagMs: number | undefined;
  /** The owner; undefined: nobody owns it now. */
  readonly memberId: string | undefined;
  /** What was committed with the offset; empty without any. */
  readonly metadata: string;
  /** When the offset was committed, in ms since the epoch; undefined without one. */
  readonly commitTimeMs: number | undefined;
}

export interface GroupDescription extends GroupSummary {
  readonly members: readonly GroupMemberDescription[];
  /** By topic and partition. */
  readonly partitions: readonly GroupPartitionDescription[];
}

/**
 * Where a group is to go on: at the log start offset, the high watermark, the first record that holds the largest
 * timestamp, an offset (the same in each partition, and within each), the first record at or after a time (the high
 * watermark when there is none), or so many offsets further on, or back when negative, as far as the partition goes.
 * `current` moves nothing, but members begin there again. The latter two count from the log start offset where nothing was
 * committed.
 */
export type ResetTarget =
  | 'earliest'
  | 'latest'
  | 'latest-by-timestamp'
  | 'current'
  | number
  | Date
  | { readonly shiftBy: number };

export interface GroupOffsetReset {
  /** The group id. */
  readonly group: string;
  readonly topic: string | { readonly name: string };
  /** Default: all. */
  readonly partitions?: readonly number[];
  readonly to: ResetTarget;
  /** Check everything and tell what would be, change nothing. */
  readonly validateOnly?: boolean;
}

export interface PartitionOffsetReset {
  readonly partition: number;
  /** Undefined: nothing was committed. */
  readonly offsetBefore: number | undefined;
  readonly offsetAfter: number;
  readonly logStartOffset: number;
  readonly highWatermark: number;
  /** The member that owned it and begins again; undefined: nobody. */
  readonly memberId: string | undefined;
}

export interface GroupOffsetResetResult {
  /** By partition. */
  readonly partitions: readonly PartitionOffsetReset[];
  /** The members that the group has. */
  readonly memberCount: number;
  /** Whether the group was not there before. */
  readonly created: boolean;
}

export function listGroups(calls: AdminCalls, options: CallOptions): Promise<GroupSummary[]> {
  return allPages('groups', async (pageToken) => {
    const page = await calls.idempotent(methods.listGroups, { pageSize: LIST_PAGE_SIZE, pageToken }, options);
    return { items: page.groups.map(summarizeGroup), nextPageToken: page.nextPageToken };
  });
}

export async function getGroup(calls: AdminCalls, groupId: string, options: CallOptions): Promise<GroupDescription> {
  return describeGroup((await calls.idempotent(methods.getGroup, { groupId }, options)).group);
}

export async function resetGroupOffsets(
  calls: AdminCalls,
  reset: GroupOffsetReset,
  options: CallOptions,
): Promise<GroupOffsetResetResult> {
  const { group: groupId, topic, partitions = [], to, validateOnly = false } = reset;
  const name = typeof topic === 'string' ? topic : topic.name;
  const request = { groupId, topic: name, partitions: [...partitions], ...targetOf(to), validateOnly };
  // Moved to the same place twice, a group is there; moved on by the same distance twice, it is too far.
  const isShift = typeof to === 'object' && !(to instanceof Date);
  const response =
    isShift && !validateOnly
      ? await calls.change(methods.resetGroupOffsets, request, options)
      : await calls.idempotent(methods.resetGroupOffsets, request, options);
  const { memberCount, created } = response;
  return { partitions: response.partitions.map(describeReset), memberCount, created };
}

type Target = Pick<ResetGroupOffsetsRequest, 'position' | 'offset' | 'timestampMs' | 'shiftBy' | 'current'>;

function targetOf(to: ResetTarget): Target {
  if (to === 'earliest') return { position: 'OFFSET_POSITION_EARLIEST' };
  if (to === 'latest') return { position: 'OFFSET_POSITION_LATEST' };
  if (to === 'latest-by-timestamp') return { position: 'OFFSET_POSITION_LATEST_BY_TIMESTAMP' };
  if (to === 'current') return { current: true };
  if (typeof to === 'number' && Number.isSafeInteger(to) && to >= 0) return { offset: to };
  if (to instanceof Date && !Number.isNaN(to.getTime())) return { timestampMs: to.getTime() };
  if (typeof to === 'object' && 'shiftBy' in to && Number.isSafeInteger(to.shiftBy)) return { shiftBy: to.shiftBy };
  throw new LogError(
    'INVALID_REQUEST',
    "Offsets are reset to 'earliest', 'latest', 'latest-by-timestamp', 'current', an offset from 0, a valid Date or " +
      '{ shiftBy: a whole number }.',
  );
}

const STATES: Readonly<Record<GroupStateName, GroupState>> = {
  GROUP_STATE_UNSPECIFIED: 'unknown',
  GROUP_STATE_EMPTY: 'empty',
  GROUP_STATE_ASSIGNING: 'assigning',
  GROUP_STATE_RECONCILING: 'reconciling',
  GROUP_STATE_STABLE: 'stable',
};

function summarizeGroup({ groupId, state, epoch, assignor, memberCount }: GroupMessage): GroupSummary {
  return { groupId, state: STATES[state] ?? 'unknown', epoch, assignor, memberCount };
}

function describeGroup(group: GroupMessage): GroupDescription {
  return {
    ...summarizeGroup(group),
    members: group.members.map(describeMember),
    partitions: group.partitions.map(describePartition),
  };
}

function describeMember(member: GroupMemberMessage): GroupMemberDescription {
  return { ...member, instanceId: textOf(member.instanceId), topicPattern: textOf(member.topicPattern) };
}

// Fields that the broker left out may be null or missing: here they are undefined.
function describePartition(partition: GroupPartitionMessage): GroupPartitionDescription {
  return {
    ...partition,
    committedOffset: partition.committedOffset ?? undefined,
    logStartOffset: partition.logStartOffset ?? undefined,
    highWatermark: partition.highWatermark ?? undefined,
    lag: partition.lag ?? undefined,
    lagMs: partition.lagMs ?? undefined,
    memberId: textOf(partition.memberId),
    commitTimeMs: partition.commitTimeMs ?? undefined,
  };
}

function describeReset(reset: GroupOffsetResetMessage): PartitionOffsetReset {
  return { ...reset, offsetBefore: reset.offsetBefore ?? undefined, memberId: textOf(reset.memberId) };
}

/** The wire has no absent text. */
function textOf(text: string): string | undefined {
  return text === '' ? undefined : text;
}
