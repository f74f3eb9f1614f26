import type { ByteBudget } from '../../core/byte-budget.js';
import type { Clock, Timer } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import type { OutgoingBytes } from './outgoing-bytes.js';

/** A reader that takes nothing for so long, while others wait for the room that it holds, is cut off; in ms. */
export const STALLED_MS = 2_000;
/** Who takes a large message more slowly than this is cut off as well; in bytes per ms, 128 KiB/s. */
const SLOWEST_BYTES_PER_MS = 128;
const CHECK_MS = 250;

export interface OpenReadersOptions {
  /** What all of them share. */
  readonly budgets: readonly ByteBudget[];
  readonly clock: Clock;
  readonly logger: Logger;
}

interface OpenReader {
  readonly cutOff: () => void;
  /** What it had taken at the last check. */
  takenCount: number;
  /** Checks in a row at which it held something and had taken nothing more. */
  stalledChecks: number;
}

/**
 * The fetch streams that are open. A client that does not read holds what was sent to it for as long as it likes: when
 * all the room is held like that, the others would wait for ever.
 *
 * Checks are counted, not time: when this process itself stands still, nobody can take anything, and the time of that
 * is nobody's fault.
 */
export class OpenReaders {
  readonly #options: OpenReadersOptions;
  readonly #open = new Map<OutgoingBytes, OpenReader>();
  #waiting = 0;
  /** Whether anybody has waited since the last check; those who wait in turns for the little that comes free count. */
  #contested = false;
  #timer: Timer | undefined;

  constructor(options: OpenReadersOptions) {
    this.#options = options;
  }

  /** @param cutOff ends the call */
  add(outgoing: OutgoingBytes, cutOff: () => void): void {
    this.#open.set(outgoing, { cutOff, takenCount: 0, stalledChecks: 0 });
  }

  remove(outgoing: OutgoingBytes): void {
    this.#open.delete(outgoing);
    if (this.#open.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Somebody waits for room in `full` until the returned function is called. */
  waitFor(full: ByteBudget): () => void {
    if (!this.#options.budgets.includes(full)) return () => undefined;
    this.#waiting++;
    this.#contested = true;
    if (this.#timer === undefined) this.#checkLater();
    return () => void this.#waiting--;
  }

  #checkLater(): void {
    this.#timer = this.#options.clock.setTimer(CHECK_MS, () => {
      this.#timer = undefined;
      if (this.#contested) {
        this.#check();
        this.#contested = this.#waiting > 0;
        this.#checkLater();
      } else {
        for (const reader of this.#open.values()) reader.stalledChecks = 0;
      }
    });
  }

  /** Of those who stall, who holds most goes first, and no more than it takes. */
  #check(): void {
    const stalled = [...this.#open].filter(([outgoing, reader]) => isStalled(outgoing, reader));
    stalled.sort(([a], [b]) => b.heldBytes - a.heldBytes);
    let cutOff = 0;
    for (const [outgoing, reader] of stalled) {
      if (this.#options.budgets.every((budget) => budget.exhausted === undefined)) break;
      cutOff++;
      this.#open.delete(outgoing);
      reader.cutOff();
      outgoing.close();
    }
    if (cutOff > 0) {
      const message = 'readers that took nothing were cut off: others wait for the room';
      this.#options.logger.warn({ readers: cutOff }, message);
    }
  }
}

function isStalled(outgoing: OutgoingBytes, reader: OpenReader): boolean {
  const { takenCount, nextBytes } = outgoing;
  reader.stalledChecks = nextBytes > 0 && takenCount === reader.takenCount ? reader.stalledChecks + 1 : 0;
  reader.takenCount = takenCount;
  return reader.stalledChecks * CHECK_MS >= patienceMs(nextBytes);
}

/** One message is taken at once or not at all, as far as can be seen here: a large one may take its time. */
function patienceMs(messageBytes: number): number {
  return Math.max(STALLED_MS, messageBytes / SLOWEST_BYTES_PER_MS);
}
