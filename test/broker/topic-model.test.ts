/** Random histories of topics, with restarts, against a plain map of what there should be. */

import { expect, test } from 'vitest';
import type { Topics } from '../../src/broker/topics.js';
import { LogError, type Reason } from '../../src/core/errors.js';
import { toEpoch } from '../../src/core/types.js';
import type { StorageEngine } from '../../src/storage/engine.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { batchOf } from '../partition/support.js';
import { inForm, Programme } from '../support/programme.js';
import { fc } from '../support/properties.js';
import { openTopics, withParts } from './support.js';

const NAMES = ['a', 'b'];
const LIMITS = { maxPartitionsPerTopic: 4, maxPartitions: 6 };

interface ModelTopic {
  readonly id: string;
  flushMs: string | undefined;
  /** Records in each partition. */
  readonly counts: number[];
}

type Step =
  | { readonly kind: 'create'; readonly name: string; readonly partitions: number }
  | { readonly kind: 'grow'; readonly name: string; readonly partitions: number }
  | { readonly kind: 'delete'; readonly name: string }
  | { readonly kind: 'configure'; readonly name: string; readonly flushMs: string | undefined }
  | { readonly kind: 'append'; readonly name: string; readonly partition: number }
  | { readonly kind: 'restart' };

const name = fc.constantFrom(...NAMES);
const partitions = fc.integer({ min: 1, max: 5 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('create' as const), name, partitions }),
  fc.record({ kind: fc.constant('grow' as const), name, partitions }),
  fc.record({ kind: fc.constant('delete' as const), name }),
  fc.record({
    kind: fc.constant('configure' as const),
    name,
    flushMs: fc.option(fc.constantFrom('1', '2'), { nil: undefined }),
  }),
  fc.record({ kind: fc.constant('append' as const), name, partition: fc.integer({ min: 0, max: 3 }) }),
  fc.record({ kind: fc.constant('restart' as const) }),
);

async function reasonOf(work: () => Promise<unknown>): Promise<Reason | 'done'> {
  try {
    await work();
    return 'done';
  } catch (error) {
    if (error instanceof LogError) return error.reason;
    throw error;
  }
}

class Rig {
  readonly model: Map<string, ModelTopic> = new Map();
  /** Ids of every topic there ever was, by name. */
  readonly past: { readonly name: string; readonly id: string }[] = [];
  readonly logs: Set<string> = new Set();
  readonly #engine: StorageEngine;
  #topics: Topics | undefined;
  #epoch = 0;

