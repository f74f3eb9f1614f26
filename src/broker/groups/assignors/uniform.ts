/**
 * The uniform assignor: members get as equal a number of partitions as their subscriptions allow, and keep what they have
 * as far as that allows.
 *
 * Members keep what they have and still subscribe to; what is free goes to whoever has least. Members with the same
 * subscription are then made equal among themselves, which is all there is to do in most groups. Between subscriptions,
 * partitions move along chains: from a member with the most, by way of members that pass on one of their own for the one that they get, to one
 * that has at least two less. When no such chain is left, no other assignment is more balanced (the optimality of
 * semi-matchings without cost-reducing paths: Harvey, Ladner, Lovász, Tamir, 2006). Each chain makes the sum of the
 * squares of the numbers smaller, so there is an end to it.
 */
import { assert } from '../../../core/assert.js';
import { partitionKey } from '../../../core/types.js';
import type { PartitionKey, TargetPartition } from '../group-types.js';
import type { AssignorInput, AssignorTopic } from './assignor.js';

/** What the member at the same index has been given so far. */
interface Share {
  /** Numbers of partitions by the index of their topic; no empty lists. */
  readonly byTopic: Map<number, number[]>;
  count: number;
}

/** A partition of `topic` goes from one member to another. All are indexes. */
interface Move {
  readonly from: number;
  readonly to: number;
  readonly topic: number;
}

export function assignUniformly(input: AssignorInput): Map<PartitionKey, TargetPartition> {
  const shares = input.members.map((): Share => ({ byTopic: new Map(), count: 0 }));
  const free = keepCurrent(input, shares);
  placeFree(input.topics, shares, free);
  for (const members of peers(input)) level(members, shares);
  balance(input.topics, shares);
  return toTarget(input, shares);
}

/** @returns partitions by the index of their topic that nobody has, or has no longer */
function keepCurrent({ members, topics, current }: AssignorInput, shares: readonly Share[]): number[][] {
  const indexes = new Map(members.map(({ memberId }, index) => [memberId, index]));
  return topics.map((topic, topicIndex) => {
    const free: number[] = [];
    for (let partition = 0; partition < topic.partitionCount; partition++) {
      const memberId = current.get(partitionKey({ topicId: topic.id, partition }))?.memberId;
      const index = memberId === undefined ? undefined : indexes.get(memberId);
      if (index === undefined || !members[index]!.topics.has(topic.name)) free.push(partition);
      else give(shares[index]!, topicIndex, partition);
    }
    return free;
  });
}

/** Topics with the fewest subscribers go first: for theirs there is the least choice. */
function placeFree(topics: readonly AssignorTopic[], shares: readonly Share[], free: readonly number[][]): void {
  const order = [...topics.keys()].sort((a, b) => topics[a]!.subscribers.length - topics[b]!.subscribers.length);
  for (const topic of order) {
    for (const partition of free[topic]!) {
      give(shares[leastLoaded(topics[topic]!.subscribers, shares)]!, topic, partition);
    }
  }
}

/** @returns indexes of members, those with the same subscription together */
function peers({ members }: AssignorInput): number[][] {
  const bySubscription = new Map<ReadonlySet<string>, number[]>();
  for (const [index, { topics }] of members.entries()) {
    const alike = bySubscription.get(topics);
    if (alike === undefined) bySubscription.set(topics, [index]);
    else alike.push(index);
  }
  return [...bySubscription.values()];
}

/** Moves as few partitions as it takes for the numbers of these members to differ by one at most. */
function level(members: readonly number[], shares: readonly Share[]): void {
  const total = members.reduce((sum, member) => sum + shares[member]!.count, 0);
  const least = Math.floor(total / members.length);
  let withOneMore = total % members.length;
  const surplus: [topic: number, partition: number][] = [];
  for (const member of members) {
    const share = shares[member]!;
    if (share.count <= least) continue;
    const quota = withOneMore > 0 ? least + 1 : least;
    if (withOneMore > 0) withOneMore--;
    for (const taken of takeDownTo(share, quota)) surplus.push(taken);
  }
  for (const [topic, partition] of surplus) give(shares[leastLoaded(members, shares)]!, topic, partition);
}

/** Takes of those topics of which it has most: so each topic stays spread over many members. */
function takeDownTo(share: Share, quota: number): [topic: number, partition: number][] {
  const taken: [number, number][] = [];
  if (share.count <= quota) return taken;
  let height = 0;
  for (const { length } of share.byTopic.values()) height = Math.max(height, length);
  for (; share.count > quota; height--) {
    for (const [topic, partitions] of share.byTopic) {
      if (share.count > quota && partitions.length === height) taken.push([topic, take(share, topic)]);
    }
  }
  return taken;
}

