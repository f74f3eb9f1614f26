/**
 * The data directory as a whole: who owns it, which format it has, and whether it was left in order.
 *
 *     .lock             taken by the process that uses the directory; holds its process id
 *     meta.json         {"formatVersion":3}
 *     .clean_shutdown   there while nobody uses the directory and everything in it is in order
 *     metadata.log, recovery-point-offset-checkpoint
 *     logs/             a directory for each partition, <topic id>-<partition>
 */
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { errorMessage, LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { errnoOf, type FileSystem } from './fs.js';
import type { FileLock } from './lock.js';
import { closeFile, readSmallFile, replaceFile, writeFully } from './small-files.js';

/**
 * The newest format that this version reads and the one it writes. A directory of an older format becomes one of this by
 * being opened.
 *
 * 2: segments that compaction wrote, which have holes.
 * 3: metadata changes that share a batch; recovery points with leader epochs and a checksum.
 * 4: batches of producers and transactions; checkpoints that say in which segments they are.
 */
export const FORMAT_VERSION = 4;

export const LOCK_NAME = '.lock';
export const META_NAME = 'meta.json';
export const CLEAN_SHUTDOWN_NAME = '.clean_shutdown';
export const LOGS_NAME = 'logs';

const MAX_META_BYTES = 64 * 1024;
const MAX_LOCK_BYTES = 64;

const metaSchema = v.pipe(
  v.string(),
  v.parseJson(),
  v.looseObject({ formatVersion: v.pipe(v.number(), v.safeInteger(), v.minValue(1)) }),
);

/** A data directory that belongs to this process until released. */
export interface OwnedDataDir {
  readonly path: string;
  /** Whether its last user left it in order. */
  readonly wasClean: boolean;
  /** Says that everything in it is in order; durable when resolved. */
  markClean(): Promise<void>;
  release(): void;
}

/**
 * Creates the directory if need be and takes it for this process.
 * @throws LogError DATA_DIR_LOCKED (pid of the holder in the metadata), DATA_DIR_UNUSABLE, UNSUPPORTED_FORMAT
 */
export async function takeDataDir(fs: FileSystem, path: string, logger: Logger): Promise<OwnedDataDir> {
  const lock = await takeLock(fs, path);
  try {
    await claimFormat(fs, path);
    const wasClean = await takeCleanMarker(fs, path);
    await writePid(fs, join(path, LOCK_NAME));
    return {
      path,
      wasClean,
      markClean: () => replaceFile(fs, join(path, CLEAN_SHUTDOWN_NAME), Buffer.from('{"version":1}\n')),
      release: () => lock.release(),
    };
  } catch (error) {
    lock.release();
    logger.debug({ directory: path, err: error }, 'the data directory was given back');
    throw unusable(path, error);
  }
}

async function takeLock(fs: FileSystem, path: string): Promise<FileLock> {
  const lockPath = join(path, LOCK_NAME);
  let lock: FileLock | undefined;
  try {
    await createDirectories(fs, path);
    lock = await fs.tryLock(lockPath);
  } catch (error) {
    throw unusable(path, error);
  }
  if (lock) return lock;
  const pid = await readPid(fs, lockPath);
  throw new LogError(
    'DATA_DIR_LOCKED',
    `The data directory ${path} is in use by process ${pid}. Stop that process, or choose another data directory.`,
    { metadata: { data_dir: path, pid } },
  );
}

/**
 * Makes the entries of what it creates outside of the data directory durable; those inside follow with the first file.
 * As long as there is none, an earlier attempt may have created directories and ended before they were durable.
 */
async function createDirectories(fs: FileSystem, path: string): Promise<void> {
  const isNew = !(await fs.stat(join(path, META_NAME)));
  await fs.mkdir(join(path, LOGS_NAME));
  if (!isNew) return;
  for (let at = path; at !== dirname(at); at = dirname(at)) await syncParent(fs, at);
}

/** Of a directory in which this user creates nothing, or whose file system knows no such thing. */
const CANNOT_BE_SYNCED: ReadonlySet<string> = new Set(['EACCES', 'EPERM', 'EROFS', 'EINVAL']);

async function syncParent(fs: FileSystem, path: string): Promise<void> {
  try {
    await fs.syncDirectory(dirname(path));
  } catch (error) {
    if (!CANNOT_BE_SYNCED.has(errnoOf(error) ?? '')) throw error;
  }
}

async function readPid(fs: FileSystem, lockPath: string): Promise<string> {
  const contents = await readSmallFile(fs, lockPath, MAX_LOCK_BYTES).catch(() => undefined);
  const pid = contents?.toString('latin1').trim() ?? '';
  return /^\d+$/.test(pid) ? pid : 'unknown';
}

/** For whoever finds the directory taken. The lock itself does not depend on it. */
async function writePid(fs: FileSystem, lockPath: string): Promise<void> {
  const fd = fs.openSync(lockPath, 'update');
  try {
    fs.ftruncateSync(fd, 0);
    writeFully(fs, fd, Buffer.from(`${process.pid}\n`), 0);
  } finally {
    closeFile(fs, fd);
  }
}

async function claimFormat(fs: FileSystem, path: string): Promise<void> {
  if ((await formatOf(fs, path)) === FORMAT_VERSION) return;
  await replaceFile(fs, join(path, META_NAME), Buffer.from(`${JSON.stringify({ formatVersion: FORMAT_VERSION })}\n`));
}

/**
 * The format that the directory says it has, one that this version reads; undefined when it says nothing. Changes nothing.
 * @throws LogError UNSUPPORTED_FORMAT, DATA_DIR_UNUSABLE
 */
export async function formatOf(fs: FileSystem, path: string): Promise<number | undefined> {
  const metaPath = join(path, META_NAME);
  let bytes: Buffer | undefined;
  try {
    bytes = await readSmallFile(fs, metaPath, MAX_META_BYTES);
  } catch (error) {
    throw unusable(path, error);
  }
  if (!bytes) return undefined;
  const meta = v.safeParse(metaSchema, bytes.toString('utf8'));
  if (!meta.success) {
    throw new LogError('DATA_DIR_UNUSABLE', `${metaPath} is not what Tidelog writes. Is ${path} a data directory?`, {
      metadata: { data_dir: path },
    });
  }
  const { formatVersion } = meta.output;
  if (formatVersion <= FORMAT_VERSION) return formatVersion;
  throw new LogError(
    'UNSUPPORTED_FORMAT',
    `The data directory ${path} has format version ${formatVersion}; this Tidelog reads up to version ${FORMAT_VERSION}. Use the version of Tidelog that wrote it, or a newer one.`,
    { metadata: { data_dir: path, format_version: formatVersion, supported_version: FORMAT_VERSION } },
  );
}

/** Removes the marker, durably, before anything else changes: a crash from here on is one. */
async function takeCleanMarker(fs: FileSystem, path: string): Promise<boolean> {
  const marker = join(path, CLEAN_SHUTDOWN_NAME);
  if (!(await fs.stat(marker))) return false;
  await fs.unlink(marker);
  await fs.syncDirectory(path);
  return true;
}

function unusable(path: string, error: unknown): LogError {
  if (error instanceof LogError) return error;
  return new LogError(
    'DATA_DIR_UNUSABLE',
    `The data directory ${path} cannot be used: ${errorMessage(error)}. Check that it is a directory this user may write to.`,
    { cause: error, metadata: { data_dir: path, errno: errnoOf(error) ?? 'none' } },
  );
}
