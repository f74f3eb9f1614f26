/** Removes groups and committed offsets that have outlived their use, at an interval. */
import type { Clock, Timer } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import type { Topics } from '../topics.js';
import { type Expired, expired } from './expiry.js';
import type { GroupEntry } from './group-entry.js';
import type { GroupShard } from './shard.js';

const SLICE_MS = 5;

export interface GroupRetentionOptions {
  readonly topics: Topics;
  readonly shards: () => readonly GroupShard[];
  readonly intervalMs: number;
  readonly retentionMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class GroupRetention {
  readonly #options: GroupRetentionOptions;
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: GroupRetentionOptions) {
    this.#options = options;
    this.#plan();
  }

  #plan(): void {
    if (this.#closed) return;
    this.#timer = this.#options.clock.setTimer(this.#options.intervalMs, () => {
      this.#running = this.#run();
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    try {
      await this.#pass();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'groups that have expired could not be removed; it is tried again');
    }
    this.#plan();
  }

  /** @throws LogError the first write that failed */
  async #pass(): Promise<void> {
    const { topics, clock, retentionMs, shards } = this.#options;
    const topicIds = new Set(topics.list().map(({ record }) => record.id));
    const rules = { nowMs: clock.now(), retentionMs, exists: topicIds.has.bind(topicIds) };
    const slices = new Slices(clock, SLICE_MS);
    for (const shard of shards()) {
      for (const entry of [...shard.entries]) {
        if (this.#closed) return;
        // What is changing right now, or when a transaction ends, is in use; what was removed meanwhile is not to be removed twice.
        const isIdle =
          entry.queuedCount === 0 && entry.transactions === undefined && shard.find(entry.groupId) === entry;
        if (isIdle) await this.#remove(shard, entry, expired(entry.state, entry.offsets, rules));
        await slices.step();
      }
    }
  }

  async #remove(shard: GroupShard, entry: GroupEntry, what: Expired): Promise<void> {
    const { logger } = this.#options;
    const { groupId, offsets } = entry;
    if (what === 'group') {
      logger.info({ group: groupId, offsets: offsets.size }, 'a group without members has expired');
      await shard.remove(entry);
    } else if (what.length > 0) {
      logger.info({ group: groupId, offsets: what.length }, 'committed offsets of topics that are gone have expired');
      const changes = what.map((place) => ({ ...place, value: undefined }));
      await shard.commit(entry, changes);
    }
  }

  /** Begins nothing more. */
  stop(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Resolves when nothing is under way. */
  async close(): Promise<void> {
    this.stop();
    await this.#running;
  }
}
