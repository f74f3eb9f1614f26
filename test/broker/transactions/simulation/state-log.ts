/** Where the coordinator keeps its records: one write after the other, each with its own delay. */
import { decodeTransaction, encodeTransaction } from '../../../../src/broker/transactions/records.js';
import type { StoredTransaction } from '../../../../src/broker/transactions/transaction-types.js';
import { keyOf, type World, writeMs } from './world.js';

interface Write {
  readonly transactionalId: string;
  readonly record: StoredTransaction;
  readonly done: (written: boolean) => void;
}

type Encoded = ReturnType<typeof encodeTransaction>;

const FAILS = 0.03;
const NOTE_DELAY_MS = 500;

export class StateLog {
  readonly #world: World;
  /** By transactional id, as the last record of each has it. */
  readonly #durable = new Map<string, Encoded>();
  #queue: Write[] = [];
  #notes = new Map<string, StoredTransaction>();

  constructor(world: World) {
    this.#world = world;
  }

  read(): [string, StoredTransaction][] {
    return [...this.#durable].flatMap(([transactionalId, { key, value }]): [string, StoredTransaction][] => {
      const record = decodeTransaction(key, value);
      if (record === 'unknown' || record.value === undefined) throw new Error('a record cannot be read');
      return [[transactionalId, record.value]];
    });
  }

  /** @param done told whether it is durable; if not, nothing was written */
  write(transactionalId: string, record: StoredTransaction, done: Write['done']): void {
    const isKept = this.#world.defects.has('the record of a completion is written over a later one');
    if (!isKept) this.#notes.delete(transactionalId);
    this.#queue.push({ transactionalId, record, done });
    if (this.#queue.length === 1) this.#plan();
  }

  /** A record that nobody waits for: some time, unless another one of its id comes first. */
  note(transactionalId: string, record: StoredTransaction): void {
    this.#notes.set(transactionalId, record);
    const notes = this.#notes;
    this.#world.timeline.after(NOTE_DELAY_MS, () => {
      if (notes === this.#notes) this.#writeNotes();
    });
  }

  #writeNotes(): void {
    for (const [transactionalId, record] of [...this.#notes]) {
      this.#notes.delete(transactionalId);
      this.write(transactionalId, record, () => undefined);
    }
  }

  #plan(): void {
    const { timeline, chance, weather } = this.#world;
    const queue = this.#queue;
    timeline.after(writeMs(chance), () => {
      const write = queue === this.#queue ? queue.shift() : undefined;
      if (write === undefined) return;
      const fails = weather.isStormy && chance.of(FAILS);
      if (!fails) this.#apply(write);
      if (queue.length > 0) this.#plan();
      write.done(!fails);
    });
  }

  #apply({ transactionalId, record }: Write): void {
    this.#durable.set(transactionalId, encodeTransaction(transactionalId, record));
    const { status, identity, next } = record;
    this.#world.trace?.(`  ${transactionalId} ${status} ${keyOf(identity)} then ${next && keyOf(next)}`);
    this.#world.oracle.decided(transactionalId, record);
  }

  /** Of what was on its way, some is there. @param isClean all of it */
  restart(isClean: boolean): void {
    const { chance } = this.#world;
    if (isClean) this.#writeNotes();
    this.#notes = new Map();
    const written = isClean ? this.#queue.length : chance.between(0, this.#queue.length);
    for (const write of this.#queue.slice(0, written)) this.#apply(write);
    this.#queue = [];
  }
}
