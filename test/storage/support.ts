/** Batches, directories and logs for the tests of the engines. */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { baseOffsetOf, nextOffsetOf } from '../../src/batch/layout.js';
import { splitBatches } from '../../src/batch/validate.js';
import { systemClock } from '../../src/core/clock.js';
import { type LogError, type Reason, toLogError } from '../../src/core/errors.js';
import { type Epoch, type Offset, type TopicPartition, toEpoch, toOffset, toTopicId } from '../../src/core/types.js';
import type { LogConfig, PartitionLog } from '../../src/storage/engine.js';
import { type LocalEngine, type LocalEngineOptions, openLocalEngine } from '../../src/storage/local/engine.js';
import { type FaultRule, FaultyFileSystem, type FileCall } from '../support/faulty-file-system.js';
import { type LogLine, type RecordingLogger, recordingLogger } from '../support/recording-logger.js';
import { temporaryDirectory } from '../support/temporary-directory.js';

export const CONFIG: LogConfig = {
  segmentBytes: 1 << 20,
  segmentMs: 7 * 86_400_000,
  indexIntervalBytes: 4096,
  fileDeleteDelayMs: 60_000,
};
export const EPOCH: Epoch = toEpoch(1);
export const END: Offset = toOffset(Number.MAX_SAFE_INTEGER);
export const BASE_TIME = 1_700_000_000_000;

/** The `n`-th topic id of a test, partition 0. */
export function partition(n = 0): TopicPartition {
  return { topicId: toTopicId(`00000000-0000-4000-8000-${String(n).padStart(12, '0')}`), partition: 0 };
}

export function directoryOf(dataDir: string, id: TopicPartition): string {
  return join(dataDir, 'logs', `${id.topicId}-${id.partition}`);
}

export interface BatchShape {
  readonly count?: number;
  readonly bytes?: number;
  readonly timestampMs?: number;
  readonly leaderEpoch?: number;
}

/** A batch that begins at `at`, with values that differ by offset. */
export function batchAt(at: number, shape: BatchShape = {}): Buffer {
  const { count = 1, bytes = 10, timestampMs = BASE_TIME + at, leaderEpoch = 1 } = shape;
  const records = Array.from({ length: count }, (_, i) => ({
    timestampMs: timestampMs + i,
    key: null,
    value: Buffer.alloc(bytes, `${at + i}.`),
  }));
  return encodeBatch(records, { baseOffset: at, leaderEpoch });
}

/** Appends `batchCount` batches of the same shape, one call each. */
export async function fill(log: PartitionLog, batchCount: number, shape: BatchShape = {}): Promise<Buffer[]> {
  const batches: Buffer[] = [];
  for (let i = 0; i < batchCount; i++) {
    const batch = batchAt(log.endOffset, shape);
    await log.append([batch], log.endOffset);
    batches.push(batch);
  }
  return batches;
}

/** Base offsets of the batches in a slice. */
export function basesOf(slice: { readonly chunks: readonly Buffer[] }): number[] {
  return slice.chunks.flatMap((chunk) => splitBatches(chunk).map((batch) => baseOffsetOf(batch, 0)));
}

/** Everything from `from` to the end, as one buffer; checks on the way that the offsets go on without a gap. */
export async function readAll(
  log: PartitionLog,
  from: number = log.startOffset,
  maxBytes: number = 64 * 1024,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let offset = toOffset(from);
  while (offset < log.endOffset) {
    const slice = await log.read(offset, END, maxBytes);
    if (slice.byteLength === 0) throw new Error(`nothing to read at ${offset} of ${log.endOffset}`);
    for (const batch of slice.chunks.flatMap(splitBatches)) {
      if (baseOffsetOf(batch, 0) > offset) throw new Error(`a gap at ${offset}`);
      offset = toOffset(nextOffsetOf(batch, 0));
    }
    if (offset !== slice.nextOffset) throw new Error(`nextOffset is ${slice.nextOffset}, not ${offset}`);
    chunks.push(...slice.chunks);
  }
  return Buffer.concat(chunks);
}

/** The LogError that a promise rejects with. */
export async function failureOf(work: Promise<unknown>): Promise<LogError> {
  try {
    await work;
  } catch (error) {
    return toLogError(error);
  }
  throw new Error('expected a failure');
}

export async function reasonOf(work: Promise<unknown>): Promise<Reason> {
  return (await failureOf(work)).reason;
}

/** A data directory with an engine on it, as a test of the local engine needs them. */
export class LocalRig {
  readonly dataDir: string;
  readonly logger: RecordingLogger = recordingLogger();
  readonly fs: FaultyFileSystem = new FaultyFileSystem();
  readonly #options: Partial<LocalEngineOptions>;

  constructor(options: Partial<LocalEngineOptions> = {}, dataDir: string = temporaryDirectory()) {
    this.dataDir = dataDir;
    this.#options = options;
  }

  /** Opens the engine; closed at the end of the test, if not before. */
  async open(): Promise<LocalEngine> {
    const { dataDir, logger, fs } = this;
    const options = { dataDir, logger, fileSystem: fs, clock: systemClock, ...this.#options };
    const engine = await openLocalEngine(options);
    onTestFinished(() => engine.close().catch(() => undefined));
    return engine;
  }

  /** Another rig on the files as they are now: what a process that ends here leaves behind. */
  crash(options: Partial<LocalEngineOptions> = this.#options): LocalRig {
    const copy = temporaryDirectory();
    copyChanging(this.dataDir, copy);
    const rig = new LocalRig(options, copy);
    rig.fs.skipsDisk = this.fs.skipsDisk;
    return rig;
  }

  directory(id: TopicPartition = partition()): string {
    return directoryOf(this.dataDir, id);
  }

  /** Path of a segment's file. */
  file(baseOffset: number = 0, suffix: string = '.log', id: TopicPartition = partition()): string {
    return join(this.directory(id), String(baseOffset).padStart(20, '0') + suffix);
  }

  messages(level: LogLine['level']): readonly string[] {
    return this.logger.messages(level);
  }
}

/** A rule by which one kind of call fails on the files of logs. */
export const onLogs =
  (name: FileCall['name'], errno: string): FaultRule =>
  (call) =>
    call.name === name && call.path.endsWith('.log') && !call.path.endsWith('metadata.log') ? errno : undefined;

/** Copies a directory in which files may still be renamed or removed by work under way. */
function copyChanging(from: string, to: string): void {
  for (let attempt = 1; ; attempt++) {
    try {
      cpSync(from, to, { recursive: true });
      return;
    } catch (error) {
      if (attempt === 100) throw error;
      rmSync(to, { recursive: true, force: true });
    }
  }
}

/** Changes the bytes of a file in place. */
export function patch(path: string, change: (bytes: Buffer) => Buffer | undefined): void {
  const bytes = readFileSync(path);
  writeFileSync(path, change(bytes) ?? bytes);
}
