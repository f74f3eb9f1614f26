/** Groups as they are shown. */
import type { GroupSnapshot, GroupSummary, MemberDescription } from './coordinator-types.js';
import { labelOf } from './group.js';
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
