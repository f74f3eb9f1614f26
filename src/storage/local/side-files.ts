/** The side files of one partition, `<offset in 20 digits>.<kind>` beside its segments. */
import { join } from 'node:path';
import { LogError } from '../../core/errors.js';
import { type Offset, toOffset } from '../../core/types.js';
import type { SideFileKind, SideFiles } from '../engine.js';
import { OffsetSets } from '../offset-sets.js';
import type { FileCache } from './file-cache.js';
import type { FileSystem } from './fs.js';
import { toStorageError } from './io-errors.js';
import { segmentName } from './segment.js';
import { readSmallFile, replaceFile } from './small-files.js';

/** Larger ones are none of ours. */
const MAX_SIDE_FILE_BYTES: number = 64 * 1024 * 1024;

const SIDE_FILE = /^(\d{20})\.(snapshot|txnindex)$/;

export interface SideFileName {
  readonly name: string;
  readonly kind: SideFileKind;
  readonly offset: Offset;
}

/** Undefined for the name of any other file. */
export function sideFileOfName(name: string): SideFileName | undefined {
  const [, digits, kind] = SIDE_FILE.exec(name) ?? [];
  const offset = Number(digits);
  if ((kind !== 'snapshot' && kind !== 'txnindex') || !Number.isSafeInteger(offset)) return undefined;
  return { name, kind, offset: toOffset(offset) };
}

/** Each file is replaced as a whole: at any moment, power loss included, the old one or the new one is there. */
export class LocalSideFiles implements SideFiles {
  readonly #directory: string;
  readonly #fs: FileSystem;
  readonly #files: FileCache;
  readonly #kept = new OffsetSets();

  /** @param found those that are there */
  constructor(
    { fs, files }: { readonly fs: FileSystem; readonly files: FileCache },
    directory: string,
    found: readonly SideFileName[],
  ) {
    this.#fs = fs;
    this.#files = files;
    this.#directory = directory;
    for (const { kind, offset } of found) this.#kept.add(kind, offset);
  }

  offsets(kind: SideFileKind): readonly Offset[] {
    return this.#kept.of(kind);
  }

  async read(kind: SideFileKind, offset: Offset): Promise<Buffer | undefined> {
    const path = this.#pathOf(kind, offset);
    try {
      return await this.#files.withHandle(() => readSmallFile(this.#fs, path, MAX_SIDE_FILE_BYTES));
    } catch (error) {
      if (error instanceof RangeError) return undefined;
      throw toStorageError('read', path, error);
    }
  }

  async write(kind: SideFileKind, offset: Offset, contents: Uint8Array): Promise<void> {
    const path = this.#pathOf(kind, offset);
    if (contents.byteLength > MAX_SIDE_FILE_BYTES) {
      throw new LogError('RESOURCE_LIMIT', `${path} would take ${contents.byteLength} bytes: more than is read again.`);
    }
    try {
      await this.#files.withHandle(() => replaceFile(this.#fs, path, contents));
    } catch (error) {
      throw toStorageError('replace', path, error, 'none');
    }
    this.#kept.add(kind, offset);
  }

  async remove(kind: SideFileKind, offset: Offset): Promise<void> {
    const path = this.#pathOf(kind, offset);
    try {
      await this.#fs.unlink(path);
    } catch (error) {
      throw toStorageError('remove', path, error, 'none');
    }
    this.#kept.delete(kind, offset);
  }

  #pathOf(kind: SideFileKind, offset: Offset): string {
    return join(this.#directory, `${segmentName(offset)}.${kind}`);
  }
}
