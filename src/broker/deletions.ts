/** The part of a topic's deletion that nobody waits for: closing its logs and removing its files. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../core/clock.js';
import type { Logger } from '../core/logger.js';
import { forEachLimit } from '../core/semaphore.js';
import type { Partition } from '../partition/partition.js';
import type { StorageEngine } from '../storage/engine.js';
import type { DeletedTopic, TopicCatalog } from './topic-catalog.js';

/** Partitions of one topic that are closed or removed at once. */
const CONCURRENCY = 16;
/** Partitions closed before others get their turn on the event loop. */
const CLOSED_IN_A_ROW = 128;
/** Deleted topics whose logs may still be open, at most; further deletions wait for room before they begin. */
const MAX_WAITING = 64;
/** What has failed is tried again after this long, then after twice that, ... */
const FIRST_RETRY_MS = 10_000;
/** ... but no later than this. */
const LAST_RETRY_MS = 3_600_000;

export interface DeletionsOptions {
  readonly engine: StorageEngine;
  readonly catalog: TopicCatalog;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface Deletion {
  readonly topic: DeletedTopic;
  /** Out of service, perhaps not closed. Empty for what an earlier run of the broker has left. */
  readonly partitions: readonly Partition[];
  /** Whether the name is free already. */
  readonly nameFree: boolean;
}

interface QueuedDeletion extends Deletion {
  /** That have failed. */
  readonly attempts: number;
}

/**
 * One topic after the other, so that deleting much leaves the disk to others. What fails is tried again later. What is
 * not done when the broker stops stays in the catalog, and the next start goes on with it.
 */
export class Deletions {
  readonly #options: DeletionsOptions;
  readonly #queue: QueuedDeletion[] = [];
  /** The work under way. Never rejects. */
  #work: Promise<void> | undefined;
  readonly #waitingForRoom: (() => void)[] = [];
  /** Of deletions that have failed and wait for their next attempt. */
  readonly #timers = new Set<Timer>();
  #stopping = false;

  constructor(options: DeletionsOptions) {
    this.#options = options;
  }

  /** Resolves when one more deletion may be accepted. The number that waits is bounded by its callers. */
  async room(): Promise<void> {
    while (this.#queue.length >= MAX_WAITING && !this.#stopping) {
      await new Promise<void>((resolve) => this.#waitingForRoom.push(resolve));
    }
  }

  /** Takes over a topic that the catalog has as deleted and whose partitions are out of service. */
  add(deletion: Deletion): void {
    this.#enqueue({ ...deletion, attempts: 0 });
  }

  #enqueue(deletion: QueuedDeletion): void {
    this.#queue.push(deletion);
    this.#work ??= this.#run();
  }

  /** Closes what is still open, removes no more files and resolves when nothing is under way. */
  async close(): Promise<void> {
    this.#stopping = true;
    for (const timer of this.#timers) timer.cancel();
    for (const resume of this.#waitingForRoom.splice(0)) resume();
    await this.#work;
  }

  async #run(): Promise<void> {
    for (;;) {
      const next = this.#queue[0];
      if (next === undefined) {
        // Here and not after this has resolved: what is added in between must find the work ended.
        this.#work = undefined;
        return;
      }
      await this.#finish(next);
      this.#queue.shift();
      this.#waitingForRoom.shift()?.();
    }
  }

  async #finish(deletion: QueuedDeletion): Promise<void> {
    const { topic, partitions, nameFree } = deletion;
    const { logger, catalog } = this.#options;
    const fields = { topic: topic.name, topicId: topic.id };
    await this.#closeAll(partitions);
    try {
      // Until the name is free nothing may be forgotten, or the next start would find an empty topic.
      if (!nameFree && !this.#stopping) await catalog.delete(topic);
      await this.#removeAll(topic);
      if (this.#stopping) return;
      await catalog.forget(topic);
      logger.debug(fields, 'the files of a deleted topic are gone');
    } catch (error) {
      if (deletion.attempts === 0) {
        logger.warn({ ...fields, err: error }, 'the files of a deleted topic are still there; that is tried again');
      }
      this.#tryLater({ topic, partitions: [], nameFree, attempts: deletion.attempts + 1 });
    }
  }

  #tryLater(deletion: QueuedDeletion): void {
    if (this.#stopping) return;
    const delayMs = Math.min(FIRST_RETRY_MS * 2 ** (deletion.attempts - 1), LAST_RETRY_MS);
    const timer = this.#options.clock.setTimer(delayMs, () => {
      this.#timers.delete(timer);
      this.#enqueue(deletion);
    });
    this.#timers.add(timer);
  }

  /** Closing an idle partition does not wait for the disk: without a break, thousands of them would stall the loop. */
  async #closeAll(partitions: readonly Partition[]): Promise<void> {
    for (let from = 0; from < partitions.length; from += CLOSED_IN_A_ROW) {
      const some = partitions.slice(from, from + CLOSED_IN_A_ROW);
      await forEachLimit(some, CONCURRENCY, (partition) => this.#close(partition));
      await nextTurn();
    }
  }

  async #close(partition: Partition): Promise<void> {
    try {
      await partition.close();
    } catch (error) {
      // Its bytes are doomed anyway.
      const fields = { topic: partition.topic, partition: partition.index, err: error };
      this.#options.logger.debug(fields, 'a partition of a deleted topic was not closed in order');
    }
  }

  async #removeAll({ id, partitionCount }: DeletedTopic): Promise<void> {
    const indexes = Array.from({ length: partitionCount }, (_, index) => index);
    await forEachLimit(indexes, CONCURRENCY, async (partition) => {
      if (!this.#stopping) await this.#options.engine.remove({ topicId: id, partition });
    });
  }
}
