/** A membership at a scripted coordinator, and what its listener was told. */
import { Channel } from '../../../../src/client/channel.js';
import { CommitStreams } from '../../../../src/client/group/commit-stream.js';
import { GroupMembership, type MembershipOptions } from '../../../../src/client/group/membership.js';
import type { AssignedPartition, MembershipListener, PositionToCommit } from '../../../../src/client/group/types.js';
import type { LogError } from '../../../../src/core/errors.js';
import type { Random } from '../../../../src/core/random.js';
import { type RecordingLogger, recordingLogger } from '../../../support/recording-logger.js';
import { until } from '../../../support/until.js';
import { SkippingClock } from '../../support/skipping-clock.js';
import { assignment, ScriptedCoordinator } from './scripted-coordinator.js';

export const SESSION_MS = 45_000;
export const INTERVAL_MS = 5_000;
export const REBALANCE_MS = 60_000;
export const REQUEST_TIMEOUT_MS = 30_000;

/** Back-offs of the length that they have on average, and ids that tell which session is which. */
function countingRandom(): Random {
  let ids = 0;
  return { next: () => 0.5, uuid: () => `member-${++ids}` };
}

/** Keeps what it is told as `assigned 0@1 1@1`; a revocation waits until the test settles it. */
export class RecordingListener implements MembershipListener {
  readonly told: string[] = [];
  readonly reasons: LogError[] = [];
  /** The newest assignment of each partition. */
  readonly partitions: Map<number, AssignedPartition> = new Map();
  /** Lets go of the oldest revocation that waits. */
  readonly settle: (() => void)[] = [];
  /** Whether revocations are settled at once. */
  letsGoAtOnce = false;

  assigned(partitions: readonly AssignedPartition[]): void {
    this.#tell('assigned', partitions);
    for (const partition of partitions) this.partitions.set(partition.partition, partition);
  }

  revoked(partitions: readonly AssignedPartition[]): Promise<void> {
    this.#tell('revoked', partitions);
    if (this.letsGoAtOnce) return Promise.resolve();
    return new Promise((resolve) => this.settle.push(resolve));
  }

  lost(partitions: readonly AssignedPartition[], why: LogError): void {
    this.#tell('lost', partitions);
    this.reasons.push(why);
  }

  failed(error: LogError): void {
    this.told.push('failed');
    this.reasons.push(error);
  }

  #tell(what: string, partitions: readonly AssignedPartition[]): void {
    const names = partitions.map(({ partition, assignmentEpoch }) => `${partition}@${assignmentEpoch}`);
    this.told.push([what, ...names].join(' '));
  }
}

export interface MemberSetting extends AsyncDisposable {
  readonly coordinator: ScriptedCoordinator;
  readonly clock: SkippingClock;
  readonly logger: RecordingLogger;
  readonly listener: RecordingListener;
  readonly membership: GroupMembership;
  readonly commitStreams: CommitStreams;
  /** Joins and is given partitions, each at its epoch; the first heartbeat is under way then. */
  join(epoch: number, epochs: Readonly<Record<number, number>>): Promise<void>;
  position(partition: number, offset: number): PositionToCommit;
  told(...what: string[]): Promise<void>;
}

export async function startMember(options: Partial<MembershipOptions> = {}): Promise<MemberSetting> {
  const coordinator = await ScriptedCoordinator.start();
  const clock = new SkippingClock();
  const logger = recordingLogger();
  const channel = new Channel(`127.0.0.1:${coordinator.port}`, 'tester', clock);
  const commitStreams = new CommitStreams(channel, clock, REQUEST_TIMEOUT_MS);
  const listener = new RecordingListener();
  const membership = new GroupMembership(
    {
      groupId: 'billing',
      subscription: { topics: ['words'] },
      sessionTimeoutMs: 0,
      rebalanceTimeoutMs: REBALANCE_MS,
      ...options,
    },
    {
      channel,
      runtime: { clock, logger, random: countingRandom() },
      clientId: 'tester',
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      commitStreams,
    },
    listener,
  );
  return {
    coordinator,
    clock,
    logger,
    listener,
    membership,
    commitStreams,
    async join(epoch, epochs) {
      membership.start();
      (await coordinator.next('join')).answer(joined(epoch, epochs));
      await until(() => membership.memberId !== undefined, 'it is a member');
    },
    position: (partition, offset) => ({
      partition: listener.partitions.get(partition) as AssignedPartition,
      offset,
      leaderEpoch: -1,
      metadata: '',
    }),
    async told(...what) {
      await until(() => listener.told.length >= what.length, `it is told ${what.join(', ')}`);
      const [...told] = listener.told.splice(0);
      if (told.join('; ') !== what.join('; ')) throw new Error(`told ${told.join('; ')}, not ${what.join('; ')}`);
    },
    async [Symbol.asyncDispose]() {
      membership.drop(new Error('the test is over') as LogError);
      coordinator.stop();
      commitStreams.close();
      channel.close();
    },
  };
}

export function joined(
  memberEpoch: number,
  epochs: Readonly<Record<number, number>>,
): {
  memberEpoch: number;
  sessionTimeoutMs: number;
  heartbeatIntervalMs: number;
  assignment: ReturnType<typeof assignment>;
} {
  return {
    memberEpoch,
    sessionTimeoutMs: SESSION_MS,
    heartbeatIntervalMs: INTERVAL_MS,
    assignment: assignment(epochs),
  };
}

/** The answer to a heartbeat: news of another assignment. */
export function news(
  memberEpoch: number,
  epochs: Readonly<Record<number, number>>,
): { memberEpoch: number; heartbeatIntervalMs: number; assignment: ReturnType<typeof assignment> } {
  return { memberEpoch, heartbeatIntervalMs: INTERVAL_MS, assignment: assignment(epochs) };
}

/** The answer to a heartbeat that was held to its end. */
export function noNews(memberEpoch: number): { memberEpoch: number; heartbeatIntervalMs: number } {
  return { memberEpoch, heartbeatIntervalMs: INTERVAL_MS };
}
