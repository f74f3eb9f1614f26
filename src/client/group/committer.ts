/** The commits of one member: one request under way at a time, and whatever is asked for meanwhile goes with the next. */
import type { Timer } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import type {
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  OffsetToCommitMessage,
  RefusedOffsetMessage,
} from '../../rpc/group-messages.js';
import { fromStatusMessage } from '../../rpc/status-codec.js';
import { callFailure, closedError } from '../failures.js';
import type { ClientRuntime } from '../options.js';
import { backoffMs, DEFAULT_BACKOFF } from '../retry.js';
import type { CommitStreams } from './commit-stream.js';
import type { AssignedPartition, PositionToCommit, TopicPartition } from './types.js';

/** Offsets that one request may commit. */
const MAX_OFFSETS = 10_000;

/** Whose offsets are committed. */
export interface CommittingMember {
  readonly groupId: string;
  readonly memberId: string;
  /** The newest one that the member was told. */
  readonly epoch: number;
  holds(partition: AssignedPartition): boolean;
  /** The broker knows no such member any more. */
  onUnknown(error: LogError): void;
}

export interface CommitterContext {
  readonly commitStreams: CommitStreams;
  readonly runtime: ClientRuntime;
  /** How long a commit may take, repetitions included, in ms. */
  readonly requestTimeoutMs: number;
}

/** One call of `commit` that waits for its outcome. */
interface WaitingCommit {
  readonly positions: readonly PositionToCommit[];
  readonly resolve: () => void;
  readonly reject: (error: LogError) => void;
  readonly timer: Timer;
  settled: boolean;
  lastError: LogError | undefined;
}

/**
 * Invariants: at most one request is under way; calls are sent whole, in one request unless they are too large for that,
 * so that a call is refused as a whole before it was sent; sequences rise with every request, repetitions included, so
 * that a delayed one undoes nothing.
 */
export class Committer {
  readonly #member: CommittingMember;
  readonly #context: CommitterContext;
  readonly #ended = new AbortController();
  #waiting: WaitingCommit[] = [];
  #sequence = 0;
  #working = false;

  constructor(member: CommittingMember, context: CommitterContext) {
    this.#member = member;
    this.#context = context;
  }

