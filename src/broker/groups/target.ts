/** Who is to hold what in the end: worked out from what members subscribe to, but not more often than is useful. */

import type { TopicId } from '../../core/types.js';
import type { Assignor, AssignorMember, AssignorTopic } from './assignors/assignor.js';
import { assignRange } from './assignors/range.js';
import { assignUniformly } from './assignors/uniform.js';
import type { Draft } from './draft.js';
import type { AssignorName, BegunTopic, GroupTopic, Member, Subscription, TopicView } from './group-types.js';
import { grantFreed, reconcile } from './reconcile.js';

/** Several members that come or go together make one new target, not one each. */
const TARGET_INTERVAL_MS = 50;

const ASSIGNORS: Readonly<Record<AssignorName, Assignor>> = { uniform: assignUniformly, range: assignRange };

/** Has the target worked out anew: at once, unless that was done just now. */
export function requestTarget(draft: Draft): void {
  draft.targetDueMs ??= Math.max(draft.now.monotonicMs, draft.targetMadeMs + TARGET_INTERVAL_MS);
}

/** Goes as far towards the target as can be gone, after working it out if it is due. */
export function settle(draft: Draft): void {
  const isDue = draft.targetDueMs !== undefined && draft.targetDueMs <= draft.now.monotonicMs;
  if (!isDue) {
    grantFreed(draft);
    return;
  }
  makeTarget(draft);
  reconcile(draft);
}

function makeTarget(draft: Draft): void {
  const members = [...draft.members.values()].sort(byInstanceThenId);
  draft.assignor = preferredAssignor(members);
  const subscribed = subscribedTopics(members, draft.topics);
  draft.target = ASSIGNORS[draft.assignor]({ ...subscribed, current: draft.target });
  draft.begun = withBegun(draft.begun, subscribed.topics, draft.topics);
  draft.targetDueMs = undefined;
  draft.targetMadeMs = draft.now.monotonicMs;
}

/** With topics that are new to the group, without those that are gone; the map itself when there are none of either. */
function withBegun(
  begun: ReadonlyMap<TopicId, BegunTopic>,
  subscribed: readonly GroupTopic[],
  topics: TopicView,
): ReadonlyMap<TopicId, BegunTopic> {
  const added = subscribed.filter(({ id }) => !begun.has(id));
  const kept = [...begun].filter(([id, { name }]) => topics.get(name)?.id === id);
  if (added.length === 0 && kept.length === begun.size) return begun;
  const addedNow = added.map(({ id, name, partitionCount }): [TopicId, BegunTopic] => [
    id,
    { id, name, partitionCount },
  ]);
  return new Map([...kept, ...addedNow]);
}

/** Goes on with these topics; the target is made anew if that matters to what members subscribe to. */
export function adoptTopics(draft: Draft, topics: TopicView): void {
  const before = draft.topics;
  if (before === topics) return;
  draft.topics = topics;
  const subscriptions = distinct([...draft.members.values()].map((member) => member.subscription));
  if (subscriptions.some((subscription) => isOther(subscription, before, topics))) requestTarget(draft);
}

export function isSameSubscription(a: Subscription, b: Subscription): boolean {
  if (a === b) return true;
  if (a.pattern !== b.pattern || a.topics.length !== b.topics.length) return false;
  const names = new Set(a.topics);
  return b.topics.every((name) => names.has(name));
}

/** What most members want; uniform when as many want the other, or none wants anything. */
function preferredAssignor(members: readonly Member[]): AssignorName {
  const votesFor = (name: AssignorName): number => members.filter(({ assignor }) => assignor === name).length;
  return votesFor('range') > votesFor('uniform') ? 'range' : 'uniform';
}

/** The order in which assignors serve members. Static ones go by a name that a restart does not change. */
function byInstanceThenId(a: Member, b: Member): number {
  if (a.instanceId !== undefined && b.instanceId !== undefined) return compare(a.instanceId, b.instanceId);
  if (a.instanceId !== undefined) return -1;
  return b.instanceId !== undefined ? 1 : compare(a.memberId, b.memberId);
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** Members by index, with equal subscriptions sharing one set, and the topics that anybody subscribes to, by name. */
export function subscribedTopics(
  members: readonly Pick<Member, 'memberId' | 'subscription'>[],
  topics: TopicView,
): { members: AssignorMember[]; topics: AssignorTopic[] } {
  const namesOf = new Map<string, ReadonlySet<string>>();
  const subscribed = members.map(({ memberId, subscription }): AssignorMember => {
    const key = subscriptionKey(subscription);
    const names = namesOf.get(key) ?? namesIn(subscription, topics);
    namesOf.set(key, names);
    return { memberId, topics: names };
  });
  const found = [...new Set([...namesOf.values()].flatMap((names) => [...names]))]
    .sort()
    .map((name) => topics.get(name))
    .filter((topic) => topic !== undefined);
  return { members: subscribed, topics: withSubscribers(found, subscribed, [...namesOf.values()]) };
}

/** Topics that the same subscriptions have share one list of subscribers: a thousand topics of 500 members need not be long. */
function withSubscribers(
  topics: readonly GroupTopic[],
  members: readonly AssignorMember[],
  nameSets: readonly ReadonlySet<string>[],
): AssignorTopic[] {
  const lists = new Map<string, readonly number[]>();
  return topics.map((topic) => {
    const key = nameSets.map((names) => (names.has(topic.name) ? '1' : '0')).join('');
    const known = lists.get(key);
    if (known !== undefined) return { ...topic, subscribers: known };
    const subscribers = [...members.keys()].filter((index) => members[index]!.topics.has(topic.name));
    lists.set(key, subscribers);
    return { ...topic, subscribers };
  });
}

function namesIn({ topics: names, pattern }: Subscription, topics: TopicView): ReadonlySet<string> {
  return pattern === undefined ? new Set(names) : topics.matching(pattern);
}

function subscriptionKey({ topics, pattern }: Subscription): string {
  return pattern === undefined ? JSON.stringify(topics) : pattern;
}

function distinct(subscriptions: readonly Subscription[]): Subscription[] {
  return [...new Map(subscriptions.map((subscription) => [subscriptionKey(subscription), subscription])).values()];
}

/** Whether the subscription means other partitions in one of the views than in the other. */
function isOther(subscription: Subscription, before: TopicView, after: TopicView): boolean {
  const names = new Set([...namesIn(subscription, before), ...namesIn(subscription, after)]);
  const isIn = (view: TopicView, name: string): GroupTopic | undefined =>
    namesIn(subscription, view).has(name) ? view.get(name) : undefined;
  return [...names].some((name) => !isSameTopic(isIn(before, name), isIn(after, name)));
}

function isSameTopic(a: GroupTopic | undefined, b: GroupTopic | undefined): boolean {
  return a?.id === b?.id && a?.partitionCount === b?.partitionCount;
}
