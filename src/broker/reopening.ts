/** Partitions that could not be opened for want of room or of file handles: tried again until they can. */
import type { Clock, Timer } from '../core/clock.js';
import type { Logger } from '../core/logger.js';

/** Between two attempts. */
const INTERVAL_MS = 10_000;

export interface ReopeningOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Opens what can be opened by now. Resolves to whether there is something left to try again. */
  readonly reopen: () => Promise<boolean>;
}

export class Reopening {
  readonly #options: ReopeningOptions;
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: ReopeningOptions) {
    this.#options = options;
  }

  /** There is something to try again. */
  begin(): void {
    if (this.#closed || this.#timer !== undefined) return;
    this.#timer = this.#options.clock.setTimer(INTERVAL_MS, () => {
      this.#timer = undefined;
      this.#running = this.#run();
    });
  }

  /** Begins nothing more, and resolves when nothing is under way. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#running;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    try {
      if (await this.#options.reopen()) this.begin();
    } catch (error) {
      this.#options.logger.error({ err: error }, 'defect in the opening of partitions');
    }
  }
}
