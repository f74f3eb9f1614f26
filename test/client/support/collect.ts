import type { Client } from '../../../src/client/client.js';
import type { ReadOptions } from '../../../src/client/read-options.js';
import type { ReadRecord } from '../../../src/client/record-batch.js';
import type { Topic } from '../../../src/client/serdes.js';

/** Everything that an iteration yields. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

/** The records of a topic up to its end, or as `options` say. */
export function readAll<K, V>(
  client: Client,
  topic: Topic<K, V>,
  options: ReadOptions = {},
): Promise<ReadRecord<K, V>[]> {
  return collect(client.read(topic, { to: 'end', ...options }));
}
