/** Groups as they are shown, and members as they are told of themselves. */
import type { Clock } from '../../core/clock.js';
import { Slices } from '../../core/slices.js';
import type {
  GroupSnapshot,
  GroupSummary,
  JoinAnswer,
  MemberAssignment,
  MemberDescription,
} from './coordinator-types.js';
import { labelOf } from './group.js';
import { heartbeatIntervalMs } from './group-config.js';
import type { GroupEntry } from './group-entry.js';
import type { GroupState, HeldPartition, Member } from './group-types.js';
import type { CommittedOffsets } from './offsets.js';

const SLICE_MS = 5;

export function summaryOf(state: GroupState): GroupSummary {
  const { groupId, epoch, assignor, members } = state;
  return { groupId, state: labelOf(state), epoch, assignor, memberCount: members.size };
}

/** What listing needs of a shard. */
interface ListedShard {
  check(groupId: undefined): void;
  readonly entries: Iterable<Pick<GroupEntry, 'durable'>>;
}

/**
 * All groups, by name. Others get turns meanwhile: there may be 100,000.
 * @throws LogError COORDINATOR_LOAD_IN_PROGRESS, or why some shard cannot be read
 */
export async function summariesOf(shards: readonly ListedShard[], clock: Clock): Promise<GroupSummary[]> {
  const slices = new Slices(clock, SLICE_MS);
  const all: GroupSummary[] = [];
  for (const shard of shards) {
    shard.check(undefined);
    const ofShard: GroupSummary[] = [];
    for (const { durable } of [...shard.entries]) {
      if (durable !== undefined) ofShard.push(summaryOf(durable));
      await slices.step();
    }
    // What follows merges what is sorted already, which is quick.
    for (const summary of ofShard.sort(byName)) all.push(summary);
    await slices.pause();
  }
  return all.sort(byName);
}

function byName(a: GroupSummary, b: GroupSummary): number {
  return a.groupId < b.groupId ? -1 : 1;
}

export function snapshotOf(state: GroupState, offsets: CommittedOffsets): GroupSnapshot {
  return { ...summaryOf(state), members: [...state.members.values()].map(describe), offsets: [...offsets.all()] };
}

function describe(member: Member): MemberDescription {
  const { memberId, instanceId, clientId, host, epoch, subscription, away, assigned, revoking } = member;
  const partitions = [...assigned.values(), ...revoking.values()].map(asShown);
  return { memberId, instanceId, clientId, host, memberEpoch: epoch, subscription, away, partitions };
}

/** Without what only the state machine goes by. */
function asShown({ topic, topicId, partition, since }: HeldPartition): HeldPartition {
  return { topic, topicId, partition, since };
}

/** All that the member may hold. */
export function assignmentOf({ epoch, assigned }: Member): MemberAssignment {
  return { memberEpoch: epoch, partitions: [...assigned.values()] };
}

/** In force for the member; 0 for one that is none. */
export function timesOf(member: Member | undefined): Pick<JoinAnswer, 'sessionTimeoutMs' | 'heartbeatIntervalMs'> {
  const sessionTimeoutMs = member?.sessionTimeoutMs ?? 0;
  return { sessionTimeoutMs, heartbeatIntervalMs: heartbeatIntervalMs(sessionTimeoutMs) };
}
