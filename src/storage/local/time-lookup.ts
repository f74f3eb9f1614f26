/**
 * Finding the first batch of a segment that reaches a time.
 *
 * An entry of the time index is made together with one of the offset index, when the largest timestamp has risen since.
 * So between the first entry that reaches the time and the offset index entry before it there is one index interval,
 * and the batch lies in it, whatever the order of the timestamps.
 */
import {
  baseOffsetOf,
  NO_TIMESTAMP,
  newestRecordTimeOf,
  nextOffsetOf,
  RECORD_BATCH_OVERHEAD,
} from '../../batch/layout.js';
import type { Lease } from './file-cache.js';
import { toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import type { IndexFloor } from './offset-index.js';
import type { OffsetSequence } from './offset-sequence.js';
import { type ScanVisitor, scanBatches } from './scanner.js';
import type { Segment, SegmentIndexes } from './segment.js';

/** What the look-up asks of the reader it is a part of. */
export interface TimeLookupHooks {
  readonly acquire: (segment: Segment) => Promise<Lease>;
  readonly sequenceOf: (segment: Segment) => Promise<OffsetSequence>;
  /** An index turned out to be wrong: finds out what is damaged and makes it right. */
  readonly investigate: (segment: Segment, why: string) => Promise<void>;
}

/** Bytes in which the batch that is looked for begins. */
interface SearchRange {
  readonly from: IndexFloor;
  readonly endPosition: number;
  /** Whether the indexes promise that it is there. */
  readonly isSure: boolean;
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
  async find(segment: Segment, timestampMs: number, startOffset: number): Promise<number | undefined> {
    for (let attempt = 0; attempt < 2; attempt++) {
      const indexes = await this.#context.indexes.get(segment, this.#state.config.indexIntervalBytes);
      const range = searchRange(segment, indexes, timestampMs, startOffset);
      const search = new TimeSearch(timestampMs, startOffset);
      const scanned = await this.#scan(segment, range.from, range.endPosition, search);
      if (scanned && (search.found !== undefined || !range.isSure)) return search.found;
      // Its name may have led to the file of another one; the caller looks there.
      if (segment.dropped) return undefined;
      await this.#hooks.investigate(segment, 'an index does not match the log');
    }
    // Without any index: for a segment whose damage took the place that an index entry names.
    const search = new TimeSearch(timestampMs, startOffset);
    await this.#scan(segment, BEGINNING, segment.contents.sizeInBytes, search);
    return search.found;
  }

  /** The largest timestamp of the batches of a segment that lie in part within `[startOffset, to)`; -1 for none. */
  async newest(segment: Segment, startOffset: number, to: number): Promise<number> {
    const { offsets, times } = await this.#context.indexes.get(segment, this.#state.config.indexIntervalBytes);
    const known = times.lastBelow(to - segment.baseOffset);
    const isKnown = known !== undefined && segment.baseOffset + known.relativeOffset >= startOffset;
    const from = offsets.floor((isKnown ? to - 1 : startOffset) - segment.baseOffset);
    let newest = isKnown ? known.timestamp : NO_TIMESTAMP;
    await this.#scan(segment, from, segment.contents.sizeInBytes, {
      batch(buf, at) {
        if (baseOffsetOf(buf, at) >= to) return false;
        if (nextOffsetOf(buf, at) > startOffset) newest = Math.max(newest, newestRecordTimeOf(buf, at));
        return true;
      },
      damage: ignoreDamage,
    });
    return newest;
  }

  /** Scans from an index entry on. Resolves to whether the entry was right. */
  async #scan(segment: Segment, from: IndexFloor, endPosition: number, visitor: ScanVisitor): Promise<boolean> {
    const sequence = await this.#hooks.sequenceOf(segment);
    const lease = await this.#hooks.acquire(segment);
    try {
      const offset = await this.#baseOffsetAt(lease, segment, from);
      if (offset === undefined) return false;
      await scanBatches(
        (buffer, position) => this.#context.fs.pread(lease.fd, buffer, position),
        { position: from.position, endPosition, offset, sequence },
        visitor,
      );
      return true;
    } catch (error) {
      throw toStorageError('read', segment.path, error, 'none');
    } finally {
      lease.release();
    }
  }

  /** Base offset of the batch that an entry names, or the least that it may be; undefined when it is not there. */
  async #baseOffsetAt(lease: Lease, segment: Segment, entry: IndexFloor): Promise<number | undefined> {
    if (entry.relativeOffset < 0 || segment.contents.cleaned) return segment.baseOffset;
    const header = Buffer.alloc(RECORD_BATCH_OVERHEAD);
    const count = await this.#context.fs.pread(lease.fd, header, entry.position);
    if (count < RECORD_BATCH_OVERHEAD) return undefined;
    if (nextOffsetOf(header, 0) - 1 !== segment.baseOffset + entry.relativeOffset) return undefined;
    const baseOffset = baseOffsetOf(header, 0);
    return baseOffset >= segment.baseOffset ? baseOffset : undefined;
  }
}

const BEGINNING: IndexFloor = { relativeOffset: -1, position: 0 };

function searchRange(
  segment: Segment,
  { offsets, times }: SegmentIndexes,
  timestampMs: number,
  startOffset: number,
): SearchRange {
  const { baseOffset, contents } = segment;
  const reached = times.ceiling(timestampMs);
  const isSure = reached !== undefined && baseOffset + reached.relativeOffset >= startOffset;
  // No entry reaches the time: then only what follows the last entry may.
  const before = reached ? offsets.floor(reached.relativeOffset - 1) : offsets.floor(Number.MAX_SAFE_INTEGER);
  const start = offsets.floor(startOffset - baseOffset);
  const end = isSure ? offsets.positionAbove(reached.relativeOffset) : undefined;
  return {
    from: start.position > before.position ? start : before,
    endPosition: end ?? contents.sizeInBytes,
    isSure,
  };
}

/** Looks for the first batch that reaches a time. */
class TimeSearch implements ScanVisitor {
  readonly #timestampMs: number;
  readonly #startOffset: number;
  found: number | undefined;

  constructor(timestampMs: number, startOffset: number) {
    this.#timestampMs = timestampMs;
    this.#startOffset = startOffset;
  }

  batch(buf: Buffer, at: number): boolean {
    if (nextOffsetOf(buf, at) <= this.#startOffset || newestRecordTimeOf(buf, at) < this.#timestampMs) return true;
    this.found = baseOffsetOf(buf, at);
    return false;
  }

  damage(): void {
    ignoreDamage();
  }
}

function ignoreDamage(): void {
  // What is damaged has no time; reading it says so.
}
