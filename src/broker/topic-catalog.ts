/** The durable list of topics: name, id, number of partitions, configuration; and of those whose deletion goes on. */
import * as v from 'valibot';
import { LogError } from '../core/errors.js';
import type { Random } from '../core/random.js';
import { type TopicId, toTopicId } from '../core/types.js';
import type { MetadataEntry, MetadataStore } from '../storage/engine.js';
import type { TopicOverrides } from './topic-config.js';
import { alreadyExists } from './topic-errors.js';

/** `topics/NAME`: a topic that is there. */
const TOPICS = 'topics/';
/** `deleted-topics/ID`: a topic that is not, whose files may be. */
const DELETED = 'deleted-topics/';

/** A topic as the catalog keeps it. */
export interface TopicRecord {
  readonly name: string;
  readonly id: TopicId;
  readonly partitionCount: number;
  readonly overrides: TopicOverrides;
  /** Of the entry in the metadata store: a change succeeds only on top of it. */
  readonly version: number;
}

export type TopicDraft = Omit<TopicRecord, 'version'>;

/** What is left to know of a topic whose deletion was accepted, until its files are gone. */
export interface DeletedTopic {
  readonly name: string;
  readonly id: TopicId;
  readonly partitionCount: number;
}

/** What an update may change. */
export type TopicContents = Pick<TopicRecord, 'partitionCount' | 'overrides'>;

export interface CatalogContents {
  readonly topics: readonly TopicRecord[];
  readonly deleted: readonly DeletedTopic[];
}

const PARTITION_COUNT = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

const STORED_TOPIC = v.object({
  id: v.string(),
  partitionCount: PARTITION_COUNT,
  overrides: v.record(v.string(), v.string()),
  /** Of an earlier format, in which a deleted topic kept its entry until its files were gone. */
  deleting: v.optional(v.boolean(), false),
});

const STORED_DELETION = v.object({ name: v.string(), partitionCount: PARTITION_COUNT });

function parse<T>(schema: v.GenericSchema<unknown, T>, entry: MetadataEntry): T {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), entry.value);
  if (parsed.success) return parsed.output;
  throw new LogError('CORRUPT_LOG', `The catalog entry ${entry.key} cannot be read: ${entry.value}`, {
    metadata: { key: entry.key },
  });
}

function decodeTopic(entry: MetadataEntry): TopicRecord & { readonly deleting: boolean } {
  const stored = parse(STORED_TOPIC, entry);
  return { ...stored, name: entry.key.slice(TOPICS.length), id: toTopicId(stored.id), version: entry.version };
}

function decodeDeletion(entry: MetadataEntry): DeletedTopic {
  return { ...parse(STORED_DELETION, entry), id: toTopicId(entry.key.slice(DELETED.length)) };
}

function encodeTopic({ id, partitionCount, overrides }: Omit<TopicRecord, 'name' | 'version'>): string {
  return JSON.stringify({ id, partitionCount, overrides });
}

/** Every change is durable before it is visible; two writers of one name cannot both win. */
export class TopicCatalog {
  readonly #metadata: MetadataStore;
  readonly #random: Random;

  constructor(metadata: MetadataStore, random: Random) {
    this.#metadata = metadata;
    this.#random = random;
  }

  /** Everything there is, after deletions that were accepted but not finished have freed their names. */
  async load(): Promise<CatalogContents> {
    const deleted = new Map((await this.#metadata.list(DELETED)).map(decodeDeletion).map((one) => [one.id, one]));
    const topics: TopicRecord[] = [];
    for (const entry of await this.#metadata.list(TOPICS)) {
      const { deleting, ...topic } = decodeTopic(entry);
      if (!deleting && !deleted.has(topic.id)) topics.push(topic);
      else deleted.set(topic.id, await this.delete(topic));
    }
    return { topics, deleted: [...deleted.values()] };
  }

  /** A topic that is not there yet, with an id of its own. */
  draft(name: string, partitionCount: number, overrides: TopicOverrides): TopicDraft {
    return { name, id: toTopicId(this.#random.uuid()), partitionCount, overrides };
  }

  /** @throws LogError TOPIC_ALREADY_EXISTS */
  async create(draft: TopicDraft): Promise<TopicRecord> {
    const result = await this.#metadata.compareAndSet(TOPICS + draft.name, encodeTopic(draft), 0);
    if (!result.ok) throw alreadyExists(draft.name);
    return { ...draft, version: result.version };
  }

  /** @throws LogError CONCURRENT_UPDATE unless the entry is as `topic` says; nothing is changed then */
  async update(topic: TopicRecord, contents: TopicContents): Promise<TopicRecord> {
    const { name, id, version } = topic;
    const { partitionCount, overrides } = contents;
    const value = encodeTopic({ id, partitionCount, overrides });
    const result = await this.#metadata.compareAndSet(TOPICS + name, value, version);
    if (!result.ok) {
      throw new LogError('CONCURRENT_UPDATE', `Topic ${name} was changed by somebody else. Try again.`, {
        metadata: { topic: name },
      });
    }
    return { name, id, partitionCount, overrides, version: result.version };
  }

  /**
   * Deletes the topic for good, in two steps: a crash between them is a deletion that the next load finishes.
   * Resolves when the name is free. Repeating it does no harm.
   * @param accepted called between the steps: there is no way back, and the name is still taken
   */
  async delete({ name, id, partitionCount }: DeletedTopic, accepted: () => void = () => {}): Promise<DeletedTopic> {
    // Refused when the entry is there: an earlier attempt came as far as this.
    await this.#metadata.compareAndSet(DELETED + id, JSON.stringify({ name, partitionCount }), 0);
    accepted();
    await this.#freeName(name, id);
    return { name, id, partitionCount };
  }

  async #freeName(name: string, id: TopicId): Promise<void> {
    for (;;) {
      const entry = await this.#metadata.get(TOPICS + name);
      if (entry === undefined || decodeTopic(entry).id !== id) return;
      const result = await this.#metadata.compareAndSet(entry.key, undefined, entry.version);
      if (result.ok) return;
    }
  }

  /** The files of a deleted topic are gone: nothing is left to remember. */
  async forget({ id }: DeletedTopic): Promise<void> {
    const entry = await this.#metadata.get(DELETED + id);
    if (entry !== undefined) await this.#metadata.compareAndSet(entry.key, undefined, entry.version);
  }
}
