/** All shards of groups: where each group is, and the topic behind them. */
import type { Partition } from '../../partition/partition.js';
import { STATE_TOPIC_CONFIG } from '../state-topic/config.js';
import type { Topics } from '../topics.js';
import type { GroupEntry } from './group-entry.js';
import { coordinatorDraining, groupNotFound, tooManyGroups } from './group-errors.js';
import { OFFSETS_TOPIC, offsetsPartitionOf } from './offsets-topic.js';
import { GroupShard, type ShardOptions } from './shard.js';
import type { Totals } from './shard-counts.js';

export interface GroupShardsOptions extends Omit<ShardOptions, 'index' | 'partition' | 'totals'> {
  readonly topics: Topics;
  /** Partitions of the topic if it is created. */
  readonly partitionCount: number;
  readonly maxGroups: number;
}

/** A group and the shard that it is in. */
export interface GroupPlace {
  readonly shard: GroupShard;
  readonly entry: GroupEntry;
}

/** Without the topic there are no groups; it is created when the first one comes up. */
export class GroupShards {
  readonly totals: Totals = { groups: 0, offsets: 0, coming: 0 };
  readonly #options: GroupShardsOptions;
  #shards: readonly GroupShard[] = [];
  #creating: Promise<void> | undefined;
  #loading: Promise<void> = Promise.resolve();

  constructor(options: GroupShardsOptions) {
    this.#options = options;
    const topic = options.topics.find(OFFSETS_TOPIC);
    if (topic === undefined) return;
    this.#shards = this.#make(topic.record.partitionCount);
    this.#loading = this.#load(this.#shards);
  }

  #make(partitionCount: number): readonly GroupShard[] {
    const { topics } = this.#options;
    return Array.from({ length: partitionCount }, (_, index) => {
      const partition = (): Partition => topics.partition(OFFSETS_TOPIC, '', index);
      return new GroupShard({ ...this.#options, index, partition, totals: this.totals });
    });
  }

  /** One after the other, so that there is one reader of the disk. */
  async #load(shards: readonly GroupShard[]): Promise<void> {
    for (const shard of shards) if (!this.#options.signal.aborted) await shard.load();
  }

  get memberCount(): number {
    return this.#shards.reduce((count, { counts }) => count + counts.members, 0);
  }

  /** See `ShardCounts.places`. */
  get placeCount(): number {
    return this.#shards.reduce((count, { counts }) => count + counts.places, 0);
  }

  /** The patterns that members subscribe to; undefined while not all of them are known. */
  livePatterns(): ReadonlySet<string> | undefined {
    if (this.#shards.some(({ isLoading }) => isLoading)) return undefined;
    return new Set(this.#shards.flatMap((shard) => [...shard.patterns()]));
  }

  /** Every shard, whatever its state. */
  get all(): readonly GroupShard[] {
    return this.#shards;
  }

  /**
   * The shard of the group; undefined: there are no groups at all.
   * @throws LogError COORDINATOR_LOAD_IN_PROGRESS, or why the shard cannot be read
   */
  find(groupId: string): GroupShard | undefined {
    if (this.#shards.length === 0) return undefined;
    const shard = this.#shards[offsetsPartitionOf(groupId, this.#shards.length)]!;
    shard.check(groupId);
    return shard;
  }

  /** @throws LogError GROUP_ID_NOT_FOUND, BROKER_DRAINING, COORDINATOR_LOAD_IN_PROGRESS, or why it cannot be read */
  existing(groupId: string): GroupPlace {
    const shard = this.findToChange(groupId);
    const entry = shard?.find(groupId);
    if (shard === undefined || entry === undefined) throw groupNotFound(groupId);
    return { shard, entry };
  }

  /**
   * Of a group that need not be there. Without an `await` where there is nothing to wait for: changes are carried out in
   * the order in which they come in.
   * @throws LogError as `existing`, but for GROUP_ID_NOT_FOUND
   */
  findToChange(groupId: string): GroupShard | undefined {
    this.#refuseWhenDraining();
    return this.find(groupId);
  }

  /**
   * The group that is there, or one that is from its first change on: that must follow in the same turn.
   * @throws LogError as `findToChange`, should the shard have gone out of service since it was found; RESOURCE_LIMIT
   */
  entryToChange(shard: GroupShard, groupId: string): GroupEntry {
    this.#refuseWhenDraining();
    shard.check(groupId);
    const { maxGroups } = this.#options;
    if (shard.find(groupId) === undefined && this.totals.groups >= maxGroups) throw tooManyGroups(maxGroups);
    return shard.findOrMake(groupId);
  }

  #refuseWhenDraining(): void {
    if (this.#options.signal.aborted) throw coordinatorDraining();
  }

  /**
   * The group, if there is one, after every change that was on its way: what could not be written has not happened.
   * @throws LogError COORDINATOR_LOAD_IN_PROGRESS, or why the group cannot be read, or no longer
   */
  async settled(groupId: string): Promise<GroupEntry | undefined> {
    await this.find(groupId)
      ?.settled()
      .catch(() => undefined);
    return this.find(groupId)?.find(groupId);
  }

  /**
   * Creates the topic, unless that is done meanwhile.
   * @throws LogError as `find`, or why the topic cannot be created
   */
  async create(groupId: string): Promise<GroupShard> {
    this.#creating ??= this.#create().finally(() => {
      this.#creating = undefined;
    });
    await this.#creating;
    return this.find(groupId)!;
  }

  async #create(): Promise<void> {
    const { topics, partitionCount, logger } = this.#options;
    const { record } = await topics.createInternal(OFFSETS_TOPIC, partitionCount, STATE_TOPIC_CONFIG);
    logger.info({ topic: OFFSETS_TOPIC, partitions: record.partitionCount }, 'the topic that keeps groups was created');
    const shards = this.#make(record.partitionCount);
    await this.#load(shards);
    this.#shards = shards;
  }

  /** @throws LogError COORDINATOR_LOAD_IN_PROGRESS, or why some shard cannot be read */
  checkAll(): void {
    for (const shard of this.#shards) shard.check(undefined);
  }

  drain(): void {
    for (const shard of this.#shards) shard.drain();
  }

  /** Resolves when nothing is under way. */
  async close(): Promise<void> {
    await this.#creating?.catch((error: unknown) => this.#options.logger.warn({ err: error }, 'no topic for groups'));
    await this.#loading;
    await Promise.all(this.#shards.map((shard) => shard.close()));
  }
}
