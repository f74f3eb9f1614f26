/** Reading what one partition of the offsets topic keeps. */
import type { TopicId } from '../../core/types.js';
import { loadState, type StateLoadOptions } from '../state-topic/state-loader.js';
import type { StoredOffset } from './coordinator-types.js';
import type { BegunTopic, StoredGroup, StoredMember } from './group-types.js';
import type { PendingOffsets } from './pending-offsets.js';
import { decodeRecord, type GroupRecord } from './records.js';

/** What the log has of one group. */
export interface LoadedGroup {
  group: StoredGroup | undefined;
  topics: readonly BegunTopic[];
  readonly members: Map<string, StoredMember>;
  readonly offsets: Map<TopicId, Map<number, StoredOffset>>;
  /** By producer id. */
  readonly pending: Map<number, PendingOffsets>;
}

/**
 * Everything below the high watermark, by group id; of a group there is something left, be it an offset only.
 * @throws LogError as `loadState`
 */
export async function loadShard(options: StateLoadOptions): Promise<Map<string, LoadedGroup>> {
  const load = new ShardLoad();
  await loadState(options, { decode: decodeRecord, apply: (record: GroupRecord) => load.apply(record) });
  return load.groups();
}

class ShardLoad {
  readonly #groups = new Map<string, LoadedGroup>();
  /** One copy of each topic's name and id, however many offsets name it. */
  readonly #names = new Map<string, string>();

  apply(record: GroupRecord): void {
    const group = this.#group(record.groupId);
    if (record.kind === 'group') group.group = record.value;
    else if (record.kind === 'topics') group.topics = record.value ?? [];
    else if (record.kind === 'member') setOrDelete(group.members, record.memberId, record.value);
    else if (record.kind === 'pending') setOrDelete(group.pending, record.producerId, record.value);
    else this.#applyOffset(group, record);
  }

  #applyOffset({ offsets }: LoadedGroup, { topicId, partition, value }: GroupRecord & { kind: 'offset' }): void {
    let partitions = offsets.get(topicId);
    if (partitions === undefined) {
      partitions = new Map();
      offsets.set(topicId, partitions);
    }
    setOrDelete(partitions, partition, value && { ...value, topic: this.#name(value.topic) });
  }

  #name(name: string): string {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    this.#names.set(name, name);
    return name;
  }

  #group(groupId: string): LoadedGroup {
    let group = this.#groups.get(groupId);
    if (group === undefined) {
      group = { group: undefined, topics: [], members: new Map(), offsets: new Map(), pending: new Map() };
      this.#groups.set(groupId, group);
    }
    return group;
  }

  groups(): Map<string, LoadedGroup> {
    for (const [groupId, { group, members, offsets, pending }] of this.#groups) {
      const hasOffsets = pending.size > 0 || [...offsets.values()].some(({ size }) => size > 0);
      if (group === undefined && members.size === 0 && !hasOffsets) this.#groups.delete(groupId);
    }
    return this.#groups;
  }
}

function setOrDelete<K, V>(map: Map<K, V>, key: K, value: V | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
