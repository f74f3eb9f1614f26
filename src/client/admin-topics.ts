/** Topics as the broker describes them, as `client.admin` shows them. */
import type { ConfigSourceName, PartitionMessage, TopicMessage } from '../rpc/messages.js';
import type { ConfigValue, PartitionDescription, TopicDescription, TopicSummary } from './admin.js';

const CONFIG_SOURCES: Readonly<Record<ConfigSourceName, ConfigValue['source']>> = {
  CONFIG_SOURCE_UNSPECIFIED: 'default',
  CONFIG_SOURCE_DEFAULT: 'default',
  CONFIG_SOURCE_BROKER: 'broker',
  CONFIG_SOURCE_TOPIC: 'topic',
};

export function summarizeTopic({ name, topicId, partitionCount, internal }: TopicMessage): TopicSummary {
  return { name, topicId, partitionCount, internal };
}

export function describeTopic(topic: TopicMessage): TopicDescription {
  return {
    ...summarizeTopic(topic),
    partitions: topic.partitions.map(describePartition),
    configs: topic.configs.map(({ key, value, source }) => ({ key, value, source: CONFIG_SOURCES[source] })),
  };
}

function describePartition(partition: PartitionMessage): PartitionDescription {
  const { failureReason, oldestTimestampMs, newestTimestampMs } = partition;
  return {
    ...partition,
    oldestTimestampMs: oldestTimestampMs ?? undefined,
    newestTimestampMs: newestTimestampMs ?? undefined,
    failureReason: failureReason === '' ? undefined : failureReason,
  };
}
