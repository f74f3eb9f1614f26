/** What a consumer subscribes to: topics by name, or by a pattern that their names match. */
import { LogError } from '../core/errors.js';
import { type Serde, type Topic, type TopicSerdes, topic } from './serdes.js';

/** Every topic whose whole name matches, those to come included, with the types of their records. */
export interface TopicPattern<K, V> {
  /** A regular expression in RE2's syntax. Internal topics never match. */
  readonly pattern: string;
  readonly key: Serde<K>;
  readonly value: Serde<V>;
}

/** `topicPattern('orders-.*', { value: json<Order>() })`; serdes as for `topic`. */
export function topicPattern<V = Buffer | null, K = string>(
  pattern: string,
  serdes: TopicSerdes<K, V> = {},
): TopicPattern<K, V> {
  const { key, value } = topic<V, K>('', serdes);
  return { pattern, key, value };
}

/** What the keys of a topic's records are; of several topics, one of theirs. */
export type KeyOf<T extends Topic<unknown, unknown>> = T extends Topic<infer K, unknown> ? K : never;

/** What the values of a topic's records are; of several topics, one of theirs. */
export type ValueOf<T extends Topic<unknown, unknown>> = T extends Topic<unknown, infer V> ? V : never;

/** One topic, several, or all that match a pattern. */
export type Subscribed<K, V> = Topic<K, V> | readonly Topic<K, V>[] | TopicPattern<K, V>;

export interface Subscription<K, V> {
  /** As the broker is told. */
  readonly wanted: { readonly topics: readonly string[] } | { readonly pattern: string };
  /** The types of a topic's records. */
  readonly topicOf: (name: string) => Topic<K, V>;
}

/** @throws LogError INVALID_REQUEST */
export function resolveSubscription<K, V>(subscribed: Subscribed<K, V>): Subscription<K, V> {
  if ('pattern' in subscribed) {
    const { pattern, key, value } = subscribed;
    if (pattern === '') throw new LogError('INVALID_REQUEST', 'The pattern of the topics must not be empty.');
    return { wanted: { pattern }, topicOf: memoized((name) => ({ name, key, value })) };
  }
  const topics = 'name' in subscribed ? [subscribed] : subscribed;
  const byName = new Map(topics.map((one) => [one.name, one]));
  if (byName.size === 0) throw new LogError('INVALID_REQUEST', 'A consumer reads at least one topic.');
  if (byName.size < topics.length) throw new LogError('INVALID_REQUEST', 'Each topic is named once.');
  const topicOf = (name: string): Topic<K, V> => {
    const found = byName.get(name);
    if (found === undefined)
      throw new LogError('INTERNAL', `The broker assigned topic ${name}, which was not asked for.`);
    return found;
  };
  return { wanted: { topics: [...byName.keys()] }, topicOf };
}

function memoized<T>(make: (name: string) => T): (name: string) => T {
  const made = new Map<string, T>();
  return (name) => {
    const known = made.get(name) ?? make(name);
    made.set(name, known);
    return known;
  };
}
