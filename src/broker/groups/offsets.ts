/** The committed offsets of one group, as they are durable. */
import type { TopicId } from '../../core/types.js';
import type { CommittedOffset, StoredOffset } from './coordinator-types.js';
import type { OffsetPlace } from './records.js';

/** A committed offset that changes; undefined removes it. */
export interface OffsetChange extends OffsetPlace {
  readonly value: StoredOffset | undefined;
}

interface TopicOffsets {
  readonly name: string;
  lastCommitMs: number;
  readonly partitions: Map<number, StoredOffset>;
}

/** Metadata of this length weighs as much as another offset. */
const METADATA_PER_UNIT = 200;

/** What an offset counts for where all of them are bounded; undefined: nothing. */
export function unitsOf(offset: Pick<StoredOffset, 'metadata'> | undefined): number {
  return offset === undefined ? 0 : 1 + Math.floor(offset.metadata.length / METADATA_PER_UNIT);
}

export class CommittedOffsets {
  /** By id: a topic that was created anew begins without any. */
  readonly #topics = new Map<TopicId, TopicOffsets>();
  /** Ids of those that had a name one after the other: whoever begins to read asks for them topic by topic. */
  readonly #idsOf = new Map<string, Set<TopicId>>();
  #size = 0;
  #units = 0;
  #lastCommitMs = Number.NEGATIVE_INFINITY;

  get size(): number {
    return this.#size;
  }

  /** See `unitsOf`. */
  get units(): number {
    return this.#units;
  }

  /** Wall clock of the latest commit there was; -Infinity without one. */
  get lastCommitMs(): number {
    return this.#lastCommitMs;
  }

  set({ topicId, partition }: OffsetPlace, offset: StoredOffset): void {
    let topic = this.#topics.get(topicId);
    if (topic === undefined) {
      topic = { name: offset.topic, lastCommitMs: offset.commitTimeMs, partitions: new Map() };
      this.#topics.set(topicId, topic);
      const ids = this.#idsOf.get(topic.name) ?? new Set();
      this.#idsOf.set(topic.name, ids.add(topicId));
    }
    topic.lastCommitMs = Math.max(topic.lastCommitMs, offset.commitTimeMs);
    this.#lastCommitMs = Math.max(this.#lastCommitMs, offset.commitTimeMs);
    const before = topic.partitions.get(partition);
    if (before === undefined) this.#size++;
    this.#units += unitsOf(offset) - unitsOf(before);
    topic.partitions.set(partition, offset);
  }

  delete({ topicId, partition }: OffsetPlace): void {
    const topic = this.#topics.get(topicId);
    const before = topic?.partitions.get(partition);
    if (topic === undefined || before === undefined) return;
    topic.partitions.delete(partition);
    this.#size--;
    this.#units -= unitsOf(before);
    if (topic.partitions.size === 0) this.#forget(topicId, topic);
  }

  #forget(topicId: TopicId, { name }: TopicOffsets): void {
    this.#topics.delete(topicId);
    const ids = this.#idsOf.get(name);
    ids?.delete(topicId);
    if (ids?.size === 0) this.#idsOf.delete(name);
  }

  get({ topicId, partition }: OffsetPlace): StoredOffset | undefined {
    return this.#topics.get(topicId)?.partitions.get(partition);
  }

  /** The units that come on top when these are set. */
  unitsAdded(changes: readonly OffsetChange[]): number {
    return changes.reduce((sum, change) => sum + Math.max(0, unitsOf(change.value) - unitsOf(this.get(change))), 0);
  }

  hasTopic(topicId: TopicId): boolean {
    return this.#topics.has(topicId);
  }

  /** Of another topic that had the name, the one with the latest commit. */
  earlierTopicId(name: string, topicId: TopicId): TopicId | undefined {
    let latest: { readonly id: TopicId; readonly commitMs: number } | undefined;
    for (const id of this.#idsOf.get(name) ?? []) {
      const commitMs = id === topicId ? undefined : this.#topics.get(id)?.lastCommitMs;
      if (commitMs !== undefined && (latest === undefined || commitMs > latest.commitMs)) latest = { id, commitMs };
    }
    return latest?.id;
  }

  topicIds(): Iterable<TopicId> {
    return this.#topics.keys();
  }

  *ofTopic(topicId: TopicId): Iterable<CommittedOffset & OffsetPlace> {
    const partitions = this.#topics.get(topicId)?.partitions ?? [];
    for (const [partition, offset] of partitions) yield { ...offset, topicId, partition };
  }

  *all(): Iterable<CommittedOffset & OffsetPlace> {
    for (const topicId of this.#topics.keys()) yield* this.ofTopic(topicId);
  }
}
