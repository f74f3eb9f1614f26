/**
 * Opening a partition's directory: what the checkpoint vouches for is taken as it is, everything else is scanned.
 *
 * What follows the last intact batch of the log is a torn tail and cut off, unless it lies below the recovery point, so
 * that it was durable once, or an intact batch follows: then it is corruption. Corruption is never cut off. It is
 * reported, remembered, and left in place; appends go on behind it. Doing all this twice changes nothing more.
 */
import { dirname, join } from 'node:path';
import { LogError } from '../../core/errors.js';
import type { LogConfig } from '../engine.js';
import {
  CHECKPOINT_NAME,
  type PartitionCheckpoint,
  readCheckpoint,
  type SegmentRecord,
  writeCheckpoint,
} from './checkpoint.js';
import { EpochRuns, knownEpochs } from './epoch-runs.js';
import type { SegmentScan } from './index-cache.js';
import { syncing, toStorageError } from './io-errors.js';
import { isLeftover } from './leftovers.js';
import { dropSideFilesAbove } from './log-side-files.js';
import type { EngineContext, RecoveredLog } from './log-state.js';
import type { RecoveryPoint } from './recovery-points.js';
import { scanUnvouched, type UnscannedSegment } from './recovery-scan.js';
import {
  baseOffsetOfName,
  type Damage,
  DELETED_SUFFIX,
  LOG_SUFFIX,
  SEGMENT_SUFFIXES,
  Segment,
  SegmentContents,
  SWAP_SUFFIX,
  segmentFiles,
  segmentName,
} from './segment.js';

interface FoundSegment extends UnscannedSegment {
  /** Undefined when the checkpoint vouches for the file. */
  scan: SegmentScan | undefined;
}

export type RecoveryContext = Pick<EngineContext, 'fs' | 'files' | 'clock' | 'logger'>;

/**
 * Opens the log in `directory`, creating the directory if need be.
 * @param recoveryPoint up to where the log was durable once, and its leader epochs
 * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT, CORRUPT_LOG when the files contradict each other
 */
export async function recoverLog(
  context: RecoveryContext,
  directory: string,
  config: LogConfig,
  recoveryPoint: RecoveryPoint,
): Promise<RecoveredLog> {
  try {
    return await new Recovery(context, directory, config, recoveryPoint).run();
  } catch (error) {
    throw toStorageError('open the log in', directory, error, 'none');
  }
}

class Recovery {
  readonly #context: RecoveryContext;
  readonly #directory: string;
  readonly #config: LogConfig;
  readonly #recoveryPoint: RecoveryPoint;

  constructor(context: RecoveryContext, directory: string, config: LogConfig, recoveryPoint: RecoveryPoint) {
    this.#context = context;
    this.#directory = directory;
    this.#config = config;
    this.#recoveryPoint = recoveryPoint;
  }

