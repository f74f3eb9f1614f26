/** What the codecs have in common. */
import { errorMessage, LogError } from '../../core/errors.js';
import type { Codec } from '../layout.js';

export type CompressionCodec = Exclude<Codec, 'none'>;

/** A compression format, applied to the whole records section of a batch. Neither method changes its input. */
export interface SectionCodec {
  compress(section: Buffer): Promise<Buffer>;
  /**
   * @throws LogError CORRUPT_MESSAGE, MESSAGE_TOO_LARGE when the result would be longer than `maxBytes`: found out
   *   before the memory is taken where the format allows it, else before more than `maxBytes` of it is
   */
  decompress(section: Buffer, maxBytes: number): Promise<Buffer>;
}

/**
 * A section of at most this many bytes is compressed or decompressed at once on the calling thread; a larger one goes to
 * the thread pool, where the way there and back costs 50 to 100 us, more when file syncs stand in the queue. The slowest
 * codec, gzip, compresses this much in 0.1 ms: far within the millisecond that one call may hold up the event loop.
 */
export const SYNC_INPUT_BYTES: number = 16 * 1024;
/** As `SYNC_INPUT_BYTES`, for what may come out of decompression; gzip takes 0.5 ms for this much, the others 0.2 ms. */
export const SYNC_OUTPUT_BYTES: number = 128 * 1024;
/**
 * Most frames of one section. Compressors write one; each further one costs a call of the library, so that a section of
 * the smallest frames there are would keep it busy for seconds.
 */
export const MAX_FRAMES = 1_000;

/** @throws LogError UNSUPPORTED_COMPRESSION_TYPE when `load` fails: no build of the package for this platform, say */
export async function loadLibrary<T>(codec: CompressionCodec, packageName: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    throw new LogError(
      'UNSUPPORTED_COMPRESSION_TYPE',
      `Compression type ${codec} is not available here: the package ${packageName} could not be loaded ` +
        `(${firstLine(errorMessage(error))}). Reinstall it for this platform, or use another compression type.`,
      { metadata: { compression_type: codec }, cause: error },
    );
  }
}

/** The section is not what a compressor of this format writes. */
export function corruptSection(codec: CompressionCodec, detail: string, cause?: unknown): LogError {
  return new LogError('CORRUPT_MESSAGE', `The records are not valid ${codec} data: ${detail}.`, {
    metadata: { compression_type: codec },
    cause,
  });
}

/** As `corruptSection`, from what a library threw. */
export function corruptByLibrary(codec: CompressionCodec, error: unknown): LogError {
  return error instanceof LogError ? error : corruptSection(codec, firstLine(errorMessage(error)), error);
}

/** @param actualBytes the decompressed size, where it is known */
export function decompressedTooLarge(codec: CompressionCodec, maxBytes: number, actualBytes?: number): LogError {
  const actual = actualBytes === undefined ? {} : { actual_bytes: actualBytes };
  return new LogError(
    'MESSAGE_TOO_LARGE',
    `The records decompress (${codec}) to ${actualBytes ?? 'more'} bytes; at most ${maxBytes} are read from one batch.`,
    { metadata: { compression_type: codec, max_bytes: maxBytes, ...actual } },
  );
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