function balance(topics: readonly AssignorTopic[], shares: readonly Share[]): void {
  let open = [...shares.keys()];
  for (;;) {
    const most = open.reduce((highest, member) => Math.max(highest, shares[member]!.count), 0);
    // Nobody can have two less than one.
    if (most < 2) return;
    const search = new ChainSearch(topics, shares, new Set(open));
    const chain = search.from(open.filter((member) => shares[member]!.count === most));
    if (chain === undefined) open = open.filter((member) => !search.reached.has(member));
    else for (const { from, to, topic } of chain) give(shares[to]!, topic, take(shares[from]!, topic));
  }
}

/** Breadth first, so that it finds the chain that moves the fewest partitions. */
class ChainSearch {
  /**
   * Members that were come to. If none of them ends a chain, then nothing of theirs can go to others, and nothing of
   * others need come to them: the others have no more than they. They are done with.
   */
  readonly reached = new Set<number>();
  readonly #topics: readonly AssignorTopic[];
  readonly #shares: readonly Share[];
  /** Members that are not done with. */
  readonly #open: ReadonlySet<number>;
  readonly #seenTopics = new Set<number>();
  readonly #moveTo = new Map<number, Move>();

  constructor(topics: readonly AssignorTopic[], shares: readonly Share[], open: ReadonlySet<number>) {
    this.#topics = topics;
    this.#shares = shares;
    this.#open = open;
  }

  /** @param starts members with equal numbers of partitions */
  from(starts: readonly number[]): Move[] | undefined {
    const mostAtEnd = this.#shares[starts[0]!]!.count - 2;
    const queue = [...starts];
    for (const start of starts) this.reached.add(start);
    // The queue grows while it is gone through.
    for (const member of queue) {
      for (const topic of topicsOf(this.#shares[member]!)) {
        if (this.#seenTopics.has(topic)) continue;
        this.#seenTopics.add(topic);
        const found = this.#reach(member, topic);
        if (found.length === 0) continue;
        const end = leastLoaded(found, this.#shares);
        if (this.#shares[end]!.count <= mostAtEnd) return this.#chainTo(end);
        queue.push(...found);
      }
    }
    return undefined;
  }

  /** @returns members that could take a partition of the topic and were not come to before */
  #reach(from: number, topic: number): number[] {
    const found = this.#topics[topic]!.subscribers.filter((to) => this.#open.has(to) && !this.reached.has(to));
    for (const to of found) {
      this.reached.add(to);
      this.#moveTo.set(to, { from, to, topic });
    }
    return found;
  }

  /** From its end to its start, so that no member passes on what it is only just getting. */
  #chainTo(end: number): Move[] {
    const chain: Move[] = [];
    for (let move = this.#moveTo.get(end); move !== undefined; move = this.#moveTo.get(move.from)) chain.push(move);
    return chain;
  }
}

/** The one of which it has most first, for the same reason; it is the only one that most searches need. */
function* topicsOf({ byTopic }: Share): Generator<number> {
  let [first, most] = [-1, 0];
  for (const [topic, { length }] of byTopic) if (length > most) [first, most] = [topic, length];
  if (first >= 0) yield first;
  yield* byTopic.keys();
}

function leastLoaded(members: readonly number[], shares: readonly Share[]): number {
  let least = members[0]!;
  for (const member of members) if (shares[member]!.count < shares[least]!.count) least = member;
  return least;
}

function give(share: Share, topic: number, partition: number): void {
  const partitions = share.byTopic.get(topic);
  if (partitions === undefined) share.byTopic.set(topic, [partition]);
  else partitions.push(partition);
  share.count++;
}

/** @returns the number of a partition that it had */
function take(share: Share, topic: number): number {
  const partitions = share.byTopic.get(topic);
  const partition = partitions?.pop();
  assert(partitions !== undefined && partition !== undefined, 'a member gives only what it has');
  if (partitions.length === 0) share.byTopic.delete(topic);
  share.count--;
  return partition;
}

function toTarget({ members, topics }: AssignorInput, shares: readonly Share[]): Map<PartitionKey, TargetPartition> {
  const target = new Map<PartitionKey, TargetPartition>();
  for (const [index, { byTopic }] of shares.entries()) {
    const { memberId } = members[index]!;
    for (const [topicIndex, partitions] of byTopic) {
      const { name, id } = topics[topicIndex]!;
      for (const partition of partitions) {
        const key = partitionKey({ topicId: id, partition });
        target.set(key, { memberId, topic: name, topicId: id, partition });
      }
    }
  }
  return target;
}
