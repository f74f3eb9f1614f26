/** What the coordinator of groups does with committed offsets, those that wait for the end of a transaction included. */
import type { Clock } from '../../core/clock.js';
import { type LogError, toLogError } from '../../core/errors.js';
import { partitionKey } from '../../core/types.js';
import type { Topics } from '../topics.js';
import { checkCounter, checkGroupId, checkMemberId, checkOffsets, checkPartitions } from './checks.js';
import { type AcceptedOffset, allOffsets, type CheckedOffsets, checkCommit, findOffsets } from './commits.js';
import type {
  CommitCommand,
  FetchOffsetsCommand,
  FoundOffset,
  PendingTransaction,
  PendingTransactions,
  RefusedOffset,
  SetOffsetsCommand,
  TransactionEndCommand,
  TransactionOffsetsCommand,
} from './coordinator-types.js';
import { checkMember } from './group.js';
import type { GroupConfig } from './group-config.js';
import type { GroupEntry } from './group-entry.js';
import {
  lateTransactionOffsets,
  noSuchMember,
  tooManyOffsets,
  tooManyPending,
  unstableOffset,
} from './group-errors.js';
import type { OffsetChange } from './offsets.js';
import type { PendingChange, PendingOffset, PendingOffsets } from './pending-offsets.js';
import type { GroupShard } from './shard.js';
import type { GroupShards } from './shards.js';

/**
 * What one transaction may have waiting in one group: partitions, and characters of metadata of all of them. When it ends,
 * all of it goes in one batch, which the topic takes, and which is made in one turn.
 */
export const MAX_PENDING_OFFSETS = 10_000;
export const MAX_PENDING_METADATA: number = 512 * 1024;

export interface OffsetCoordinatorOptions {
  readonly topics: Topics;
  readonly config: GroupConfig;
  readonly clock: Clock;
  readonly shards: GroupShards;
}

type Commit = Omit<CommitCommand, 'sequence'>;

/** Invariant: between the look at a group and its change there is no `await`, so that what was checked still holds. */
export class OffsetCoordinator {
  readonly #options: OffsetCoordinatorOptions;

  constructor(options: OffsetCoordinatorOptions) {
    this.#options = options;
  }

  async commit(command: CommitCommand): Promise<readonly RefusedOffset[]> {
    const { groupId, memberId, sequence } = command;
    checkCounter('The sequence of a commit', sequence);
    const shard = this.#shardToCommit(command) ?? (await this.#options.shards.create(groupId));
    const entry = this.#entryToCommit(shard, command);
    if (sequence !== 0 && memberId !== '') entry.takeSequence(memberId, sequence);
    const { accepted, refused } = this.#check(entry, command);
    if (accepted.length === 0) return refused;
    this.#checkRoom(entry, accepted, []);
    await shard.commit(entry, this.#inOrder(entry, accepted));
    return refused;
  }

  /** @throws LogError of all that does not depend on the group's state */
  #shardToCommit({ groupId, memberId, memberEpoch, offsets }: Commit): GroupShard | undefined {
    const { shards } = this.#options;
    checkGroupId(groupId);
    if (memberId !== '') checkMemberId(memberId);
    checkCounter('A member epoch', memberEpoch);
    checkOffsets(offsets);
    const isMember = memberId !== '' || memberEpoch !== 0;
    return isMember ? shards.existing(groupId).shard : shards.findToChange(groupId);
  }

