/** What the engines have in common: what they ask of batches, their errors, their sums. */

import { baseOffsetOf, NO_TIMESTAMP, nextOffsetOf, sizeInBytesOf } from '../batch/layout.js';
import { checkFraming } from '../batch/validate.js';
import { assert } from '../core/assert.js';
import { LogError } from '../core/errors.js';
import { type Offset, toOffset } from '../core/types.js';
import type { LogStats, SegmentInfo } from './engine.js';

/**
 * Offset after the last of `batches`, one whole batch a buffer, the first of which begins at `at`.
 * @throws LogError INTERNAL when a buffer is not exactly one batch or the base offsets are not dense: the caller, which
 *   stamped them, is broken
 */
export function endOfBatches(batches: readonly Buffer[], at: Offset): Offset {
  let expected: number = at;
  for (const batch of batches) {
    const broken = whyNotNext(batch, expected);
    assert(broken === undefined, broken ?? '');
    expected = nextOffsetOf(batch, 0);
  }
  return toOffset(expected);
}

/** Why `batch` is not exactly one batch that begins at `expected`. */
function whyNotNext(batch: Buffer, expected: number): string | undefined {
  const broken = checkFraming(batch, 0, batch.length);
  if (broken !== undefined) return `a batch to append is not whole: ${broken}`;
  if (sizeInBytesOf(batch, 0) !== batch.length) return 'a buffer to append holds more than one batch';
  const baseOffset = baseOffsetOf(batch, 0);
  return baseOffset === expected ? undefined : `a batch is stamped ${baseOffset}, the log is at ${expected}`;
}

/** What describes a log as a whole, from its segments. */
export function statsOf(segments: readonly SegmentInfo[]): LogStats {
  let sizeInBytes = 0;
  let newestTimestamp: number = NO_TIMESTAMP;
  for (const segment of segments) {
    sizeInBytes += segment.sizeInBytes;
    newestTimestamp = Math.max(newestTimestamp, segment.maxTimestamp);
  }
  const oldestTimestamp =
    segments.find(({ firstTimestamp }) => firstTimestamp !== NO_TIMESTAMP)?.firstTimestamp ?? NO_TIMESTAMP;
  return { segmentCount: segments.length, sizeInBytes, oldestTimestamp, newestTimestamp };
}

/** @param what a log, by a name that its owner knows */
export function compactedAlready(what: string): LogError {
  return new LogError('CONCURRENT_UPDATE', `${what} is being compacted already.`);
}

export function wrongOffset(at: Offset, endOffset: Offset): LogError {
  return new LogError('WRONG_OFFSET', `The log ends at offset ${endOffset}, not at ${at}. Nothing was appended.`, {
    metadata: { expected_offset: at, log_end_offset: endOffset },
  });
}

export function outOfRange(offset: number, startOffset: Offset, endOffset: Offset): LogError {
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Offset ${offset} is outside of the log, which holds offsets ${startOffset} to ${endOffset} (exclusive).`,
    { metadata: { offset, log_start_offset: startOffset, log_end_offset: endOffset } },
  );
}

export function fencedEpoch(epoch: number, newer: number): LogError {
  return new LogError('FENCED_EPOCH', `Epoch ${epoch} was fenced: epoch ${newer} has opened this partition.`, {
    metadata: { epoch, current_epoch: newer },
  });
}

/** Largest side file. What is larger was not written as one. */
export const MAX_SIDE_FILE_BYTES: number = 64 * 1024 * 1024;

/** @throws LogError RESOURCE_LIMIT when a side file with these contents is not to be written */
export function checkSideFileSize(contents: Uint8Array): void {
  const bytes = contents.byteLength;
  if (bytes <= MAX_SIDE_FILE_BYTES) return;
  const message = `A file beside the log would have ${bytes} bytes, more than ${MAX_SIDE_FILE_BYTES}. It was not written.`;
  throw new LogError('RESOURCE_LIMIT', message, { outcome: 'none' });
}

export function closedError(what: string): LogError {
  return new LogError('CLOSED', `The ${what} is closed.`);
}
