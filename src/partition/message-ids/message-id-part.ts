import { sizeInBytesOf } from '../../batch/layout.js';
import type { Clock } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import { Slices } from '../../core/slices.js';
import type { SegmentInfo } from '../../storage/engine.js';
import { SLICE_MS } from '../producers/producer-context.js';
import type { SnapshotPart } from '../producers/snapshot-part.js';
import { forEachMessageId } from './identified-records.js';
import { decodeSection, encodeSection } from './message-id-section.js';
import type { MessageIds } from './message-ids.js';

/** A snapshot is worth it after so many new ids, and as many as are remembered: a start reads few that are over. */
const LEAST_NEW_IDS = 1000;

/**
 * The message ids of a partition in its snapshots. What is found in the log above the snapshot counts as come at the
 * start: the log does not say when it came, and too long is better than too short.
 */
export class MessageIdPart implements SnapshotPart {
  readonly kind = 1;
  readonly #ids: MessageIds;
  readonly #clock: Clock;
  #savedAt = 0;
  /** Whether the newest snapshot has ids. */
  #hasSaved = false;

  constructor(ids: MessageIds, clock: Clock) {
    this.#ids = ids;
    this.#clock = clock;
  }

  get isEmpty(): boolean {
    return this.#ids.count === 0;
  }

  /** What was saved has grown older since. */
  get isOutdated(): boolean {
    return this.#hasSaved;
  }

  get isDue(): boolean {
    return this.#ids.savepoint() - this.#savedAt >= Math.max(LEAST_NEW_IDS, this.#ids.count);
  }

  save(): (slices: Slices) => Promise<Buffer> {
    const nowMs = this.#clock.monotonic();
    const entries = this.#ids.entries(nowMs);
    this.#savedAt = this.#ids.savepoint();
    this.#hasSaved = entries.length > 0;
    return async (slices) => {
      const encoding = encodeSection(entries, nowMs);
      for (;;) {
        const step = encoding.next();
        if (step.done) return step.value;
        if (slices.isOver) await slices.pause();
      }
    };
  }

  async restore(bytes: Buffer | undefined): Promise<void> {
    this.#ids.clear();
    this.#hasSaved = bytes !== undefined;
    if (bytes === undefined) return;
    const slices = new Slices(this.#clock, SLICE_MS);
    for (const entry of decodeSection(bytes, this.#clock.monotonic())) {
      this.#ids.restore(entry);
      const pause = slices.step();
      if (pause !== undefined) await pause;
    }
    this.#savedAt = this.#ids.savepoint();
  }

  needs(segment: SegmentInfo): boolean {
    return segment.hasProducers;
  }

  replay(buf: Buffer, at: number): void {
    const cameMs = this.#clock.monotonic();
    try {
      forEachMessageId(buf.subarray(at, at + sizeInBytesOf(buf, at)), (id, offset) => {
        this.#ids.restore({ id, offset, cameMs });
      });
    } catch (error) {
      // Whoever reads the batch meets what is wrong with it; a partition opens all the same.
      if (!(error instanceof LogError)) throw error;
    }
  }
}
