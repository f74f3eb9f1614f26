/** What a failed file call means to a caller. */
import { errorMessage, LogError, type Outcome } from '../../core/errors.js';
import { errnoOf } from './fs.js';

const NO_ROOM: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
const NO_HANDLE: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE']);

export function isOutOfSpace(error: unknown): boolean {
  return NO_ROOM.has(errnoOf(error) ?? '');
}

export function isOutOfHandles(error: unknown): boolean {
  return NO_HANDLE.has(errnoOf(error) ?? '');
}

/** Whether a sync failed for want of a handle, before anything was handed to the disk: it may be tried again. */
export function isUntriedSync(error: unknown): boolean {
  return error instanceof LogError ? error.reason === 'RESOURCE_LIMIT' : isOutOfHandles(error);
}

/**
 * The LogError for a file call that failed: STORAGE_FULL, RESOURCE_LIMIT or STORAGE_ERROR, with path and errno in the
 * message. A LogError comes back as it is.
 * @param doing what was tried, in the form "write to"
 * @param outcome what is known of the effect, where that is more than the reason says
 */
export function toStorageError(doing: string, path: string, error: unknown, outcome?: Outcome): LogError {
  if (error instanceof LogError) return error;
  const options = {
    cause: error,
    metadata: { path, errno: errnoOf(error) ?? 'none' },
    ...(outcome === undefined ? {} : { outcome }),
  };
  const what = `${errnoOf(error) ?? 'error'}, ${errorMessage(error)}`;
  if (isOutOfSpace(error)) {
    return new LogError(
      'STORAGE_FULL',
      `No room to ${doing} ${path} (${what}). Free some space and try again.`,
      options,
    );
  }
  if (isOutOfHandles(error)) {
    const advice = 'Raise the limit of open files, or lower the number of handles the broker may hold.';
    return new LogError('RESOURCE_LIMIT', `No file handle left to ${doing} ${path} (${what}). ${advice}`, options);
  }
  return new LogError('STORAGE_ERROR', `Could not ${doing} ${path}: ${what}.`, options);
}

/**
 * The STORAGE_ERROR for a sync that failed, whatever the errno, ENOSPC included: bytes that were taken may be gone, and
 * room made now does not bring them back.
 * @param path of the file, or of the directory of the log
 */
export function failedSync(path: string, error: unknown): LogError {
  const cause = toStorageError('sync', path, error);
  const message = `${cause.message} The log takes no more appends until the broker is started again.`;
  return new LogError('STORAGE_ERROR', message, { cause, metadata: cause.metadata });
}

/**
 * Syncs something whose sync must not be tried again when it fails: the kernel may have dropped what it should have
 * written. Hence not even a full disk is a reason that passes.
 * @throws LogError STORAGE_ERROR; RESOURCE_LIMIT when nothing was tried (see `isUntriedSync`)
 */
export async function syncing(path: string, sync: () => Promise<void>): Promise<void> {
  try {
    await sync();
  } catch (error) {
    if (isUntriedSync(error)) throw toStorageError('sync', path, error, 'none');
    throw failedSync(path, error);
  }
}

/**
 * Bytes of a log that do not hold together, or are missing.
 * @param nextValidOffset where reading may go on; undefined when that is not known
 */
export function corruptLog(
  path: string,
  position: number,
  offset: number,
  nextValidOffset: number | undefined,
  why: string,
): LogError {
  const goOn = nextValidOffset === undefined ? '' : ` Reading can go on at offset ${nextValidOffset}.`;
  return new LogError(
    'CORRUPT_LOG',
    `The log is corrupt at offset ${offset} (${path}, byte ${position}): ${why}.${goOn}`,
    {
      metadata: {
        offset,
        file: path,
        position,
        ...(nextValidOffset === undefined ? {} : { next_valid_offset: nextValidOffset }),
      },
    },
  );
}
