/**
 * Compression of batches: the whole records section of a batch is one compressed stream, its header stays in clear.
 * Libraries are loaded when a codec is first used; one that cannot be loaded costs that codec only.
 */
import { assert } from '../core/assert.js';
import { LogError } from '../core/errors.js';
import type { CompressionCodec, SectionCodec } from './codecs/codec.js';
import { gzipCodec } from './codecs/gzip.js';
import { lz4Codec } from './codecs/lz4.js';
import { snappyCodec } from './codecs/snappy.js';
import { zstdCodec } from './codecs/zstd.js';
import {
  ATTRIBUTES_AT,
  attributesOf,
  BATCH_LENGTH_AT,
  CODEC_MASK,
  CODECS,
  type Codec,
  LOG_OVERHEAD,
  RECORD_BATCH_OVERHEAD,
  sizeInBytesOf,
  writeCrc,
  writeInt32,
} from './layout.js';

const SECTION_CODECS: Readonly<Record<CompressionCodec, SectionCodec>> = {
  gzip: gzipCodec,
  snappy: snappyCodec,
  lz4: lz4Codec,
  zstd: zstdCodec,
};

/**
 * The batch with its records compressed, in new memory, its size, codec and CRC set. `batch` is one whole uncompressed
 * batch and stays as it is; for 'none' it is the result. The result can be larger than `batch` when the records do not
 * compress.
 * @throws LogError UNSUPPORTED_COMPRESSION_TYPE when the codec's library cannot be loaded
 */
export async function compressBatch(batch: Buffer, codec: Codec): Promise<Buffer> {
  if (codec === 'none') return batch;
  assert(sizeInBytesOf(batch, 0) === batch.length, 'a batch to compress fills its buffer');
  assert((attributesOf(batch, 0) & CODEC_MASK) === 0, 'a batch to compress is not compressed');
  const section = await SECTION_CODECS[codec].compress(batch.subarray(RECORD_BATCH_OVERHEAD));
  const compressed = Buffer.allocUnsafe(RECORD_BATCH_OVERHEAD + section.length);
  compressed.set(batch.subarray(0, RECORD_BATCH_OVERHEAD));
  compressed.set(section, RECORD_BATCH_OVERHEAD);
  writeInt32(compressed, BATCH_LENGTH_AT, compressed.length - LOG_OVERHEAD);
  compressed[ATTRIBUTES_AT + 1] = compressed[ATTRIBUTES_AT + 1]! | CODECS.indexOf(codec);
  writeCrc(compressed, 0);
  return compressed;
}

/**
 * The records section of a batch, decompressed. For 'none' it is `section` itself.
 * @throws LogError CORRUPT_MESSAGE (not whole and valid data of that codec), MESSAGE_TOO_LARGE (it would be longer than
 *   `maxBytes`; no more memory than that is spent on finding out), UNSUPPORTED_COMPRESSION_TYPE (the codec's library
 *   cannot be loaded)
 */
export async function decompressRecords(section: Buffer, codec: Codec, maxBytes: number): Promise<Buffer> {
  if (codec !== 'none') return SECTION_CODECS[codec].decompress(section, maxBytes);
  if (section.length <= maxBytes) return section;
  throw new LogError('MESSAGE_TOO_LARGE', `The records take ${section.length} bytes; at most ${maxBytes} are read.`, {
    metadata: { actual_bytes: section.length, max_bytes: maxBytes },
  });
}
