/** An engine whose appends, syncs and openings fail, or wait, as the test says. */
import { LogError, type Reason } from '../../../src/core/errors.js';
import type { TopicPartition } from '../../../src/core/types.js';
import type { PartitionLog, StorageEngine } from '../../../src/storage/engine.js';
import { withParts } from '../support.js';

/** What of which partition; the error is what it fails with, a promise what it waits for. */
export type Fault = (what: 'append' | 'flush' | 'open', id: TopicPartition) => LogError | Promise<void> | undefined;

export class FailingEngine {
  readonly engine: StorageEngine;
  fault: Fault = () => undefined;

  constructor(engine: StorageEngine) {
    this.engine = withParts(engine, {
      startedClean: true,
      open: async (id, epoch, config) => {
        await this.#suffer('open', id);
        return this.#failing(await engine.open(id, epoch, config));
      },
    });
  }

  async #suffer(what: Parameters<Fault>[0], id: TopicPartition): Promise<void> {
    const fault = this.fault(what, id);
    if (fault instanceof LogError) throw fault;
    await fault;
  }

  #failing(log: PartitionLog): PartitionLog {
    const append: PartitionLog['append'] = async (batches, at) => {
      await this.#suffer('append', log.id);
      return await log.append(batches, at);
    };
    const flush: PartitionLog['flush'] = async (upTo) => {
      await this.#suffer('flush', log.id);
      await log.flush(upTo);
    };
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

export function failure(reason: Reason): LogError {
  return new LogError(reason, `${reason} of the test`);
}
