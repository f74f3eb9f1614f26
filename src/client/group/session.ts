/** One membership of a group, from the join to its end. Whoever wants to be a member again begins another. */
import type { Timer } from '../../core/clock.js';
import { type LogError, toLogError } from '../../core/errors.js';
import type {
  GroupAssignmentMessage,
  HeartbeatRequest,
  HeartbeatResponse,
  JoinGroupResponse,
} from '../../rpc/group-messages.js';
import { callFailure, closedError } from '../failures.js';
import { methods } from '../methods.js';
import { DEFAULT_BACKOFF, sleep, withRetries } from '../retry.js';
import { Committer, type CommittingMember } from './committer.js';
import { HeldPartitions } from './held-partitions.js';
import { joinRequest, type MembershipContext, type MembershipOptions } from './membership-options.js';
import { notLetGo, offsetsReset, releaseNotTold, sessionExpired, warningOfRepetition } from './session-errors.js';
import type { AssignedPartition, MembershipListener, PositionToCommit } from './types.js';

/** What is left of the rebalance timeout for the way to the broker. */
const REBALANCE_MARGIN = 0.1;
/**
 * The broker counts the rebalance timeout from when it decided, which may have been at any time since the heartbeat before
 * was sent. Of a short timeout, this much at most is given up for that: then an answer that is longer on its way may be
 * counted from too late.
 */
const MAX_REBALANCE_DOUBT = 0.25;
/** The next heartbeat follows an answer without news no sooner than this after the one before, in ms. */
const MIN_HEARTBEAT_SPACING_MS = 100;
/** How long telling the broker that a member leaves may take, in ms: its session ends by itself otherwise. */
const LEAVE_TIMEOUT_MS = 3_000;
/** After these the broker has no such member any more. */
const GONE: ReadonlySet<string> = new Set(['UNKNOWN_MEMBER_ID', 'GROUP_ID_NOT_FOUND']);

/** `joining` until the broker has answered; `leaving` while the last partitions are let go. */
type SessionState = 'joining' | 'member' | 'leaving' | 'over';

/**
 * Invariants: the deadline lies a session timeout after the SENDING of a request that the broker took, and a rebalance
 * timeout after a time at which it had not revoked anything yet, so that it is never later than the broker's; once it has
 * passed, the session is over, whatever arrives afterwards; the assignment is that of `#epoch`, which only rises; after
 * `over` the listener hears nothing more of this session.
 */
export class MemberSession {
  readonly memberId: string;
  readonly #options: MembershipOptions;
  readonly #context: MembershipContext;
  readonly #listener: MembershipListener;
  readonly #partitions = new HeldPartitions();
  readonly #committer: Committer;
  readonly #releaseStream: () => void;
  readonly #stopped = new AbortController();
  readonly #timers = new Set<Timer>();
  #state: SessionState = 'joining';
  #endedBy: LogError = closedError('membership');
  #epoch = 0;
  #sessionTimeoutMs = 0;
  #heartbeatIntervalMs = 0;
  /** When the newest request was sent that the broker has answered; Infinity while joining. */
  #confirmedMs = Number.POSITIVE_INFINITY;
  /** By then the broker must have heard that what it wants back was let go, or it puts the member out. */
  #releaseByMs = Number.POSITIVE_INFINITY;
  #deadlineTimer: Timer | undefined;
  #heartbeat: AbortController | undefined;
  #answered = false;
  /** Whether the broker may have a member of this id. */
  #mayBeKnown = false;
  /** Reasons that were warned of: each one once. */
  readonly #warnedOf = new Set<string>();
  #telling: Promise<void> | undefined;
  #onAllLetGo: () => void = () => {};

  constructor(options: MembershipOptions, context: MembershipContext, listener: MembershipListener) {
    this.#options = options;
    this.#context = context;
    this.#listener = listener;
    this.memberId = context.runtime.random.uuid();
    this.#committer = new Committer(this.#asCommitting(), context);
    this.#releaseStream = context.commitStreams.use();
  }

