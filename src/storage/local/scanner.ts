/**
 * Walking over the batches of a `.log` file with every check there is: framing, CRC, offsets. Recovery, index
 * rebuilding, time look-ups, inspection and the metadata journal all read through here.
 *
 * Where a batch is bad, the scan searches for the next intact one further on (`Damage`); what has none behind it is the
 * `tail`, and whether that is torn or corrupt is for the caller to judge.
 */
import {
  baseOffsetOf,
  leaderEpochOf,
  MAGIC,
  MAGIC_AT,
  nextOffsetOf,
  RECORD_BATCH_OVERHEAD,
  sizeInBytesOf,
} from '../../batch/layout.js';
import { checkBatch } from '../../batch/validate.js';
import type { EpochAt } from './epoch-runs.js';
import { DENSE, type OffsetSequence } from './offset-sequence.js';
import { type Damage, MAX_BATCH_BYTES, MAX_RELATIVE_OFFSET } from './segment.js';

/** Reads file bytes at a position; short at the end of the file. */
export type ReadAt = (buffer: Uint8Array, position: number) => Promise<number>;

export interface ScanRange {
  /** Bytes `[position, endPosition)`, `position` being the start of a batch. */
  readonly position: number;
  readonly endPosition: number;
  /** Base offset of the batch at `position`; where compaction left holes, the least that it may be. */
  readonly offset: number;
  /** What the offsets must be. Default: dense. */
  readonly sequence?: OffsetSequence;
  /** Leader epoch that the batch with a base offset must have; undefined where that is not known. */
  readonly epochAt?: EpochAt;
}

export interface ScanVisitor {
  /** An intact batch, at `at` in `buf` (valid during the call only) and at `position` in the file. False: stop. */
  batch(buf: Buffer, at: number, position: number): boolean;
  /** A damaged piece with an intact batch behind it. */
  damage(damage: Damage): void;
}

/** Bytes after the last intact batch. */
export interface ScanTail {
  readonly position: number;
  /** Offset that a batch there would have. */
  readonly offset: number;
  readonly why: string;
  /** False: the search for an intact batch behind it was given up, so there may be one. */
  readonly searched: boolean;
}

export interface ScanResult {
  /** Byte and offset after the last intact batch. */
  readonly position: number;
  readonly nextOffset: number;
  readonly tail: ScanTail | undefined;
}

/** Bytes of one read: large enough for the speed of the disk, small enough (0.3 ms of CRC) for the event loop. */
const SCAN_CHUNK_BYTES = 1024 * 1024;

/**
 * Bytes of checksums that one search for an intact batch may cost. Ordinary data costs next to nothing; the limit is
 * against records made to look like headers.
 */
const MAX_SEARCH_CRC_BYTES: number = 4 * 1024 * 1024 * 1024;

/** A piece of the file in memory, moved forward as the scan goes on. */
class Window {
  readonly #readAt: ReadAt;
  readonly #endPosition: number;
  buf: Buffer = Buffer.alloc(0);
  /** Position in the file of `buf[0]`, and the number of bytes that are valid. */
  start = 0;
  length = 0;

  constructor(readAt: ReadAt, range: ScanRange) {
    this.#readAt = readAt;
    this.#endPosition = range.endPosition;
    this.start = range.position;
  }

