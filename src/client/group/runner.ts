/** `consumer.run`: handlers in parallel, in the order asked for. */
import { toLogError } from '../../core/errors.js';
import type { ResolvedRunOptions } from '../consumer-options.js';
import type { ReadRecord } from '../record-batch.js';
import { ConsumedBatch } from './consumed.js';
import type { Holding } from './holding.js';
import { Lanes, type Task } from './lanes.js';
import type { Participation } from './participation.js';
import type { Work } from './poll-deadline.js';

export type Handler<K, V> = (record: ReadRecord<K, V>) => void | Promise<void>;

/** Records that wait for others of their key, for each handler that may run at once. */
const WAITING_PER_HANDLER = 64;

interface Running<K, V> {
  readonly task: Task<K, V>;
  readonly startedAtMs: number;
}

/**
 * Invariants: at most `concurrency` handlers are under way, the oldest first in `#running`; of a partition or a key, as
 * the order says, at most one; a record starts only while its partition is held and not paused. What waits for its key
 * counts as handed out and unfinished, so that no commit passes it.
 */
export class Runner<K, V> {
  readonly #participation: Participation<K, V>;
  readonly #handler: Handler<K, V>;
  readonly #options: ResolvedRunOptions;
  readonly #monotonic: () => number;
  readonly #maxPollIntervalMs: number;
  readonly #maxBytes: number;
  readonly #lanes: Lanes<K, V>;
  readonly #running = new Set<Running<K, V>>();
  /** Partitions, or keys, of which a handler is under way. */
  readonly #busy = new Set<string>();
  /** Records that wait for others of their key, by key. */
  readonly #waiting = new Map<string, Task<K, V>[]>();
  /** Of these, those that take room: not what waits for a paused partition, for however long, while others go on. */
  #waitingCount = 0;
  #failure: { readonly error: unknown } | undefined;
  /** Between two slices of starting handlers. */
  #isPausing = false;
  #wakeFetcher: () => void = () => {};
  #wakeDrained: () => void = () => {};

