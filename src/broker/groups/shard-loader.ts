/** Reading what one partition of the offsets topic keeps. */
import { nextOffsetOf, sizeInBytesOf } from '../../batch/layout.js';
import { openRecords } from '../../batch/records.js';
import type { Clock } from '../../core/clock.js';
import { errorMessage, LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import type { TopicId } from '../../core/types.js';
import type { Partition } from '../../partition/partition.js';
import type { StoredOffset } from './coordinator-types.js';
import type { BegunTopic, StoredGroup, StoredMember } from './group-types.js';
import { OFFSETS_TOPIC } from './offsets-topic.js';
import type { PendingOffsets } from './pending-offsets.js';
import { decodeRecord, type GroupRecord, UNKNOWN_RECORD } from './records.js';

/** Others get a turn after this. */
const SLICE_MS = 5;
const READ_BYTES = 1024 * 1024;

/** What the log has of one group. */
export interface LoadedGroup {
  group: StoredGroup | undefined;
  topics: readonly BegunTopic[];
  readonly members: Map<string, StoredMember>;
  readonly offsets: Map<TopicId, Map<number, StoredOffset>>;
  /** By producer id. */
  readonly pending: Map<number, PendingOffsets>;
}

export interface ShardLoadOptions {
  readonly partition: Partition;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/**
 * Everything below the high watermark, by group id; of a group there is something left, be it an offset only.
 * @throws LogError CORRUPT_LOG naming partition and offset; why the partition cannot be read; the signal's reason
 */
export async function loadShard(options: ShardLoadOptions): Promise<Map<string, LoadedGroup>> {
  const { partition, clock, signal } = options;
  const load = new ShardLoad(options);
  const slices = new Slices(clock, SLICE_MS);
  let offset = partition.logStartOffset;
  while (offset < partition.highWatermark) {
    const { chunks, nextOffset } = await partition.read(offset, READ_BYTES);
    for (const chunk of chunks) await load.addAll(chunk, offset, slices);
    signal.throwIfAborted();
    if (nextOffset === offset) break;
    offset = nextOffset;
  }
  return load.groups();
}

class ShardLoad {
  readonly #options: ShardLoadOptions;
  readonly #groups = new Map<string, LoadedGroup>();
  /** One copy of each topic's name and id, however many offsets name it. */
  readonly #names = new Map<string, string>();
  #warned = false;

  constructor(options: ShardLoadOptions) {
    this.#options = options;
  }

  /** @param chunk whole batches; records below `from` were read before */
  async addAll(chunk: Buffer, from: number, slices: Slices): Promise<void> {
    for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
      const batch = chunk.subarray(at, at + sizeInBytesOf(chunk, at));
      if (nextOffsetOf(batch, 0) <= from) continue;
      const cursor = await openRecords(batch);
      while (cursor.next()) {
        if (cursor.offset >= from) this.#add(cursor.offset, cursor.key, cursor.value);
        const pause = slices.step();
        if (pause !== undefined) await pause;
      }
    }
  }

  #add(offset: number, key: Buffer | null, value: Buffer | null): void {
    const record = this.#decode(offset, key, value);
    if (record === UNKNOWN_RECORD) this.#warn(offset);
    else this.#apply(record);
  }

  #decode(offset: number, key: Buffer | null, value: Buffer | null): GroupRecord | typeof UNKNOWN_RECORD {
    const { partition } = this.#options;
    try {
      if (key === null) throw new Error('it has no key');
      return decodeRecord(key, value);
    } catch (error) {
      throw new LogError(
        'CORRUPT_LOG',
        `The record at offset ${offset} of ${OFFSETS_TOPIC}-${partition.index} is none that Tidelog has written: ` +
          `${errorMessage(error)}.`,
        { metadata: { topic: OFFSETS_TOPIC, partition: partition.index, offset }, cause: error },
      );
    }
  }

  #warn(offset: number): void {
    if (this.#warned) return;
    this.#warned = true;
    const { logger, partition } = this.#options;
    const at = { topic: OFFSETS_TOPIC, partition: partition.index, offset };
    logger.warn(at, 'records of a newer version of Tidelog are left alone; this is the first');
  }

  #apply(record: GroupRecord): void {
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
