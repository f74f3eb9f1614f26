/**
 * A broker around the state machine of transactions: it carries out what that asks for, one effect after the other, and may
 * stop between any two of them.
 */
import type { ProducerIdentity, TransactionPartition } from '../../../../src/broker/transactions/coordinator-types.js';
import {
  completionEffects,
  isNew,
  isPrepared,
  needsProducerId,
  newTransaction,
  nextDeadlineMs,
  restoreTransaction,
} from '../../../../src/broker/transactions/transaction.js';
import {
  isSameIdentity,
  LAST_EPOCH,
  type OpenRemains,
  type TransactionEffect,
  type TransactionEvent,
  type TransactionNow,
  type TransactionOutcome,
  type TransactionState,
  type TransactionTransition,
} from '../../../../src/broker/transactions/transaction-types.js';
import { ModelGroup } from './group.js';
import { ModelPartition } from './partition.js';
import { StateLog } from './state-log.js';
import { GROUPS, keyOf, PLACES, type Reply, type Request, refusal, type World } from './world.js';

const WALL_MS = 1_700_000_000_000;
const RETRY_MS = 50;
const FAILS = 0.03;

type Told = (outcome: TransactionOutcome | 'failed') => void;

/** As `transaction-entry.ts`. */
interface Entry {
  state: TransactionState;
  readonly jobs: (() => void)[];
  isBusy: boolean;
  isChanging: boolean;
  recovering: number;
  adding: number;
  whenAdded: (() => void)[];
  isCompleting: boolean;
  whenCompleted: (() => void)[];
}

export class ModelBroker {
  readonly partitions: readonly ModelPartition[];
  readonly groups: readonly ModelGroup[];
  readonly #log: StateLog;
  readonly #world: World;
  #entries = new Map<string, Entry>();
  #nextProducerId = 0;
  /** Counts starts: what an earlier one has begun does not go on. */
  #life = 0;
  #isUp = false;
  #isLoaded = false;
  #upSinceMs = 0;
  #upBeforeMs = 0;

  constructor(world: World) {
    this.#world = world;
    this.partitions = PLACES.map((_, index) => new ModelPartition(world, index));
    this.groups = GROUPS.map((groupId) => new ModelGroup(world, groupId));
    this.#log = new StateLog(world);
    world.oracle.upMs = () => this.#upBeforeMs + (this.#isUp ? world.timeline.nowMs - this.#upSinceMs : 0);
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  get states(): readonly TransactionState[] {
    return [...this.#entries.values()].map(({ state }) => state);
  }

  /** An id with few epochs left. */
  seed(transactionalId: string): void {
    const identity = {
      producerId: this.#nextProducerId++,
      producerEpoch: LAST_EPOCH - this.#world.chance.between(0, 5),
    };
    const record = {
      status: 'complete-abort' as const,
      identity,
      previous: undefined,
      next: undefined,
      cause: 'producer' as const,
      timeoutMs: 60_000,
      startMs: undefined,
      updateMs: 0,
      partitions: [],
      groupIds: [],
    };
    this.#log.write(transactionalId, record, () => undefined);
  }

  start(isClean: boolean): void {
    this.#isUp = true;
    this.#isLoaded = false;
    this.#upSinceMs = this.#world.timeline.nowMs;
    const isSuspect = !isClean && !this.#has('a restart forgets that something may be missing');
    for (const [transactionalId, stored] of this.#log.read()) {
      const entry = this.#makeEntry(restoreTransaction(transactionalId, this.#altered(stored), isSuspect));
      this.#entries.set(transactionalId, entry);
      if (isPrepared(entry.state)) this.#complete(entry);
    }
    this.#later(() => this.#recover());
    this.#flushNowAndThen();
  }

  #altered(stored: Parameters<typeof restoreTransaction>[1]): typeof stored {
    const { status } = stored;
    if (status === 'prepare-commit' && this.#has('a restart aborts what was to be committed')) {
      return { ...stored, status: 'prepare-abort' };
    }
    return stored;
  }

  stop(how: 'clean' | 'killed' | 'power lost'): void {
    const { timeline, trace } = this.#world;
    trace?.(`${timeline.nowMs} the broker stops: ${how}`);
    this.#upBeforeMs = this.#world.oracle.upMs();
    this.#isUp = false;
    this.#life++;
    this.#entries = new Map();
    const isClean = how === 'clean';
    this.#log.restart(isClean);
    for (const group of this.groups) group.restart(isClean);
    for (const partition of this.partitions) partition.restart(how === 'power lost');
  }

  #has(defect: Parameters<World['defects']['has']>[0]): boolean {
    return this.#world.defects.has(defect);
  }

