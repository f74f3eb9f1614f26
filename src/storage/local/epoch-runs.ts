/**
 * Which leader epoch the batches of a segment, or of the end of a log, carry, as runs: what Kafka keeps in
 * `leader-epoch-checkpoint`. A batch's CRC does not cover its leader epoch, so this is what a flipped bit in it is found by.
 */
import { baseOffsetOf, leaderEpochOf } from '../../batch/layout.js';

/** Offset from which on, and the epoch that batches have from there. */
export type EpochRun = readonly [offset: number, epoch: number];

/** An epoch begins with an opening of the partition, so a segment has few. With more runs nothing is compared. */
export const MAX_EPOCH_RUNS = 1000;

export class EpochRuns {
  readonly #runs: EpochRun[];

  constructor(runs: readonly EpochRun[] = []) {
    this.#runs = [...runs];
  }

  /** The runs, ascending by offset. */
  get runs(): readonly EpochRun[] {
    return this.#runs;
  }

  add(offset: number, epoch: number): void {
    if (this.endsIn(epoch) || this.#isFull) return;
    this.#runs.push([offset, epoch]);
  }

  /** Whether a batch with this epoch begins no new run. */
  endsIn(epoch: number): boolean {
    return this.#isFull || this.#runs[this.#runs.length - 1]?.[1] === epoch;
  }

  /** Epoch of the batch that begins at `offset`; undefined when that is not known. */
  epochAt(offset: number): number | undefined {
    const runs = this.#runs;
    if (this.#isFull) return undefined;
    for (let i = runs.length - 1; i >= 0; i--) if (runs[i]![0] <= offset) return runs[i]![1];
    return undefined;
  }

  /** These runs as far as they begin below `offset`, and behind them one with `epoch`. */
  continuedAt(offset: number, epoch: number): EpochRuns {
    const continued = new EpochRuns(this.#runs.filter(([start]) => start < offset));
    continued.add(offset, epoch);
    return continued;
  }

  /** These runs as they are once `batches`, in the order of their offsets, follow what begins below the first. */
  continuedBy(batches: readonly Buffer[]): EpochRuns {
    const [first] = batches;
    if (first === undefined) return this;
    const continued = this.continuedAt(baseOffsetOf(first, 0), leaderEpochOf(first, 0));
    for (const batch of batches) continued.add(baseOffsetOf(batch, 0), leaderEpochOf(batch, 0));
    return continued;
  }

  get #isFull(): boolean {
    return this.#runs.length > MAX_EPOCH_RUNS;
  }
}

/** Leader epoch of the batch with a base offset; undefined where it is not known. */
export type EpochAt = (baseOffset: number) => number | undefined;

/**
 * All that is known of the epochs in a segment.
 * @param record what the checkpoint says of the segment up to where it ended then
 * @param noted what was written down before the batches were
 */
export function knownEpochs(
  record: { readonly nextOffset: number; readonly epochs: readonly EpochRun[] } | undefined,
  noted: readonly EpochRun[],
): EpochAt {
  const recordedEnd = record?.nextOffset ?? 0;
  const recordedRuns = new EpochRuns(record?.epochs);
  const notedRuns = new EpochRuns(noted);
  return (baseOffset) =>
    (baseOffset < recordedEnd ? recordedRuns.epochAt(baseOffset) : undefined) ?? notedRuns.epochAt(baseOffset);
}
