/** The consumer against the production broker in memory: sharing, finishing, committing, leaving. */
import { expect, test } from 'vitest';
import { until } from '../support/until.js';
import { append, collectInto, startGroup, words } from './support/consumer-setting.js';

test('a consumer reads what is there, commits what the loop has finished, and goes on there the next time', async () => {
  await using t = await startGroup(2);
  await append(t.client, 0, 5);
  const seen: string[] = [];
  for await (const { value } of t.client.consumer(words, { group: 'g' })) {
    seen.push(value);
    if (seen.length === 3) break;
  }
  // The third was in the loop's hands when it was left: not finished.
  expect(seen).toEqual(['p0-0', 'p0-1', 'p0-2']);
  const again: string[] = [];
  await collectInto(again, t.client.consumer(words, { group: 'g' }), 3);
  expect(again).toEqual(['p0-2', 'p0-3', 'p0-4']);
});

test('two members share the partitions, and nothing is skipped when one leaves', async () => {
  await using t = await startGroup(4);
  for (const partition of [0, 1, 2, 3]) await append(t.client, partition, 20);
  const a = t.follow('g');
  const b = t.follow('g', { client: await t.connect() });
  await until(() => a.consumer.assignment().length === 2 && b.consumer.assignment().length === 2, 'both have two');
  await b.stop();
  await until(() => a.consumer.assignment().length === 4, 'one has all');
  for (const partition of [0, 1, 2, 3]) await append(t.client, partition, 5, 20);
  await until(() => new Set([...a.seen, ...b.seen]).size === 100, 'all were handed out');
  await a.stop();
});
