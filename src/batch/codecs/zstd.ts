/**
 * Zstandard: by Node's own zlib where this Node has it (22.15 and later), else by the package `@mongodb-js/zstd`.
 *
 * In both cases the framing is read first: it shows what is cut off, refuses what declares too much, and finds the
 * frames, of which zlib would decompress the first alone. zlib then holds a limit by itself. The package knows none, so
 * the framing's bound decides; and only frames whose bound is too large although their content may not be (many short
 * blocks) go to `fzstd`, which decompresses block by block and can be stopped: slower, in JavaScript, but never more
 * than was asked for.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import {
  corruptByLibrary,
  corruptSection,
  decompressedTooLarge,
  loadLibrary,
  type SectionCodec,
  SYNC_INPUT_BYTES,
  SYNC_OUTPUT_BYTES,
} from './codec.js';
import { findZstdFrames, MAX_BLOCK_BYTES, type ZstdFrame, zstdPieces } from './zstd-frames.js';

/** Options of zlib's zstd functions that are used here. */
interface BuiltInOptions {
  readonly chunkSize: number;
  /** Compression only: the size that the frame is to declare. */
  readonly pledgedSrcSize?: number;
  readonly maxOutputLength?: number;
}

type BuiltInAsync = (
  data: Buffer,
  options: BuiltInOptions,
  done: (error: Error | null, result: Buffer) => void,
) => void;

/** The functions of `node:zlib` that Node 22.15 brought; the type definitions of Node 20 do not know them. */
export interface BuiltInZstd {
  readonly zstdCompress: BuiltInAsync;
  readonly zstdCompressSync: (data: Buffer, options: BuiltInOptions) => Buffer;
  readonly zstdDecompress: BuiltInAsync;
  readonly zstdDecompressSync: (data: Buffer, options: BuiltInOptions) => Buffer;
}

/** The part of `@mongodb-js/zstd` that is used here; its level cannot be chosen and is 3, Kafka's default. */
interface NativeZstd {
  compress(data: Buffer): Promise<Buffer>;
  decompress(data: Buffer): Promise<Buffer>;
}

type StreamingZstd = Pick<typeof import('fzstd'), 'Decompress'>;

/**
 * The largest window that is accepted, as in zstd's own decoder; a decoder keeps that much of what it has put out.
 * Compression at the highest level takes as much.
 */
const MAX_WINDOW_BYTES: number = 128 * 1024 * 1024;
/** What `fzstd` moves in memory for all blocks of a section, at most: a window for each block. About a second of work. */
const MAX_STREAMED_WORK_BYTES: number = 4 * 1024 * 1024 * 1024;
/** Work of `fzstd` between two turns of the event loop: about a millisecond. */
const STREAMED_SLICE_BYTES: number = 256 * 1024;
/** zlib's output chunk: each costs a round trip to the thread pool, so one for all if it is not larger than this. */
const MAX_CHUNK_BYTES: number = 1024 * 1024;
/** Smallest chunk that zlib accepts. */
const MIN_CHUNK_BYTES = 64;

/** The codec by Node's zlib, if it has Zstandard, else by packages. */
export function createZstdCodec(builtIn: Partial<BuiltInZstd>): SectionCodec {
  return hasZstd(builtIn) ? builtInCodec(builtIn) : packageCodec();
}

export const zstdCodec: SectionCodec = createZstdCodec(zlib as Partial<BuiltInZstd>);

function hasZstd(candidate: Partial<BuiltInZstd>): candidate is BuiltInZstd {
  return typeof candidate.zstdCompress === 'function' && typeof candidate.zstdDecompress === 'function';
}

function builtInCodec(builtIn: BuiltInZstd): SectionCodec {
  const compressAsync = promisify<Buffer, BuiltInOptions, Buffer>(builtIn.zstdCompress);
  const decompressAsync = promisify<Buffer, BuiltInOptions, Buffer>(builtIn.zstdDecompress);

  async function decompressFrame(bytes: Buffer, boundBytes: number, maxBytes: number): Promise<Buffer> {
    const atOnce = bytes.length <= SYNC_INPUT_BYTES && boundBytes <= SYNC_OUTPUT_BYTES;
    // zlib takes no limit of 0; one byte too much is found out when the frames are put together.
    const options = { maxOutputLength: Math.max(maxBytes, 1), chunkSize: clampChunk(boundBytes + 1) };
    try {
      return atOnce ? builtIn.zstdDecompressSync(bytes, options) : await decompressAsync(bytes, options);
    } catch (error) {
      if (error instanceof RangeError) throw decompressedTooLarge('zstd', maxBytes);
      throw corruptByLibrary('zstd', error);
    }
  }

  return {
    async compress(section: Buffer): Promise<Buffer> {
      // What zstd adds to data that it cannot compress: 3 bytes a block and the frame's own.
      const chunkSize = clampChunk(section.length + (section.length >>> 8) + MIN_CHUNK_BYTES);
      const options = { chunkSize, pledgedSrcSize: section.length };
      return section.length <= SYNC_INPUT_BYTES
        ? builtIn.zstdCompressSync(section, options)
        : compressAsync(section, options);
    },
    async decompress(section: Buffer, maxBytes: number): Promise<Buffer> {
      const parts: Buffer[] = [];
      let total = 0;
      for (const frame of framesWithin(section, maxBytes)) {
        const bytes = section.subarray(frame.start, frame.end);
        const part = await decompressFrame(bytes, frame.boundBytes, maxBytes - total);
        total += part.length;
        if (total > maxBytes) throw decompressedTooLarge('zstd', maxBytes);
        parts.push(part);
      }
      return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    },
  };
}

