/** Looking into the files of a data directory without changing them, whether a broker runs on it or not. */
import { basename, join } from 'node:path';
import {
  baseOffsetOf,
  leaderEpochOf,
  maxTimestampOf,
  nextOffsetOf,
  RECORD_BATCH_OVERHEAD,
  recordCountOf,
  sizeInBytesOf,
  storedCrcOf,
} from '../../batch/layout.js';
import { LogError } from '../../core/errors.js';
import { errnoOf, type FileSystem, nodeFileSystem } from './fs.js';
import { readOffsetIndex } from './index-cache.js';
import { toStorageError } from './io-errors.js';
import { DENSE, IndexedSequence, type OffsetSequence } from './offset-sequence.js';
import { scanBatches } from './scanner.js';
import { baseOffsetOfName, type Damage, OFFSET_INDEX_SUFFIX } from './segment.js';
import { closeFile } from './small-files.js';

/** What a `.log` file holds, in order of position. */
export type InspectedItem =
  | ({ readonly kind: 'batch' } & InspectedBatch)
  | ({ readonly kind: 'damage' } & Damage)
  | {
      readonly kind: 'tail';
      readonly position: number;
      readonly bytes: number;
      readonly offset: number;
      readonly why: string;
      /** False: there may be an intact batch behind, as the search for one was given up. */
      readonly searched: boolean;
    };

/** An intact batch: framing, CRC and base offset are as they should be. */
export interface InspectedBatch {
  /** Byte in the file. */
  readonly position: number;
  readonly sizeInBytes: number;
  readonly baseOffset: number;
  /** Offset after the last record. */
  readonly nextOffset: number;
  readonly recordCount: number;
  readonly leaderEpoch: number;
  /** ms since the epoch, -1 for none. */
  readonly maxTimestamp: number;
  /** CRC-32C, unsigned. */
  readonly crc: number;
  /** The whole batch, for the header's other fields and for decoding the records. */
  readonly bytes: Buffer;
}

/** Of `00000000000000000000.log`; what follows says that it is not in service. */
const LOG_NAME_LENGTH = 24;
/** Memory that batches found ahead of their use may take. */
const READ_AHEAD_BYTES: number = 1024 * 1024;

/**
 * All that a `.log` file holds: its intact batches, what is damaged between them (`damage`), and what follows the last
 * of them (`tail`). Needs memory for a few batches, however long the file is.
 * @param sequence what its offsets must be. Default: what the index beside it says, in a segment that compaction wrote
 * @throws LogError STORAGE_ERROR when the file cannot be read, INVALID_REQUEST when there is none
 */
export async function* inspectLogFile(
  path: string,
  fs: FileSystem = nodeFileSystem,
  sequence?: OffsetSequence,
): AsyncGenerator<InspectedItem, void, void> {
  const stat = await fs.stat(path);
  if (!stat || stat.isDirectory) throw new LogError('INVALID_REQUEST', `${path} is not a file.`);
  const fd = openForReading(fs, path);
  const readAt = (buffer: Uint8Array, at: number): Promise<number> => fs.pread(fd, buffer, at);
  try {
    let position = 0;
    let offset = baseOffsetOfName(basename(path).slice(0, LOG_NAME_LENGTH)) ?? (await firstBaseOffset(readAt));
    const offsets = sequence ?? (await sequenceBeside(fs, path, offset));
    while (position < stat.size) {
      const ahead = new ReadAhead();
      const result = await scanBatches(readAt, { position, endPosition: stat.size, offset, sequence: offsets }, ahead);
      yield* ahead.items;
      if (result.tail) {
        yield { kind: 'tail', ...result.tail, bytes: stat.size - result.tail.position };
        return;
      }
      ({ position, nextOffset: offset } = result);
    }
  } catch (error) {
    throw toStorageError('read', path, error, 'none');
  } finally {
    closeFile(fs, fd);
  }
}

/** Collects what a scan finds, and stops it when that is enough for once. */
class ReadAhead {
  readonly items: InspectedItem[] = [];
  #bytes = 0;

  batch(buf: Buffer, at: number, position: number): boolean {
    const sizeInBytes = sizeInBytesOf(buf, at);
    const bytes = Buffer.from(buf.subarray(at, at + sizeInBytes));
    this.items.push({ kind: 'batch', ...batchFacts(bytes, position) });
    this.#bytes += sizeInBytes;
    return this.#bytes < READ_AHEAD_BYTES;
  }

  damage(damage: Damage): void {
    this.items.push({ kind: 'damage', ...damage });
  }
}

function batchFacts(bytes: Buffer, position: number): InspectedBatch {
  return {
    position,
    sizeInBytes: bytes.length,
    baseOffset: baseOffsetOf(bytes, 0),
    nextOffset: nextOffsetOf(bytes, 0),
    recordCount: recordCountOf(bytes, 0),
    leaderEpoch: leaderEpochOf(bytes, 0),
    maxTimestamp: maxTimestampOf(bytes, 0),
    crc: storedCrcOf(bytes, 0),
    bytes,
  };
}

/** Only compaction gives the first batch of a segment an entry in the index. */
async function sequenceBeside(fs: FileSystem, path: string, baseOffset: number): Promise<OffsetSequence> {
  const index = await readOffsetIndex(fs, path.replace(/\.log(?=$|\.)/, OFFSET_INDEX_SUFFIX), undefined);
  return index?.isComplete ? new IndexedSequence(baseOffset, index) : DENSE;
}

async function firstBaseOffset(readAt: (buffer: Uint8Array, at: number) => Promise<number>): Promise<number> {
  const header = Buffer.alloc(RECORD_BATCH_OVERHEAD);
  await readAt(header, 0);
  const baseOffset = baseOffsetOf(header, 0);
  return Number.isSafeInteger(baseOffset) && baseOffset >= 0 ? baseOffset : 0;
}

function openForReading(fs: FileSystem, path: string): number {
  try {
    return fs.openSync(path, 'read');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new LogError('INVALID_REQUEST', `${path} is not a file.`);
    throw toStorageError('open', path, error, 'none');
  }
}

/** The names of the partition directories of a data directory, in order. */
export async function partitionDirectories(dataDir: string, fs: FileSystem): Promise<readonly string[]> {
  const names = await fs.readdir(join(dataDir, 'logs'));
  return names.filter((name) => /^[0-9a-f-]{36}-\d+$/.test(name)).sort();
}
