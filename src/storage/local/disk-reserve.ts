/**
 * Space that appends leave free on the file system of the data directory, so that deleting records, writing checkpoints
 * and all else that makes room again still works when the disk is nearly full.
 *
 * Free space is asked for at most once a second, and only while something is appended or refused, and before each pass of
 * compaction; what was appended since counts as used.
 */
import type { Clock, Timer } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { FileSystem } from './fs.js';

/** How often the file system is asked while there is a reason to. */
const CHECK_INTERVAL_MS = 1_000;

export class DiskReserve {
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #reserveBytes: number;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** As the file system said last; until it has, nothing is refused. */
  #freeBytes: number = Number.POSITIVE_INFINITY;
  #appendedSince = 0;
  /** The largest append refused since there was room for all; 0 while none is. */
  #refusedBytes = 0;
  #timer: Timer | undefined;
  #asking: Promise<void> | undefined;
  #closed = false;

  /** @param reserveBytes 0: no reserve, the file system is never asked */
  constructor(fs: FileSystem, path: string, reserveBytes: number, clock: Clock, logger: Logger) {
    this.#fs = fs;
    this.#path = path;
    this.#reserveBytes = reserveBytes;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Asks the file system. Its failure is logged and changes nothing: what cannot be known must not stop appends. */
  refresh(): Promise<void> {
    if (this.#reserveBytes === 0 || this.#closed) return Promise.resolve();
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  /** Counts an append of `bytes`, which is about to be written. @throws LogError STORAGE_FULL: nothing happened */
  take(bytes: number): void {
    if (this.#reserveBytes === 0) return;
    this.#checkLater();
    if (this.isShort(bytes)) throw this.#refuse(bytes);
    this.#appendedSince += bytes;
  }

  /** Whether less than the reserve would be free after `bytes` more. */
  isShort(bytes = 0): boolean {
    return this.#freeBytes - this.#appendedSince - bytes < this.#reserveBytes;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#asking;
  }

  #checkLater(): void {
    if (this.#timer || this.#closed) return;
    this.#timer = this.#clock.setTimer(CHECK_INTERVAL_MS, () => {
      this.#timer = undefined;
      void this.refresh().then(() => {
        if (this.#refusedBytes > 0) this.#checkLater();
      });
    });
  }

  async #ask(): Promise<void> {
    const appendedBefore = this.#appendedSince;
    try {
      this.#freeBytes = await this.#fs.freeBytes(this.#path);
    } catch (error) {
      this.#logger.warn({ directory: this.#path, err: error }, 'the free space of the disk cannot be found out');
      this.#freeBytes = Number.POSITIVE_INFINITY;
    }
    // What was appended while the file system answered may or may not be counted in its answer.
    this.#appendedSince -= appendedBefore;
    // Room for less would be taken back by the next append of that size, second after second.
    if (this.#refusedBytes === 0 || this.isShort(this.#refusedBytes)) return;
    this.#refusedBytes = 0;
    this.#logger.info({ ...this.#facts() }, 'the disk has room again: appends are taken');
  }

  #refuse(bytes: number): LogError {
    const facts = this.#facts();
    const isFirst = this.#refusedBytes === 0;
    this.#refusedBytes = Math.max(this.#refusedBytes, bytes);
    if (isFirst) {
      this.#logger.error(facts, 'the disk is nearly full: appends are refused, reading and deleting go on');
    }
    return new LogError(
      'STORAGE_FULL',
      `Only ${facts.freeBytes} bytes are free on the disk of ${this.#path}, and ${this.#reserveBytes} are kept in ` +
        'reserve (log.disk.reserve.bytes). Delete records or topics, or free some space: appends resume by themselves.',
      {
        metadata: { free_bytes: facts.freeBytes, reserve_bytes: this.#reserveBytes },
        retryAfterMs: CHECK_INTERVAL_MS,
      },
    );
  }

  #facts(): { readonly directory: string; readonly freeBytes: number; readonly reserveBytes: number } {
    const freeBytes = Math.max(0, this.#freeBytes - this.#appendedSince);
    return { directory: this.#path, freeBytes, reserveBytes: this.#reserveBytes };
  }
}
