/**
 * The open `.log` files of an engine: at most so many, the least recently used closed first.
 *
 * A descriptor number is reused as soon as it is closed, so closing one that a write or read still means would send
 * bytes into another file. Hence leases: whoever uses a descriptor holds one, and only files without are ever closed.
 * Files with bytes that no sync has covered stay leased ("pinned"), because a sync of a file that was closed and opened
 * again may miss the error of an earlier write-back.
 */
import type { FileDescriptor, FileSystem, OpenMode } from './fs.js';
import { isOutOfHandles, toStorageError } from './io-errors.js';
import { closeFile } from './small-files.js';

export const DEFAULT_MAX_OPEN_FILES = 4096;

/** How many of the pinned files are synced at once when their handles are needed. */
const RECLAIM_BATCH = 8;

/** The right to use a descriptor, until released. */
export interface Lease {
  readonly fd: FileDescriptor;
  /** Idempotent. */
  release(): void;
}

interface OpenFile {
  readonly path: string;
  readonly fd: FileDescriptor;
  leases: number;
  forgotten: boolean;
}

/**
 * Makes the bytes of a pinned file durable and so frees its handle, unless others were written meanwhile. Resolves to
 * whether anything was synced; never rejects.
 */
export type Unpin = () => Promise<boolean>;

/** Invariant: `openCount <= maxOpen`; a path has at most one descriptor that is not forgotten. */
export class FileCache {
  readonly #fs: FileSystem;
  readonly #maxOpen: number;
  readonly #leased = new Map<string, OpenFile>();
  /** In the order in which they were used last. */
  readonly #idle = new Map<string, OpenFile>();
  readonly #pins = new Map<string, Unpin>();
  /** Files whose name is gone but that are still in use. */
  #forgottenCount = 0;
  #reclaiming = false;
  #waiting: (() => void)[] = [];

  constructor(fs: FileSystem, maxOpen: number = DEFAULT_MAX_OPEN_FILES) {
    this.#fs = fs;
    this.#maxOpen = maxOpen;
  }

  get openCount(): number {
    return this.#leased.size + this.#idle.size + this.#forgottenCount;
  }

  /**
   * A lease at once, or undefined when every handle is in use.
   * @throws LogError RESOURCE_LIMIT (the process may open no more), STORAGE_FULL, STORAGE_ERROR: nothing happened
   */
  tryAcquire(path: string, mode: OpenMode = 'update'): Lease | undefined {
    const leased = this.#leased.get(path);
    if (leased) return this.#lease(leased);
    const idle = this.#idle.get(path);
    if (idle) {
      this.#idle.delete(path);
      this.#leased.set(path, idle);
      return this.#lease(idle);
    }
    if (this.openCount >= this.#maxOpen && !this.#closeOldest()) return undefined;
    const file: OpenFile = { path, fd: this.#open(path, mode), leases: 0, forgotten: false };
    this.#leased.set(path, file);
    return this.#lease(file);
  }

  /**
   * A lease, waiting for a handle to become free. Only for callers that hold none: two that each held what the other
   * waits for would wait for ever.
   * @throws LogError as `tryAcquire`
   */
  async acquire(path: string, mode: OpenMode = 'update'): Promise<Lease> {
    for (;;) {
      const lease = this.tryAcquire(path, mode);
      if (lease) return lease;
      await this.room();
    }
  }

  /** Resolves when a handle may have become free. Bounded by its callers: each waits for one thing at a time. */
  room(): Promise<void> {
    const freed = new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#pins.size > 0) this.#startReclaiming();
    return freed;
  }

  get maxOpen(): number {
    return this.#maxOpen;
  }

  /** Says that a leased file holds bytes that are not synced, and how to change that. */
  pin(path: string, unpin: Unpin): void {
    this.#pins.set(path, unpin);
    if (this.#pins.size * 2 > this.#maxOpen || this.#waiting.length > 0) this.#startReclaiming();
  }

  unpin(path: string): void {
    this.#pins.delete(path);
  }

  /** Closes a file for good: at once, or when its last lease is released. Opening the path again opens it anew. */
  forget(path: string): void {
    this.unpin(path);
    const idle = this.#idle.get(path);
    if (idle) {
      this.#idle.delete(path);
      this.#close(idle);
    }
    const leased = this.#leased.get(path);
    if (!leased) return;
    this.#leased.delete(path);
    leased.forgotten = true;
    this.#forgottenCount++;
  }

  /** Closes every file that nobody uses. */
  closeIdle(): void {
    while (this.#closeOldest());
  }

  #open(path: string, mode: OpenMode): FileDescriptor {
    try {
      return this.#fs.openSync(path, mode);
    } catch (error) {
      // The process may be at its own limit before ours: give back what can be spared, once.
      if (!isOutOfHandles(error) || this.#idle.size === 0) throw toStorageError('open', path, error, 'none');
    }
    this.#closeSpare();
    try {
      return this.#fs.openSync(path, mode);
    } catch (error) {
      throw toStorageError('open', path, error, 'none');
    }
  }

  /** Runs work that opens a file of its own; at the process's limit, once more when some handles were given back. */
  async withHandle<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isOutOfHandles(error) || this.#idle.size === 0) throw error;
    }
    this.#closeSpare();
    return await work();
  }

  #closeSpare(): void {
    for (let spare = Math.ceil(this.#idle.size / 2); spare > 0; spare--) this.#closeOldest();
  }

  #lease(file: OpenFile): Lease {
    file.leases++;
    let released = false;
    return {
      fd: file.fd,
      release: () => {
        if (released) return;
        released = true;
        this.#release(file);
      },
    };
  }

  #release(file: OpenFile): void {
    file.leases--;
    if (file.leases > 0) return;
    if (file.forgotten) {
      this.#forgottenCount--;
      this.#close(file);
    } else {
      this.#leased.delete(file.path);
      this.#idle.set(file.path, file);
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  #closeOldest(): boolean {
    const [oldest] = this.#idle.values();
    if (!oldest) return false;
    this.#idle.delete(oldest.path);
    this.#close(oldest);
    return true;
  }

  /** Nothing can be lost here: files with bytes not yet synced are never idle. */
  #close(file: OpenFile): void {
    closeFile(this.#fs, file.fd);
  }

  #startReclaiming(): void {
    if (this.#reclaiming) return;
    this.#reclaiming = true;
    void this.#reclaim();
  }

  /** Syncs what was pinned first, again and again while somebody waits for a handle and syncs succeed. */
  async #reclaim(): Promise<void> {
    let isWorking: boolean;
    do {
      const oldest = [...this.#pins].slice(0, RECLAIM_BATCH);
      const synced = await Promise.all(oldest.map(([, unpin]) => unpin()));
      isWorking = synced.some(Boolean);
      for (const [path, unpin] of oldest) this.#pinAgain(path, unpin);
    } while (this.#waiting.length > 0 && this.#pins.size > 0 && isWorking);
    this.#reclaiming = false;
  }

  /** One that was written to while it was synced keeps its handle: others come first now. */
  #pinAgain(path: string, unpin: Unpin): void {
    if (this.#pins.get(path) !== unpin) return;
    this.#pins.delete(path);
    this.#pins.set(path, unpin);
  }
}
