/** How far the members of a group have come in one partition, all together. */
import type { Entry } from '../history-index.js';
import { type EntryList, firstFrom } from './must-see.js';

/** Invariant: every entry from the begin up to `#next` was finished, may be gone, or was reported. */
export class GroupProgress {
  readonly #entries: EntryList;
  /** Finished, at or above the entry at `#next`. */
  readonly #finished = new Set<number>();
  /** The place in `#entries` of the first that is not finished. */
  #next: number;

  /** @param entries what a member must see @param begin where the group began */
  constructor(entries: EntryList, begin: number) {
    this.#entries = entries;
    this.#next = firstFrom(entries, begin);
  }

  finish(offset: number): void {
    const next = this.#entries[this.#next];
    if (next !== undefined && offset >= next.offset) this.#finished.add(offset);
    this.#skipFinished();
  }

  /**
   * The group goes on from `offset`, in front of which records below `trimmed` may be gone.
   * @returns the first entry that it passes over unfinished; each is reported once
   */
  passTo(offset: number, trimmed: number): Entry | undefined {
    let first: Entry | undefined;
    for (let entry = this.#entries[this.#next]; entry !== undefined && entry.offset < offset; ) {
      if (entry.offset >= trimmed) first ??= entry;
      this.#next++;
      this.#skipFinished();
      entry = this.#entries[this.#next];
    }
    return first;
  }

  #skipFinished(): void {
    for (let entry = this.#entries[this.#next]; entry !== undefined; entry = this.#entries[++this.#next]) {
      if (!this.#finished.delete(entry.offset)) return;
    }
  }
}
