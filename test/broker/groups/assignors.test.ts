import { describe, expect, test } from 'vitest';
import type { Assignor } from '../../../src/broker/groups/assignors/assignor.js';
import { assignRange } from '../../../src/broker/groups/assignors/range.js';
import { assignUniformly } from '../../../src/broker/groups/assignors/uniform.js';
import type { GroupTopic, PartitionKey, TargetPartition } from '../../../src/broker/groups/group-types.js';
import { subscribedTopics } from '../../../src/broker/groups/target.js';
import { partitionKey } from '../../../src/core/types.js';
import { fc } from '../../support/properties.js';
import { topicIdOf, viewOf } from './simulation/topics.js';

type Target = ReadonlyMap<PartitionKey, TargetPartition>;

/** Names of topics by the id of the member that subscribes to them; members are served in this order. */
type Subscriptions = Readonly<Record<string, readonly string[]>>;

const NOTHING: Target = new Map();

function topicsOf(counts: Readonly<Record<string, number>>): GroupTopic[] {
  return Object.entries(counts).map(([name, partitionCount], number) => ({
    name,
    id: topicIdOf(number),
    partitionCount,
  }));
}

function assign(
  assignor: Assignor,
  topics: readonly GroupTopic[],
  subscriptions: Subscriptions,
  current: Target = NOTHING,
): Target {
  const members = Object.entries(subscriptions).map(([memberId, names]) => ({
    memberId,
    subscription: { topics: names, pattern: undefined },
  }));
  return assignor({ ...subscribedTopics(members, viewOf(topics)), current });
}

/** Everybody subscribes to everything. */
function alike(memberCount: number, topics: readonly GroupTopic[]): Record<string, string[]> {
  const names = topics.map(({ name }) => name);
  return Object.fromEntries(Array.from({ length: memberCount }, (_, number) => [`m${number}`, names]));
}

function without(subscriptions: Subscriptions, memberId: string): Subscriptions {
  return Object.fromEntries(Object.entries(subscriptions).filter(([id]) => id !== memberId));
}

/** Like `a0 a1 b0`, by member. */
function shown(target: Target): Record<string, string> {
  const shares = new Map<string, string[]>();
  for (const { memberId, topic, partition } of target.values()) {
    shares.set(memberId, [...(shares.get(memberId) ?? []), `${topic}${partition}`].sort());
  }
  return Object.fromEntries([...shares].map(([memberId, partitions]) => [memberId, partitions.join(' ')]));
}

function loads(target: Target, subscriptions: Subscriptions): number[] {
  const owners = [...target.values()].map(({ memberId }) => memberId);
  return Object.keys(subscriptions).map((memberId) => owners.filter((owner) => owner === memberId).length);
}

/** How many partitions of `before` are with another member in `after`. */
function moves(before: Target, after: Target): number {
  return [...before].filter(([key, { memberId }]) => after.get(key)?.memberId !== memberId).length;
}

function expectEachOnceToASubscriber(
  target: Target,
  topics: readonly GroupTopic[],
  subscriptions: Subscriptions,
): void {
  const expected = topics
    .filter(({ name }) => Object.values(subscriptions).some((names) => names.includes(name)))
    .flatMap(({ id, partitionCount }) =>
      Array.from({ length: partitionCount }, (_, partition) => partitionKey({ topicId: id, partition })),
    );
  expect([...target.keys()].sort()).toEqual(expected.sort());
  for (const { memberId, topic } of target.values()) expect(subscriptions[memberId]).toContain(topic);
}

const topicCounts = fc
  .array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 5 })
  .map((counts) => topicsOf(Object.fromEntries(counts.map((count, number) => [`t${number}`, count]))));

/** Any subscriptions of up to seven members, also to what does not exist. */
const mixed = fc
  .array(fc.subarray(['t0', 't1', 't2', 't3', 't4', 't5'], { minLength: 1 }), { minLength: 1, maxLength: 7 })
  .map((lists): Subscriptions => Object.fromEntries(lists.map((names, number) => [`m${number}`, names])));

/** What was worked out for other members and other topics, some of which are gone. */
const anyCurrent = fc.array(fc.tuple(fc.nat(6), fc.nat(13), fc.nat(8))).map((entries): Target => {
  const partitions = entries.map(([topic, partition, member]): TargetPartition => {
    return { memberId: `m${member}`, topic: `t${topic}`, topicId: topicIdOf(topic), partition };
  });
  return new Map(partitions.map((one) => [partitionKey(one), one]));
});