  /** Makes `[position, position + size)` available, as far as the range goes. Resolves to the count available there. */
  async ensure(position: number, size: number): Promise<number> {
    const wanted = Math.min(size, this.#endPosition - position);
    if (position >= this.start && position + wanted <= this.start + this.length)
      return this.start + this.length - position;
    const fill = Math.min(Math.max(size, SCAN_CHUNK_BYTES), this.#endPosition - position);
    if (fill > this.buf.length) this.buf = Buffer.allocUnsafeSlow(fill);
    this.start = position;
    this.length = await this.#readAt(this.buf.subarray(0, fill), position);
    return this.length;
  }
}

/** Scans a range of batches. Yields to the event loop with every chunk that it reads. */
export async function scanBatches(readAt: ReadAt, range: ScanRange, visitor: ScanVisitor): Promise<ScanResult> {
  const window = new Window(readAt, range);
  let position = range.position;
  let offset = range.offset;
  while (position < range.endPosition) {
    const why = await checkAt(window, position, range, offset);
    if (why !== undefined) {
      const found = await findIntact(window, position, range.endPosition, offset, range.sequence ?? DENSE);
      if (typeof found === 'string') {
        return { position, nextOffset: offset, tail: { position, offset, why, searched: found === 'none' } };
      }
      visitor.damage({ position, endPosition: found.position, offset, nextOffset: found.offset, why });
      position = found.position;
      offset = found.offset;
      continue;
    }
    const at = position - window.start;
    const batchPosition = position;
    position += sizeInBytesOf(window.buf, at);
    offset = nextOffsetOf(window.buf, at);
    if (!visitor.batch(window.buf, at, batchPosition)) break;
  }
  return { position, nextOffset: offset, tail: undefined };
}

/** Why there is no intact batch with base offset `offset` at `position`. */
async function checkAt(
  window: Window,
  position: number,
  range: ScanRange,
  offset: number,
): Promise<string | undefined> {
  const why = await checkBytesAt(window, position, range.endPosition);
  if (why !== undefined) return why;
  const at = position - window.start;
  const baseOffset = baseOffsetOf(window.buf, at);
  const wrong = (range.sequence ?? DENSE).check(baseOffset, nextOffsetOf(window.buf, at), position, offset);
  return wrong ?? checkEpoch(window.buf, at, range.epochAt?.(baseOffset));
}

/** Why the batch at `at` does not have the leader epoch that it should have, where that is known. */
export function checkEpoch(buf: Buffer, at: number, expected: number | undefined): string | undefined {
  if (expected === undefined || leaderEpochOf(buf, at) === expected) return undefined;
  return `the leader epoch is ${leaderEpochOf(buf, at)} where ${expected} belongs`;
}

async function checkBytesAt(window: Window, position: number, end: number): Promise<string | undefined> {
  const available = await window.ensure(position, RECORD_BATCH_OVERHEAD);
  if (available < RECORD_BATCH_OVERHEAD) return `${end - position} bytes are left, fewer than a batch header`;
  const size = sizeInBytesOf(window.buf, position - window.start);
  if (size > MAX_BATCH_BYTES) return `the batch claims ${size} bytes, more than any batch has`;
  if (position + size > end) return `the batch claims ${size} bytes, but ${end - position} are left`;
  if (size > available) await window.ensure(position, size);
  const at = position - window.start;
  return checkBatch(window.buf, at, window.length);
}

/** An intact batch behind damage. */
interface Found {
  readonly position: number;
  readonly offset: number;
}

/**
 * The first intact batch after a bad one at `position`, whose base offset should have been `offset`. Looks at the
 * place where the bad one says it ends, then at every byte.
 */
async function findIntact(
  window: Window,
  position: number,
  end: number,
  offset: number,
  sequence: OffsetSequence,
): Promise<Found | 'none' | 'given up'> {
  const claimedEnd = await claimedEndOf(window, position);
  if (claimedEnd !== undefined && claimedEnd < end) {
    const found = await intactAt(window, claimedEnd, end, offset, sequence);
    if (found) return found;
  }
  return searchIntact(window, position + 1, end, offset, sequence);
}

/** Where the bad batch at `position` says that it ends, if it has a header at all. */
async function claimedEndOf(window: Window, position: number): Promise<number | undefined> {
  if ((await window.ensure(position, RECORD_BATCH_OVERHEAD)) < RECORD_BATCH_OVERHEAD) return undefined;
  const size = sizeInBytesOf(window.buf, position - window.start);
  return size >= RECORD_BATCH_OVERHEAD && size <= MAX_BATCH_BYTES ? position + size : undefined;
}

async function searchIntact(
  window: Window,
  from: number,
  end: number,
  offset: number,
  sequence: OffsetSequence,
): Promise<Found | 'none' | 'given up'> {
  let crcBytes = 0;
  let position = from;
  while (position + RECORD_BATCH_OVERHEAD <= end) {
    await window.ensure(position, RECORD_BATCH_OVERHEAD);
    if (window.start + window.length < position + RECORD_BATCH_OVERHEAD) return 'none';
    const candidate = nextCandidate(window, position, end, offset);
    if (candidate.plausible) {
      crcBytes += sizeInBytesOf(window.buf, candidate.position - window.start);
      if (crcBytes > MAX_SEARCH_CRC_BYTES) return 'given up';
      const found = await intactAt(window, candidate.position, end, offset, sequence);
      if (found) return found;
      position = candidate.position + 1;
    } else position = candidate.position;
  }
  return 'none';
}

/** The next place in the window that looks like a header, or the place from which the next window must go on. */
function nextCandidate(
  window: Window,
  from: number,
  end: number,
  offset: number,
): { readonly position: number; readonly plausible: boolean } {
  const { buf, start, length } = window;
  const lastAt = length - RECORD_BATCH_OVERHEAD;
  let at = from - start;
  while (at <= lastAt) {
    const magicAt = buf.indexOf(MAGIC, at + MAGIC_AT);
    if (magicAt < 0 || magicAt - MAGIC_AT > lastAt) break;
    at = magicAt - MAGIC_AT;
    if (looksLikeHeader(buf, at, start + at, end, offset)) return { position: start + at, plausible: true };
    at++;
  }
  return { position: start + lastAt + 1, plausible: false };
}

function looksLikeHeader(buf: Buffer, at: number, position: number, end: number, offset: number): boolean {
  const size = sizeInBytesOf(buf, at);
  if (size < RECORD_BATCH_OVERHEAD || size > MAX_BATCH_BYTES || position + size > end) return false;
  const baseOffset = baseOffsetOf(buf, at);
  return baseOffset > offset && baseOffset <= offset + MAX_RELATIVE_OFFSET;
}

/** The batch at `position` if it is intact and later than `offset`. */
async function intactAt(
  window: Window,
  position: number,
  end: number,
  offset: number,
  sequence: OffsetSequence,
): Promise<Found | undefined> {
  if ((await checkBytesAt(window, position, end)) !== undefined) return undefined;
  const at = position - window.start;
  const baseOffset = baseOffsetOf(window.buf, at);
  if (baseOffset <= offset || baseOffset > offset + MAX_RELATIVE_OFFSET) return undefined;
  return sequence.mayResume(baseOffset, nextOffsetOf(window.buf, at), position)
    ? { position, offset: baseOffset }
    : undefined;
}
