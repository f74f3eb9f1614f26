/** The producer's buffer limit, and who waits for room in it. */
import { cancelled, onAbort, throwIfAborted } from './failures.js';
import { Fifo } from './fifo.js';

/** Something to do once there is room. `run` must not throw. */
export interface GateEntry {
  run(): void;
  /** Set when whoever waited gave up. */
  abandoned: boolean;
}

/**
 * Counts bytes against a limit. Whoever finds it used up waits in order of arrival; charging itself never fails, so the
 * overshoot is at most one record. Invariant: while somebody waits, nobody passes by.
 */
export class ByteGate {
  readonly limitBytes: number;
  readonly #waiting = new Fifo<GateEntry>();
  #usedBytes = 0;
  #draining = false;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  /** Whether a record may be appended right now. */
  get isOpen(): boolean {
    return this.#usedBytes < this.limitBytes && this.#waiting.length === 0;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  charge(bytes: number): void {
    this.#usedBytes += bytes;
  }

  release(bytes: number): void {
    this.#usedBytes -= bytes;
    this.#drain();
  }

  /** Queues `entry` and runs it, at once or later, when there is room and its turn has come. */
  enter(entry: GateEntry): void {
    this.#waiting.push(entry);
    this.#drain();
  }

  /** Resolves when there is room and the caller's turn has come. @throws LogError CANCELLED once `signal` is aborted */
  room(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      throwIfAborted(signal);
      const entry: GateEntry = {
        abandoned: false,
        run: () => {
          stopListening();
          resolve();
        },
      };
      const stopListening = onAbort(signal, () => {
        entry.abandoned = true;
        reject(cancelled(signal as AbortSignal));
      });
      this.enter(entry);
    });
  }

  #drain(): void {
    // An entry's run may release bytes in turn; the outer loop goes on then.
    if (this.#draining) return;
    this.#draining = true;
    while (this.#usedBytes < this.limitBytes) {
      const entry = this.#waiting.shift();
      if (entry === undefined) break;
      if (!entry.abandoned) entry.run();
    }
    this.#draining = false;
  }
}
