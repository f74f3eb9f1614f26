import type { LogError } from '../../src/core/errors.js';
import { type Offset, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';

/** A log whose flushes and appends wait for, or fail at, the test's word. */
export class GatedLog {
  flushes = 0;
  /** Up to where the flushes that were let through have made the log durable, and no further. */
  durableOffset: Offset = toOffset(0);
  appends = 0;
  readonly gates: { open: () => void; fail: (error: Error) => void }[] = [];
  failNextAppend: LogError | undefined;

  wrap(log: PartitionLog): PartitionLog {
    const flush = (upTo: Offset): Promise<void> => {
      this.flushes++;
      return new Promise((resolve, reject) => {
        const flushed = (): void => {
          this.durableOffset = upTo;
          resolve();
        };
        this.gates.push({ open: () => void log.flush(upTo).then(flushed, reject), fail: reject });
      });
    };
    const append = (batches: readonly Buffer[], at: Offset): Promise<Offset> => {
      this.appends++;
      const failure = this.failNextAppend;
      this.failNextAppend = undefined;
      return failure === undefined ? log.append(batches, at) : Promise.reject(failure);
    };
    return new Proxy(log, {
      get: (target, key) => {
        if (key === 'flush') return flush;
        if (key === 'append') return append;
        if (key === 'durableOffset') return this.durableOffset;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }
}
