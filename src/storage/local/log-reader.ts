/** Reading one log: finding batches by offset or time, checking each, and saying where the log is damaged. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { baseOffsetOf, nextOffsetOf, RECORD_BATCH_OVERHEAD, sizeInBytesOf } from '../../batch/layout.js';
import { checkBatch, checkFraming } from '../../batch/validate.js';
import type { LogError } from '../../core/errors.js';
import { type Offset, toOffset } from '../../core/types.js';
import { outOfRange } from '../batches.js';
import type { LogSlice } from '../engine.js';
import type { Lease } from './file-cache.js';
import { corruptLog, toStorageError } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import { DENSE, type OffsetSequence } from './offset-sequence.js';
import { checkEpoch } from './scanner.js';
import { MAX_BATCH_BYTES, type Segment } from './segment.js';
import type { LogTail } from './tail-cache.js';
import { TimeLookup } from './time-lookup.js';

/** One call serves at most this much, whatever is asked for. */
const MAX_READ_BYTES: number = 8 * 1024 * 1024;
/** This much at the end of a log is likely to be in the page cache, where a synchronous read costs the least. */
const RECENT_BYTES: number = 64 * 1024 * 1024;
/** Bytes of one synchronous read: 13 us from the page cache. */
const MAX_SYNC_READ_BYTES = 256 * 1024;
/** Checksums of this much are computed (0.3 ms) before the event loop gets a turn. */
const CRC_BYTES_PER_TURN: number = 1024 * 1024;
/** How many readers' positions are remembered, so that reading on needs no search. */
const MAX_REMEMBERED_POSITIONS = 16;

/** What one read goes by from beginning to end. */
interface ReadSource {
  readonly lease: Lease;
  readonly segment: Segment;
  /** What the offsets of the segment must be. */
  readonly sequence: OffsetSequence;
}

/** A place in a segment at which a batch begins. */
interface Place {
  readonly segment: Segment;
  readonly position: number;
  /**
   * Base offset of the batch there, in a compacted segment the least that it may be; -1 when only its last offset is
   * known, from an index entry.
   */
  readonly offset: number;
  /** Last offset of the batch there; -1 when it is not known. */
  readonly lastOffset: number;
}

/** Bytes of a segment, and what does not hold together in them. */
class Mismatch {
  readonly position: number;
  readonly offset: number;
  readonly why: string;

  constructor(position: number, offset: number, why: string) {
    this.position = position;
    this.offset = offset;
    this.why = why;
  }
}

export class LogReader {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #tail: LogTail;
  /** Where the last reads ended, by offset, the latest last. */
  readonly #remembered = new Map<number, Place>();

  constructor(context: EngineContext, state: LogState, tail: LogTail) {
    this.#context = context;
    this.#state = state;
    this.#tail = tail;
  }