  #entryToCommit(shard: GroupShard, { groupId, memberId, memberEpoch }: Commit): GroupEntry {
    const entry = this.#options.shards.entryToChange(shard, groupId);
    const refusal = checkMember(entry.state, memberId, memberEpoch);
    if (refusal !== undefined) throw refusal;
    return entry;
  }

  #check({ state }: GroupEntry, { memberId, memberEpoch, offsets }: Commit): CheckedOffsets {
    const { topics, clock, config } = this.#options;
    const member = state.members.get(memberId);
    return checkCommit(offsets, member && { member, epoch: memberEpoch }, {
      topics,
      metadataMaxBytes: config.metadataMaxBytes,
      nowMs: clock.now(),
    });
  }

  #checkRoom(entry: GroupEntry, changes: readonly OffsetChange[], pending: readonly PendingChange[]): void {
    const { config, shards } = this.#options;
    const { offsets, coming } = shards.totals;
    const added = entry.unitsAdded(changes, pending);
    if (added > 0 && offsets + coming + added > config.maxOffsets) throw tooManyOffsets(config.maxOffsets);
  }

  /** So that a transaction which ends later does not take them back. */
  #inOrder(entry: GroupEntry, changes: readonly AcceptedOffset[]): readonly OffsetChange[] {
    if (entry.transactions === undefined) return changes;
    const order = entry.nextOrder();
    return changes.map((change) => ({ ...change, value: { ...change.value, order } }));
  }

  async fetch(command: FetchOffsetsCommand): Promise<readonly FoundOffset[]> {
    const { groupId, memberId, topics: asked } = command;
    checkGroupId(groupId);
    checkCounter('A member epoch', command.memberEpoch);
    checkPartitions(asked);
    const entry = await this.#options.shards.settled(groupId);
    if (memberId !== '') {
      if (entry === undefined) throw noSuchMember(groupId, memberId);
      const refusal = checkMember(entry.state, memberId, command.memberEpoch);
      if (refusal !== undefined) throw refusal;
    }
    if (asked.length > 0) return findOffsets(asked, entry, this.#options.topics);
    return entry === undefined ? [] : allOffsets(entry);
  }

  async set({ groupId, topic, topicId, offsets }: SetOffsetsCommand): Promise<void> {
    const { topics, clock, shards } = this.#options;
    checkGroupId(groupId);
    for (const { offset } of offsets) checkCounter('A committed offset', offset);
    const shard = shards.findToChange(groupId) ?? (await shards.create(groupId));
    const entry = shards.entryToChange(shard, groupId);
    const { id } = (topicId === '' ? topics.get(topic) : topics.withId(topic, topicId)).record;
    const commitTimeMs = clock.now();
    const changes = offsets.map(({ partition, offset }): OffsetChange => {
      return { topicId: id, partition, value: { topic, offset, leaderEpoch: -1, metadata: '', commitTimeMs } };
    });
    if (changes.length === 0) return;
    for (const { partition } of changes) this.#refuseUnstable(entry, { topic, topicId: id, partition });
    this.#checkRoom(entry, changes, []);
    shard.apply(entry, { kind: 'reset', partitions: new Set(changes.map((change) => partitionKey(change))) }, changes);
    await shard.settled();
  }

  #refuseUnstable({ groupId, transactions }: GroupEntry, partition: Parameters<typeof unstableOffset>[1]): void {
    const holder = transactions?.latest.holderOf(partition) ?? transactions?.durable.holderOf(partition);
    if (holder !== undefined) throw unstableOffset(groupId, partition, holder);
  }

  async addToTransaction(command: TransactionOffsetsCommand): Promise<readonly RefusedOffset[]> {
    const { groupId, producerId, producerEpoch } = command;
    checkCounter('A producer id', producerId);
    checkCounter('A producer epoch', producerEpoch);
    const shard = this.#shardToCommit(command) ?? (await this.#options.shards.create(groupId));
    const entry = this.#entryToCommit(shard, command);
    const before = entry.transactions?.latest.get(producerId);
    if (before !== undefined && before.producerEpoch > producerEpoch) {
      throw lateTransactionOffsets(groupId, producerId, producerEpoch, before.producerEpoch);
    }
    const { accepted, refused } = this.#check(entry, command);
    if (accepted.length === 0) return refused;
    const earlier = before?.producerEpoch === producerEpoch ? before : undefined;
    const value = merged(earlier, producerEpoch, accepted, entry.nextOrder());
    if (value.offsets.size > MAX_PENDING_OFFSETS || metadataOf(value) > MAX_PENDING_METADATA) {
      throw tooManyPending(groupId, MAX_PENDING_OFFSETS, MAX_PENDING_METADATA);
    }
    this.#checkRoom(entry, [], [{ producerId, value }]);
    await shard.commit(entry, [], [{ producerId, value }]);
    return refused;
  }

  async endTransaction({ groupId, producerId, producerEpoch, commit }: TransactionEndCommand): Promise<void> {
    checkGroupId(groupId);
    const shard = this.#options.shards.findToChange(groupId);
    const entry = shard?.find(groupId);
    if (shard === undefined || entry === undefined) return;
    const pending = entry.transactions?.latest.get(producerId);
    if (pending !== undefined && pending.producerEpoch <= producerEpoch) {
      const isCommitted = commit && pending.producerEpoch === producerEpoch;
      const offsets = isCommitted ? this.#toCommit(entry, pending) : [];
      await shard.commit(entry, offsets, [{ producerId, value: undefined }]);
    } else if (entry.queuedCount > 0) {
      // The end that this one repeats may be on its way.
      await shard.settled();
    }
  }

  /** What of a transaction is to be committed now. */
  #toCommit({ transactions, offsets: committed }: GroupEntry, { offsets }: PendingOffsets): OffsetChange[] {
    const { topics, clock } = this.#options;
    const commitTimeMs = clock.now();
    const isWanted = ({ topic, topicId, partition, order }: PendingOffset): boolean =>
      topics.idOf(topic) === topicId && order > (transactions?.orderAt({ topicId, partition }, committed) ?? 0);
    return [...offsets.values()].filter(isWanted).map(({ topicId, partition, ...value }): OffsetChange => {
      return { topicId, partition, value: { ...value, commitTimeMs } };
    });
  }

  pendingTransactions(): PendingTransactions {
    const readable: GroupShard[] = [];
    let incomplete: LogError | undefined;
    for (const shard of this.#options.shards.all) {
      try {
        shard.check(undefined);
        readable.push(shard);
      } catch (error) {
        incomplete ??= toLogError(error);
      }
    }
    return { found: pendingIn(readable), incomplete };
  }
}

function* pendingIn(shards: readonly GroupShard[]): Iterable<PendingTransaction> {
  for (const shard of shards) yield* shard.pendingTransactions();
}

/** Characters. */
function metadataOf({ offsets }: PendingOffsets): number {
  let length = 0;
  for (const { metadata } of offsets.values()) length += metadata.length;
  return length;
}

function merged(
  before: PendingOffsets | undefined,
  producerEpoch: number,
  added: readonly AcceptedOffset[],
  order: number,
): PendingOffsets {
  const offsets = new Map(before?.offsets);
  for (const { topicId, partition, value } of added) {
    const { topic, offset, leaderEpoch, metadata } = value;
    offsets.set(partitionKey({ topicId, partition }), {
      topic,
      topicId,
      partition,
      offset,
      leaderEpoch,
      metadata,
      order,
    });
  }
  return { producerEpoch, offsets };
}
