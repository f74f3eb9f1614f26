/**
 * The metadata store of the local engine: a map in memory and a journal of its changes, `metadata.log`.
 *
 * The journal is a log like any other: record batches of one record each with dense offsets, the key being the metadata
 * key and the value `{"version":N,"value":"..."}`, or null for a deletion. It is written anew without what was
 * overwritten when it has grown to more than twice that plus a megabyte.
 */

import { dirname } from 'node:path';
import * as v from 'valibot';
import { encodeBatch } from '../../batch/builder.js';
import { attributesOf, baseOffsetOf, codecOf, sizeInBytesOf } from '../../batch/layout.js';
import { openRecords, type RecordCursor } from '../../batch/records.js';
import { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { closedError } from '../batches.js';
import type { CasResult, MetadataEntry, MetadataStore } from '../engine.js';
import { checkCas, entryAfter, type MetadataChange, MetadataMap } from '../metadata-map.js';
import type { FileDescriptor, FileSystem } from './fs.js';
import { corruptLog, isOutOfSpace, toStorageError } from './io-errors.js';
import { scanBatches } from './scanner.js';
import { replaceFile, writeFully } from './small-files.js';

export const METADATA_LOG_NAME = 'metadata.log';

/** Growth of the journal beyond twice its live size at which it is written anew. */
const COMPACTION_SLACK_BYTES: number = 1024 * 1024;
/** Largest key and value together. */
export const MAX_METADATA_BYTES: number = 1024 * 1024;
/** Changes that wait at most; callers beyond that are refused. */
const MAX_WAITING_CHANGES = 10_000;

const valueSchema = v.object({ version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)), value: v.string() });

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
      if (!stat) await fs.syncDirectory(dirname(path));
      return new LocalMetadataStore(fs, path, logger, fd, journal, options);
    } catch (error) {
      if (fd !== undefined) fs.closeSync(fd);
      throw toStorageError('open', path, error, 'none');
    }
  }

  /** Everything in the journal below is durable, and any later start may count on it. */
  get durableOffset(): number {
    return this.#isRewriting ? 0 : this.#nextOffset;
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
    this.#fs.closeSync(this.#fd);
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError('metadata store');
  }

  /** Takes all that waits together: one write, one sync. */
  async #work(): Promise<void> {
    // Changes asked for in the same turn of the event loop share the first sync.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      this.#waiting = [];
      try {
        await this.#carryOut(waiting);
      } catch (error) {
        for (const { reject } of waiting) reject(error);
      }
    }
    this.#working = undefined;
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
    const bytes = Buffer.concat(changes.map((change, i) => encodeChange(change, this.#nextOffset + i)));
    try {
      writeFully(this.#fs, this.#fd, bytes, this.#size);
    } catch (error) {
      throw this.#undo(error);
    }
    try {
      await this.#fs.fdatasync(this.#fd);
    } catch (error) {
      throw this.#poison(error);
    }
    this.#size += bytes.length;
    this.#nextOffset += changes.length;
  }

  #undo(cause: unknown): LogError {
    try {
      this.#fs.ftruncateSync(this.#fd, this.#size);
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
    return this.#failure;
  }

  async #compactIfWorthwhile(): Promise<void> {
    if (this.#size <= this.#liveBytes * 2 + COMPACTION_SLACK_BYTES) return;
    if (!(await this.#announceRewrite())) return;
    const batches: Buffer[] = [];
    for (const entry of this.#map.entries()) batches.push(encodeChange(entry, batches.length));
    const contents = Buffer.concat(batches);
    try {
      await replaceFile(this.#fs, this.#path, contents);
      this.#fs.closeSync(this.#fd);
      this.#fd = this.#fs.openSync(this.#path, 'update');
    } catch (error) {
      // Which of the two files has the name now is not known, so neither may be written.
      this.#poison(error);
      return;
    }
    this.#size = contents.length;
    this.#nextOffset = batches.length;
    this.#isRewriting = false;
  }

  /** Resolves to whether the journal may be written anew; if not, the next change asks again. */
  async #announceRewrite(): Promise<boolean> {
    this.#isRewriting = true;
    try {
      await this.#beforeRewrite();
      return true;
    } catch (error) {
      this.#isRewriting = false;
      this.#logger.warn({ file: this.#path, err: error }, 'the metadata journal was not written anew');
      return false;
    }
  }
}

interface Journal {
  readonly map: MetadataMap;
  readonly size: number;
  readonly nextOffset: number;
}

async function readJournal(
  fs: FileSystem,
  path: string,
  fd: FileDescriptor,
  size: number,
  logger: Logger,
  durableOffset: number,
): Promise<Journal> {
  const map = new MetadataMap();
  const { position, nextOffset, tail } = await scanBatches(
    (buffer, at) => fs.pread(fd, buffer, at),
    { position: 0, endPosition: size, offset: 0 },
    {
      batch(buf, at, position) {
        const change = decodeChange(buf.subarray(at, at + sizeInBytesOf(buf, at)), map);
        if (!change)
          throw corruptLog(path, position, baseOffsetOf(buf, at), undefined, 'a metadata change is not understood');
        map.apply(change);
        return true;
      },
      damage(damage) {
        throw corruptLog(path, damage.position, damage.offset, damage.nextOffset, damage.why);
      },
    },
  );
  if (nextOffset < durableOffset || tail?.searched === false) {
    throw corruptLog(path, position, nextOffset, undefined, tail?.why ?? 'the file ends too early');
  }
  if (tail) {
    logger.warn({ file: path, position, bytes: size - position, why: tail.why }, 'cutting off a torn tail');
    fs.ftruncateSync(fd, position);
  }
  return { map, size: position, nextOffset };
}

function encodeChange(change: MetadataChange, offset: number): Buffer {
  const { key, value, version } = change;
  const json = value === undefined ? null : Buffer.from(JSON.stringify({ version, value }));
  return encodeBatch([{ timestampMs: -1, key: Buffer.from(key), value: json }], { baseOffset: offset, leaderEpoch: 0 });
}

/** The change in a journal batch; undefined when it is none. */
function decodeChange(batch: Buffer, map: MetadataMap): MetadataChange | undefined {
  const cursor = openChange(batch);
  if (!cursor?.key) return undefined;
  const key = cursor.key.toString('utf8');
  if (cursor.value === null) return { key, value: undefined, version: map.lastVersion(key) + 1 };
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), valueSchema), cursor.value.toString('utf8'));
  return parsed.success ? { key, ...parsed.output } : undefined;
}

/** The record of a journal batch; undefined when it holds none, or one that was never written here. */
function openChange(batch: Buffer): RecordCursor | undefined {
  // Changes are not compressed. Opening one that says so would end in a promise that nobody waits for.
  if (codecOf(attributesOf(batch, 0)) !== 'none') return undefined;
  try {
    const cursor = openRecords(batch);
    return !(cursor instanceof Promise) && cursor.next() ? cursor : undefined;
  } catch (error) {
    if (error instanceof LogError) return undefined;
    throw error;
  }
}

function liveBytesOf(map: MetadataMap): number {
  let bytes = 0;
  for (const entry of map.entries()) bytes += encodeChange(entry, 0).length;
  return bytes;
}
