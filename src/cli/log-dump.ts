/** The lines of `tidelog log dump`: one for each batch, and for each piece of the file that is none. */
import { resolve } from 'node:path';
import { readControlRecord } from '../batch/control.js';
import {
  attributesOf,
  baseSequenceOf,
  baseTimestampOf,
  CODEC_MASK,
  codecOf,
  hasDeleteHorizon,
  isControl,
  isLogAppendTime,
  isTransactional,
  producerEpochOf,
  producerIdOf,
} from '../batch/layout.js';
import { openRecords, type RecordCursor } from '../batch/records.js';
import { errorMessage, LogError } from '../core/errors.js';
import { type InspectedBatch, type InspectedItem, inspectLogFile } from '../storage/local/inspect.js';
import { count, type Output } from './output.js';
import { formatJsonFields, formatTime } from './record-format.js';

/** The first thing that is wrong with a file. */
interface Flaw {
  readonly position: number;
  readonly offset: number;
  readonly why: string;
}

/**
 * Prints what a `.log` file holds, with its records if asked to.
 * @throws LogError CORRUPT_LOG after everything was printed, if not everything was intact; INVALID_REQUEST for a file
 *   that is no log, STORAGE_ERROR
 */
export async function dumpLogFile(file: string, withRecords: boolean, output: Output): Promise<void> {
  let batchCount = 0;
  let recordCount = 0;
  let flaw: Flaw | undefined;
  for await (const item of inspectLogFile(resolve(file))) {
    if (item.kind === 'batch') {
      batchCount++;
      recordCount += item.recordCount;
      output.line(batchLine(item));
      if (withRecords) flaw ??= await printRecords(item, output);
    } else {
      if (item.kind === 'tail' && batchCount === 0 && flaw === undefined) throw notALog(file, item.why);
      output.line(flawLine(item));
      flaw ??= { position: item.position, offset: item.offset, why: item.why };
    }
    if (output.full) await output.flush();
  }
  output.line(`${count(batchCount, 'intact batch', 'intact batches')}, ${count(recordCount, 'record')}`);
  if (flaw === undefined) return;
  const { position, offset, why } = flaw;
  throw new LogError(
    'CORRUPT_LOG',
    `${file} is truncated or damaged at byte ${position}, offset ${offset}: ${why}. ` +
      'Check the whole directory with `tidelog log verify`.',
    { metadata: { file, position, offset } },
  );
}

function notALog(file: string, why: string): LogError {
  return new LogError(
    'INVALID_REQUEST',
    `${file} does not begin with a record batch (${why}): it is no log file, or damaged from its start.`,
    { metadata: { file } },
  );
}

function batchLine(batch: InspectedBatch): string {
  const { bytes } = batch;
  const attributes = attributesOf(bytes, 0);
  const producer = `${producerIdOf(bytes, 0)}/${producerEpochOf(bytes, 0)}/${baseSequenceOf(bytes, 0)}`;
  const fields = [
    `offsets ${batch.baseOffset}-${batch.nextOffset - 1}`,
    `position ${batch.position}`,
    `size ${batch.sizeInBytes}`,
    `codec ${codecOf(attributes) ?? attributes & CODEC_MASK}`,
    `count ${batch.recordCount}`,
    `timestamps ${timeOrNone(baseTimestampOf(bytes, 0))}..${timeOrNone(batch.maxTimestamp)}`,
    `producer ${producer}`,
    `epoch ${batch.leaderEpoch}`,
    `crc ${batch.crc.toString(16).padStart(8, '0')} ok`,
  ];
  if (isLogAppendTime(attributes)) fields.push('log-append-time');
  if (isTransactional(attributes)) fields.push('transactional');
  if (isControl(attributes)) fields.push('control');
  if (hasDeleteHorizon(attributes)) fields.push('delete-horizon');
  return fields.join('  ');
}

function timeOrNone(timestampMs: number): string {
  return formatTime(timestampMs) ?? 'none';
}

function flawLine(item: Exclude<InspectedItem, { kind: 'batch' }>): string {
  const { position, offset } = item;
  if (item.kind === 'tail')
    return `offset ${offset}  position ${position}  size ${item.bytes}  BAD to the end: ${item.why}`;
  const { endPosition, nextOffset, why } = item;
  return `offsets ${offset}-${nextOffset - 1}  position ${position}  size ${endPosition - position}  BAD: ${why}`;
}

/** Prints the records below their batch. Resolves to what is wrong with them, if anything. */
async function printRecords(batch: InspectedBatch, output: Output): Promise<Flaw | undefined> {
  // Compaction may have left nothing but the header, of a control batch too.
  if (batch.recordCount === 0) return undefined;
  try {
    if (isControl(attributesOf(batch.bytes, 0))) {
      const { name, version } = readControlRecord(batch.bytes);
      output.line(`  ${JSON.stringify({ offset: batch.baseOffset, control: name, version })}`);
      return undefined;
    }
    const cursor = await openRecords(batch.bytes);
    while (cursor.next()) {
      output.line(`  ${recordLine(cursor)}`);
      if (output.full) await output.flush();
    }
    return undefined;
  } catch (error) {
    const why = errorMessage(error);
    output.line(`  BAD: ${why}`);
    return { position: batch.position, offset: batch.baseOffset, why };
  }
}

function recordLine(cursor: RecordCursor): string {
  const { offset, timestampMs, key, value, headers } = cursor;
  return JSON.stringify(formatJsonFields({ offset, timestampMs, key, value, headers }));
}
