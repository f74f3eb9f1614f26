/**
 * Reading a whole data directory with every check there is, for `log verify`. Changes nothing, and may run beside a
 * broker: what the broker appends meanwhile is not looked at, what it removes is left out.
 */
import { join } from 'node:path';
import { crc32c } from '../../batch/crc32c.js';
import { LogError } from '../../core/errors.js';
import { CHECKPOINT_NAME, type PartitionCheckpoint, readCheckpoint, type SegmentRecord } from './checkpoint.js';
import { formatOf } from './data-dir.js';
import { type EpochAt, knownEpochs } from './epoch-runs.js';
import { errnoOf, type FileSystem, nodeFileSystem } from './fs.js';
import { cleanedSequence } from './index-cache.js';
import { IndexCheck } from './index-check.js';
import { type InspectedBatch, inspectLogFile, partitionDirectories } from './inspect.js';
import { METADATA_LOG_NAME } from './metadata-store.js';
import { DENSE, type OffsetSequence } from './offset-sequence.js';
import {
  NO_RECOVERY_POINT,
  NO_RECOVERY_POINTS,
  RECOVERY_POINTS_NAME,
  type RecoveryPoint,
  type RecoveryPoints,
  readRecoveryPoints,
} from './recovery-points.js';
import { checkEpoch } from './scanner.js';
import {
  baseOffsetOfName,
  LOG_SUFFIX,
  OFFSET_INDEX_SUFFIX,
  SEGMENT_SUFFIXES,
  SWAP_SUFFIX,
  segmentName,
  TIME_INDEX_SUFFIX,
} from './segment.js';
import { parseSideFileName } from './side-file-names.js';
import { readSmallFile } from './small-files.js';
import { whyNoSnapshot } from './snapshot-check.js';

/** Something that is not as it should be. */
export interface Problem {
  readonly file: string;
  /** Byte in the file. */
  readonly position: number;
  /** Offset of the record that is concerned. */
  readonly offset: number;
  readonly what: string;
}

/** Bytes behind the last intact batch that a start would cut off: an append that was under way, not a loss. */
export interface TornTail {
  readonly file: string;
  readonly position: number;
  readonly bytes: number;
  readonly what: string;
}

export interface PartitionReport {
  /** `<topic id>-<partition>`, or `metadata.log` for the journal of the metadata. */
  readonly name: string;
  readonly segmentCount: number;
  readonly batchCount: number;
  readonly recordCount: number;
  readonly sizeInBytes: number;
  /** Corruption: records that are lost. At most `MAX_PROBLEMS`; `problemCount` counts them all. */
  readonly problems: readonly Problem[];
  readonly problemCount: number;
  readonly tornTail: TornTail | undefined;
  /** Indexes that do not fit the log. They are rebuilt when they are needed: no harm but time. */
  readonly indexProblems: readonly Problem[];
  /** Snapshots of producers that do not hold. A start goes without them: no harm but time. */
  readonly snapshotProblems: readonly Problem[];
}

/** Problems that are described for one partition. */
export const MAX_PROBLEMS = 100;
const MAX_ATTEMPTS = 3;
const MAX_INDEX_BYTES: number = 16 * 1024 * 1024;

/**
 * Verifies a data directory, partition by partition.
 * @throws LogError DATA_DIR_UNUSABLE, UNSUPPORTED_FORMAT, STORAGE_ERROR
 */
export async function* verifyDataDirectory(
  dataDir: string,
  fs: FileSystem = nodeFileSystem,
): AsyncGenerator<PartitionReport, void, void> {
  if ((await formatOf(fs, dataDir)) === undefined) {
    throw new LogError('DATA_DIR_UNUSABLE', `${dataDir} is not a data directory of Tidelog: it has no meta.json.`, {
      metadata: { data_dir: dataDir },
    });
  }
  yield await verifyMetadata(fs, dataDir);
  const points = await pointsOf(fs, dataDir);
  for (const name of await partitionDirectories(dataDir, fs)) {
    const recoveryPoint = points.partitions.get(name) ?? NO_RECOVERY_POINT;
    yield await verifyPartition(fs, name, join(dataDir, 'logs', name), recoveryPoint);
  }
}

