/** A process that is a member of the group, by the rules that clients are to keep. */
import type {
  GroupPartition,
  HeldPartition,
  PartitionKey,
  Subscription,
} from '../../../../src/broker/groups/group-types.js';
import { assert } from '../../../../src/core/assert.js';
import { LogError } from '../../../../src/core/errors.js';
import { partitionKey } from '../../../../src/core/types.js';
import type { Assignment, ModelCoordinator } from './coordinator.js';
import type { Believer } from './oracle.js';
import { ANSWER_MS, HEARTBEAT_MS, LONGEST_REBALANCE_MS, LONGEST_SESSION_MS, type World } from './world.js';

interface Holding {
  readonly key: PartitionKey;
  readonly partition: GroupPartition;
  readonly since: number;
  /** The next offset to handle; undefined until the committed one is known. */
  position: number | undefined;
  isBeingLetGo: boolean;
}

const MAX_MEMBERS = 8;

export class ModelMember implements Believer {
  readonly name: string;
  readonly instanceId: string | undefined;
  subscription: Subscription;
  isAlive = false;
  readonly owned: Map<PartitionKey, Holding> = new Map();
  readonly #world: World;
  readonly #coordinator: ModelCoordinator;
  readonly #assignor: 'uniform' | 'range' | undefined;
  readonly #sessionTimeoutMs: number;
  readonly #rebalanceTimeoutMs: number;
  /** Rises when the process ends: what it had going is then of no effect. */
  #life = 0;
  #joins = 0;
  #memberId = '';
  #epoch = 0;
  /** Until then it believes in its membership: from when the last request was sent that was answered. */
  #believesUntilMs = -1;
  #sequence = 0;
  /** The last request that its going on depends on. */
  #asked = 0;
  #pausedUntilMs = 0;

  constructor(world: World, coordinator: ModelCoordinator, name: string, instanceId: string | undefined) {
    this.#world = world;
    this.#coordinator = coordinator;
    this.name = name;
    this.instanceId = instanceId;
    this.subscription = { topics: [], pattern: '*' };
    this.#assignor = world.chance.pick([undefined, undefined, 'uniform', 'range'] as const);
    this.#sessionTimeoutMs = world.chance.between(1_000, LONGEST_SESSION_MS);
    this.#rebalanceTimeoutMs = world.chance.between(500, LONGEST_REBALANCE_MS);
    world.oracle.believers.push(this);
  }

  get isMember(): boolean {
    return this.isAlive && this.#world.timeline.nowMs < this.#believesUntilMs;
  }

  believesIn(key: PartitionKey): boolean {
    return this.isMember && this.owned.has(key);
  }

  start(): void {
    this.isAlive = true;
    this.#pausedUntilMs = 0;
    this.#joinAnew();
  }

  /** The process ends, and nobody is told. */
  crash(): void {
    this.#life++;
    this.isAlive = false;
    this.owned.clear();
  }

  /** Lets everything go and says so; whether anybody hears it is another matter. */
  leave(temporary: boolean): void {
    const memberId = this.#memberId;
    this.crash();
    this.#world.network.send(() => this.#coordinator.leave(memberId, temporary));
  }

  /** The process stands still, and finds on waking whatever has come for it. */
  pause(forMs: number): void {
    this.#pausedUntilMs = this.#world.timeline.nowMs + forMs;
  }

  wake(): void {
    this.#pausedUntilMs = 0;
  }

