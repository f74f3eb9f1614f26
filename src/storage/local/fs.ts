/**
 * The file system as the local engine uses it, and the only place that touches `node:fs`.
 *
 * Every step that matters for durability is a call of its own, so that another implementation can count, fail or lose
 * each of them. Errors carry Node's `code` (`ENOSPC`, `EIO`, ...). Paths are absolute.
 */
import {
  close,
  closeSync,
  constants,
  fdatasync,
  ftruncateSync,
  open,
  openSync,
  promises,
  read,
  readSync,
  renameSync,
  type Stats,
  writevSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { type FileLock, lockDescriptor } from './lock.js';

/**
 * How a file is opened: to read it; to read and change one that exists; or to read and change one that is created, or
 * emptied, by opening it. Never for appending at the end: `O_APPEND` ignores positions.
 */
export type OpenMode = 'read' | 'update' | 'create';

/** What `stat` tells. */
export interface FileStat {
  /** Bytes. */
  readonly size: number;
  /** When its contents were changed last, wall clock in ms. */
  readonly modifiedMs: number;
  readonly isDirectory: boolean;
}

/** A number that stands for an open file until it is closed. */
export type FileDescriptor = number;

/**
 * Synchronous calls are those that meet the page cache only (a few microseconds); everything that waits for a disk
 * is asynchronous.
 */
export interface FileSystem {
  /** @throws errors with `code`: ENOENT, EMFILE, ENFILE, ENOSPC, EACCES, ... */
  openSync(path: string, mode: OpenMode): FileDescriptor;
  closeSync(fd: FileDescriptor): void;
  /** Fills `buffer` from byte `position` of the file. Resolves to the count; short only at the end of the file. */
  pread(fd: FileDescriptor, buffer: Uint8Array, position: number): Promise<number>;
  preadSync(fd: FileDescriptor, buffer: Uint8Array, position: number): number;
  /** Writes the buffers one after the other at `position`. Returns the count, which may be short without an error. */
  writevSync(fd: FileDescriptor, buffers: readonly Uint8Array[], position: number): number;
  ftruncateSync(fd: FileDescriptor, size: number): void;
  /** Makes the contents and the size of the file survive power loss. Its directory entry is another matter. */
  fdatasync(fd: FileDescriptor): Promise<void>;
  /**
   * Makes the entries of a directory (creations, renames, removals) survive power loss.
   * @throws errors with `code`; EMFILE and ENFILE say that the directory could not be opened: nothing was synced, so
   *   that trying again is not trying a failed sync again
   */
  syncDirectory(path: string): Promise<void>;
  /** Undefined when there is nothing at `path`. */
  stat(path: string): Promise<FileStat | undefined>;
  /** Names in a directory, in no order; empty when there is no such directory. */
  readdir(path: string): Promise<readonly string[]>;
  /** Creates a directory (mode 0700) and its missing parents. Resolves to whether there was none. */
  mkdir(path: string): Promise<boolean>;
  /** Replaces what is at `to`. */
  rename(from: string, to: string): Promise<void>;
  /** As `rename`, for what must change its name while nobody can look: some 20 us. */
  renameSync(from: string, to: string): void;
  /** Removes a file; does nothing when there is none. */
  unlink(path: string): Promise<void>;
  /** Bytes that this process may still write to the file system of `path`. */
  freeBytes(path: string): Promise<number>;
  /** Removes a directory with all that is in it; does nothing when there is none. */
  removeTree(path: string): Promise<void>;
  /**
   * Creates `path` if need be and takes it for this process alone, until released or until the process ends, however
   * it ends. Undefined when another holder has it.
   */
  tryLock(path: string): Promise<FileLock | undefined>;
}

const FLAGS: Readonly<Record<OpenMode, number>> = {
  read: constants.O_RDONLY,
  update: constants.O_RDWR,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC,
};

const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

const openAsync = promisify(open);
const closeAsync = promisify(close);
const fdatasyncAsync = promisify(fdatasync);

/** Node's error code of anything thrown by a file system; undefined when it carries none. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** The value of `work`, or undefined when it fails because there is no such file. */
async function unlessMissing<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function readAt(fd: FileDescriptor, buffer: Uint8Array, from: number, position: number): Promise<number> {
  // The callback form: 10-30 % cheaper than the promise API, and this is the hot path of cold reads.
  return new Promise((resolve, reject) => {
    read(fd, buffer, from, buffer.byteLength - from, position, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
}

/** The real file system. */
export const nodeFileSystem: FileSystem = {
  openSync: (path, mode) => openSync(path, FLAGS[mode], FILE_MODE),
  closeSync: (fd) => closeSync(fd),

  async pread(fd, buffer, position) {
    let filled = 0;
    while (filled < buffer.byteLength) {
      const count = await readAt(fd, buffer, filled, position + filled);
      if (count === 0) break;
      filled += count;
    }
    return filled;
  },

  preadSync(fd, buffer, position) {
    let filled = 0;
    while (filled < buffer.byteLength) {
      const count = readSync(fd, buffer, filled, buffer.byteLength - filled, position + filled);
      if (count === 0) break;
      filled += count;
    }
    return filled;
  },

  writevSync: (fd, buffers, position) => writevSync(fd, buffers, position),
  ftruncateSync: (fd, size) => ftruncateSync(fd, size),
  fdatasync: (fd) => fdatasyncAsync(fd),

  async syncDirectory(path) {
    // Windows cannot open directories; its file systems journal their entries.
    if (process.platform === 'win32') return;
    const fd = await openAsync(path, constants.O_RDONLY);
    try {
      await fdatasyncAsync(fd);
    } finally {
      await closeAsync(fd);
    }
  },

  async stat(path) {
    const stats: Stats | undefined = await unlessMissing(promises.stat(path));
    return stats && { size: stats.size, modifiedMs: stats.mtimeMs, isDirectory: stats.isDirectory() };
  },

  async readdir(path) {
    return (await unlessMissing(promises.readdir(path))) ?? [];
  },

  async mkdir(path) {
    return (await promises.mkdir(path, { recursive: true, mode: DIRECTORY_MODE })) !== undefined;
  },

  rename: (from, to) => promises.rename(from, to),
  renameSync: (from, to) => renameSync(from, to),

  async unlink(path) {
    await unlessMissing(promises.unlink(path));
  },

  async freeBytes(path) {
    const { bavail, bsize } = await promises.statfs(path);
    return bavail * bsize;
  },

  removeTree: (path) => promises.rm(path, { recursive: true, force: true }),

  async tryLock(path) {
    const exclusive = process.platform === 'darwin' || process.platform === 'freebsd' ? BSD_EXCLUSIVE_LOCK : 0;
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDWR | constants.O_CREAT | exclusive, FILE_MODE);
    } catch (error) {
      if (exclusive !== 0 && errnoOf(error) === 'EAGAIN') return undefined;
      throw error;
    }
    if (exclusive !== 0) return { release: () => closeSync(fd) };
    const lock = await lockDescriptor(fd, path).catch((error: unknown) => {
      closeSync(fd);
      throw error;
    });
    if (!lock) {
      closeSync(fd);
      return undefined;
    }
    return {
      release() {
        lock.release();
        closeSync(fd);
      },
    };
  },
};

/** `O_EXLOCK | O_NONBLOCK` of the BSDs and macOS: opening takes the file's `flock`, or fails with EAGAIN. */
const BSD_EXCLUSIVE_LOCK = 0x20 | 0x04;
