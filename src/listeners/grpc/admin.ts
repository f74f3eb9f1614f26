import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { OffsetSpec } from '../../broker/list-offsets.js';
import { slotFailure } from '../../broker/partition-opener.js';
import {
  describeTopicConfig,
  normalizeOverrides,
  type TopicConfigSource,
  type TopicOverrides,
} from '../../broker/topic-config.js';
import type { Topic } from '../../broker/topics.js';
import { Partition } from '../../partition/partition.js';
import type {
  ConfigSourceName,
  CreateTopicRequest,
  CreateTopicResponse,
  DeleteRecordsRequest,
  DeleteRecordsResponse,
  DeleteTopicRequest,
  DeleteTopicResponse,
  DescribeClusterRequest,
  DescribeClusterResponse,
  GetTopicRequest,
  GetTopicResponse,
  ListOffsetsRequest,
  ListOffsetsResponse,
  ListTopicsRequest,
  ListTopicsResponse,
  PartitionMessage,
  TopicMessage,
  UpdateTopicRequest,
  UpdateTopicResponse,
} from '../../rpc/messages.js';
import type { BudgetsByKind } from './connection-budgets.js';
import { groupAdminHandlers } from './group-admin.js';
import { unary } from './handlers.js';
import { toIsolation } from './isolation.js';
import { pageByName } from './paging.js';
import { transactionAdminHandlers } from './transaction-admin.js';

/** AdminService over the broker. */
export function adminHandlers(broker: Broker, budgets: BudgetsByKind): UntypedServiceImplementation {
  const { logger } = broker;
  return {
    CreateTopic: unary(logger, (request: CreateTopicRequest) => createTopic(broker, request)),
    GetTopic: unary(logger, async (request: GetTopicRequest): Promise<GetTopicResponse> => {
      return { topic: describeTopic(broker, broker.topics.get(request.name)) };
    }),
    ListTopics: unary(logger, async (request: ListTopicsRequest) => listTopics(broker, request)),
    DeleteTopic: unary(logger, async (request: DeleteTopicRequest): Promise<DeleteTopicResponse> => {
      await broker.topics.delete(request.name);
      return {};
    }),
    UpdateTopic: unary(logger, (request: UpdateTopicRequest) => updateTopic(broker, request)),
    DeleteRecords: unary(logger, (request: DeleteRecordsRequest) => deleteRecords(broker, request)),
    ListOffsets: unary(logger, (request: ListOffsetsRequest) => listOffsets(broker, request)),
    DescribeCluster: unary(logger, async (_request: DescribeClusterRequest) => describeCluster(broker)),
    ...groupAdminHandlers(broker, budgets),
    ...transactionAdminHandlers(broker, budgets),
  };
}

async function createTopic(broker: Broker, request: CreateTopicRequest): Promise<CreateTopicResponse> {
  const partitionCount = request.partitionCount === 0 ? broker.defaultPartitions : request.partitionCount;
  const topic = await broker.topics.create(request.name, partitionCount, request.configs, request.validateOnly);
  if (topic !== undefined) return { topic: describeTopic(broker, topic) };
  const configs = toConfigMessages(broker, normalizeOverrides(request.configs));
  const described = { name: request.name, topicId: '', partitionCount, internal: false, partitions: [], configs };
  return { topic: described };
}

async function updateTopic(broker: Broker, request: UpdateTopicRequest): Promise<UpdateTopicResponse> {
  const topic = await broker.topics.update(request.name, request, request.validateOnly);
  return { topic: describeTopic(broker, topic) };
}

async function deleteRecords(broker: Broker, request: DeleteRecordsRequest): Promise<DeleteRecordsResponse> {
  const partitions = request.partitions.map(({ partition, beforeOffset, beforeTimeMs }) => ({
    partition,
    beforeOffset: beforeOffset ?? undefined,
    beforeTimeMs: beforeTimeMs ?? undefined,
  }));
  return { partitions: await broker.deleteRecords({ topic: request.topic, topicId: request.topicId, partitions }) };
}

function summarize(topic: Topic): TopicMessage {
  const { name, id, partitionCount } = topic.record;
  return { name, topicId: id, partitionCount, internal: topic.internal, partitions: [], configs: [] };
}

function describeTopic(broker: Broker, topic: Topic): TopicMessage {
  const partitions = topic.slots.map((slot, index): PartitionMessage => {
    const failureReason = slotFailure(slot)?.reason ?? '';
    const at = { partition: index, leaderNodeId: broker.nodeId, failureReason };
    if (!(slot instanceof Partition)) {
      return { ...at, logStartOffset: -1, highWatermark: -1, logEndOffset: -1, segmentCount: 0, sizeBytes: 0 };
    }
    const { segmentCount, sizeInBytes: sizeBytes, oldestTimestamp, newestTimestamp } = slot.log.stats();
    const { logStartOffset, highWatermark, logEndOffset } = slot;
    const offsets = { logStartOffset, highWatermark, logEndOffset };
    const times = { oldestTimestampMs: known(oldestTimestamp), newestTimestampMs: known(newestTimestamp) };
    return { ...at, ...offsets, segmentCount, sizeBytes, ...times };
  });
  return { ...summarize(topic), partitions, configs: toConfigMessages(broker, topic.record.overrides) };
}

/** -1 stands for no timestamp. */
function known(timestampMs: number): number | undefined {
  return timestampMs === -1 ? undefined : timestampMs;
}

function toConfigMessages(broker: Broker, overrides: TopicOverrides): TopicMessage['configs'] {
  return describeTopicConfig(overrides, broker.topics.defaults).map(({ key, value, source }) => ({
    key,
    value,
    source: CONFIG_SOURCES[source],
  }));
}

const CONFIG_SOURCES: Readonly<Record<TopicConfigSource, ConfigSourceName>> = {
  default: 'CONFIG_SOURCE_DEFAULT',
  broker: 'CONFIG_SOURCE_BROKER',
  topic: 'CONFIG_SOURCE_TOPIC',
};

function listTopics(broker: Broker, request: ListTopicsRequest): ListTopicsResponse {
  const listed = broker.topics.list().filter((topic) => request.includeInternal || !topic.internal);
  const { items, nextPageToken } = pageByName(listed, (topic) => topic.record.name, request);
  return { topics: items.map(summarize), nextPageToken };
}

async function listOffsets(broker: Broker, request: ListOffsetsRequest): Promise<ListOffsetsResponse> {
  const { topic, partitions } = request;
  const isolation = toIsolation(request.isolationLevel, 'read_uncommitted');
  return { offsets: await broker.listOffsets({ topic, partitions, spec: toOffsetSpec(request), isolation }) };
}

function toOffsetSpec(request: ListOffsetsRequest): OffsetSpec {
  if (request.position === 'OFFSET_POSITION_EARLIEST') return { kind: 'earliest' };
  if (request.position === 'OFFSET_POSITION_LATEST') return { kind: 'latest' };
  if (request.position === 'OFFSET_POSITION_LATEST_BY_TIMESTAMP') return { kind: 'latest-by-timestamp' };
  return { kind: 'time', timestampMs: request.timestampMs };
}

function describeCluster(broker: Broker): DescribeClusterResponse {
  const { clusterId, nodeId, address, version, maxRequestBytes } = broker.describeCluster();
  const node = { nodeId, host: address.host, port: address.port };
  return { clusterId, nodes: [node], brokerVersion: version, maxRequestBytes };
}
