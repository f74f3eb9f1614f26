/**
 * Looking up times in one log: which segment holds the answer, what is known of the segments being enough for most.
 * Compaction may replace a segment, and trimming drop it, while it is looked into: then the look-up begins there anew.
 */
import { NO_TIMESTAMP } from '../../batch/layout.js';
import { type Offset, toOffset } from '../../core/types.js';
import type { LogState } from './log-state.js';
import type { Segment } from './segment.js';
import type { TimeLookup } from './time-lookup.js';

export class LogTimes {
  readonly #state: LogState;
  readonly #lookup: TimeLookup;

  constructor(state: LogState, lookup: TimeLookup) {
    this.#state = state;
    this.#lookup = lookup;
  }

  /** See `PartitionLog.batchForTime`. */
  async batchForTime(timestampMs: number): Promise<Offset | undefined> {
    let from: number = this.#state.startOffset;
    for (let segment = this.#segmentFrom(from); segment; segment = this.#segmentFrom(from)) {
      const found = await this.#findTime(segment, timestampMs, Math.max(from, this.#state.startOffset));
      if (found !== undefined) return toOffset(Math.max(found, this.#state.startOffset));
      // Compaction has put another one in its place, or trimming has moved the start: looks again.
      if (segment.dropped) from = Math.max(from, this.#state.startOffset);
      else if (segment === this.#state.active) return undefined;
      else from = segment.contents.nextOffset;
    }
    return undefined;
  }

  /** The first segment that holds anything from offset `from` on. */
  #segmentFrom(from: number): Segment | undefined {
    const { segments } = this.#state;
    const index = Math.max(0, this.#state.segmentIndexFor(from));
    const at = segments[index];
    return at && at.contents.nextOffset > from ? at : segments[index + 1];
  }

  async #findTime(segment: Segment, timestampMs: number, startOffset: number): Promise<number | undefined> {
    if (segment.contents.maxTimestamp < timestampMs) return undefined;
    try {
      return await this.#lookup.find(segment, timestampMs, startOffset);
    } catch (error) {
      if (segment.dropped) return undefined;
      throw error;
    }
  }

  /** See `PartitionLog.batchForMaxTimestamp`. */
  async batchForMaxTimestamp(to: Offset): Promise<Offset | undefined> {
    for (;;) {
      const candidate = await this.#newestSegment(to);
      if (candidate === undefined) return undefined;
      const { segment, timestampMs } = candidate;
      const found = await this.#findTime(segment, timestampMs, this.#state.startOffset);
      if (found !== undefined) return toOffset(Math.max(found, this.#state.startOffset));
      if (!segment.dropped) return undefined;
    }
  }

  /**
   * The first segment that holds the largest timestamp of `[startOffset, to)`, and that timestamp. What is known of a
   * segment as a whole is enough unless its newest batch lies outside of the range.
   */
  async #newestSegment(to: number): Promise<{ segment: Segment; timestampMs: number } | undefined> {
    let newest: { segment: Segment; timestampMs: number } | undefined;
    const { startOffset, segments } = this.#state;
    for (const segment of segments) {
      const { maxTimestamp, maxTimestampOffset, baseOffset, nextOffset } = segment.contents;
      if (nextOffset <= startOffset || baseOffset >= to || maxTimestamp <= (newest?.timestampMs ?? NO_TIMESTAMP))
        continue;
      const isInside = maxTimestampOffset >= startOffset && maxTimestampOffset < to;
      const timestampMs = isInside ? maxTimestamp : await this.#newestWithin(segment, startOffset, to);
      // Not the segments of the log any more: begins anew.
      if (timestampMs === undefined) return await this.#newestSegment(to);
      if (timestampMs > (newest?.timestampMs ?? NO_TIMESTAMP)) newest = { segment, timestampMs };
    }
    return newest;
  }

  /** Undefined when the segment was replaced or trimmed away meanwhile. */
  async #newestWithin(segment: Segment, startOffset: number, to: number): Promise<number | undefined> {
    try {
      const newest = await this.#lookup.newest(segment, startOffset, to);
      return segment.dropped ? undefined : newest;
    } catch (error) {
      if (segment.dropped) return undefined;
      throw error;
    }
  }
}
