/** Groups as they are shown, and members as they are told of themselves. */
import type {
  GroupSnapshot,
  GroupSummary,
  JoinAnswer,
  MemberAssignment,
  MemberDescription,
} from './coordinator-types.js';
import { labelOf } from './group.js';
import { heartbeatIntervalMs } from './group-config.js';
import type { GroupState, Member } from './group-types.js';
import type { CommittedOffsets } from './offsets.js';

export function summaryOf(state: GroupState): GroupSummary {
  const { groupId, epoch, assignor, members } = state;
  return { groupId, state: labelOf(state), epoch, assignor, memberCount: members.size };
}

export function snapshotOf(state: GroupState, offsets: CommittedOffsets): GroupSnapshot {
  return { ...summaryOf(state), members: [...state.members.values()].map(describe), offsets: [...offsets.all()] };
}

function describe(member: Member): MemberDescription {
  const { memberId, instanceId, clientId, host, epoch, subscription, assigned, revoking } = member;
  const partitions = [...assigned.values(), ...revoking.values()];
  return { memberId, instanceId, clientId, host, memberEpoch: epoch, subscription, partitions };
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