  /** Looking up times reads through here. */
  createTimeLookup(): TimeLookup {
    return new TimeLookup(this.#context, this.#state, {
      acquire: (segment) => this.#acquire(segment),
      sequenceOf: (segment) => this.#sequenceOf(segment),
      investigate: (segment, why) => this.#investigate(segment, new Mismatch(0, segment.baseOffset, why)),
    });
  }

  /** See `PartitionLog.read`. */
  async read(from: Offset, to: Offset, maxBytes: number): Promise<LogSlice> {
    const state = this.#state;
    if (from < state.startOffset || from > state.endOffset) throw outOfRange(from, state.startOffset, state.endOffset);
    const limit = toOffset(Math.min(to, state.endOffset));
    if (from >= limit) return { chunks: [], byteLength: 0, nextOffset: from };
    const budget = Math.max(1, Math.min(maxBytes, MAX_READ_BYTES));
    return this.#tail.read(from, limit, budget) ?? this.#readFile(from, limit, budget);
  }

  async #readFile(from: Offset, to: Offset, maxBytes: number): Promise<LogSlice> {
    let investigated: Segment | undefined;
    for (;;) {
      const segment = this.#segmentOf(from);
      this.#refuseDamage(segment, from);
      const result = await this.#readSegment(segment, from, to, maxBytes);
      if (result === undefined) continue;
      if (!(result instanceof Mismatch)) return result;
      if (segment === investigated) throw this.#corrupt(segment, result);
      await this.#investigate(segment, result);
      investigated = segment;
    }
  }

  /** Undefined when compaction has put another segment in the place of this one meanwhile. */
  async #readSegment(
    segment: Segment,
    from: Offset,
    to: Offset,
    maxBytes: number,
  ): Promise<LogSlice | Mismatch | undefined> {
    let lease: Lease | undefined;
    try {
      lease = await this.#acquire(segment);
      const place = await this.#placeOf(segment, from);
      const result = await this.#readFrom(lease, place, from, to, maxBytes);
      // Its name may have led to the file of another one.
      return segment.replaced && result instanceof Mismatch ? undefined : result;
    } catch (error) {
      if (segment.replaced) return undefined;
      if (segment.dropped) throw outOfRange(from, this.#state.startOffset, this.#state.endOffset);
      throw toStorageError('read', segment.path, error, 'none');
    } finally {
      lease?.release();
    }
  }

  #segmentOf(offset: Offset): Segment {
    const { segments } = this.#state;
    const index = this.#state.segmentIndexFor(offset);
    const segment = segments[index];
    if (segment && offset < segment.contents.nextOffset) return segment;
    const next = segments[index + 1];
    const path = segment?.path ?? next?.path ?? this.#state.directory;
    throw corruptLog(
      path,
      segment?.contents.sizeInBytes ?? 0,
      offset,
      next?.baseOffset,
      'a part of the log is missing',
    );
  }

  #refuseDamage(segment: Segment, offset: number): void {
    const damage = segment.damageAt(offset);
    if (damage) throw corruptLog(segment.path, damage.position, offset, damage.nextOffset, damage.why);
  }

  /** @throws LogError OFFSET_OUT_OF_RANGE when the segment was trimmed away in the meantime */
  async #acquire(segment: Segment): Promise<Lease> {
    try {
      return await this.#context.files.acquire(segment.path);
    } catch (error) {
      if (segment.replaced || !segment.dropped) throw error;
      throw outOfRange(segment.baseOffset, this.#state.startOffset, this.#state.endOffset);
    }
  }

  /** Where to begin to look for the batch that contains `offset`. */
  async #placeOf(segment: Segment, offset: number): Promise<Place> {
    const remembered = this.#remembered.get(offset);
    if (remembered && remembered.segment === segment) {
      this.#remembered.delete(offset);
      return remembered;
    }
    const { baseOffset } = segment;
    const indexes = await this.#context.indexes.get(segment, this.#state.config.indexIntervalBytes);
    const floor = indexes.offsets.floor(offset - baseOffset);
    if (segment.contents.cleaned) return { segment, position: floor.position, offset: baseOffset, lastOffset: -1 };
    if (floor.relativeOffset < 0) return { segment, position: 0, offset: baseOffset, lastOffset: -1 };
    return { segment, position: floor.position, offset: -1, lastOffset: baseOffset + floor.relativeOffset };
  }

  /** Reads from `place`, passes over what ends at or before `from`, and serves whole checked batches. */
  async #readFrom(
    lease: Lease,
    place: Place,
    from: Offset,
    to: Offset,
    maxBytes: number,
  ): Promise<LogSlice | Mismatch> {
    const { segment } = place;
    const source: ReadSource = { lease, segment, sequence: await this.#sequenceOf(segment) };
    let { position } = place;
    let expected = place.offset;
    for (;;) {
      const damage = segment.damageAtPosition(position);
      if (damage) {
        position = damage.endPosition;
        expected = damage.nextOffset;
      }
      const buf = await this.#readBytes(source, position, maxBytes);
      const walked = walk(buf, source, position, expected, expected < 0 ? place.lastOffset : -1, from);
      if (walked instanceof Mismatch) return walked;
      if (walked.found) return this.#serve(source, buf, walked, position, from, to, maxBytes);
      position += walked.at;
      expected = walked.expected;
    }
  }

  async #sequenceOf(segment: Segment): Promise<OffsetSequence> {
    if (!segment.contents.cleaned) return DENSE;
    return segment.sequence(await this.#context.indexes.get(segment, this.#state.config.indexIntervalBytes));
  }

  /** Checks and cuts the batches that begin at `walked.at` in `buf`, which lies at `position`. */
  async #serve(
    source: ReadSource,
    read: Buffer,
    walked: Walked,
    position: number,
    from: Offset,
    to: Offset,
    maxBytes: number,
  ): Promise<LogSlice | Mismatch> {
    const { segment } = source;
    let buf = read;
    let start = walked.at;
    const firstSize = sizeInBytesOf(buf, start);
    const filePosition = position + start;
    if (start + firstSize > buf.length) {
      if (filePosition + firstSize > segment.contents.sizeInBytes || firstSize > MAX_BATCH_BYTES) {
        return new Mismatch(filePosition, walked.expected, `the batch claims ${firstSize} bytes, more than there are`);
      }
      buf = await this.#readExactly(source, filePosition, firstSize);
      start = 0;
    }
    const checked = await checkBatches(buf, start, source, filePosition, walked.expected, to, maxBytes);
    if (checked instanceof Mismatch) return checked;
    const chunk = buf.subarray(start, checked.end);
    if (chunk.length === 0) return { chunks: [], byteLength: 0, nextOffset: from };
    const nextOffset = toOffset(checked.nextOffset);
    this.#remember({ segment, position: filePosition + chunk.length, offset: nextOffset, lastOffset: -1 });
    return { chunks: [chunk], byteLength: chunk.length, nextOffset };
  }

  /** Up to `length` bytes at `position`: at once where they are likely to be in memory. */
  async #readBytes(source: ReadSource, position: number, length: number): Promise<Buffer> {
    const { lease, segment } = source;
    const available = segment.contents.sizeInBytes - position;
    const wanted = Math.min(available, Math.max(length, RECORD_BATCH_OVERHEAD));
    if (this.#isRecent(segment, position)) {
      const buf = Buffer.allocUnsafeSlow(Math.min(wanted, MAX_SYNC_READ_BYTES));
      return buf.subarray(0, this.#context.fs.preadSync(lease.fd, buf, position));
    }
    return this.#readExactly(source, position, wanted);
  }

  async #readExactly({ lease, segment }: ReadSource, position: number, length: number): Promise<Buffer> {
    const buf = Buffer.allocUnsafeSlow(Math.min(length, segment.contents.sizeInBytes - position));
    return buf.subarray(0, await this.#context.fs.pread(lease.fd, buf, position));
  }

  #isRecent(segment: Segment, position: number): boolean {
    return segment === this.#state.active && segment.contents.sizeInBytes - position <= RECENT_BYTES;
  }

  /** The segments have changed: what is remembered of them is of no use. */
  forgetPositions(): void {
    this.#remembered.clear();
  }

  #remember(place: Place): void {
    if (place.position >= place.segment.contents.sizeInBytes && place.segment !== this.#state.active) return;
    this.#remembered.set(place.offset, place);
    if (this.#remembered.size <= MAX_REMEMBERED_POSITIONS) return;
    for (const oldest of this.#remembered.keys()) {
      this.#remembered.delete(oldest);
      return;
    }
  }

  /** Something did not match: scans the segment, which finds what is damaged and makes its indexes right. */
  async #investigate(segment: Segment, mismatch: Mismatch): Promise<void> {
    const fields = { file: segment.path, position: mismatch.position, offset: mismatch.offset, why: mismatch.why };
    this.#context.logger.warn(fields, 'a segment or its index is not as expected; scanning the segment');
    this.#remembered.clear();
    this.#context.indexes.forget(segment);
    await this.#context.indexes.rebuild(segment, this.#state.config.indexIntervalBytes);
    for (const damage of segment.damages) {
      this.#context.logger.error({ file: segment.path, ...damage }, 'a part of a segment is corrupt');
    }
  }

  #corrupt(segment: Segment, mismatch: Mismatch): LogError {
    return corruptLog(segment.path, mismatch.position, mismatch.offset, undefined, mismatch.why);
  }
}

