/** Who waits for a batch's records: one entry per `send`, one per `sendMany` and batch. */
import { LogError } from '../core/errors.js';

/** Where a sent record ended up. */
export interface SendResult {
  readonly partition: number;
  /** Position in the partition; -1 with `acks: 'none'`, where nobody says. */
  readonly offset: number;
  /** ms since the epoch: the record's own time, or the append time on topics with LogAppendTime. */
  readonly timestampMs: number;
}

/** Records of one `sendMany` in one partition. Other records may lie between the first and the last. */
export interface PartitionRange {
  readonly partition: number;
  /** -1 with `acks: 'none'`. */
  readonly firstOffset: number;
  /** -1 with `acks: 'none'`. */
  readonly lastOffset: number;
  readonly count: number;
}

export interface SendManyResult {
  /** Records sent. */
  readonly count: number;
  /** By partition number. */
  readonly partitions: readonly PartitionRange[];
}

/** What the broker said of a batch. */
export interface BatchAck {
  readonly partition: number;
  /** -1 with `acks: 'none'`. */
  readonly baseOffset: number;
  /** -1 unless the broker set the time. */
  readonly logAppendTimeMs: number;
}

/** Stands for `count` neighbouring records of a batch; those before it are counted by the batch. */
export interface Completion {
  readonly count: number;
  /** @param offset of the first of the records, -1 when unknown */
  succeed(ack: BatchAck, offset: number): void;
  fail(error: LogError): void;
  /** The first `count` records and the rest, as completions of their own. */
  split(count: number): [Completion, Completion];
}

/** One record, one promise. */
export class SendCompletion implements Completion {
  readonly count = 1;
  readonly #timestampMs: number;
  readonly #resolve: (result: SendResult) => void;
  readonly #reject: (error: LogError) => void;

  constructor(timestampMs: number, resolve: (result: SendResult) => void, reject: (error: LogError) => void) {
    this.#timestampMs = timestampMs;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  succeed(ack: BatchAck, offset: number): void {
    const timestampMs = ack.logAppendTimeMs < 0 ? this.#timestampMs : ack.logAppendTimeMs;
    this.#resolve({ partition: ack.partition, offset, timestampMs });
  }

  fail(error: LogError): void {
    this.#reject(error);
  }

  split(): [Completion, Completion] {
    throw new LogError('INTERNAL', 'Broken invariant: a single record is not split');
  }
}

interface MutableRange {
  partition: number;
  firstOffset: number;
  lastOffset: number;
  count: number;
}

/** One call of `sendMany`: counts what is under way and collects what came of it. */
export class SendManyCall {
  #unsettled = 0;
  #delivered = 0;
  #failed = 0;
  #failure: LogError | undefined;
  /** Whether any of the records may be in the log. */
  #maybeWritten = false;
  readonly #ranges = new Map<number, MutableRange>();
  #whenIdle: (() => void) | undefined;

  /** Why the call takes no more records, if so: the first failure. */
  get failure(): LogError | undefined {
    return this.#failure;
  }

  /** A record was appended to a batch. */
  added(): void {
    this.#unsettled++;
  }

  /** The call takes no more records, for this reason. */
  stop(error: LogError): void {
    this.#failure ??= error;
  }

  succeeded(ack: BatchAck, offset: number, count: number): void {
    this.#delivered += count;
    this.#maybeWritten = true;
    this.#extendRange(ack.partition, offset, count);
    this.#settled(count);
  }

  failed(error: LogError, count: number): void {
    this.#failed += count;
    this.#failure ??= error;
    if (error.outcome === 'unknown') this.#maybeWritten = true;
    this.#settled(count);
  }

  /** Resolves when every record that was appended has been settled. */
  idle(): Promise<void> {
    if (this.#unsettled === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenIdle = resolve;
    });
  }

  /**
   * @throws LogError the first failure, with how many records were delivered and how many were not; its outcome is that of
   *   the call as a whole, whatever the first failure says of its own records
   */
  result(): SendManyResult {
    if (this.#failure !== undefined) throw this.#describeFailure(this.#failure);
    const partitions = [...this.#ranges.values()].sort((a, b) => a.partition - b.partition);
    return { count: this.#delivered, partitions };
  }

  #describeFailure(first: LogError): LogError {
    const counts = { delivered_count: this.#delivered, failed_count: this.#failed };
    return new LogError(
      first.reason,
      `sendMany stopped after ${this.#delivered} records were delivered and ${this.#failed} failed: ${first.message}`,
      {
        metadata: { ...first.metadata, ...counts },
        outcome: this.#maybeWritten ? 'unknown' : 'none',
        cause: first,
      },
    );
  }

  #extendRange(partition: number, offset: number, count: number): void {
    const lastOffset = offset < 0 ? -1 : offset + count - 1;
    const range = this.#ranges.get(partition);
    if (range === undefined) {
      this.#ranges.set(partition, { partition, firstOffset: offset, lastOffset, count });
      return;
    }
    range.lastOffset = lastOffset;
    range.count += count;
  }

  #settled(count: number): void {
    this.#unsettled -= count;
    if (this.#unsettled === 0) this.#whenIdle?.();
  }
}

/** The records of one `sendMany` in one batch; grows while the batch is open. */
export class SendManyPart implements Completion {
  readonly call: SendManyCall;
  count: number;

  constructor(call: SendManyCall, count: number) {
    this.call = call;
    this.count = count;
  }

  succeed(ack: BatchAck, offset: number): void {
    this.call.succeeded(ack, offset, this.count);
  }

  fail(error: LogError): void {
    this.call.failed(error, this.count);
  }

  split(count: number): [Completion, Completion] {
    return [new SendManyPart(this.call, count), new SendManyPart(this.call, this.count - count)];
  }
}

/** Divides completions after the first `count` records. */
export function splitCompletions(all: readonly Completion[], count: number): [Completion[], Completion[]] {
  const head: Completion[] = [];
  const tail: Completion[] = [];
  let missing = count;
  for (const completion of all) {
    if (missing === 0) tail.push(completion);
    else if (completion.count <= missing) {
      head.push(completion);
      missing -= completion.count;
    } else {
      const [first, rest] = completion.split(missing);
      head.push(first);
      tail.push(rest);
      missing = 0;
    }
  }
  return [head, tail];
}