  get isMember(): boolean {
    return (this.#state === 'member' || this.#state === 'leaving') && !this.#isExpired;
  }

  /** The newest one that the member was told. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Whether the broker has answered a heartbeat, so that joining again is not in vain. */
  get wasAlive(): boolean {
    return this.#answered;
  }

  /** Whether the broker may still have the member, although it is over here. */
  get mayLinger(): boolean {
    return this.#state === 'over' && this.#mayBeKnown;
  }

  /**
   * Joins, then sends heartbeats until the session is over; resolves to the reason. Never rejects.
   * @param predecessor a session that is over; if the broker may still have its member, that one leaves first, so that
   *   what it held is not kept from others until it expires
   */
  async run(predecessor?: MemberSession): Promise<LogError> {
    try {
      await this.#repeat(() => this.#join(predecessor));
      while (this.#state !== 'over') await this.#repeat(() => this.#beat());
    } catch (thrown) {
      const error = toLogError(thrown);
      const refused = this.#state === 'joining' && error.outcome === 'none';
      if (this.#state !== 'over' && (refused || GONE.has(error.reason))) this.#mayBeKnown = false;
      this.end(error);
    }
    return this.#endedBy;
  }

  holds(partition: AssignedPartition): boolean {
    return this.#partitions.has(partition) && !this.#isExpired;
  }

  commit(positions: readonly PositionToCommit[]): Promise<void> {
    return this.#committer.commit(positions);
  }

  /** Lets everything go, then tells the broker. Never rejects. */
  async leave(): Promise<void> {
    if (this.#state === 'member') {
      this.#state = 'leaving';
      const limitMs = this.#options.rebalanceTimeoutMs * (1 - REBALANCE_MARGIN);
      this.#revoke(this.#partitions.revokeAll(), this.#context.runtime.clock.monotonic() + limitMs);
    }
    if (this.#state === 'leaving' && this.#partitions.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onAllLetGo = resolve;
      });
    }
    this.end(closedError('membership'));
    await this.tellLeft();
  }

  /** Ends the session at once: what it held is lost. Does not tell the broker. */
  end(why: LogError): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#endedBy = why;
    this.#stopped.abort();
    this.#heartbeat?.abort();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    const lost = this.#partitions.takeAll();
    this.#committer.end();
    this.#releaseStream();
    this.#onAllLetGo();
    if (lost.length > 0) this.#listener.lost(lost, why);
  }

  /** Tells the broker that the member is gone, if it may think otherwise; a static one keeps its place. Never rejects. */
  tellLeft(): Promise<void> {
    this.#telling ??= this.#tellLeft();
    return this.#telling;
  }

  async #tellLeft(): Promise<void> {
    const { runtime } = this.#context;
    const { clock, random, logger } = runtime;
    const limitMs = Math.min(LEAVE_TIMEOUT_MS, this.#context.requestTimeoutMs);
    try {
      await withRetries({ clock, random, backoff: DEFAULT_BACKOFF, limitMs: limitMs / 3 }, () =>
        this.#sendLeave(limitMs),
      );
    } catch (thrown) {
      const error = toLogError(thrown);
      logger.debug(this.#logFields(error), 'the broker was not told that a member has left: its session will expire');
    }
  }

  async #sendLeave(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (!this.#mayBeKnown) return;
    const { groupId, instanceId } = this.#options;
    const request = { groupId, memberId: this.memberId, temporary: instanceId !== undefined };
    try {
      await this.#context.channel.unary(methods.leaveGroup, request, { timeoutMs, signal });
    } catch (thrown) {
      // Whatever else the broker has against it, usually that there is no such member, it will have the next time too.
      if (callFailure(thrown).retryable || signal?.aborted) throw thrown;
    }
    this.#mayBeKnown = false;
  }

  /** Repeats after failures that may pass, for as long as the session lasts. */
  #repeat<T>(attempt: () => Promise<T>): Promise<T> {
    const { clock, random } = this.#context.runtime;
    const limitMs = Number.POSITIVE_INFINITY;
    const context = { clock, random, backoff: DEFAULT_BACKOFF, limitMs, signal: this.#stopped.signal };
    return withRetries(context, attempt, (error) => {
      this.#logRepetition(error);
      return true;
    });
  }

