/** The errors of a partition: each names it and gives the numbers that its caller needs. */
import { LogError } from '../core/errors.js';

/** The partition that an error is about, with the offsets it stands at. */
export interface PartitionPlace {
  readonly topic: string;
  readonly index: number;
  readonly logStartOffset: number;
  readonly highWatermark: number;
  readonly logEndOffset: number;
}

export function unreadableOffset(place: PartitionPlace, offset: number): LogError {
  const { topic, index, logStartOffset, highWatermark, logEndOffset } = place;
  const why =
    offset < logStartOffset
      ? `it was deleted; the log starts at ${logStartOffset}`
      : `the log ends at ${logEndOffset}: it was never written here, or the topic was recreated`;
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Offset ${offset} of ${topic}-${index} cannot be read: ${why}. ` +
      'Read from an offset in the valid range, from earliest or from latest.',
    {
      metadata: {
        topic,
        partition: index,
        offset,
        log_start_offset: logStartOffset,
        high_watermark: highWatermark,
        log_end_offset: logEndOffset,
      },
    },
  );
}

export function undeletableOffset(place: PartitionPlace, before: number): LogError {
  const { topic, index, logStartOffset, highWatermark } = place;
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Records of ${topic}-${index} can be deleted up to its high watermark ${highWatermark}, not up to ` +
      `${before}. The valid range is ${logStartOffset} to ${highWatermark}.`,
    {
      metadata: {
        topic,
        partition: index,
        offset: before,
        log_start_offset: logStartOffset,
        high_watermark: highWatermark,
      },
    },
  );
}

export function wrongOffset({ topic, index }: PartitionPlace, expected: number, actual: number): LogError {
  return new LogError(
    'WRONG_OFFSET',
    `${topic}-${index} ends at offset ${actual}, not at the expected ${expected}. Nothing was appended.`,
    { metadata: { topic, partition: index, expected_offset: expected, log_end_offset: actual } },
  );
}

export function scatteredDuplicates({ topic, index }: PartitionPlace): LogError {
  return new LogError(
    'INVALID_RECORD',
    `Of the batches of this append some are in ${topic}-${index} already, but not all, or not next to each other: one ` +
      'range of offsets cannot tell where they are. Nothing was appended; send each of them by itself.',
    { metadata: { topic, partition: index } },
  );
}

export function partitionClosed({ topic, index }: PartitionPlace): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `${topic}-${index} is closed: its topic was deleted or the broker is stopping.`,
    { metadata: { topic, partition: index } },
  );
}
