/** The documentation of the configuration is made from the keys. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { TOPIC_CONFIG_KEYS } from '../../src/broker/topic-config.js';
import { brokerConfigTable, configTable, topicDefaultsTable } from '../../src/config/docs.js';

const page = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8');

function between(begin: string, end: string): string {
  const from = page.indexOf('\n', page.indexOf(begin)) + 1;
  return page.slice(from, page.indexOf(end));
}

test('docs/configuration.md holds the table of the keys of the broker', () => {
  expect(between('<!-- table:begin', '<!-- table:end')).toBe(brokerConfigTable());
});

test('docs/configuration.md holds the table of the keys of the broker that are defaults of topics', () => {
  expect(between('<!-- topic-defaults:begin', '<!-- topic-defaults:end')).toBe(topicDefaultsTable());
});

test('docs/configuration.md holds the table of the keys of a topic', () => {
  expect(between('<!-- topic-table:begin', '<!-- topic-table:end')).toBe(configTable(TOPIC_CONFIG_KEYS));
});