  #logRepetition(error: LogError): void {
    const { logger } = this.#context.runtime;
    const warning = this.#warnedOf.has(error.reason)
      ? undefined
      : warningOfRepetition(error, this.#state === 'joining');
    if (warning === undefined) {
      logger.debug(this.#logFields(error), 'a request of a group member will be repeated');
      return;
    }
    this.#warnedOf.add(error.reason);
    const { instanceId } = this.#options;
    logger.warn({ ...this.#logFields(error), ...(instanceId === undefined ? {} : { instanceId }) }, warning);
  }

  async #join(predecessor: MemberSession | undefined): Promise<void> {
    const { channel, runtime, clientId, requestTimeoutMs: timeoutMs } = this.#context;
    const signal = this.#stopped.signal;
    if (predecessor?.mayLinger) await predecessor.#sendLeave(timeoutMs, signal);
    const sentAtMs = runtime.clock.monotonic();
    this.#mayBeKnown = true;
    const response = await channel.unary(methods.joinGroup, joinRequest(this.#options, clientId, this.memberId), {
      timeoutMs,
      signal,
    });
    if (this.#state !== 'over') this.#onJoined(sentAtMs, response);
  }

  #onJoined(sentAtMs: number, response: JoinGroupResponse): void {
    this.#sessionTimeoutMs = response.sessionTimeoutMs;
    this.#heartbeatIntervalMs = response.heartbeatIntervalMs;
    this.#confirmedMs = sentAtMs;
    if (this.#endIfExpired()) return;
    this.#state = 'member';
    this.#watchDeadline();
    const { groupId } = this.#options;
    this.#context.runtime.logger.debug({ group: groupId, memberId: this.memberId }, 'joined a group');
    this.#adopt(response.memberEpoch, response.assignment, sentAtMs);
  }

  /** One heartbeat, held by the broker until there is news; given up when there is something to report. */
  async #beat(): Promise<void> {
    const { channel, runtime, requestTimeoutMs } = this.#context;
    const heartbeat = new AbortController();
    this.#heartbeat = heartbeat;
    // What the broker waits for to be let go, it must be known to have heard of: this one is not to be held.
    const releases = this.#releaseByMs < Number.POSITIVE_INFINITY && !this.#partitions.isRevoking;
    const maxWaitMs = releases ? 0 : this.#heartbeatIntervalMs;
    // So that a dead connection is noticed while there is time left for another try.
    const timeoutMs = maxWaitMs + Math.min(requestTimeoutMs, this.#sessionTimeoutMs / 2);
    const sentAtMs = runtime.clock.monotonic();
    try {
      const request = this.#heartbeatRequest(maxWaitMs);
      const response = await channel.unary(methods.heartbeat, request, { timeoutMs, signal: heartbeat.signal });
      if (this.#state === 'over' || this.#endIfExpired()) return;
      if (releases) this.#releaseByMs = Number.POSITIVE_INFINITY;
      if (this.#onAnswer(sentAtMs, response) || releases) return;
      const tooEarlyMs = sentAtMs + MIN_HEARTBEAT_SPACING_MS - runtime.clock.monotonic();
      if (tooEarlyMs > 0) await sleep(runtime.clock, tooEarlyMs, heartbeat.signal);
    } catch (thrown) {
      if (!heartbeat.signal.aborted) throw thrown;
    } finally {
      if (this.#heartbeat === heartbeat) this.#heartbeat = undefined;
    }
  }

  #heartbeatRequest(maxWaitMs: number): HeartbeatRequest {
    return {
      groupId: this.#options.groupId,
      memberId: this.memberId,
      memberEpoch: this.#epoch,
      owned: this.#partitions.owned(),
      maxWaitMs,
    };
  }

  /** Returns whether the answer brought news. */
  #onAnswer(sentAtMs: number, { memberEpoch, heartbeatIntervalMs, assignment }: HeartbeatResponse): boolean {
    this.#answered = true;
    const before = this.#confirmedMs;
    this.#confirmedMs = sentAtMs;
    this.#heartbeatIntervalMs = heartbeatIntervalMs;
    if (memberEpoch <= this.#epoch || assignment === undefined || assignment === null) return false;
    this.#adopt(memberEpoch, assignment, before);
    return true;
  }

  /** @param unknownAtMs when the broker had certainly not decided on this assignment yet */
  #adopt(epoch: number, assignment: GroupAssignmentMessage | undefined, unknownAtMs: number): void {
    this.#epoch = epoch;
    const { rebalanceTimeoutMs, groupId } = this.#options;
    const change = this.#partitions.apply(assignment?.partitions ?? [], this.#state === 'member');
    if (change.reset.length > 0) this.#listener.lost(change.reset, offsetsReset(groupId));
    this.#wakeIfAllLetGo();
    if (change.revoked.length > 0) {
      const nowMs = this.#context.runtime.clock.monotonic();
      const decidedAtMs = Math.max(unknownAtMs, nowMs - rebalanceTimeoutMs * MAX_REBALANCE_DOUBT);
      // The broker's time runs from the first revocation that it has not heard the end of.
      this.#releaseByMs = Math.min(this.#releaseByMs, decidedAtMs + rebalanceTimeoutMs);
      this.#watchDeadline();
      this.#revoke(change.revoked, this.#releaseByMs - rebalanceTimeoutMs * REBALANCE_MARGIN);
    }
    if (change.assigned.length > 0) this.#listener.assigned(change.assigned);
  }

  #revoke(partitions: readonly AssignedPartition[], untilMs: number): void {
    if (partitions.length === 0) return;
    const timer = this.#setTimer(Math.max(0, untilMs - this.#context.runtime.clock.monotonic()), () => {
      const late = this.#letGo(partitions);
      if (late.length > 0) this.#listener.lost(late, notLetGo(this.#options));
    });
    const done = (): void => {
      this.#cancelTimer(timer);
      this.#letGo(partitions);
    };
    this.#listener.revoked(partitions).then(done, done);
  }

  /** What of these was let go just now is reported at once. */
  #letGo(partitions: readonly AssignedPartition[]): AssignedPartition[] {
    const gone = this.#partitions.letGo(partitions);
    if (gone.length > 0) this.#heartbeat?.abort();
    this.#wakeIfAllLetGo();
    return gone;
  }

