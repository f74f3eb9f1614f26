import { sizeInBytesOf } from '../../batch/layout.js';
import { LogError } from '../../core/errors.js';
import type { Slices } from '../../core/slices.js';
import { type Offset, toOffset } from '../../core/types.js';
import type { LogSlice, PartitionLog } from '../../storage/engine.js';

const READ_BYTES = 1024 * 1024;

export interface ScanRange {
  readonly from: number;
  readonly to: number;
}

/** What is called for each batch from the one that contains the beginning of the range on. */
export type BatchVisitor = (buf: Buffer, at: number) => void | Promise<void>;

/**
 * Goes through a part of a log in turns. What is damaged, or deleted meanwhile, is left out.
 * @param skipped told of each damaged piece that was left out
 * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT, CLOSED
 */
export async function scanLog(
  log: PartitionLog,
  range: ScanRange,
  slices: Slices,
  visit: BatchVisitor,
  skipped: (error: LogError) => void,
): Promise<void> {
  const to = toOffset(Math.min(range.to, log.endOffset));
  let next = range.from;
  while (next < to) {
    const from = toOffset(Math.max(next, log.startOffset));
    if (from >= to) return;
    const piece = await readPiece(log, from, to, skipped);
    if (piece.nextOffset === from) return;
    for (const chunk of piece.chunks) await visitAll(chunk, slices, visit);
    next = piece.nextOffset;
    await slices.pause();
  }
}

async function readPiece(
  log: PartitionLog,
  from: Offset,
  to: Offset,
  skipped: (error: LogError) => void,
): Promise<LogSlice> {
  try {
    return await log.read(from, to, READ_BYTES);
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    const isDeleted = error.reason === 'OFFSET_OUT_OF_RANGE' && from < log.startOffset;
    if (error.reason !== 'CORRUPT_LOG' && !isDeleted) throw error;
    if (!isDeleted) skipped(error);
    const nextOffset = isDeleted ? log.startOffset : endOfDamage(log, from, to, error);
    return { chunks: [], byteLength: 0, nextOffset };
  }
}

/** Where reading can go on; at the next segment when the error does not know. */
function endOfDamage(log: PartitionLog, from: Offset, to: Offset, error: LogError): Offset {
  const named = Number(error.metadata.next_valid_offset);
  if (Number.isSafeInteger(named) && named > from) return toOffset(named);
  return log.segments().find(({ baseOffset }) => baseOffset > from)?.baseOffset ?? to;
}

async function visitAll(chunk: Buffer, slices: Slices, visit: BatchVisitor): Promise<void> {
  for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
    const visited = visit(chunk, at);
    if (visited !== undefined) await visited;
    const pause = slices.step();
    if (pause !== undefined) await pause;
  }
}
