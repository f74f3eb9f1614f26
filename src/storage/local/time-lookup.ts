/** Finding the first batch that reaches a time. */
import { baseOffsetOf, maxTimestampOf, nextOffsetOf, RECORD_BATCH_OVERHEAD } from '../../batch/layout.js';
import type { Offset } from '../../core/types.js';
import type { Lease } from './file-cache.js';
import { toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import { scanBatches } from './scanner.js';
import type { Segment } from './segment.js';
import type { TimeIndexEntry } from './time-index.js';

/** What the look-up asks of the reader it is a part of. */
export interface TimeLookupHooks {
  readonly acquire: (segment: Segment) => Promise<Lease>;
  /** An index turned out to be wrong: finds out what is damaged and makes it right. */
  readonly investigate: (segment: Segment, why: string) => Promise<void>;
}

export class TimeLookup {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #hooks: TimeLookupHooks;

  constructor(context: EngineContext, state: LogState, hooks: TimeLookupHooks) {
    this.#context = context;
    this.#state = state;
    this.#hooks = hooks;
  }

  /** Base offset of the first batch of a segment, not wholly below `startOffset`, that reaches `timestampMs`. */
  async find(segment: Segment, timestampMs: number, startOffset: Offset): Promise<number | undefined> {
    const { fs, indexes } = this.#context;
    const interval = this.#state.config.indexIntervalBytes;
    for (let attempt = 0; attempt < 2; attempt++) {
      const { offsets, times } = await indexes.get(segment, interval);
      const time = times.floor(timestampMs);
      const startFloor = offsets.floor(Math.max(0, startOffset - segment.baseOffset));
      const timeFloor = offsets.floor(time.relativeOffset);
      const lease = await this.#hooks.acquire(segment);
      try {
        const from = timeFloor.position > startFloor.position ? timeFloor : startFloor;
        const first = await this.#baseOffsetAt(lease, segment, from.position, from.relativeOffset);
        if (first !== undefined) {
          const search = new TimeSearch(segment, timestampMs, startOffset, time);
          const { sizeInBytes } = segment.contents;
          await scanBatches(
            (buffer, position) => fs.pread(lease.fd, buffer, position),
            { position: from.position, endPosition: sizeInBytes, offset: first },
            search,
          );
          if (search.consistent) return search.found;
        }
      } catch (error) {
        throw toStorageError('read', segment.path, error, 'none');
      } finally {
        lease.release();
      }
      await this.#hooks.investigate(segment, 'an index does not match the log');
    }
    return this.#findTimeFromStart(segment, timestampMs, startOffset);
  }

  /** Without any index: for a segment whose damage took the place that an index entry names. */
  async #findTimeFromStart(segment: Segment, timestampMs: number, startOffset: Offset): Promise<number | undefined> {
    const lease = await this.#hooks.acquire(segment);
    try {
      const search = new TimeSearch(segment, timestampMs, startOffset, undefined);
      await scanBatches(
        (buffer, position) => this.#context.fs.pread(lease.fd, buffer, position),
        { position: 0, endPosition: segment.contents.sizeInBytes, offset: segment.baseOffset },
        search,
      );
      return search.found;
    } catch (error) {
      throw toStorageError('read', segment.path, error, 'none');
    } finally {
      lease.release();
    }
  }

  /** Base offset of the batch at `position`, undefined unless it ends at `relativeOffset` (-1: it begins the segment). */
  async #baseOffsetAt(
    lease: Lease,
    segment: Segment,
    position: number,
    relativeOffset: number,
  ): Promise<number | undefined> {
    if (relativeOffset < 0) return segment.baseOffset;
    const header = Buffer.alloc(RECORD_BATCH_OVERHEAD);
    const count = await this.#context.fs.pread(lease.fd, header, position);
    if (count < RECORD_BATCH_OVERHEAD) return undefined;
    if (nextOffsetOf(header, 0) - 1 !== segment.baseOffset + relativeOffset) return undefined;
    const baseOffset = baseOffsetOf(header, 0);
    return baseOffset >= segment.baseOffset ? baseOffset : undefined;
  }
}

/** Looks for the first batch that reaches a time, and whether the time index told the truth on the way. */
class TimeSearch {
  readonly #segment: Segment;
  readonly #timestampMs: number;
  readonly #startOffset: number;
  /** Offset and timestamp that the time index promised; undefined when it was not asked. */
  readonly #promise: TimeIndexEntry | undefined;
  #promiseKept: boolean;
  found: number | undefined;

  constructor(segment: Segment, timestampMs: number, startOffset: number, promise: TimeIndexEntry | undefined) {
    this.#segment = segment;
    this.#timestampMs = timestampMs;
    this.#startOffset = startOffset;
    this.#promise = promise;
    this.#promiseKept = promise === undefined || promise.relativeOffset < 0;
  }

  /** Whether the entry of the time index was met as it said, or lies before the start, where nothing is looked up. */
  get consistent(): boolean {
    return this.#promiseKept;
  }

  batch(buf: Buffer, at: number): boolean {
    const next = nextOffsetOf(buf, at);
    const timestamp = maxTimestampOf(buf, at);
    if (this.#promise && next - 1 === this.#segment.baseOffset + this.#promise.relativeOffset) {
      this.#promiseKept = timestamp === this.#promise.timestamp;
    }
    if (this.#promise && this.#segment.baseOffset + this.#promise.relativeOffset < this.#startOffset) {
      this.#promiseKept = true;
    }
    if (next <= this.#startOffset || timestamp < this.#timestampMs) return true;
    this.found = baseOffsetOf(buf, at);
    return false;
  }

  damage(): void {
    // What is damaged has no time; reading it says so.
  }
}
