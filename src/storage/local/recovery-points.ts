/**
 * `recovery-point-offset-checkpoint`: what is known of each log beyond its checkpoint.
 *
 *     file  = "1\n", journal offset, "\n", number of entries, "\n", entry*, checksum, "\n"
 *     entry = topic id, " ", partition, " ", offset, " ", log start offset, (" ", run)*, "\n"
 *     run   = offset, ":", leader epoch
 *
 * Offsets are the first ones not known to be durable, of the metadata journal and of each partition. They decide what a
 * bad batch at the end of a log is: torn, or corrupt because it was durable once. Too low is safe. The log start offset
 * is for the case that the partition's checkpoint, which has the latest, does not hold. The runs of leader epochs hold from
 * the first one's offset on; each stands here before the first batch that carries it is written. The checksum is the
 * CRC-32C of all lines before it, in 8 hexadecimal digits.
 *
 * Version 0, Kafka's, has neither journal offset nor log start offsets, runs or checksum; it is read, not written.
 */
import { crc32c } from '../../batch/crc32c.js';
import type { EpochRun } from './epoch-runs.js';
import type { FileSystem } from './fs.js';
import { readSmallFile } from './small-files.js';

export const RECOVERY_POINTS_NAME = 'recovery-point-offset-checkpoint';

const VERSION = '1';
const KAFKA_VERSION = '0';
const ENTRY = /^([0-9a-f-]{36}) (\d+) (\d+)(?: (\d+)((?: \d+:-?\d+)*))?$/;
/** Room for some 500,000 partitions. */
const MAX_FILE_BYTES: number = 64 * 1024 * 1024;

export interface RecoveryPoint {
  /** Everything below was durable once. */
  readonly offset: number;
  /** Everything below had been trimmed. */
  readonly logStartOffset: number;
  /** Leader epochs of the batches from the offset of the first run on; empty when they are not known. */
  readonly epochs: readonly EpochRun[];
}

export const NO_RECOVERY_POINT: RecoveryPoint = { offset: 0, logStartOffset: 0, epochs: [] };

export interface RecoveryPoints {
  /** Everything in the metadata journal below was durable once. */
  readonly journalOffset: number;
  /** By partition key (`<topic id>-<partition>`). */
  readonly partitions: ReadonlyMap<string, RecoveryPoint>;
}

export const NO_RECOVERY_POINTS: RecoveryPoints = { journalOffset: 0, partitions: new Map() };

export function encodeRecoveryPoints({ journalOffset, partitions }: RecoveryPoints): Buffer {
  const lines = [VERSION, String(journalOffset), String(partitions.size)];
  for (const [key, { offset, logStartOffset, epochs }] of partitions) {
    const dash = key.lastIndexOf('-');
    const runs = epochs.map(([start, epoch]) => ` ${start}:${epoch}`).join('');
    lines.push(`${key.slice(0, dash)} ${key.slice(dash + 1)} ${offset} ${logStartOffset}${runs}`);
  }
  const text = `${lines.join('\n')}\n`;
  return Buffer.from(`${text}${checksumOf(text)}\n`);
}

/** The points, or why the bytes are not a whole file of them. */
export function decodeRecoveryPoints(bytes: Buffer): RecoveryPoints | string {
  const text = bytes.toString('latin1');
  const lines = text.split('\n');
  if (lines.pop() !== '') return 'it is cut off';
  if (lines[0] === KAFKA_VERSION) return decodeLines('0', lines.slice(1));
  if (lines[0] !== VERSION) return `its version is ${JSON.stringify(lines[0]?.slice(0, 20))}, not ${VERSION}`;
  const checksum = lines.pop() ?? '';
  if (checksum !== checksumOf(text.slice(0, -checksum.length - 1))) return 'its checksum does not match';
  return decodeLines(lines[1] ?? '', lines.slice(2));
}

function decodeLines(journalOffset: string, [count, ...entries]: readonly string[]): RecoveryPoints | string {
  if (!isOffset(journalOffset)) return `it has the journal offset ${JSON.stringify(journalOffset.slice(0, 20))}`;
  if (entries.length !== Number(count)) return 'it is cut off';
  const partitions = new Map<string, RecoveryPoint>();
  for (const line of entries) {
    const [, topicId, partition, offset = '', logStart = '0', runs = ''] = ENTRY.exec(line) ?? [];
    const epochs = decodeRuns(runs);
    if (!isOffset(offset) || !isOffset(logStart) || epochs === undefined) {
      return `it has a line ${JSON.stringify(line.slice(0, 100))}`;
    }
    const point = { offset: Number(offset), logStartOffset: Number(logStart), epochs };
    partitions.set(`${topicId}-${Number(partition)}`, point);
  }
  return { journalOffset: Number(journalOffset), partitions };
}

/** Undefined when they are none. */
function decodeRuns(text: string): readonly EpochRun[] | undefined {
  const runs: EpochRun[] = [];
  for (const run of text.split(' ').slice(1)) {
    const [offset = '', epoch = ''] = run.split(':');
    const previous = runs[runs.length - 1]?.[0] ?? -1;
    if (!isOffset(offset) || !Number.isSafeInteger(Number(epoch)) || Number(offset) <= previous) return undefined;
    runs.push([Number(offset), Number(epoch)]);
  }
  return runs;
}

function isOffset(text: string): boolean {
  return /^\d+$/.test(text) && Number.isSafeInteger(Number(text));
}

function checksumOf(text: string): string {
  return crc32c(Buffer.from(text, 'latin1')).toString(16).padStart(8, '0');
}

/** Reads the file: undefined when there is none, a string that says why when it does not hold. */
export async function readRecoveryPoints(fs: FileSystem, path: string): Promise<RecoveryPoints | string | undefined> {
  try {
    const bytes = await readSmallFile(fs, path, MAX_FILE_BYTES);
    return bytes && decodeRecoveryPoints(bytes);
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}
