import { assert } from '../../core/assert.js';
import { Slices } from '../../core/slices.js';
import { type Offset, toOffset } from '../../core/types.js';
import { type ProducerContext, placeOf, SLICE_MS } from './producer-context.js';
import { encodeSnapshot, type SnapshotContents, type SnapshotSection } from './snapshot.js';

/** A snapshot is not written before this many times the size of the last one was appended. */
const LEAST_RATIO = 8;
/** One to use, and the one before it should that be damaged. */
const KEPT_SNAPSHOTS = 2;

/** What its partition does for the snapshots. */
export interface SnapshotHooks {
  /** Calls back between two appends, when what is known follows from the batches below the log end offset. */
  readonly atRest: (capture: () => void) => void;
  /** Resolves when the log is durable up to an offset. @throws LogError: it could not be made so */
  readonly whenDurable: (offset: Offset) => Promise<void>;
}

export interface SnapshotsOptions {
  readonly hooks: SnapshotHooks;
  /** One is written after this much was appended. */
  readonly everyBytes: number;
  /** Offset of the one that was loaded, 0 for none. */
  readonly newest: number;
  /** Whether more than it is known. */
  readonly changed: boolean;
}

interface Capture {
  readonly offset: Offset;
  readonly contents: Omit<SnapshotContents, 'sections'>;
  readonly sections: readonly { readonly kind: number; readonly encode: (slices: Slices) => Promise<Buffer> }[];
}

/** When snapshots of a partition's producers are written, and which are kept. One is written at a time. */
export class ProducerSnapshots {
  readonly #context: ProducerContext;
  readonly #hooks: SnapshotHooks;
  readonly #everyBytes: number;
  /** Of the newest one; 0 when there is none. */
  #newest: number;
  #newestBytes = 0;
  /** Appended since the last one was begun. */
  #bytesSince = 0;
  /** Whether what is known has changed since then. */
  #changed: boolean;
  #saving: Promise<void> | undefined;
  #stopped = false;

  constructor(context: ProducerContext, { hooks, everyBytes, newest, changed }: SnapshotsOptions) {
    this.#context = context;
    this.#hooks = hooks;
    this.#everyBytes = everyBytes;
    this.#newest = newest;
    this.#changed = changed;
  }

  /** Takes note of what the log has taken. @param changed whether that has changed what is known */
  appended(byteLength: number, changed: boolean): void {
    this.#bytesSince += byteLength;
    if (changed) this.#changed = true;
  }

  /** Begins one if enough was appended. */
  saveIfDue(): void {
    const isDue = this.#bytesSince >= this.#everyBytes || this.#context.parts.some((part) => part.isDue);
    if (!isDue || this.#bytesSince < this.#newestBytes * LEAST_RATIO) return;
    if (this.#hasContents) void this.save();
    else this.#bytesSince = 0;
  }

  /** Whether there is anything to keep, and a log that it could follow from. */
  get #hasContents(): boolean {
    const { log, states, aborted, parts } = this.#context;
    if (log.failure !== undefined || this.#stopped) return false;
    if (states.count > 0 || states.aborted.count > 0 || aborted.files.length > 0) return true;
    return parts.some((part) => !part.isEmpty);
  }

  /**
   * Sees to it that what is known of the batches below `offset` outlives them: they are about to be deleted or changed.
   * A failure is logged: what it costs is known only after a crash. Undefined: nothing is to be done.
   */
  ensure(offset: number): Promise<void> | undefined {
    if (this.#saving !== undefined) return this.#saving.then(() => this.ensure(offset));
    return this.#changed && this.#newest < offset && this.#hasContents ? this.save() : undefined;
  }

  /** Writes no more of them: what is known may be wrong. */
  stop(): void {
    this.#stopped = true;
  }

  /** Writes the last one, at the end of a log that is durable and takes no more. */
  async finish(): Promise<void> {
    await this.#saving;
    if (this.#stopped) return;
    const isOutdated = this.#context.parts.some((part) => part.isOutdated);
    if (isOutdated || ((this.#changed || this.#bytesSince > 0) && this.#hasContents)) await this.save();
  }

  /** Never rejects: a failure is logged, and the next one is tried when it is due. */
  save(): Promise<void> {
    this.#saving ??= this.#save()
      .catch((error: unknown) => {
        const fields = { ...placeOf(this.#context), err: error };
        this.#context.logger.warn(
          fields,
          'a snapshot of producers could not be written; a restart reads more of the log',
        );
      })
      .finally(() => {
        this.#saving = undefined;
      });
    return this.#saving;
  }

  async #save(): Promise<void> {
    const { log, clock } = this.#context;
    this.#bytesSince = 0;
    const { offset, contents, sections } = await new Promise<Capture>((resolve, reject) => {
      this.#hooks.atRest(() => {
        try {
          resolve(this.#capture());
        } catch (error) {
          reject(error);
        }
      });
    });
    try {
      const slices = new Slices(clock, SLICE_MS);
      const encoded: SnapshotSection[] = [];
      for (const { kind, encode } of sections) encoded.push({ kind, bytes: await encode(slices) });
      const bytes = await encodeSnapshot({ ...contents, sections: encoded }, slices);
      await this.#hooks.whenDurable(offset);
      await log.sideFiles.write('snapshot', offset, bytes);
      this.#newest = offset;
      this.#newestBytes = bytes.length;
    } catch (error) {
      this.#changed = true;
      throw error;
    }
    await this.#removeOld();
  }

  #capture(): Capture {
    assert(!this.#stopped, 'what is known may be wrong');
    const { log, states, aborted, parts } = this.#context;
    this.#changed = false;
    const sections = parts.filter(({ isEmpty }) => !isEmpty).map((part) => ({ kind: part.kind, encode: part.save() }));
    return {
      offset: log.endOffset,
      contents: {
        entries: [...states.entries()],
        aborted: [...states.aborted.entries],
        abortedFiles: [...aborted.files],
      },
      sections,
    };
  }

  /** Removes all but the newest ones that the log reaches up to. */
  async #removeOld(): Promise<void> {
    const { sideFiles } = this.#context.log;
    const old = sideFiles.offsets('snapshot').filter((offset) => offset <= this.#newest);
    for (const offset of old.slice(0, -KEPT_SNAPSHOTS)) await sideFiles.remove('snapshot', toOffset(offset));
  }
}
