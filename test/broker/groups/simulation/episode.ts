/** One run of a simulated group: things go wrong for a while, then no more, and then all must be well. */
import { labelOf } from '../../../../src/broker/groups/group.js';
import type { GroupTopic, PartitionKey, Subscription } from '../../../../src/broker/groups/group-types.js';
import { assert } from '../../../../src/core/assert.js';
import { partitionKey } from '../../../../src/core/types.js';
import { Chance } from './chance.js';
import { ModelCoordinator } from './coordinator.js';
import { ModelMember } from './member.js';
import { Network } from './network.js';
import { Oracle } from './oracle.js';
import { Timeline } from './timeline.js';
import { ModelTopics, namesOf } from './topics.js';
import { ANSWER_MS, HEARTBEAT_MS, LONGEST_REBALANCE_MS, LONGEST_SESSION_MS, type World } from './world.js';

const NAMES = ['a0', 'a1', 'b0', 'c0'];
/** For an instance id, as `join.ts` has it. */
const CLAIM_MS = 5_000;
/** Some messages are delayed beyond any session. */
const FAULTS = { lost: 0.03, doubled: 0.06, usual: 0.85, usualMs: 15, slowMs: 500, longestMs: 5_000 };
/** Until everything from before a calm has arrived, and what that made of dead members is over. */
const CALM_MS =
  FAULTS.longestMs + LONGEST_SESSION_MS + CLAIM_MS + LONGEST_REBALANCE_MS + 2 * (HEARTBEAT_MS + ANSWER_MS);

export class Episode {
  readonly #world: World;
  readonly #coordinator: ModelCoordinator;
  readonly #members: ModelMember[] = [];
  #isStormy = true;