/** Where a walk over headers came to. */
interface Walked {
  /** Whether a batch that ends above the offset looked for begins at `at`; else the walk goes on there. */
  readonly found: boolean;
  readonly at: number;
  /** Base offset of the batch at `at`. */
  readonly expected: number;
}

/**
 * Passes over the batches in `buf` that end at or before `from`.
 * @param firstOffset base offset of the first; -1 when `firstLast`, its last offset, is what is known
 */
function walk(
  buf: Buffer,
  { segment, sequence }: ReadSource,
  position: number,
  firstOffset: number,
  firstLast: number,
  from: number,
): Walked | Mismatch {
  let at = 0;
  let expected = firstOffset;
  while (at + RECORD_BATCH_OVERHEAD <= buf.length) {
    if (segment.damages.length > 0 && segment.damageAtPosition(position + at)) return { found: false, at, expected };
    const limit = at + segment.contents.sizeInBytes - (position + at);
    const why = checkFraming(buf, at, limit);
    const baseOffset = baseOffsetOf(buf, at);
    const next = nextOffsetOf(buf, at);
    if (why !== undefined) return new Mismatch(position + at, Math.max(expected, segment.baseOffset), why);
    const wrong = expected < 0 ? undefined : sequence.check(baseOffset, next, position + at, expected);
    if (wrong !== undefined) return new Mismatch(position + at, expected, wrong);
    if (expected < 0 && (next - 1 !== firstLast || baseOffset < segment.baseOffset)) {
      return new Mismatch(position + at, firstLast, `the batch does not end at offset ${firstLast}, as its index says`);
    }
    if (next > from) return { found: true, at, expected: baseOffset };
    at += sizeInBytesOf(buf, at);
    expected = next;
  }
  if (at === 0) return new Mismatch(position, Math.max(expected, firstLast), `the file ends before offset ${from}`);
  return { found: false, at, expected };
}