  constructor(
    participation: Participation<K, V>,
    handler: Handler<K, V>,
    options: ResolvedRunOptions,
    limits: {
      readonly monotonic: () => number;
      readonly maxPollIntervalMs: number;
      /** Of batches taken and not worked off, as they are stored. */
      readonly maxBytes: number;
    },
  ) {
    this.#participation = participation;
    this.#handler = handler;
    this.#options = options;
    this.#monotonic = limits.monotonic;
    this.#maxPollIntervalMs = limits.maxPollIntervalMs;
    this.#maxBytes = limits.maxBytes;
    this.#lanes = new Lanes(
      (batch) => participation.feed.mayHandOut(batch),
      () => this.#schedule(),
      (error) => this.#fail(error),
    );
    participation.isSequential = options.concurrency === 1;
    participation.oldestWork = () => this.#oldest();
    participation.onChange = () => {
      this.#countWaiting();
      this.#schedule();
    };
  }

  /**
   * Runs until the participation is stopped or a handler fails, then waits for the handlers under way.
   * @throws what a handler threw; LogError what stopped the participation
   */
  async run(): Promise<never> {
    try {
      for (;;) {
        await this.#hungry();
        const batch = await this.#participation.feed.next();
        this.#lanes.push(batch);
        this.#schedule();
      }
    } catch (error) {
      this.#fail(error);
    }
    await this.#drained();
    throw this.#failure?.error;
  }

  /** Resolves when handlers wait for records, or none will begin any more, however much was taken for them. */
  async #hungry(): Promise<void> {
    while (!this.#isHungry() && !this.#isStopped) {
      await new Promise<void>((resolve) => {
        this.#wakeFetcher = resolve;
      });
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #isHungry(): boolean {
    return this.#hasRoom() && this.#lanes.sizeInBytes < this.#maxBytes;
  }

  #hasRoom(): boolean {
    const { concurrency } = this.#options;
    return this.#running.size < concurrency && this.#waitingCount < concurrency * WAITING_PER_HANDLER;
  }

  /** Starts what can be started. */
  #schedule(): void {
    try {
      while (!this.#isStopped && this.#running.size < this.#options.concurrency) {
        if (this.#participation.slices.isOver) {
          this.#goOnAfterPause();
          break;
        }
        const task = this.#takeWaiting() ?? this.#takeNew();
        if (task === undefined) break;
        this.#start(task);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#wakeFetcher();
  }

  #goOnAfterPause(): void {
    if (this.#isPausing) return;
    this.#isPausing = true;
    void this.#participation.slices.pause().then(() => {
      this.#isPausing = false;
      this.#schedule();
    });
  }

  get #isStopped(): boolean {
    return this.#failure !== undefined || this.#participation.stoppedBy !== undefined;
  }

  /** The first of those that have waited for their key. */
  #takeWaiting(): Task<K, V> | undefined {
    for (const [key, tasks] of this.#waiting) {
      if (this.#busy.has(key)) continue;
      while (tasks[0] !== undefined && isStale(tasks[0])) this.#shift(key, tasks);
      const task = tasks[0];
      if (task === undefined || !this.#mayStart(task)) continue;
      this.#shift(key, tasks);
      return task;
    }
    return undefined;
  }

  /** Of a record that was taken: it need not be fetched again when its partition was paused meanwhile. */
  #mayStart({ batch }: Task<K, V>): boolean {
    const { holding } = ConsumedBatch.originOf(batch);
    return holding.source !== undefined && this.#participation.feed.isHeld(holding);
  }

  #shift(key: string, tasks: Task<K, V>[]): void {
    tasks.shift();
    this.#waitingCount = Math.max(0, this.#waitingCount - 1);
    if (tasks.length === 0) this.#waiting.delete(key);
  }

  /** After partitions went, were paused, resumed or sought. Forgets what will not be handled here. */
  #countWaiting(): void {
    this.#waitingCount = 0;
    for (const [key, tasks] of this.#waiting) {
      const rest = tasks.filter((task) => !isStale(task));
      if (rest.length > 0) this.#waiting.set(key, rest);
      else this.#waiting.delete(key);
      this.#waitingCount += rest.filter(
        ({ batch }) => ConsumedBatch.originOf(batch).holding.source !== undefined,
      ).length;
    }
  }

  /** The next that waits for no other one. */
  #takeNew(): Task<K, V> | undefined {
    const inOrder = this.#options.orderedBy === 'partition';
    const isBusy = (holding: Holding<K, V>): boolean => inOrder && this.#busy.has(holding.key);
    while (this.#hasRoom()) {
      const task = this.#lanes.take(isBusy);
      if (task === undefined) return undefined;
      const key = this.#orderKey(task);
      if (key === undefined) return task;
      const before = this.#waiting.get(key);
      if (before === undefined && !this.#busy.has(key)) return task;
      if (before === undefined) this.#waiting.set(key, [task]);
      else before.push(task);
      this.#waitingCount++;
    }
    return undefined;
  }

  /** What the records that must not overtake each other have in common; undefined: none. */
  #orderKey({ batch, key }: Task<K, V>): string | undefined {
    const { holding } = ConsumedBatch.originOf(batch);
    if (this.#options.orderedBy === 'partition') return holding.key;
    if (this.#options.orderedBy === 'none' || key === null) return undefined;
    return `${holding.key}/${key}`;
  }

  #start(task: Task<K, V>): void {
    const { holding, progress } = ConsumedBatch.originOf(task.batch);
    const key = this.#orderKey(task);
    const running = { task, startedAtMs: this.#monotonic() };
    this.#running.add(running);
    if (key !== undefined) this.#busy.add(key);
    holding.take();
    const done = (): void => {
      this.#running.delete(running);
      if (key !== undefined) this.#busy.delete(key);
      holding.release();
      if (this.#running.size === 0) this.#wakeDrained();
      this.#goOn();
      this.#schedule();
    };
    this.#handle(task).then(
      () => {
        const { offset } = task.record;
        if (this.#participation.commits.isAutomatic) progress.finish(offset, offset + 1);
        done();
      },
      (error) => {
        this.#fail(error);
        done();
      },
    );
  }

  async #handle({ record }: Task<K, V>): Promise<void> {
    await this.#handler(record);
  }

  #oldest(): Work | undefined {
    const [oldest] = this.#running;
    if (oldest === undefined) return undefined;
    return {
      id: oldest,
      partition: oldest.task.record,
      offset: oldest.task.record.offset,
      sinceMs: oldest.startedAtMs,
    };
  }

  /** Joins again once nothing takes too long any more. */
  #goOn(): void {
    if (!this.#participation.isDropped) return;
    const [oldest] = this.#running;
    if (oldest !== undefined && this.#monotonic() - oldest.startedAtMs >= this.#maxPollIntervalMs) return;
    this.#participation.goOn();
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#participation.stop(toLogError(error));
    this.#wakeFetcher();
  }

  #drained(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#wakeDrained = resolve;
    });
  }
}

/** Whether the record's partition is gone, or was sought, since it was taken: it will not be handled here. */
function isStale({ batch }: Task<unknown, unknown>): boolean {
  const { holding, progress } = ConsumedBatch.originOf(batch);
  return holding.phase !== 'reading' || holding.progress !== progress;
}
