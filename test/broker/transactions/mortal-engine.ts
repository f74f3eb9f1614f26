/** An engine of a process that dies at one of its appends: from then on nothing is written, and nothing answers. */
import type { PartitionLog, StorageEngine } from '../../../src/storage/engine.js';
import { withParts } from '../support.js';

const NEVER = new Promise<never>(() => undefined);

export class MortalEngine {
  readonly engine: StorageEngine;
  appends = 0;
  isDead = false;
  readonly #diesAt: number;
  readonly #lands: boolean;

  /** @param diesAt number of the append, from 1. @param lands whether the log has that one all the same */
  constructor(engine: StorageEngine, diesAt: number, lands: boolean) {
    this.#diesAt = diesAt;
    this.#lands = lands;
    this.engine = withParts(engine, {
      startedClean: true,
      open: async (id, epoch, config) => this.#mortal(await engine.open(id, epoch, config)),
    });
  }

  #mortal(log: PartitionLog): PartitionLog {
    const append: PartitionLog['append'] = async (batches, at) => {
      this.appends++;
      if (this.isDead) return await NEVER;
      if (this.appends < this.#diesAt) return await log.append(batches, at);
      this.isDead = true;
      if (this.#lands) await log.append(batches, at);
      return await NEVER;
    };
    const flush: PartitionLog['flush'] = async (upTo) => (this.isDead ? await NEVER : await log.flush(upTo));
    return new Proxy(log, {
      get: (target, name) => {
        if (name === 'append') return append;
        if (name === 'flush') return flush;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }
}
