/** A group in memory: its state as of the last event and as it is durable, and what hangs on it. */
import type { Clock } from '../../core/clock.js';
import { emptyGroup, nextDeadlineMs, renewSessions } from './group.js';
import { overtakenCommit } from './group-errors.js';
import { GroupTimer } from './group-timer.js';
import type { GroupNow, GroupState } from './group-types.js';
import { HeldHeartbeats } from './held-heartbeats.js';
import { CommittedOffsets, type OffsetChange } from './offsets.js';
import { GroupTransactions, type PendingChange, pendingUnitsOf } from './pending-offsets.js';

export interface EntryTiming {
  readonly clock: Clock;
  /** No tick before this, by the monotonic clock. */
  readonly notBeforeMs: () => number;
  /** Called when a deadline of the state has come. */
  readonly tick: (entry: GroupEntry) => void;
}

/**
 * Invariants: nobody is told of a state that is not durable; `state` is `durable` with the changes that are on their way to
 * the log on top of it.
 */
export class GroupEntry {
  readonly groupId: string;
  /** As of the last event. */
  state: GroupState;
  /** As the log has it; undefined while it has nothing of the group. */
  durable: GroupState | undefined;
  /** As the log has them. */
  readonly offsets: CommittedOffsets = new CommittedOffsets();
  readonly held: HeldHeartbeats = new HeldHeartbeats();
  readonly timer: GroupTimer;
  /** What waits for the end of a transaction; undefined: nothing. */
  transactions: GroupTransactions | undefined;
  /** Changes that are on their way to the log. */
  queuedCount = 0;
  /** The last `StoredOffset.order` that was given out. */
  #order = 0;
  /** The last commit of each member that numbers them. */
  readonly #sequences = new Map<string, number>();

  constructor(state: GroupState, { clock, notBeforeMs, tick }: EntryTiming) {
    this.groupId = state.groupId;
    this.state = state;
    const deadlineMs = (): number | undefined => {
      const deadline = nextDeadlineMs(this.state);
      return deadline === undefined ? undefined : Math.max(deadline, notBeforeMs());
    };
    this.timer = new GroupTimer({ clock, deadlineMs, tick: () => tick(this) });
  }

  /** What the group's offsets count for where all of them are bounded. */
  get units(): number {
    return this.offsets.units + (this.transactions?.durable.units ?? 0);
  }

  /** What comes on top of `units` by these changes, or goes when negative. */
  unitsAdded(offsets: readonly OffsetChange[], pending: readonly PendingChange[]): number {
    return pending.reduce(
      (sum, { producerId, value }) =>
        sum + pendingUnitsOf(value) - pendingUnitsOf(this.transactions?.latest.get(producerId)),
      this.offsets.unitsAdded(offsets),
    );
  }

  nextOrder(): number {
    return ++this.#order;
  }

  /** Of an offset that there is already. */
  takeOrder(order: number | undefined): void {
    this.#order = Math.max(this.#order, order ?? 0);
  }

  /** What came of an event that changes nothing in the log. */
  adopt(state: GroupState): void {
    this.state = state;
    if (this.queuedCount === 0 && this.durable !== undefined) this.durable = state;
  }

  /** Back to what is durable. Members may have sent heartbeats since: their sessions begin anew. */
  undo(now: GroupNow): void {
    this.queuedCount = 0;
    this.transactions?.undo();
    this.#forgetTransactions();
    if (this.durable === undefined) {
      this.state = emptyGroup(this.groupId, this.state.topics, now);
    } else {
      this.durable = renewSessions(this.durable, now);
      this.state = this.durable;
    }
    this.held.wakeAll();
  }

  /** Changes of committed offsets, and of those that wait, are on their way to the log. */
  expect(offsets: readonly OffsetChange[], pending: readonly PendingChange[]): void {
    if (pending.length > 0) this.transactions ??= new GroupTransactions();
    for (const change of pending) this.transactions?.change(change);
    for (const { value, ...place } of offsets) {
      if (value?.order !== undefined) this.transactions?.expect(place, value.order);
    }
    this.queuedCount++;
  }

  /** The log has them. */
  apply(offsets: readonly OffsetChange[], pending: readonly PendingChange[]): void {
    for (const change of offsets) {
      if (change.value === undefined) this.offsets.delete(change);
      else this.offsets.set(change, change.value);
    }
    for (const change of pending) this.transactions?.durable.set(change);
    this.queuedCount--;
    if (this.queuedCount === 0) this.transactions?.settle();
    this.#forgetTransactions();
  }

  #forgetTransactions(): void {
    if (this.queuedCount === 0 && this.transactions?.isEmpty) this.transactions = undefined;
  }

  /**
   * Takes a commit of a member that numbers them.
   * @throws LogError FENCED_MEMBER_EPOCH: a later one has been taken
   */
  takeSequence(memberId: string, sequence: number): void {
    const last = this.#sequences.get(memberId) ?? 0;
    if (sequence <= last) throw overtakenCommit(this.groupId, memberId, sequence, last);
    this.#sequences.set(memberId, sequence);
    if (this.#sequences.size <= 2 * this.state.members.size + 16) return;
    for (const id of this.#sequences.keys()) if (!this.state.members.has(id)) this.#sequences.delete(id);
  }

  /** Answers whoever waits, and waits for no deadline any more. */
  close(): void {
    this.timer.close();
    this.held.releaseAll();
  }
}
