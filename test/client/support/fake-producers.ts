/** What a partition of the fake broker remembers of its producers, by Kafka's rules. */
import {
  baseOffsetOf,
  baseSequenceOf,
  producerEpochOf,
  producerIdOf,
  recordCountOf,
} from '../../../src/batch/layout.js';
import { LogError } from '../../../src/core/errors.js';

/** So many batches of a producer are remembered. */
const REMEMBERED = 5;
const SEQUENCES = 2 ** 31;

interface RememberedBatch {
  readonly first: number;
  readonly next: number;
  readonly baseOffset: number;
}

interface ProducerState {
  readonly epoch: number;
  /** Oldest first; not empty. */
  readonly batches: RememberedBatch[];
}

export class FakeProducers {
  readonly #states = new Map<number, ProducerState>();
  /** Repeated batches found so far. */
  duplicates = 0;

  epochOf(producerId: number): number | undefined {
    return this.#states.get(producerId)?.epoch;
  }

  get producerIds(): number[] {
    return [...this.#states.keys()];
  }

  /**
   * @returns the base offset of the batch that this one repeats
   * @throws LogError OUT_OF_ORDER_SEQUENCE_NUMBER, PRODUCER_FENCED
   */
  check(batch: Buffer): number | undefined {
    const state = this.#states.get(producerIdOf(batch, 0));
    const epoch = producerEpochOf(batch, 0);
    const { first, next } = sequencesOf(batch);
    if (state === undefined) return undefined;
    if (epoch < state.epoch) throw new LogError('PRODUCER_FENCED', `Epoch ${epoch} is below ${state.epoch}.`);
    if (epoch > state.epoch) {
      if (first === 0) return undefined;
      throw new LogError('OUT_OF_ORDER_SEQUENCE_NUMBER', `A new epoch begins with sequence 0, not ${first}.`);
    }
    const repeated = state.batches.find((known) => known.first === first && known.next === next);
    if (repeated !== undefined) {
      this.duplicates++;
      return repeated.baseOffset;
    }
    const expected = state.batches.at(-1)?.next;
    if (expected === first) return undefined;
    throw new LogError('OUT_OF_ORDER_SEQUENCE_NUMBER', `Sequence ${expected} is next, not ${first}.`);
  }

  onAppended(batch: Buffer): void {
    const producerId = producerIdOf(batch, 0);
    if (producerId < 0) return;
    const epoch = producerEpochOf(batch, 0);
    const known = this.#states.get(producerId);
    const batches = known?.epoch === epoch ? known.batches : [];
    batches.push({ ...sequencesOf(batch), baseOffset: baseOffsetOf(batch, 0) });
    if (batches.length > REMEMBERED) batches.shift();
    this.#states.set(producerId, { epoch, batches });
  }

  rebuild(batches: readonly Buffer[]): void {
    this.#states.clear();
    for (const batch of batches) this.onAppended(batch);
  }
}

function sequencesOf(batch: Buffer): { first: number; next: number } {
  const first = baseSequenceOf(batch, 0);
  return { first, next: (first + recordCountOf(batch, 0)) % SEQUENCES };
}
