/** Members of consumer groups over raw gRPC. */
import { randomUUID } from 'node:crypto';
import type { LogError } from '../../../src/core/errors.js';
import type {
  AssignedPartitionMessage,
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  CommittedOffsetMessage,
  FetchOffsetsResponse,
  GetGroupResponse,
  GroupMessage,
  HeartbeatRequest,
  HeartbeatResponse,
  JoinGroupRequest,
  JoinGroupResponse,
  ResetGroupOffsetsRequest,
  ResetGroupOffsetsResponse,
  TopicPartitionsMessage,
} from '../../../src/rpc/group-messages.js';
import { fromStatusMessage } from '../../../src/rpc/status-codec.js';
import { rejection } from '../../support/rejection.js';
import type { RawClient } from './support.js';

export const GROUP = 'g';
/** Longer than any test takes: whatever comes before is news. */
const HELD_MS = 60_000;

export type Offsets = readonly (Partial<CommitOffsetsRequest['offsets'][number]> & { readonly topic: string })[];

/** Calls about one group, by whoever is no member. */
export class RawGroup {
  readonly raw: RawClient;
  readonly groupId: string;

  constructor(raw: RawClient, groupId: string = GROUP) {
    this.raw = raw;
    this.groupId = groupId;
  }

  call<Response>(name: string, fields: object): Promise<Response> {
    return this.raw.call('GroupService', name, { groupId: this.groupId, ...fields });
  }

  admin<Response>(name: string, fields: object = {}): Promise<Response> {
    return this.raw.call('AdminService', name, { groupId: this.groupId, ...fields });
  }

  commit(offsets: Offsets, fields: Partial<CommitOffsetsRequest> = {}): Promise<CommitOffsetsResponse> {
    return this.call('CommitOffsets', { offsets, ...fields });
  }

  async committed(topics: readonly Partial<TopicPartitionsMessage>[] = []): Promise<CommittedOffsetMessage[]> {
    return (await this.call<FetchOffsetsResponse>('FetchOffsets', { topics })).offsets;
  }

  async describe(): Promise<GroupMessage> {
    return (await this.admin<GetGroupResponse>('GetGroup')).group;
  }

  reset(fields: Partial<ResetGroupOffsetsRequest>): Promise<ResetGroupOffsetsResponse> {
    return this.admin('ResetGroupOffsets', fields);
  }
}

/** A member that does what it is told, one call at a time. */
export class RawMember {
  readonly group: RawGroup;
  readonly memberId: string;
  epoch = 0;
  assigned: readonly AssignedPartitionMessage[] = [];

  constructor(group: RawGroup, memberId: string = randomUUID()) {
    this.group = group;
    this.memberId = memberId;
  }

  /** A member of `topics`. */
  static async joined(
    group: RawGroup,
    topics: readonly string[],
    fields: Partial<JoinGroupRequest> = {},
  ): Promise<RawMember> {
    const member = new RawMember(group);
    await member.join({ subscription: { topics: [...topics], topicPattern: '' }, ...fields });
    return member;
  }

  async join(fields: Partial<JoinGroupRequest>): Promise<JoinGroupResponse> {
    const answer = await this.group.call<JoinGroupResponse>('JoinGroup', { memberId: this.memberId, ...fields });
    this.epoch = answer.memberEpoch;
    this.assigned = answer.assignment?.partitions ?? [];
    return answer;
  }

  /** Held until there is news, unless told otherwise; what is assigned is what it owns, unless told otherwise. */
  async heartbeat(fields: Partial<HeartbeatRequest> = {}): Promise<HeartbeatResponse> {
    const { memberId, epoch: memberEpoch } = this;
    const owned = this.assigned.map(({ topic, topicId, partition }) => ({ topic, topicId, partitions: [partition] }));
    const answer = await this.group.call<HeartbeatResponse>('Heartbeat', {
      memberId,
      memberEpoch,
      owned,
      maxWaitMs: HELD_MS,
      ...fields,
    });
    if (answer.assignment) {
      this.epoch = answer.memberEpoch;
      this.assigned = answer.assignment.partitions;
    }
    return answer;
  }

  /** `<topic>-<partition>`, sorted. */
  get names(): string[] {
    return this.assigned.map(({ topic, partition }) => `${topic}-${partition}`).sort();
  }

  commit(offsets: Offsets, fields: Partial<CommitOffsetsRequest> = {}): Promise<CommitOffsetsResponse> {
    return this.group.commit(offsets, { memberId: this.memberId, memberEpoch: this.epoch, ...fields });
  }

  async leave(temporary = false): Promise<void> {
    await this.group.call('LeaveGroup', { memberId: this.memberId, temporary });
  }
}

/** What the offsets of one commit were refused for, in their order. */
export function refusals({ refused }: CommitOffsetsResponse): LogError[] {
  return refused.map(({ error }) => {
    if (!error) throw new Error('an offset was refused without an error');
    return fromStatusMessage(error);
  });
}

/** A single offset is refused for this. */
export async function refusal(commit: Promise<CommitOffsetsResponse>, reason: LogError['reason']): Promise<LogError> {
  const errors = refusals(await commit);
  if (errors.length !== 1) throw new Error(`${errors.length} offsets were refused, not one`);
  return await rejection(Promise.reject(errors[0]), reason);
}