  constructor() {
    const memory = openMemoryEngine();
    this.#engine = withParts(memory, {
      open: async (id, epoch, config) => {
        this.logs.add(`${id.topicId}-${id.partition}`);
        return await memory.open(id, epoch, config);
      },
      remove: async (id) => {
        await memory.remove(id);
        this.logs.delete(`${id.topicId}-${id.partition}`);
      },
    });
  }

  get topics(): Topics {
    if (this.#topics === undefined) throw new Error('not started');
    return this.#topics;
  }

  get modelCount(): number {
    return [...this.model.values()].reduce((sum, { counts }) => sum + counts.length, 0);
  }

  async restart(): Promise<void> {
    await this.#topics?.close();
    this.#topics = await openTopics(this.#engine, { epoch: toEpoch(++this.#epoch), limits: LIMITS });
  }

  async deletionsDone(): Promise<void> {
    await expect.poll(() => this.logs.size).toBe(this.modelCount);
    expect(await this.#engine.metadata.list('deleted-topics/')).toEqual([]);
  }

  async run(step: Step): Promise<void> {
    if (step.kind === 'restart') return await this.restart();
    const known = this.model.get(step.name);
    if (step.kind === 'create') return await this.#create(step.name, step.partitions, known);
    if (known === undefined) {
      const change = { partitionCount: 0, setConfigs: {}, resetConfigs: [] };
      expect(await reasonOf(() => this.topics.update(step.name, change, false))).toBe('UNKNOWN_TOPIC_OR_PARTITION');
      expect(await reasonOf(() => this.topics.delete(step.name))).toBe('UNKNOWN_TOPIC_OR_PARTITION');
      return;
    }
    if (step.kind === 'delete') await this.#delete(step.name);
    else if (step.kind === 'grow') await this.#grow(step.name, step.partitions, known);
    else if (step.kind === 'configure') await this.#configure(step.name, step.flushMs, known);
    else await this.#append(step.name, step.partition, known);
  }

  async #create(name: string, partitions: number, known: ModelTopic | undefined): Promise<void> {
    const reason = await reasonOf(() => this.topics.create(name, partitions, {}, false));
    if (partitions > LIMITS.maxPartitionsPerTopic) return expect(reason).toBe('INVALID_PARTITIONS');
    if (this.modelCount + partitions > LIMITS.maxPartitions) return expect(reason).toBe('RESOURCE_LIMIT');
    if (known !== undefined) return expect(reason).toBe('TOPIC_ALREADY_EXISTS');
    expect(reason).toBe('done');
    const { id } = this.topics.get(name).record;
    this.past.push({ name, id });
    this.model.set(name, { id, flushMs: undefined, counts: Array(partitions).fill(0) });
  }

  async #delete(name: string): Promise<void> {
    await this.topics.delete(name);
    this.model.delete(name);
  }

  async #grow(name: string, partitions: number, { counts }: ModelTopic): Promise<void> {
    const change = { partitionCount: partitions, setConfigs: {}, resetConfigs: [] };
    const reason = await reasonOf(() => this.topics.update(name, change, false));
    const added = partitions - counts.length;
    if (added < 0 || partitions > LIMITS.maxPartitionsPerTopic) return expect(reason).toBe('INVALID_PARTITIONS');
    if (added > 0 && this.modelCount + added > LIMITS.maxPartitions) return expect(reason).toBe('RESOURCE_LIMIT');
    expect(reason).toBe('done');
    while (counts.length < partitions) counts.push(0);
  }

  async #configure(name: string, flushMs: string | undefined, known: ModelTopic): Promise<void> {
    const setConfigs: Record<string, string> = flushMs === undefined ? {} : { 'flush.ms': flushMs };
    const change = { partitionCount: 0, setConfigs, resetConfigs: flushMs === undefined ? ['flush.ms'] : [] };
    await this.topics.update(name, change, false);
    known.flushMs = flushMs;
  }

  async #append(name: string, partition: number, { id, counts }: ModelTopic): Promise<void> {
    const reason = await reasonOf(async () => {
      await this.topics.partition(name, id, partition).append([batchOf(['x'])], { acks: 'durable' });
    });
    const count = counts[partition];
    if (count === undefined) return expect(reason).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(reason).toBe('done');
    counts[partition] = count + 1;
  }

  async check(): Promise<void> {
    expect(this.topics.list().map(({ record }) => record.name)).toEqual([...this.model.keys()].sort());
    for (const [topic, { id, flushMs, counts }] of this.model) {
      const { record, config } = this.topics.get(topic);
      expect(record).toMatchObject({ id, partitionCount: counts.length });
      expect(config.flushMs).toBe(Number(flushMs ?? 50));
      const marks = counts.map((_, index) => Number(this.topics.partition(topic, id, index).highWatermark));
      expect(marks).toEqual(counts);
    }
    for (const { name: topic, id } of this.past) {
      if (this.model.get(topic)?.id === id) continue;
      expect(await reasonOf(async () => this.topics.partition(topic, id, 0))).toBe('UNKNOWN_TOPIC_ID');
    }
  }
}

test('topics are as the history of creations, changes, deletions and restarts has made them', async (context) => {
  const programme = new Programme(context);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      programme.tried('histories');
      const rig = new Rig();
      await rig.restart();
      for (const next of steps) {
        await rig.run(next);
        await rig.check();
      }
      await rig.restart();
      await rig.check();
      await rig.deletionsDone();
      await rig.topics.close();
    }),
    { seed: programme.seed, numRuns: inForm({ short: 100, long: 2000 }) },
  );
}, 300_000);
