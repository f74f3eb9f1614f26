/**
 * The metadata store of the local engine: a map in memory and a journal of its changes, `metadata.log`.
 *
 * The journal is written anew without what was overwritten when it has grown to more than twice that plus a megabyte.
 */

import { dirname } from 'node:path';
import { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { closedError } from '../batches.js';
import type { CasResult, MetadataEntry, MetadataStore } from '../engine.js';
import { checkCas, entryAfter, type MetadataChange, type MetadataMap } from '../metadata-map.js';
import type { FileDescriptor, FileSystem } from './fs.js';
import { isOutOfSpace, isUntriedSync, toStorageError } from './io-errors.js';
import { encodeChange, encodeChanges, type Journal, readJournal } from './metadata-journal.js';
import { closeFile, createSynced, TEMPORARY_SUFFIX, writeFully } from './small-files.js';

export const METADATA_LOG_NAME = 'metadata.log';

/** Growth of the journal beyond twice its live size at which it is written anew. */
const COMPACTION_SLACK_BYTES: number = 1024 * 1024;
/** Largest key and value together. */
export const MAX_METADATA_BYTES: number = 1024 * 1024;
/** Changes are written and synced together up to so many bytes of keys and values, and one more change. */
const GROUP_BYTES: number = MAX_METADATA_BYTES;
/** Changes that wait at most; callers beyond that are refused. */
const MAX_WAITING_CHANGES = 10_000;

/** What is known of the journal besides its contents. */
export interface JournalOptions {
  /** Everything below was durable once: what lacks of it is damage, not a torn tail. Too low is safe. */
  readonly durableOffset: number;
  /** Called before a rewritten journal, which begins at offset 0 again, takes the place of this one. May throw: not now. */
  readonly beforeRewrite: () => Promise<void>;
}

interface Waiting {
  readonly key: string;
  readonly value: string | undefined;
  readonly expectedVersion: number;
  readonly resolve: (result: CasResult) => void;
  readonly reject: (error: unknown) => void;
}

/** Invariant: what `get` and `list` show is durable. */
export class LocalMetadataStore implements MetadataStore {
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #logger: Logger;
  readonly #map: MetadataMap;
  #fd: FileDescriptor;
  /** Byte and offset at which the journal goes on. */
  #size: number;
  #nextOffset: number;
  /** From the decision to write the journal anew on: the offsets of the old one mean nothing any more. */
  #isRewriting = false;
  readonly #beforeRewrite: () => Promise<void>;
  #liveBytes: number;
  #waiting: Waiting[] = [];
  #working: Promise<void> | undefined;
  /** Whether the journal was written anew and its name is not known to be durable. */
  #nameIsUnsynced = false;
  #rewritingFails = false;
  #failure: LogError | undefined;
  #closed = false;

  private constructor(
    fs: FileSystem,
    path: string,
    logger: Logger,
    fd: FileDescriptor,
    journal: Journal,
    options: JournalOptions,
  ) {
    this.#fs = fs;
    this.#path = path;
    this.#logger = logger;
    this.#beforeRewrite = options.beforeRewrite;
    this.#fd = fd;
    this.#map = journal.map;
    this.#size = journal.size;
    this.#nextOffset = journal.nextOffset;
    this.#liveBytes = liveBytesOf(journal.map);
  }

  /**
   * Reads the journal at `path`, creating it if there is none. A torn tail is cut off.
   * @throws LogError CORRUPT_LOG (damage that is not a torn tail: never dropped silently), STORAGE_ERROR, STORAGE_FULL
   */
  static async open(
    fs: FileSystem,
    path: string,
    logger: Logger,
    options: JournalOptions,
  ): Promise<LocalMetadataStore> {
    let fd: FileDescriptor | undefined;
    try {
      const stat = await fs.stat(path);
      fd = fs.openSync(path, stat ? 'update' : 'create');
      const journal = await readJournal(fs, path, fd, stat?.size ?? 0, logger, options.durableOffset);
      await fs.fdatasync(fd);
      // Whether or not it is new: the process that created or renamed it may have ended before it came to this.
      await fs.syncDirectory(dirname(path));
      return new LocalMetadataStore(fs, path, logger, fd, journal, options);
    } catch (error) {
      if (fd !== undefined) closeFile(fs, fd);
      throw toStorageError('open', path, error, 'none');
    }
  }

  /** Everything in the journal below is durable, and any later start may count on it. */
  get durableOffset(): number {
    return this.#isRewriting ? 0 : this.#nextOffset;
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  async get(key: string): Promise<MetadataEntry | undefined> {
    this.#checkOpen();
    return this.#map.get(key);
  }

  async list(prefix: string): Promise<readonly MetadataEntry[]> {
    this.#checkOpen();
    return this.#map.list(prefix);
  }

  watch(prefix: string, listener: (key: string, entry: MetadataEntry | undefined) => void): () => void {
    return this.#map.watch(prefix, listener);
  }

  async compareAndSet(key: string, value: string | undefined, expectedVersion: number): Promise<CasResult> {
    this.#checkOpen();
    if (this.#failure) throw this.#failure;
    if (Buffer.byteLength(key) + Buffer.byteLength(value ?? '') > MAX_METADATA_BYTES) {
      throw new LogError('MESSAGE_TOO_LARGE', `A metadata entry holds at most ${MAX_METADATA_BYTES} bytes.`);
    }
    if (this.#waiting.length >= MAX_WAITING_CHANGES) {
      throw new LogError('RESOURCE_LIMIT', `${MAX_WAITING_CHANGES} metadata changes wait already.`);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ key, value, expectedVersion, resolve, reject });
      this.#working ??= this.#work();
    });
  }

  /** Finishes what waits and closes the journal. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#working;
    closeFile(this.#fs, this.#fd);
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError('metadata store');
  }

  /** Takes what waits together: one write, one sync. */
  async #work(): Promise<void> {
    // Changes asked for in the same turn of the event loop share the first sync.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const waiting = this.#takeGroup();
      try {
        await this.#carryOut(waiting);
      } catch (error) {
        for (const { reject } of waiting) reject(error);
      }
    }
    this.#working = undefined;
  }

  #takeGroup(): readonly Waiting[] {
    let count = 0;
    for (let bytes = 0; count < this.#waiting.length && bytes < GROUP_BYTES; count++) {
      const { key, value = '' } = this.#waiting[count]!;
      bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
    }
    return this.#waiting.splice(0, count);
  }

  async #carryOut(waiting: readonly Waiting[]): Promise<void> {
    if (this.#failure) throw this.#failure;
    const staged = new Map<string, MetadataChange>();
    const changes: MetadataChange[] = [];
    const results: CasResult[] = [];
    for (const { key, value, expectedVersion } of waiting) {
      const before = staged.get(key);
      const current = before ? entryAfter(before) : this.#map.get(key);
      const lastVersion = before?.version ?? this.#map.lastVersion(key);
      const checked = checkCas(current, lastVersion, key, value, expectedVersion);
      if ('refusal' in checked) {
        results.push(checked.refusal);
        continue;
      }
      staged.set(key, checked.change);
      changes.push(checked.change);
      results.push({ ok: true, version: checked.change.version });
    }
    if (changes.length > 0) await this.#journal(changes);
    for (const change of changes) this.#apply(change);
    for (const [i, { resolve }] of waiting.entries()) resolve(results[i]!);
    await this.#compactIfWorthwhile();
  }

  #apply(change: MetadataChange): void {
    const before = this.#map.get(change.key);
    if (before) this.#liveBytes -= encodeChange(before, 0).length;
    if (change.value !== undefined) this.#liveBytes += encodeChange(change, 0).length;
    this.#map.apply(change);
  }

  async #journal(changes: readonly MetadataChange[]): Promise<void> {
    await this.#syncName();
    const bytes = encodeChanges(changes, this.#nextOffset);
    try {
      writeFully(this.#fs, this.#fd, bytes, this.#size);
    } catch (error) {
      throw await this.#undo(error);
    }
    try {
      await this.#fs.fdatasync(this.#fd);
    } catch (error) {
      throw this.#poison(error);
    }
    this.#size += bytes.length;
    this.#nextOffset += changes.length;
  }

  /** Cuts off what was written, durably: a power cut must not bring back a change that was refused. */
  async #undo(cause: unknown): Promise<LogError> {
    try {
      this.#fs.ftruncateSync(this.#fd, this.#size);
      await this.#fs.fdatasync(this.#fd);
    } catch (error) {
      return this.#poison(error);
    }
    return isOutOfSpace(cause) ? toStorageError('append to', this.#path, cause, 'none') : this.#poison(cause);
  }

  #poison(cause: unknown): LogError {
    const { message } = toStorageError('write', this.#path, cause);
    this.#failure = new LogError('STORAGE_ERROR', `${message} The metadata cannot be changed until a restart.`, {
      cause,
    });
    this.#logger.error({ file: this.#path, err: this.#failure }, 'the metadata takes no more changes');
    return this.#failure;
  }

  /** Where that fails before the new file has the name, the old one goes on, and the next change tries again. */
  async #compactIfWorthwhile(): Promise<void> {
    if (this.#size <= this.#liveBytes * 2 + COMPACTION_SLACK_BYTES) return;
    this.#isRewriting = true;
    await this.#rewrite();
    this.#isRewriting = this.#failure !== undefined;
  }

  async #rewrite(): Promise<void> {
    const batches: Buffer[] = [];
    for (const entry of this.#map.entries()) batches.push(encodeChange(entry, batches.length));
    const contents = Buffer.concat(batches);
    const temporary = this.#path + TEMPORARY_SUFFIX;
    let fd: FileDescriptor;
    try {
      await this.#beforeRewrite();
      fd = await createSynced(this.#fs, temporary, contents);
    } catch (error) {
      this.#noteRewriting(error);
      return;
    }
    try {
      await this.#fs.rename(temporary, this.#path);
    } catch (error) {
      closeFile(this.#fs, fd);
      if (isOutOfSpace(error)) this.#noteRewriting(error);
      // Which of the two files has the name now is not known, so neither may be written.
      else this.#poison(error);
      return;
    }
    this.#noteRewriting(undefined);
    closeFile(this.#fs, this.#fd);
    this.#fd = fd;
    this.#nameIsUnsynced = true;
    this.#size = contents.length;
    this.#nextOffset = batches.length;
    // What stands in both files is durable already; should this fail, the next change finds out.
    await this.#syncName().catch(() => undefined);
  }

  /** Makes the name of a new journal durable, without which a power cut would bring the old one back. */
  async #syncName(): Promise<void> {
    if (!this.#nameIsUnsynced) return;
    try {
      await this.#fs.syncDirectory(dirname(this.#path));
    } catch (error) {
      if (!isUntriedSync(error)) throw this.#poison(error);
      throw toStorageError('sync the directory of', this.#path, error, 'none');
    }
    this.#nameIsUnsynced = false;
  }

  /** One line when it begins to fail: it is tried with every change. */
  #noteRewriting(error: unknown): void {
    const fails = error !== undefined;
    if (fails && !this.#rewritingFails) {
      this.#logger.warn({ file: this.#path, err: error }, 'the metadata journal was not written anew; it grows on');
    }
    this.#rewritingFails = fails;
  }
}

function liveBytesOf(map: MetadataMap): number {
  let bytes = 0;
  for (const entry of map.entries()) bytes += encodeChange(entry, 0).length;
  return bytes;
}
