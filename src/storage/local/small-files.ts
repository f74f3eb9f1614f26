/** Small files that are read and replaced whole. */
import { dirname } from 'node:path';
import type { FileDescriptor, FileSystem } from './fs.js';

/** Suffix of a file that is being written; what is left of one is rubbish. */
export const TEMPORARY_SUFFIX = '.tmp';

/**
 * Closes a file of which nothing hangs on the outcome: the kernel has let go of the descriptor whatever it says, and
 * what must survive was synced before.
 */
export function closeFile(fs: FileSystem, fd: FileDescriptor): void {
  try {
    fs.closeSync(fd);
  } catch {
    // See above.
  }
}

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
    closeFile(fs, fd);
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
    closeFile(fs, fd);
  }
}

/** Writes a file and makes its contents durable; its directory entry is left to the caller. */
export async function writeSynced(fs: FileSystem, path: string, contents: Uint8Array): Promise<void> {
  closeFile(fs, await createSynced(fs, path, contents));
}

/** As `writeSynced`; the file stays open. */
export async function createSynced(fs: FileSystem, path: string, contents: Uint8Array): Promise<FileDescriptor> {
  const fd = fs.openSync(path, 'create');
  try {
    writeFully(fs, fd, contents, 0);
    await fs.fdatasync(fd);
    return fd;
  } catch (error) {
    closeFile(fs, fd);
    throw error;
  }
}

/** Replaces a file such that at any moment, power loss included, the old or the new one is there whole. */
export async function replaceFile(fs: FileSystem, path: string, contents: Uint8Array): Promise<void> {
  const temporary = path + TEMPORARY_SUFFIX;
  await writeSynced(fs, temporary, contents);
  await fs.rename(temporary, path);
  await fs.syncDirectory(dirname(path));
}