  async run(): Promise<RecoveredLog> {
    const created = await this.#context.fs.mkdir(this.#directory);
    const found = created ? [] : await this.#context.fs.readdir(this.#directory);
    const checkpoint = await this.#readCheckpoint(found);
    const settled = checkpoint ? await this.#finishSwap(found, checkpoint) : await this.#undoSwap(found);
    const names = await this.#tidy(settled);
    const baseOffsets = names.map(baseOffsetOfName).filter((base) => base !== undefined);
    const segments = await this.#find(
      baseOffsets.sort((a, b) => a - b),
      checkpoint,
    );
    await this.#scanUnvouched(segments, checkpoint);
    const kept = await this.#dropOutlived(await this.#settleTails(segments), this.#logStartOffset(checkpoint));
    this.#checkOrder(kept);
    return this.#assemble(kept, checkpoint, names);
  }

  /** The checkpoint has the latest; where it does not hold, the recovery points have one that is some seconds old. */
  #logStartOffset(checkpoint: PartitionCheckpoint | undefined): number {
    return Math.max(checkpoint?.logStartOffset ?? 0, this.#recoveryPoint.logStartOffset);
  }

  /** Removes what an interrupted replacement or removal has left. */
  async #tidy(names: readonly string[]): Promise<readonly string[]> {
    const logs = new Set(names.filter((name) => name.endsWith(LOG_SUFFIX)));
    const kept: string[] = [];
    for (const name of names) {
      if (isLeftover(name, logs)) await this.#context.fs.unlink(join(this.#directory, name));
      else kept.push(name);
    }
    return kept;
  }

  /**
   * Gives the outputs of a decided replacement their names. Each step is done only where it is still to be done, so
   * that it may be cut short and begun again; the checkpoint forgets the replacement when all are done.
   * @returns the names in the directory afterwards
   */
  async #finishSwap(names: readonly string[], checkpoint: PartitionCheckpoint): Promise<readonly string[]> {
    if (!checkpoint.swap) return names;
    const { fs } = this.#context;
    const { sources, outputs } = checkpoint.swap;
    for (const base of sources.filter((source) => !outputs.includes(source))) {
      for (const path of segmentFiles(this.#directory, base)) await fs.unlink(path);
    }
    for (const base of outputs) {
      for (const suffix of SEGMENT_SUFFIXES) {
        const name = segmentName(base) + suffix;
        if (names.includes(name + SWAP_SUFFIX)) {
          await fs.rename(join(this.#directory, name + SWAP_SUFFIX), join(this.#directory, name));
        }
      }
    }
    await syncing(this.#directory, () => fs.syncDirectory(this.#directory));
    await writeCheckpoint(fs, join(this.#directory, CHECKPOINT_NAME), { ...checkpoint, swap: undefined });
    this.#context.logger.info({ directory: this.#directory, sources, outputs }, 'finished an interrupted compaction');
    return await fs.readdir(this.#directory);
  }

  /**
   * Without a checkpoint nobody knows whether a replacement was decided, but whatever it replaces is still there: what
   * had lost its name gets it back.
   */
  async #undoSwap(names: readonly string[]): Promise<readonly string[]> {
    if (!names.some((name) => name.endsWith(SWAP_SUFFIX))) return names;
    const { fs } = this.#context;
    for (const name of names.filter((one) => one.endsWith(DELETED_SUFFIX))) {
      const original = name.slice(0, -DELETED_SUFFIX.length);
      if (!names.includes(original)) await fs.rename(join(this.#directory, name), join(this.#directory, original));
    }
    await syncing(this.#directory, () => fs.syncDirectory(this.#directory));
    return await fs.readdir(this.#directory);
  }

  async #readCheckpoint(names: readonly string[]): Promise<PartitionCheckpoint | undefined> {
    const path = join(this.#directory, CHECKPOINT_NAME);
    const checkpoint = names.includes(CHECKPOINT_NAME) ? await readCheckpoint(this.#context.fs, path) : undefined;
    if (typeof checkpoint === 'string') {
      this.#context.logger.warn({ file: path, why: checkpoint }, 'a checkpoint does not hold; scanning the log');
      return undefined;
    }
    if (!checkpoint && names.some((name) => baseOffsetOfName(name) !== undefined)) {
      this.#context.logger.info({ directory: this.#directory }, 'a log has no checkpoint yet; scanning it');
    }
    return checkpoint;
  }

  async #find(baseOffsets: readonly number[], checkpoint: PartitionCheckpoint | undefined): Promise<FoundSegment[]> {
    const records = new Map(checkpoint?.segments.map((record) => [record.baseOffset, record]));
    const found: FoundSegment[] = [];
    for (const baseOffset of baseOffsets) {
      const path = join(this.#directory, segmentName(baseOffset) + LOG_SUFFIX);
      const stat = await this.#context.fs.stat(path);
      if (!stat) continue;
      const segment = new Segment(this.#directory, baseOffset, stat.modifiedMs, true);
      const record = records.get(baseOffset);
      segment.createdMs = record?.createdMs ?? segment.createdMs;
      segment.modifiedMs = record?.modifiedMs ?? segment.modifiedMs;
      // Left by an append that could not be written. If it once held something, the gap in the offsets tells.
      if (stat.size === 0 && !record) {
        await this.#remove(segment);
        continue;
      }
      found.push({ segment, fileSize: stat.size, record, scan: undefined });
      records.delete(baseOffset);
    }
    this.#reportMissing([...records.values()], checkpoint);
    // Trimmed segments whose removal was cut short.
    return this.#dropTrimmed(found, this.#logStartOffset(checkpoint));
  }

  #reportMissing(records: readonly SegmentRecord[], checkpoint: PartitionCheckpoint | undefined): void {
    for (const { baseOffset, nextOffset } of records) {
      if (nextOffset <= this.#logStartOffset(checkpoint)) continue;
      const file = join(this.#directory, segmentName(baseOffset) + LOG_SUFFIX);
      this.#context.logger.error({ file, offset: baseOffset, nextOffset }, 'a segment is missing');
    }
  }

  async #dropTrimmed(found: FoundSegment[], logStartOffset: number): Promise<FoundSegment[]> {
    let count = 0;
    while (count < found.length - 1 && found[count + 1]!.segment.baseOffset <= logStartOffset) count++;
    for (const { segment } of found.slice(0, count)) await this.#remove(segment);
    return found.slice(count);
  }

  async #scanUnvouched(found: readonly FoundSegment[], checkpoint: PartitionCheckpoint | undefined): Promise<void> {
    for (const entry of found) {
      const { segment, record, fileSize } = entry;
      if (record && record.sizeInBytes === fileSize) {
        segment.contents = new SegmentContents(segment.baseOffset, record);
        segment.checksums = { offsetIndexCrc: record.offsetIndexCrc, timeIndexCrc: record.timeIndexCrc };
        continue;
      }
      const { fs, files } = this.#context;
      const { indexIntervalBytes } = this.#config;
      const epochAt = knownEpochs(record, this.#recoveryPoint.epochs);
      const hasCheckpoint = checkpoint !== undefined;
      entry.scan = await scanUnvouched({ fs, files, indexIntervalBytes, hasCheckpoint, epochAt }, entry);
      segment.offsetIndexCrc = record?.offsetIndexCrc;
      segment.contents = entry.scan.contents;
      segment.indexes = entry.scan.indexes;
      segment.damages = entry.scan.damages;
      for (const damage of segment.damages) this.#reportDamage(segment, damage);
    }
  }

  /**
   * Decides for what lies behind the last intact batch of each scanned segment whether it is torn or corrupt, cuts off
   * what is torn, and removes segments behind the end that hold nothing.
   */
  async #settleTails(found: readonly FoundSegment[]): Promise<FoundSegment[]> {
    let last = found.length - 1;
    while (last > 0 && !this.#holdsAnything(found[last]!)) last--;
    for (const { segment, fileSize } of found.slice(last + 1)) {
      if (fileSize > 0) this.#context.logger.warn({ file: segment.path, bytes: fileSize }, 'removing a torn segment');
      await this.#remove(segment);
    }
    const kept = found.slice(0, last + 1);
    for (const [i, entry] of kept.entries()) await this.#settleTail(entry, kept[i + 1]?.segment.baseOffset);
    return kept;
  }

  /** Trimmed segments at the end, which a power cut gave their names back while later ones had lost theirs. */
  async #dropOutlived(found: FoundSegment[], logStartOffset: number): Promise<FoundSegment[]> {
    let count = found.length;
    while (count > 0 && found[count - 1]!.segment.contents.nextOffset < logStartOffset) count--;
    for (const { segment } of found.slice(count)) await this.#remove(segment);
    return found.slice(0, count);
  }

  #holdsAnything({ segment, scan, fileSize, record }: FoundSegment): boolean {
    if (segment.contents.nextOffset > segment.baseOffset || (scan?.damages.length ?? 0) > 0) return true;
    if (record && record.nextOffset > segment.baseOffset) return true;
    return fileSize > 0 && (segment.baseOffset < this.#recoveryPoint.offset || scan?.tail?.searched === false);
  }

  async #settleTail(entry: FoundSegment, nextBase: number | undefined): Promise<void> {
    const { segment, scan, fileSize, record } = entry;
    if (!scan) return;
    const { contents } = segment;
    const durableEnd = Math.max(
      nextBase ?? 0,
      record?.nextOffset ?? 0,
      nextBase === undefined ? this.#recoveryPoint.offset : 0,
    );
    const isCorrupt = contents.nextOffset < durableEnd || scan.tail?.searched === false;
    if (isCorrupt) {
      const why = scan.tail?.why ?? `the file has ${fileSize} bytes, fewer than were written`;
      const nextOffset = Math.max(durableEnd, contents.nextOffset + 1);
      const damage = {
        position: contents.sizeInBytes,
        endPosition: fileSize,
        offset: contents.nextOffset,
        nextOffset,
        why,
      };
      this.#reportDamage(segment, damage);
      segment.damages = [...segment.damages, damage];
      contents.skip(damage);
    } else if (scan.tail) await this.#truncate(segment, fileSize, scan.tail.why);
    if (record && fileSize < record.sizeInBytes) {
      const fields = { file: segment.path, bytes: fileSize, expectedBytes: record.sizeInBytes };
      this.#context.logger.error(fields, 'a segment is shorter than it was');
    }
    await this.#syncFile(segment);
  }

  async #truncate(segment: Segment, fileSize: number, why: string): Promise<void> {
    const size = segment.contents.sizeInBytes;
    const fields = {
      file: segment.path,
      position: size,
      bytes: fileSize - size,
      offset: segment.contents.nextOffset,
      why,
    };
    this.#context.logger.warn(fields, 'cutting off a torn tail');
    const lease = await this.#context.files.acquire(segment.path);
    try {
      this.#context.fs.ftruncateSync(lease.fd, size);
    } finally {
      lease.release();
    }
  }

  /** What a scan has read may still be in memory only, when the process but not the machine had ended. */
  async #syncFile(segment: Segment): Promise<void> {
    const lease = await this.#context.files.acquire(segment.path);
    try {
      await syncing(segment.path, () => this.#context.fs.fdatasync(lease.fd));
    } finally {
      lease.release();
    }
  }

  #checkOrder(found: readonly FoundSegment[]): void {
    for (const [i, { segment }] of found.entries()) {
      const next = found[i + 1]?.segment;
      if (!next || next.baseOffset >= segment.contents.nextOffset) continue;
      throw new LogError(
        'CORRUPT_LOG',
        `${segment.path} reaches offset ${segment.contents.nextOffset}, beyond the start of ${next.path}. One of them is foreign.`,
        { metadata: { offset: next.baseOffset, file: segment.path, position: segment.contents.sizeInBytes } },
      );
    }
  }

  async #assemble(
    found: readonly FoundSegment[],
    checkpoint: PartitionCheckpoint | undefined,
    names: readonly string[],
  ): Promise<RecoveredLog> {
    const segments = found.map(({ segment }) => segment);
    const last = segments[segments.length - 1];
    const startOffset = Math.max(this.#logStartOffset(checkpoint), checkpoint ? 0 : (segments[0]?.baseOffset ?? 0));
    const recorded = Math.max(0, ...(checkpoint?.segments.map(({ nextOffset }) => nextOffset) ?? []));
    const endOffset = Math.max(last?.contents.nextOffset ?? 0, startOffset, this.#recoveryPoint.offset, recorded);
    // Nothing may be appended to a file that ends in damage, or at another offset than the log; nor to one that compaction
    // wrote: what its index does not hold would be taken for a torn tail.
    if (!last || last.contents.nextOffset !== endOffset || last.contents.cleaned || endsInDamage(last)) {
      segments.push(new Segment(this.#directory, endOffset, this.#context.clock.now(), false));
    }
    const lostFrom = last?.contents.nextOffset ?? startOffset;
    if (lostFrom < endOffset) {
      const fields = { directory: this.#directory, offset: lostFrom, nextOffset: endOffset };
      this.#context.logger.error(fields, 'records that were durable are missing at the end of a log');
    }
    const sideFiles = await dropSideFilesAbove(this.#context, this.#directory, names, endOffset);
    const scanned = found.some(({ scan }) => scan !== undefined);
    if (scanned) await this.#syncDirectories(checkpoint !== undefined);
    const clean = !scanned && lostFrom >= endOffset;
    const cleanedOffset = Math.min(checkpoint?.cleanedOffset ?? 0, endOffset);
    const epochs = epochsOf(found);
    const unsynced = !checkpoint && !scanned;
    return { segments, startOffset, endOffset, cleanedOffset, epochs, unsynced, clean, sideFiles };
  }

  async #syncDirectories(parentIsDurable: boolean): Promise<void> {
    const { fs } = this.#context;
    const parent = dirname(this.#directory);
    await syncing(this.#directory, () => fs.syncDirectory(this.#directory));
    if (!parentIsDurable) await syncing(parent, () => fs.syncDirectory(parent));
  }

  #reportDamage(segment: Segment, damage: Damage): void {
    this.#context.logger.error(
      { file: segment.path, ...damage },
      'a part of a segment is corrupt; it is kept, not served',
    );
  }

  async #remove(segment: Segment): Promise<void> {
    this.#context.files.forget(segment.path);
    for (const path of segmentFiles(this.#directory, segment.baseOffset)) await this.#context.fs.unlink(path);
  }
}

/** Leader epochs from the first segment on that was scanned; from the last one on when none was. */
function epochsOf(found: readonly FoundSegment[]): EpochRuns {
  const firstScanned = found.findIndex(({ scan }) => scan !== undefined);
  const epochs = new EpochRuns();
  for (const { segment } of found.slice(firstScanned < 0 ? -1 : firstScanned)) {
    for (const [offset, epoch] of segment.contents.epochs.runs) epochs.add(offset, epoch);
  }
  return epochs;
}

function endsInDamage(segment: Segment): boolean {
  const last = segment.damages[segment.damages.length - 1];
  return last !== undefined && last.endPosition === segment.contents.sizeInBytes;
}
