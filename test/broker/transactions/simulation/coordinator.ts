/** A coordinator around the state machine: one event of a transactional id at a time, answered by what is durable. */
import type { ProducerIdentity } from '../../../../src/broker/transactions/coordinator-types.js';
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
  type OpenRemains,
  type StoredTransaction,
  type TransactionEvent,
  type TransactionNow,
  type TransactionOutcome,
  type TransactionState,
  withProducerId,
} from '../../../../src/broker/transactions/transaction-types.js';
import { Effects, RETRY_MS } from './effects.js';
import type { Disk, Life } from './life.js';
import type { World } from './world.js';

const WALL_MS = 1_700_000_000_000;
const RECOVERY_RETRY_MS = 1_000;

/** `failed`: it could not be written, and nothing has changed. */
export type Told = (outcome: TransactionOutcome | 'failed') => void;

/** As `transaction-entry.ts`. */
export class Entry {
  state: TransactionState;
  isChanging = false;
  isCompleting = false;
  adding = 0;
  readonly whenAdded: (() => void)[] = [];
  readonly whenCompleted: (() => void)[] = [];
  readonly jobs: (() => void)[] = [];
  isBusy = false;
  /** What a restart has found is about to be aborted. */
  recovering = 0;

  constructor(state: TransactionState) {
    this.state = state;
  }
}

export class ModelCoordinator {
  readonly effects: Effects;
  readonly #world: World;
  readonly #disk: Disk;
  readonly #life: Life;
  readonly #entries = new Map<string, Entry>();

  /** @param suspect whether something that was acknowledged may be missing */
  constructor(world: World, disk: Disk, life: Life, suspect: boolean) {
    this.#world = world;
    this.#disk = disk;
    this.#life = life;
    this.effects = new Effects(world, disk, life);
    for (const [transactionalId, stored] of disk.log.read()) {
      const entry = new Entry(restoreTransaction(transactionalId, this.#altered(stored), suspect));
      this.#entries.set(transactionalId, entry);
      if (isPrepared(entry.state)) this.#complete(entry);
    }
  }

  #altered(stored: StoredTransaction): StoredTransaction {
    const isChosen = this.#world.defects.has('a restart aborts what was to be committed');
    return isChosen && stored.status === 'prepare-commit' ? { ...stored, status: 'prepare-abort' } : stored;
  }

  get states(): readonly TransactionState[] {
    return [...this.#entries.values()].map(({ state }) => state);
  }

  now(): TransactionNow {
    const { nowMs } = this.#world.timeline;
    return { monotonicMs: nowMs, wallMs: WALL_MS + nowMs };
  }

  /** Undefined too for one that nobody has initialised so far. */
  find(transactionalId: string): Entry | undefined {
    const entry = this.#entries.get(transactionalId);
    return entry === undefined || isNew(entry.state) ? undefined : entry;
  }

  findOrMake(transactionalId: string): Entry {
    const entry = this.#entries.get(transactionalId) ?? new Entry(newTransaction(transactionalId));
    this.#entries.set(transactionalId, entry);
    return entry;
  }

  ownerOf(producerId: number): Entry | undefined {
    return [...this.#entries.values()].find(
      ({ state: { identity, next } }) => identity.producerId === producerId || next?.producerId === producerId,
    );
  }

  /** Whether it is part of a transaction that is open, or is being completed. */
  isOwned(open: ProducerIdentity): boolean {
    const state = this.ownerOf(open.producerId)?.state;
    const isBusy = state !== undefined && (state.status === 'ongoing' || isPrepared(state));
    return isBusy && isSameIdentity(open, state.identity);
  }

  /** At once: a partition or a group becomes part of the transaction. @returns why it is refused */
  add(entry: Entry, event: TransactionEvent): string | undefined {
    const { state, outcome } = this.#world.transition(entry.state, event, this.now());
    if (outcome.kind === 'refused') return outcome.error.reason;
    this.#adopt(entry, state);
    return undefined;
  }

  #adopt(entry: Entry, state: TransactionState): void {
    const before = nextDeadlineMs(entry.state);
    entry.state = state;
    const deadlineMs = nextDeadlineMs(state);
    const isNewDeadline = deadlineMs !== undefined && deadlineMs !== before;
    if (isNewDeadline && !this.#world.defects.has('nobody looks at timeouts')) this.#tickAt(entry, deadlineMs);
  }

  #tickAt(entry: Entry, deadlineMs: number): void {
    const tick = (): void =>
      this.apply(entry, { kind: 'tick' }, (outcome) => {
        if (outcome === 'failed') this.#tickAt(entry, this.#world.timeline.nowMs + RETRY_MS);
      });
    this.#life.later(tick, deadlineMs - this.#world.timeline.nowMs);
  }

  /** Applies an event, and again after the transaction is completed that it waits for. */
  run(entry: Entry, event: TransactionEvent, told: Told): void {
    this.apply(entry, event, (outcome) => {
      if (outcome === 'failed' || outcome.kind !== 'waits') told(outcome);
      else this.#whenCompleted(entry, () => this.run(entry, event, told));
    });
  }

  #whenCompleted(entry: Entry, run: () => void): void {
    if (entry.isCompleting) entry.whenCompleted.push(run);
    else this.#life.later(run);
  }