  commit(positions: readonly PositionToCommit[]): Promise<void> {
    const { clock } = this.#context.runtime;
    const refusal = this.#refusal(positions);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (positions.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = clock.setTimer(this.#context.requestTimeoutMs, () => this.#timeOut(call));
      const call: WaitingCommit = { positions, resolve, reject, timer, settled: false, lastError: undefined };
      this.#waiting.push(call);
      if (!this.#working) void this.#work();
    });
  }

  /** The membership is over: what was not sent is refused, what is under way is not repeated. */
  end(): void {
    this.#ended.abort();
    for (const call of this.#takeWaiting()) settle(call, closedError('membership'));
  }

  /** Sends until nothing waits. Never rejects. */
  async #work(): Promise<void> {
    this.#working = true;
    let failures = 0;
    for (let calls = this.#takeWaiting(); calls.length > 0; calls = this.#takeWaiting()) {
      const error = await this.#send(calls);
      failures = error === undefined ? 0 : failures + 1;
      if (error !== undefined) await this.#backOff(failures, error);
    }
    this.#working = false;
  }

  /** Calls that may be sent, in the order made; the others are refused. */
  #takeWaiting(): WaitingCommit[] {
    const waiting = this.#waiting.filter((call) => !call.settled);
    this.#waiting = [];
    for (const call of waiting) {
      const refusal = this.#refusal(call.positions);
      if (refusal !== undefined) settle(call, refusal);
    }
    return waiting.filter((call) => !call.settled);
  }

  /** Sends what these calls come to; returns the error after which they wait to be repeated, if so. */
  async #send(calls: readonly WaitingCommit[]): Promise<LogError | undefined> {
    try {
      const refused: RefusedOffsetMessage[] = [];
      for (const request of this.#requests(calls)) {
        refused.push(...(await this.#context.commitStreams.send(request)).refused);
      }
      settleAll(calls, { refused });
      return undefined;
    } catch (thrown) {
      const error = callFailure(thrown);
      if (error.retryable && !this.#ended.signal.aborted) {
        for (const call of calls) call.lastError = error;
        // Older calls first, so that the newest offset of a partition goes last and counts.
        this.#waiting = [...calls, ...this.#waiting];
        return error;
      }
      for (const call of calls) settle(call, error);
      if (error.reason === 'UNKNOWN_MEMBER_ID') this.#member.onUnknown(error);
      return undefined;
    }
  }

  /** All under the epoch of now: by a later one, an offset could be taken for one of an assignment that came later. */
  #requests(calls: readonly WaitingCommit[]): CommitOffsetsRequest[] {
    const newest = new Map<string, OffsetToCommitMessage>();
    for (const { positions } of calls) {
      for (const { partition: held, offset, leaderEpoch, metadata } of positions) {
        const { topic, topicId, partition } = held;
        const message = { topic, topicId, partition, offset, metadata };
        newest.set(`${topicId}-${partition}`, leaderEpoch < 0 ? message : { ...message, leaderEpoch });
      }
    }
    const { groupId, memberId, epoch: memberEpoch } = this.#member;
    const offsets = [...newest.values()];
    const requests: CommitOffsetsRequest[] = [];
    for (let from = 0; from < offsets.length; from += MAX_OFFSETS) {
      const some = offsets.slice(from, from + MAX_OFFSETS);
      requests.push({ groupId, memberId, memberEpoch, sequence: ++this.#sequence, offsets: some });
    }
    return requests;
  }

  async #backOff(failures: number, error: LogError): Promise<void> {
    const { clock, random, logger } = this.#context.runtime;
    const waitMs = backoffMs(failures, DEFAULT_BACKOFF, random, error);
    const { groupId } = this.#member;
    logger.debug({ group: groupId, reason: error.reason, error: error.message, waitMs }, 'commit will be repeated');
    await clock.sleep(waitMs, this.#ended.signal).catch(() => {}); // the membership is over
  }

  #timeOut(call: WaitingCommit): void {
    const { requestTimeoutMs } = this.#context;
    const timedOut = new LogError('REQUEST_TIMED_OUT', `Offsets were not committed in ${requestTimeoutMs} ms.`);
    settle(call, call.lastError ?? timedOut);
  }

  /** Why these may not be committed, if so. */
  #refusal(positions: readonly PositionToCommit[]): LogError | undefined {
    const fenced = positions.find(({ partition }) => !this.#member.holds(partition));
    return fenced === undefined ? undefined : notHeld(this.#member.groupId, fenced.partition);
  }
}

/** FENCED_MEMBER_EPOCH, found before anything was sent. */
export function notHeld(groupId: string, { topic, partition }: TopicPartition): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `This member of group ${groupId} does not hold ${topic}-${partition} any more, or its offset was reset meanwhile. ` +
      'Nothing was committed: whoever has the partition now reads these records again.',
    { metadata: { group: groupId, topic, partition } },
  );
}

function settle(call: WaitingCommit, error: LogError | undefined): void {
  if (call.settled) return;
  call.settled = true;
  call.timer.cancel();
  if (error === undefined) call.resolve();
  else call.reject(error);
}

/** Refused partitions fail the calls that they are part of; the others are durable. */
function settleAll(calls: readonly WaitingCommit[], { refused }: CommitOffsetsResponse): void {
  const errors = new Map<string, LogError>();
  for (const { topic, partition, error } of refused) {
    const reason = error === undefined || error === null ? undefined : fromStatusMessage(error);
    errors.set(`${topic}-${partition}`, reason ?? new LogError('INTERNAL', 'The broker refused an offset.'));
  }
  for (const call of calls) {
    const error = call.positions
      .map(({ partition: held }) => errors.get(`${held.topic}-${held.partition}`))
      .find(Boolean);
    settle(call, error);
  }
}