/** What does not hold counts as none, as at a start. */
async function pointsOf(fs: FileSystem, dataDir: string): Promise<RecoveryPoints> {
  const read = await readRecoveryPoints(fs, join(dataDir, RECOVERY_POINTS_NAME));
  return typeof read === 'object' ? read : NO_RECOVERY_POINTS;
}

/** Looks again when something is wrong and a broker has written the journal anew meanwhile. */
async function verifyMetadata(fs: FileSystem, dataDir: string): Promise<PartitionReport> {
  for (let attempt = 1; ; attempt++) {
    const { journalOffset } = await pointsOf(fs, dataDir);
    const journalPoint = { ...NO_RECOVERY_POINT, offset: journalOffset };
    const verification = new Verification(fs, METADATA_LOG_NAME, dataDir, journalPoint);
    await verification.journal(join(dataDir, METADATA_LOG_NAME));
    const report = verification.report();
    if (report.problemCount === 0 || attempt === MAX_ATTEMPTS) return report;
    if ((await pointsOf(fs, dataDir)).journalOffset === journalOffset) return report;
  }
}

/** Looks again when something is wrong and a broker has replaced segments meanwhile. */
async function verifyPartition(
  fs: FileSystem,
  name: string,
  directory: string,
  recoveryPoint: RecoveryPoint,
): Promise<PartitionReport> {
  for (let attempt = 1; ; attempt++) {
    const verification = new Verification(fs, name, directory, recoveryPoint);
    const before = await verification.partition();
    const report = verification.report();
    if (report.problemCount === 0 || attempt === MAX_ATTEMPTS) return report;
    const after = await readCheckpoint(fs, join(directory, CHECKPOINT_NAME));
    if (JSON.stringify(after) === JSON.stringify(before)) return report;
  }
}

/** The verification of one log. */
class Verification {
  readonly #fs: FileSystem;
  readonly #name: string;
  readonly #directory: string;
  readonly #recoveryPoint: RecoveryPoint;
  /** Files that are still to be given these names. */
  readonly #swapped = new Set<string>();
  #segmentCount = 0;
  #batchCount = 0;
  #recordCount = 0;
  #sizeInBytes = 0;
  #problemCount = 0;
  readonly #problems: Problem[] = [];
  readonly #indexProblems: Problem[] = [];
  readonly #snapshotProblems: Problem[] = [];
  #tornTail: TornTail | undefined;
  /** Offset after the last intact batch so far. */
  #nextOffset = 0;

  constructor(fs: FileSystem, name: string, directory: string, recoveryPoint: RecoveryPoint) {
    this.#fs = fs;
    this.#name = name;
    this.#directory = directory;
    this.#recoveryPoint = recoveryPoint;
  }

  report(): PartitionReport {
    return {
      name: this.#name,
      segmentCount: this.#segmentCount,
      batchCount: this.#batchCount,
      recordCount: this.#recordCount,
      sizeInBytes: this.#sizeInBytes,
      problems: this.#problems,
      problemCount: this.#problemCount,
      tornTail: this.#tornTail,
      indexProblems: this.#indexProblems,
      snapshotProblems: this.#snapshotProblems,
    };
  }

  async journal(path: string): Promise<void> {
    await this.#fileIfThere(path, undefined, true, 0);
    this.#checkEnd(path, this.#nextOffset, this.#recoveryPoint.offset);
  }

