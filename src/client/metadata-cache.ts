/** What the client knows of topics: looked up once, shared by everyone who asks, refreshed now and then. */
import type { Clock } from '../core/clock.js';
import { LogError } from '../core/errors.js';
import type { TopicMessage } from '../rpc/messages.js';

/** Entries older than this are looked up again; until the answer is there, the old one serves. */
export const METADATA_MAX_AGE_MS: number = 5 * 60_000;
/** Topics remembered at most; the one that was looked up longest ago is forgotten first. */
export const METADATA_MAX_TOPICS = 10_000;

/** A topic as it was when it was last looked up. */
export interface TopicMetadata {
  readonly name: string;
  readonly topicId: string;
  readonly partitionCount: number;
  /** When it was looked up, by the monotonic clock. */
  readonly lookedUpAtMs: number;
  /** True once the broker has said something that contradicts this entry: look it up again before use. */
  outdated: boolean;
}

export type TopicLookup = (name: string) => Promise<TopicMessage>;

export class MetadataCache {
  readonly #lookup: TopicLookup;
  readonly #clock: Clock;
  readonly #entries = new Map<string, TopicMetadata>();
  readonly #lookups = new Map<string, Promise<TopicMetadata>>();

  constructor(lookup: TopicLookup, clock: Clock) {
    this.#lookup = lookup;
    this.#clock = clock;
  }

  /**
   * The topic, from memory when possible.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION with how to create it; whatever the lookup fails with
   */
  async get(name: string): Promise<TopicMetadata> {
    const known = this.#entries.get(name);
    if (known === undefined || known.outdated) return this.refresh(name);
    this.refreshIfOld(known);
    return known;
  }

  /** Looks the topic up anew. Calls made while a lookup is under way share it. */
  refresh(name: string): Promise<TopicMetadata> {
    const running = this.#lookups.get(name);
    if (running !== undefined) return running;
    const lookup = this.#fetch(name).finally(() => this.#lookups.delete(name));
    this.#lookups.set(name, lookup);
    return lookup;
  }

  /** Starts a lookup in the background when the entry is old. Its failure is no news: the entry goes on serving. */
  refreshIfOld(entry: TopicMetadata): void {
    if (this.#clock.monotonic() - entry.lookedUpAtMs < METADATA_MAX_AGE_MS) return;
    this.refresh(entry.name).catch(() => {});
  }

  /** The newest entry, if there is one. */
  peek(name: string): TopicMetadata | undefined {
    return this.#entries.get(name);
  }

  /** The broker contradicted what is known: the next use looks the topic up. */
  invalidate(name: string): void {
    const entry = this.#entries.get(name);
    if (entry !== undefined) entry.outdated = true;
    this.#entries.delete(name);
  }

  async #fetch(name: string): Promise<TopicMetadata> {
    let topic: TopicMessage;
    try {
      topic = await this.#lookup(name);
    } catch (error) {
      if (error instanceof LogError && error.reason === 'UNKNOWN_TOPIC_OR_PARTITION') {
        this.invalidate(name);
        throw unknownTopic(name, error);
      }
      throw error;
    }
    const { topicId, partitionCount } = topic;
    const entry = { name, topicId, partitionCount, lookedUpAtMs: this.#clock.monotonic(), outdated: false };
    this.#remember(entry);
    return entry;
  }

  #remember(entry: TopicMetadata): void {
    this.#entries.delete(entry.name);
    this.#entries.set(entry.name, entry);
    if (this.#entries.size <= METADATA_MAX_TOPICS) return;
    const oldest = this.#entries.keys().next();
    if (!oldest.done) this.#entries.delete(oldest.value);
  }
}

function unknownTopic(name: string, cause: LogError): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Topic ${name} does not exist. Topics are not created by writing to them: create it with ` +
      `client.admin.createTopic({ name: '${name}' }) or \`tidelog topic create ${name}\`.`,
    { metadata: { ...cause.metadata, topic: name }, cause },
  );
}
