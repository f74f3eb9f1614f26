/** gzip (RFC 1952) by Node's own zlib. */
import { promisify } from 'node:util';
import { gunzip, gunzipSync, gzip, gzipSync, type ZlibOptions } from 'node:zlib';
import {
  corruptByLibrary,
  corruptSection,
  decompressedTooLarge,
  type SectionCodec,
  SYNC_INPUT_BYTES,
  SYNC_OUTPUT_BYTES,
} from './codec.js';

const gzipAsync = promisify<Buffer, ZlibOptions, Buffer>(gzip);
const gunzipAsync = promisify<Buffer, ZlibOptions, Buffer>(gunzip);

/** The fastest level: about half the time of zlib's default, 6, for batches of JSON that come out a fifth larger. */
const LEVEL = 1;
/** 10 bytes of header, an empty deflate block of 2, CRC and size of 4 each: no gzip member is shorter. */
const MIN_MEMBER_BYTES = 20;
/** Deflate describes at most 258 bytes by 2 bits; no stream expands more than this. */
const MAX_EXPANSION = 1032;
/** zlib's output chunk: each costs a round trip to the thread pool, so one for all if it is not larger than this. */
const MAX_CHUNK_BYTES = 1024 * 1024;
/** ... and not smaller than this, so that data which declares too little does not cost a round trip for every few bytes. */
const MIN_CHUNK_BYTES = 4 * 1024;
/** What gzip adds to data that it cannot compress: header, trailer, and 5 bytes for each stored block. */
const INCOMPRESSIBLE_SLACK_BYTES = 128;

export const gzipCodec: SectionCodec = {
  async compress(section: Buffer): Promise<Buffer> {
    const chunkSize = clampChunk(section.length + INCOMPRESSIBLE_SLACK_BYTES + (section.length >>> 8));
    const options: ZlibOptions = { level: LEVEL, chunkSize };
    return section.length <= SYNC_INPUT_BYTES ? gzipSync(section, options) : gzipAsync(section, options);
  },

  async decompress(section: Buffer, maxBytes: number): Promise<Buffer> {
    if (section.length < MIN_MEMBER_BYTES) throw corruptSection('gzip', 'it is shorter than any gzip member');
    // The last member's size, modulo 2^32. A lower bound of the whole: enough to refuse by, not to rely on.
    const declaredBytes = section.readUInt32LE(section.length - 4);
    if (declaredBytes > section.length * MAX_EXPANSION) {
      throw corruptSection('gzip', `it cannot hold the ${declaredBytes} bytes that it declares`);
    }
    if (declaredBytes > maxBytes) throw decompressedTooLarge('gzip', maxBytes, declaredBytes);
    // One byte more than declared: zlib asks for another chunk when one is filled to the brim.
    const chunkSize = clampChunk(declaredBytes + 1);
    if (section.length <= SYNC_INPUT_BYTES && declaredBytes <= SYNC_OUTPUT_BYTES) {
      const records = inflateAtOnce(section, Math.min(maxBytes, SYNC_OUTPUT_BYTES), chunkSize);
      if (records !== undefined) return records;
    }
    try {
      return await gunzipAsync(section, { maxOutputLength: maxBytes, chunkSize });
    } catch (error) {
      if (isTooLarge(error)) throw decompressedTooLarge('gzip', maxBytes);
      throw corruptByLibrary('gzip', error);
    }
  },
};

/** Undefined when the result is longer than `maxOutputLength`, whatever the data declares. */
function inflateAtOnce(section: Buffer, maxOutputLength: number, chunkSize: number): Buffer | undefined {
  try {
    return gunzipSync(section, { maxOutputLength, chunkSize });
  } catch (error) {
    if (isTooLarge(error)) return undefined;
    throw corruptByLibrary('gzip', error);
  }
}

function isTooLarge(error: unknown): boolean {
  return error instanceof RangeError && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE';
}

function clampChunk(bytes: number): number {
  return Math.max(MIN_CHUNK_BYTES, Math.min(bytes, MAX_CHUNK_BYTES));
}
