/** What the commands of `tidelog group` share: their options, and a group as text and as JSON. */
import type { Command } from 'commander';
import type {
  GroupDescription,
  GroupMemberDescription,
  GroupPartitionDescription,
  GroupSummary,
} from '../../client/admin-groups.js';
import { brokerOption } from '../arguments.js';
import { count, formatDuration, type Output } from '../output.js';
import { formatTime } from '../record-format.js';

export interface GroupOptions {
  readonly broker?: string;
  readonly json?: boolean;
}

export function common(command: Command): Command {
  return command.option('--json', 'Print JSON.').addOption(brokerOption());
}

/** A command on one group. */
export function groupCommand(parent: Command, name: string, description: string): Command {
  return common(parent.command(name).argument('<group>', 'The group id.').description(description));
}

/** What a table shows for a number that there is not. */
export const NOTHING = '-';

/** JSON has no `undefined`: what there is not is null. Times are ISO 8601, in UTC. */
export function groupJson(group: GroupDescription): object {
  return { ...group, members: group.members.map(memberJson), partitions: group.partitions.map(partitionJson) };
}

function memberJson(member: GroupMemberDescription): object {
  return {
    memberId: member.memberId,
    instanceId: member.instanceId ?? null,
    clientId: member.clientId,
    host: member.host,
    memberEpoch: member.memberEpoch,
    partitionCount: member.partitionCount,
    away: member.away,
    topics: member.topics,
    topicPattern: member.topicPattern ?? null,
  };
}

function partitionJson(partition: GroupPartitionDescription): object {
  const { commitTimeMs } = partition;
  return {
    topic: partition.topic,
    topicId: partition.topicId,
    partition: partition.partition,
    committedOffset: partition.committedOffset ?? null,
    logStartOffset: partition.logStartOffset ?? null,
    highWatermark: partition.highWatermark ?? null,
    lag: partition.lag ?? null,
    lagMs: partition.lagMs ?? null,
    memberId: partition.memberId ?? null,
    metadata: partition.metadata,
    commitTime: commitTimeMs === undefined ? null : formatTime(commitTimeMs),
  };
}

const GROUP_COLUMNS = ['group', 'state', 'epoch', 'members', 'assignor'];

export function listGroups(groups: readonly GroupSummary[], output: Output): void {
  output.table(
    GROUP_COLUMNS,
    groups.map(({ groupId, state, epoch, memberCount, assignor }) => [groupId, state, epoch, memberCount, assignor]),
  );
}

const PARTITION_COLUMNS = [
  'topic',
  'partition',
  'committed',
  'high watermark',
  'lag',
  'lag time',
  'member',
  'client id',
  'host',
];

const MEMBER_COLUMNS = ['member', 'instance id', 'client id', 'host', 'epoch', 'partitions', 'subscription'];

export function describeGroup(group: GroupDescription, withMembers: boolean, output: Output): void {
  const { groupId, state, epoch, assignor, memberCount, members, partitions } = group;
  output.line(`Group ${groupId}: ${state}, epoch ${epoch}, assignor ${assignor}, ${count(memberCount, 'member')}`);
  output.line('');
  if (partitions.length === 0) output.line('Nothing was committed, and no partition is owned.');
  else describePartitions(group, output);
  if (!withMembers) return;
  output.line('');
  if (members.length === 0) output.line('There are no members.');
  else output.table(MEMBER_COLUMNS, members.map(memberRow));
}

function describePartitions({ partitions, members }: GroupDescription, output: Output): void {
  const byId = new Map(members.map((member) => [member.memberId, member]));
  output.table(
    PARTITION_COLUMNS,
    partitions.map((partition) => partitionRow(partition, byId.get(partition.memberId ?? ''))),
  );
  output.line('');
  output.line(totalLag(partitions));
  for (const partition of partitions) {
    const warning = warningOf(partition);
    if (warning !== undefined) output.line(warning);
  }
}

function partitionRow(
  partition: GroupPartitionDescription,
  owner: GroupMemberDescription | undefined,
): readonly (string | number)[] {
  const { topic, committedOffset, highWatermark, lag, lagMs, memberId } = partition;
  const lagTime = lagMs === undefined ? NOTHING : formatDuration(lagMs);
  const numbers = [committedOffset, highWatermark, lag].map((value) => value ?? NOTHING);
  const name = owner === undefined ? memberId : nameOf(owner);
  const owned = [name, owner?.clientId, owner?.host].map((text) => text || NOTHING);
  return [topic, partition.partition, ...numbers, lagTime, ...owned];
}

function nameOf({ memberId, away }: GroupMemberDescription): string {
  return away ? `${memberId} (away)` : memberId;
}

function totalLag(partitions: readonly GroupPartitionDescription[]): string {
  const lags = partitions.flatMap(({ lag }) => lag ?? []);
  const longestMs = partitions.reduce((longest, { lagMs = 0 }) => Math.max(longest, lagMs), 0);
  const total = lags.reduce((sum, lag) => sum + lag, 0);
  const time = longestMs > 0 ? `, ${formatDuration(longestMs)} at most` : '';
  const unknown = partitions.length - lags.length;
  const rest = unknown > 0 ? `; unknown for ${count(unknown, 'partition')}` : '';
  return `Total lag: ${count(total, 'record')} in ${count(lags.length, 'partition')}${time}${rest}`;
}

/** A committed offset that nothing can be read at: who reads on from there must know. */
function warningOf(partition: GroupPartitionDescription): string | undefined {
  const { topic, committedOffset, logStartOffset, highWatermark } = partition;
  if (committedOffset === undefined || logStartOffset === undefined || highWatermark === undefined) return undefined;
  const name = `${topic}-${partition.partition}`;
  if (committedOffset < logStartOffset) {
    const lost = count(logStartOffset - committedOffset, 'record');
    return `Warning: ${name} begins at offset ${logStartOffset}: up to ${lost} behind the committed offset were deleted.`;
  }
  if (committedOffset <= highWatermark) return undefined;
  return `Warning: ${name} ends at offset ${highWatermark}, below the committed offset: its log was truncated.`;
}

function memberRow(member: GroupMemberDescription): readonly (string | number)[] {
  const { instanceId = NOTHING, clientId, host, memberEpoch, partitionCount, topics, topicPattern } = member;
  const subscription = topicPattern === undefined ? topics.join(', ') : `pattern ${topicPattern}`;
  return [nameOf(member), instanceId, clientId, host || NOTHING, memberEpoch, partitionCount, subscription];
}
