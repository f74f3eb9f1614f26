/**
 * Group commit: one `fdatasync` at a time for each log, which covers everything appended before it began. Whoever asks
 * while it runs shares the next one.
 *
 * A failed sync is final. The kernel may have dropped the pages and marked them clean, so that trying again would
 * succeed without the data. A pass for which there was no file handle has not begun, so another may.
 */
import type { Semaphore } from '../../core/semaphore.js';
import { isUntriedSync } from './io-errors.js';

/** One pass: makes everything appended so far durable. */
export type SyncPass = () => Promise<void>;

export class Flusher {
  readonly #semaphore: Semaphore;
  readonly #sync: SyncPass;
  /** The pass that is running or waits for its permit. */
  #current: Promise<void> | undefined;
  /** Whether the current pass has its permit: what is appended from then on is not covered by it. */
  #begun = false;
  /** The pass after the current one. */
  #next: Promise<void> | undefined;
  #failure: unknown;

  /** @param semaphore bounds the syncs of all logs, so that reads keep some threads of the pool */
  constructor(semaphore: Semaphore, sync: SyncPass) {
    this.#semaphore = semaphore;
    this.#sync = sync;
  }

  /**
   * Resolves when everything appended before the call is durable.
   * @throws what the pass threw; after that every call throws it, without another sync, unless it was RESOURCE_LIMIT
   */
  flush(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#next) return this.#next;
    if (!this.#current) return this.#start();
    if (!this.#begun) return this.#current;
    // Also behind a pass that found no file handle, which says nothing of the next one.
    const startNext = (): Promise<void> => this.#startUnlessFailed();
    this.#next = this.#current.then(startNext, startNext);
    return this.#next;
  }

  #startUnlessFailed(): Promise<void> {
    return this.#failure === undefined ? this.#start() : Promise.reject(this.#failure);
  }

  #start(): Promise<void> {
    this.#next = undefined;
    this.#begun = false;
    this.#current = this.#run();
    return this.#current;
  }

  async #run(): Promise<void> {
    try {
      await this.#semaphore.run(() => {
        this.#begun = true;
        return this.#sync();
      });
    } catch (error) {
      if (!isUntriedSync(error)) this.#failure = error;
      throw error;
    } finally {
      this.#current = undefined;
    }
  }
}
