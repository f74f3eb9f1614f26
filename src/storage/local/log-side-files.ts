/**
 * The side files of one log, in its directory: `%020d.snapshot` and `%020d.txnindex`. Each is replaced in one step, so
 * that the old one or the new one is there whole at any moment; a start finds them by their names.
 */
import { join } from 'node:path';
import { partitionPoint } from '../../core/binary-search.js';
import type { Offset } from '../../core/types.js';
import { checkSideFileSize, MAX_SIDE_FILE_BYTES } from '../batches.js';
import type { SideFileKind } from '../engine.js';
import { syncing, toStorageError } from './io-errors.js';
import type { EngineContext } from './log-state.js';
import { parseSideFileName, sideFileName } from './side-file-names.js';
import { readSmallFile, replaceFile, TEMPORARY_SUFFIX } from './small-files.js';

/**
 * Removes the side files above the end of a log that is being opened, durably: once other records have taken the offsets
 * they speak of, nobody could tell.
 * @param names in the directory
 * @returns the names of those that stay
 * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT; errors of the file system
 */
export async function dropSideFilesAbove(
  { fs, logger }: Pick<EngineContext, 'fs' | 'logger'>,
  directory: string,
  names: readonly string[],
  endOffset: number,
): Promise<readonly string[]> {
  const sideFiles = names.filter((name) => parseSideFileName(name) !== undefined);
  const dropped = sideFiles.filter((name) => parseSideFileName(name)!.offset > endOffset);
  if (dropped.length === 0) return sideFiles;
  for (const name of dropped) await fs.unlink(join(directory, name));
  await syncing(directory, () => fs.syncDirectory(directory));
  logger.info({ directory, endOffset, files: dropped }, 'removed files that speak of records which are lost');
  return sideFiles.filter((name) => !dropped.includes(name));
}

type Context = Pick<EngineContext, 'fs' | 'files' | 'logger' | 'maintenance'>;

/** Runs work that is finished before the log is closed. Rejects with CLOSED when it is closed. */
export type WhileOpen = <T>(work: () => Promise<T>) => Promise<T>;

/** See `SideFiles`. Invariant: the offsets of each kind ascend. */
export class LogSideFiles {
  readonly #context: Context;
  readonly #directory: string;
  readonly #whileOpen: WhileOpen;
  readonly #offsets: Record<SideFileKind, readonly Offset[]> = { snapshot: [], txnindex: [] };
  /** Settles when everything asked for so far has been done or has failed; bounded by the callers. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param names of the files that are there */
  constructor(context: Context, directory: string, names: readonly string[], whileOpen: WhileOpen) {
    this.#context = context;
    this.#directory = directory;
    this.#whileOpen = whileOpen;
    for (const name of [...names].sort()) {
      const found = parseSideFileName(name);
      if (found) this.#note(found.kind, found.offset);
    }
  }

  offsets(kind: SideFileKind): readonly Offset[] {
    return this.#offsets[kind];
  }

  /** @throws LogError STORAGE_ERROR, RESOURCE_LIMIT, CLOSED */
  read(kind: SideFileKind, offset: Offset): Promise<Buffer | undefined> {
    return this.#inTurn(() => this.#read(this.#pathOf(kind, offset)));
  }

  /**
   * @param mayWrite throws if the caller may not write any more; called right before anything is written
   * @throws LogError STORAGE_FULL, STORAGE_ERROR, RESOURCE_LIMIT, CLOSED, and what `mayWrite` throws
   */
  write(kind: SideFileKind, offset: Offset, contents: Uint8Array, mayWrite: () => void): Promise<void> {
    return this.#inTurn(async () => {
      checkSideFileSize(contents);
      await this.#context.maintenance.run(async () => {
        mayWrite();
        await this.#replace(kind, offset, contents);
      });
    });
  }

  /** As `write`. */
  remove(kind: SideFileKind, offset: Offset, mayWrite: () => void): Promise<void> {
    return this.#inTurn(async () => {
      mayWrite();
      if (this.#offsets[kind].includes(offset)) await this.#remove(kind, offset);
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.#whileOpen(() => {
      const result = this.#last.then(work);
      this.#last = result.catch(() => undefined);
      return result;
    });
  }

  async #read(path: string): Promise<Buffer | undefined> {
    const { fs, files, logger } = this.#context;
    try {
      return await files.withHandle(() => readSmallFile(fs, path, MAX_SIDE_FILE_BYTES));
    } catch (error) {
      if (!(error instanceof RangeError)) throw toStorageError('read', path, error, 'none');
      logger.warn({ file: path, why: error.message }, 'a file beside a log is too large to be one; going without');
      return undefined;
    }
  }

  async #replace(kind: SideFileKind, offset: Offset, contents: Uint8Array): Promise<void> {
    const { fs, files } = this.#context;
    const path = this.#pathOf(kind, offset);
    try {
      await files.withHandle(() => replaceFile(fs, path, contents));
    } catch (error) {
      await this.#tidyAfter(kind, offset);
      throw toStorageError('replace', path, error, 'unknown');
    }
    this.#note(kind, offset);
  }

  /** The names differ from write to write: without this, a full disk would get fuller with each that fails. */
  async #tidyAfter(kind: SideFileKind, offset: Offset): Promise<void> {
    const { fs } = this.#context;
    const path = this.#pathOf(kind, offset);
    // What cannot be removed, the next start removes.
    await fs.unlink(path + TEMPORARY_SUFFIX).catch(() => undefined);
    // The last step may be what failed.
    const isThere = await fs.stat(path).catch(() => undefined);
    if (isThere) this.#note(kind, offset);
  }

  async #remove(kind: SideFileKind, offset: Offset): Promise<void> {
    const path = this.#pathOf(kind, offset);
    try {
      await this.#context.fs.unlink(path);
    } catch (error) {
      throw toStorageError('remove', path, error, 'none');
    }
    this.#offsets[kind] = this.#offsets[kind].filter((one) => one !== offset);
  }

  #note(kind: SideFileKind, offset: Offset): void {
    const offsets = this.#offsets[kind];
    const at = partitionPoint(offsets.length, (i) => offsets[i]! < offset);
    if (offsets[at] !== offset) this.#offsets[kind] = offsets.toSpliced(at, 0, offset);
  }

  #pathOf(kind: SideFileKind, offset: Offset): string {
    return join(this.#directory, sideFileName(kind, offset));
  }
}
