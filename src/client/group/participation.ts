/** A consumer's time in its group: from joining, at the first record asked for, until it has left. */

import { LogError, toLogError } from '../../core/errors.js';
import { Slices } from '../../core/slices.js';
import type { OffsetSpec } from '../admin.js';
import { closedError } from '../failures.js';
import { type BackoffOptions, backoffMs } from '../retry.js';
import { BatchFeed } from './batch-feed.js';
import { Commits } from './commits.js';
import { ConsumedBatch } from './consumed.js';
import type { ConsumerContext } from './context.js';
import { Fetching } from './fetching.js';
import { Holding, keyOfPartition } from './holding.js';
import { PollDeadline, type Work } from './poll-deadline.js';
import { startHoldings } from './starting.js';
import type { AssignedPartition, Membership, MembershipListener, TopicPartition } from './types.js';

/**
 * Work that never waits gives a turn to timers and the connection after this, in ms: heartbeats and commits depend on it,
 * and it may be minutes until what was fetched ahead is worked off.
 */
const SLICE_MS = 20;

/** What is handed out again after the first time, because its transaction was aborted again, waits. */
const BACK_AGAIN: BackoffOptions = { retryBackoffMs: 10, retryBackoffMaxMs: 1_000 };

/**
 * Invariants: `#holdings` and `#replaced` have what the membership has told of as assigned and not as gone; after `stop`
 * nothing is handed out; `end` leaves the group exactly once.
 */
export class Participation<K, V> implements MembershipListener {
  readonly membership: Membership;
  readonly commits: Commits;
  readonly feed: BatchFeed<K, V>;
  /** Whoever hands records out looks whether its slice is over before each, and pauses then. */
  readonly slices: Slices;
  /** The oldest work under way, for the processing deadline. Set by whoever hands records out. */
  oldestWork: () => Work | undefined = () => undefined;
  /** Whether one thing is worked on at a time. Set by whoever hands records out. */
  isSequential = false;
  /** Called when partitions may be handed out, or not, in another way than before. */
  onChange: () => void = () => {};
  readonly #context: ConsumerContext<K, V>;
  readonly #holdings = new Map<string, Holding<K, V>>();
  /** Of topics that were deleted, while another of the same name is held already. */
  readonly #replaced = new Set<Holding<K, V>>();
  readonly #fetching: Fetching<K, V>;
  readonly #deadline: PollDeadline;
  readonly #stopped = new AbortController();
  #stoppedBy: LogError | undefined;
  #dropped = false;
  #ending: Promise<void> | undefined;

