/**
 * Walking over the batches of a `.log` file with every check there is: framing, CRC, offsets. Recovery, index
 * rebuilding, time look-ups, inspection and the metadata journal all read through here.
 *
 * Where a batch is bad, the scan searches for the next intact one further on (`Damage`); what has none behind it is the
 * `tail`, and whether that is torn or corrupt is for the caller to judge.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { computeBatchCrc } from '../../batch/crc32c.js';
import {
  baseOffsetOf,
  LOG_OVERHEAD,
  leaderEpochOf,
  MAGIC,
  MAGIC_AT,
  magicOf,
  nextOffsetOf,
  RECORD_BATCH_OVERHEAD,
  sizeInBytesOf,
  storedCrcOf,
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

/** Bytes that a search looks at, for headers or checksums, before the event loop gets a turn: some 10 ms at the worst. */
const SEARCH_BYTES_PER_TURN: number = 128 * 1024;

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
      const found = await findIntact(window, position, range, offset);
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
  const wrong = checkOffsets(window.buf, at, position, range.sequence ?? DENSE, offset);
  return wrong ?? checkEpoch(window.buf, at, range.epochAt?.(baseOffsetOf(window.buf, at)));
}

/** Why the offsets of the batch at `at` in `buf`, at `position` in the file, are not those that follow `offset`. */
function checkOffsets(
  buf: Buffer,
  at: number,
  position: number,
  sequence: OffsetSequence,
  offset: number,
): string | undefined {
  return sequence.check(baseOffsetOf(buf, at), nextOffsetOf(buf, at), position, offset);
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
 * The first intact batch after a bad one at `position`, whose base offset should have been `offset`: at the place where
 * the bad one ends, or, where nothing tells that, at any byte.
 *
 * A batch may hold record batches itself, those of a mirrored log. They are not the log's own, so the search leaves out
 * what the bad batch covers as far as its header can be believed. A length that is damaged may by chance lead to another
 * intact batch further on; then the CRC tells which is the right one.
 */
async function findIntact(
  window: Window,
  position: number,
  range: ScanRange,
  offset: number,
): Promise<Found | 'none' | 'given up'> {
  const claimed = await claimOf(window, position);
  const atClaimedEnd = claimed && (await intactAt(window, claimed.endPosition, range, offset));
  if (atClaimedEnd && atClaimedEnd.offset === claimed.nextOffset) return atClaimedEnd;
  const batchEnd = await batchEndOf(window, position, range, offset);
  if (atClaimedEnd && (batchEnd ?? claimed.endPosition) === claimed.endPosition) return atClaimedEnd;
  return searchIntact(window, batchEnd ?? position + 1, range, offset);
}

/** Where the bad batch at `position` says that it ends, if it has a header at all. */
async function claimOf(
  window: Window,
  position: number,
): Promise<{ readonly endPosition: number; readonly nextOffset: number } | undefined> {
  if ((await window.ensure(position, RECORD_BATCH_OVERHEAD)) < RECORD_BATCH_OVERHEAD) return undefined;
  const at = position - window.start;
  const size = sizeInBytesOf(window.buf, at);
  return isBatchSize(size) ? { endPosition: position + size, nextOffset: nextOffsetOf(window.buf, at) } : undefined;
}

function isBatchSize(size: number): boolean {
  return size >= RECORD_BATCH_OVERHEAD && size <= MAX_BATCH_BYTES;
}

/** Where the bad batch at `position` ends; undefined when its header is not to be believed. */
async function batchEndOf(
  window: Window,
  position: number,
  range: ScanRange,
  offset: number,
): Promise<number | undefined> {
  if ((await window.ensure(position, RECORD_BATCH_OVERHEAD)) < RECORD_BATCH_OVERHEAD) return undefined;
  const at = position - window.start;
  const size = sizeInBytesOf(window.buf, at);
  const isBelieved =
    magicOf(window.buf, at) === MAGIC &&
    checkOffsets(window.buf, at, position, range.sequence ?? DENSE, offset) === undefined;
  // Of the fields that the CRC does not cover, one may be what is damaged, the length included.
  if (await hasCrcAt(window, position, size, range.endPosition)) return position + size;
  if (!isBelieved) return undefined;
  for (let bit = 0; bit < 32; bit++) {
    const other = ((size - LOG_OVERHEAD) ^ (1 << bit)) + LOG_OVERHEAD;
    if (await hasCrcAt(window, position, other, range.endPosition)) return position + other;
  }
  return isBatchSize(size) ? position + size : undefined;
}

/** Whether the CRC in the header at `position` is that of a batch of `size` bytes. */
async function hasCrcAt(window: Window, position: number, size: number, end: number): Promise<boolean> {
  if (!isBatchSize(size) || position + size > end) return false;
  if ((await window.ensure(position, size)) < size) return false;
  // All lengths that are tried may lie in one window, so that no reading comes in between.
  if (size > SEARCH_BYTES_PER_TURN) await nextTurn();
  const at = position - window.start;
  return computeBatchCrc(window.buf, at, size) === storedCrcOf(window.buf, at);
}

async function searchIntact(
  window: Window,
  from: number,
  range: ScanRange,
  offset: number,
): Promise<Found | 'none' | 'given up'> {
  const end = range.endPosition;
  let crcBytes = 0;
  let sinceTurn = 0;
  let position = from;
  while (position + RECORD_BATCH_OVERHEAD <= end) {
    await window.ensure(position, RECORD_BATCH_OVERHEAD);
    if (window.start + window.length < position + RECORD_BATCH_OVERHEAD) return 'none';
    if (sinceTurn >= SEARCH_BYTES_PER_TURN) {
      sinceTurn = 0;
      await nextTurn();
    }
    const candidate = nextCandidate(window, position, end, offset);
    sinceTurn += candidate.position - position;
    if (candidate.plausible) {
      const size = sizeInBytesOf(window.buf, candidate.position - window.start);
      sinceTurn += size;
      crcBytes += size;
      if (crcBytes > MAX_SEARCH_CRC_BYTES) return 'given up';
      const found = await intactAt(window, candidate.position, range, offset);
      if (found) return found;
      position = candidate.position + 1;
    } else position = candidate.position;
  }
  return 'none';
}

/** The next place in the window that looks like a header, or the place from which to go on, not too far away. */
function nextCandidate(
  window: Window,
  from: number,
  end: number,
  offset: number,
): { readonly position: number; readonly plausible: boolean } {
  const { buf, start, length } = window;
  let at = from - start;
  const lastAt = Math.min(length - RECORD_BATCH_OVERHEAD, at + SEARCH_BYTES_PER_TURN);
  const stretch = buf.subarray(0, lastAt + MAGIC_AT + 1);
  while (at <= lastAt) {
    const magicAt = stretch[at + MAGIC_AT] === MAGIC ? at + MAGIC_AT : stretch.indexOf(MAGIC, at + MAGIC_AT);
    if (magicAt < 0) break;
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
  range: ScanRange,
  offset: number,
): Promise<Found | undefined> {
  if (position >= range.endPosition) return undefined;
  if ((await checkBytesAt(window, position, range.endPosition)) !== undefined) return undefined;
  const at = position - window.start;
  const baseOffset = baseOffsetOf(window.buf, at);
  if (baseOffset <= offset || baseOffset > offset + MAX_RELATIVE_OFFSET) return undefined;
  if (checkEpoch(window.buf, at, range.epochAt?.(baseOffset)) !== undefined) return undefined;
  const mayResume = (range.sequence ?? DENSE).mayResume(baseOffset, nextOffsetOf(window.buf, at), position);
  return mayResume ? { position, offset: baseOffset } : undefined;
}
