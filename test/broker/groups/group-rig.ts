/** A group to play through by hand: its clock stands until it is moved. */
import { expect } from 'vitest';
import { checkCommittable, emptyGroup, labelOf, transition } from '../../../src/broker/groups/group.js';
import type {
  BegunTopic,
  GroupEvent,
  GroupNow,
  GroupPartition,
  GroupState,
  GroupTopic,
  GroupTransition,
  Member,
  StoredGroup,
  StoredMember,
  Subscription,
  TopicView,
} from '../../../src/broker/groups/group-types.js';
import { partitionKey } from '../../../src/core/types.js';
import { StoredState } from './simulation/stored-state.js';
import { topicIdOf, viewOf } from './simulation/topics.js';

type Join = Extract<GroupEvent, { readonly kind: 'join' }>;

export const SESSION_MS: number = 10_000;
export const REBALANCE_MS: number = 30_000;
/** Between two targets, as `target.ts` has it. */
export const INTERVAL_MS: number = 50;

export const A: GroupTopic = { name: 'a', id: topicIdOf(1), partitionCount: 4 };
export const B: GroupTopic = { name: 'b', id: topicIdOf(2), partitionCount: 2 };
export const TOPICS: TopicView = viewOf([A, B]);

export function named(...topics: string[]): Subscription {
  return { topics, pattern: undefined };
}

function partitionOf(short: string): GroupPartition {
  const topic = short.startsWith('a') ? A : B;
  return { topic: topic.name, topicId: topic.id, partition: Number(short.slice(1)) };
}

export function keyOf(short: string): string {
  return partitionKey(partitionOf(short));
}

/** A group, a clock, and members that all want topic a. */
export class Rig {
  state: GroupState;
  nowMs = 1_000;
  readonly #stored = new StoredState();

  constructor() {
    this.state = emptyGroup('group', TOPICS, this.now);
  }

  get now(): GroupNow {
    return { monotonicMs: this.nowMs, wallMs: 1_700_000_000_000 + this.nowMs };
  }

  send(event: GroupEvent): GroupTransition {
    const done = transition(this.state, event, this.now);
    this.state = done.state;
    this.#stored.apply(done.records);
    return done;
  }

  get stored(): { group: StoredGroup | undefined; topics: readonly BegunTopic[]; members: StoredMember[] } {
    const { group, topics } = this.#stored;
    return { group, topics, members: [...this.#stored.members.values()] };
  }

  join(memberId: string, rest: Partial<Join> = {}): GroupTransition {
    return this.send({
      kind: 'join',
      memberId,
      instanceId: undefined,
      clientId: `client of ${memberId}`,
      host: '10.0.0.1',
      subscription: named('a'),
      assignor: undefined,
      sessionTimeoutMs: SESSION_MS,
      rebalanceTimeoutMs: REBALANCE_MS,
      topics: TOPICS,
      maxMembers: 10,
      ...rest,
    });
  }

  /** Holding what it was given, or just these. */
  beat(memberId: string, said: { readonly epoch?: number; readonly owned?: readonly string[] } = {}): GroupTransition {
    const { epoch = this.member(memberId).epoch, owned = this.assigned(memberId) } = said;
    return this.send({
      kind: 'heartbeat',
      memberId,
      epoch,
      owned: new Set(owned.map(keyOf)),
      subscription: undefined,
      topics: TOPICS,
    });
  }

  subscribe(
    memberId: string,
    subscription: Subscription,
    epoch: number = this.member(memberId).epoch,
  ): GroupTransition {
    return this.send({ kind: 'heartbeat', memberId, epoch, owned: new Set(), subscription, topics: TOPICS });
  }

  leave(memberId: string, temporary = false): GroupTransition {
    return this.send({ kind: 'leave', memberId, temporary });
  }

  reset(...partitions: string[]): GroupTransition {
    return this.send({ kind: 'reset', partitions: new Set(partitions.map(keyOf)) });
  }

  changeTopics(...topics: GroupTopic[]): GroupTransition {
    return this.send({ kind: 'topics-changed', topics: viewOf(topics) });
  }

  pass(ms: number): GroupTransition {
    this.nowMs += ms;
    return this.send({ kind: 'tick' });
  }

  /** Until everybody has what it is to have, everybody letting go at once. */
  settle(): void {
    this.pass(INTERVAL_MS);
    for (const memberId of this.state.members.keys()) this.beat(memberId);
    expect(labelOf(this.state)).toBe('stable');
  }

  member(memberId: string): Member {
    return this.state.members.get(memberId)!;
  }

  assigned(memberId: string): string[] {
    return shorts(this.member(memberId).assigned);
  }

  revoking(memberId: string): string[] {
    return shorts(this.member(memberId).revoking);
  }

  /** @returns the reason why the member cannot commit */
  refusal(memberId: string, epoch: number, partition: string): string | undefined {
    return checkCommittable(this.member(memberId), epoch, partitionOf(partition))?.reason;
  }
}

function shorts(held: ReadonlyMap<string, GroupPartition>): string[] {
  return [...held.values()].map(({ topic, partition }) => `${topic}${partition}`).sort();
}

/** Members by id that records are about, and whether the group or its topics are. */
export function recorded({ records }: GroupTransition): string[] {
  return records.map((record) => (record.kind === 'member' ? record.memberId : record.kind));
}