function packageCodec(): SectionCodec {
  let native: Promise<NativeZstd> | undefined;
  let streaming: Promise<StreamingZstd> | undefined;
  const loadNative = (): Promise<NativeZstd> => {
    native ??= loadLibrary('zstd', '@mongodb-js/zstd', () => import('@mongodb-js/zstd'));
    return native;
  };
  return {
    async compress(section: Buffer): Promise<Buffer> {
      return (await loadNative()).compress(section);
    },
    async decompress(section: Buffer, maxBytes: number): Promise<Buffer> {
      const zstd = await loadNative();
      const frames = framesWithin(section, maxBytes);
      const boundBytes = sum(frames, (frame) => frame.boundBytes);
      // Within a block of the limit the bound is good enough: what is over is found out afterwards.
      if (boundBytes <= maxBytes + MAX_BLOCK_BYTES) return decompressWhole(zstd, section, maxBytes);
      streaming ??= loadLibrary('zstd', 'fzstd', () => import('fzstd'));
      return decompressByBlock(await streaming, section, frames, maxBytes);
    },
  };
}

/** The frames of a section that declares no more than `maxBytes`. */
function framesWithin(section: Buffer, maxBytes: number): ZstdFrame[] {
  const frames = findZstdFrames(section);
  if (frames.length === 0) throw corruptSection('zstd', 'it has no frame');
  const declaredBytes = sum(frames, (frame) => frame.declaredBytes ?? 0);
  if (declaredBytes > maxBytes) throw decompressedTooLarge('zstd', maxBytes, declaredBytes);
  const window = frames.reduce((widest, frame) => Math.max(widest, frame.windowBytes), 0);
  if (window > MAX_WINDOW_BYTES) {
    throw corruptSection('zstd', `a window of ${window} bytes is larger than decoders accept`);
  }
  return frames;
}

async function decompressWhole(zstd: NativeZstd, section: Buffer, maxBytes: number): Promise<Buffer> {
  let records: Buffer;
  try {
    records = await zstd.decompress(section);
  } catch (error) {
    throw corruptByLibrary('zstd', error);
  }
  if (records.length > maxBytes) throw decompressedTooLarge('zstd', maxBytes, records.length);
  return records;
}

/** Decompresses block by block on the calling thread, in slices, and stops when `maxBytes` is passed. */
async function decompressByBlock(
  { Decompress }: StreamingZstd,
  section: Buffer,
  frames: readonly ZstdFrame[],
  maxBytes: number,
): Promise<Buffer> {
  const work = sum(frames, (frame) => frame.blockCount * workPerBlock(frame));
  if (work > MAX_STREAMED_WORK_BYTES) throw decompressedTooLarge('zstd', maxBytes);
  const parts: Uint8Array[] = [];
  let total = 0;
  const keep = (part: Uint8Array): void => {
    total += part.length;
    if (total > maxBytes) throw decompressedTooLarge('zstd', maxBytes);
    parts.push(part);
  };
  let workSinceTurn = 0;
  for (const frame of frames) {
    const stream = new Decompress(keep);
    let at = frame.start;
    for (const piece of zstdPieces(section, frame)) {
      at += piece.length;
      try {
        stream.push(piece, at === frame.end);
      } catch (error) {
        throw corruptByLibrary('zstd', error);
      }
      workSinceTurn += workPerBlock(frame);
      if (workSinceTurn > STREAMED_SLICE_BYTES) {
        workSinceTurn = 0;
        await nextTurn();
      }
    }
  }
  return Buffer.concat(parts);
}

/** Bytes that `fzstd` writes or moves for one block: its output, and the window after it. */
function workPerBlock(frame: ZstdFrame): number {
  return MAX_BLOCK_BYTES + frame.windowBytes;
}

function sum(frames: readonly ZstdFrame[], amount: (frame: ZstdFrame) => number): number {
  return frames.reduce((total, frame) => total + amount(frame), 0);
}

function clampChunk(bytes: number): number {
  return Math.max(MIN_CHUNK_BYTES, Math.min(bytes, MAX_CHUNK_BYTES));
}