  /** Resolves to the checkpoint that the files were held against. */
  async partition(): Promise<PartitionCheckpoint | string | undefined> {
    const checkpointPath = join(this.#directory, CHECKPOINT_NAME);
    const checkpoint = await readCheckpoint(this.#fs, checkpointPath);
    if (typeof checkpoint === 'string')
      this.#problem(checkpointPath, 0, 0, `the checkpoint does not hold: ${checkpoint}`);
    const known = typeof checkpoint === 'object' ? checkpoint : undefined;
    const names = await this.#fs.readdir(this.#directory);
    const named = this.#basesIn(names, known).sort((a, b) => a - b);
    await this.#segments(await this.#basesInUse(named, known), known);
    await this.#snapshots(names);
    return checkpoint;
  }

  /** Base offsets of the segments that make up the log, also where a replacement of some was cut short. */
  #basesIn(names: readonly string[], checkpoint: PartitionCheckpoint | undefined): number[] {
    const { sources = [], outputs = [] } = checkpoint?.swap ?? {};
    for (const base of outputs) {
      for (const suffix of SEGMENT_SUFFIXES) {
        const name = segmentName(base) + suffix;
        if (names.includes(name + SWAP_SUFFIX)) this.#swapped.add(name);
      }
    }
    const bases = names.map(baseOffsetOfName).filter((base) => base !== undefined);
    const kept = bases.filter((base) => !sources.includes(base) || outputs.includes(base));
    return [...new Set([...kept, ...outputs])];
  }

  /** Without those that a start removes: what lies below the log start, and what a crash has left empty. */
  async #basesInUse(bases: readonly number[], checkpoint: PartitionCheckpoint | undefined): Promise<number[]> {
    const start = checkpoint?.logStartOffset ?? 0;
    const recorded = new Set(checkpoint?.segments.map(({ baseOffset }) => baseOffset));
    const kept: number[] = [];
    for (const [i, base] of bases.entries()) {
      const next = bases[i + 1];
      if (next !== undefined && next <= start) continue;
      const size = (await this.#fs.stat(this.#pathOf(base, LOG_SUFFIX)))?.size;
      if (size !== 0 || recorded.has(base)) kept.push(base);
    }
    return kept;
  }

  async #segments(bases: readonly number[], checkpoint: PartitionCheckpoint | undefined): Promise<void> {
    const records = new Map(checkpoint?.segments.map((record) => [record.baseOffset, record]));
    const start = checkpoint?.logStartOffset ?? bases[0] ?? 0;
    let expected = Math.min(start, bases[0] ?? start);
    for (const [i, base] of bases.entries()) {
      const path = this.#pathOf(base, LOG_SUFFIX);
      if (base !== expected) {
        const what = base > expected ? `offsets ${expected} to ${base - 1} are missing` : `it overlaps its predecessor`;
        this.#problem(path, 0, expected, what);
      }
      const record = records.get(base);
      await this.#fileIfThere(path, record, i === bases.length - 1, base);
      expected = Math.max(this.#nextOffset, base, record?.nextOffset ?? 0);
    }
    const recordedEnds = [...records.values()].map(({ nextOffset }) => nextOffset);
    this.#checkEnd(
      this.#directory,
      Math.max(this.#nextOffset, start),
      Math.max(this.#recoveryPoint.offset, ...recordedEnds),
    );
  }

  /** Where something is wrong already, the missing end is a consequence. */
  #checkEnd(path: string, endOffset: number, durableOffset: number): void {
    if (endOffset >= durableOffset || this.#problemCount > 0) return;
    this.#problem(path, 0, endOffset, `the log ends at offset ${endOffset}, but was durable up to ${durableOffset}`);
  }

  /** Verifies one `.log` file, unless it was removed while this ran, or never there. @param isLast whether the log ends in it */
  async #fileIfThere(path: string, record: SegmentRecord | undefined, isLast: boolean, base: number): Promise<void> {
    try {
      await this.#file(path, record, isLast, base);
    } catch (error) {
      if (error instanceof LogError && error.reason === 'INVALID_REQUEST') return;
      throw error;
    }
  }

  async #file(path: string, record: SegmentRecord | undefined, isLast: boolean, base: number): Promise<void> {
    const size = (await this.#fs.stat(path))?.size ?? 0;
    const indexes = record ? await this.#openIndexes(base, record) : undefined;
    const epochAt = knownEpochs(record, this.#recoveryPoint.epochs);
    const durableOffset = Math.max(this.#recoveryPoint.offset, record?.nextOffset ?? 0);
    this.#nextOffset = base;
    for await (const item of inspectLogFile(path, this.#fs, record && (await this.#sequenceOf(record)))) {
      if (item.kind === 'batch') this.#batch(path, item, indexes, epochAt);
      else if (item.kind === 'damage') this.#problem(path, item.position, item.offset, item.why);
      else if (!isLast || !item.searched || item.offset < durableOffset) {
        this.#problem(path, item.position, item.offset, item.why);
      } else this.#tornTail = { file: path, position: item.position, bytes: item.bytes, what: item.why };
    }
    this.#segmentCount++;
    this.#sizeInBytes += size;
    if (record && size < record.sizeInBytes) {
      this.#problem(
        path,
        size,
        this.#nextOffset,
        `the file has ${size} bytes, fewer than the ${record.sizeInBytes} written`,
      );
    }
    for (const problem of indexes?.problems() ?? []) this.#indexProblem(problem);
  }

  async #sequenceOf({ baseOffset, cleaned, offsetIndexCrc }: SegmentRecord): Promise<OffsetSequence> {
    if (!cleaned) return DENSE;
    return cleanedSequence(this.#fs, baseOffset, this.#pathOf(baseOffset, OFFSET_INDEX_SUFFIX), offsetIndexCrc);
  }

  #batch(path: string, batch: InspectedBatch, indexes: IndexCheck | undefined, epochAt: EpochAt): void {
    const wrongEpoch = checkEpoch(batch.bytes, 0, epochAt(batch.baseOffset));
    if (wrongEpoch !== undefined) this.#problem(path, batch.position, batch.baseOffset, wrongEpoch);
    this.#batchCount++;
    this.#recordCount += batch.recordCount;
    this.#nextOffset = batch.nextOffset;
    indexes?.batch(batch);
  }

  async #openIndexes(base: number, record: SegmentRecord): Promise<IndexCheck | undefined> {
    const offsetPath = this.#pathOf(base, OFFSET_INDEX_SUFFIX);
    const timePath = this.#pathOf(base, TIME_INDEX_SUFFIX);
    const offsets = await this.#readIndex(offsetPath, base, record.offsetIndexCrc);
    const times = await this.#readIndex(timePath, base, record.timeIndexCrc);
    return offsets && times && new IndexCheck(base, offsetPath, offsets, timePath, times);
  }

  async #readIndex(path: string, base: number, crc: number): Promise<Buffer | undefined> {
    let bytes: Buffer | undefined;
    try {
      bytes = await readSmallFile(this.#fs, path, MAX_INDEX_BYTES);
    } catch (error) {
      if (errnoOf(error) !== undefined) throw error;
    }
    if (bytes && crc32c(bytes) === crc) return bytes;
    this.#indexProblem({
      file: path,
      position: 0,
      offset: base,
      what: bytes ? 'its checksum does not match' : 'it is missing',
    });
    return undefined;
  }

  async #snapshots(names: readonly string[]): Promise<void> {
    for (const name of [...names].sort()) {
      const { kind, offset } = parseSideFileName(name) ?? {};
      if (kind !== 'snapshot' || offset === undefined) continue;
      const file = join(this.#directory, name);
      const what = await whyNoSnapshot(this.#fs, file);
      if (what === undefined || this.#snapshotProblems.length === MAX_PROBLEMS) continue;
      this.#snapshotProblems.push({ file, position: 0, offset, what });
    }
  }

  #pathOf(base: number, suffix: string): string {
    const name = segmentName(base) + suffix;
    return join(this.#directory, this.#swapped.has(name) ? name + SWAP_SUFFIX : name);
  }

  #problem(file: string, position: number, offset: number, what: string): void {
    this.#problemCount++;
    if (this.#problems.length < MAX_PROBLEMS) this.#problems.push({ file, position, offset, what });
  }

  #indexProblem(problem: Problem): void {
    if (this.#indexProblems.length < MAX_PROBLEMS) this.#indexProblems.push(problem);
  }
}
