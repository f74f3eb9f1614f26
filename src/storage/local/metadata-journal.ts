/**
 * The file of the metadata store: how changes are written in it, and how they are read back.
 *
 * It is a log like any other: record batches with dense offsets, the key of a record being the metadata key and its value
 * `{"version":N,"value":"..."}`, or null for a deletion. What shares a sync is one batch: of several, a power cut could
 * leave a later one intact behind one that is torn, which cannot be told from corruption.
 */
import * as v from 'valibot';
import { encodeBatch } from '../../batch/builder.js';
import { attributesOf, baseOffsetOf, codecOf, sizeInBytesOf } from '../../batch/layout.js';
import { openRecords, type RecordCursor } from '../../batch/records.js';
import { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { type MetadataChange, MetadataMap } from '../metadata-map.js';
import type { FileDescriptor, FileSystem } from './fs.js';
import { corruptLog } from './io-errors.js';
import { scanBatches } from './scanner.js';

const valueSchema = v.object({ version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)), value: v.string() });

/** What a journal holds, and the byte and the offset at which it goes on. */
export interface Journal {
  readonly map: MetadataMap;
  readonly size: number;
  readonly nextOffset: number;
}

/**
 * Reads a journal of `size` bytes. A torn tail is cut off.
 * @param durableOffset everything below was durable once
 * @throws LogError CORRUPT_LOG
 */
export async function readJournal(
  fs: FileSystem,
  path: string,
  fd: FileDescriptor,
  size: number,
  logger: Logger,
  durableOffset: number,
): Promise<Journal> {
  const map = new MetadataMap();
  const { position, nextOffset, tail } = await scanBatches(
    (buffer, at) => fs.pread(fd, buffer, at),
    { position: 0, endPosition: size, offset: 0 },
    {
      batch(buf, at, position) {
        if (applyBatch(buf.subarray(at, at + sizeInBytesOf(buf, at)), map)) return true;
        throw corruptLog(path, position, baseOffsetOf(buf, at), undefined, 'a metadata change is not understood');
      },
      damage(damage) {
        throw corruptLog(path, damage.position, damage.offset, damage.nextOffset, damage.why);
      },
    },
  );
  if (nextOffset < durableOffset || tail?.searched === false) {
    throw corruptLog(path, position, nextOffset, undefined, tail?.why ?? 'the file ends too early');
  }
  if (tail) {
    logger.warn({ file: path, position, bytes: size - position, why: tail.why }, 'cutting off a torn tail');
    fs.ftruncateSync(fd, position);
  }
  return { map, size: position, nextOffset };
}

export function encodeChange(change: MetadataChange, offset: number): Buffer {
  return encodeChanges([change], offset);
}

/** One batch of changes. */
export function encodeChanges(changes: readonly MetadataChange[], baseOffset: number): Buffer {
  const records = changes.map(({ key, value, version }) => {
    const json = value === undefined ? null : Buffer.from(JSON.stringify({ version, value }));
    return { timestampMs: -1, key: Buffer.from(key), value: json };
  });
  return encodeBatch(records, { baseOffset, leaderEpoch: 0 });
}

/** Applies the changes in a journal batch. @returns false when it holds something else, or what is never written here */
function applyBatch(batch: Buffer, map: MetadataMap): boolean {
  // Changes are not compressed. Opening a batch that says so would end in a promise that nobody waits for.
  if (codecOf(attributesOf(batch, 0)) !== 'none') return false;
  try {
    const cursor = openRecords(batch);
    return !(cursor instanceof Promise) && applyRecords(cursor, map);
  } catch (error) {
    if (error instanceof LogError) return false;
    throw error;
  }
}

function applyRecords(cursor: RecordCursor, map: MetadataMap): boolean {
  let count = 0;
  for (; cursor.next(); count++) {
    const change = decodeChange(cursor, map);
    if (!change) return false;
    map.apply(change);
  }
  return count > 0;
}

/** The change in a record of the journal; undefined when it is none. */
function decodeChange({ key, value }: RecordCursor, map: MetadataMap): MetadataChange | undefined {
  if (!key) return undefined;
  const name = key.toString('utf8');
  if (value === null) return { key: name, value: undefined, version: map.lastVersion(name) + 1 };
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), valueSchema), value.toString('utf8'));
  return parsed.success ? { key: name, ...parsed.output } : undefined;
}
