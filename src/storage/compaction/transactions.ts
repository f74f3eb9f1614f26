/** What became of the transactions in a range of the log, found from the log itself. */
import { readControlRecord } from '../../batch/control.js';
import {
  attributesOf,
  baseOffsetOf,
  isControl,
  isTransactional,
  producerIdOf,
  recordCountOf,
} from '../../batch/layout.js';
import { partitionPoint } from '../../core/binary-search.js';
import { LogError } from '../../core/errors.js';

export type MarkerType = 'COMMIT' | 'ABORT';

/** A producer's markers, runs of the same type told by their last: the k-th run ends at `ends[k]`. */
interface MarkerRuns {
  readonly ends: number[];
  readonly aborts: boolean[];
}

/** The type of the transaction marker that `batch` holds; undefined for anything else, also what cannot be read. */
export function markerTypeOf(batch: Buffer): MarkerType | undefined {
  if (!isControl(attributesOf(batch, 0)) || recordCountOf(batch, 0) === 0) return undefined;
  try {
    const { name } = readControlRecord(batch);
    return name === 'COMMIT' || name === 'ABORT' ? name : undefined;
  } catch (error) {
    if (error instanceof LogError && error.reason === 'CORRUPT_MESSAGE') return undefined;
    throw error;
  }
}

/**
 * The markers of a range and what they decide. Batches are noted in offset order. Memory: a number for each time that a
 * producer went from committing to aborting or back, and one for each open transaction.
 */
export class TransactionOutcomes {
  readonly #runs = new Map<number, MarkerRuns>();
  /** Producer id -> first offset of the transaction that has no marker yet. */
  readonly #open = new Map<number, number>();
  readonly #from: number;

  /** @param from what lies below is not judged: the markers that decided it may lie there, too */
  constructor(from: number) {
    this.#from = from;
  }

  note(batch: Buffer): void {
    const attributes = attributesOf(batch, 0);
    if (!isTransactional(attributes)) return;
    const producerId = producerIdOf(batch, 0);
    const offset = baseOffsetOf(batch, 0);
    if (isControl(attributes)) this.#noteMarker(batch, producerId, offset);
    // Of a batch that has lost its records there is nothing left to be decided.
    else if (recordCountOf(batch, 0) > 0 && !this.#open.has(producerId)) this.#open.set(producerId, offset);
  }

  get hasUndecided(): boolean {
    return this.#open.size > 0;
  }

  /** First offset of the transactions that have no marker; Infinity when all have. */
  get firstUndecided(): number {
    let first = Number.POSITIVE_INFINITY;
    for (const offset of this.#open.values()) first = Math.min(first, offset);
    return first;
  }

  /** Whether the first marker of the producer behind `offset` is an ABORT; false below the range. */
  isAborted(producerId: number, offset: number): boolean {
    const runs = this.#runs.get(producerId);
    if (runs === undefined || offset < this.#from) return false;
    const { ends, aborts } = runs;
    return aborts[partitionPoint(ends.length, (run) => ends[run]! <= offset)] ?? false;
  }

  #noteMarker(batch: Buffer, producerId: number, offset: number): void {
    const type = markerTypeOf(batch);
    if (type === undefined) return;
    this.#open.delete(producerId);
    const aborts = type === 'ABORT';
    const runs = this.#runs.get(producerId);
    if (runs === undefined) this.#runs.set(producerId, { ends: [offset], aborts: [aborts] });
    else if (runs.aborts[runs.aborts.length - 1] === aborts) runs.ends[runs.ends.length - 1] = offset;
    else {
      runs.ends.push(offset);
      runs.aborts.push(aborts);
    }
  }
}
