import { nextOffsetOf, sizeInBytesOf } from '../../../batch/layout.js';
import { LogError } from '../../../core/errors.js';
import { CompactionPass, type PassCounters } from '../../compaction/compaction-pass.js';
import { type EpochRun, EpochRuns } from '../epoch-runs.js';
import type { FileSystem } from '../fs.js';
import { cleanedSequence } from '../index-cache.js';
import { corruptLog, toStorageError } from '../io-errors.js';
import { DENSE } from '../offset-sequence.js';
import { type ScanVisitor, scanBatches } from '../scanner.js';
import { type Damage, MAX_RELATIVE_OFFSET, MAX_SEGMENT_BYTES } from '../segment.js';
import { closeFile } from '../small-files.js';
import { type CleanedSegment, GroupWriter } from './segment-writer.js';

/** A segment to be compacted: closed, synced and free of known damage. */
export interface CleanSource {
  readonly path: string;
  readonly offsetIndexPath: string;
  readonly offsetIndexCrc: number;
  readonly baseOffset: number;
  readonly nextOffset: number;
  readonly sizeInBytes: number;
  readonly cleaned: boolean;
  readonly epochs: readonly EpochRun[];
}

/** What one pass is to do. Times in ms. */
export interface CleanTask {
  readonly directory: string;
  /** All segments from the log start on that may be touched, ascending. */
  readonly sources: readonly CleanSource[];
  /** Everything below was compacted before. */
  readonly firstDirty: number;
  readonly nowMs: number;
  readonly deleteRetentionMs: number;
  readonly producerExpirationMs: number;
  readonly maxMapBytes: number;
  readonly segmentBytes: number;
}

/** Segments that take the place of others. */
export interface CleanedGroup {
  /** Base offsets, one segment after the other. */
  readonly sources: readonly number[];
  readonly outputs: readonly CleanedSegment[];
}

