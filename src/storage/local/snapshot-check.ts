/**
 * Whether a snapshot of producers holds, as far as storage understands one:
 *
 *     snapshot = version: int16 (1), CRC-32C of all that follows: uint32, ...
 */
import { crc32c } from '../../batch/crc32c.js';
import { MAX_SIDE_FILE_BYTES } from '../batches.js';
import { errnoOf, type FileSystem } from './fs.js';
import { readSmallFile } from './small-files.js';

const VERSION = 1;
const CRC_AT = 2;
const CHECKED_FROM = 6;

/** Why the file is no intact snapshot; undefined when it is one, or was removed meanwhile. */
export async function whyNoSnapshot(fs: FileSystem, path: string): Promise<string | undefined> {
  const why = await inspect(fs, path);
  // It may have been replaced between the look at its size and the reading.
  return why === undefined ? undefined : inspect(fs, path);
}

async function inspect(fs: FileSystem, path: string): Promise<string | undefined> {
  try {
    const bytes = await readSmallFile(fs, path, MAX_SIDE_FILE_BYTES);
    return bytes && whyNotIntact(bytes);
  } catch (error) {
    if (error instanceof RangeError) return 'it is larger than any snapshot';
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function whyNotIntact(bytes: Buffer): string | undefined {
  if (bytes.length < CHECKED_FROM) return 'it is cut off';
  const version = bytes.readInt16BE(0);
  if (version !== VERSION) return `its version is ${version}, not ${VERSION}`;
  return crc32c(bytes.subarray(CHECKED_FROM)) === bytes.readUInt32BE(CRC_AT)
    ? undefined
    : 'its checksum does not match';
}
