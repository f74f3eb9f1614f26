/** Logs whose files tests damage: as a clean stop has left them, and as an unclean one has. */
import { encodeBatch } from '../../src/batch/builder.js';
import { splitBatches } from '../../src/batch/validate.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig, PartitionLog } from '../../src/storage/engine.js';
import type { LocalEngine } from '../../src/storage/local/engine.js';
import type { DiskImage } from '../support/power-loss-disk.js';
import { until } from '../support/until.js';
import { type KnownBatch, KnownLog, knownBatch } from './damage.js';
import { fillKeyed, optionsFor } from './keyed.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { BASE_TIME, batchAt, CONFIG, END, partition } from './support.js';

export interface SampleLog {
  readonly image: DiskImage;
  readonly known: KnownLog;
  /** The metadata beside it, as JSON. */
  readonly metadata: string;
  readonly config: LogConfig;
}

export type Stop = 'clean' | 'unclean';

export const POINTS_FILE: string = `${DATA_DIR}/recovery-point-offset-checkpoint`;

/**
 * A log whose first segment has some `segmentBytes` bytes, written under two epochs.
 *
 * - clean: that segment is closed, another one was begun;
 * - unclean: it is the active one, and half of it was written after the last checkpoint. All of it was durable, as the
 *   recovery points say.
 */
export async function sampleLog(stop: Stop, segmentBytes: number): Promise<SampleLog> {
  const config = {
    ...CONFIG,
    segmentBytes: stop === 'clean' ? segmentBytes : segmentBytes * 2,
    indexIntervalBytes: Math.max(256, segmentBytes >> 5),
  };
  const rig = new DiskRig();
  const first = await rig.open();
  await fillUpTo(await first.open(partition(), toEpoch(2), config), 2, segmentBytes >> 1);
  await first.metadata.compareAndSet('topics/orders', '{"partitions":3}', 0);
  await first.close();
  const engine = await rig.open();
  const log = await engine.open(partition(), toEpoch(3), config);
  await fillUpTo(log, 3, stop === 'clean' ? segmentBytes + 300 : segmentBytes);
  await engine.metadata.compareAndSet('topics/payments', '{"partitions":1}', 0);
  return await stopped(rig, engine, log, stop, config);
}

/** A log in which compaction has left holes; the segments it wrote are vouched for by the checkpoint. */
export async function sampleCompactedLog(stop: Stop, recordCount: number): Promise<SampleLog> {
  const config = { ...CONFIG, segmentBytes: 1500, indexIntervalBytes: 200, fileDeleteDelayMs: 0 };
  const rig = new DiskRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), toEpoch(1), config);
  await fillKeyed(log, recordCount);
  await log.roll();
  await log.compact(optionsFor(log));
  await fillKeyed(log, 5);
  return await stopped(rig, engine, log, stop, config);
}

/** What the last batch of a log, which no sync has covered, consists of. */
export type LastBatch = 'records' | 'record batches' | 'many sectors';

/** An unclean stop while the last batch, of which nobody was told that it is durable, was being written. */
export async function sampleUnsynced(kind: LastBatch): Promise<SampleLog> {
  const config = { ...CONFIG, indexIntervalBytes: 256 };
  const rig = new DiskRig();
  const engine = await rig.open();
  const log = await engine.open(partition(), toEpoch(3), config);
  await fillUpTo(log, 3, 1000);
  await pointsWritten(rig, log.endOffset);
  const records = valuesOf(kind, log.endOffset).map((value, n) => ({
    timestampMs: BASE_TIME + 900 + n,
    key: null,
    value,
  }));
  await log.append([encodeBatch(records, { baseOffset: log.endOffset, leaderEpoch: 3 })], log.endOffset);
  return await captured(rig, engine, log, config);
}

function valuesOf(kind: LastBatch, at: number): readonly Buffer[] {
  if (kind === 'many sectors') return Array.from({ length: 8 }, (_, n) => Buffer.alloc(530, `${at + n}.`));
  if (kind === 'records') return Array.from({ length: 3 }, (_, n) => Buffer.alloc(60, `${at + n}.`));
  // Those of a mirrored log, further on than this one and under the same epoch.
  return [1, 2, 5].map((ahead) => batchAt(at + ahead, { leaderEpoch: 3 }));
}

async function stopped(
  rig: DiskRig,
  engine: LocalEngine,
  log: PartitionLog,
  stop: Stop,
  config: LogConfig,
): Promise<SampleLog> {
  if (stop === 'unclean') {
    await pointsWritten(rig, log.endOffset);
    return await captured(rig, engine, log, config);
  }
  const before = await captured(rig, engine, log, config);
  await engine.close();
  return { ...before, image: imageOf(rig) };
}

/** The files as they are, as a process that is killed now leaves them. */
async function captured(rig: DiskRig, engine: LocalEngine, log: PartitionLog, config: LogConfig): Promise<SampleLog> {
  const known = new KnownLog(await batchesOf(log));
  const metadata = JSON.stringify(await engine.metadata.list(''));
  return { image: imageOf(rig), known, metadata, config };
}

function imageOf({ disk }: DiskRig): DiskImage {
  return disk.contents();
}

async function batchesOf(log: PartitionLog): Promise<KnownBatch[]> {
  const batches: KnownBatch[] = [];
  for (let offset = log.startOffset; offset < log.endOffset; ) {
    const { chunks, nextOffset } = await log.read(offset, END, 1 << 20);
    batches.push(...chunks.flatMap(splitBatches).map(knownBatch));
    offset = nextOffset;
  }
  return batches;
}

/** Lets the time pass after which the recovery points are written. */
async function pointsWritten(rig: DiskRig, endOffset: number): Promise<void> {
  rig.clock.advance(10_000);
  await until(() => String(imageOf(rig).get(POINTS_FILE)).includes(` 0 ${endOffset} `), 'the points are written');
}

/** Batches of one to three records, of different lengths, until there are that many bytes; durable. */
async function fillUpTo(log: PartitionLog, leaderEpoch: number, bytes: number): Promise<void> {
  while (log.stats().sizeInBytes < bytes) {
    const at = log.endOffset;
    const records = Array.from({ length: 1 + (at % 3) }, (_, n) => ({
      timestampMs: BASE_TIME + (at + n) * 10,
      key: at % 5 === 0 ? null : Buffer.from(`key-${at % 7}`),
      value: Buffer.alloc(60 + (at % 40) * 2, `${at + n}.`),
    }));
    await log.append([encodeBatch(records, { baseOffset: at, leaderEpoch })], at);
  }
  await log.flush(toOffset(log.endOffset));
}
