/** One run of simulated transactions: things go wrong for a while, then no more, and then all must be well. */
import { isPrepared, transition } from '../../../../src/broker/transactions/transaction.js';
import { assert } from '../../../../src/core/assert.js';
import { Chance } from '../../groups/simulation/chance.js';
import { Timeline } from '../../groups/simulation/timeline.js';
import { ModelBroker } from './broker.js';
import type { Defects } from './defects.js';
import { LONGEST_DELAY_MS, Network } from './network.js';
import { Oracle } from './oracle.js';
import { Worker } from './worker.js';
import type { World } from './world.js';

const LONGEST_TIMEOUT_MS = 60_000;
/** What a broker takes to end what it is to end, once it is up; much more than it needs. */
const SLACK_MS = 5_000;
const INSPECTED_EVERY_MS = 2_000;
/** Until everything from before a calm has arrived, and who was fenced by it is back. */
const CALM_MS = LONGEST_DELAY_MS + 4 * LONGEST_TIMEOUT_MS;

const NO_DEFECTS: Defects = new Set();

export class Episode {
  readonly #world: World;
  readonly #broker: ModelBroker;
  readonly #workers: Worker[] = [];
  readonly #ids: readonly string[];

  constructor(seed: number, trace: ((line: string) => void) | undefined, defects: Defects = NO_DEFECTS) {
    const [timeline, chance] = [new Timeline(), new Chance(seed)];
    const network = new Network(timeline, chance);
    const machine = machineWith(defects);
    this.#world = {
      timeline,
      chance,
      network,
      oracle: new Oracle(),
      defects,
      transition: machine,
      isStormy: true,
      trace,
    };
    this.#broker = new ModelBroker(this.#world);
    this.#ids = Array.from({ length: chance.between(1, 3) }, (_, i) => `id${i}`);
    for (const id of this.#ids) {
      if (chance.of(0.3)) this.#broker.seed(id);
      for (let i = chance.between(1, 2); i > 0; i--) {
        const worker = new Worker(this.#world, this.#broker, `w${this.#workers.length}`, id);
        this.#workers.push(worker);
        timeline.after(chance.between(20, 100), () => worker.start());
      }
    }
    timeline.after(10, () => this.#broker.start(false));
    this.#repeat(200, 8_000, () => this.#disturb());
    this.#repeat(INSPECTED_EVERY_MS, INSPECTED_EVERY_MS, () => this.#inspect());
  }

  /** Transactions that came to each of the ends. */
  get counts(): { readonly commit: number; readonly abort: number } {
    return this.#world.oracle.counts;
  }

  /** Events so far. */
  get steps(): number {
    return this.#world.timeline.steps;
  }

  /** @throws what was broken, once it is */
  run(steps: number): void {
    const { timeline } = this.#world;
    while (timeline.steps < steps) timeline.step();
    this.#calmDown();
    timeline.runUntil(timeline.nowMs + CALM_MS);
    for (const worker of this.#workers) worker.crash();
    timeline.runUntil(timeline.nowMs + LONGEST_TIMEOUT_MS + SLACK_MS);
    this.#checkEnd();
  }

  #repeat(least: number, most: number, act: () => void): void {
    const { timeline, chance } = this.#world;
    timeline.after(chance.between(least, most), () => {
      act();
      this.#repeat(least, most, act);
    });
  }

  #inspect(): void {
    this.#world.oracle.checkOpen(this.#broker.partitions, LONGEST_TIMEOUT_MS + SLACK_MS);
  }

  #disturb(): void {
    const { chance, timeline, isStormy } = this.#world;
    if (!isStormy) return;
    const worker = chance.pick(this.#workers)!;
    const kind = chance.below(100);
    if (!worker.isAlive) {
      if (kind < 70) worker.start();
    } else if (kind < 20) worker.crash();
    else if (kind < 45)
      worker.pause(chance.of(0.6) ? chance.between(1, 5_000) : chance.between(1, 4 * LONGEST_TIMEOUT_MS));
    else if (kind < 55) this.#broker.abort(chance.pick(this.#ids)!);
    else if (kind < 85 && this.#broker.isUp) {
      this.#stop();
      // Often again before it has done much, so that a start is broken off too.
      for (let again = chance.between(0, 3); again > 0; again--) {
        timeline.after(chance.between(1, 60), () => this.#broker.isUp && this.#stop());
      }
    }
  }

  #stop(): void {
    const { chance, timeline } = this.#world;
    this.#broker.stop(chance.pick(['clean', 'killed', 'power lost'])!);
    const isClean = chance.of(0);
    timeline.after(chance.of(0.9) ? chance.between(1, 50) : chance.between(1, 30_000), () =>
      this.#broker.start(isClean),
    );
  }

  #calmDown(): void {
    this.#world.isStormy = false;
    this.#world.network.isCalm = true;
    const alive = new Set<string>();
    for (const worker of this.#workers) {
      worker.wake();
      if (alive.has(worker.transactionalId)) worker.crash();
      else if (!worker.isAlive) worker.start();
      alive.add(worker.transactionalId);
      worker.committedCount = 0;
    }
    this.#world.trace?.(`${this.#world.timeline.nowMs} calm`);
  }

  #checkEnd(): void {
    const { partitions, groups, states } = this.#broker;
    assert(this.#broker.isUp, 'the broker is up');
    for (const partition of partitions) {
      partition.flush();
      assert(partition.openTransactions().length === 0, `nothing is open in p${partition.index}`);
      assert(partition.lastStableOffset === partition.end, `p${partition.index} is read to its end`);
    }
    for (const group of groups) assert(group.pendingTransactions().length === 0, `nothing waits in ${group.groupId}`);
    for (const state of states) {
      assert(state.status !== 'ongoing' && !isPrepared(state), `${state.transactionalId} is ${state.status}`);
    }
    for (const id of this.#ids) {
      const committed = groups.map((group) => group.committed(id));
      assert(new Set(committed).size === 1, `${id} is committed up to ${committed.join(' and ')}`);
      this.#world.oracle.checkDelivered(id, committed[0]!);
      const own = this.#workers.filter(({ transactionalId }) => transactionalId === id);
      assert(
        own.some(({ committedCount }) => committedCount > 0),
        `${id} goes on in the calm`,
      );
    }
  }
}

function machineWith(defects: Defects): typeof transition {
  const takeover = defects.has('a takeover leaves the epoch as it was');
  const timeout = defects.has('a timeout leaves the epoch as it was');
  if (!takeover && !timeout) return transition;
  return (state, event, now) => {
    const after = transition(state, event, now);
    const isChosen = (takeover && event.kind === 'init') || (timeout && event.kind === 'tick');
    const { identity } = state;
    if (!isChosen || after.effects.length === 0 || identity.producerId < 0) return after;
    const change = isPrepared(after.state) ? { next: identity } : { identity };
    const effects = after.effects.map((effect) =>
      effect.kind === 'persist' ? { ...effect, record: { ...effect.record, ...change } } : effect,
    );
    const outcome = after.outcome.kind === 'answered' ? { ...after.outcome, identity } : after.outcome;
    return { state: { ...after.state, ...change }, outcome, effects };
  };
}