  constructor(seed: number, trace: ((line: string) => void) | undefined) {
    const [timeline, chance] = [new Timeline(), new Chance(seed)];
    const network = new Network(timeline, chance, FAULTS);
    this.#world = { timeline, chance, network, topics: new ModelTopics(), oracle: new Oracle(), trace };
    for (const name of NAMES.slice(0, 3)) this.#world.topics.create(name, chance.between(1, 5));
    this.#coordinator = new ModelCoordinator(this.#world);
    for (let number = chance.between(2, 6); number > 0; number--)
      this.#addMember(chance.of(0.4) ? `i${number}` : undefined);
    for (const member of this.#members) member.start();
    this.#repeat(5, 40, () => this.#chance.pick(this.#members)!.work());
    this.#repeat(10, 150, () => this.#disturb());
  }

  /** @throws what was broken, once it is */
  run(steps: number): void {
    while (this.#world.timeline.steps < steps) this.#world.timeline.step();
    this.#calmDown();
    this.#world.timeline.runUntil(this.#world.timeline.nowMs + CALM_MS);
    this.#checkConvergence();
    this.#changeOnce();
    // The one that is held is answered with the news, the next says what was let go, the one after that brings the rest.
    this.#world.timeline.runUntil(this.#world.timeline.nowMs + 2 * HEARTBEAT_MS);
    this.#checkConvergence();
  }

  get #chance(): Chance {
    return this.#world.chance;
  }

  #repeat(least: number, most: number, act: () => void): void {
    this.#world.timeline.after(this.#chance.between(least, most), () => {
      act();
      this.#repeat(least, most, act);
    });
  }

  #addMember(instanceId: string | undefined): ModelMember {
    const member = new ModelMember(this.#world, this.#coordinator, `m${this.#members.length}`, instanceId);
    member.subscription = this.#someSubscription();
    this.#members.push(member);
    return member;
  }

  #someSubscription(): Subscription {
    if (this.#chance.of(0.4)) return { topics: [], pattern: this.#chance.pick(['*', 'a*', 'b*'])! };
    const topics = NAMES.filter(() => this.#chance.of(0.6));
    return { topics: topics.length === 0 ? ['a0'] : topics, pattern: undefined };
  }

  #disturb(): void {
    if (!this.#isStormy) return;
    const member = this.#chance.pick(this.#members)!;
    const kind = this.#chance.below(100);
    if (!member.isAlive) {
      if (kind < 50) member.start();
    } else if (kind < 12) member.crash();
    else if (kind < 24) member.leave(this.#chance.of(0.5));
    else if (kind < 40) member.pause(this.#chance.between(1, this.#chance.of(0.7) ? 500 : 2 * LONGEST_SESSION_MS));
    else if (kind < 50) member.subscription = this.#someSubscription();
    else if (kind < 55) this.#replace(member);
    else if (kind < 70) this.#changeTopics();
    else if (kind < 80) this.#reset();
    else if (kind < 85) this.#restartCoordinator();
  }

  /** A static member is started a second time, as if the first were lost; it is not, and finds out later. */
  #replace(member: ModelMember): void {
    if (member.instanceId === undefined || this.#members.length > 8) return;
    member.pause(this.#chance.between(1, 2 * LONGEST_SESSION_MS));
    this.#addMember(member.instanceId).start();
  }

  #changeTopics(): void {
    const { topics } = this.#world;
    const name = this.#chance.pick(NAMES)!;
    const topic = topics.view.get(name);
    const kind = this.#chance.below(5);
    if (topic === undefined || kind === 0) topics.create(name, this.#chance.between(1, 5));
    else if (kind === 1) topics.delete(name);
    else if (topic.partitionCount < 8) topics.grow(topic, this.#chance.between(1, 2));
    this.#tellOfTopics();
  }

  #tellOfTopics(): void {
    this.#world.timeline.after(this.#chance.between(0, 50), () => this.#coordinator.topicsChanged());
  }

  #reset(): void {
    const topic = this.#chance.pick(this.#world.topics.all);
    if (topic === undefined) return;
    const offsets = new Map<PartitionKey, number>();
    for (const key of keysOf(topic)) {
      if (this.#chance.of(0.5)) offsets.set(key, this.#chance.below(this.#coordinator.committedOffset(key) + 5));
    }
    if (offsets.size > 0) this.#coordinator.reset(offsets);
  }

  #restartCoordinator(): void {
    this.#coordinator.crash();
    const downMs = this.#chance.of(0.8) ? this.#chance.between(1, 200) : this.#chance.between(1, LONGEST_SESSION_MS);
    this.#world.timeline.after(downMs, () => this.#coordinator.restart());
  }

  #calmDown(): void {
    this.#isStormy = false;
    this.#world.network.isCalm = true;
    this.#coordinator.restart();
    this.#coordinator.topicsChanged();
    const instances = new Set<string>();
    for (const member of this.#members) {
      member.wake();
      if (member.instanceId !== undefined && instances.has(member.instanceId)) member.crash();
      if (member.isAlive && member.instanceId !== undefined) instances.add(member.instanceId);
    }
    if (!this.#members.some(({ isAlive }) => isAlive)) this.#members[0]!.start();
    this.#world.trace?.(`${this.#world.timeline.nowMs} calm`);
  }

  /** In the calm, so that it can be told how long it takes. */
  #changeOnce(): void {
    const alive = this.#members.filter(({ isAlive }) => isAlive);
    const dead = this.#members.find((one) => !one.isAlive && !alive.some((other) => isSameInstance(one, other)));
    if (this.#chance.of(0.4) && alive.length > 1) this.#chance.pick(alive)!.leave(false);
    else if (this.#chance.of(0.6) && dead !== undefined) dead.start();
    else this.#world.topics.create('c0', 7);
    this.#coordinator.topicsChanged();
  }

  #checkConvergence(): void {
    const { state } = this.#coordinator;
    const alive = this.#members.filter(({ isAlive }) => isAlive);
    assert(state.members.size === alive.length, `${alive.length} processes are ${state.members.size} members`);
    assert(
      alive.every(({ isMember }) => isMember),
      'each process is a member',
    );
    assert(['stable', 'empty'].includes(labelOf(state)), `the group is ${labelOf(state)}`);
    for (const topic of this.#world.topics.all) this.#checkOwners(topic, alive);
    if (state.assignor === 'uniform') this.#checkBalance(alive);
  }

  #checkOwners(topic: GroupTopic, alive: readonly ModelMember[]): void {
    const subscribers = alive.filter((member) => this.#subscribes(member, topic.name));
    for (const key of keysOf(topic)) {
      const owners = alive.filter((member) => member.owned.has(key));
      assert(owners.length === Math.min(1, subscribers.length), `${key} has ${owners.length} owners`);
      assert(
        owners.every((owner) => subscribers.includes(owner)),
        `${key} has an owner that wants it`,
      );
    }
  }

  /** Nobody can be given a partition by one that has at least two more. */
  #checkBalance(alive: readonly ModelMember[]): void {
    for (const giver of alive) {
      const names = new Set([...giver.owned.values()].map(({ partition }) => partition.topic));
      for (const taker of alive.filter(({ owned }) => owned.size + 2 <= giver.owned.size)) {
        const name = [...names].find((one) => this.#subscribes(taker, one));
        assert(name === undefined, `${giver.name} could give ${taker.name} a partition of ${name}`);
      }
    }
  }

  #subscribes(member: ModelMember, name: string): boolean {
    return namesOf(member.subscription, this.#world.topics.view).has(name);
  }
}

function isSameInstance(a: ModelMember, b: ModelMember): boolean {
  return a.instanceId !== undefined && a.instanceId === b.instanceId;
}

function keysOf({ id, partitionCount }: GroupTopic): PartitionKey[] {
  return Array.from({ length: partitionCount }, (_, partition) => partitionKey({ topicId: id, partition }));
}
