/** What an update does to a topic's own configuration. */
import { LogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import type { TopicRecord } from './topic-catalog.js';
import { assertTopicConfigKey, describeTopicConfig, normalizeOverrides, type TopicOverrides } from './topic-config.js';

export interface TopicChange {
  /** Number of partitions afterwards; 0 leaves it as it is. */
  readonly partitionCount: number;
  readonly setConfigs: TopicOverrides;
  /** Keys that go back to the broker's value, or the default. */
  readonly resetConfigs: readonly string[];
}

/**
 * The overrides after `change`; resetting a key that is not set does nothing.
 * @throws LogError INVALID_CONFIG: a key is not known or both set and reset, or a value is not valid
 */
export function changedOverrides(before: TopicOverrides, change: TopicChange): TopicOverrides {
  const set = normalizeOverrides(change.setConfigs);
  const overrides: Record<string, string> = { ...before, ...set };
  for (const key of change.resetConfigs) {
    assertTopicConfigKey(key);
    if (Object.hasOwn(set, key)) {
      throw new LogError('INVALID_CONFIG', `${key} is to be both set and reset. Ask for one of the two.`, {
        metadata: { key },
      });
    }
    delete overrides[key];
  }
  return overrides;
}

export function sameOverrides(a: TopicOverrides, b: TopicOverrides): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && a[key] === b[key]);
}

/** One line for each value that differs, configuration and number of partitions, with what is and was in force. */
export function logTopicChange(
  logger: Logger,
  before: TopicRecord,
  after: TopicRecord,
  defaults: TopicOverrides,
): void {
  const topic = after.name;
  const message = 'topic configuration changed';
  if (after.partitionCount !== before.partitionCount) {
    const values = { oldValue: String(before.partitionCount), newValue: String(after.partitionCount) };
    logger.info({ topic, key: 'partitions', ...values }, message);
  }
  const old = describeTopicConfig(before.overrides, defaults);
  for (const [i, { key, value, source }] of describeTopicConfig(after.overrides, defaults).entries()) {
    const { value: oldValue, source: oldSource } = old[i]!;
    if (value === oldValue && source === oldSource) continue;
    logger.info({ topic, key, oldValue, newValue: value, oldSource, newSource: source }, message);
  }
}
