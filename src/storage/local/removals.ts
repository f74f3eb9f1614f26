/**
 * Files that are no longer part of a log, renamed to `.deleted`: removed after a while, one after the other, so that
 * whoever reads one finishes and the disk has time for others. What is left when the process ends is removed when
 * the log is opened again.
 */
import type { Clock, Timer } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import type { FileSystem } from './fs.js';

interface Removal {
  readonly paths: readonly string[];
  /** By the monotonic clock. */
  readonly dueMs: number;
}

export class Removals {
  readonly #fs: FileSystem;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** Ascending by `dueMs`. Its files exist, so the disk bounds its length. */
  readonly #queue: Removal[] = [];
  #timer: Timer | undefined;
  #working: Promise<void> | undefined;
  #closed = false;

  constructor(fs: FileSystem, clock: Clock, logger: Logger) {
    this.#fs = fs;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Removes the files `delayMs` from now. */
  add(paths: readonly string[], delayMs: number): void {
    const dueMs = this.#clock.monotonic() + delayMs;
    const next = this.#queue.findIndex((removal) => removal.dueMs > dueMs);
    this.#queue.splice(next < 0 ? this.#queue.length : next, 0, { paths, dueMs });
    if (next <= 0) this.#schedule();
  }

  /** Removes nothing more, and resolves when the removal under way has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#working;
  }

  #schedule(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const first = this.#queue[0];
    if (!first || this.#closed || this.#working) return;
    const delayMs = Math.max(0, first.dueMs - this.#clock.monotonic());
    this.#timer = this.#clock.setTimer(delayMs, () => {
      this.#working = this.#removeDue().finally(() => {
        this.#working = undefined;
        this.#schedule();
      });
    });
  }

  async #removeDue(): Promise<void> {
    for (;;) {
      const first = this.#queue[0];
      if (!first || this.#closed || first.dueMs > this.#clock.monotonic()) return;
      this.#queue.shift();
      for (const path of first.paths) await this.#remove(path);
    }
  }

  async #remove(path: string): Promise<void> {
    try {
      await this.#fs.unlink(path);
    } catch (error) {
      this.#logger.warn({ file: path, err: error }, 'a file that is no longer needed could not be removed');
    }
  }
}
