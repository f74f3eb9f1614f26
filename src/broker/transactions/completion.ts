/** What a decided transaction needs: its records durable before, its markers and offsets after. */
import type { Clock } from '../../core/clock.js';
import { type LogError, toLogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { forEachLimit } from '../../core/semaphore.js';
import type { Partition } from '../../partition/partition.js';
import type { GroupCoordinatorApi } from '../groups/coordinator-types.js';
import type { Topics } from '../topics.js';
import type { TransactionPartition } from './coordinator-types.js';
import type { TransactionEffect } from './transaction-types.js';
import type { WorkUnderWay } from './work-under-way.js';

/** Partitions or groups of one transaction that are worked on at once. */
const CONCURRENCY = 64;
/** Between two attempts: doubled from one to the next. */
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 10_000;

export interface CompletionOptions {
  readonly topics: Topics;
  readonly groups: Pick<GroupCoordinatorApi, 'endTransaction'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Attempts that are under way. */
  readonly work: WorkUnderWay;
  /** Aborted when the coordinator closes. */
  readonly signal: AbortSignal;
}

type Effect<K extends TransactionEffect['kind']> = Extract<TransactionEffect, { kind: K }>;

export class Completion {
  readonly #options: CompletionOptions;

  constructor(options: CompletionOptions) {
    this.#options = options;
  }

  /** Resolves when everything that the partitions hold is durable. @throws LogError the first that is not */
  async flush(partitions: readonly TransactionPartition[]): Promise<void> {
    await forEachLimit(partitions, CONCURRENCY, async (where) => {
      await this.#find(where)?.flush();
    });
  }

  /** Resolves when all of it is durable; tried again until it is. @throws the signal's reason */
  async run(transactionalId: string, effects: readonly TransactionEffect[]): Promise<void> {
    await Promise.all(
      effects.map(async (effect) => {
        if (effect.kind === 'markers') await this.#writeMarkers(transactionalId, effect);
        if (effect.kind === 'end-offsets') await this.#endOffsets(transactionalId, effect);
      }),
    );
  }

  async #writeMarkers(transactionalId: string, effect: Effect<'markers'>): Promise<void> {
    const { producerId, producerEpoch, commit } = effect;
    await forEachLimit(effect.partitions, CONCURRENCY, (where) =>
      this.#untilDone({ transactionalId, ...where }, async () => {
        const partition = this.#find(where);
        const coordinatorEpoch = partition?.log.epoch ?? 0;
        await partition?.endTransaction({ producerId, producerEpoch, commit, coordinatorEpoch });
      }),
    );
  }

  async #endOffsets(transactionalId: string, effect: Effect<'end-offsets'>): Promise<void> {
    const { producerId, producerEpoch, commit } = effect;
    await forEachLimit(effect.groupIds, CONCURRENCY, (groupId) =>
      this.#untilDone({ transactionalId, group: groupId }, async () => {
        await this.#options.groups.endTransaction({ groupId, producerId, producerEpoch, commit });
      }),
    );
  }

  async #untilDone(what: object, attempt: () => Promise<void>): Promise<void> {
    const { clock, signal, logger, work } = this.#options;
    for (let delayMs = FIRST_RETRY_MS; ; delayMs = Math.min(2 * delayMs, LAST_RETRY_MS)) {
      signal.throwIfAborted();
      const failure = await work.during(() => failureOf(attempt));
      if (failure === undefined) return;
      if (delayMs === FIRST_RETRY_MS) {
        const facts = { ...what, reason: failure.reason, err: failure };
        logger.warn(facts, 'a decided transaction cannot be completed for now; it is tried again');
      }
      await clock.sleep(delayMs, signal);
    }
  }

  /** Undefined: its topic is gone, and nobody reads it any more. @throws LogError why it is out of service */
  #find({ topic, topicId, partition }: TransactionPartition): Partition | undefined {
    try {
      return this.#options.topics.partition(topic, topicId, partition);
    } catch (error) {
      if (toLogError(error).reason === 'UNKNOWN_TOPIC_ID') return undefined;
      throw error;
    }
  }
}

async function failureOf(attempt: () => Promise<void>): Promise<LogError | undefined> {
  try {
    await attempt();
    return undefined;
  } catch (error) {
    return toLogError(error);
  }
}
