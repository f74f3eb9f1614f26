/** What must hold however bad things get. Each check throws with what was broken. */
import type {
  GroupState,
  GroupTransition,
  HeldPartition,
  PartitionKey,
} from '../../../../src/broker/groups/group-types.js';
import { assert } from '../../../../src/core/assert.js';
import type { StoredState } from './stored-state.js';

/** A process that may act on a partition. */
export interface Believer {
  readonly name: string;
  /** Whether it would hand out a record of the partition now. */
  believesIn(key: PartitionKey): boolean;
}

export class Oracle {
  readonly believers: Believer[] = [];
  /** By partition: every record below was handled, or jumped over by a reset. */
  readonly #handled = new Map<PartitionKey, number>();
  readonly #committed = new Map<PartitionKey, number>();

  handledUpTo(key: PartitionKey): number {
    return this.#handled.get(key) ?? 0;
  }

  /** The believer is about to believe in it (invariant 10). */
  gains(believer: Believer, key: PartitionKey): void {
    const other = this.believers.find((one) => one !== believer && one.believesIn(key));
    assert(other === undefined, `${believer.name} and ${other?.name} both believe that they own ${key}`);
  }

  /** The believer handles a record (invariants 7 and 10). */
  handles(believer: Believer, key: PartitionKey, offset: number): void {
    this.gains(believer, key);
    const next = this.handledUpTo(key);
    assert(offset <= next, `${key}: offset ${offset} is handled before ${next}`);
    this.#handled.set(key, Math.max(next, offset + 1));
  }

  /** A commit passes that was made under this assignment of the partition (invariant 9). */
  accepts(state: GroupState, memberId: string, key: PartitionKey, since: number): void {
    const member = state.members.get(memberId);
    const held = member?.assigned.get(key) ?? member?.revoking.get(key);
    assert(held?.since === since, `${memberId} commits ${key} of epoch ${since}, and has it since ${held?.since}`);
  }

  /** A commit is durable (invariants 7 and 8). */
  commits(key: PartitionKey, offset: number): void {
    const before = this.#committed.get(key) ?? 0;
    assert(offset >= before, `${key}: the committed offset goes back from ${before} to ${offset}`);
    assert(
      offset <= this.handledUpTo(key),
      `${key}: ${offset} is committed, and only ${this.handledUpTo(key)} handled`,
    );
    this.#committed.set(key, offset);
  }

  /** A reset is durable: what it jumps over is not skipped. */
  resets(key: PartitionKey, offset: number): void {
    this.#committed.set(key, offset);
    this.#handled.set(key, Math.max(this.handledUpTo(key), offset));
  }

  /** @param stored the state before, with the transition's records applied */
  transitions(before: GroupState, { state, changed }: GroupTransition, stored: StoredState): void {
    assert(state.epoch >= before.epoch, 'the epoch of the group never falls');
    checkHolders(state);
    checkStored(state, stored);
    for (const [memberId, member] of state.members) checkChange(before.members.get(memberId), member, changed);
    for (const memberId of before.members.keys()) {
      assert(state.members.has(memberId) || changed.includes(memberId), `nobody is told that ${memberId} is gone`);
    }
  }
}

type Member = GroupState['members'] extends ReadonlyMap<string, infer M> ? M : never;

/** Invariant 10, and that epochs are in order. */
function checkHolders(state: GroupState): void {
  const holders = new Map<PartitionKey, string>();
  for (const { memberId, epoch, assigned, revoking } of state.members.values()) {
    assert(epoch <= state.epoch, `${memberId} is ahead of the group`);
    for (const held of [assigned, revoking]) {
      for (const [key, { since }] of held) {
        assert(!holders.has(key), `${holders.get(key)} and ${memberId} both hold ${key}`);
        assert(since <= epoch, `${memberId} has ${key} since ${since}, and its epoch is ${epoch}`);
        holders.set(key, memberId);
      }
    }
  }
}

/** Whoever keeps its partitions is not disturbed, and whoever does not is told. */
function checkChange(before: Member | undefined, after: Member, changed: readonly string[]): void {
  const isSame =
    before !== undefined && isAlike(before.assigned, after.assigned) && isAlike(before.revoking, after.revoking);
  const hasNewEpoch = before?.epoch !== after.epoch;
  const isBack = before?.away === true && !after.away;
  assert(isBack || hasNewEpoch !== isSame, `the epoch of ${after.memberId} is new exactly when what it has is`);
  const isNews = hasNewEpoch || before?.away !== after.away;
  assert(changed.includes(after.memberId) === isNews, `${after.memberId} is told exactly of its own news`);
}

function isAlike(a: ReadonlyMap<PartitionKey, HeldPartition>, b: ReadonlyMap<PartitionKey, HeldPartition>): boolean {
  return a === b || (a.size === b.size && [...a].every(([key, { since }]) => b.get(key)?.since === since));
}

/** Whether a restart would find the group as it is. */
function checkStored(state: GroupState, stored: StoredState): void {
  assert(stored.members.size === state.members.size, 'each member is kept, and no other');
  assert((stored.group?.epoch ?? 0) === state.epoch, 'the epoch of the group is kept');
  for (const member of state.members.values()) {
    const kept = stored.members.get(member.memberId);
    assert(kept?.epoch === member.epoch && kept.away === member.away, `${member.memberId} is kept as it is`);
    assert(kept.assigned.length === member.assigned.size, `what ${member.memberId} has is kept`);
    assert(kept.revoking.length === member.revoking.size, `what ${member.memberId} gives up is kept`);
  }
}
