/**
 * `recovery-point-offset-checkpoint`: for each partition the first offset that is not known to be durable. Kafka's text
 * format, keyed by topic id:
 *
 *     file  = "0\n", number of entries, "\n", entry*
 *     entry = topic id, " ", partition, " ", offset, "\n"
 *
 * It decides what a bad batch at the end of a log is: torn, or corrupt because it was durable once. Too low is safe.
 */
import type { FileSystem } from './fs.js';
import { readSmallFile, replaceFile } from './small-files.js';

export const RECOVERY_POINTS_NAME = 'recovery-point-offset-checkpoint';

const VERSION = '0';
const ENTRY = /^([0-9a-f-]{36}) (\d+) (\d+)$/;
/** Room for a million partitions. */
const MAX_FILE_BYTES: number = 64 * 1024 * 1024;

/** Offsets by partition key (`<topic id>-<partition>`). */
export type RecoveryPoints = ReadonlyMap<string, number>;

export function encodeRecoveryPoints(points: RecoveryPoints): Buffer {
  const lines = [VERSION, String(points.size)];
  for (const [key, offset] of points) {
    const dash = key.lastIndexOf('-');
    lines.push(`${key.slice(0, dash)} ${key.slice(dash + 1)} ${offset}`);
  }
  return Buffer.from(`${lines.join('\n')}\n`);
}

/** The points, or why the bytes are not a whole file of them. */
export function decodeRecoveryPoints(bytes: Buffer): Map<string, number> | string {
  const [version, count, ...lines] = bytes.toString('utf8').split('\n');
  if (version !== VERSION) return `its version is ${JSON.stringify(version)}, not ${VERSION}`;
  if (lines.pop() !== '' || lines.length !== Number(count)) return 'it is cut off';
  const points = new Map<string, number>();
  for (const line of lines) {
    const [, topicId, partition, offset] = ENTRY.exec(line) ?? [];
    if (offset === undefined || !Number.isSafeInteger(Number(offset))) return `it has a line ${JSON.stringify(line)}`;
    points.set(`${topicId}-${Number(partition)}`, Number(offset));
  }
  return points;
}

/** Reads the file: undefined when there is none, a string that says why when it does not hold. */
export async function readRecoveryPoints(
  fs: FileSystem,
  path: string,
): Promise<Map<string, number> | string | undefined> {
  try {
    const bytes = await readSmallFile(fs, path, MAX_FILE_BYTES);
    return bytes && decodeRecoveryPoints(bytes);
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}

export function writeRecoveryPoints(fs: FileSystem, path: string, points: RecoveryPoints): Promise<void> {
  return replaceFile(fs, path, encodeRecoveryPoints(points));
}
