/**
 * LZ4 frames by the package `lz4-napi`, which reads one frame and ignores what follows, takes a missing end for an end,
 * and knows no limit. So the framing is checked here, by the LZ4 frame format's description:
 *
 *     frame = magic u32, FLG u8, BD u8, [contentSize u64], [dictionaryId u32], headerChecksum u8,
 *             block*, endMark u32 = 0, [contentChecksum u32]
 *     block = size u32 (high bit: stored, not compressed), data, [blockChecksum u32]
 *     FLG   = version:2 = 01, independent blocks:1, block checksums:1, content size:1, content checksum:1, 0:1, dictionary:1
 *     BD    = 0:1, block maximum:3 (4: 64 KiB, 5: 256 KiB, 6: 1 MiB, 7: 4 MiB), 0:4
 *     skippable frame = magic u32 184D2A50-184D2A5F, size u32, data
 *
 * All integers are little-endian. Frames follow each other.
 */
import {
  corruptByLibrary,
  corruptSection,
  decompressedTooLarge,
  loadLibrary,
  MAX_FRAMES,
  type SectionCodec,
  SYNC_INPUT_BYTES,
  SYNC_OUTPUT_BYTES,
} from './codec.js';

type Lz4Library = typeof import('lz4-napi');

const FRAME_MAGIC = 0x184d2204;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_MASK = 0xfffffff0;
const STORED_BIT = 0x8000_0000;

/** One frame and what it can decompress to. */
interface Frame {
  readonly bytes: Buffer;
  /** No more than this can come out. */
  readonly boundBytes: number;
}

let library: Promise<Lz4Library> | undefined;

function loadLz4(): Promise<Lz4Library> {
  library ??= loadLibrary('lz4', 'lz4-napi', () => import('lz4-napi'));
  return library;
}

export const lz4Codec: SectionCodec = {
  async compress(section: Buffer): Promise<Buffer> {
    const lz4 = await loadLz4();
    return section.length <= SYNC_INPUT_BYTES ? lz4.compressFrameSync(section) : lz4.compressFrame(section);
  },

  async decompress(section: Buffer, maxBytes: number): Promise<Buffer> {
    const lz4 = await loadLz4();
    const frames = findFrames(section, maxBytes);
    if (frames.length === 0) throw corruptSection('lz4', 'it has no frame');
    const parts: Buffer[] = [];
    for (const frame of frames) parts.push(await decompressFrame(lz4, frame));
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  },
};

async function decompressFrame(lz4: Lz4Library, frame: Frame): Promise<Buffer> {
  try {
    const atOnce = frame.bytes.length <= SYNC_INPUT_BYTES && frame.boundBytes <= SYNC_OUTPUT_BYTES;
    return atOnce ? lz4.decompressFrameSync(frame.bytes) : await lz4.decompressFrame(frame.bytes);
  } catch (error) {
    throw corruptByLibrary('lz4', error);
  }
}

/** The frames of a section, which together decompress to at most `maxBytes`. */
function findFrames(section: Buffer, maxBytes: number): Frame[] {
  const roughly = scanFrames(section, roughBlockBound, Number.POSITIVE_INFINITY, maxBytes);
  if (totalBound(roughly) <= maxBytes) return roughly;
  // The rough bound is far off for many short blocks, so they are counted before they are refused.
  return scanFrames(section, countBlock, maxBytes, maxBytes);
}

function totalBound(frames: readonly Frame[]): number {
  return frames.reduce((sum, frame) => sum + frame.boundBytes, 0);
}

/** How much the block of compressed data from `start` to `end` can decompress to; `maxBytes` by its frame's header. */
type BlockBound = (section: Buffer, start: number, end: number, maxBytes: number) => number;

/** A byte of compressed data makes at most 255 bytes of match. */
const roughBlockBound: BlockBound = (_section, start, end, maxBytes) => Math.min(maxBytes, (end - start) * 255);

/**
 * Walks the frames and bounds what they decompress to.
 * @param stopAtBytes refuses as soon as the bound passes this
 */
