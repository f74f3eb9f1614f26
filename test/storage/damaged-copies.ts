/**
 * Many states of one log in one data directory: each a partition of its own, in whose files one is damaged. Opening a data
 * directory takes longer than opening a log in it.
 */
import { basename, dirname } from 'node:path';
import { LogError } from '../../src/core/errors.js';
import { toEpoch } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import type { LocalEngine } from '../../src/storage/local/engine.js';
import {
  decodeRecoveryPoints,
  encodeRecoveryPoints,
  type RecoveryPoint,
  type RecoveryPoints,
} from '../../src/storage/local/recovery-points.js';
import type { DiskImage } from '../support/power-loss-disk.js';
import { inState, withFile } from './damage.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { POINTS_FILE, type SampleLog } from './sample-logs.js';
import { directoryOf, partition } from './support.js';

/** Directory of the log in a sample. */
export const SAMPLE_DIRECTORY: string = directoryOf(DATA_DIR, partition());
const COPIES = 256;
/** Epochs under which a copy is opened: later than those of any sample. */
const EPOCHS = [toEpoch(9), toEpoch(10)] as const;

/** States of one file. */
export interface Damages {
  /** Path in the sample. */
  readonly file: string;
  readonly count: number;
  readonly contents: (n: number) => Buffer;
  /** Names a state, for messages. */
  readonly name: (n: number) => string;
}

/** A copy of the log in which a file is damaged, opened. */
export interface DamagedCopy {
  readonly log: PartitionLog;
  /** Which of the damages it has. */
  readonly n: number;
  /** The damaged file. */
  readonly file: string;
  readonly rig: DiskRig;
}

export function filesOf(sample: SampleLog, directory: string = SAMPLE_DIRECTORY): string[] {
  return [...sample.image.keys()].filter((path) => dirname(path) === directory && !path.endsWith('/'));
}

export function recoveryPointsOf(image: DiskImage): RecoveryPoints {
  const points = decodeRecoveryPoints(image.get(POINTS_FILE)!);
  if (typeof points === 'string') throw new Error(points);
  return points;
}

/**
 * Opens the log with each of the damages and looks at it.
 * @param reopens whether the state is closed and opened once more, and then looked at again
 */
export async function examineCopies(
  sample: SampleLog,
  damages: Damages,
  reopens: (n: number) => boolean,
  check: (copy: DamagedCopy) => Promise<void>,
): Promise<void> {
  for (let from = 0; from < damages.count; from += COPIES) {
    const count = Math.min(COPIES, damages.count - from);
    const rig = new DiskRig(withCopies(sample, count, damages.file, (i) => damages.contents(from + i)));
    const engine = await rig.open();
    for (let i = 0; i < count; i++) {
      const n = from + i;
      const file = `${directoryOf(DATA_DIR, partition(i))}/${basename(damages.file)}`;
      await inState(`${damages.name(n)} of ${damages.file}`, async () => {
        const log = await engine.open(partition(i), EPOCHS[0], sample.config);
        await check({ log, n, file, rig });
        if (!reopens(n)) return;
        await log.close();
        await check({ log: await engine.open(partition(i), EPOCHS[1], sample.config), n, file, rig });
      });
    }
  }
}

/** The sample with other recovery points. */
function withPoints(sample: SampleLog, change: (points: RecoveryPoints) => RecoveryPoints): SampleLog {
  const points = encodeRecoveryPoints(change(recoveryPointsOf(sample.image)));
  return { ...sample, image: withFile(sample.image, POINTS_FILE, points) };
}

/** The sample as if all of its log had been durable. */
export function allDurable(sample: SampleLog): SampleLog {
  return withPoints(sample, (points) => {
    const key = basename(SAMPLE_DIRECTORY);
    const point = { ...points.partitions.get(key)!, offset: sample.known.endOffset };
    return { ...points, partitions: new Map([[key, point]]) };
  });
}

function withCopies(sample: SampleLog, count: number, damagedFile: string, damaged: (i: number) => Buffer): DiskImage {
  const files = filesOf(sample);
  const image = new Map([...sample.image].filter(([path]) => !path.startsWith(`${SAMPLE_DIRECTORY}/`)));
  const points = recoveryPointsOf(sample.image);
  const point = points.partitions.get(basename(SAMPLE_DIRECTORY))!;
  const partitions = new Map<string, RecoveryPoint>();
  for (let i = 0; i < count; i++) {
    const directory = directoryOf(DATA_DIR, partition(i));
    image.set(`${directory}/`, Buffer.alloc(0));
    for (const path of files) {
      image.set(`${directory}/${basename(path)}`, path === damagedFile ? damaged(i) : sample.image.get(path)!);
    }
    partitions.set(basename(directory), point);
  }
  return image.set(POINTS_FILE, encodeRecoveryPoints({ ...points, partitions }));
}

/**
 * Opens the data directory as a whole: everything is as it was, or the start is refused for a reason that names the file.
 */
export async function checkStart(sample: SampleLog, image: DiskImage, file: string): Promise<void> {
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
  await sample.known.checkWhole(await engine.open(partition(), EPOCHS[0], sample.config));
}

function isRefusal({ reason, metadata, message }: LogError, file: string): boolean {
  if (reason === 'CORRUPT_LOG') return metadata.file === file;
  if (reason === 'UNSUPPORTED_FORMAT') return file.endsWith('meta.json');
  return reason === 'DATA_DIR_UNUSABLE' && message.includes(file);
}
