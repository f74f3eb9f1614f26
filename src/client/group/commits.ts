/** Commits what is finished: when told to, and by itself every now and then. */
import type { Timer } from '../../core/clock.js';
import { toLogError } from '../../core/errors.js';
import type { ClientRuntime } from '../options.js';
import type { Holding } from './holding.js';
import type { Membership, PositionToCommit } from './types.js';

type AnyHolding = Holding<unknown, unknown>;

export interface CommitsOptions {
  readonly membership: Membership;
  readonly runtime: ClientRuntime;
  readonly group: string;
  /** Undefined: nothing is committed without being told to. */
  readonly intervalMs: number | undefined;
  /** Whether its offsets go with transactions. */
  readonly isBound: () => boolean;
  /** Everything that is held. */
  readonly holdings: () => Iterable<AnyHolding>;
}

export class Commits {
  readonly #options: CommitsOptions;
  readonly #underWay = new Set<Promise<void>>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: CommitsOptions) {
    this.#options = options;
    this.#wait();
  }

  /** Whether what the loop is through with counts as finished. */
  get isAutomatic(): boolean {
    return this.#options.intervalMs !== undefined && !this.#options.isBound();
  }

  /**
   * Commits what is finished without a hole and not committed yet; resolves when it is durable.
   * @throws LogError as `Membership.commit`
   */
  async commit(holdings: Iterable<AnyHolding>): Promise<void> {
    const commits: { readonly holding: AnyHolding; readonly position: PositionToCommit }[] = [];
    for (const holding of holdings) {
      const position = holding.toCommit();
      if (position !== undefined) commits.push({ holding, position });
    }
    if (commits.length === 0) return;
    const committing = this.#options.membership.commit(commits.map(({ position }) => position));
    this.#underWay.add(committing);
    try {
      await committing;
    } finally {
      this.#underWay.delete(committing);
    }
    for (const { holding, position } of commits) holding.committedOffset = position.offset;
  }

  /** Resolves when no commit is under way. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#underWay]);
  }

  /** The same for those that are still held; a failure is logged: what was not committed is handed out again. */
  async commitQuietly(holdings: Iterable<AnyHolding>): Promise<void> {
    const { membership, runtime, group } = this.#options;
    try {
      await this.commit([...holdings].filter(({ assigned }) => membership.holds(assigned)));
    } catch (thrown) {
      const error = toLogError(thrown);
      runtime.logger.warn({ group, reason: error.reason, error: error.message }, 'offsets could not be committed');
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #wait(): void {
    const { intervalMs, runtime, holdings } = this.#options;
    if (intervalMs === undefined || this.#stopped) return;
    this.#timer = runtime.clock.setTimer(intervalMs, () => {
      if (!this.isAutomatic) return;
      void this.commitQuietly(holdings()).then(() => this.#wait());
    });
  }
}