function scanFrames(section: Buffer, boundOf: BlockBound, stopAtBytes: number, maxBytes: number): Frame[] {
  const frames: Frame[] = [];
  let total = 0;
  let at = 0;
  while (at < section.length) {
    const magic = readUInt32(section, at);
    if ((magic & SKIPPABLE_MASK) >>> 0 === SKIPPABLE_MAGIC) {
      at += 8 + readUInt32(section, at + 4);
      if (at > section.length) throw cutOff();
      continue;
    }
    if (magic !== FRAME_MAGIC) throw corruptSection('lz4', `no frame begins at byte ${at}`);
    if (frames.length === MAX_FRAMES) throw corruptSection('lz4', `it has more than ${MAX_FRAMES} frames`);
    const frame = scanFrame(section, at, boundOf, stopAtBytes - total, maxBytes);
    total += frame.boundBytes;
    frames.push(frame);
    at += frame.bytes.length;
  }
  return frames;
}

function scanFrame(section: Buffer, start: number, boundOf: BlockBound, stopAtBytes: number, maxBytes: number): Frame {
  const header = readFrameHeader(section, start, maxBytes);
  let bound = 0;
  let at = header.end;
  for (;;) {
    const field = readUInt32(section, at);
    at += 4;
    if (field === 0) break;
    const dataEnd = at + (field & ~STORED_BIT);
    if (dataEnd > section.length) throw cutOff();
    const stored = (field & STORED_BIT) !== 0;
    const blockBound = stored ? dataEnd - at : boundOf(section, at, dataEnd, header.blockMaxBytes);
    if (blockBound > header.blockMaxBytes) throw corruptSection('lz4', 'a block is larger than its frame allows');
    bound += blockBound;
    if (bound > stopAtBytes) throw decompressedTooLarge('lz4', maxBytes);
    at = dataEnd + header.blockTrailerBytes;
  }
  at += header.trailerBytes;
  if (at > section.length) throw cutOff();
  return { bytes: section.subarray(start, at), boundBytes: bound };
}

interface FrameHeader {
  readonly end: number;
  readonly blockMaxBytes: number;
  readonly blockTrailerBytes: number;
  readonly trailerBytes: number;
}

function readFrameHeader(section: Buffer, start: number, maxBytes: number): FrameHeader {
  const flags = section[start + 4] ?? 0;
  const blockMaximum = ((section[start + 5] ?? 0) >>> 4) & 0x07;
  if (flags >>> 6 !== 1) throw corruptSection('lz4', `the frame version is ${flags >>> 6}, not 1`);
  if (flags & 0x01) throw corruptSection('lz4', 'it needs a dictionary');
  if (blockMaximum < 4) throw corruptSection('lz4', `the block maximum ${blockMaximum} is not 4 to 7`);
  let at = start + 6;
  if (flags & 0x08) {
    const contentBytes = readUInt32(section, at) + readUInt32(section, at + 4) * 2 ** 32;
    if (contentBytes > maxBytes) throw decompressedTooLarge('lz4', maxBytes, contentBytes);
    at += 8;
  }
  return {
    end: at + 1,
    blockMaxBytes: 1 << (8 + 2 * blockMaximum),
    blockTrailerBytes: flags & 0x10 ? 4 : 0,
    trailerBytes: flags & 0x04 ? 4 : 0,
  };
}

/**
 * The exact size of a compressed block: the sum of its literals and matches, without making them. Takes a few
 * nanoseconds for each, and is asked only of what would otherwise be refused.
 *
 *     sequence = token u8 (literal length:4, match length - 4:4), [255* u8], literals, offset u16, [255* u8]
 */
function countBlock(section: Buffer, start: number, end: number, maxBytes: number): number {
  let size = 0;
  let at = start;
  while (at < end && size <= maxBytes) {
    const token = section[at++]!;
    let literals = token >>> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255 && at < end) literals += more = section[at++]!;
    }
    size += literals;
    at += literals;
    if (at >= end) break; // the last sequence has no match
    at += 2;
    let match = (token & 0x0f) + 4;
    if (match === 19) {
      let more = 255;
      while (more === 255 && at < end) match += more = section[at++]!;
    }
    size += match;
  }
  return size;
}

function readUInt32(section: Buffer, at: number): number {
  if (at + 4 > section.length) throw cutOff();
  return section.readUInt32LE(at);
}

function cutOff(): Error {
  return corruptSection('lz4', 'the frame is cut off');
}
