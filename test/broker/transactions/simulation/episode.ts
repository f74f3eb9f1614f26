/** One run of simulated transactions: things go wrong for a while, then no more, and then all must be well. */
import { isPrepared, transition } from '../../../../src/broker/transactions/transaction.js';
import { assert } from '../../../../src/core/assert.js';
import { Chance } from '../../groups/simulation/chance.js';
import { Timeline } from '../../groups/simulation/timeline.js';
import { ModelBroker } from './broker.js';
import type { Defects } from './defects.js';
import { Inputs } from './inputs.js';
import { LONGEST_DELAY_MS, Network } from './network.js';
import { Oracle } from './oracle.js';
import { Worker } from './worker.js';
import { LONGEST_TIMEOUT_MS, type Weather, type World } from './world.js';

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
    const inputs = new Inputs(['a', 'b', 'c'].slice(0, chance.between(1, 3)));
    const shared = { timeline, chance, network, inputs, oracle: new Oracle(), defects, trace };
    this.#world = { ...shared, transition: machineWith(defects), weather: weatherBy(chance) };
    this.#broker = new ModelBroker(this.#world);
    this.#ids = ['id0', 'id1', 'id2'].slice(0, chance.between(1, 3));
    for (const id of this.#ids) this.#addWorkers(id);
    for (const input of inputs.names) inputs.assign(input, chance.pick(this.#ids)!);
    timeline.after(10, () => this.#broker.start(false));
    this.#repeat(200, 8_000, () => this.#disturb());
    this.#repeat(INSPECTED_EVERY_MS, INSPECTED_EVERY_MS, () => this.#inspect());
  }

  #addWorkers(id: string): void {
    const { chance, timeline } = this.#world;
    if (chance.of(0.3)) this.#broker.seed(id);
    for (let left = chance.between(1, 2); left > 0; left--) {
      const worker = new Worker(this.#world, this.#broker, `w${this.#workers.length}`, id);
      this.#workers.push(worker);
      timeline.after(chance.between(20, 100), () => worker.start());
    }
  }

  /** Transactions that came to each of the ends. */
  get counts(): { readonly commit: number; readonly abort: number } {
    return this.#world.oracle.counts;
  }

  /** @throws what was broken, once it is */
  run(steps: number): void {
    const { timeline } = this.#world;
    while (timeline.steps < steps) timeline.step();
    this.#calmDown();
    const before = this.#world.inputs.names.map((input) => this.#broker.disk.groups[0]!.committed(input));
    timeline.runUntil(timeline.nowMs + CALM_MS);
    for (const worker of this.#workers) worker.crash();
    timeline.runUntil(timeline.nowMs + LONGEST_TIMEOUT_MS + SLACK_MS);
    this.#checkEnd(before);
  }

  #repeat(least: number, most: number, act: () => void): void {
    const { timeline, chance } = this.#world;
    timeline.after(chance.between(least, most), () => {
      act();
      this.#repeat(least, most, act);
    });
  }

  #inspect(): void {
    this.#world.oracle.checkOpen(this.#broker.disk.partitions, LONGEST_TIMEOUT_MS + SLACK_MS);
  }

  #disturb(): void {
    const { chance, weather, inputs } = this.#world;
    if (!weather.isStormy) return;
    const worker = chance.pick(this.#workers)!;
    const kind = chance.below(100);
    if (!worker.isAlive) {
      if (kind < 70) worker.start();
    } else if (kind < 15) worker.crash();
    else if (kind < 35) worker.pause(chance.between(1, chance.of(0.6) ? 5_000 : weather.longestPauseMs));
    else if (kind < 40) this.#broker.abort(chance.pick(this.#ids)!);
    else if (kind < 60) inputs.assign(chance.pick(inputs.names)!, chance.pick(this.#ids)!);
    else if (kind < 70 && weather.stopsPerStep > 0) this.#stopAgainAndAgain();
  }

  /** So that starts are broken off, too. */
  #stopAgainAndAgain(): void {
    const { chance, timeline } = this.#world;
    for (let left = chance.between(1, 4); left > 0; left--) {
      timeline.after(chance.between(1, 100), () => this.#broker.stopForAWhile());
    }
  }

  #calmDown(): void {
    this.#world.weather.isStormy = false;
    this.#world.network.isCalm = true;
    const ids = new Set<string>();
    for (const worker of this.#workers) {
      worker.wake();
      if (ids.has(worker.transactionalId)) worker.crash();
      else if (!worker.isAlive) worker.start();
      ids.add(worker.transactionalId);
    }
    this.#world.trace?.(`${this.#world.timeline.nowMs} calm`);
  }

  /** @param before what was committed of each input at the beginning of the calm */
  #checkEnd(before: readonly number[]): void {
    const { partitions, groups } = this.#broker.disk;
    for (const partition of partitions) {
      partition.flush();
      assert(partition.openTransactions().length === 0, `nothing is open in p${partition.index}`);
      assert(partition.lastStableOffset === partition.end, `p${partition.index} is read to its end`);
    }
    for (const group of groups) assert(group.pendingTransactions().length === 0, `nothing waits in ${group.groupId}`);
    for (const state of this.#broker.states) {
      assert(state.status !== 'ongoing' && !isPrepared(state), `${state.transactionalId} is ${state.status}`);
    }
    for (const [index, input] of this.#world.inputs.names.entries()) {
      const committed = groups.map((group) => group.committed(input));
      assert(new Set(committed).size === 1, `${input} is committed up to ${committed.join(' and ')}`);
      assert(committed[0]! > before[index]!, `${input} is read on in the calm`);
      this.#world.oracle.checkDelivered(input, committed[0]!);
    }
  }
}

/** In some the broker stays up, so that timeouts come to be what ends a transaction. */
function weatherBy(chance: Chance): Weather {
  if (chance.of(0.7)) return { isStormy: true, stopsPerStep: 0.006, longestPauseMs: 4 * LONGEST_TIMEOUT_MS };
  return { isStormy: true, stopsPerStep: 0, longestPauseMs: 20 * LONGEST_TIMEOUT_MS };
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
