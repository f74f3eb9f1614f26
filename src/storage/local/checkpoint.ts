/**
 * The `checkpoint` file of a partition: what its files held when they were last synced as a whole, so that a start need
 * not look inside them.
 *
 *     file = JSON of PartitionCheckpoint, "\n", CRC-32C of the JSON's bytes in 8 hexadecimal digits, "\n"
 *
 * Replaced atomically. The log is the truth: a checkpoint that is missing or does not hold is a reason to scan. Only
 * the log start offset cannot be found again that way; the recovery points have one that is some seconds old. Compaction
 * uses the replacement of the checkpoint as the one step by which segments take the place of others.
 */
import * as v from 'valibot';
import { crc32c } from '../../batch/crc32c.js';
import type { FileSystem } from './fs.js';
import type { IndexChecksums, SegmentFacts } from './segment.js';
import { readSmallFile, replaceFile } from './small-files.js';

export const CHECKPOINT_NAME = 'checkpoint';

/** Room for some 400,000 segments. */
const MAX_CHECKPOINT_BYTES: number = 64 * 1024 * 1024;

const wholeNumber = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const timestampOrNone = v.pipe(v.number(), v.safeInteger(), v.minValue(-1));

const segmentSchema = v.object({
  baseOffset: wholeNumber,
  nextOffset: wholeNumber,
  sizeInBytes: wholeNumber,
  firstTimestamp: timestampOrNone,
  maxTimestamp: timestampOrNone,
  maxTimestampOffset: v.pipe(v.number(), v.safeInteger(), v.minValue(-1)),
  epochs: v.array(v.tuple([wholeNumber, v.pipe(v.number(), v.safeInteger())])),
  cleaned: v.optional(v.boolean(), false),
  // Records of before producers were let in do not say.
  hasProducers: v.optional(v.boolean(), false),
  offsetIndexCrc: wholeNumber,
  timeIndexCrc: wholeNumber,
  createdMs: v.optional(v.number()),
  modifiedMs: v.optional(v.number()),
});

const checkpointSchema = v.object({
  version: v.literal(1),
  logStartOffset: wholeNumber,
  cleanedOffset: v.optional(wholeNumber, 0),
  segments: v.array(segmentSchema),
  swap: v.optional(v.object({ sources: v.array(wholeNumber), outputs: v.array(wholeNumber) })),
});

/** A segment whose `.log`, `.index` and `.timeindex` were synced. */
export type SegmentRecord = SegmentFacts &
  IndexChecksums & {
    /** Of a compacted segment: see `Segment`. For others the file tells. */
    readonly createdMs?: number | undefined;
    readonly modifiedMs?: number | undefined;
  };

/** A replacement of segments that is decided, though not all files may have their names yet. */
export interface Swap {
  /** Base offsets of the segments that go. */
  readonly sources: readonly number[];
  /** Base offsets of the segments, cleaned ones, that take their place; under `.swap` until they have their names. */
  readonly outputs: readonly number[];
}

export interface PartitionCheckpoint {
  readonly version: 1;
  readonly logStartOffset: number;
  /** Everything below was compacted. */
  readonly cleanedOffset: number;
  /**
   * Ascending by base offset. Closed segments, and after a clean close the active one as well. A file that is longer
   * than its record has grown since; one that is shorter was truncated by someone else.
   */
  readonly segments: readonly SegmentRecord[];
  /** Undefined when no replacement is under way. */
  readonly swap?: Swap | undefined;
}

export function encodeCheckpoint(checkpoint: PartitionCheckpoint): Buffer {
  const json = JSON.stringify(checkpoint);
  return Buffer.from(`${json}\n${checksumOf(json)}\n`);
}

/** The checkpoint, or why the bytes are none. */
export function decodeCheckpoint(bytes: Buffer): PartitionCheckpoint | string {
  const [json, checksum, rest, ...more] = bytes.toString('utf8').split('\n');
  if (json === undefined || checksum === undefined || rest !== '' || more.length > 0) return 'it is cut off';
  if (checksum !== checksumOf(json)) return 'its checksum does not match';
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return 'it is not JSON';
  }
  const parsed = v.safeParse(checkpointSchema, value);
  return parsed.success ? parsed.output : `its contents are not understood (${parsed.issues[0].message})`;
}

/** Reads a checkpoint: undefined when there is none, a string that says why when it does not hold. */
export async function readCheckpoint(fs: FileSystem, path: string): Promise<PartitionCheckpoint | string | undefined> {
  try {
    const bytes = await readSmallFile(fs, path, MAX_CHECKPOINT_BYTES);
    return bytes && decodeCheckpoint(bytes);
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}

export function writeCheckpoint(fs: FileSystem, path: string, checkpoint: PartitionCheckpoint): Promise<void> {
  return replaceFile(fs, path, encodeCheckpoint(checkpoint));
}

function checksumOf(json: string): string {
  return crc32c(Buffer.from(json)).toString(16).padStart(8, '0');
}
