/** What the client knows of topics: looked up once, shared by everyone who asks, looked up again before it is too old. */
import type { Clock } from '../core/clock.js';
import { LogError } from '../core/errors.js';
import type { TopicMessage } from '../rpc/messages.js';

/** Topics remembered at most; the one that was looked up longest ago is forgotten first. */
export const METADATA_MAX_TOPICS = 10_000;
/** However often somebody doubts an entry, its topic is looked up for that reason no more often than this, in ms. */
export const RECHECK_INTERVAL_MS = 1_000;
/** Topics in steady use are looked up in the background from this share of the maximum age on, so that nobody waits. */
const EARLY = 0.8;

/** A topic as it was when it was last looked up. */
export interface TopicMetadata {
  readonly name: string;
  readonly topicId: string;
  readonly partitionCount: number;
  /** When it was looked up, by the monotonic clock. */
  readonly lookedUpAtMs: number;
  /** When the topic was last looked up because of a doubt, in vain or not, by the monotonic clock; -Infinity: never. */
  recheckedAtMs: number;
  /** True once the broker has said something that contradicts this entry: look it up again before use. */
  outdated: boolean;
}

export type TopicLookup = (name: string) => Promise<TopicMessage>;

/** Whether the broker says that what a client believed in does not exist, or is not what it was. */
export function isUnknownTopic(error: unknown): error is LogError {
  if (!(error instanceof LogError)) return false;
  return error.reason === 'UNKNOWN_TOPIC_OR_PARTITION' || error.reason === 'UNKNOWN_TOPIC_ID';
}

export class MetadataCache {
  /** Entries older than this, in ms, are looked up again before use. */
  readonly maxAgeMs: number;
  readonly #lookup: TopicLookup;
  readonly #clock: Clock;
  readonly #entries = new Map<string, TopicMetadata>();
  readonly #lookups = new Map<string, Promise<TopicMetadata>>();

  constructor(lookup: TopicLookup, clock: Clock, maxAgeMs: number) {
    this.#lookup = lookup;
    this.#clock = clock;
    this.maxAgeMs = maxAgeMs;
  }

  /**
   * The topic, from memory when possible.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION with how to create it; whatever the lookup fails with
   */
  async get(name: string): Promise<TopicMetadata> {
    const known = this.#entries.get(name);
    if (known === undefined || known.outdated) return this.refresh(name);
    return this.isOld(known) ? this.recheck(known) : known;
  }

  /** Looks the topic up anew. Calls made while a lookup is under way share it. */
  refresh(name: string): Promise<TopicMetadata> {
    const running = this.#lookups.get(name);
    if (running !== undefined) return running;
    const lookup = this.#fetch(name).finally(() => this.#lookups.delete(name));
    this.#lookups.set(name, lookup);
    return lookup;
  }

  /**
   * Looks up anew what may have changed. When that fails for another reason than that the topic is gone, the entry goes
   * on serving: that no broker answers says nothing about the topic.
   * @throws LogError UNKNOWN_TOPIC_OR_PARTITION
   */
  async recheck(entry: TopicMetadata): Promise<TopicMetadata> {
    const found = await this.#refreshOr(entry);
    found.recheckedAtMs = this.#clock.monotonic();
    return found;
  }

  /** Whether enough time has passed since the entry was last doubted. */
  mayRecheck(entry: TopicMetadata): boolean {
    return this.#clock.monotonic() - entry.recheckedAtMs >= RECHECK_INTERVAL_MS;
  }

  /** Whether the entry must be rechecked before use because of its age. */
  isOld(entry: TopicMetadata): boolean {
    return this.#ageMs(entry) >= this.maxAgeMs && this.mayRecheck(entry);
  }

  /** Starts a lookup in the background when the entry will soon be too old. Its failure is no news, for a while. */
  refreshEarly(entry: TopicMetadata): void {
    if (this.#ageMs(entry) < this.maxAgeMs * EARLY || !this.mayRecheck(entry)) return;
    this.refresh(entry.name).catch(() => {
      entry.recheckedAtMs = this.#clock.monotonic();
    });
  }

  /** The newest entry, if there is one. */
  peek(name: string): TopicMetadata | undefined {
    return this.#entries.get(name);
  }

  /**
   * The broker contradicted what is known: the next use looks the topic up.
   * @param topicId the id that the broker refused; what is known of another topic of this name is not contradicted
   */
  invalidate(name: string, topicId?: string): void {
    const entry = this.#entries.get(name);
    if (entry !== undefined && (topicId === undefined || entry.topicId === topicId)) entry.outdated = true;
  }

  async #refreshOr(entry: TopicMetadata): Promise<TopicMetadata> {
    try {
      return await this.refresh(entry.name);
    } catch (error) {
      if (entry.outdated || isUnknownTopic(error)) throw error;
      return entry;
    }
  }

  #ageMs(entry: TopicMetadata): number {
    return this.#clock.monotonic() - entry.lookedUpAtMs;
  }

  async #fetch(name: string): Promise<TopicMetadata> {
    let topic: TopicMessage;
    try {
      topic = await this.#lookup(name);
    } catch (error) {
      if (error instanceof LogError && error.reason === 'UNKNOWN_TOPIC_OR_PARTITION') {
        this.invalidate(name);
        this.#entries.delete(name);
        throw unknownTopic(name, error);
      }
      throw error;
    }
    const { topicId, partitionCount } = topic;
    const recheckedAtMs = this.#entries.get(name)?.recheckedAtMs ?? Number.NEGATIVE_INFINITY;
    const lookedUpAtMs = this.#clock.monotonic();
    const entry = { name, topicId, partitionCount, lookedUpAtMs, recheckedAtMs, outdated: false };
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
