/**
 * A coordinator around the state machine, with a log that takes its time, fails, and loses what was not written: it tells
 * nobody of anything that is not durable.
 */
import {
  checkCommittable,
  checkMember,
  emptyGroup,
  nextDeadlineMs,
  renewSessions,
  restoreGroup,
  transition,
} from '../../../../src/broker/groups/group.js';
import type {
  GroupEvent,
  GroupNow,
  GroupPartition,
  GroupState,
  HeldPartition,
  MembershipRecord,
  PartitionKey,
} from '../../../../src/broker/groups/group-types.js';
import { assert } from '../../../../src/core/assert.js';
import { LogError } from '../../../../src/core/errors.js';
import { partitionKey } from '../../../../src/core/types.js';
import { StoredState } from './stored-state.js';
import type { Appointment } from './timeline.js';
import { HEARTBEAT_MS, type World } from './world.js';

export interface Assignment {
  readonly epoch: number;
  readonly assigned: readonly HeldPartition[];
}

export type Answer<T> = (outcome: T | LogError) => void;

export interface Commit {
  readonly memberId: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly partition: GroupPartition;
  readonly offset: number;
  /** For the oracle alone: the assignment that the member had when it committed. */
  readonly since: number;
}

interface OffsetWrite {
  readonly key: PartitionKey;
  readonly offset: number;
  readonly isReset: boolean;
}

interface Write {
  readonly records: readonly MembershipRecord[];
  readonly offsets: readonly OffsetWrite[];
  readonly state: GroupState;
  readonly whenDurable: (() => void)[];
}

interface HeldHeartbeat {
  readonly answer: Answer<Assignment>;
  readonly timeout: Appointment;
}

const FAILED_WRITE = 0.005;
const SLOW_WRITE = 0.02;
/** A disk that fails is slow as well. */
const FAILED_SLOW_WRITE = 0.2;

export class ModelCoordinator {
  /** Rises with every restart: connections do not outlive one. */
  life = 0;
  state: GroupState;
  readonly #world: World;
  #isUp = true;
  /** What nobody has been told more than. */
  #durable: GroupState;
  #stored = new StoredState();
  /** With what is being written. */
  #latest = new StoredState();
  readonly #offsets = new Map<PartitionKey, number>();
  #writes: Write[] = [];
  #isWriting = false;
  readonly #held = new Map<string, HeldHeartbeat>();
  /** Of the last commit, by member. */
  readonly #sequences = new Map<string, number>();
  #timer: Appointment | undefined;
  /** The monotonic clock begins somewhere else after each restart. */
  #clockBiasMs = 0;

