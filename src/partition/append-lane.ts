import { LogError } from '../core/errors.js';

/**
 * Appends that must keep their order among themselves: one stream's appends to one partition. After one of them has
 * failed, none that was sent later is tried; those sent earlier are not affected.
 */
export class AppendLane {
  #next = 0;
  #failedAt = Number.POSITIVE_INFINITY;
  #failure: LogError | undefined;

  /** Gives the next append its place in the order. */
  enter(): LanePlace {
    return new LanePlace(this, this.#next++);
  }

  fail(index: number, error: LogError): void {
    if (index >= this.#failedAt) return;
    this.#failedAt = index;
    this.#failure = error;
  }

  failureBefore(index: number): LogError | undefined {
    return index > this.#failedAt ? this.#failure : undefined;
  }
}

/** One append's place in its lane. */
export class LanePlace {
  readonly #lane: AppendLane;
  readonly #index: number;

  constructor(lane: AppendLane, index: number) {
    this.#lane = lane;
    this.#index = index;
  }

  /** This append failed: later ones must not be tried. */
  fail(error: LogError): void {
    this.#lane.fail(this.#index, error);
  }

  /** The failure of an earlier append of the lane. */
  get precedingFailure(): LogError | undefined {
    return this.#lane.failureBefore(this.#index);
  }
}

/** Why an append was not tried: an earlier one of its lane failed. */
export function precedingFailed(topic: string, partition: number, failure: LogError): LogError {
  return new LogError(
    'PRECEDING_APPEND_FAILED',
    `Not appended, to keep the order: an earlier append of this stream to ${topic}-${partition} failed ` +
      `(${failure.reason}). Send this one again on a new stream.`,
    { metadata: { topic, partition, cause_reason: failure.reason } },
  );
}
