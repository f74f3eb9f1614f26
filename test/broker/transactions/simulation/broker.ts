/** A broker that answers clients, and may stop between any two steps. */

import { isNew, recordOf } from '../../../../src/broker/transactions/transaction.js';
import type { TransactionState } from '../../../../src/broker/transactions/transaction-types.js';
import {
  isSameIdentity,
  LAST_EPOCH,
  type TransactionOutcome,
} from '../../../../src/broker/transactions/transaction-types.js';
import { type Entry, ModelCoordinator } from './coordinator.js';
import type { Defect } from './defects.js';
import { ModelGroup } from './group.js';
import { type Disk, Life } from './life.js';
import { ModelPartition } from './partition.js';
import { recover } from './recovery.js';
import { StateLog } from './state-log.js';
import { type Answer, GROUPS, PLACES, type Reply, type Request, refusal, type World } from './world.js';

type RequestOf<Kind extends Request['kind']> = Extract<Request, { kind: Kind }>;

type Stop = 'clean' | 'killed' | 'power lost';

export class ModelBroker {
  readonly disk: Disk;
  readonly #world: World;
  #life: Life;
  /** While it is up. */
  #coordinator: ModelCoordinator | undefined;
  #isLoaded = false;
  #upSinceMs = 0;
  #upBeforeMs = 0;

  constructor(world: World) {
    this.#world = world;
    this.disk = {
      partitions: PLACES.map((_, index) => new ModelPartition(world, index)),
      groups: GROUPS.map((groupId) => new ModelGroup(world, groupId)),
      log: new StateLog(world),
      nextProducerId: 0,
    };
    this.#life = new Life(world, () => undefined);
    world.oracle.upMs = () => this.#upBeforeMs + (this.isUp ? world.timeline.nowMs - this.#upSinceMs : 0);
  }

  get isUp(): boolean {
    return this.#coordinator !== undefined;
  }

  get states(): readonly TransactionState[] {
    return this.#coordinator?.states ?? [];
  }

  /** An id with few epochs left. */
  seed(transactionalId: string): void {
    const producerEpoch = LAST_EPOCH - this.#world.chance.between(0, 5);
    const record = {
      status: 'empty' as const,
      identity: { producerId: this.disk.nextProducerId++, producerEpoch },
      previous: undefined,
      next: undefined,
      cause: undefined,
      timeoutMs: 1,
      startMs: undefined,
      updateMs: 0,
      partitions: [],
      groupIds: [],
    };
    this.disk.log.write(transactionalId, record, () => undefined);
  }