  /** One at a time, in the order of the calls. */
  exclusively(entry: Entry, job: (release: () => void) => void): void {
    entry.jobs.push(() => {
      entry.isBusy = true;
      job(() => {
        entry.isBusy = false;
        this.#life.later(() => this.#work(entry));
      });
    });
    this.#work(entry);
  }

  #work(entry: Entry): void {
    if (!entry.isBusy) entry.jobs.shift()?.();
  }

  /** Applies an event once. */
  apply(entry: Entry, event: TransactionEvent, told: Told): void {
    this.exclusively(entry, (release) =>
      this.#applyNow(entry, event, (outcome) => {
        release();
        told(outcome);
      }),
    );
  }

  #applyNow(entry: Entry, given: TransactionEvent, told: Told): void {
    const event = this.#withProducerId(entry.state, given);
    const { state, outcome, effects } = this.#world.transition(entry.state, event, this.now());
    const done = (isDurable: boolean): void => {
      entry.isChanging = false;
      if (isDurable) this.#adopt(entry, state);
      if (isDurable && effects.length > 0 && isPrepared(state)) this.#complete(entry);
      told(isDurable ? outcome : 'failed');
    };
    if (effects.length === 0) {
      done(true);
      return;
    }
    entry.isChanging = true;
    this.#whenAdded(entry, () => this.effects.makeDurable(effects, done));
  }

  #withProducerId(state: TransactionState, event: TransactionEvent): TransactionEvent {
    return needsProducerId(state, event) ? withProducerId(event, this.#disk.nextProducerId++) : event;
  }

  #whenAdded(entry: Entry, run: () => void): void {
    const isIgnored = this.#world.defects.has('a commit is decided while offsets are still being added');
    if (entry.adding === 0 || isIgnored) run();
    else entry.whenAdded.push(run);
  }

  #complete(entry: Entry): void {
    const isEarly = this.#world.defects.has('a commit is answered before its markers are written');
    entry.isCompleting = true;
    this.effects.complete(completionEffects(entry.state), () => {
      if (!isEarly) this.#completed(entry);
    });
    if (isEarly) this.#completed(entry);
  }

  #completed(entry: Entry): void {
    const { state, effects } = this.#world.transition(entry.state, { kind: 'completed' }, this.now());
    this.#adopt(entry, state);
    entry.isCompleting = false;
    for (const effect of effects) {
      if (effect.kind === 'persist') this.#disk.log.note(effect.transactionalId, effect.record);
    }
    for (const run of entry.whenCompleted.splice(0)) this.#life.later(run);
  }

  /** Aborts what a restart has found: before anything else happens to this id. */
  abortRemains(entry: Entry, open: OpenRemains): void {
    entry.recovering++;
    if (this.#world.defects.has('what a restart has found is aborted after what comes meanwhile')) {
      this.#abortBetweenOthers(entry, open);
      return;
    }
    this.exclusively(entry, (release) => {
      const attempt = (): void =>
        this.#applyNow(entry, { kind: 'recovered-open', open }, (outcome) => {
          const isDecided = isSameIdentity(open.identity, entry.state.identity);
          if (outcome === 'failed') this.#life.later(attempt, RECOVERY_RETRY_MS);
          else if (outcome.kind === 'waits' && !isDecided) this.#whenCompleted(entry, attempt);
          else {
            entry.recovering--;
            release();
          }
        });
      attempt();
    });
  }

  #abortBetweenOthers(entry: Entry, open: OpenRemains): void {
    this.apply(entry, { kind: 'recovered-open', open }, (outcome) => {
      const isDecided = isSameIdentity(open.identity, entry.state.identity);
      const again = (): void => this.#abortBetweenOthers(entry, open);
      if (outcome === 'failed') this.#life.later(again, RECOVERY_RETRY_MS);
      else if (outcome.kind === 'waits' && !isDecided) this.#whenCompleted(entry, again);
      else entry.recovering--;
    });
  }
}
