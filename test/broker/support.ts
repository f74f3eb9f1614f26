/** Topics over an engine, without a network. */
import { TopicCatalog } from '../../src/broker/topic-catalog.js';
import type { TopicOverrides } from '../../src/broker/topic-config.js';
import { type TopicLimits, Topics, type TopicsOptions } from '../../src/broker/topics.js';
import { systemClock } from '../../src/core/clock.js';
import { silentLogger } from '../../src/core/logger.js';
import { systemRandom } from '../../src/core/random.js';
import { toEpoch } from '../../src/core/types.js';
import type { ProducerStateConfig } from '../../src/partition/producers/producer-config.js';
import type { CasResult, MetadataStore, StorageEngine } from '../../src/storage/engine.js';

export const LIMITS: TopicLimits = { maxPartitionsPerTopic: 100, maxPartitions: 200 };

export const PRODUCERS: ProducerStateConfig = { expirationMs: 86_400_000, maxProducers: 1000, maxMessageIds: 1000 };

export async function openTopics(engine: StorageEngine, options: Partial<TopicsOptions> = {}): Promise<Topics> {
  const catalog = new TopicCatalog(engine.metadata, systemRandom);
  const defaults: TopicOverrides = {};
  const given = {
    engine,
    catalog,
    epoch: toEpoch(1),
    clock: systemClock,
    logger: silentLogger,
    limits: LIMITS,
    producers: PRODUCERS,
  };
  const topics = new Topics({ ...given, defaults, ...options });
  await topics.load();
  return topics;
}

/** A metadata store that asks before each change; what `before` throws is what the change fails with. */
export class WatchedMetadata implements MetadataStore {
  readonly #store: MetadataStore;
  before: (key: string, value: string | undefined) => void | Promise<void> = () => {};

  constructor(store: MetadataStore) {
    this.#store = store;
  }

  get failure(): Error | undefined {
    return this.#store.failure;
  }

  get: MetadataStore['get'] = (key) => this.#store.get(key);
  list: MetadataStore['list'] = (prefix) => this.#store.list(prefix);
  watch: MetadataStore['watch'] = (prefix, listener) => this.#store.watch(prefix, listener);

  async compareAndSet(key: string, value: string | undefined, expectedVersion: number): Promise<CasResult> {
    await this.before(key, value);
    return await this.#store.compareAndSet(key, value, expectedVersion);
  }
}

/** The engine with some of it replaced. */
export function withParts(engine: StorageEngine, parts: Partial<StorageEngine>): StorageEngine {
  return {
    metadata: engine.metadata,
    open: (id, epoch, config) => engine.open(id, epoch, config),
    remove: (id) => engine.remove(id),
    removeUnknown: (isKnown) => engine.removeUnknown(isKnown),
    close: () => engine.close(),
    [Symbol.asyncDispose]: () => engine.close(),
    ...parts,
  };
}