  start(isClean: boolean): void {
    this.#isLoaded = false;
    this.#upSinceMs = this.#world.timeline.nowMs;
    this.#life = new Life(this.#world, () => this.stopForAWhile());
    const isSuspect = !isClean && !this.#has('a restart forgets that something may be missing');
    const coordinator = new ModelCoordinator(this.#world, this.disk, this.#life, isSuspect);
    this.#coordinator = coordinator;
    this.#life.later(() =>
      recover(this.#world, this.disk, coordinator, () => {
        this.#isLoaded = true;
      }),
    );
    this.#flushNowAndThen();
  }

  /** Starts again by itself. */
  stopForAWhile(): void {
    const { chance } = this.#world;
    this.#stopFor(chance.pick(['clean', 'killed', 'power lost', 'power lost'] as const)!);
  }

  #stopFor(how: Stop): void {
    const { chance, timeline, weather } = this.#world;
    if (!this.isUp) return;
    this.#stop(how);
    const downMs = chance.of(0.95) ? chance.between(1, 50) : chance.between(1, 30_000);
    timeline.after(downMs, () => {
      this.start(how === 'clean');
      // Somebody looks after it.
      const isRestarted = weather.isStormy && how !== 'clean' && chance.of(0.3);
      if (isRestarted) timeline.after(chance.between(10, 300), () => this.#stopFor('clean'));
    });
  }

  #stop(how: Stop): void {
    const { timeline, trace } = this.#world;
    trace?.(`${timeline.nowMs} the broker stops: ${how}`);
    this.#upBeforeMs = this.#world.oracle.upMs();
    const { states } = this;
    this.#coordinator = undefined;
    this.#life.end();
    const { log, groups, partitions } = this.disk;
    if (how === 'clean' && !this.#has('a clean stop forgets that something may be missing')) this.#noteSuspects(states);
    log.restart(how === 'clean');
    for (const group of groups) group.restart(how === 'clean');
    for (const partition of partitions) partition.restart(how === 'power lost');
  }

  /** As the coordinator does when it is closed. */
  #noteSuspects(states: readonly TransactionState[]): void {
    for (const state of states) {
      const isNoted = state.suspect && state.status !== 'ongoing' && !isNew(state);
      if (isNoted) this.disk.log.note(state.transactionalId, recordOf(state));
    }
  }

  #has(defect: Defect): boolean {
    return this.#world.defects.has(defect);
  }

  #flushNowAndThen(): void {
    const { chance, weather } = this.#world;
    const flush = (): void => {
      chance.pick(this.disk.partitions)?.flush();
      this.#flushNowAndThen();
    };
    this.#life.later(flush, chance.between(20, weather.isStormy ? 2_000 : 10_000));
  }

  /** A request arrives. */
  handle(request: Request, reply: Reply): void {
    const coordinator = this.#coordinator;
    if (coordinator === undefined) reply(refusal('BROKER_UNAVAILABLE'));
    else if (!this.#isLoaded) reply(refusal('COORDINATOR_LOAD_IN_PROGRESS'));
    else if (request.kind === 'init') this.#init(coordinator, request, reply);
    else if (request.kind === 'fetch-offset') this.#fetchOffset(request, reply);
    else this.#handleOf(coordinator, request, reply);
  }

  #init(coordinator: ModelCoordinator, request: RequestOf<'init'>, reply: Reply): void {
    const { transactionalId, timeoutMs, current } = request;
    const entry = coordinator.findOrMake(transactionalId);
    coordinator.run(entry, { kind: 'init', timeoutMs, current }, (outcome) => reply(toAnswer(outcome)));
  }

  #fetchOffset({ transactionalId }: RequestOf<'fetch-offset'>, reply: Reply): void {
    const { chance, inputs, weather } = this.#world;
    if (weather.isStormy && chance.of(0.1)) inputs.assign(chance.pick(inputs.names)!, transactionalId);
    const assigned = chance.pick(inputs.assignedTo(transactionalId));
    if (assigned === undefined) {
      reply(refusal('NOTHING_ASSIGNED'));
      return;
    }
    this.disk.groups[0]?.fetch(assigned.input, (offset) => {
      reply(offset === undefined ? refusal('UNSTABLE_OFFSET_COMMIT') : { kind: 'offset', ...assigned, offset });
    });
  }

  #handleOf(coordinator: ModelCoordinator, request: RequestOf<'produce' | 'add-offsets' | 'end'>, reply: Reply): void {
    const entry = coordinator.find(request.transactionalId);
    if (entry === undefined) reply(refusal('INVALID_PRODUCER_ID_MAPPING'));
    else if (request.kind === 'produce') reply(this.#produce(coordinator, entry, request));
    else if (request.kind === 'add-offsets') this.#addOffsets(coordinator, entry, request, reply);
    else this.#end(coordinator, entry, request, reply);
  }

  #produce(coordinator: ModelCoordinator, entry: Entry, request: RequestOf<'produce'>): Answer {
    const { producer, partition } = request;
    const isAny = this.#has('a partition is entered whatever the epoch of the producer');
    if ((entry.isChanging || entry.recovering > 0) && !isAny) return refusal('CONCURRENT_TRANSACTIONS');
    const refused = coordinator.add(entry, { kind: 'enter', producer, partition: PLACES[partition]! });
    if (refused !== undefined && !isAny) return refusal(refused);
    return this.disk.partitions[partition]!.append(request);
  }

  #addOffsets(coordinator: ModelCoordinator, entry: Entry, request: RequestOf<'add-offsets'>, reply: Reply): void {
    const { producer, groupId } = request;
    coordinator.exclusively(entry, (release) => {
      const refused = coordinator.add(entry, { kind: 'add-offsets', producer, groupId });
      if (refused === undefined) this.#addToGroup(entry, request, reply);
      release();
      if (refused !== undefined) reply(refusal(refused));
    });
  }

  #addToGroup(entry: Entry, { producer, work, groupId }: RequestOf<'add-offsets'>, reply: Reply): void {
    entry.adding++;
    const settle = (answer: Answer): void => {
      entry.adding--;
      if (entry.adding === 0) for (const run of entry.whenAdded.splice(0)) run();
      reply(answer);
    };
    this.#life.later(() => {
      const group = this.disk.groups.find((one) => one.groupId === groupId);
      const refused = group?.add(producer, work, () => settle({ kind: 'done' }));
      if (refused !== undefined) settle(refusal(refused));
    });
  }

  #end(coordinator: ModelCoordinator, entry: Entry, request: RequestOf<'end'>, reply: Reply): void {
    const { producer, commit } = request;
    const { oracle } = this.#world;
    const { partitions, groups } = this.disk;
    const answer = (outcome: TransactionOutcome | 'failed'): void => {
      const isOver = outcome !== 'failed' && outcome.kind === 'answered';
      if (isOver) oracle.answered(producer, commit, partitions, groups);
      reply(toAnswer(outcome));
    };
    const { identity, status } = entry.state;
    const isEarly = this.#has('a commit is answered before it is decided for good') && status === 'ongoing';
    if (isEarly && commit && isSameIdentity(producer, identity)) answer({ kind: 'answered', identity });
    coordinator.run(entry, { kind: 'end', producer, commit }, answer);
  }

  /** By an administrator. */
  abort(transactionalId: string): void {
    const entry = this.#coordinator?.find(transactionalId);
    if (entry !== undefined && this.#isLoaded) this.#coordinator?.apply(entry, { kind: 'abort' }, () => undefined);
  }
}

function toAnswer(outcome: TransactionOutcome | 'failed'): Answer {
  if (outcome === 'failed') return refusal('STORAGE_FULL');
  if (outcome.kind === 'answered') return { kind: 'identity', identity: outcome.identity };
  if (outcome.kind === 'refused') return refusal(outcome.error.reason);
  throw new Error(`a call ended with ${outcome.kind}`);
}
