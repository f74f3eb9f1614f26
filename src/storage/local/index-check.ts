/** Whether the indexes of a segment fit its batches, for `log verify`. */
import { NO_TIMESTAMP, newestRecordTimeOf } from '../../batch/layout.js';
import type { InspectedBatch } from './inspect.js';
import { OFFSET_INDEX_ENTRY_BYTES } from './offset-index.js';
import { TIME_INDEX_ENTRY_BYTES } from './time-index.js';
import type { Problem } from './verify.js';

/** Holds the entries of both indexes of a segment against its batches, as those pass by. */
export class IndexCheck {
  readonly #base: number;
  readonly #offsetPath: string;
  readonly #offsets: Buffer;
  readonly #timePath: string;
  readonly #times: Buffer;
  /** Bytes of the entries that were met. */
  #offsetsAt = 0;
  #timesAt = 0;
  #maxTimestamp: number = NO_TIMESTAMP;

  constructor(base: number, offsetPath: string, offsets: Buffer, timePath: string, times: Buffer) {
    this.#base = base;
    this.#offsetPath = offsetPath;
    this.#offsets = offsets;
    this.#timePath = timePath;
    this.#times = times;
  }

  batch({ position, nextOffset, bytes }: InspectedBatch): void {
    const relativeOffset = nextOffset - 1 - this.#base;
    this.#maxTimestamp = Math.max(this.#maxTimestamp, newestRecordTimeOf(bytes, 0));
    const offsets = this.#offsets;
    if (this.#offsetsAt < offsets.length && offsets.readUInt32BE(this.#offsetsAt + 4) === position) {
      if (offsets.readUInt32BE(this.#offsetsAt) === relativeOffset) this.#offsetsAt += OFFSET_INDEX_ENTRY_BYTES;
    }
    const times = this.#times;
    if (this.#timesAt < times.length && times.readUInt32BE(this.#timesAt + 8) === relativeOffset) {
      const timestamp = Number(times.readBigInt64BE(this.#timesAt));
      if (timestamp === this.#maxTimestamp) this.#timesAt += TIME_INDEX_ENTRY_BYTES;
    }
  }

  /** Entries that no batch answers to; the first of each index. */
  *problems(): Generator<Problem, void, void> {
    const what = 'an entry does not match the log';
    if (this.#offsetsAt < this.#offsets.length) {
      yield { file: this.#offsetPath, position: this.#offsetsAt, offset: this.#base, what };
    }
    if (this.#timesAt < this.#times.length) {
      yield { file: this.#timePath, position: this.#timesAt, offset: this.#base, what };
    }
  }
}
