/**
 * Which leader epoch the batches of a segment carry, as runs: what Kafka keeps in `leader-epoch-checkpoint`. A batch's
 * CRC does not cover its leader epoch, so this is what a flipped bit in it is found by.
 */

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
    if (this.#runs[this.#runs.length - 1]?.[1] === epoch || this.#runs.length > MAX_EPOCH_RUNS) return;
    this.#runs.push([offset, epoch]);
  }

  /** Epoch of the batch that begins at `offset`; undefined when that is not known. */
  epochAt(offset: number): number | undefined {
    const runs = this.#runs;
    if (runs.length > MAX_EPOCH_RUNS) return undefined;
    for (let i = runs.length - 1; i >= 0; i--) if (runs[i]![0] <= offset) return runs[i]![1];
    return undefined;
  }
}

/** Leader epoch of the batch with a base offset; undefined where it is not known. */
export type EpochAt = (baseOffset: number) => number | undefined;

/** The epochs that a checkpoint recorded, known up to the end of the segment as it was then. */
export function epochsUpTo(
  record: { readonly nextOffset: number; readonly epochs: readonly EpochRun[] } | undefined,
): EpochAt {
  if (!record) return () => undefined;
  const runs = new EpochRuns(record.epochs);
  return (baseOffset) => (baseOffset < record.nextOffset ? runs.epochAt(baseOffset) : undefined);
}
