/**
 * The framing of Zstandard data (RFC 8878): which frames and blocks there are, and how much can come out of them at
 * most, without decompressing anything. All integers are little-endian.
 *
 *     frame = magic u32, descriptor u8, [window u8], [dictionaryId], [contentSize], block*, [checksum u32]
 *     descriptor = content size code:2, single segment:1, unused:1, 0:1, checksum:1, dictionary id code:2
 *     block = header u24 (size:21, type:2, last:1), data; type 0 raw, 1 one byte repeated `size` times, 2 compressed
 *     skippable frame = magic u32 184D2A50-184D2A5F, size u32, data
 */
import { corruptSection, MAX_FRAMES } from './codec.js';

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_MASK = 0xfffffff0;
const BLOCK_HEADER_BYTES = 3;
/** No block decompresses to more, whatever the window (RFC 8878, 3.1.1.2.4). */
export const MAX_BLOCK_BYTES: number = 128 * 1024;
const REPEATED_BYTE_BLOCK = 1;
const COMPRESSED_BLOCK = 2;
const RESERVED_BLOCK = 3;

interface FrameHeader {
  readonly start: number;
  /** Position of the first block. */
  readonly blocksStart: number;
  readonly checksumBytes: number;
  /** How far back blocks refer, and what a decoder keeps. */
  readonly windowBytes: number;
  /** The content size that the header declares, if it does. */
  readonly declaredBytes: number | undefined;
}

/** One frame within a section; positions are the section's. */
export interface ZstdFrame extends FrameHeader {
  readonly end: number;
  /** No more than this comes out, whatever the header declares. */
  readonly boundBytes: number;
  readonly blockCount: number;
}

/** One block within a section. */
interface Block {
  readonly end: number;
  readonly last: boolean;
  readonly type: number;
  /** Bytes of its data, or repetitions of its one byte. */
  readonly size: number;
}

/**
 * The frames of a section, without the skippable ones.
 * @throws LogError CORRUPT_MESSAGE when the section is not whole Zstandard frames
 */
export function findZstdFrames(section: Buffer): ZstdFrame[] {
  const frames: ZstdFrame[] = [];
  let at = 0;
  while (at < section.length) {
    const magic = readUIntLE(section, at, 4);
    if ((magic & SKIPPABLE_MASK) >>> 0 === SKIPPABLE_MAGIC) {
      at += 8 + readUIntLE(section, at + 4, 4);
      if (at > section.length) throw cutOff();
      continue;
    }
    if (magic !== FRAME_MAGIC) throw corruptSection('zstd', `no frame begins at byte ${at}`);
    if (frames.length === MAX_FRAMES) throw corruptSection('zstd', `it has more than ${MAX_FRAMES} frames`);
    const frame = readFrame(section, at);
    frames.push(frame);
    at = frame.end;
  }
  return frames;
}

/** A frame's header, then its blocks one by one, the last together with the frame's checksum. */
export function* zstdPieces(section: Buffer, frame: ZstdFrame): Generator<Buffer, void, void> {
  yield section.subarray(frame.start, frame.blocksStart);
  let at = frame.blocksStart;
  while (at < frame.end) {
    const block = readBlock(section, at);
    const end = block.last ? frame.end : block.end;
    yield section.subarray(at, end);
    at = end;
  }
}

function readFrame(section: Buffer, start: number): ZstdFrame {
  const header = readFrameHeader(section, start);
  const blockMaxBytes = Math.min(header.windowBytes, MAX_BLOCK_BYTES);
  let boundBytes = 0;
  let blockCount = 0;
  let at = header.blocksStart;
  let last = false;
  while (!last) {
    const block = readBlock(section, at);
    boundBytes += block.type === COMPRESSED_BLOCK ? blockMaxBytes : block.size;
    blockCount++;
    last = block.last;
    at = block.end;
  }
  const end = at + header.checksumBytes;
  if (end > section.length) throw cutOff();
  return { ...header, end, boundBytes, blockCount };
}

function readBlock(section: Buffer, at: number): Block {
  const header = readUIntLE(section, at, BLOCK_HEADER_BYTES);
  const type = (header >>> 1) & 3;
  const size = header >>> 3;
  if (type === RESERVED_BLOCK) throw corruptSection('zstd', 'a block has the reserved type');
  if (size > MAX_BLOCK_BYTES) throw corruptSection('zstd', `a block of ${size} bytes is larger than any may be`);
  const end = at + BLOCK_HEADER_BYTES + (type === REPEATED_BYTE_BLOCK ? 1 : size);
  if (end > section.length) throw cutOff();
  return { end, last: (header & 1) === 1, type, size };
}

function readFrameHeader(section: Buffer, start: number): FrameHeader {
  const descriptor = readUIntLE(section, start + 4, 1);
  if (descriptor & 0x08) throw corruptSection('zstd', 'a reserved bit of a frame header is set');
  const singleSegment = (descriptor & 0x20) !== 0;
  let at = start + 5;
  let windowBytes = 0;
  if (!singleSegment) {
    const window = readUIntLE(section, at, 1);
    const base = 2 ** (10 + (window >>> 3));
    windowBytes = base + (base / 8) * (window & 7);
    at += 1;
  }
  const dictionaryIdSize = [0, 1, 2, 4][descriptor & 3] ?? 0;
  if (readUIntLE(section, at, dictionaryIdSize) !== 0) throw corruptSection('zstd', 'it needs a dictionary');
  at += dictionaryIdSize;
  const contentSizeSize = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >>> 6] ?? 0;
  let declaredBytes: number | undefined;
  if (contentSizeSize > 0) {
    // Two bytes count from 256: smaller sizes have their own form.
    declaredBytes = readUIntLE(section, at, contentSizeSize) + (contentSizeSize === 2 ? 256 : 0);
    at += contentSizeSize;
  }
  if (singleSegment) windowBytes = declaredBytes ?? 0;
  return { start, blocksStart: at, checksumBytes: descriptor & 0x04 ? 4 : 0, windowBytes, declaredBytes };
}

/** An unsigned integer of `size` bytes, 0 to 8; above 2^53 it is rounded. */
function readUIntLE(section: Buffer, at: number, size: number): number {
  if (at + size > section.length) throw cutOff();
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + section[at + i]!;
  return value;
}

function cutOff(): Error {
  return corruptSection('zstd', 'a frame is cut off');
}
