/** Choosing a partition for records that do not name one. */
import { LogError } from '../core/errors.js';
import type { Random } from '../core/random.js';
import { murmur2 } from './murmur2.js';

/**
 * Chooses a partition in `[0, partitionCount)` from a record's key bytes (null: no key). Undefined leaves the choice to
 * the sticky partition. The bytes are only valid during the call.
 */
export type Partitioner = (key: Uint8Array | null, partitionCount: number, topic: string) => number | undefined;

/**
 * Kafka's default: a key always goes to the same partition, the one that Java's producer would choose; records without
 * a key fill one partition's batch after the other.
 */
export const keyPartitioner: Partitioner = (key, partitionCount) =>
  key === null ? undefined : (murmur2(key) & 0x7fffffff) % partitionCount;

/**
 * The partition for records without a key: it stays the same until its batch is sealed, then another one is drawn, so
 * that batches fill up even when traffic is thin.
 */
export class StickyPartition {
  readonly #random: Random;
  #current = -1;

  constructor(random: Random) {
    this.#random = random;
  }

  get(partitionCount: number): number {
    if (this.#current < 0 || this.#current >= partitionCount) {
      this.#current = Math.floor(this.#random.next() * partitionCount);
    }
    return this.#current;
  }

  /** Moves on if `partition`, whose batch was sealed, is the current one. */
  onSealed(partition: number, partitionCount: number): void {
    if (partition !== this.#current || partitionCount < 2) return;
    const step = 1 + Math.floor(this.#random.next() * (partitionCount - 1));
    this.#current = (partition + step) % partitionCount;
  }
}

/** @throws LogError UNKNOWN_TOPIC_OR_PARTITION unless `partition` is one of the topic's */
export function checkPartition(partition: number, partitionCount: number, topic: string): void {
  if (Number.isInteger(partition) && partition >= 0 && partition < partitionCount) return;
  throw new LogError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Topic ${topic} has no partition ${partition}; its partitions are 0 to ${partitionCount - 1}.`,
    { metadata: { topic, partition, partition_count: partitionCount } },
  );
}
