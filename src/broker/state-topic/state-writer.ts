/** The writer of one partition of a topic that keeps a coordinator's state: what comes up during an append goes together in the next. */
import { BatchBuilder } from '../../batch/builder.js';
import type { Clock } from '../../core/clock.js';
import type { LogError } from '../../core/errors.js';
import type { Partition } from '../../partition/partition.js';
import type { StateRecord } from './state-record.js';

/** A batch is closed before it would grow past this or hold more records, unless one change alone takes more. */
const BATCH_BYTES = 1024 * 1024;
const BATCH_RECORDS = 10_000;
/** One append takes about this much at the most. */
const APPEND_BYTES = 4 * 1024 * 1024;
const APPEND_RECORDS = 30_000;
/** What a record takes in a batch beside its key and value, at the most. */
const RECORD_OVERHEAD_BYTES = 32;

/** A change whose records are durable all together, or not at all. */
export interface Change {
  readonly records: readonly StateRecord[];
  /** Called, in the order of the changes, when it is durable; must not throw. */
  readonly apply: () => void;
}

export interface StateWriterOptions {
  readonly partition: Partition;
  readonly clock: Clock;
  /**
   * Called when changes are lost, before their writers are told: everything that is not durable is to be undone. With an
   * unknown outcome the log may have some of them, now or later: what is written after that comes on top.
   */
  readonly lost: (error: LogError) => void;
  /** The error for those. @param isInLog whether the log has them all the same, though perhaps not for good */
  readonly notWritten: (partition: number, cause: unknown, isInLog: boolean) => LogError;
}

/**
 * Invariants: one append is under way at a time; changes become durable in the order in which they were written; when one
 * is lost, so are all that were written after it, for they were made on top of it.
 */
export class StateWriter {
  readonly #options: StateWriterOptions;
  #waiting: Append[] = [];
  /** The one that is under way. */
  #current: Append | undefined;
  #running = false;

  constructor(options: StateWriterOptions) {
    this.#options = options;
  }

  /** Resolves when the change is durable. @throws LogError why it is not, and was undone */
  write(change: Change): Promise<void> {
    let append = this.#waiting.at(-1);
    if (append === undefined || append.isFull) {
      append = new Append(this.#options.partition.config.maxMessageBytes);
      this.#waiting.push(append);
    }
    append.add(change, this.#options.clock.now());
    if (!this.#running) void this.#run();
    return append.done;
  }

  /** Resolves when everything that was written before is durable. @throws LogError why it is not, and was undone */
  async settled(): Promise<void> {
    await (this.#waiting.at(-1) ?? this.#current)?.done;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    this.#running = true;
    // In a turn of its own, so that what else this turn brings goes along.
    await new Promise(setImmediate);
    for (;;) {
      const append = this.#waiting.shift();
      this.#current = append;
      if (append === undefined) break;
      await this.#append(append);
    }
    this.#running = false;
  }

  async #append(append: Append): Promise<void> {
    const { partition, lost: report, notWritten } = this.#options;
    const { logEndOffset } = partition;
    try {
      await partition.append(append.take(), { acks: 'durable' });
      this.#current = undefined;
      append.succeed();
    } catch (cause) {
      this.#current = undefined;
      const error = notWritten(partition.index, cause, partition.logEndOffset !== logEndOffset);
      const lost = [append, ...this.#waiting];
      this.#waiting = [];
      report(error);
      for (const one of lost) one.fail(error);
    }
  }
}

/** What goes to the log together. */
class Append {
  readonly done: Promise<void>;
  readonly #builder: BatchBuilder;
  readonly #batches: Buffer[] = [];
  readonly #changes: Change[] = [];
  #bytes = 0;
  #records = 0;
  #resolve: () => void = () => undefined;
  #reject: (error: LogError) => void = () => undefined;

  constructor(maxBatchBytes: number) {
    this.#builder = new BatchBuilder(maxBatchBytes);
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever wants to know asks; nobody has to.
    this.done.catch(() => undefined);
  }

  get isFull(): boolean {
    return this.#bytes >= APPEND_BYTES || this.#records >= APPEND_RECORDS;
  }

  /** In one batch, unless it would be larger than the topic takes. */
  add(change: Change, nowMs: number): void {
    const { records } = change;
    let bytes = 0;
    for (const { key, value } of records) bytes += key.length + (value?.length ?? 0) + RECORD_OVERHEAD_BYTES;
    const builder = this.#builder;
    const fits = builder.sizeInBytes + bytes <= BATCH_BYTES && builder.recordCount + records.length <= BATCH_RECORDS;
    if (!fits) this.#closeBatch();
    for (const { key, value } of records) {
      if (builder.tryAppend(nowMs, key, value)) continue;
      this.#closeBatch();
      builder.tryAppend(nowMs, key, value);
    }
    this.#bytes += bytes;
    this.#records += records.length;
    this.#changes.push(change);
  }

  #closeBatch(): void {
    if (this.#builder.recordCount > 0) this.#batches.push(this.#builder.build());
  }

  /** The batches; nothing can be added any more. */
  take(): readonly Buffer[] {
    this.#closeBatch();
    return this.#batches;
  }

  succeed(): void {
    for (const { apply } of this.#changes) apply();
    this.#resolve();
  }

  fail(error: LogError): void {
    this.#reject(error);
  }
}
