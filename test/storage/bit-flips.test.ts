/**
 * Each bit of each file turned over, one at a time: the log answers as before, or it names what is corrupt and serves
 * everything else. What is damaged is never cut off, never served, and never ends the start with anything but a reason.
 */
import { basename, dirname } from 'node:path';
import { describe, test } from 'vitest';
import { LogError } from '../../src/core/errors.js';
import { toEpoch } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import type { LocalEngine } from '../../src/storage/local/engine.js';
import { decodeRecoveryPoints, encodeRecoveryPoints } from '../../src/storage/local/recovery-points.js';
import type { DiskImage } from '../support/power-loss-disk.js';
import { inForm, Programme } from '../support/programme.js';
import { inState, type KnownBatch, withBitFlipped, withFile } from './damage.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { POINTS_FILE, type SampleLog, type Stop, sampleCompactedLog, sampleLog } from './sample-logs.js';
import { directoryOf, partition } from './support.js';

const SEGMENT_BYTES = inForm({ short: 4 * 1024, long: 64 * 1024 });
const COMPACTED_RECORDS = inForm({ short: 60, long: 1000 });
/** One in this many states is closed and opened once more, an odd number so that each field has its turn. */
const REOPENED = inForm({ short: 9, long: 3 });
/** Opening a data directory takes longer than opening a log in it: so many damaged copies of a log share one. */
const COPIES = 256;
const STOPS: readonly Stop[] = ['clean', 'unclean'];
const SIDE_FILE = /\.(index|timeindex)$|\/checkpoint$/;
const DIRECTORY = directoryOf(DATA_DIR, partition());

/** A data directory with copies of a log: in the `n`-th, `damage` has changed one file. */
function withCopies(sample: SampleLog, count: number, damage: (n: number) => readonly [string, Buffer]): DiskImage {
  const image = new Map([...sample.image].filter(([path]) => !path.startsWith(`${DIRECTORY}/`)));
  const files = [...sample.image].filter(([path]) => path.startsWith(`${DIRECTORY}/`) && !path.endsWith('/'));
  const points = decodeRecoveryPoints(sample.image.get(POINTS_FILE)!);
  if (typeof points === 'string') throw new Error(points);
  const point = points.partitions.get(basename(DIRECTORY))!;
  const partitions = new Map<string, typeof point>();
  for (let n = 0; n < count; n++) {
    const directory = directoryOf(DATA_DIR, partition(n));
    const [damagedPath, damaged] = damage(n);
    image.set(`${directory}/`, Buffer.alloc(0));
    for (const [path, contents] of files) {
      image.set(`${directory}/${basename(path)}`, path === damagedPath ? damaged : contents);
    }
    partitions.set(basename(directory), point);
  }
  return image.set(POINTS_FILE, encodeRecoveryPoints({ ...points, partitions }));
}

/** Looks at the log with each bit of `file` turned over. */
async function flipEachBit(
  sample: SampleLog,
  file: string,
  check: (log: PartitionLog, byte: number, copyOfFile: string) => Promise<void>,
): Promise<number> {
  const contents = sample.image.get(file)!;
  const bits = contents.length * 8;
  for (let from = 0; from < bits; from += COPIES) {
    const count = Math.min(COPIES, bits - from);
    const rig = new DiskRig(withCopies(sample, count, (n) => [file, withBitFlipped(contents, from + n)]));
    const engine = await rig.open();
    for (let n = 0; n < count; n++) {
      const bit = from + n;
      const copy = `${directoryOf(DATA_DIR, partition(n))}/${basename(file)}`;
      await inState(`bit ${bit & 7} of byte ${bit >> 3} of ${file}`, async () => {
        const log = await engine.open(partition(n), toEpoch(9), sample.config);
        await check(log, bit >> 3, copy);
        if (bit % REOPENED !== 0) return;
        await log.close();
        await check(await engine.open(partition(n), toEpoch(10), sample.config), bit >> 3, copy);
      });
    }
  }
  return bits;
}

