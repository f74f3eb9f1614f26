/** Being a member of a consumer group, one session after the other. */
import type { LogError } from '../../core/errors.js';
import { backoffMs, DEFAULT_BACKOFF } from '../retry.js';
import { notHeld } from './committer.js';
import type { MembershipContext, MembershipOptions } from './membership-options.js';
import { MemberSession } from './session.js';
import type { AssignedPartition, Membership, MembershipListener, PositionToCommit } from './types.js';

export type { MembershipContext, MembershipOptions } from './membership-options.js';

/** After these the member joins anew; whatever else ends a session would end the next one too. */
const REJOIN: ReadonlySet<string> = new Set(['UNKNOWN_MEMBER_ID', 'FENCED_MEMBER_EPOCH', 'GROUP_ID_NOT_FOUND']);

/** From `start` until `leave`, `drop` or a failure. */
interface Run {
  readonly stopped: AbortController;
}

/**
 * Invariants: at most one session is under way, and the next one begins only after the broker was told, as far as it
 * can be reached, that the last one is over; a session is over before the listener hears of the next.
 */
export class GroupMembership implements Membership {
  readonly #options: MembershipOptions;
  readonly #context: MembershipContext;
  readonly #listener: MembershipListener;
  #run: Run | undefined;
  #session: MemberSession | undefined;
  /** Never rejects. */
  #leaving: Promise<void> = Promise.resolve();

  constructor(options: MembershipOptions, context: MembershipContext, listener: MembershipListener) {
    this.#options = options;
    this.#context = context;
    this.#listener = listener;
  }

  get memberId(): string | undefined {
    return this.#session?.isMember ? this.#session.memberId : undefined;
  }

  get memberEpoch(): number {
    return this.#session?.isMember ? this.#session.epoch : 0;
  }

  start(): void {
    if (this.#run !== undefined) return;
    const run = { stopped: new AbortController() };
    this.#run = run;
    void this.#stayMember(run);
  }

  holds(partition: AssignedPartition): boolean {
    return this.#session?.holds(partition) ?? false;
  }

  async commit(positions: readonly PositionToCommit[]): Promise<void> {
    const [first] = positions;
    if (first === undefined) return;
    if (this.#session === undefined) throw notHeld(this.#options.groupId, first.partition);
    await this.#session.commit(positions);
  }

  leave(): Promise<void> {
    const session = this.#stop();
    if (session !== undefined) this.#leaveAfter(() => session.leave());
    return this.#leaving;
  }

  drop(why: LogError): void {
    this.#stop();
    const session = this.#session;
    session?.end(why);
    if (session?.mayLinger) this.#leaveAfter(() => session.tellLeft());
  }

  /** Ends the run, if there is one, and returns the session that it was in. */
  #stop(): MemberSession | undefined {
    const run = this.#run;
    if (run === undefined) return undefined;
    this.#run = undefined;
    run.stopped.abort();
    return this.#session;
  }

  #leaveAfter(leave: () => Promise<void>): void {
    this.#leaving = Promise.all([this.#leaving, leave()]).then(() => {});
  }

  /** Never rejects. */
  async #stayMember(run: Run): Promise<void> {
    const { clock, random, logger } = this.#context.runtime;
    await this.#leaving;
    for (let failures = 0; this.#run === run; failures++) {
      // The first time at once; but a broker that puts members out as soon as they join is not to be stormed.
      if (failures > 1) {
        const waitMs = backoffMs(failures - 1, DEFAULT_BACKOFF, random);
        await clock.sleep(waitMs, run.stopped.signal).catch(() => {}); // stopped
        if (this.#run !== run) return;
      }
      const predecessor = this.#session;
      const session = new MemberSession(this.#options, this.#context, this.#listener);
      this.#session = session;
      const error = await session.run(predecessor);
      if (this.#run !== run) return;
      if (session.wasAlive) failures = 0;
      if (!REJOIN.has(error.reason)) {
        this.#run = undefined;
        this.#leaveAfter(() => session.tellLeft());
        this.#listener.failed(error);
        return;
      }
      const { groupId: group } = this.#options;
      const fields = { group, memberId: session.memberId, reason: error.reason, error: error.message };
      logger.warn(fields, 'no longer a member of the group, which is joined anew');
    }
  }
}
