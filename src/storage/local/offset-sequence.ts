/**
 * Which offsets the batches of a segment may have. The CRC of a batch does not cover its base offset, so this is what a
 * flipped bit in one is found by.
 *
 * - A segment as it was appended is dense: each batch begins where the one before ended.
 * - Compaction leaves holes. It indexes every batch, so that the index says which offsets stand at which position, and
 *   the index has a checksum of its own.
 * - Without that index (lost, to be built anew) all that can be asked for is that offsets rise.
 */
import type { OffsetIndex } from './offset-index.js';

export interface OffsetSequence {
  /**
   * Why a batch with the offsets `[baseOffset, nextOffset)` does not belong at byte `position`, when what comes before
   * ends at offset `expected`. Undefined when it does.
   */
  check(baseOffset: number, nextOffset: number, position: number, expected: number): string | undefined;
  /** Whether an intact batch with these offsets, met behind a damaged one, may be the log's own. */
  mayResume(baseOffset: number, nextOffset: number, position: number): boolean;
}

export const DENSE: OffsetSequence = {
  check: (baseOffset, _nextOffset, _position, expected) =>
    baseOffset === expected ? undefined : `the base offset is ${baseOffset} where ${expected} belongs`,
  mayResume: () => true,
};

export const ASCENDING: OffsetSequence = {
  check: checkAscending,
  mayResume: () => true,
};

function checkAscending(
  baseOffset: number,
  _nextOffset: number,
  _position: number,
  expected: number,
): string | undefined {
  return baseOffset >= expected ? undefined : `the base offset is ${baseOffset}, below ${expected}`;
}

/** The sequence of a segment whose index holds every batch. */
export class IndexedSequence implements OffsetSequence {
  readonly #baseOffset: number;
  readonly #index: OffsetIndex;
  /** Entry met last: batches mostly come in order. */
  #last = -1;

  constructor(baseOffset: number, index: OffsetIndex) {
    this.#baseOffset = baseOffset;
    this.#index = index;
  }

  check(baseOffset: number, nextOffset: number, position: number, expected: number): string | undefined {
    const low = checkAscending(baseOffset, nextOffset, position, expected);
    if (low !== undefined) return low;
    const entry = this.#entryAt(position);
    if (entry < 0) return `no batch begins at byte ${position}, as the index has it`;
    const lastOffset = this.#baseOffset + this.#index.relativeOffsetAt(entry);
    if (nextOffset - 1 === lastOffset) return undefined;
    return `the batch ends at offset ${nextOffset - 1} where ${lastOffset} belongs`;
  }

  mayResume(baseOffset: number, nextOffset: number, position: number): boolean {
    return this.check(baseOffset, nextOffset, position, 0) === undefined;
  }

  #entryAt(position: number): number {
    const next = this.#last + 1;
    const entry =
      next < this.#index.count && this.#index.positionAt(next) === position
        ? next
        : this.#index.entryAtPosition(position);
    if (entry >= 0) this.#last = entry;
    return entry;
  }
}