  /** Handles a record, and commits it now and then. */
  work(): void {
    if (!this.isAlive || this.#isPaused || !this.#checkSession()) return;
    const holding = this.#world.chance.pick([...this.owned.values()]);
    if (holding === undefined) return;
    if (holding.position === undefined) {
      this.#fetchPosition(holding);
      return;
    }
    this.#world.oracle.handles(this, holding.key, holding.position);
    holding.position++;
    if (this.#world.chance.of(0.3)) this.#commit(holding);
  }

  get #isPaused(): boolean {
    return this.#world.timeline.nowMs < this.#pausedUntilMs;
  }

  /** Whether it may go on; if not, it has lost everything and joins anew. */
  #checkSession(): boolean {
    if (this.isMember) return true;
    if (this.#believesUntilMs >= 0) this.#lose();
    return false;
  }

  #lose(): void {
    this.#world.trace?.(`${this.#world.timeline.nowMs} ${this.#memberId} has lost its membership`);
    this.owned.clear();
    this.#joinAnew();
  }

  #joinAnew(): void {
    this.#memberId = `${this.name}.${++this.#joins}`;
    this.#epoch = 0;
    this.#believesUntilMs = -1;
    this.#join();
  }

  #join(): void {
    const asked = this.#ask(ANSWER_MS, () => this.#join());
    const request = {
      kind: 'join',
      memberId: this.#memberId,
      instanceId: this.instanceId,
      clientId: this.name,
      host: 'host',
      subscription: this.subscription,
      assignor: this.#assignor,
      sessionTimeoutMs: this.#sessionTimeoutMs,
      rebalanceTimeoutMs: this.#rebalanceTimeoutMs,
      topics: this.#world.topics.view,
      maxMembers: MAX_MEMBERS,
    } as const;
    const take = this.#answerTo(request.memberId, (outcome) => {
      if (!(outcome instanceof LogError)) this.#goOn(asked, outcome);
      else if (this.#asked === asked) this.#joinLater(outcome);
    });
    this.#world.network.send(() =>
      this.#coordinator.join({ ...request, topics: this.#world.topics.view }, (outcome) => take(outcome)),
    );
  }

  #joinLater(refusal: LogError): void {
    const { reason, retryAfterMs } = refusal;
    assert(
      reason === 'UNRELEASED_INSTANCE_ID' || reason === 'GROUP_MAX_SIZE_REACHED' || reason === 'UNKNOWN_MEMBER_ID',
      reason,
    );
    // It joined, and its session was over before it heard of it.
    if (reason === 'UNKNOWN_MEMBER_ID') this.#joinAnew();
    else this.#ask(retryAfterMs ?? 500, () => this.#join());
  }

  #beat(): void {
    const asked = this.#ask(HEARTBEAT_MS + ANSWER_MS, () => this.#beat());
    const request = {
      kind: 'heartbeat',
      memberId: this.#memberId,
      epoch: this.#epoch,
      owned: new Set(this.owned.keys()),
      subscription: this.subscription,
    } as const;
    const take = this.#answerTo(request.memberId, (outcome) => {
      if (!(outcome instanceof LogError)) this.#goOn(asked, outcome);
      else this.#takeRefusal(outcome);
    });
    this.#world.network.send(() =>
      this.#coordinator.heartbeat({ ...request, topics: this.#world.topics.view }, (outcome) => take(outcome)),
    );
  }

  /** @returns what brings an answer over the network to the member, if it is still the one that asked */
  #answerTo(
    memberId: string,
    take: (outcome: Assignment | LogError) => void,
  ): (outcome: Assignment | LogError) => void {
    const { timeline, network } = this.#world;
    const sentMs = timeline.nowMs;
    const believe = (): void => {
      this.#believesUntilMs = Math.max(this.#believesUntilMs, sentMs + this.#sessionTimeoutMs);
    };
    const arrive = this.#whenAwake((outcome: Assignment | LogError) => {
      if (memberId !== this.#memberId) return;
      if (this.#believesUntilMs >= 0 && !this.#checkSession()) return;
      if (!(outcome instanceof LogError)) believe();
      if (outcome instanceof LogError || this.#checkSession()) take(outcome);
    });
    return (outcome) => network.send(() => arrive(outcome));
  }

  #goOn(asked: number, assignment: Assignment): void {
    this.#apply(assignment);
    if (this.#asked === asked) this.#ask(this.#world.chance.between(0, 20), () => this.#beat());
  }

  #takeRefusal({ reason }: LogError): void {
    assert(reason === 'UNKNOWN_MEMBER_ID', `a member that keeps the rules is answered ${reason}`);
    this.#lose();
  }

  #apply({ epoch, assigned }: Assignment): void {
    // An answer that others have overtaken.
    if (epoch <= this.#epoch) return;
    this.#epoch = epoch;
    for (const held of assigned) this.#hold(held);
    const keys = new Set(assigned.map(partitionKey));
    for (const holding of this.owned.values()) {
      if (!keys.has(holding.key) && !holding.isBeingLetGo) this.#letGoLater(holding);
    }
  }

  #hold({ topic, topicId, partition, since }: HeldPartition): void {
    const key = partitionKey({ topicId, partition });
    const before = this.owned.get(key);
    if (before?.since === since) return;
    assert(before === undefined || before.since < since, `${this.#memberId} is given ${key} once more`);
    const holding = { key, partition: { topic, topicId, partition }, since, position: undefined, isBeingLetGo: false };
    this.#world.oracle.gains(this, key);
    this.owned.set(key, holding);
    this.#fetchPosition(holding);
  }

  #letGoLater(holding: Holding): void {
    holding.isBeingLetGo = true;
    const { chance, network } = this.#world;
    const isSlow = !network.isCalm && chance.of(0.1);
    this.#later(isSlow ? chance.between(0, 2 * LONGEST_REBALANCE_MS) : chance.between(0, 20), () => {
      if (!this.#checkSession() || this.owned.get(holding.key) !== holding) return;
      if (holding.position !== undefined && chance.of(0.8)) this.#commit(holding);
      this.owned.delete(holding.key);
      this.#beat();
    });
  }

  #fetchPosition(holding: Holding): void {
    const { network, oracle } = this.#world;
    const take = this.#whenAwake((offset: number) => {
      if (holding.position !== undefined || this.owned.get(holding.key) !== holding) return;
      assert(
        offset <= oracle.handledUpTo(holding.key),
        `${this.name} begins with ${holding.key} at ${offset}, and skips`,
      );
      holding.position = offset;
    });
    network.send(() => this.#coordinator.fetchOffset(holding.key, (offset) => network.send(() => take(offset))));
  }

  #commit({ partition, position, since }: Holding): void {
    const { network } = this.#world;
    const memberId = this.#memberId;
    const commit = { memberId, epoch: this.#epoch, sequence: ++this.#sequence, partition, offset: position!, since };
    const life = this.#coordinator.life;
    const take = this.#whenAwake((outcome: LogError | undefined) => {
      if (outcome?.reason === 'UNKNOWN_MEMBER_ID' && memberId === this.#memberId) this.#lose();
    });
    network.send(() => this.#coordinator.commit(life, commit, (outcome) => network.send(() => take(outcome))));
  }

  /** Makes this the request, or the wait, that its going on depends on. */
  #ask(giveUpMs: number, otherwise: () => void): number {
    const asked = ++this.#asked;
    this.#later(giveUpMs, () => {
      if (this.#asked === asked && (this.#believesUntilMs < 0 || this.#checkSession())) otherwise();
    });
    return asked;
  }

  #later(delayMs: number, run: () => void): void {
    this.#world.timeline.after(delayMs, this.#whenAwake(run));
  }

  /** Of no effect once the process has ended; put off while it stands still. */
  #whenAwake<A extends unknown[]>(run: (...given: A) => void): (...given: A) => void {
    const life = this.#life;
    const attempt = (...given: A): void => {
      if (life !== this.#life) return;
      if (this.#isPaused)
        this.#world.timeline.after(this.#pausedUntilMs - this.#world.timeline.nowMs, () => attempt(...given));
      else run(...given);
    };
    return attempt;
  }
}
