/** The coordinator of all groups of this broker: checks what is asked, finds the group, and answers by what is durable. */
import type { Clock } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import type { Topics } from '../topics.js';
import {
  checkCounter,
  checkGroupId,
  checkJoin,
  checkMemberId,
  checkSubscription,
  type JoiningMember,
} from './checks.js';
import type {
  CommitCommand,
  FetchOffsetsCommand,
  FoundOffset,
  GroupCoordinatorApi,
  GroupSnapshot,
  GroupSummary,
  HeartbeatAnswer,
  HeartbeatCommand,
  JoinAnswer,
  JoinCommand,
  LeaveCommand,
  PendingTransactions,
  RefusedOffset,
  SetOffsetsCommand,
  TransactionEndCommand,
  TransactionOffsetsCommand,
} from './coordinator-types.js';
import { assignmentOf, snapshotOf, summariesOf, timesOf } from './descriptions.js';
import { checkMember } from './group.js';
import { checkGroupConfig, type GroupConfig } from './group-config.js';
import type { GroupEntry } from './group-entry.js';
import {
  coordinatorDraining,
  groupNotFound,
  nonEmptyGroup,
  tooManyMembers,
  tooManyPlaces,
  waitsForTransaction,
} from './group-errors.js';
import type { Member, Subscription } from './group-types.js';
import { HeldHeartbeat } from './held-heartbeats.js';
import { OffsetCoordinator } from './offset-coordinator.js';
import { GroupRetention } from './retention.js';
import type { GroupShard } from './shard.js';
import { type GroupPlace, GroupShards } from './shards.js';
import { isSameSubscription } from './target.js';
import { TopicDirectory } from './topic-directory.js';

const SLICE_MS = 5;

export interface GroupCoordinatorOptions {
  readonly topics: Topics;
  readonly config: GroupConfig;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Made when the topics are loaded; reads its groups in the background. The broker drains it with everything else, and
 * closes it before the topics.
 *
 * Invariant: between the look at a group and the event there is no `await`, so that what was checked still holds.
 */
export class GroupCoordinator implements GroupCoordinatorApi {
  readonly #options: GroupCoordinatorOptions;
  readonly #directory: TopicDirectory;
  readonly #shards: GroupShards;
  readonly #offsets: OffsetCoordinator;
  readonly #stop = new AbortController();
  readonly #retention: GroupRetention;
  #telling: Promise<void> = Promise.resolve();

