import type { Admission } from '../../broker/fetch.js';
import type { ByteBudget } from '../../core/byte-budget.js';
import type { Semaphore } from '../../core/semaphore.js';
import type { OpenReaders } from './open-readers.js';

/** What each call may hold when there is no room. */
const LITTLE_BYTES = 16 * 1024;

type Read<T> = (maxBytes: number) => Promise<T>;

interface Counted {
  readonly bytes: number;
}

/** What the calls of a stream wait for before they read. */
export interface Gate {
  /** Bounds how many read at once. */
  readonly reads: Semaphore;
  readonly readers: OpenReaders;
  /** When the call is over. */
  readonly signal: AbortSignal;
}

/** Bytes of one call that were read for its client, and that the client has not taken. */
export class OutgoingBytes {
  readonly #budget: ByteBudget;
  /** In the order in which the client takes them. */
  readonly #messages = new Set<Counted>();
  #heldBytes = 0;
  /** Takes off what was read and is kept. */
  readonly #kept = new Set<() => void>();
  #takenCount = 0;
  #closed = false;
  #read: () => void = () => undefined;
  #whenAllTaken: (() => void) | undefined;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Messages that the client has taken so far. */
  get takenCount(): number {
    return this.#takenCount;
  }

  /** Size of the message that the client is to take next; 0 when there is none. */
  get nextBytes(): number {
    for (const { bytes } of this.#messages) return bytes;
    return 0;
  }

  /** Counts a message; the returned callback takes it off again, once. */
  add(bytes: number): () => void {
    if (this.#closed || bytes === 0) return () => undefined;
    const message: Counted = { bytes };
    this.#messages.add(message);
    this.#charge(bytes);
    return () => {
      if (!this.#messages.delete(message)) return;
      this.#takenCount++;
      this.#release(bytes);
      if (this.#messages.size === 0) this.#whenAllTaken?.();
    };
  }

  /**
   * What was read last is no message, but what messages are made of: it counts in `sources` from now on, so that it does
   * not take the room that they need. The returned callback takes it off, once.
   */
  keepLastRead(sources: ByteBudget): () => void {
    const before = this.#heldBytes;
    this.#read();
    const bytes = before - this.#heldBytes;
    sources.charge(bytes);
    const letGo = (): void => {
      if (this.#kept.delete(letGo)) sources.release(bytes);
    };
    this.#kept.add(letGo);
    return letGo;
  }

  /**
   * Reads once there is room at every level, and in `sources` if given, and counts what was read before anybody else
   * reads: of those who wait for room, not all read at once. Who holds nothing gets a little without room, so that the
   * tail can be followed while others hold all there is.
   */
  admitting({ reads, readers, signal }: Gate, sources?: ByteBudget): Admission {
    return async (read, bytesOf) => {
      let tooLarge = false;
      for (;;) {
        const takenBefore = this.#takenCount;
        const full = (): ByteBudget | undefined =>
          signal.aborted ? undefined : (this.#budget.exhausted ?? sources?.exhausted);
        const admitted = await reads.run(async () => {
          if (full() === undefined) return { result: await this.counting(read, bytesOf) };
          if (tooLarge || this.#heldBytes > 0) return undefined;
          const little = await this.#readLittle(read, bytesOf);
          tooLarge = little === undefined;
          return little;
        });
        if (admitted !== undefined) return admitted.result;
        const waited = full();
        const allTaken = this.#messages.size === 0 && this.#takenCount > takenBefore;
        if (waited !== undefined && (tooLarge || !allTaken)) await this.#room(waited, readers, signal);
      }
    };
  }

  async #readLittle<T>(read: Read<T>, bytesOf: (result: T) => number): Promise<{ result: T } | undefined> {
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

  /** Resolves when there may be room, when the client has taken all that it was sent, or when the call is over. */
  async #room(full: ByteBudget, readers: OpenReaders, signal: AbortSignal): Promise<void> {
    const stopCutting = readers.waitFor(full);
    await new Promise<void>((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        stopWaiting();
        this.#whenAllTaken = undefined;
        resolve();
      };
      const stopWaiting = full.whenBelow(done);
      this.#whenAllTaken = done;
      signal.addEventListener('abort', done, { once: true });
    });
    stopCutting();
  }

  /** Takes off whatever is left: a cancelled call never tells that its messages are gone. */
  close(): void {
    this.#closed = true;
    this.#messages.clear();
    this.#release(this.#heldBytes);
    for (const letGo of [...this.#kept]) letGo();
  }

  #charge(bytes: number): void {
    this.#heldBytes += bytes;
    this.#budget.charge(bytes);
  }

  #release(bytes: number): void {
    this.#heldBytes -= bytes;
    this.#budget.release(bytes);
  }
}
