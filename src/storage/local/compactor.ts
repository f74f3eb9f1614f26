/** Compaction of one log: pass after pass, each group of segments put in its place as it is written. */
import { LogError } from '../../core/errors.js';
import { type Offset, toOffset } from '../../core/types.js';
import { compactedAlready } from '../batches.js';
import type { CompactOptions, CompactResult } from '../engine.js';
import type { CleanedGroup, CleanSource, CleanSummary, CleanTask } from './cleaning/clean-pass.js';
import { corruptLog } from './io-errors.js';
import type { EngineContext, LogState } from './log-state.js';
import type { Maintenance } from './maintenance.js';
import type { Segment } from './segment.js';

export interface CompactorHooks {
  /** Segments were replaced: nothing that is remembered of offsets below may be served any more. */
  readonly replaced: (below: Offset) => void;
}

/** Passes that a trim may cut short before the rest is left to the next compaction. */
const MAX_TRIMS = 3;

/** Sums over all passes. */
interface Totals {
  passCount: number;
  bytesBefore: number;
  bytesAfter: number;
  recordsBefore: number;
  recordsAfter: number;
}

export class Compactor {
  readonly #context: EngineContext;
  readonly #state: LogState;
  readonly #maintenance: Maintenance;
  readonly #hooks: CompactorHooks;
  /** Of the compaction under way: its first element ends it once it is not 0. */
  #stop: Int32Array | undefined;
  #closed = false;

  constructor(context: EngineContext, state: LogState, maintenance: Maintenance, hooks: CompactorHooks) {
    this.#context = context;
    this.#state = state;
    this.#maintenance = maintenance;
    this.#hooks = hooks;
  }