  constructor(world: World) {
    this.#world = world;
    this.state = emptyGroup('group', world.topics.view, this.#now());
    this.#durable = this.state;
  }

  join(event: Extract<GroupEvent, { readonly kind: 'join' }>, answer: Answer<Assignment>): void {
    if (!this.#isUp) return;
    const refusal = this.#handle(event);
    if (refusal !== undefined) this.#whenDurable(() => answer(refusal));
    else this.#answerAssignment(event.memberId, answer);
  }

  heartbeat(event: Extract<GroupEvent, { readonly kind: 'heartbeat' }>, answer: Answer<Assignment>): void {
    if (!this.#isUp) return;
    const refusal = this.#handle(event);
    if (refusal !== undefined) {
      this.#whenDurable(() => answer(refusal));
      return;
    }
    this.#release(event.memberId);
    if (this.state.members.get(event.memberId)?.epoch === event.epoch) this.#hold(event, answer);
    else this.#answerAssignment(event.memberId, answer);
  }

  leave(memberId: string, temporary: boolean): void {
    if (this.#isUp) this.#handle({ kind: 'leave', memberId, temporary });
  }

  topicsChanged(): void {
    if (this.#isUp) this.#handle({ kind: 'topics-changed', topics: this.#world.topics.view });
  }

  /** Sets committed offsets while members work. */
  reset(offsets: ReadonlyMap<PartitionKey, number>): void {
    if (!this.#isUp) return;
    const writes = [...offsets].map(([key, offset]): OffsetWrite => ({ key, offset, isReset: true }));
    this.#handle({ kind: 'reset', partitions: new Set(offsets.keys()) }, writes);
  }

  /** @param life of the coordinator to which the member was connected */
  commit(life: number, commit: Commit, answer: Answer<undefined>): void {
    if (!this.#isUp || life !== this.life) return;
    const refusal = this.#refusalOf(commit);
    if (refusal !== undefined) {
      this.#whenDurable(() => answer(refusal));
      return;
    }
    const key = partitionKey(commit.partition);
    this.#world.oracle.accepts(this.state, commit.memberId, key, commit.since);
    this.#sequences.set(commit.memberId, commit.sequence);
    this.#write([], [{ key, offset: commit.offset, isReset: false }]);
    this.#whenDurable(() => answer(undefined));
  }

  /** The committed offset, after everything that is being written. */
  fetchOffset(key: PartitionKey, answer: (offset: number) => void): void {
    if (this.#isUp) this.#whenDurable(() => answer(this.#offsets.get(key) ?? 0));
  }

  committedOffset(key: PartitionKey): number {
    return this.#offsets.get(key) ?? 0;
  }

  /** What is being written becomes durable up to a point, and nobody hears of it. */
  crash(): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    const writtenCount = this.#world.chance.below(this.#writes.length + 1);
    for (const write of this.#writes.slice(0, writtenCount)) this.#makeDurable(write);
    this.#writes = [];
    this.#isWriting = false;
    for (const { timeout } of this.#held.values()) timeout.isOff = true;
    this.#held.clear();
    this.#sequences.clear();
    if (this.#timer !== undefined) this.#timer.isOff = true;
    this.#timer = undefined;
  }

  restart(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.life++;
    this.#clockBiasMs = this.#world.chance.below(1_000_000) - this.#world.timeline.nowMs;
    const { group, topics, members } = this.#stored;
    const stored = { group, topics, members: [...members.values()] };
    this.state = restoreGroup('group', stored, this.#world.topics.view, this.#now());
    this.#durable = this.state;
    this.#latest = this.#stored.copy();
    this.#setTimer();
  }

  #now(): GroupNow {
    const { nowMs } = this.#world.timeline;
    return { monotonicMs: nowMs + this.#clockBiasMs, wallMs: nowMs };
  }

  #handle(event: GroupEvent, offsets: readonly OffsetWrite[] = []): LogError | undefined {
    const now = this.#now();
    const done = transition(this.state, event, now);
    this.#latest.apply(done.records);
    this.#world.trace?.(describe(this.#world.timeline.nowMs, event, done.refusal, done.records));
    this.#world.oracle.transitions(this.state, done, this.#latest);
    this.state = done.state;
    if (done.records.length + offsets.length > 0) this.#write(done.records, offsets);
    for (const memberId of done.changed) this.#release(memberId);
    const next = nextDeadlineMs(this.state);
    assert(event.kind !== 'tick' || next === undefined || next > now.monotonicMs, 'a tick does all that is due');
    this.#setTimer();
    return done.refusal;
  }

  #refusalOf({ memberId, epoch, sequence, partition }: Commit): LogError | undefined {
    const refusal = checkMember(this.state, memberId, epoch);
    if (refusal !== undefined) return refusal;
    if (sequence <= (this.#sequences.get(memberId) ?? 0)) return new LogError('INVALID_REQUEST', 'A late commit.');
    if (!this.#world.topics.has(partition)) return new LogError('UNKNOWN_TOPIC_ID', 'Another topic.');
    return checkCommittable(this.state.members.get(memberId)!, epoch, partition);
  }

  #hold({ memberId, epoch }: { readonly memberId: string; readonly epoch: number }, answer: Answer<Assignment>): void {
    const timeout = this.#world.timeline.after(HEARTBEAT_MS, () => {
      this.#held.delete(memberId);
      // That there is no news is true of what is durable, whatever is being written.
      if (this.#durable.members.get(memberId)?.epoch === epoch) answer({ epoch, assigned: [] });
      else this.#answerAssignment(memberId, answer);
    });
    this.#held.set(memberId, { answer, timeout });
  }

  #release(memberId: string): void {
    const held = this.#held.get(memberId);
    if (held === undefined) return;
    this.#held.delete(memberId);
    held.timeout.isOff = true;
    this.#answerAssignment(memberId, held.answer);
  }

  #answerAssignment(memberId: string, answer: Answer<Assignment>): void {
    this.#whenDurable(() => {
      const member = this.#durable.members.get(memberId);
      if (member === undefined || member.away) answer(new LogError('UNKNOWN_MEMBER_ID', 'No such member.'));
      else answer({ epoch: member.epoch, assigned: [...member.assigned.values()] });
    });
  }

  #whenDurable(then: () => void): void {
    const last = this.#writes.at(-1);
    if (last === undefined) {
      this.#durable = this.state;
      then();
    } else {
      last.whenDurable.push(then);
    }
  }

  #write(records: readonly MembershipRecord[], offsets: readonly OffsetWrite[]): void {
    this.#writes.push({ records, offsets, state: this.state, whenDurable: [] });
    if (!this.#isWriting) this.#startWriting();
  }

  /** Takes all that waits together. */
  #startWriting(): void {
    this.#isWriting = true;
    const { timeline, chance, network } = this.#world;
    const [life, count] = [this.life, this.#writes.length];
    const isSlow = !network.isCalm && chance.of(SLOW_WRITE);
    const takesMs = network.isCalm ? 1 : chance.between(1, isSlow ? 1_000 : 15);
    timeline.after(takesMs, () => {
      if (life !== this.life || !this.#isUp) return;
      this.#isWriting = false;
      if (!network.isCalm && chance.of(isSlow ? FAILED_SLOW_WRITE : FAILED_WRITE)) this.#failWrites();
      else this.#completeWrites(count);
      if (this.#writes.length > 0) this.#startWriting();
    });
  }

  #completeWrites(count: number): void {
    const done = this.#writes.splice(0, count);
    for (const write of done) this.#makeDurable(write);
    for (const write of done) for (const then of write.whenDurable) then();
  }

  #makeDurable({ records, offsets, state }: Write): void {
    this.#stored.apply(records);
    this.#durable = state;
    for (const { key, offset, isReset } of offsets) {
      this.#offsets.set(key, offset);
      if (isReset) this.#world.oracle.resets(key, offset);
      else this.#world.oracle.commits(key, offset);
    }
  }

  /** Goes back to what is durable: nobody was told of more. */
  #failWrites(): void {
    this.#world.trace?.(`${this.#world.timeline.nowMs} a write fails`);
    this.#writes = [];
    this.state = renewSessions(this.#durable, this.#now());
    this.#durable = this.state;
    this.#latest = this.#stored.copy();
    this.topicsChanged();
    this.#setTimer();
  }

  #setTimer(): void {
    const due = nextDeadlineMs(this.state);
    if (due === undefined) return;
    const { timeline } = this.#world;
    const delayMs = Math.max(0, due - this.#now().monotonicMs);
    if (this.#timer !== undefined && this.#timer.atMs <= timeline.nowMs + delayMs) return;
    if (this.#timer !== undefined) this.#timer.isOff = true;
    this.#timer = timeline.after(delayMs, () => {
      this.#timer = undefined;
      this.#handle({ kind: 'tick' });
    });
  }
}

function describe(
  nowMs: number,
  event: GroupEvent,
  refusal: LogError | undefined,
  records: readonly MembershipRecord[],
): string {
  const of = 'memberId' in event ? ` of ${event.memberId}` : '';
  const at = 'epoch' in event ? ` at ${event.epoch} owns ${[...event.owned].map(short).join(' ')}` : '';
  const outcome = refusal === undefined ? records.map(describeRecord).join('; ') : refusal.reason;
  return `${nowMs} ${event.kind}${of}${at} -> ${outcome}`;
}

function describeRecord(record: MembershipRecord): string {
  if (record.kind === 'group') return `group ${record.value?.epoch}`;
  if (record.kind === 'topics') return `topics ${record.value?.length ?? 0}`;
  if (record.value === undefined) return `${record.memberId} gone`;
  const { epoch, assigned, revoking, away } = record.value;
  const list = (held: readonly HeldPartition[]): string =>
    held.map((one) => `${short(partitionKey(one))}@${one.since}`).join(' ');
  return `${record.memberId}@${epoch}${away ? ' away' : ''} [${list(assigned)}] gives up [${list(revoking)}]`;
}

function short(key: PartitionKey): string {
  return key.slice(-6);
}