  constructor(context: ConsumerContext<K, V>) {
    const { options, runtime } = context;
    this.#context = context;
    this.slices = new Slices(runtime.clock, SLICE_MS);
    this.membership = context.createMembership(this);
    this.commits = new Commits({
      membership: this.membership,
      runtime,
      group: options.group,
      intervalMs: options.autoCommitIntervalMs,
      isBound: context.isBound,
      holdings: () => this.#holdings.values(),
    });
    this.#fetching = new Fetching(context, this.commits, (error) => this.stop(error));
    this.feed = new BatchFeed({
      membership: this.membership,
      fetching: this.#fetching,
      holdings: this.#holdings,
      verifyCrc: options.verifyCrc,
      commit: (batch) => this.commitBatch(batch),
    });
    this.#deadline = new PollDeadline(
      runtime.clock,
      options.maxPollIntervalMs,
      () => this.oldestWork(),
      (work, ageMs) => this.#dropOut(work, ageMs),
    );
    this.membership.start();
  }

  /** Aborts when nothing is handed out any more. */
  get stopped(): AbortSignal {
    return this.#stopped.signal;
  }

  /** Why nothing is handed out any more. */
  get stoppedBy(): LogError | undefined {
    return this.#stoppedBy;
  }

  get holdings(): Iterable<Holding<K, V>> {
    return this.#holdings.values();
  }

  holding(partition: TopicPartition): Holding<K, V> | undefined {
    return this.#holdings.get(keyOfPartition(partition));
  }

  /** Whether it has left the group because of the processing deadline, until `goOn`. */
  get isDropped(): boolean {
    return this.#dropped;
  }

  /** Joins again after the processing deadline had passed. */
  goOn(): void {
    if (!this.#dropped || this.#stoppedBy !== undefined) return;
    this.#dropped = false;
    this.membership.start();
  }

  assigned(partitions: readonly AssignedPartition[]): void {
    const holdings = partitions.map((assigned) => new Holding(assigned, this.#context.topicOf(assigned.topic)));
    for (const holding of holdings) this.#add(holding);
    const told = this.#context.events.tell('assigned', () => holdings.map(({ topicPartition }) => topicPartition));
    this.#start(holdings, told);
  }

  async revoked(partitions: readonly AssignedPartition[]): Promise<void> {
    const holdings = this.#find(partitions);
    for (const holding of holdings) holding.phase = 'revoking';
    this.#fetching.stop(holdings);
    this.onChange();
    await Promise.all(holdings.map((holding) => holding.whenFree()));
    const isHeld = ({ phase }: Holding<K, V>): boolean => phase !== 'gone';
    if (this.commits.isAutomatic) await this.commits.commitQuietly(holdings.filter(isHeld));
    await this.#context.events.tell('revoked', () => this.#endOf(holdings.filter(isHeld)));
    for (const holding of holdings) this.#forget(holding);
  }

  lost(partitions: readonly AssignedPartition[], why: LogError): void {
    const holdings = this.#find(partitions);
    for (const holding of holdings) this.#forget(holding);
    this.#fetching.stop(holdings);
    this.onChange();
    void this.#context.events.tell('lost', () => this.#endOf(holdings));
    this.#context.runtime.logger.info(
      {
        group: this.#context.options.group,
        partitions: holdings.map(({ key }) => key),
        reason: why.reason,
        error: why.message,
      },
      'partitions were lost',
    );
  }

  failed(error: LogError): void {
    this.stop(error);
  }

  pause(partitions: readonly TopicPartition[]): void {
    this.#fetching.stop(this.#found(partitions));
    this.onChange();
  }

  resume(partitions: readonly TopicPartition[]): void {
    this.#fetching.start(this.#found(partitions));
    this.onChange();
  }

  /** @throws LogError INVALID_REQUEST when the partition is not the consumer's; what finding the offset fails with */
  async seek(partition: TopicPartition, to: OffsetSpec | number): Promise<void> {
    const holding = this.holding(partition);
    if (holding === undefined || holding.phase === 'revoking') throw notAssigned(partition);
    const seeks = ++holding.seeks;
    if (typeof to === 'number') {
      this.#moveTo(holding, to);
      return;
    }
    holding.isSeeking = true;
    this.#fetching.stop([holding]);
    const isLast = (): boolean => holding.seeks === seeks;
    try {
      const { isolation } = this.#context.options;
      const offset = await this.#context.findOffset(partition, to, isolation, this.#stopped.signal);
      if (isLast()) this.#moveTo(holding, offset);
    } catch (error) {
      if (isLast()) this.#readOn(holding);
      throw error;
    }
  }

  /** Whether it holds exactly this assignment. */
  has(holding: Holding<unknown, unknown>): boolean {
    return this.#all().some((held) => held === holding);
  }

  /**
   * Hands out again what was handed out from `offset` on, if the partition is still held: at once, and when that happens there
   * again and again, after a pause that grows.
   */
  rewind(holding: Holding<unknown, unknown>, offset: number): void {
    const held = this.#reading(holding);
    const position = held?.progress?.position;
    if (held === undefined || position === undefined || position <= offset) return;
    this.#fetching.stop([held]);
    const timesBack = held.goBackTo(offset);
    if (timesBack === 1) this.#readOn(held);
    else this.#readOnLater(held, timesBack - 1);
  }

  /** Hands out nothing below `offset`, which was committed. */
  advance(holding: Holding<unknown, unknown>, offset: number): void {
    const held = this.#reading(holding);
    const position = held?.progress?.position;
    if (held === undefined || position === undefined || position >= offset) return;
    this.#moveTo(held, offset);
    held.committedOffset = offset;
  }

  /** Goes on in these where the group has committed, as if they were assigned now. */
  findAgain(holdings: readonly Holding<unknown, unknown>[]): void {
    const held = holdings.flatMap((holding) => this.#reading(holding) ?? []);
    this.#fetching.stop(held);
    for (const holding of held) holding.forgetPosition();
    this.onChange();
    this.#start(held, Promise.resolve());
  }

  /** Finishes the batch and commits. @throws LogError as `Consumer.commit` */
  commitBatch(batch: ConsumedBatch<K, V>): Promise<void> {
    const { holding, progress } = ConsumedBatch.originOf(batch);
    progress.finish(batch.baseOffset, batch.nextOffset);
    return this.commitOf(holding, progress);
  }

  /** @throws LogError FENCED_MEMBER_EPOCH when the assignment is over; as `Membership.commit` */
  async commitOf(holding: Holding<unknown, unknown>, progress: unknown): Promise<void> {
    if (holding.phase === 'gone') throw overSince(holding.assigned);
    // What came before a seek is of no concern any more.
    if (holding.progress === progress) await this.commits.commit([holding]);
  }

  /** Hands out nothing more; whoever waits for records is told this error. What was handed out can still be committed. */
  stop(error: LogError): void {
    if (this.#stoppedBy !== undefined) return;
    this.#stoppedBy = error;
    this.#stopped.abort(error);
    this.#fetching.stop(this.#holdings.values());
    this.#fetching.close(error);
    this.onChange();
  }

  /** Those who let partitions go wait no longer for what is being worked on. */
  stopWaiting(): void {
    for (const holding of this.#all()) holding.stopWaiting();
  }

  /** Resolves when nothing is being worked on. */
  async whenFree(): Promise<void> {
    await Promise.all(this.#all().map((holding) => holding.whenFree()));
  }

  /** Lets everything go, commits what is finished, leaves the group. Never rejects. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    this.stop(closedError('consumer'));
    this.#deadline.stop();
    await this.membership.leave();
    this.commits.stop();
  }

  #start(holdings: readonly Holding<K, V>[], told: Promise<void>): void {
    startHoldings(holdings, told, {
      context: this.#context,
      commits: this.commits,
      fetching: this.#fetching,
      signal: this.#stopped.signal,
    }).catch((error) => this.stop(toLogError(error)));
  }

  /** Undefined unless it is held, and not about to go. */
  #reading(holding: Holding<unknown, unknown>): Holding<K, V> | undefined {
    const held = this.holding(holding.assigned);
    return held === holding && held.phase === 'reading' ? held : undefined;
  }

  #add(holding: Holding<K, V>): void {
    const before = this.#holdings.get(holding.key);
    if (before !== undefined) this.#replaced.add(before);
    this.#holdings.set(holding.key, holding);
  }

  #all(): Holding<K, V>[] {
    return [...this.#replaced, ...this.#holdings.values()];
  }

  #find(partitions: readonly AssignedPartition[]): Holding<K, V>[] {
    return partitions.flatMap((partition) => {
      const candidates = [this.holding(partition), ...this.#replaced];
      return candidates.find((holding) => holding?.isOf(partition)) ?? [];
    });
  }

  #found(partitions: readonly TopicPartition[]): Holding<K, V>[] {
    return partitions.flatMap((partition) => this.holding(partition) ?? []);
  }

  /** Of which the owner was not told yet that they go. */
  #endOf(holdings: readonly Holding<K, V>[]): TopicPartition[] {
    const untold = holdings.filter(({ endTold }) => !endTold);
    for (const holding of untold) holding.endTold = true;
    return untold.map(({ topicPartition }) => topicPartition);
  }

  #forget(holding: Holding<K, V>): void {
    holding.phase = 'gone';
    holding.stopWaiting();
    this.#replaced.delete(holding);
    if (this.#holdings.get(holding.key) === holding) this.#holdings.delete(holding.key);
  }

  #moveTo(holding: Holding<K, V>, offset: number): void {
    this.#fetching.stop([holding]);
    holding.beginAt(offset);
    this.#readOn(holding);
  }

  #readOn(holding: Holding<K, V>): void {
    holding.isSeeking = false;
    this.#fetching.start([holding]);
    this.onChange();
  }

  #readOnLater(holding: Holding<K, V>, failures: number): void {
    const { clock, random } = this.#context.runtime;
    const { progress } = holding;
    holding.isSeeking = true;
    const readOn = (): void => {
      if (holding.progress === progress) this.#readOn(holding);
    };
    const waitMs = backoffMs(failures, BACK_AGAIN, random);
    clock.sleep(waitMs, this.#stopped.signal).then(readOn, () => {});
  }

  #dropOut({ partition, offset }: Work, ageMs: number): void {
    if (this.#dropped || this.#stoppedBy !== undefined) return;
    this.#dropped = true;
    const { topic, partition: number } = partition;
    const { group, maxPollIntervalMs } = this.#context.options;
    const message =
      `Offset ${offset} of ${topic}-${number} has been worked on for longer than maxPollIntervalMs allows: ` +
      'the consumer has left its group, and joins again when it asks for more.';
    this.#context.runtime.logger.warn(
      { group, topic, partition: number, offset, ageMs: Math.round(ageMs), maxPollIntervalMs },
      message,
    );
    this.membership.drop(
      new LogError('FENCED_MEMBER_EPOCH', message, { metadata: { group, topic, partition: number, offset } }),
    );
  }
}

export function notAssigned({ topic, partition }: TopicPartition): LogError {
  return new LogError('INVALID_REQUEST', `${topic}-${partition} is not assigned to this consumer.`, {
    metadata: { topic, partition },
  });
}

/** The record or batch was handed out under an assignment that is over. */
export function overSince({ topic, partition }: TopicPartition): LogError {
  return new LogError(
    'FENCED_MEMBER_EPOCH',
    `${topic}-${partition} is no longer assigned to this consumer as it was when the record was handed out: whoever has it ` +
      'now consumes the record again.',
    { metadata: { topic, partition } },
  );
}