  #later(run: () => void, delayMs: number = this.#world.chance.between(0, 4)): void {
    const life = this.#life;
    this.#world.timeline.after(delayMs, () => {
      if (life === this.#life) run();
    });
  }

  #flushNowAndThen(): void {
    this.#later(
      () => {
        this.#world.chance.pick(this.partitions)?.flush();
        this.#flushNowAndThen();
      },
      this.#world.chance.between(20, 400),
    );
  }

  #now(): TransactionNow {
    const { nowMs } = this.#world.timeline;
    return { monotonicMs: nowMs, wallMs: WALL_MS + nowMs };
  }

  #makeEntry(state: TransactionState): Entry {
    const counters = { isBusy: false, isChanging: false, recovering: 0, adding: 0, isCompleting: false };
    return { state, jobs: [], whenAdded: [], whenCompleted: [], ...counters };
  }

  /** A request arrives. */
  handle(request: Request, reply: Reply): void {
    if (!this.#isUp) {
      reply(refusal('BROKER_UNAVAILABLE'));
      return;
    }
    if (!this.#isLoaded) {
      reply(refusal('COORDINATOR_LOAD_IN_PROGRESS'));
      return;
    }
    switch (request.kind) {
      case 'init':
        this.#init(request, reply);
        break;
      case 'produce':
        this.#produce(request, reply);
        break;
      case 'add-offsets':
        this.#addOffsets(request, reply);
        break;
      case 'end':
        this.#end(request, reply);
        break;
      case 'fetch-offset':
        this.groups[0]!.fetch(request.transactionalId, (offset) =>
          reply(offset === undefined ? refusal('UNSTABLE_OFFSET_COMMIT') : { kind: 'offset', offset }),
        );
    }
  }

  #init({ transactionalId, timeoutMs, current }: Extract<Request, { kind: 'init' }>, reply: Reply): void {
    let entry = this.#entries.get(transactionalId);
    if (entry === undefined) {
      entry = this.#makeEntry(newTransaction(transactionalId));
      this.#entries.set(transactionalId, entry);
    }
    this.#run(entry, { kind: 'init', timeoutMs, current }, (outcome) => reply(toAnswer(outcome)));
  }

  #produce(request: Extract<Request, { kind: 'produce' }>, reply: Reply): void {
    const { producer, partition, work } = request;
    const entry = this.#entries.get(work.transactionalId);
    if (entry === undefined || isNew(entry.state)) {
      reply(refusal('INVALID_PRODUCER_ID_MAPPING'));
      return;
    }
    const isHeld = entry.isChanging || entry.recovering > 0;
    const isAny = this.#has('a partition is entered whatever the epoch of the producer');
    if (isHeld && !isAny) {
      reply(refusal('CONCURRENT_TRANSACTIONS'));
      return;
    }
    const refused = this.#add(entry, { kind: 'enter', producer, partition: PLACES[partition]! });
    if (refused !== undefined && !isAny) {
      reply(refusal(refused));
      return;
    }
    reply(this.partitions[partition]!.append(request));
  }

  /** @returns why it is refused */
  #add(entry: Entry, event: TransactionEvent): string | undefined {
    const { state, outcome } = this.#world.transition(entry.state, event, this.#now());
    if (outcome.kind === 'refused') return outcome.error.reason;
    this.#adopt(entry, state);
    return undefined;
  }

  #addOffsets({ producer, work, groupId }: Extract<Request, { kind: 'add-offsets' }>, reply: Reply): void {
    const entry = this.#entries.get(work.transactionalId);
    if (entry === undefined || isNew(entry.state)) {
      reply(refusal('INVALID_PRODUCER_ID_MAPPING'));
      return;
    }
    this.#exclusively(entry, (release) => {
      const refused = this.#add(entry, { kind: 'add-offsets', producer, groupId });
      release();
      if (refused !== undefined) {
        reply(refusal(refused));
        return;
      }
      this.#addToGroup(entry, producer, work, groupId, reply);
    });
  }

  #addToGroup(
    entry: Entry,
    producer: ProducerIdentity,
    work: Extract<Request, { kind: 'add-offsets' }>['work'],
    groupId: string,
    reply: Reply,
  ): void {
    entry.adding++;
    const settled = (): void => {
      entry.adding--;
      if (entry.adding > 0) return;
      for (const tell of entry.whenAdded.splice(0)) tell();
    };
    this.#later(() => {
      const group = this.groups.find((one) => one.groupId === groupId)!;
      const isUnderWay = group.add(producer, work, () => {
        settled();
        reply({ kind: 'done' });
      });
      if (isUnderWay) return;
      settled();
      reply(refusal('PRODUCER_FENCED'));
    });
  }

  #end({ producer, transactionalId, commit }: Extract<Request, { kind: 'end' }>, reply: Reply): void {
    const entry = this.#entries.get(transactionalId);
    if (entry === undefined || isNew(entry.state)) {
      reply(refusal('INVALID_PRODUCER_ID_MAPPING'));
      return;
    }
    const { identity, status } = entry.state;
    const isEarly = this.#has('a commit is answered before it is decided for good') && status === 'ongoing';
    const answer = (outcome: TransactionOutcome | 'failed'): void => {
      const isOver = outcome !== 'failed' && outcome.kind === 'answered';
      if (isOver) this.#world.oracle.answered(producer, commit, this.partitions, this.groups);
      reply(toAnswer(outcome));
    };
    if (isEarly && commit && isSameIdentity(producer, identity)) {
      answer({ kind: 'answered', identity: { ...identity, producerEpoch: identity.producerEpoch + 1 } });
    }
    this.#run(entry, { kind: 'end', producer, commit }, (outcome) => answer(outcome));
  }

  /** By an administrator. */
  abort(transactionalId: string): void {
    const entry = this.#entries.get(transactionalId);
    if (entry !== undefined && this.#isLoaded) this.#apply(entry, { kind: 'abort' }, () => undefined);
  }

  #adopt(entry: Entry, state: TransactionState): void {
    const { state: before } = entry;
    entry.state = state;
    const deadlineMs = nextDeadlineMs(state);
    if (deadlineMs === undefined || deadlineMs === nextDeadlineMs(before)) return;
    if (!this.#has('nobody looks at timeouts')) this.#tickAt(entry, deadlineMs);
  }

  #tickAt(entry: Entry, deadlineMs: number): void {
    this.#later(() => {
      this.#apply(entry, { kind: 'tick' }, (outcome) => {
        if (outcome === 'failed') this.#tickAt(entry, this.#world.timeline.nowMs + RETRY_MS);
      });
    }, deadlineMs - this.#world.timeline.nowMs);
  }

  /** Applies an event, and again after the transaction is completed that it waits for. */
  #run(entry: Entry, event: TransactionEvent, told: Told): void {
    this.#apply(entry, event, (outcome) => {
      if (outcome === 'failed' || outcome.kind !== 'waits') {
        told(outcome);
        return;
      }
      this.#whenCompleted(entry, () => this.#run(entry, event, told));
    });
  }

  #whenCompleted(entry: Entry, run: () => void): void {
    if (entry.isCompleting) entry.whenCompleted.push(run);
    else this.#later(run);
  }

  #exclusively(entry: Entry, job: (release: () => void) => void): void {
    entry.jobs.push(() => {
      entry.isBusy = true;
      job(() => {
        entry.isBusy = false;
        this.#later(() => this.#work(entry));
      });
    });
    this.#work(entry);
  }

  #work(entry: Entry): void {
    if (!entry.isBusy) entry.jobs.shift()?.();
  }

  #apply(entry: Entry, event: TransactionEvent, told: Told): void {
    this.#exclusively(entry, (release) => {
      const freshProducerId = needsProducerId(entry.state, event) ? this.#nextProducerId++ : undefined;
      const { state, outcome, effects } = this.#world.transition(
        entry.state,
        withProducerId(event, freshProducerId),
        this.#now(),
      );
      const done = (isDurable: boolean): void => {
        entry.isChanging = false;
        if (isDurable) this.#decided(entry, { state, outcome, effects });
        release();
        told(isDurable ? outcome : 'failed');
      };
      if (effects.length === 0) {
        done(true);
        return;
      }
      entry.isChanging = true;
      this.#whenAdded(entry, () => this.#makeDurable(effects, done));
    });
  }

  #decided(entry: Entry, { state, effects }: TransactionTransition): void {
    this.#adopt(entry, state);
    if (effects.length > 0 && isPrepared(state)) this.#complete(entry);
  }

  #whenAdded(entry: Entry, run: () => void): void {
    if (entry.adding === 0 || this.#has('a commit is decided while offsets are still being added')) run();
    else entry.whenAdded.push(run);
  }

  /** In their order, up to `persist`. */
  #makeDurable(effects: readonly TransactionEffect[], done: (isDurable: boolean) => void): void {
    const [effect, ...rest] = effects;
    this.#world.trace?.(`${this.#world.timeline.nowMs}   ${effect?.kind} ${JSON.stringify(effect).slice(0, 160)}`);
    if (effect?.kind === 'flush') {
      this.#flushAll(this.#has('a commit is decided before its records are durable') ? [] : effect.partitions, () =>
        this.#makeDurable(rest, done),
      );
    } else if (effect?.kind === 'persist') {
      this.#later(() => this.#log.write(effect.transactionalId, effect.record, done));
    } else {
      done(true);
    }
  }

  #flushAll(places: readonly TransactionPartition[], done: () => void): void {
    const [place, ...rest] = places;
    if (place === undefined) {
      done();
      return;
    }
    this.#later(() => {
      this.partitions[place.partition]!.flush();
      this.#flushAll(rest, done);
    });
  }

  #complete(entry: Entry): void {
    entry.isCompleting = true;
    const isEarly = this.#has('a commit is answered before its markers are written');
    const effects = completionEffects(entry.state);
    let left = 1;
    const done = (): void => {
      if (--left === 0 && !isEarly) this.#completed(entry);
    };
    for (const effect of effects) {
      if (effect.kind === 'markers') {
        for (const { partition } of effect.partitions) {
          left++;
          this.#marker(partition, effect, done);
        }
      } else if (effect.kind === 'end-offsets') {
        for (const groupId of effect.groupIds) {
          left++;
          this.#endOffsets(groupId, effect, done);
        }
      }
    }
    if (isEarly) this.#completed(entry);
    this.#later(done);
  }

  #marker(index: number, effect: Extract<TransactionEffect, { kind: 'markers' }>, done: () => void): void {
    this.#later(() => {
      if (this.#fails()) {
        this.#later(() => this.#marker(index, effect, done), RETRY_MS);
        return;
      }
      const partition = this.partitions[index]!;
      partition.endTransaction(effect, effect.commit);
      this.#later(() => {
        partition.flush();
        done();
      });
    });
  }

  #endOffsets(groupId: string, effect: Extract<TransactionEffect, { kind: 'end-offsets' }>, done: () => void): void {
    this.#later(() => {
      if (this.#fails()) {
        this.#later(() => this.#endOffsets(groupId, effect, done), RETRY_MS);
        return;
      }
      this.groups.find((one) => one.groupId === groupId)!.end(effect, effect.commit, done);
    });
  }

  #fails(): boolean {
    return this.#world.isStormy && this.#world.chance.of(FAILS);
  }

  #completed(entry: Entry): void {
    const { state, effects } = this.#world.transition(entry.state, { kind: 'completed' }, this.#now());
    this.#adopt(entry, state);
    entry.isCompleting = false;
    for (const effect of effects) {
      const isKept = effect.kind === 'persist' && !this.#has('a restart takes up anew what was completed');
      if (isKept) this.#log.write(effect.transactionalId, effect.record, () => undefined);
    }
    for (const run of entry.whenCompleted.splice(0)) this.#later(run);
  }

  /** As `recovery.ts` and `upkeep.ts`: ends what belongs to no transaction that is open or being completed. */
  #recover(): void {
    const found = new Map<number, { epoch: number; readonly partitions: number[]; readonly groupIds: string[] }>();
    const remainsOf = ({ producerId, producerEpoch }: ProducerIdentity) => {
      const remains = found.get(producerId) ?? { epoch: producerEpoch, partitions: [], groupIds: [] };
      found.set(producerId, remains);
      remains.epoch = Math.max(remains.epoch, producerEpoch);
      return remains;
    };
    if (!this.#has('a restart leaves open what it finds in partitions')) {
      for (const { index, ...partition } of this.partitions.map((one) => ({
        index: one.index,
        open: one.openTransactions(),
      }))) {
        for (const open of partition.open) if (!this.#isOwned(open)) remainsOf(open).partitions.push(index);
      }
    }
    if (!this.#has('a restart leaves waiting what it finds in groups')) {
      for (const group of this.groups) {
        for (const open of group.pendingTransactions())
          if (!this.#isOwned(open)) remainsOf(open).groupIds.push(group.groupId);
      }
    }
    let left = 1;
    const done = (): void => {
      if (--left === 0) this.#isLoaded = true;
    };
    for (const [producerId, { epoch, partitions, groupIds }] of found) {
      const owner = this.#ownerOf(producerId);
      const identity = { producerId, producerEpoch: epoch };
      if (owner !== undefined && isPresent(owner, identity)) {
        this.#abortRemains(owner, { identity, partitions: partitions.map((index) => PLACES[index]!), groupIds });
        continue;
      }
      this.#world.trace?.(`  orphan ${keyOf(identity)}`);
      const marker = { producerId, producerEpoch: Math.min(epoch, LAST_EPOCH) + 1, commit: false };
      left += partitions.length + groupIds.length;
      for (const index of partitions) this.#marker(index, { kind: 'markers', partitions: [], ...marker }, done);
      for (const groupId of groupIds) {
        this.#endOffsets(groupId, { kind: 'end-offsets', groupIds: [], ...identity, commit: false }, done);
      }
    }
    this.#later(done);
  }

  #abortRemains(entry: Entry, open: OpenRemains): void {
    entry.recovering++;
    const attempt = (): void => {
      this.#apply(entry, { kind: 'recovered-open', open }, (outcome) => {
        if (outcome === 'failed') {
          this.#later(attempt, RETRY_MS);
          return;
        }
        const isDecided = isSameIdentity(open.identity, entry.state.identity);
        if (outcome.kind === 'waits' && !isDecided) {
          this.#whenCompleted(entry, attempt);
          return;
        }
        entry.recovering--;
      });
    };
    attempt();
  }

  #ownerOf(producerId: number): Entry | undefined {
    return [...this.#entries.values()].find(
      ({ state: { identity, next } }) => identity.producerId === producerId || next?.producerId === producerId,
    );
  }

  #isOwned(open: ProducerIdentity): boolean {
    const state = this.#ownerOf(open.producerId)?.state;
    const isBusy = state !== undefined && (state.status === 'ongoing' || isPrepared(state));
    return isBusy && isSameIdentity(open, state.identity);
  }
}

function withProducerId(event: TransactionEvent, freshProducerId: number | undefined): TransactionEvent {
  if (event.kind === 'enter' || event.kind === 'add-offsets' || event.kind === 'completed') return event;
  return { ...event, freshProducerId };
}

function isPresent({ state }: Entry, { producerId, producerEpoch }: ProducerIdentity): boolean {
  const present = state.next ?? state.identity;
  return present.producerId === producerId && producerEpoch >= present.producerEpoch;
}

function toAnswer(
  outcome: TransactionOutcome | 'failed',
): ReturnType<typeof refusal> | { kind: 'identity'; identity: ProducerIdentity } {
  if (outcome === 'failed') return refusal('STORAGE_FULL');
  if (outcome.kind === 'answered') return { kind: 'identity', identity: outcome.identity };
  if (outcome.kind === 'refused') return refusal(outcome.error.reason);
  throw new Error(`a call ended with ${outcome.kind}`);
}