describe.each([
  ['uniform', assignUniformly],
  ['range', assignRange],
] as const)('the %s assignor', (_, assignor) => {
  test('gives each partition to exactly one member that subscribes to it, whatever was before (invariant 10)', () => {
    fc.assert(
      fc.property(topicCounts, mixed, anyCurrent, (topics, subscriptions, current) => {
        const target = assign(assignor, topics, subscriptions, current);
        expectEachOnceToASubscriber(target, topics, subscriptions);
      }),
    );
  });

  test('gives the same for the same', () => {
    fc.assert(
      fc.property(topicCounts, mixed, anyCurrent, (topics, subscriptions, current) => {
        const target = assign(assignor, topics, subscriptions, current);
        expect(assign(assignor, topics, subscriptions, current)).toEqual(target);
      }),
    );
  });
});

describe('the uniform assignor', () => {
  test('gives members with the same subscription numbers that differ by one at most', () => {
    fc.assert(
      fc.property(topicCounts, fc.integer({ min: 1, max: 9 }), anyCurrent, (topics, memberCount, current) => {
        const subscriptions = alike(memberCount, topics);
        const counts = loads(assign(assignUniformly, topics, subscriptions, current), subscriptions);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('changes nothing of what it has made, as long as members and topics stay the same', () => {
    fc.assert(
      fc.property(topicCounts, mixed, anyCurrent, (topics, subscriptions, current) => {
        const before = assign(assignUniformly, topics, subscriptions, current);
        expect(moves(before, assign(assignUniformly, topics, subscriptions, before))).toBe(0);
      }),
    );
  });

  test('moves only what a member had when it leaves', () => {
    fc.assert(
      fc.property(topicCounts, fc.integer({ min: 2, max: 9 }), fc.nat(), (topics, memberCount, pick) => {
        const subscriptions = alike(memberCount, topics);
        const gone = `m${pick % memberCount}`;
        const before = assign(assignUniformly, topics, subscriptions);
        const after = assign(assignUniformly, topics, without(subscriptions, gone), before);
        const had = [...before.values()].filter(({ memberId }) => memberId === gone).length;
        expect(moves(before, after)).toBe(had);
      }),
    );
  });

  test('moves no more than a new member gets', () => {
    fc.assert(
      fc.property(topicCounts, fc.integer({ min: 1, max: 9 }), (topics, memberCount) => {
        const before = assign(assignUniformly, topics, alike(memberCount, topics));
        const after = assign(assignUniformly, topics, alike(memberCount + 1, topics), before);
        expect(moves(before, after)).toBeLessThanOrEqual(Math.ceil(before.size / (memberCount + 1)));
        expect(moves(before, after)).toBe(
          [...after.values()].filter(({ memberId }) => memberId === `m${memberCount}`).length,
        );
      }),
    );
  });

  test('leaves no way to even out members whose subscriptions differ, not even by way of others', () => {
    fc.assert(
      fc.property(topicCounts, mixed, anyCurrent, (topics, subscriptions, current) => {
        const target = assign(assignUniformly, topics, subscriptions, current);
        expect(loads(target, subscriptions).sort()).toEqual(leastUneven(topics, subscriptions).sort());
      }),
    );
  });

  test('passes partitions on by way of a member in between', () => {
    const topics = topicsOf({ a: 4, b: 2 });
    const subscriptions = { m0: ['a'], m1: ['a', 'b'], m2: ['b'] };
    const current = assign(assignUniformly, topics, { m0: ['a'], m1: ['b'] });
    expect(loads(assign(assignUniformly, topics, subscriptions, current), subscriptions)).toEqual([2, 2, 2]);
  });

  test('spreads each topic over the members', () => {
    const topics = topicsOf({ a: 12, b: 12 });
    const before = assign(assignUniformly, topics, alike(3, topics));
    expect(shown(before)).toMatchObject({ m0: 'a0 a3 a6 a9 b0 b3 b6 b9' });
    const after = assign(assignUniformly, topics, alike(4, topics), before);
    const ofNew = [...after.values()].filter(({ memberId }) => memberId === 'm3').map(({ topic }) => topic);
    expect(ofNew.sort()).toEqual(['a', 'a', 'a', 'b', 'b', 'b']);
  });

  test('takes back what a member no longer subscribes to', () => {
    const topics = topicsOf({ a: 2, b: 2 });
    const before = assign(assignUniformly, topics, { m0: ['a', 'b'], m1: ['a', 'b'] });
    expect(shown(assign(assignUniformly, topics, { m0: ['a'], m1: ['a', 'b'] }, before))).toEqual({
      m0: 'a0 a1',
      m1: 'b0 b1',
    });
  });

  test('works out 500 members and 20,000 partitions in a fraction of a second', () => {
    const topics = topicsOf(Object.fromEntries(Array.from({ length: 20 }, (_, number) => [`t${number}`, 1_000])));
    const alone = assign(assignUniformly, topics, alike(1, topics));
    const startMs = performance.now();
    const target = assign(assignUniformly, topics, alike(500, topics), alone);
    expect(performance.now() - startMs).toBeLessThan(1_000);
    expect(new Set(loads(target, { m0: [], m499: [] }))).toEqual(new Set([40]));
  });
});

describe('the range assignor', () => {
  test('gives runs of neighbours, the first members one more', () => {
    const topics = topicsOf({ a: 7 });
    expect(shown(assign(assignRange, topics, alike(3, topics)))).toEqual({ m0: 'a0 a1 a2', m1: 'a3 a4', m2: 'a5 a6' });
  });

  test('gives a member the same numbers of topics that have as many partitions', () => {
    const topics = topicsOf({ a: 5, b: 5 });
    expect(shown(assign(assignRange, topics, alike(2, topics)))).toEqual({
      m0: 'a0 a1 a2 b0 b1 b2',
      m1: 'a3 a4 b3 b4',
    });
  });

  test('counts only the subscribers of a topic', () => {
    const topics = topicsOf({ a: 2, b: 2 });
    expect(shown(assign(assignRange, topics, { m0: ['a'], m1: ['a', 'b'] }))).toEqual({ m0: 'a0', m1: 'a1 b0 b1' });
  });

  test('leaves members without where there are more of them than partitions', () => {
    const topics = topicsOf({ a: 2 });
    expect(shown(assign(assignRange, topics, alike(4, topics)))).toEqual({ m0: 'a0', m1: 'a1' });
  });
});

/**
 * The most even numbers that there can be, by the definition: partition by partition, each time along the shortest way
 * of passing on from whoever can take one (augmenting paths, for the least load at its end).
 */
function leastUneven(topics: readonly GroupTopic[], subscriptions: Subscriptions): number[] {
  const members = Object.keys(subscriptions);
  const names = new Set(Object.values(subscriptions).flat());
  const units = topics
    .filter(({ name }) => names.has(name))
    .flatMap(({ name, partitionCount }) => Array.from({ length: partitionCount }, () => name));
  const held = new Map<string, string[]>(members.map((memberId) => [memberId, []]));
  for (const name of units) placeBest(name, held, subscriptions);
  return members.map((memberId) => held.get(memberId)!.length);
}

function placeBest(name: string, held: Map<string, string[]>, subscriptions: Subscriptions): void {
  const cameFrom = new Map<string, { readonly giver: string | undefined; readonly name: string }>();
  const queue: string[] = [];
  const reach = (one: string, giver: string | undefined): void => {
    for (const [memberId, list] of Object.entries(subscriptions)) {
      if (cameFrom.has(memberId) || !list.includes(one)) continue;
      cameFrom.set(memberId, { giver, name: one });
      queue.push(memberId);
    }
  };
  reach(name, undefined);
  for (const memberId of queue) for (const one of new Set(held.get(memberId))) reach(one, memberId);
  const end = queue.reduce((least, one) => (held.get(one)!.length < held.get(least)!.length ? one : least));
  for (let taker: string | undefined = end; taker !== undefined; ) {
    const step: { readonly giver: string | undefined; readonly name: string } = cameFrom.get(taker)!;
    held.get(taker)!.push(step.name);
    if (step.giver !== undefined) held.get(step.giver)!.splice(held.get(step.giver)!.indexOf(step.name), 1);
    taker = step.giver;
  }
}
