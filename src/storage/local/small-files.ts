/** Small files that are read and replaced whole. */
import { dirname } from 'node:path';
import type { FileSystem } from './fs.js';

/** Suffix of a file that is being written; what is left of one is rubbish. */
export const TEMPORARY_SUFFIX = '.tmp';

/**
 * All of a file, or undefined when there is none.
 * @throws RangeError when it is larger than `maxBytes`: such a file is not what it should be
 */
export async function readSmallFile(fs: FileSystem, path: string, maxBytes: number): Promise<Buffer | undefined> {
  const stat = await fs.stat(path);
  if (!stat) return undefined;
  if (stat.size > maxBytes) throw new RangeError(`${path} has ${stat.size} bytes, more than ${maxBytes}`);
  const buffer = Buffer.alloc(stat.size);
  const fd = fs.openSync(path, 'read');
  try {
    const count = await fs.pread(fd, buffer, 0);
    return buffer.subarray(0, count);
  } finally {
    fs.closeSync(fd);
  }
}

/** Writes all bytes at `position`, however many calls it takes. */
export function writeFully(fs: FileSystem, fd: number, buffer: Uint8Array, position: number): void {
  let written = 0;
  while (written < buffer.byteLength) {
    const count = fs.writevSync(fd, [buffer.subarray(written)], position + written);
    if (count === 0) throw new Error('a write took no bytes');
    written += count;
  }
}

/** Writes a file, without making anything durable. */
export async function writeWhole(fs: FileSystem, path: string, contents: Uint8Array): Promise<void> {
  const fd = fs.openSync(path, 'create');
  try {
    writeFully(fs, fd, contents, 0);
  } finally {
    fs.closeSync(fd);
  }
}

/** Writes a file and makes its contents durable; its directory entry is left to the caller. */
export async function writeSynced(fs: FileSystem, path: string, contents: Uint8Array): Promise<void> {
  const fd = fs.openSync(path, 'create');
  try {
    writeFully(fs, fd, contents, 0);
    await fs.fdatasync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Replaces a file such that at any moment, power loss included, the old or the new one is there whole. */
export async function replaceFile(fs: FileSystem, path: string, contents: Uint8Array): Promise<void> {
  const temporary = path + TEMPORARY_SUFFIX;
  await writeSynced(fs, temporary, contents);
  await fs.rename(temporary, path);
  await fs.syncDirectory(dirname(path));
}