  /** @throws LogError INVALID_CONFIG */
  constructor(options: GroupCoordinatorOptions) {
    const { topics, clock, logger, config } = options;
    checkGroupConfig(config);
    this.#options = options;
    this.#directory = new TopicDirectory({
      topics,
      clock,
      onChange: () => this.#tellTopics(),
      livePatterns: () => this.#shards.livePatterns(),
    });
    this.#shards = new GroupShards({
      topics,
      clock,
      logger,
      directory: this.#directory,
      partitionCount: config.offsetsTopicPartitions,
      maxGroups: config.maxGroups,
      signal: this.#stop.signal,
    });
    this.#offsets = new OffsetCoordinator({ topics, config, clock, shards: this.#shards });
    this.#retention = new GroupRetention({
      topics,
      clock,
      logger,
      shards: () => this.#shards.all,
      intervalMs: config.retentionCheckIntervalMs,
      retentionMs: config.offsetsRetentionMs,
    });
  }

  async join(command: JoinCommand, signal?: AbortSignal): Promise<JoinAnswer> {
    const { config } = this.#options;
    const member = checkJoin(command, config);
    const shard = this.#shards.findToChange(command.groupId) ?? (await this.#shards.create(command.groupId));
    if (this.#isUnresolved(member.subscription)) await this.#directory.resolve(member.subscription.pattern);
    // Whoever gave up waiting may have left already, and would be a member that nobody speaks for.
    signal?.throwIfAborted();
    const entry = this.#shards.entryToChange(shard, command.groupId);
    this.#checkMemberRoom(entry, member);
    const refusal = shard.apply(entry, {
      kind: 'join',
      ...member,
      topics: this.#directory.view,
      maxMembers: config.maxMembers,
    });
    if (refusal !== undefined) throw refusal;
    const joined = entry.state.members.get(member.memberId)!;
    await shard.settled();
    return { ...assignmentOf(joined), ...timesOf(joined) };
  }

  /** What groups read, they will commit: both are bounded alike. Who is a member goes on, and who reads what others read. */
  #checkMemberRoom({ state: { members } }: GroupEntry, { memberId, subscription }: JoiningMember): void {
    if (members.has(memberId)) return;
    const { maxMembersInAll, maxOffsets } = this.#options.config;
    if (this.#shards.memberCount >= maxMembersInAll) throw tooManyMembers(maxMembersInAll);
    if (this.#shards.placeCount < maxOffsets) return;
    const isRead = [...members.values()].some((other) => isSameSubscription(other.subscription, subscription));
    if (!isRead) throw tooManyPlaces(maxOffsets);
  }

  async heartbeat(command: HeartbeatCommand, signal: AbortSignal): Promise<HeartbeatAnswer> {
    const { memberId, memberEpoch, owned } = command;
    checkGroupId(command.groupId);
    checkMemberId(memberId);
    checkCounter('A member epoch', memberEpoch);
    const subscription = command.subscription && checkSubscription(command.subscription);
    if (subscription !== undefined && this.#isUnresolved(subscription)) {
      await this.#directory.resolve(subscription.pattern);
    }
    const { shard, entry } = this.#shards.existing(command.groupId);
    const topics = subscription === undefined ? entry.state.topics : this.#directory.view;
    const before = entry.state;
    const refusal = shard.apply(entry, {
      kind: 'heartbeat',
      memberId,
      epoch: memberEpoch,
      owned,
      subscription,
      topics,
    });
    if (refusal !== undefined) throw refusal;
    // Else the member would take its subscription for known.
    if (subscription !== undefined && entry.state !== before) await shard.settled();
    return await this.#hold({ shard, entry }, command, signal);
  }

  async #hold({ shard, entry }: GroupPlace, command: HeartbeatCommand, signal: AbortSignal): Promise<HeartbeatAnswer> {
    const { memberId, memberEpoch } = command;
    const intervalMs = timesOf(entry.state.members.get(memberId)).heartbeatIntervalMs;
    const waitMs = Math.min(Math.max(command.maxWaitMs, 0), intervalMs);
    const held = new HeldHeartbeat(this.#options.clock, waitMs, signal);
    entry.held.add(memberId, held);
    try {
      for (;;) {
        shard.check(command.groupId);
        const member = entry.state.members.get(memberId);
        if (member?.epoch !== memberEpoch || member.away) {
          const answer = await this.#news(shard, entry, command, member);
          if (answer !== undefined) return answer;
        } else if (held.isOver || this.#stop.signal.aborted) {
          return { memberEpoch, heartbeatIntervalMs: intervalMs, assignment: undefined };
        } else {
          await held.next();
        }
      }
    } finally {
      entry.held.remove(memberId, held);
    }
  }

  /**
   * @returns undefined when what there was to tell could not be written, and is no longer so
   * @throws LogError UNKNOWN_MEMBER_ID
   */
  async #news(
    shard: GroupShard,
    { state }: GroupEntry,
    { memberId, memberEpoch }: HeartbeatCommand,
    member: Member | undefined,
  ): Promise<HeartbeatAnswer | undefined> {
    try {
      await shard.settled();
    } catch {
      return undefined;
    }
    const refusal = checkMember(state, memberId, memberEpoch);
    if (refusal !== undefined) throw refusal;
    const { heartbeatIntervalMs: intervalMs } = timesOf(member);
    const assignment = assignmentOf(member!);
    return { memberEpoch: assignment.memberEpoch, heartbeatIntervalMs: intervalMs, assignment };
  }

  async leave({ groupId, memberId, temporary }: LeaveCommand): Promise<void> {
    checkGroupId(groupId);
    checkMemberId(memberId);
    const { shard, entry } = this.#shards.existing(groupId);
    const refusal = shard.apply(entry, { kind: 'leave', memberId, temporary });
    if (refusal !== undefined) throw refusal;
    await shard.settled();
  }

  commit(command: CommitCommand): Promise<readonly RefusedOffset[]> {
    return this.#offsets.commit(command);
  }

  fetchOffsets(command: FetchOffsetsCommand): Promise<readonly FoundOffset[]> {
    return this.#offsets.fetch(command);
  }

  setOffsets(command: SetOffsetsCommand): Promise<void> {
    return this.#offsets.set(command);
  }

  addTransactionOffsets(command: TransactionOffsetsCommand): Promise<readonly RefusedOffset[]> {
    return this.#offsets.addToTransaction(command);
  }

  endTransaction(end: TransactionEndCommand): Promise<void> {
    return this.#offsets.endTransaction(end);
  }

  pendingTransactions(): PendingTransactions {
    return this.#offsets.pendingTransactions();
  }

  async list(): Promise<readonly GroupSummary[]> {
    this.#shards.checkAll();
    return await summariesOf(this.#shards.all, this.#options.clock);
  }

  async snapshot(groupId: string): Promise<GroupSnapshot> {
    const found = await this.find(groupId);
    if (found === undefined) throw groupNotFound(groupId);
    return found;
  }

  async find(groupId: string): Promise<GroupSnapshot | undefined> {
    checkGroupId(groupId);
    const entry = await this.#shards.settled(groupId);
    return entry?.durable && snapshotOf(entry.durable, entry.offsets);
  }

  async delete(groupId: string): Promise<void> {
    checkGroupId(groupId);
    for (;;) {
      const { shard, entry } = this.#shards.existing(groupId);
      const { size } = entry.state.members;
      if (size > 0) throw nonEmptyGroup(groupId, size);
      const waiting = entry.transactions?.latest.holders() ?? [];
      for (const transaction of waiting) throw waitsForTransaction(groupId, transaction);
      if (entry.queuedCount === 0) return await shard.remove(entry);
      await shard.settled();
    }
  }

  #isUnresolved(subscription: Subscription): subscription is Subscription & { readonly pattern: string } {
    return subscription.pattern !== undefined && !this.#directory.isResolved(subscription.pattern);
  }

  #tellTopics(): void {
    this.#telling = this.#telling.then(() => this.#tellAll());
  }

  /** Never rejects. */
  async #tellAll(): Promise<void> {
    const { clock, logger } = this.#options;
    const slices = new Slices(clock, SLICE_MS);
    try {
      for (const shard of this.#shards.all) await shard.topicsChanged(slices);
    } catch (error) {
      logger.error({ err: error }, 'defect in telling groups of topics');
    }
  }

  /** From here on nothing is changed: held heartbeats are answered, what was accepted is finished, reading goes on. */
  drain(): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(coordinatorDraining());
    this.#retention.stop();
    this.#directory.close();
    this.#shards.drain();
  }

  /** Finishes what was accepted. Idempotent. */
  async close(): Promise<void> {
    this.drain();
    await Promise.all([this.#retention.close(), this.#telling, this.#shards.close()]);
  }
}
