import { partitionPoint } from '../../core/binary-search.js';
import type { AbortedTransaction } from './types.js';

/** An aborted transaction as the transaction index has it. */
export interface AbortedEntry extends AbortedTransaction {
  /** The first offset of the oldest transaction that was open when the marker was written, else the marker's + 1. */
  readonly lastStableOffset: number;
}

/** The aborted transactions that are kept in memory, in the order of their markers. */
export class AbortedTail {
  #entries: AbortedEntry[] = [];

  get count(): number {
    return this.#entries.length;
  }

  get entries(): readonly AbortedEntry[] {
    return this.#entries;
  }

  push(entry: AbortedEntry): void {
    this.#entries.push(entry);
  }

  /** Takes the newest back. */
  pop(): void {
    this.#entries.pop();
  }

  /** How many have a marker below `offset`. */
  countBelow(offset: number): number {
    return partitionPoint(this.#entries.length, (i) => this.#entries[i]!.lastOffset < offset);
  }

  /** Forgets the oldest ones. */
  dropFirst(count: number): void {
    if (count > 0) this.#entries.splice(0, count);
  }

  restore(entries: readonly AbortedEntry[]): void {
    this.#entries = [...entries];
  }

  /** Those that may have something in [from, to), in the order of their markers. */
  in(from: number, to: number): AbortedEntry[] {
    const found: AbortedEntry[] = [];
    for (let i = this.countBelow(from); i < this.#entries.length; i++) {
      const entry = this.#entries[i]!;
      if (entry.firstOffset < to) found.push(entry);
    }
    return found;
  }
}
