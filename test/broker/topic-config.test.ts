/** Configuration of topics from three sources. */
import { expect, test } from 'vitest';
import { describeTopicConfig, normalizeOverrides, resolveTopicConfig } from '../../src/broker/topic-config.js';
import { startBroker } from '../../src/broker.js';
import { rejection } from '../support/rejection.js';

test('a value comes from the topic, else from the broker, else it is the default', () => {
  const overrides = { 'retention.ms': '1' };
  const defaults = { 'retention.ms': '2', 'retention.bytes': '3' };
  expect(resolveTopicConfig(overrides, defaults)).toMatchObject({
    retentionMs: 1,
    retentionBytes: 3,
    retentionRecords: -1,
  });
  const described = new Map(describeTopicConfig(overrides, defaults).map((entry) => [entry.key, entry]));
  expect(described.get('retention.ms')).toEqual({ key: 'retention.ms', value: '1', source: 'topic' });
  expect(described.get('retention.bytes')).toEqual({ key: 'retention.bytes', value: '3', source: 'broker' });
  expect(described.get('retention.records')).toEqual({ key: 'retention.records', value: '-1', source: 'default' });
});

test('values are kept as they were written, without the space around them', () => {
  const written = {
    'cleanup.policy': ' compact, delete\n',
    'message.timestamp.type': ' LogAppendTime ',
    'flush.ms': '007',
  };
  const overrides = normalizeOverrides(written);
  expect(overrides).toEqual({
    'cleanup.policy': 'compact, delete',
    'message.timestamp.type': 'LogAppendTime',
    'flush.ms': '007',
  });
  expect(resolveTopicConfig(overrides, {})).toMatchObject({
    cleanupCompact: true,
    cleanupDelete: true,
    logAppendTime: true,
    flushMs: 7,
  });
});

test('an empty cleanup policy and compaction lags that contradict each other are refused', async () => {
  await rejection(() => normalizeOverrides({ 'cleanup.policy': ' ' }), 'INVALID_CONFIG');
  const across = (): unknown =>
    resolveTopicConfig({ 'min.compaction.lag.ms': '11' }, { 'max.compaction.lag.ms': '10' });
  const error = await rejection(across, 'INVALID_CONFIG');
  expect(error.message).toContain('min.compaction.lag.ms=11');
  expect(error.message).toContain('max.compaction.lag.ms=10');
  expect(resolveTopicConfig({ 'min.compaction.lag.ms': '10', 'max.compaction.lag.ms': '10' }, {})).toBeDefined();
});

test('keys of the object prototype are unknown', async () => {
  for (const key of ['constructor', 'toString', '__proto__']) {
    const overrides = JSON.parse(`{"${key}": "1"}`) as Record<string, string>;
    await rejection(() => normalizeOverrides(overrides), 'INVALID_CONFIG');
  }
});

test.each([
  { 'retention.msec': 1 },
  { 'retention.ms': 'soon' },
  { 'min.compaction.lag.ms': 2, 'max.compaction.lag.ms': 1 },
])('a broker with the defaults %j does not start', async (topicDefaults) => {
  await rejection(startBroker({ storage: 'memory', topicDefaults }), 'INVALID_CONFIG');
});

test.each([{ retentionCheckIntervalMs: 0 }, { cleanerBackoffMs: 1.5 }, { cleanerDedupeBufferBytes: 1 }])(
  'a broker with the lifecycle %j does not start',
  async (lifecycle) => {
    await rejection(startBroker({ storage: 'memory', lifecycle }), 'INVALID_CONFIG');
  },
);
