/** A coordinator over an engine, without a network. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'vitest';
import { GroupCoordinator } from '../../../src/broker/groups/coordinator.js';
import type {
  CommitCommand,
  HeartbeatAnswer,
  HeartbeatCommand,
  JoinAnswer,
  JoinCommand,
  MemberAssignment,
  OffsetToCommit,
  TransactionOffsetsCommand,
} from '../../../src/broker/groups/coordinator-types.js';
import type { GroupConfig } from '../../../src/broker/groups/group-config.js';
import type { TopicLimits, Topics } from '../../../src/broker/topics.js';
import type { Clock } from '../../../src/core/clock.js';
import { LogError } from '../../../src/core/errors.js';
import { partitionKey, toEpoch } from '../../../src/core/types.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { batchOf } from '../../partition/support.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { type RecordingLogger, recordingLogger } from '../../support/recording-logger.js';
import { until } from '../../support/until.js';
import { LIMITS, openTopics } from '../support.js';

/** The defaults of the broker. */
export const GROUP_CONFIG: GroupConfig = {
  offsetsTopicPartitions: 4,
  sessionTimeoutMs: 45_000,
  minSessionTimeoutMs: 1000,
  maxSessionTimeoutMs: 1_800_000,
  rebalanceTimeoutMs: 300_000,
  maxMembers: 1000,
  maxGroups: 100_000,
  maxMembersInAll: 10_000,
  maxOffsets: 1_000_000,
  offsetsRetentionMs: 7 * 24 * 3_600_000,
  retentionCheckIntervalMs: 600_000,
  metadataMaxBytes: 4096,
};

export const NOBODY_WAITS: AbortSignal = new AbortController().signal;

export interface GroupsOptions {
  readonly engine?: StorageEngine;
  readonly config?: Partial<GroupConfig>;
  readonly limits?: TopicLimits;
  readonly clock?: Clock;
  /** Of the broker: rises with each start. */
  readonly epoch?: number;
}

/** One run of what a broker has of groups. */
export class Groups implements AsyncDisposable {
  readonly topics: Topics;
  readonly coordinator: GroupCoordinator;
  readonly logger: RecordingLogger;

  readonly #clock: Clock;

  private constructor(topics: Topics, coordinator: GroupCoordinator, logger: RecordingLogger, clock: Clock) {
    this.#clock = clock;
    this.topics = topics;
    this.coordinator = coordinator;
    this.logger = logger;
  }

  static async start(options: GroupsOptions = {}): Promise<Groups> {
    const clock = options.clock ?? new ManualClock(BASE_TIME);
    const engine = options.engine ?? openMemoryEngine({ clock });
    const logger = recordingLogger();
    const limits = options.limits ?? LIMITS;
    const topics = await openTopics(engine, { epoch: toEpoch(options.epoch ?? 1), clock, logger, limits });
    const config = { ...GROUP_CONFIG, ...options.config };
    return new Groups(topics, new GroupCoordinator({ topics, config, clock, logger }), logger, clock);
  }