  #wakeIfAllLetGo(): void {
    if (this.#partitions.size === 0) this.#onAllLetGo();
  }

  /** To be called again when the deadline is nearer than it was; a later one is found when the timer fires. */
  #watchDeadline(): void {
    if (this.#deadlineTimer !== undefined) this.#cancelTimer(this.#deadlineTimer);
    const leftMs = Math.max(0, this.#deadlineMs - this.#context.runtime.clock.monotonic());
    this.#deadlineTimer = this.#setTimer(leftMs, () => {
      if (!this.#endIfExpired()) this.#watchDeadline();
    });
  }

  /** A process that stood still may find an answer before the timer: what it held may be another's for long. */
  #endIfExpired(): boolean {
    if (!this.#isExpired) return false;
    const untold = this.#deadlineMs === this.#releaseByMs;
    this.end(
      untold
        ? releaseNotTold(this.#options, this.memberId)
        : sessionExpired(this.#options.groupId, this.memberId, this.#sessionTimeoutMs),
    );
    return true;
  }

  get #deadlineMs(): number {
    return Math.min(this.#confirmedMs + this.#sessionTimeoutMs, this.#releaseByMs);
  }

  get #isExpired(): boolean {
    return this.#context.runtime.clock.monotonic() >= this.#deadlineMs;
  }

  #asCommitting(): CommittingMember {
    const epoch = (): number => this.#epoch;
    return {
      groupId: this.#options.groupId,
      memberId: this.memberId,
      get epoch() {
        return epoch();
      },
      holds: (partition) => this.holds(partition),
      onUnknown: (error) => {
        this.#mayBeKnown = false;
        this.end(error);
      },
    };
  }

  #logFields({ reason, message }: LogError): object {
    return { group: this.#options.groupId, memberId: this.memberId, reason, error: message };
  }

  #setTimer(delayMs: number, callback: () => void): Timer {
    const timer = this.#context.runtime.clock.setTimer(delayMs, () => {
      this.#timers.delete(timer);
      callback();
    });
    this.#timers.add(timer);
    return timer;
  }

  #cancelTimer(timer: Timer): void {
    timer.cancel();
    this.#timers.delete(timer);
  }
}