/** The batch of a `.log` file in which a byte lies. */
function batchesIn(sample: SampleLog, file: string): (byte: number) => KnownBatch {
  const contents = sample.image.get(file)!;
  const found: { batch: KnownBatch; end: number }[] = [];
  let end = 0;
  for (const batch of sample.known.batches) {
    if (!contents.subarray(end, end + batch.bytes.length).equals(batch.bytes)) continue;
    end += batch.bytes.length;
    found.push({ batch, end });
  }
  if (end !== contents.length) throw new Error(`${file} holds something else`);
  return (byte) => found.find((one) => byte < one.end)!.batch;
}

function logFilesOf(sample: SampleLog): string[] {
  return [...sample.image.keys()].filter((path) => path.endsWith('.log') && dirname(path) === DIRECTORY);
}

/** Files in the log's directory that are derived from others. */
function sideFilesOf(sample: SampleLog): string[] {
  return [...sample.image.keys()].filter((path) => dirname(path) === DIRECTORY && SIDE_FILE.test(path));
}

/** Files that belong to the data directory as a whole. */
function sharedFilesOf(sample: SampleLog): string[] {
  return [...sample.image.keys()].filter((path) => dirname(path) === DATA_DIR && !path.endsWith('/'));
}

async function flipLogs(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of logFilesOf(sample)) {
    const batchWith = batchesIn(sample, file);
    const bits = await flipEachBit(sample, file, (log, byte, copy) =>
      sample.known.checkAllBut(log, batchWith(byte), copy),
    );
    programme.tried('flipped bits', bits);
  }
}

async function flipSideFiles(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of sideFilesOf(sample)) {
    programme.tried('flipped bits', await flipEachBit(sample, file, (log) => sample.known.checkWhole(log)));
  }
}

/** Opens the data directory as a whole: everything is as it was, or the start is refused for a reason that names the file. */
async function checkStart(sample: SampleLog, image: DiskImage, file: string): Promise<void> {
  const rig = new DiskRig(image);
  let engine: LocalEngine;
  try {
    engine = await rig.open();
  } catch (error) {
    if (error instanceof LogError && isRefusal(error, file)) return;
    throw error;
  }
  const metadata = JSON.stringify(await engine.metadata.list(''));
  if (metadata !== sample.metadata) throw new Error(`the metadata is ${metadata}`);
  await sample.known.checkWhole(await engine.open(partition(), toEpoch(9), sample.config));
}

function isRefusal({ reason, metadata, message }: LogError, file: string): boolean {
  if (reason === 'CORRUPT_LOG') return metadata.file === file;
  if (reason === 'UNSUPPORTED_FORMAT') return file.endsWith('meta.json');
  return reason === 'DATA_DIR_UNUSABLE' && message.includes(file);
}

async function flipSharedFiles(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of sharedFilesOf(sample)) {
    const contents = sample.image.get(file)!;
    for (let bit = 0; bit < contents.length * 8; bit++) {
      const image = withFile(sample.image, file, withBitFlipped(contents, bit));
      await inState(`bit ${bit & 7} of byte ${bit >> 3} of ${file}`, () => checkStart(sample, image, file));
    }
    programme.tried('flipped bits', contents.length * 8);
  }
}

describe.each(STOPS)('after a stop that was %s', (stop) => {
  test('13: a flipped bit in a segment is found, and its batch alone refused', async (context) => {
    await flipLogs(await sampleLog(stop, SEGMENT_BYTES), new Programme(context, 1));
  }, 3_600_000);

  test('13: a flipped bit in a segment that compaction wrote is found, and its batch alone refused', async (context) => {
    await flipLogs(await sampleCompactedLog(stop, COMPACTED_RECORDS), new Programme(context, 1));
  }, 3_600_000);

  test('13, 19: a flipped bit in an index or a checkpoint changes no answer', async (context) => {
    const programme = new Programme(context, 1);
    await flipSideFiles(await sampleLog(stop, SEGMENT_BYTES), programme);
    await flipSideFiles(await sampleCompactedLog(stop, COMPACTED_RECORDS), programme);
  }, 3_600_000);

  test('13: a flipped bit in a file of the data directory changes no answer, or the start names the file', async (context) => {
    await flipSharedFiles(await sampleLog(stop, SEGMENT_BYTES), new Programme(context, 1));
  }, 3_600_000);
});
