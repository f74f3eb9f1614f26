import type { Admission } from '../../broker/fetch.js';
import type { ByteBudget } from '../../core/byte-budget.js';
import type { Semaphore } from '../../core/semaphore.js';

/** Bytes of one call that were read for its client, and that the client has not taken. */
export class OutgoingBytes {
  readonly #budget: ByteBudget;
  #outstanding = 0;
  #closed = false;
  #read: () => void = () => undefined;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  /** Counts a message; the returned callback takes it off again, once. */
  add(bytes: number): () => void {
    if (this.#closed) return () => undefined;
    this.#budget.charge(bytes);
    this.#outstanding += bytes;
    let counted = true;
    return () => {
      if (this.#closed || !counted) return;
      counted = false;
      this.#outstanding -= bytes;
      this.#budget.release(bytes);
    };
  }

  /**
   * Reads once there is room at every level, and counts what was read before anybody else reads: of those who wait for
   * room, not all read at once. `reads` bounds how many do.
   */
  admitting(reads: Semaphore, signal: AbortSignal): Admission {
    return async (read, bytesOf) => {
      for (;;) {
        await this.room(signal);
        const done = await reads.run(async () => {
          if (this.#budget.exhausted !== undefined && !signal.aborted) return undefined;
          return { result: await this.counting(read, bytesOf) };
        });
        if (done !== undefined) return done.result;
      }
    };
  }

  /** Reads and counts what was read. */
  async counting<T>(read: () => Promise<T>, bytesOf: (result: T) => number): Promise<T> {
    const result = await read();
    this.#read = this.add(bytesOf(result));
    return result;
  }

  /** The callback that takes the last read off again. */
  get lastRead(): () => void {
    return this.#read;
  }

  /** Resolves at once when there is room at every level, else when there is, or when the call is over. */
  async room(signal: AbortSignal): Promise<void> {
    for (let full = this.#budget.exhausted; full !== undefined; full = this.#budget.exhausted) {
      if (signal.aborted) return;
      const waited = full;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done);
          resolve();
        };
        waited.whenBelow(done);
        signal.addEventListener('abort', done, { once: true });
      });
    }
  }

  /** Takes off whatever is left: a cancelled call never tells that its messages are gone. */
  close(): void {
    this.#closed = true;
    this.#budget.release(this.#outstanding);
    this.#outstanding = 0;
  }
}