/** What a pass has done. */
export interface CleanSummary extends PassCounters {
  /** The keys up to here were mapped: below, at most one record of each key is left. */
  readonly cleanedOffset: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Batches are taken from a scan in pieces of about this size. */
const READ_BYTES: number = 1024 * 1024;
/** Segments joined into one at most: they lose their names in one go, three renames of some 20 us each. */
const MAX_GROUP_SEGMENTS = 64;

/**
 * Yields each group when it is written and synced; goes on with the next when asked for it. Files of a group that is
 * not finished are removed before an error is thrown.
 * @param shouldStop asked between pieces of work; once true, the pass ends with CANCELLED
 * @throws LogError CORRUPT_LOG, STORAGE_FULL, STORAGE_ERROR, CANCELLED
 */
export async function* cleanPass(
  fs: FileSystem,
  task: CleanTask,
  shouldStop: () => boolean,
): AsyncGenerator<CleanedGroup, CleanSummary, void> {
  const { firstDirty, nowMs, deleteRetentionMs, producerExpirationMs, maxMapBytes, sources } = task;
  const upTo = sources[sources.length - 1]!.nextOffset;
  const pass = await CompactionPass.plan((from, to) => batchesBetween(fs, sources, from, to, shouldStop), {
    firstDirty,
    upTo,
    nowMs,
    deleteRetentionMs,
    producerExpirationMs,
    maxMapBytes,
  });
  let bytesBefore = 0;
  let bytesAfter = 0;
  const touched = sources.filter(({ baseOffset }) => baseOffset < pass.cleanedOffset);
  for (const group of groupsOf(touched, task.segmentBytes)) {
    const outputs = await cleanGroup(fs, task, group, pass, shouldStop);
    for (const source of group) bytesBefore += source.sizeInBytes;
    for (const { facts } of outputs) bytesAfter += facts.sizeInBytes;
    yield { sources: group.map(({ baseOffset }) => baseOffset), outputs };
  }
  return { cleanedOffset: pass.cleanedOffset, bytesBefore, bytesAfter, ...pass.counters };
}

/** Neighbours that fit into one segment together, so that a log does not end up as many small files. */
function* groupsOf(sources: readonly CleanSource[], segmentBytes: number): Generator<CleanSource[], void, void> {
  let group: CleanSource[] = [];
  let bytes = 0;
  for (const source of sources) {
    const first = group[0];
    const fits =
      first === undefined ||
      (group.length < MAX_GROUP_SEGMENTS &&
        bytes + source.sizeInBytes <= Math.min(segmentBytes, MAX_SEGMENT_BYTES) &&
        source.nextOffset - 1 - first.baseOffset <= MAX_RELATIVE_OFFSET);
    if (!fits) {
      yield group;
      group = [];
      bytes = 0;
    }
    group.push(source);
    bytes += source.sizeInBytes;
  }
  if (group.length > 0) yield group;
}

async function cleanGroup(
  fs: FileSystem,
  task: CleanTask,
  group: readonly CleanSource[],
  pass: CompactionPass,
  shouldStop: () => boolean,
): Promise<readonly CleanedSegment[]> {
  const end = group[group.length - 1]!.nextOffset;
  const writer = new GroupWriter(fs, task.directory, group[0]!.baseOffset, task.segmentBytes);
  try {
    for (const source of group) {
      for await (const batch of batchesOf(fs, source, shouldStop)) {
        const kept = await pass.clean(batch);
        // The last one stays, if only as a header, so that the segment ends where the next begins.
        if (kept !== undefined) await writer.write(kept);
        else if (nextOffsetOf(batch, 0) === end) await writer.write(pass.placeholder(batch));
      }
    }
    return await writer.finish();
  } catch (error) {
    await writer.discard();
    throw error;
  }
}

async function* batchesBetween(
  fs: FileSystem,
  sources: readonly CleanSource[],
  from: number,
  to: number,
  shouldStop: () => boolean,
): AsyncGenerator<Buffer, void, void> {
  for (const source of sources) {
    if (source.nextOffset <= from) continue;
    if (source.baseOffset >= to) return;
    for await (const batch of batchesOf(fs, source, shouldStop)) if (nextOffsetOf(batch, 0) > from) yield batch;
  }
}

/** All batches of a segment, each in memory of its own, checked. */
async function* batchesOf(
  fs: FileSystem,
  source: CleanSource,
  shouldStop: () => boolean,
): AsyncGenerator<Buffer, void, void> {
  const { path, sizeInBytes, baseOffset } = source;
  const sequence = source.cleaned
    ? await cleanedSequence(fs, baseOffset, source.offsetIndexPath, source.offsetIndexCrc)
    : DENSE;
  const epochs = new EpochRuns(source.epochs);
  const fd = openSource(fs, path);
  try {
    let position = 0;
    let offset = baseOffset;
    while (position < sizeInBytes) {
      if (shouldStop()) throw new LogError('CANCELLED', 'The compaction was stopped.', { outcome: 'none' });
      const piece = new Piece(path);
      const result = await scanBatches(
        (buffer, at) => fs.pread(fd, buffer, at),
        { position, endPosition: sizeInBytes, offset, sequence, epochAt: (base) => epochs.epochAt(base) },
        piece,
      );
      yield* piece.batches;
      if (result.tail) throw corruptLog(path, result.tail.position, result.tail.offset, undefined, result.tail.why);
      ({ position, nextOffset: offset } = result);
    }
    if (offset !== source.nextOffset) {
      throw corruptLog(path, position, offset, source.nextOffset, 'the file ends too early');
    }
  } catch (error) {
    throw toStorageError('read', path, error, 'none');
  } finally {
    closeFile(fs, fd);
  }
}

function openSource(fs: FileSystem, path: string): number {
  try {
    return fs.openSync(path, 'read');
  } catch (error) {
    throw toStorageError('open', path, error, 'none');
  }
}

/** Collects the batches of one scan until they are enough for once. */
class Piece implements ScanVisitor {
  readonly batches: Buffer[] = [];
  readonly #path: string;
  #bytes = 0;

  constructor(path: string) {
    this.#path = path;
  }

  batch(buf: Buffer, at: number): boolean {
    const size = sizeInBytesOf(buf, at);
    // The scan reads the next piece of the file into the same memory.
    this.batches.push(Buffer.from(buf.subarray(at, at + size)));
    this.#bytes += size;
    return this.#bytes < READ_BYTES;
  }

  damage({ position, offset, nextOffset, why }: Damage): void {
    throw corruptLog(this.#path, position, offset, nextOffset, why);
  }
}
