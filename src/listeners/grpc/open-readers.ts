import type { ByteBudget } from '../../core/byte-budget.js';
import type { Clock, Timer } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import type { OutgoingBytes } from './outgoing-bytes.js';

/** A reader that takes nothing for so long, while others wait for the room that it holds, is cut off; in ms. */
export const STALLED_MS = 2_000;
const CHECK_MS = 250;

export interface OpenReadersOptions {
  /** What all of them share. */
  readonly budget: ByteBudget;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * The fetch streams that are open. A client that does not read holds what was sent to it for as long as it likes: when
 * all the room is held like that, the others would wait for ever.
 */
export class OpenReaders {
  readonly #options: OpenReadersOptions;
  readonly #open = new Map<OutgoingBytes, () => void>();
  #waiting = 0;
  #timer: Timer | undefined;

  constructor(options: OpenReadersOptions) {
    this.#options = options;
  }

  /** @param cutOff ends the call and lets go of all that it holds */
  add(reader: OutgoingBytes, cutOff: () => void): void {
    this.#open.set(reader, cutOff);
  }

  remove(reader: OutgoingBytes): void {
    this.#open.delete(reader);
  }

  /** Somebody waits for room in `full` until the returned function is called. */
  waitFor(full: ByteBudget): () => void {
    if (full !== this.#options.budget) return () => undefined;
    this.#waiting++;
    if (this.#waiting === 1) this.#checkLater();
    return () => {
      this.#waiting--;
      if (this.#waiting === 0) this.#timer?.cancel();
    };
  }

  #checkLater(): void {
    this.#timer = this.#options.clock.setTimer(CHECK_MS, () => {
      this.#cutOffStalled();
      if (this.#waiting > 0) this.#checkLater();
    });
  }

  #cutOffStalled(): void {
    const { budget, clock, logger } = this.#options;
    const nowMs = clock.monotonic();
    let readers = 0;
    for (const [reader, cutOff] of [...this.#open]) {
      if (budget.exhausted === undefined) break;
      if (reader.heldBytes === 0 || nowMs - reader.lastTakenMs < STALLED_MS) continue;
      readers++;
      this.#open.delete(reader);
      cutOff();
    }
    if (readers > 0) logger.warn({ readers }, 'readers that took nothing were cut off: others wait for the room');
  }
}
