/**
 * Where compaction runs: in a worker thread of its own, so that reading, hashing and writing gigabytes never holds up
 * the event loop. The thread starts with the first pass and ends when there has been nothing to do for a while.
 *
 * Over a file system that is not the real one, which no other thread can reach, and where the thread's file is missing
 * (a program bundled into one file), the passes run here instead, in pieces of a megabyte.
 */
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '../../../core/clock.js';
import { errorMessage, isReason, LogError } from '../../../core/errors.js';
import type { Logger } from '../../../core/logger.js';
import { type FileSystem, nodeFileSystem } from '../fs.js';
import { type CleanedGroup, type CleanSummary, type CleanTask, cleanPass } from './clean-pass.js';

/** To the thread. */
export type CleanerRequest =
  | { readonly kind: 'start'; readonly task: CleanTask; readonly stop: Int32Array }
  /** The group that was sent last is dealt with. */
  | { readonly kind: 'next' }
  /** No further group is wanted. */
  | { readonly kind: 'end' };

/** From the thread. */
export type CleanerAnswer =
  | { readonly kind: 'ready' }
  | { readonly kind: 'group'; readonly group: CleanedGroup }
  | { readonly kind: 'done'; readonly summary: CleanSummary | undefined }
  | { readonly kind: 'failed'; readonly error: CleanerFailure };

/** A LogError in plain data. */
export interface CleanerFailure {
  readonly reason: string;
  readonly message: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/** One pass under way: groups one by one, then the summary. */
export type CleanerRun = AsyncGenerator<CleanedGroup, CleanSummary, void>;

/** The thread ends after this long without a pass. */
const IDLE_MS = 10_000;
const THREAD_URL: URL = new URL('./cleaner-worker.js', import.meta.url);

export class CleanerThread {
  readonly #fs: FileSystem;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #thread: Thread | undefined;
  /** Whether passes run here. */
  #inline: boolean;
  #idleTimer: Timer | undefined;
  /** Ends with the pass that was asked for last. */
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(fs: FileSystem, clock: Clock, logger: Logger) {
    this.#fs = fs;
    this.#clock = clock;
    this.#logger = logger;
    this.#inline = fs !== nodeFileSystem;
  }

  /**
   * Runs a pass (see `cleanPass`), after those that were asked for before.
   * @param stop set its first element to 1, with `Atomics.store`, to end the pass soon with CANCELLED
   */
  async *run(task: CleanTask, stop: Int32Array): CleanerRun {
    const before = this.#last;
    let leave = (): void => undefined;
    this.#last = new Promise((resolve) => {
      leave = resolve;
    });
    try {
      await before;
      return yield* this.#runAlone(task, stop);
    } finally {
      leave();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idleTimer?.cancel();
    await this.#thread?.end();
  }

  async *#runAlone(task: CleanTask, stop: Int32Array): CleanerRun {
    if (this.#closed) throw new LogError('CLOSED', 'The storage engine is closed.');
    this.#idleTimer?.cancel();
    const thread = this.#inline ? undefined : await this.#start();
    if (!thread) return yield* cleanPass(this.#fs, task, () => Atomics.load(stop, 0) !== 0);
    try {
      return yield* thread.run(task, stop);
    } finally {
      this.#endWhenIdle();
    }
  }

  /** The thread; undefined when it cannot be started, which is not tried again. */
  async #start(): Promise<Thread | undefined> {
    if (this.#thread?.isAlive) return this.#thread;
    const thread = new Thread();
    try {
      await thread.ready();
    } catch (error) {
      this.#inline = true;
      this.#logger.warn(
        { err: error },
        'compaction has no thread of its own: it runs on the event loop, in small pieces',
      );
      return undefined;
    }
    this.#thread = thread;
    return thread;
  }

  #endWhenIdle(): void {
    if (this.#closed) return;
    this.#idleTimer?.cancel();
    this.#idleTimer = this.#clock.setTimer(IDLE_MS, () => {
      const thread = this.#thread;
      // A pass that begins while it ends must not be given to it.
      this.#thread = undefined;
      void thread?.end();
    });
  }
}

/** A worker thread, asked and answering one message at a time. */
class Thread {
  readonly #worker: Worker;
  #answers: CleanerAnswer[] = [];
  #wake: (() => void) | undefined;
  #failure: Error | undefined;

  constructor() {
    // An empty list: flags of the main program, such as those of a test runner, are not for this thread.
    this.#worker = new Worker(THREAD_URL, { execArgv: [], name: 'tidelog-cleaner' });
    this.#worker.on('message', (answer: CleanerAnswer) => {
      this.#answers.push(answer);
      this.#wake?.();
    });
    this.#worker.on('error', (error: Error) => this.#fail(error));
    this.#worker.on('exit', (code) => this.#fail(new Error(`the thread ended with code ${code}`)));
  }

  get isAlive(): boolean {
    return this.#failure === undefined;
  }

  async ready(): Promise<void> {
    await this.#answer();
  }

  async *run(task: CleanTask, stop: Int32Array): CleanerRun {
    this.#ask({ kind: 'start', task, stop });
    let finished = false;
    try {
      for (;;) {
        const answer = await this.#answer();
        finished = answer.kind !== 'group';
        if (answer.kind === 'group') yield answer.group;
        else return summaryOf(answer);
        this.#ask({ kind: 'next' });
      }
    } finally {
      if (!finished && this.isAlive) await this.#abandon(stop);
    }
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  /** Waits until the thread has put away what it was at. */
  async #abandon(stop: Int32Array): Promise<void> {
    Atomics.store(stop, 0, 1);
    this.#ask({ kind: 'end' });
    while ((await this.#answer()).kind === 'group');
  }

  #ask(request: CleanerRequest): void {
    this.#worker.postMessage(request);
  }

  /** The thread keeps the process alive only while somebody waits for it. */
  async #answer(): Promise<CleanerAnswer> {
    this.#worker.ref();
    try {
      while (this.#answers.length === 0) {
        if (this.#failure) throw threadFailed(this.#failure);
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      return this.#answers.shift()!;
    } finally {
      this.#worker.unref();
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wake?.();
  }
}

function summaryOf(answer: CleanerAnswer): CleanSummary {
  if (answer.kind === 'done' && answer.summary) return answer.summary;
  if (answer.kind !== 'failed') throw new LogError('INTERNAL', 'The compaction thread answered out of turn.');
  const { reason, message, metadata } = answer.error;
  throw new LogError(isReason(reason) ? reason : 'INTERNAL', message, { metadata, outcome: 'none' });
}

function threadFailed(cause: Error): LogError {
  return new LogError('STORAGE_ERROR', `The compaction thread failed: ${errorMessage(cause)}.`, {
    cause,
    outcome: 'none',
  });
}
