/** The last traces of producers: what must stay so that their sequences are known after a restart. */
import { attributesOf, baseOffsetOf, isControl, maxTimestampOf, producerIdOf } from '../../batch/layout.js';

interface LastBatches {
  /** Base offset of the last batch that is no marker; -1 when there was none. */
  data: number;
  /** Base offset of the last batch of any kind. */
  any: number;
}

/**
 * The last batches of each producer that wrote after `activeFromMs`, in the range that was noted. Memory is that of the
 * producers which a partition remembers anyway. A producer that is not seen there has its last batch below the range:
 * every batch of it is then taken for the last.
 */
export class LastBatchesOfProducers {
  readonly #last = new Map<number, LastBatches>();
  readonly #activeFromMs: number;

  constructor(activeFromMs: number) {
    this.#activeFromMs = activeFromMs;
  }

  /** Takes note of a batch; in offset order. */
  note(batch: Buffer): void {
    if (!this.#isActive(batch)) return;
    const producerId = producerIdOf(batch, 0);
    const last = this.#last.get(producerId) ?? { data: -1, any: -1 };
    last.any = baseOffsetOf(batch, 0);
    if (!isControl(attributesOf(batch, 0))) last.data = last.any;
    this.#last.set(producerId, last);
  }

  /** Whether a batch must leave at least its header because its producer's last sequence, or last epoch, is in it. */
  isHeld(batch: Buffer): boolean {
    if (!this.#isActive(batch)) return false;
    const last = this.#last.get(producerIdOf(batch, 0));
    if (last === undefined) return true;
    return baseOffsetOf(batch, 0) >= (isControl(attributesOf(batch, 0)) ? last.any : last.data);
  }

  #isActive(batch: Buffer): boolean {
    return producerIdOf(batch, 0) >= 0 && maxTimestampOf(batch, 0) >= this.#activeFromMs;
  }
}
