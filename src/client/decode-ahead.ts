/** Decoding records some at a time, ahead of an iteration over them. */
import { type LogError, toLogError } from '../core/errors.js';
import type { BatchCursor } from './record-batch.js';

/** Records decoded at once at most: enough to spread the cost of a turn, little enough to hold. */
const DECODE_AHEAD = 1_024;

export interface DecodedAhead<R> {
  readonly records: readonly R[];
  /** Whether the cursor came to the end of the batch. */
  readonly isEnd: boolean;
  /** Why decoding ended after these records, if so. */
  readonly failure: LogError | undefined;
}

/** The next records of a batch, from where its cursor stands. */
export function decodeAhead<R>(batch: { decode(cursor: BatchCursor): R }, cursor: BatchCursor): DecodedAhead<R> {
  const records: R[] = [];
  try {
    while (records.length < DECODE_AHEAD) {
      if (!cursor.next()) return { records, isEnd: true, failure: undefined };
      records.push(batch.decode(cursor));
    }
    return { records, isEnd: false, failure: undefined };
  } catch (error) {
    return { records, isEnd: false, failure: toLogError(error) };
  }
}
