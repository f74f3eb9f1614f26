/** What a partition remembers of one producer. Entries are never changed, but replaced by what follows from a batch. */
import {
  attributesOf,
  baseOffsetOf,
  baseSequenceOf,
  isLogAppendTime,
  isTransactional,
  lastOffsetDeltaOf,
  maxTimestampOf,
  NO_SEQUENCE,
  producerEpochOf,
  producerIdOf,
} from '../../batch/layout.js';
import { addToSequence } from './sequence.js';
import type { OpenTransaction } from './types.js';

/** Batches of a producer that are recognised when they come again: as many as it may have in flight. */
export const REMEMBERED_BATCHES = 5;
/** Of a producer that no marker has named yet. */
export const NO_COORDINATOR_EPOCH = -1;

/** A batch that is in the log. */
export interface ProducerBatch {
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** Its largest timestamp, ms since the epoch. */
  readonly timestampMs: number;
  /** Whether that is the time of its append. */
  readonly logAppendTime: boolean;
}

export interface ProducerEntry {
  readonly producerId: number;
  readonly epoch: number;
  /** Its last batches under this epoch, the newest last; none when the epoch is known from a marker only. */
  readonly batches: readonly ProducerBatch[];
  /** Of its last marker; -1 when there was none. */
  readonly coordinatorEpoch: number;
  /** Largest timestamp of its last batch or marker, ms since the epoch; -1 for none. */
  readonly lastTimestampMs: number;
  /** When the broker wrote its last batch or marker, or found it after a restart; ms since the epoch. */
  readonly lastWriteMs: number;
  readonly transaction: OpenTransaction | undefined;
}

/** -1: nothing was sent under this epoch. */
export function lastSequenceOf({ batches }: ProducerEntry): number {
  return batches[batches.length - 1]?.lastSequence ?? NO_SEQUENCE;
}

/**
 * The entry after the data batch at `at`, which has its offsets. A batch of another epoch begins the list of batches anew;
 * if it finds a transaction of the epoch before open, then the marker of that one was lost with a damaged part of the log.
 * @param before undefined: the producer was not known
 */
export function entryAfterBatch(
  before: ProducerEntry | undefined,
  buf: Buffer,
  at: number,
  nowMs: number,
): ProducerEntry {
  const epoch = producerEpochOf(buf, at);
  const known = before?.epoch === epoch ? before : undefined;
  const batch = batchOf(buf, at);
  return {
    producerId: producerIdOf(buf, at),
    epoch,
    batches: known === undefined ? [batch] : [...known.batches.slice(1 - REMEMBERED_BATCHES), batch],
    coordinatorEpoch: before?.coordinatorEpoch ?? NO_COORDINATOR_EPOCH,
    lastTimestampMs: batch.timestampMs,
    lastWriteMs: nowMs,
    transaction:
      known?.transaction ?? (isTransactional(attributesOf(buf, at)) ? transactionOf(buf, at, nowMs) : undefined),
  };
}

function batchOf(buf: Buffer, at: number): ProducerBatch {
  const firstSequence = baseSequenceOf(buf, at);
  const baseOffset = baseOffsetOf(buf, at);
  const delta = lastOffsetDeltaOf(buf, at);
  return {
    firstSequence,
    lastSequence: addToSequence(firstSequence, delta),
    baseOffset,
    lastOffset: baseOffset + delta,
    timestampMs: maxTimestampOf(buf, at),
    logAppendTime: isLogAppendTime(attributesOf(buf, at)),
  };
}

function transactionOf(buf: Buffer, at: number, nowMs: number): OpenTransaction {
  return {
    producerId: producerIdOf(buf, at),
    producerEpoch: producerEpochOf(buf, at),
    firstOffset: baseOffsetOf(buf, at),
    sinceMs: nowMs,
  };
}

/** The entry after the end of a transaction: what comes next begins at sequence 0, if the epoch is a new one. */
export function entryAfterMarker(
  before: ProducerEntry | undefined,
  buf: Buffer,
  at: number,
  coordinatorEpoch: number,
  nowMs: number,
): ProducerEntry {
  const epoch = producerEpochOf(buf, at);
  return {
    producerId: producerIdOf(buf, at),
    epoch,
    batches: before?.epoch === epoch ? before.batches : [],
    coordinatorEpoch,
    lastTimestampMs: maxTimestampOf(buf, at),
    lastWriteMs: nowMs,
    transaction: undefined,
  };
}
