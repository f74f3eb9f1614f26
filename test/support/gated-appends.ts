/** An engine whose appends wait, fail and are counted as the test says, and whose reads fail so. */
import type { PartitionLog, StorageEngine } from '../../src/storage/engine.js';

export class GatedAppends {
  /** Appends that reached the engine, those that failed included. */
  count = 0;
  /** What every append from number `failsFrom` on fails with, counted as `count` does; undefined: none does. */
  failure: Error | undefined;
  failsFrom = 0;
  /** Whether what fails is appended all the same. */
  appendsAnyway = false;
  /** The same for reads. */
  readFailure: Error | undefined;
  #gate: Promise<void> | undefined;

  /** The engine, with only the logs gated that `isGated` chooses by their topic's id. */
  wrap(engine: StorageEngine, isGated: (topicId: string) => boolean = () => true): StorageEngine {
    return {
      metadata: engine.metadata,
      open: async (id, epoch, config) => {
        const log = await engine.open(id, epoch, config);
        return isGated(id.topicId) ? this.#gated(log) : log;
      },
      remove: (id) => engine.remove(id),
      removeUnknown: (isKnown) => engine.removeUnknown(isKnown),
      close: () => engine.close(),
      [Symbol.asyncDispose]: () => engine.close(),
    };
  }

  /** Appends wait from here on. @returns lets them go on */
  hold(): () => void {
    let release = (): void => undefined;
    this.#gate = new Promise((resolve) => {
      release = () => {
        this.#gate = undefined;
        resolve();
      };
    });
    return release;
  }

  #gated(log: PartitionLog): PartitionLog {
    const append: PartitionLog['append'] = async (batches, at) => {
      const number = ++this.count;
      await this.#gate;
      const fails = this.failure !== undefined && number >= this.failsFrom;
      if (fails && !this.appendsAnyway) throw this.failure;
      const end = await log.append(batches, at);
      if (fails) throw this.failure;
      return end;
    };
    const read: PartitionLog['read'] = async (...range) => {
      if (this.readFailure !== undefined) throw this.readFailure;
      return await log.read(...range);
    };
    return new Proxy(log, {
      get: (target, name) => {
        if (name === 'read') return read;
        if (name === 'append') return append;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }
}
