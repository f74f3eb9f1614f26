import type { Admission } from '../../broker/fetch.js';
import type { ByteBudget } from '../../core/byte-budget.js';
import type { Clock } from '../../core/clock.js';
import type { Semaphore } from '../../core/semaphore.js';
import type { OpenReaders } from './open-readers.js';

/** What each call may hold when there is no room. */
const LITTLE_BYTES = 16 * 1024;

type Read<T> = (maxBytes: number) => Promise<T>;

/** Bytes of one call that were read for its client, and that the client has not taken. */
export class OutgoingBytes {
  readonly #budget: ByteBudget;
  readonly #clock: Clock;
  #outstanding = 0;
  #lastTakenMs = 0;
  #closed = false;
  #read: () => void = () => undefined;

  constructor(budget: ByteBudget, clock: Clock) {
    this.#budget = budget;
    this.#clock = clock;
  }

  get heldBytes(): number {
    return this.#outstanding;
  }

  /** When the client took something, or had nothing to take, by the monotonic clock, in ms. */
  get lastTakenMs(): number {
    return this.#lastTakenMs;
  }

  /** Counts a message; the returned callback takes it off again, once. */
  add(bytes: number): () => void {
    if (this.#closed) return () => undefined;
    this.#budget.charge(bytes);
    if (this.#outstanding === 0) this.#lastTakenMs = this.#clock.monotonic();
    this.#outstanding += bytes;
    let counted = true;
    return () => {
      if (this.#closed || !counted) return;
      counted = false;
      this.#lastTakenMs = this.#clock.monotonic();
      this.#outstanding -= bytes;
      this.#budget.release(bytes);
    };
  }

  /**
   * Reads once there is room at every level, and counts what was read before anybody else reads: of those who wait for
   * room, not all read at once. `reads` bounds how many do.
   */
  admitting(reads: Semaphore, readers: OpenReaders, signal: AbortSignal): Admission {
    return async (read, bytesOf) => {
      for (;;) {
        const admitted = await reads.run(async () => {
          if (this.#budget.exhausted !== undefined && !signal.aborted) return await this.#readLittle(read, bytesOf);
          return { result: await this.counting(read, bytesOf) };
        });
        if (admitted !== undefined) return admitted.result;
        await this.room(readers, signal);
      }
    };
  }

  /** Who holds nothing gets a little without room, so that the tail can be followed while others hold all there is. */
  async #readLittle<T>(read: Read<T>, bytesOf: (result: T) => number): Promise<{ result: T } | undefined> {
    if (this.#outstanding > 0) return undefined;
    const result = await read(LITTLE_BYTES);
    if (bytesOf(result) > LITTLE_BYTES) return undefined;
    this.#read = this.add(bytesOf(result));
    return { result };
  }

  /** Reads and counts what was read. */
  async counting<T>(read: Read<T>, bytesOf: (result: T) => number): Promise<T> {
    const result = await read(Number.POSITIVE_INFINITY);
    this.#read = this.add(bytesOf(result));
    return result;
  }

  /** The callback that takes the last read off again. */
  get lastRead(): () => void {
    return this.#read;
  }

  /** Resolves at once when there is room at every level, else when there is, or when the call is over. */
  async room(readers: OpenReaders, signal: AbortSignal): Promise<void> {
    for (let full = this.#budget.exhausted; full !== undefined; full = this.#budget.exhausted) {
      if (signal.aborted) return;
      const waited = full;
      const stopWaiting = readers.waitFor(waited);
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done);
          resolve();
        };
        waited.whenBelow(done);
        signal.addEventListener('abort', done, { once: true });
      });
      stopWaiting();
    }
  }

  /** Takes off whatever is left: a cancelled call never tells that its messages are gone. */
  close(): void {
    this.#closed = true;
    this.#budget.release(this.#outstanding);
    this.#outstanding = 0;
  }
}
