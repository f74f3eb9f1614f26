/**
 * Message ids in the partition's snapshot:
 *
 *     section = version  i8       1
 *               entry*            in the order of offsets
 *     entry   = age      varint   ms since the id came, when the snapshot was made, rounded down
 *               offset   varlong  of the record
 *               length   varint   bytes of the id
 *               id                UTF-8
 *
 * Ages instead of times: the monotonic clock begins anew with each process, and the wall clock may have jumped meanwhile.
 * The time between the snapshot and the start does not count, so that ids are remembered for longer, never for less.
 */
import {
  MAX_VARINT_BYTES,
  MAX_VARLONG_BYTES,
  readVarint,
  readVarlong,
  varintEnd,
  writeVarint,
  writeVarlong,
} from '../../batch/varint.js';
import { LogError } from '../../core/errors.js';
import type { RememberedId } from './message-ids.js';

const VERSION = 1;
const ENTRY_OVERHEAD_BYTES = 2 * MAX_VARINT_BYTES + MAX_VARLONG_BYTES;
const MAX_AGE_MS = 2 ** 31 - 1;
/** Entries in one piece of work. */
const ENTRIES_PER_PIECE = 1024;
/** Of a section. Beyond, those that came first are left out: some 700,000 ids of 36 characters fit. */
export const MAX_SECTION_BYTES: number = 32 * 1024 * 1024;

/** Piece by piece, so that its user can let others work in between: some 1,000 ids at a time. The last value is the section. */
export function* encodeSection(
  entries: readonly RememberedId[],
  nowMs: number,
  maxBytes: number = MAX_SECTION_BYTES,
): Generator<undefined, Buffer, void> {
  const pieces: Buffer[] = [];
  let bytes = 1;
  // From the newest on, so that it is the oldest that do not fit.
  for (let end = entries.length; end > 0; end -= ENTRIES_PER_PIECE) {
    const piece = encodePiece(entries.slice(Math.max(0, end - ENTRIES_PER_PIECE), end), nowMs);
    bytes += piece.length;
    if (bytes > maxBytes) break;
    pieces.push(piece);
    yield undefined;
  }
  pieces.push(Buffer.from([VERSION]));
  return Buffer.concat(pieces.reverse());
}

function encodePiece(entries: readonly RememberedId[], nowMs: number): Buffer {
  const size = entries.reduce((sum, { id }) => sum + ENTRY_OVERHEAD_BYTES + Buffer.byteLength(id), 0);
  const piece = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { id, offset, cameMs } of entries) {
    at = writeVarint(piece, at, Math.min(MAX_AGE_MS, Math.max(0, Math.floor(nowMs - cameMs))));
    at = writeVarlong(piece, at, offset);
    at = writeVarint(piece, at, Buffer.byteLength(id));
    at += piece.write(id, at);
  }
  return piece.subarray(0, at);
}

/**
 * The ids of a section, as of a start at `nowMs`.
 * @throws LogError CORRUPT_LOG, UNSUPPORTED_FORMAT
 */
export function* decodeSection(section: Buffer, nowMs: number): Generator<RememberedId, void, void> {
  const version = section[0];
  if (version !== VERSION) {
    throw new LogError('UNSUPPORTED_FORMAT', `Message ids in format version ${version}; this broker knows ${VERSION}.`);
  }
  let at = 1;
  while (at < section.length) {
    const ageMs = readVarint(section, at);
    at = varintEnd(section, at);
    const offset = readVarlong(section, at);
    at = varintEnd(section, at);
    const length = readVarint(section, at);
    at = varintEnd(section, at);
    const isWhole = ageMs !== undefined && offset !== undefined && length !== undefined && length > 0;
    if (!isWhole || ageMs < 0 || offset < 0 || at + length > section.length) {
      throw new LogError('CORRUPT_LOG', `The message ids of a snapshot do not hold together, before byte ${at}.`);
    }
    yield { id: section.toString('utf8', at, at + length), offset, cameMs: nowMs - ageMs };
    at += length;
  }
}
