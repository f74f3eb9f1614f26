/** The groups that one partition of the offsets topic keeps. */
import type { Clock, Timer } from '../../core/clock.js';
import type { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import type { Partition } from '../../partition/partition.js';
import type { PendingTransaction } from './coordinator-types.js';
import { emptyGroup, transition } from './group.js';
import { type EntryTiming, GroupEntry } from './group-entry.js';
import { loadInProgress, notReadable } from './group-errors.js';
import type { GroupEvent, GroupNow, GroupState, GroupTransition, MembershipRecord, TopicView } from './group-types.js';
import type { OffsetChange } from './offsets.js';
import { OFFSETS_TOPIC } from './offsets-topic.js';
import type { PendingChange } from './pending-offsets.js';
import { encodeMembership, encodeOffset, encodePending } from './records.js';
import { resolvePatterns, restoreEntry } from './restore.js';
import { ShardCounts, type Totals } from './shard-counts.js';
import { type LoadedGroup, loadShard } from './shard-loader.js';
import { ShardWriter } from './shard-writer.js';
import type { TopicDirectory } from './topic-directory.js';

/** After a write or a load that failed, deadlines are not acted upon, and loading is not tried again, before this. */
const RETRY_MS = 1000;
const SLICE_MS = 5;

/** Of a group without members: it subscribes to nothing, and holds on to no snapshot. */
const NO_TOPICS: TopicView = { get: () => undefined, matching: () => new Set() };

export interface ShardOptions {
  readonly index: number;
  /** The partition as it is now. @throws LogError why it is out of service */
  readonly partition: () => Partition;
  readonly directory: TopicDirectory;
  readonly totals: Totals;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted when the coordinator closes. */
  readonly signal: AbortSignal;
}

export class GroupShard {
  readonly #options: ShardOptions;
  readonly #timing: EntryTiming;
  readonly #entries = new Map<string, GroupEntry>();
  /** With changes that are on their way to the log, those that are about to be removed included. */
  readonly #dirty = new Set<GroupEntry>();
  /** With offsets that wait for the end of a transaction. */
  readonly #waiting = new Set<GroupEntry>();
  /** Once everything is loaded. */
  #writer: ShardWriter | undefined;
  readonly #counts: ShardCounts;
  #loading: Promise<void> | undefined;
  #failure: LogError | undefined;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  /** Tells groups that have gone back of the topics there are, once a write may succeed again. */
  #catchUp: Timer | undefined;

  constructor(options: ShardOptions) {
    this.#options = options;
    this.#counts = new ShardCounts(options.totals);
    this.#timing = {
      clock: options.clock,
      notBeforeMs: () => this.#notBeforeMs,
      tick: (entry) => void this.apply(entry, { kind: 'tick' }),
    };
  }

  /** What the groups that are served now come to. */
  get counts(): Readonly<Pick<ShardCounts, 'members' | 'places'>> {
    return this.#counts;
  }

  get isLoading(): boolean {
    return this.#loading !== undefined;
  }

  /** None before all are loaded. */
  get entries(): Iterable<GroupEntry> {
    return this.#writer === undefined ? [] : this.#entries.values();
  }

  *pendingTransactions(): Iterable<PendingTransaction> {
    for (const { groupId, transactions } of this.#waiting) {
      for (const holder of transactions?.latest.holders() ?? []) yield { groupId, ...holder };
    }
  }

  /** Of the members there are, and of those that there will be again if a write fails. */
  *patterns(): Iterable<string> {
    for (const entry of new Set([...this.#entries.values(), ...this.#dirty])) {
      for (const state of new Set([entry.state, entry.durable])) {
        for (const { subscription } of state?.members.values() ?? []) {
          if (subscription.pattern !== undefined) yield subscription.pattern;
        }
      }
    }
  }

  now(): GroupNow {
    const { clock } = this.#options;
    return { monotonicMs: clock.monotonic(), wallMs: clock.now() };
  }

  /** Reads what the partition keeps, unless that is done. Never rejects: `check` tells. */
  async load(): Promise<void> {
    if (this.#writer !== undefined) return;
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
    });
    await this.#loading;
  }

  async #load(): Promise<void> {
    const { index, signal, logger } = this.#options;
    this.#failure = undefined;
    try {
      const partition = this.#options.partition();
      // What was written and not synced may be there later: it is to be there now, or not at all.
      await partition.log.flush(partition.logEndOffset);
      await this.#restore(await loadShard({ ...this.#options, partition }));
      this.#writer = new ShardWriter({ ...this.#options, partition, lost: (error) => this.#lost(error) });
      for (const entry of this.#entries.values()) {
        this.#tellTopics(entry);
        entry.timer.plan();
      }
    } catch (error) {
      this.#forget();
      this.#failure = notReadable(index, error);
      this.#notBeforeMs = this.now().monotonicMs + RETRY_MS;
      const at = { topic: OFFSETS_TOPIC, partition: index, err: this.#failure };
      if (!signal.aborted) logger.error(at, 'the groups of a partition cannot be read');
    }
  }

  async #restore(groups: ReadonlyMap<string, LoadedGroup>): Promise<void> {
    const { clock, signal, directory, logger } = this.#options;
    const slices = new Slices(clock, SLICE_MS);
    for (const [groupId, loaded] of groups) {
      await resolvePatterns(loaded, directory, logger);
      this.#add(groupId, loaded);
      await slices.step();
      signal.throwIfAborted();
    }
  }

  #add(groupId: string, loaded: LoadedGroup): void {
    const topics = loaded.members.size === 0 ? NO_TOPICS : this.#options.directory.view;
    const entry = restoreEntry(groupId, loaded, topics, this.now(), this.#timing);
    this.#counts.groups(1);
    this.#counts.offsets(entry.units);
    this.#counts.replace(undefined, entry.state);
    this.#entries.set(groupId, entry);
    this.#noteTransactions(entry);
  }

  #noteTransactions(entry: GroupEntry): void {
    if (entry.transactions === undefined) this.#waiting.delete(entry);
    else this.#waiting.add(entry);
  }

  /** Takes back what a load that failed has come to. */
  #forget(): void {
    for (const { units } of this.#entries.values()) this.#counts.offsets(-units);
    this.#counts.groups(-this.#entries.size);
    this.#counts.forgetStates();
    this.#entries.clear();
    this.#waiting.clear();
  }

  /**
   * @param groupId undefined: all groups are asked for
   * @throws LogError COORDINATOR_LOAD_IN_PROGRESS, or why the groups cannot be read
   */
  check(groupId: string | undefined): void {
    if (this.#writer !== undefined) return;
    const failure = this.#failure;
    if (failure !== undefined && !(failure.retryable && this.now().monotonicMs >= this.#notBeforeMs)) throw failure;
    void this.load();
    throw loadInProgress(groupId);
  }

  find(groupId: string): GroupEntry | undefined {
    return this.#entries.get(groupId);
  }

  /** The group, or one that is there from its first change on. */
  findOrMake(groupId: string): GroupEntry {
    return this.#entries.get(groupId) ?? new GroupEntry(emptyGroup(groupId, NO_TOPICS, this.now()), this.#timing);
  }

  /**
   * Takes an event in; what follows from it is on its way to the log when this returns.
   * @param offsets committed offsets that change together with what the event changes
   * @returns why the event is refused
   */
  apply(entry: GroupEntry, event: GroupEvent, offsets: readonly OffsetChange[] = []): LogError | undefined {
    if (this.#options.signal.aborted) return undefined;
    const before = entry.state;
    const { state, refusal, records, changed, removed } = transition(before, event, this.now());
    if (records.length === 0 && offsets.length === 0) entry.adopt(state);
    else void this.#write(entry, state, records, offsets, []);
    this.#counts.replace(before, state);
    for (const memberId of changed) entry.held.wake(memberId);
    for (const removal of removed) this.#logRemoval(entry, removal);
    // Heartbeats that are no news only move deadlines away.
    if (records.length > 0 || state.targetDueMs !== before.targetDueMs) entry.timer.plan();
    return refusal;
  }

  /**
   * Resolves when the offsets, and with them what waits for the end of transactions, are durable: all in one batch.
   * @throws LogError
   */
  commit(entry: GroupEntry, offsets: readonly OffsetChange[], pending: readonly PendingChange[] = []): Promise<void> {
    return this.#write(entry, entry.state, [], offsets, pending);
  }

  #write(
    entry: GroupEntry,
    state: GroupState,
    membership: readonly MembershipRecord[],
    offsets: readonly OffsetChange[],
    pending: readonly PendingChange[],
  ): Promise<void> {
    const { groupId } = entry;
    const all = this.#isNew(entry) ? this.#enter(entry, state, membership) : membership;
    const records = all.map((change) => encodeMembership(groupId, change));
    for (const change of offsets) records.push(encodeOffset(groupId, change, change.value));
    for (const change of pending) records.push(encodePending(groupId, change));
    const coming = Math.max(0, entry.unitsAdded(offsets, pending));
    this.#counts.expect(coming);
    entry.state = state;
    entry.expect(offsets, pending);
    this.#dirty.add(entry);
    this.#noteTransactions(entry);
    return this.#writer!.write({
      records,
      apply: () => {
        this.#counts.expect(-coming);
        this.#applied(entry, state, offsets, pending);
      },
    });
  }

  #isNew(entry: GroupEntry): boolean {
    return this.#entries.get(entry.groupId) !== entry;
  }

  /** Makes the group one of these; it is kept as such even if it never has a member. */
  #enter(entry: GroupEntry, state: GroupState, membership: readonly MembershipRecord[]): readonly MembershipRecord[] {
    this.#entries.set(entry.groupId, entry);
    this.#counts.groups(1);
    if (membership.some(({ kind }) => kind === 'group')) return membership;
    const { epoch, emptySinceMs } = state;
    return [{ kind: 'group', value: { epoch, emptySinceMs } }, ...membership];
  }

  #applied(
    entry: GroupEntry,
    state: GroupState,
    offsets: readonly OffsetChange[],
    pending: readonly PendingChange[],
  ): void {
    const before = entry.units;
    entry.apply(offsets, pending);
    this.#counts.offsets(entry.units - before);
    this.#noteTransactions(entry);
    // Without changes on their way, the log has all that there is to have.
    entry.durable = entry.queuedCount === 0 ? entry.state : state;
    if (entry.queuedCount === 0) this.#dirty.delete(entry);
  }

  /** Removes a group without members, transactions and changes on their way. Resolves when that is durable. @throws LogError */
  remove(entry: GroupEntry): Promise<void> {
    const { groupId } = entry;
    const records = [...entry.offsets.all()].map((offset) => encodeOffset(groupId, offset, undefined));
    records.push(encodeMembership(groupId, { kind: 'group', value: undefined }));
    if (entry.state.begun.size > 0) records.push(encodeMembership(groupId, { kind: 'topics', value: undefined }));
    this.#entries.delete(groupId);
    this.#counts.groups(-1);
    this.#dirty.add(entry);
    const apply = (): void => {
      this.#dirty.delete(entry);
      this.#counts.offsets(-entry.units);
      this.#counts.replace(entry.state, undefined);
      entry.close();
    };
    return this.#writer!.write({ records, apply });
  }

  /** Resolves when everything that was changed before is durable. @throws LogError why not, and was undone */
  async settled(): Promise<void> {
    await this.#writer?.settled();
  }

  #lost(error: LogError): void {
    if (error.outcome === 'none') this.#undo();
    else this.#giveUp(error);
  }

  /**
   * Nobody knows what the log has: until it is read again, no group is served. A member must not be told that it is one
   * while the log may have given what it held to another.
   */
  #giveUp(error: LogError): void {
    for (const entry of this.#dirty) {
      // Those that were about to be removed; the others are counted with the rest.
      if (this.#entries.get(entry.groupId) !== entry) this.#counts.offsets(-entry.units);
    }
    this.#dirty.clear();
    this.#counts.expectNothing();
    this.#writer = undefined;
    this.#failure = error;
    this.#notBeforeMs = this.now().monotonicMs + RETRY_MS;
    this.drain();
    this.#forget();
  }

  /** A write has failed: back to what is durable, in every group that went on from there. */
  #undo(): void {
    const { clock } = this.#options;
    const now = this.now();
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    this.#counts.expectNothing();
    this.#notBeforeMs = now.monotonicMs + RETRY_MS;
    for (const entry of dirty) {
      if (this.#entries.get(entry.groupId) === entry) {
        this.#entries.delete(entry.groupId);
        this.#counts.groups(-1);
      }
      this.#counts.replace(entry.state, undefined);
      entry.undo(now);
      this.#noteTransactions(entry);
    }
    // Only then, for a group that was removed may have been made anew since.
    for (const entry of dirty) {
      if (entry.durable === undefined) continue;
      this.#entries.set(entry.groupId, entry);
      this.#counts.groups(1);
      this.#counts.replace(undefined, entry.state);
      entry.timer.plan();
    }
    this.#catchUp ??= clock.setTimer(RETRY_MS, () => {
      this.#catchUp = undefined;
      void this.topicsChanged(new Slices(clock, SLICE_MS));
    });
  }

  /** Tells every group of the topics that there are now. */
  async topicsChanged(slices: Slices): Promise<void> {
    for (const entry of [...this.entries]) {
      // What was removed, or is being read again, meanwhile is not to come back by this.
      if (this.#entries.get(entry.groupId) === entry) this.#tellTopics(entry);
      await slices.step();
    }
  }

  #tellTopics(entry: GroupEntry): void {
    const { state } = entry;
    const topics = state.members.size === 0 ? NO_TOPICS : this.#options.directory.view;
    if (state.topics !== topics) this.apply(entry, { kind: 'topics-changed', topics });
  }

  #logRemoval({ groupId }: GroupEntry, { member, why }: GroupTransition['removed'][number]): void {
    const { memberId, instanceId, clientId, host } = member;
    const message =
      why === 'session'
        ? 'a member was not heard of within its session'
        : 'a member has not given up in time what it was to give up';
    this.#options.logger.info({ group: groupId, member: memberId, instanceId, clientId, host }, message);
  }

  /** Acts upon no deadline any more and answers every heartbeat that is held. */
  drain(): void {
    this.#catchUp?.cancel();
    this.#catchUp = undefined;
    for (const entry of this.#entries.values()) entry.close();
  }

  /** Resolves when nothing is under way. */
  async close(): Promise<void> {
    this.drain();
    await this.#loading;
    await this.settled().catch(() => undefined);
  }
}
