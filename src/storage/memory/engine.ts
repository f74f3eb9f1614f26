/** A storage engine that keeps everything in memory: for tests, and for brokers that need no tomorrow. */
import { type Clock, systemClock } from '../../core/clock.js';
import { type Epoch, partitionKey, type TopicPartition } from '../../core/types.js';
import { closedError, fencedEpoch } from '../batches.js';
import type { CasResult, LogConfig, MetadataEntry, MetadataStore, PartitionLog, StorageEngine } from '../engine.js';
import { checkCas, MetadataMap } from '../metadata-map.js';
import { MemoryLog, MemoryLogState } from './log.js';

export interface MemoryEngineOptions {
  readonly clock?: Clock;
}

class MemoryMetadataStore implements MetadataStore {
  readonly failure: undefined = undefined;
  readonly #map = new MetadataMap();
  #closed = false;

  close(): void {
    this.#closed = true;
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError('metadata store');
  }

  async get(key: string): Promise<MetadataEntry | undefined> {
    this.#checkOpen();
    return this.#map.get(key);
  }

  async compareAndSet(key: string, value: string | undefined, expectedVersion: number): Promise<CasResult> {
    this.#checkOpen();
    const checked = checkCas(this.#map.get(key), this.#map.lastVersion(key), key, value, expectedVersion);
    if ('refusal' in checked) return checked.refusal;
    this.#map.apply(checked.change);
    return { ok: true, version: checked.change.version };
  }

  async list(prefix: string): Promise<readonly MetadataEntry[]> {
    this.#checkOpen();
    return this.#map.list(prefix);
  }

  watch(prefix: string, listener: (key: string, entry: MetadataEntry | undefined) => void): () => void {
    return this.#map.watch(prefix, listener);
  }
}

class MemoryEngine implements StorageEngine {
  readonly metadata: MemoryMetadataStore = new MemoryMetadataStore();
  readonly startedClean: boolean = true;
  readonly #states = new Map<string, MemoryLogState>();
  readonly #open = new Map<string, MemoryLog>();
  readonly #clock: Clock;
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async open(id: TopicPartition, epoch: Epoch, config: LogConfig): Promise<PartitionLog> {
    if (this.#closed) throw closedError('storage engine');
    const key = partitionKey(id);
    let state = this.#states.get(key);
    if (!state) {
      state = new MemoryLogState(epoch, config, this.#clock);
      this.#states.set(key, state);
    }
    state.config = config;
    if (epoch < state.currentEpoch) throw fencedEpoch(epoch, state.currentEpoch);
    const holder = this.#open.get(key);
    if (holder && !holder.isClosed && holder.epoch === epoch) return holder;
    state.currentEpoch = epoch;
    const log = new MemoryLog(id, epoch, state);
    this.#open.set(key, log);
    return log;
  }

  async remove(id: TopicPartition): Promise<void> {
    if (this.#closed) throw closedError('storage engine');
    const key = partitionKey(id);
    await this.#open.get(key)?.close();
    this.#open.delete(key);
    this.#states.delete(key);
  }

  async removeUnknown(isKnown: (id: TopicPartition) => boolean): Promise<void> {
    for (const { id } of this.#open.values()) {
      const isEmpty = this.#states.get(partitionKey(id))?.endOffset === 0;
      if (isEmpty && !isKnown(id)) await this.remove(id);
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const log of this.#open.values()) await log.close();
    this.metadata.close();
    this.#open.clear();
    this.#states.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Opens an engine in memory. What it stores is gone when it is closed. */
export function openMemoryEngine(options: MemoryEngineOptions = {}): StorageEngine {
  return new MemoryEngine(options.clock ?? systemClock);
}
