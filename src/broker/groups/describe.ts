/** What a group has to do with its partitions: what it has committed, who owns them, and how far it is behind. */
import type { Clock } from '../../core/clock.js';
import { Semaphore } from '../../core/semaphore.js';
import { Partition } from '../../partition/partition.js';
import type { Topics } from '../topics.js';
import type { CommittedOffset, GroupSnapshot } from './coordinator-types.js';
import { waitingMs } from './lag.js';

/** Logs read at once, for all who ask: a compressed batch may take 64 MiB while it is looked at. */
const MAX_READS = 4;

/** Where the log of a partition stands, and how far the group is behind. */
export interface PartitionLag {
  readonly logStartOffset: number;
  readonly highWatermark: number;
  /** Offsets from the committed one, or the log start offset without one, to the high watermark. */
  readonly lag: number;
  /** Age of the first record that is not covered, in ms; 0 when there is none. Undefined: not known. */
  readonly lagMs: number | undefined;
}

export interface GroupPartition {
  readonly topic: string;
  readonly topicId: string;
  readonly partition: number;
  readonly committed: CommittedOffset | undefined;
  /** Undefined: nobody owns it. */
  readonly ownerId: string | undefined;
  /** Undefined: the partition is gone or out of service. */
  readonly log: PartitionLag | undefined;
}

type Place = Pick<GroupPartition, 'topic' | 'topicId' | 'partition'>;

/** Where a group stands, without the logs. */
export type GroupPlace = Omit<GroupPartition, 'log'>;

/** All partitions that the group has committed offsets of, or that a member holds, by topic and partition. */
export function placesOf({ offsets, members }: GroupSnapshot): GroupPlace[] {
  const places = new Map<string, GroupPlace>();
  for (const committed of offsets) {
    const { topic, topicId, partition } = committed;
    places.set(keyOf(committed), { topic, topicId, partition, committed, ownerId: undefined });
  }
  for (const { memberId, partitions } of members) {
    for (const held of partitions) {
      const { topic, topicId, partition } = held;
      const committed = places.get(keyOf(held))?.committed;
      places.set(keyOf(held), { topic, topicId, partition, committed, ownerId: memberId });
    }
  }
  return [...places.values()].sort(inOrder);
}

function keyOf({ topicId, partition }: Place): string {
  return `${topicId}-${partition}`;
}

function inOrder(a: Place, b: Place): number {
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1;
  if (a.topicId !== b.topicId) return a.topicId < b.topicId ? -1 : 1;
  return a.partition - b.partition;
}

/** Looks at the logs for groups that are described. */
export class GroupDescriber {
  readonly #topics: Topics;
  readonly #clock: Clock;
  readonly #reads = new Semaphore(MAX_READS);

  constructor(topics: Topics, clock: Clock) {
    this.#topics = topics;
    this.#clock = clock;
  }

  /** By topic and partition. */
  async partitionsOf(snapshot: GroupSnapshot): Promise<GroupPartition[]> {
    const places = placesOf(snapshot);
    return await Promise.all(places.map(async (place) => ({ ...place, log: await this.#lagAt(place) })));
  }

  async #lagAt(place: GroupPlace): Promise<PartitionLag | undefined> {
    const partition = this.#partitionAt(place);
    if (partition === undefined) return undefined;
    const { logStartOffset, highWatermark } = partition;
    const from = place.committed?.offset ?? logStartOffset;
    // After a truncation the committed offset may lie above the end.
    const lag = Math.max(0, highWatermark - from);
    const lagMs = lag === 0 ? 0 : await this.#reads.run(() => waitingMs(partition, from, this.#clock.now()));
    return { logStartOffset, highWatermark, lag, lagMs };
  }

  /** Undefined: the topic has another id now, is gone, or its partition is out of service. */
  #partitionAt({ topic, topicId, partition }: Place): Partition | undefined {
    if (this.#topics.idOf(topic) !== topicId) return undefined;
    const slot = this.#topics.get(topic).slots[partition];
    return slot instanceof Partition ? slot : undefined;
  }
}