  /** See `PartitionLog.compact`. */
  async compact(options: CompactOptions): Promise<CompactResult> {
    if (this.#stop) throw compactedAlready(this.#state.directory);
    const stop = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const onAbort = (): void => void Atomics.store(stop, 0, 1);
    this.#stop = stop;
    options.signal?.addEventListener('abort', onAbort, { once: true });
    if (options.signal?.aborted || this.#closed) onAbort();
    const totals: Totals = { passCount: 0, bytesBefore: 0, bytesAfter: 0, recordsBefore: 0, recordsAfter: 0 };
    try {
      await this.#maintenance.prepareCompaction();
      let trims = 0;
      while (Atomics.load(stop, 0) === 0 && trims < MAX_TRIMS) {
        const outcome = await this.#pass(options, stop, totals);
        if (outcome === 'done') break;
        if (outcome === 'trimmed') trims++;
      }
    } catch (error) {
      if (!(error instanceof LogError) || error.reason !== 'CANCELLED') throw error;
    } finally {
      options.signal?.removeEventListener('abort', onAbort);
      this.#stop = undefined;
    }
    return { ...totals, cleanedOffset: this.#cleanedOffset };
  }

  /** Ends the compaction under way soon, and every later one at once. */
  close(): void {
    this.#closed = true;
    if (this.#stop) Atomics.store(this.#stop, 0, 1);
  }

  get #cleanedOffset(): Offset {
    return toOffset(Math.max(this.#state.cleanedOffset, this.#state.startOffset));
  }

  /** Resolves to whether there is more to be done, or to do again because the log was trimmed meanwhile. */
  async #pass(options: CompactOptions, stop: Int32Array, totals: Totals): Promise<'done' | 'more' | 'trimmed'> {
    const segments = this.#cleanable(options.upTo);
    const end = segments[segments.length - 1]?.contents.nextOffset ?? 0;
    if (end <= this.#cleanedOffset) return 'done';
    const before = this.#cleanedOffset;
    const task = this.#task(segments, options);
    await this.#context.reserve.refresh();
    if (this.#context.reserve.isShort()) throw noRoom(this.#state.directory);
    const summary = await this.#carryOut(task, segments, stop);
    if (!summary) return 'trimmed';
    await this.#maintenance.noteCleaned(summary.cleanedOffset);
    totals.passCount++;
    totals.bytesBefore += summary.bytesBefore;
    totals.bytesAfter += summary.bytesAfter;
    totals.recordsBefore += summary.recordsBefore;
    totals.recordsAfter += summary.recordsAfter;
    if (summary.unreadableBatches > 0) {
      const { directory } = this.#state;
      const fields = { directory, batches: summary.unreadableBatches };
      this.#context.logger.warn(fields, 'batches that cannot be opened were kept as they are by compaction');
    }
    // A transaction that is not decided yet can hold a pass up; a later compaction goes on from there.
    return summary.cleanedOffset < end && summary.cleanedOffset > before ? 'more' : 'done';
  }

  /** The closed segments up to an offset. @throws LogError CORRUPT_LOG when one of them is damaged or missing */
  #cleanable(upTo: Offset): Segment[] {
    const { segments, durableOffset } = this.#state;
    const limit = Math.min(upTo, durableOffset);
    const found: Segment[] = [];
    for (const segment of segments.slice(0, -1)) {
      if (segment.contents.nextOffset > limit || !segment.checksums) break;
      const damage = segment.damages[0];
      if (damage) throw corruptLog(segment.path, damage.position, damage.offset, damage.nextOffset, damage.why);
      const previous = found[found.length - 1];
      if (previous && previous.contents.nextOffset !== segment.baseOffset) throw missingBetween(previous, segment);
      found.push(segment);
    }
    return found;
  }

  #task(segments: readonly Segment[], options: CompactOptions): CleanTask {
    const { nowMs, deleteRetentionMs, producerExpirationMs, maxMapBytes } = options;
    const { directory, config } = this.#state;
    return {
      directory,
      sources: segments.map(toSource),
      firstDirty: this.#cleanedOffset,
      nowMs,
      deleteRetentionMs,
      producerExpirationMs,
      maxMapBytes,
      segmentBytes: config.segmentBytes,
    };
  }

  /** Undefined when the log was trimmed under the pass: what it replaced by then is in place. */
  async #carryOut(task: CleanTask, segments: readonly Segment[], stop: Int32Array): Promise<CleanSummary | undefined> {
    const run = this.#context.cleaner.run(task, stop);
    try {
      for (;;) {
        const result = await run.next();
        if (result.done) return result.value;
        if (!(await this.#replace(result.value))) return undefined;
      }
    } catch (error) {
      if (segments.some(({ dropped, replaced }) => dropped && !replaced)) return undefined;
      if (error instanceof LogError && error.reason === 'CORRUPT_LOG') await this.#noteDamage(error, segments);
      throw error;
    } finally {
      await run.return(NOTHING).catch(() => undefined);
    }
  }

  /** @returns false when a source was trimmed away */
  async #replace(group: CleanedGroup): Promise<boolean> {
    const isDone = await this.#maintenance.replaceSegments(group);
    if (isDone) this.#hooks.replaced(toOffset(group.outputs[group.outputs.length - 1]!.facts.nextOffset));
    return isDone;
  }

  /** Readers are to know of it as well. */
  async #noteDamage(error: LogError, segments: readonly Segment[]): Promise<void> {
    const segment = segments.find(({ path }) => path === error.metadata.file);
    if (!segment || segment.dropped) return;
    await this.#context.indexes.rebuild(segment, this.#state.config.indexIntervalBytes);
  }
}

/** What a run that is given up returns; nobody looks at it. */
const NOTHING: CleanSummary = {
  cleanedOffset: 0,
  bytesBefore: 0,
  bytesAfter: 0,
  recordsBefore: 0,
  recordsAfter: 0,
  unreadableBatches: 0,
};

/** Segments that are joined across a gap would hide it. */
function missingBetween({ path, contents }: Segment, next: Segment): LogError {
  const { sizeInBytes, nextOffset } = contents;
  return corruptLog(path, sizeInBytes, nextOffset, next.baseOffset, 'a part of the log is missing');
}

function noRoom(directory: string): LogError {
  return new LogError('STORAGE_FULL', `There is no room to compact ${directory} in: the disk is nearly full.`, {
    metadata: { path: directory },
  });
}

function toSource({ path, offsetIndexPath, checksums, contents }: Segment): CleanSource {
  const { baseOffset, nextOffset, sizeInBytes, cleaned, epochs } = contents;
  const offsetIndexCrc = checksums!.offsetIndexCrc;
  return { path, offsetIndexPath, offsetIndexCrc, baseOffset, nextOffset, sizeInBytes, cleaned, epochs: epochs.runs };
}