/** Whole checked batches from `start`: where they end. A bad one ends them too, unless it is the first. */
async function checkBatches(
  buf: Buffer,
  start: number,
  { segment, sequence }: ReadSource,
  position: number,
  firstOffset: number,
  to: number,
  maxBytes: number,
): Promise<{ readonly end: number; readonly nextOffset: number } | Mismatch> {
  let at = start;
  let expected = firstOffset;
  let sinceTurn = 0;
  while (at + RECORD_BATCH_OVERHEAD <= buf.length) {
    const size = sizeInBytesOf(buf, at);
    if (at > start && (at + size > buf.length || at + size - start > maxBytes)) break;
    // A batch may look intact and be damaged all the same: a leader epoch is told from the one that belongs by notes only.
    if (segment.damages.length > 0 && segment.damageAtPosition(position + at - start)) break;
    const baseOffset = baseOffsetOf(buf, at);
    const why =
      checkBatch(buf, at, buf.length) ??
      sequence.check(baseOffset, nextOffsetOf(buf, at), position + at - start, expected) ??
      checkEpoch(buf, at, segment.contents.epochs.epochAt(baseOffset)) ??
      checkEnd(nextOffsetOf(buf, at), segment);
    if (why !== undefined) {
      if (at > start) break;
      return new Mismatch(position, expected, why);
    }
    const next = nextOffsetOf(buf, at);
    if (next > to) break;
    at += size;
    expected = next;
    sinceTurn += size;
    if (sinceTurn >= CRC_BYTES_PER_TURN) {
      await nextTurn();
      sinceTurn = 0;
    }
  }
  return { end: at, nextOffset: expected };
}

/** Why a batch cannot end where it does. Serving nothing, as above the end of the log, would keep its reader there for ever. */
function checkEnd(nextOffset: number, { contents }: Segment): string | undefined {
  if (nextOffset <= contents.nextOffset) return undefined;
  return `the batch ends at offset ${nextOffset - 1}, but its segment at ${contents.nextOffset - 1}`;
}
