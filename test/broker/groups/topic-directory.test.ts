/** The topics as groups see them. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, expect, test } from 'vitest';
import { TopicDirectory } from '../../../src/broker/groups/topic-directory.js';
import { resolveTopicConfig } from '../../../src/broker/topic-config.js';
import type { Topic, TopicNotice } from '../../../src/broker/topics.js';
import { systemClock } from '../../../src/core/clock.js';
import { toTopicId } from '../../../src/core/types.js';
import { BASE_TIME } from '../../storage/support.js';
import { longestTurnMs } from '../../support/loop-delay.js';
import { ManualClock } from '../../support/manual-clock.js';

const config = resolveTopicConfig({}, {});
const TOPIC_ID = toTopicId('00000000-0000-4000-8000-000000000001');

function topic(name: string, partitionCount: number = 1): Topic {
  const record = { name, id: TOPIC_ID, partitionCount, overrides: {}, version: 1 };
  return { record, config, internal: name.startsWith('__'), slots: [] };
}

let clock: ManualClock;
let notify: (notice: TopicNotice) => void;
let live: Set<string>;
let changes: number;

beforeEach(() => {
  clock = new ManualClock(BASE_TIME);
  live = new Set();
  changes = 0;
});

function directory(names: readonly string[], ofClock: typeof systemClock = clock): TopicDirectory {
  const onChange = (listener: (notice: TopicNotice) => void): (() => void) => {
    notify = listener;
    return () => undefined;
  };
  return new TopicDirectory({
    topics: { list: () => names.map((name) => topic(name)), onChange },
    clock: ofClock,
    onChange: () => {
      changes++;
    },
    livePatterns: () => live,
  });
}

test('a snapshot stays as it is, whatever happens to the topics', async () => {
  const topics = directory(['a', 'b', '__c']);
  await topics.resolve('.*');
  const before = topics.view;
  expect(topics.view).toBe(before);
  expect([...before.matching('.*')]).toEqual(['a', 'b']);
  expect(before.get('__c')).toBeUndefined();
  notify({ kind: 'created', topic: topic('d') });
  notify({ kind: 'updated', topic: topic('a', 5) });
  notify({ kind: 'deleted', topic: topic('b') });
  notify({ kind: 'created', topic: topic('__e') });
  expect([...before.matching('.*')]).toEqual(['a', 'b']);
  expect(before.get('a')!.partitionCount).toBe(1);
  expect([...topics.view.matching('.*')].sort()).toEqual(['a', 'd']);
  expect(topics.view.get('a')!.partitionCount).toBe(5);
  expect(topics.view.get('b')).toBeUndefined();
});

test('many changes are told together', () => {
  const topics = directory([]);
  for (let i = 0; i < 1000; i++) notify({ kind: 'created', topic: topic(`t${i}`) });
  expect(changes).toBe(0);
  clock.advance(50);
  expect(changes).toBe(1);
  topics.close();
  expect(clock.timerCount).toBe(0);
});

test('what changes while a pattern is matched is not missed', async () => {
  const names = Array.from({ length: 20_000 }, (_, i) => `topic-${i}`);
  const topics = directory(names, systemClock);
  const resolving = topics.resolve('topic-.*7');
  notify({ kind: 'deleted', topic: topic('topic-19997') });
  notify({ kind: 'created', topic: topic('topic-new7') });
  expect(topics.isResolved('topic-.*7')).toBe(false);
  expect(topics.view.matching('topic-.*7').size).toBe(0);
  await resolving;
  const matching = topics.view.matching('topic-.*7');
  expect(matching.size).toBe(2000);
  expect(matching.has('topic-19997')).toBe(false);
  expect(matching.has('topic-new7')).toBe(true);
  topics.close();
});

test('a pattern that takes long to match does not keep others waiting', async () => {
  const names = Array.from({ length: 2000 }, (_, i) => `${'ab'.repeat(120)}-${i}`);
  const topics = directory(names, systemClock);
  expect(await longestTurnMs(() => topics.resolve('(.*a){20}.*(b|c){3}'))).toBeLessThan(50);
  topics.close();
});

test('patterns that no member has any more are forgotten, but not those that one is about to have', async () => {
  const topics = directory(['a']);
  live.add('x0');
  for (let i = 0; i < 60; i++) await topics.resolve(`x${i}`);
  await nextTurn();
  const coming = topics.resolve('soon');
  for (let i = 60; i < 200; i++) await topics.resolve(`x${i}`);
  await coming;
  expect(topics.isResolved('x0')).toBe(true);
  expect(topics.isResolved('soon')).toBe(true);
  await nextTurn();
  for (let i = 200; i < 400; i++) {
    await topics.resolve(`x${i}`);
    await nextTurn();
  }
  expect(topics.patternCount).toBeLessThan(150);
  expect(topics.isResolved('x0')).toBe(true);
});