  /** Creates a topic; each of its partitions has so many records. */
  async topic(name: string, partitionCount: number, recordCount: number = 0): Promise<string> {
    const topic = await this.topics.create(name, partitionCount, {}, false);
    const values = Array.from({ length: recordCount }, (_, i) => `${i}`);
    for (let i = 0; i < partitionCount && recordCount > 0; i++) {
      await this.topics.partition(name, '', i).append([batchOf(values, this.#clock.now())], { acks: 'durable' });
    }
    return topic!.record.id;
  }

  join(memberId: string, command: Partial<JoinCommand> = {}, signal?: AbortSignal): Promise<JoinAnswer> {
    const byDefault: JoinCommand = {
      groupId: 'g',
      memberId,
      instanceId: undefined,
      clientId: `client of ${memberId}`,
      host: '127.0.0.1',
      subscription: { topics: ['t'], pattern: undefined },
      assignor: '',
      sessionTimeoutMs: 0,
      rebalanceTimeoutMs: 0,
    };
    return this.coordinator.join({ ...byDefault, ...command }, signal);
  }

  /** Not held unless it is said how long. */
  heartbeat(
    memberId: string,
    memberEpoch: number,
    command: Partial<HeartbeatCommand> = {},
    signal: AbortSignal = NOBODY_WAITS,
  ): Promise<HeartbeatAnswer> {
    return this.coordinator.heartbeat(
      { groupId: 'g', memberId, memberEpoch, owned: new Set(), subscription: undefined, maxWaitMs: 0, ...command },
      signal,
    );
  }

  commit(
    memberId: string,
    memberEpoch: number,
    offsets: readonly (Pick<OffsetToCommit, 'partition' | 'offset'> & Partial<OffsetToCommit>)[],
    command: Partial<CommitCommand> = {},
  ): ReturnType<GroupCoordinator['commit']> {
    const all = offsets.map((offset) => ({ topic: 't', topicId: '', leaderEpoch: -1, metadata: '', ...offset }));
    return this.coordinator.commit({ groupId: 'g', memberId, memberEpoch, sequence: 0, offsets: all, ...command });
  }

  /** The committed offsets of topic `t`, by partition; undefined where there is none. */
  async committed(partitions: readonly number[], groupId: string = 'g'): Promise<(number | undefined)[]> {
    const topics = [{ topic: 't', topicId: '', partitions }];
    const found = await this.coordinator.fetchOffsets({ groupId, memberId: '', memberEpoch: 0, topics });
    return found.map(({ committed }) => committed?.offset);
  }

  /** Sets committed offsets of topic `t` as an administrator does. */
  reset(offsets: readonly { partition: number; offset: number }[], groupId: string = 'g'): Promise<void> {
    const { id } = this.topics.get('t').record;
    return this.coordinator.setOffsets({ groupId, topic: 't', topicId: id, offsets });
  }

  /** Of nobody, or of the member that `command` names. */
  addToTransaction(
    producerId: number,
    producerEpoch: number,
    offsets: readonly (Pick<OffsetToCommit, 'partition' | 'offset'> & Partial<OffsetToCommit>)[],
    command: Partial<TransactionOffsetsCommand> = {},
  ): ReturnType<GroupCoordinator['addTransactionOffsets']> {
    const all = offsets.map((offset) => ({ topic: 't', topicId: '', leaderEpoch: -1, metadata: '', ...offset }));
    const byDefault = { groupId: 'g', memberId: '', memberEpoch: 0, producerId, producerEpoch, offsets: all };
    return this.coordinator.addTransactionOffsets({ ...byDefault, ...command });
  }

  endTransaction(producerId: number, producerEpoch: number, commit: boolean, groupId: string = 'g'): Promise<void> {
    return this.coordinator.endTransaction({ groupId, producerId, producerEpoch, commit });
  }

  /** Group, producer id and epoch of each transaction that is waited for, in order. @throws LogError why there may be more */
  pending(): [string, number, number][] {
    const { found, incomplete } = this.coordinator.pendingTransactions();
    if (incomplete !== undefined) throw incomplete;
    return [...found]
      .map(({ groupId, producerId, producerEpoch }): [string, number, number] => [groupId, producerId, producerEpoch])
      .sort();
  }

  /** Everything that the group has committed. */
  fetchAll(groupId: string = 'g'): ReturnType<GroupCoordinator['fetchOffsets']> {
    return this.coordinator.fetchOffsets({ groupId, memberId: '', memberEpoch: 0, topics: [] });
  }

  /** Resolves when the groups that were kept are read. */
  async loaded(): Promise<void> {
    const isLoaded = async (): Promise<boolean> => {
      try {
        await this.coordinator.list();
      } catch (error) {
        return !(error instanceof LogError && error.reason === 'COORDINATOR_LOAD_IN_PROGRESS');
      }
      return true;
    };
    await until(isLoaded, 'the groups are read');
  }

  /** As a broker stops. */
  async close(): Promise<void> {
    await this.coordinator.close();
    await this.topics.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Partition numbers of an assignment, in order. */
export function numbersOf({ partitions }: Pick<MemberAssignment, 'partitions'>): number[] {
  return partitions.map(({ partition }) => partition).sort((a, b) => a - b);
}

/** What a member that has taken all of an assignment reports. */
export function owning({ partitions }: Pick<MemberAssignment, 'partitions'>): ReadonlySet<string> {
  return new Set(partitions.map((held) => partitionKey(held)));
}

/** A call that may be waiting. */
export interface Held<T> {
  readonly answer: Promise<T>;
  /** Resolves after some turns of the event loop; fails if there is an answer by then. */
  isHeld(): Promise<void>;
  /** The same without a look at the answer. */
  turns(): Promise<void>;
}

export function held<T>(answer: Promise<T>): Held<T> {
  let isAnswered = false;
  const note = (): void => {
    isAnswered = true;
  };
  answer.then(note, note);
  const turns = async (): Promise<void> => {
    for (let turn = 0; turn < 5; turn++) await nextTurn();
  };
  const isHeld = async (): Promise<void> => {
    await turns();
    expect(isAnswered).toBe(false);
  };
  return { answer, isHeld, turns };
}
