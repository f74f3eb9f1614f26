/** A consumer group as transactions see it: one committed offset of each input, and what waits of each producer. */
import type { ProducerIdentity } from '../../../../src/broker/transactions/coordinator-types.js';
import { type Work, type World, writeMs } from './world.js';

interface Pending {
  readonly producerEpoch: number;
  readonly work: Work;
}

interface State {
  /** By input. */
  readonly committed: Map<string, number>;
  /** By producer id. */
  readonly pending: Map<number, Pending>;
}

interface Write {
  readonly apply: (state: State) => void;
  readonly done: () => void;
}

/** Its changes go to the log one after the other; nobody is told before. */
export class ModelGroup {
  readonly groupId: string;
  readonly #world: World;
  readonly #durable: State = { committed: new Map(), pending: new Map() };
  #queue: Write[] = [];

  constructor(world: World, groupId: string) {
    this.#world = world;
    this.groupId = groupId;
  }

  committed(input: string): number {
    return this.#durable.committed.get(input) ?? 0;
  }

  /** Producers with something that waits, as it is durable. */
  pendingTransactions(): ProducerIdentity[] {
    return [...this.#durable.pending].map(([producerId, { producerEpoch }]) => ({ producerId, producerEpoch }));
  }

  waitsFor({ producerId, producerEpoch }: ProducerIdentity): boolean {
    return this.#durable.pending.get(producerId)?.producerEpoch === producerEpoch;
  }

  /** With what is on its way. */
  #latest(): State {
    const { committed, pending } = this.#durable;
    const latest = { committed: new Map(committed), pending: new Map(pending) };
    for (const { apply } of this.#queue) apply(latest);
    return latest;
  }

  /** @returns why it is refused; else it is under way */
  add({ producerId, producerEpoch }: ProducerIdentity, work: Work, done: () => void): string | undefined {
    const before = this.#latest().pending.get(producerId);
    if (before !== undefined && before.producerEpoch > producerEpoch) return 'PRODUCER_FENCED';
    const isAny = this.#world.defects.has('a transaction outlives the assignment of its input');
    if (!isAny && !this.#world.inputs.isCurrent(work)) return 'FENCED_MEMBER_EPOCH';
    this.#write((state) => {
      if (state === this.#durable) this.#world.oracle.waits(this, { producerId, producerEpoch }, work);
      state.pending.set(producerId, { producerEpoch, work });
    }, done);
    return undefined;
  }

  /** Ends what waits under this epoch and drops what does under earlier ones. */
  end(producer: ProducerIdentity, commit: boolean, done: () => void): void {
    const { producerId, producerEpoch } = producer;
    const { defects, oracle } = this.#world;
    const pending = this.#latest().pending.get(producerId);
    const isOver = pending !== undefined && pending.producerEpoch <= producerEpoch;
    if (!isOver) {
      this.#write(() => undefined, done);
      return;
    }
    const isCommitted = commit && pending.producerEpoch === producerEpoch;
    this.#write((state) => {
      if (isCommitted) {
        const { work } = pending;
        if (state === this.#durable) oracle.offsetCommitted(this, { producerId, producerEpoch }, work);
        state.committed.set(work.input, work.to);
      }
      if (!isCommitted || !defects.has('offsets are committed, and wait on')) state.pending.delete(producerId);
    }, done);
  }

  /** @param done told undefined while something of the input waits for the end of a transaction */
  fetch(input: string, done: (offset: number | undefined) => void): void {
    const { defects } = this.#world;
    this.#write(
      () => undefined,
      () => {
        const waiting = [...this.#durable.pending.values()].some(({ work }) => work.input === input);
        const isTold = !waiting || defects.has('offsets are told while others wait');
        done(isTold ? this.committed(input) : undefined);
      },
    );
  }

  #write(apply: Write['apply'], done: () => void): void {
    this.#queue.push({ apply, done });
    if (this.#queue.length === 1) this.#plan();
  }

  #plan(): void {
    const { timeline, chance } = this.#world;
    const queue = this.#queue;
    timeline.after(writeMs(chance), () => {
      const write = queue === this.#queue ? queue.shift() : undefined;
      if (write === undefined) return;
      write.apply(this.#durable);
      if (queue.length > 0) this.#plan();
      write.done();
    });
  }

  /** Of what was on its way, some is there. @param isClean all of it */
  restart(isClean: boolean): void {
    const { chance } = this.#world;
    const written = isClean ? this.#queue.length : chance.between(0, this.#queue.length);
    for (const { apply } of this.#queue.slice(0, written)) apply(this.#durable);
    this.#queue = [];
  }
}
