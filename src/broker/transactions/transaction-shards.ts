/** All partitions of the topic that keeps transactional ids: which one keeps which, and the topic behind them. */
import type { Clock } from '../../core/clock.js';
import type { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { Partition } from '../../partition/partition.js';
import { placementOf } from '../state-topic/placement.js';
import type { Topics } from '../topics.js';
import { TransactionShard } from './transaction-shard.js';
import { TRANSACTION_TOPIC, TRANSACTION_TOPIC_CONFIG } from './transaction-topic.js';
import type { StoredTransaction } from './transaction-types.js';

export interface TransactionShardsOptions {
  readonly topics: Topics;
  /** Partitions of the topic if it is created. */
  readonly partitionCount: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** What the log keeps of one transactional id. */
export interface LoadedTransaction {
  readonly shard: TransactionShard;
  readonly transactionalId: string;
  readonly stored: StoredTransaction;
}

/** Without the topic there are no transactional ids; it is created when the first one comes up. */
export class TransactionShards {
  readonly #options: TransactionShardsOptions;
  #shards: readonly TransactionShard[] = [];
  #creating: Promise<void> | undefined;

  constructor(options: TransactionShardsOptions) {
    this.#options = options;
  }

  /** Reads everything there is, one partition after the other, so that there is one reader of the disk. Never rejects. */
  async load(): Promise<readonly LoadedTransaction[]> {
    const topic = this.#options.topics.find(TRANSACTION_TOPIC);
    if (topic === undefined) return [];
    const shards = this.#make(topic.record.partitionCount);
    const loaded: LoadedTransaction[] = [];
    for (const shard of shards) {
      for (const [transactionalId, stored] of await shard.load()) loaded.push({ shard, transactionalId, stored });
    }
    this.#shards = shards;
    return loaded;
  }

  #make(partitionCount: number): readonly TransactionShard[] {
    const { topics } = this.#options;
    return Array.from({ length: partitionCount }, (_, index) => {
      const partition = (): Partition => topics.partition(TRANSACTION_TOPIC, '', index);
      return new TransactionShard({ ...this.#options, index, partition });
    });
  }

  /** Why some transactional ids are not known, if so. */
  get failure(): LogError | undefined {
    return this.#shards.find(({ failure }) => failure !== undefined)?.failure;
  }

  /** Undefined: there are no transactional ids at all. */
  find(transactionalId: string): TransactionShard | undefined {
    if (this.#shards.length === 0) return undefined;
    return this.#shards[placementOf(transactionalId, this.#shards.length)];
  }

  /** @throws LogError why the topic cannot be created */
  async findOrCreate(transactionalId: string): Promise<TransactionShard> {
    const found = this.find(transactionalId);
    if (found !== undefined) return found;
    this.#creating ??= this.#create().finally(() => {
      this.#creating = undefined;
    });
    await this.#creating;
    return this.find(transactionalId)!;
  }

  async #create(): Promise<void> {
    const { topics, partitionCount, logger } = this.#options;
    const { record } = await topics.createInternal(TRANSACTION_TOPIC, partitionCount, TRANSACTION_TOPIC_CONFIG);
    const at = { topic: TRANSACTION_TOPIC, partitions: record.partitionCount };
    logger.info(at, 'the topic that keeps transactions was created');
    const shards = this.#make(record.partitionCount);
    for (const shard of shards) await shard.load();
    this.#shards = shards;
  }

  /** Resolves when nothing is under way. */
  async close(): Promise<void> {
    await this.#creating?.catch((error: unknown) =>
      this.#options.logger.warn({ err: error }, 'no topic for transactions'),
    );
    await Promise.all(this.#shards.map((shard) => shard.close()));
  }
}
