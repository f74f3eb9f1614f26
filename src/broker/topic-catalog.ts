/** The durable list of topics: name, id, number of partitions, configuration. */
import * as v from 'valibot';
import { LogError } from '../core/errors.js';
import type { Random } from '../core/random.js';
import { type TopicId, toTopicId } from '../core/types.js';
import type { MetadataEntry, MetadataStore } from '../storage/engine.js';
import type { TopicOverrides } from './topic-config.js';

const PREFIX = 'topics/';

/** A topic as the catalog keeps it. */
export interface TopicRecord {
  readonly name: string;
  readonly id: TopicId;
  readonly partitionCount: number;
  readonly overrides: TopicOverrides;
  /** The topic is being deleted: its name is taken until its files are gone. */
  readonly deleting: boolean;
}

const STORED = v.object({
  id: v.string(),
  partitionCount: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  overrides: v.record(v.string(), v.string()),
  deleting: v.optional(v.boolean(), false),
});

function decode(entry: MetadataEntry): TopicRecord {
  const name = entry.key.slice(PREFIX.length);
  const parsed = v.safeParse(STORED, JSON.parse(entry.value));
  if (!parsed.success) {
    throw new LogError('CORRUPT_LOG', `The catalog entry of topic ${name} cannot be read: ${entry.value}`, {
      metadata: { topic: name },
    });
  }
  return { ...parsed.output, name, id: toTopicId(parsed.output.id) };
}

function encode(topic: TopicRecord): string {
  const { id, partitionCount, overrides, deleting } = topic;
  return JSON.stringify({ id, partitionCount, overrides, deleting });
}

/** Every change is durable before it is visible; two writers of one name cannot both win. */
export class TopicCatalog {
  readonly #metadata: MetadataStore;
  readonly #random: Random;

  constructor(metadata: MetadataStore, random: Random) {
    this.#metadata = metadata;
    this.#random = random;
  }

  async load(): Promise<TopicRecord[]> {
    return (await this.#metadata.list(PREFIX)).map(decode);
  }

  /** @throws LogError TOPIC_ALREADY_EXISTS */
  async create(name: string, partitionCount: number, overrides: TopicOverrides): Promise<TopicRecord> {
    const topic = { name, id: toTopicId(this.#random.uuid()), partitionCount, overrides, deleting: false };
    const result = await this.#metadata.compareAndSet(PREFIX + name, encode(topic), 0);
    if (!result.ok) throw alreadyExists(name, result.current !== undefined && decode(result.current).deleting);
    return topic;
  }

  /** First half of a deletion: after it, a restart finishes the job. */
  async markDeleting(topic: TopicRecord): Promise<void> {
    await this.#replace(topic, encode({ ...topic, deleting: true }));
  }

  /** Second half: the name is free. */
  async remove(topic: TopicRecord): Promise<void> {
    await this.#replace(topic, undefined);
  }

  async #replace(topic: TopicRecord, value: string | undefined): Promise<void> {
    const key = PREFIX + topic.name;
    const entry = await this.#metadata.get(key);
    if (entry === undefined || decode(entry).id !== topic.id) return;
    const result = await this.#metadata.compareAndSet(key, value, entry.version);
    if (!result.ok) {
      throw new LogError('CONCURRENT_UPDATE', `Topic ${topic.name} was changed by somebody else. Try again.`);
    }
  }
}

export function alreadyExists(name: string, deleting: boolean): LogError {
  const message = deleting
    ? `Topic ${name} is still being deleted. Try again in a moment.`
    : `Topic ${name} exists already.`;
  return new LogError('TOPIC_ALREADY_EXISTS', message, { metadata: { topic: name } });
}
