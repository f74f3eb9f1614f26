/** How far an assignment has come: what was handed out, what of it is finished, and what may be committed. */
import { partitionPoint } from '../../core/binary-search.js';

/**
 * Of one assignment, from its start or its last seek on. Offsets are handed out in rising order and finished in any.
 *
 * Invariants: `[#firstFrom, #firstTo)` and then `[#from[i], #to[i])` are the runs of offsets that were handed out and are
 * not finished; they rise, do not touch and lie below `position`; none is empty, except the first when there is none at
 * all. So the memory goes with what is unfinished, and not even with that while it is handed out without holes. The first
 * run stands apart because in a loop it is the only one, and then handing out and finishing a record costs next to nothing.
 */
export class Progress {
  #position: number;
  #firstFrom = 0;
  #firstTo = 0;
  readonly #from: number[] = [];
  readonly #to: number[] = [];
  /** Where leader epochs begin, among the batches handed out; the first is the one at the committable offset. */
  readonly #epochs: { readonly from: number; readonly epoch: number }[] = [];

  /** @param start the offset that comes first */
  constructor(start: number) {
    this.#position = start;
  }

  /** The next offset to hand out. */
  get position(): number {
    return this.#position;
  }

  /** The next offset to read of somebody who knows nothing but the committed offset: below it everything is finished. */
  get committable(): number {
    return this.hasUnfinished ? this.#firstFrom : this.#position;
  }

  get hasUnfinished(): boolean {
    return this.#firstFrom < this.#firstTo;
  }

  /** `[from, to)` goes out; offsets between `position` and `from` hold nothing. */
  handOut(from: number, to: number): void {
    this.#position = to;
    if (from === to) return;
    const last = this.#to.length - 1;
    if (!this.hasUnfinished) {
      this.#firstFrom = from;
      this.#firstTo = to;
    } else if (last < 0 && this.#firstTo === from) this.#firstTo = to;
    else if (last >= 0 && this.#to[last] === from) this.#to[last] = to;
    else {
      this.#from.push(from);
      this.#to.push(to);
    }
  }

  /** There is nothing to hand out below `offset`. */
  skipTo(offset: number): void {
    if (offset > this.#position) this.#position = offset;
  }

  /** What of `[from, to)` was handed out is finished. Repeating it changes nothing. */
  finish(from: number, to: number): void {
    if (from !== this.#firstFrom || to > this.#firstTo) {
      this.#cut(from, to);
      return;
    }
    this.#firstFrom = to;
    if (to === this.#firstTo) this.#takeFirst();
  }

  finishAll(): void {
    this.#firstFrom = this.#firstTo;
    this.#from.length = 0;
    this.#to.length = 0;
  }

  /** The batches from `baseOffset` on were written under this leader epoch. */
  noteLeaderEpoch(baseOffset: number, epoch: number): void {
    if (this.#epochs.at(-1)?.epoch !== epoch) this.#epochs.push({ from: baseOffset, epoch });
  }

  /** Of the last record below the committable offset; -1: not known. Forgets what came before. */
  leaderEpoch(): number {
    const end = this.committable;
    while (this.#epochs[1] !== undefined && this.#epochs[1].from < end) this.#epochs.shift();
    const first = this.#epochs[0];
    return first !== undefined && first.from < end ? first.epoch : -1;
  }

  /** The next run takes the place of the first one, which is empty. */
  #takeFirst(): void {
    if (this.#from.length === 0) return;
    this.#firstFrom = this.#from.shift() as number;
    this.#firstTo = this.#to.shift() as number;
  }

  #cut(from: number, to: number): void {
    if (!this.hasUnfinished) return;
    this.#from.unshift(this.#firstFrom);
    this.#to.unshift(this.#firstTo);
    this.#firstFrom = this.#firstTo;
    for (let i = this.#firstEndingAbove(from); i < this.#from.length; ) {
      const runFrom = this.#from[i] as number;
      const runTo = this.#to[i] as number;
      if (runFrom >= to) break;
      const rest = [
        { from: runFrom, to: Math.min(runTo, from) },
        { from: Math.max(runFrom, to), to: runTo },
      ].filter((run) => run.from < run.to);
      this.#from.splice(i, 1, ...rest.map((run) => run.from));
      this.#to.splice(i, 1, ...rest.map((run) => run.to));
      i += rest.length;
    }
    this.#takeFirst();
  }

  #firstEndingAbove(offset: number): number {
    return partitionPoint(this.#to.length, (i) => (this.#to[i] as number) <= offset);
  }
}
