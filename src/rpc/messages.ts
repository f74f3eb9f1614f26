/**
 * The messages of `proto/tidelog/v1` as JavaScript sees them: camelCase fields, int64 as number, enums by name,
 * bytes as Buffer. A test holds these types against the proto files.
 */

export type AcksName = 'ACKS_UNSPECIFIED' | 'ACKS_NONE' | 'ACKS_WRITTEN' | 'ACKS_DURABLE';
export type RecordFormatName = 'RECORD_FORMAT_UNSPECIFIED' | 'RECORD_FORMAT_BATCHES' | 'RECORD_FORMAT_RECORDS';
export type OffsetPositionName =
  | 'OFFSET_POSITION_UNSPECIFIED'
  | 'OFFSET_POSITION_EARLIEST'
  | 'OFFSET_POSITION_LATEST'
  | 'OFFSET_POSITION_LATEST_BY_TIMESTAMP';
export type IsolationLevelName =
  | 'ISOLATION_LEVEL_UNSPECIFIED'
  | 'ISOLATION_LEVEL_READ_UNCOMMITTED'
  | 'ISOLATION_LEVEL_READ_COMMITTED';
export type ConfigSourceName =
  | 'CONFIG_SOURCE_UNSPECIFIED'
  | 'CONFIG_SOURCE_DEFAULT'
  | 'CONFIG_SOURCE_BROKER'
  | 'CONFIG_SOURCE_TOPIC';

export interface RecordHeaderMessage {
  key: string;
  value?: Buffer | undefined;
}

export interface RecordMessage {
  offset: number;
  timestampMs: number;
  key?: Buffer | undefined;
  value?: Buffer | undefined;
  headers: RecordHeaderMessage[];
}

export interface NodeMessage {
  nodeId: number;
  host: string;
  port: number;
}

export interface PartitionMessage {
  partition: number;
  leaderNodeId: number;
  logStartOffset: number;
  highWatermark: number;
  logEndOffset: number;
  segmentCount: number;
  sizeBytes: number;
  failureReason: string;
  oldestTimestampMs?: number | undefined;
  newestTimestampMs?: number | undefined;
}

export interface TopicConfigMessage {
  key: string;
  value: string;
  source: ConfigSourceName;
}

export interface TopicMessage {
  name: string;
  topicId: string;
  partitionCount: number;
  internal: boolean;
  partitions: PartitionMessage[];
  configs: TopicConfigMessage[];
}

export interface CreateTopicRequest {
  name: string;
  partitionCount: number;
  configs: Record<string, string>;
  validateOnly: boolean;
}
export interface CreateTopicResponse {
  topic: TopicMessage;
}
export interface GetTopicRequest {
  name: string;
}
export interface GetTopicResponse {
  topic: TopicMessage;
}
export interface ListTopicsRequest {
  pageSize: number;
  pageToken: string;
  includeInternal: boolean;
}
export interface ListTopicsResponse {
  topics: TopicMessage[];
  nextPageToken: string;
}
export interface UpdateTopicRequest {
  name: string;
  partitionCount: number;
  setConfigs: Record<string, string>;
  resetConfigs: string[];
  validateOnly: boolean;
}
export interface UpdateTopicResponse {
  topic: TopicMessage;
}
export interface RecordsToDeleteMessage {
  partition: number;
  beforeOffset?: number | undefined;
  beforeTimeMs?: number | undefined;
}
export interface DeleteRecordsRequest {
  topic: string;
  topicId: string;
  partitions: RecordsToDeleteMessage[];
}
export interface DeletedRecordsMessage {
  partition: number;
  logStartOffset: number;
}
export interface DeleteRecordsResponse {
  partitions: DeletedRecordsMessage[];
}
export interface DeleteTopicRequest {
  name: string;
}
export type DeleteTopicResponse = Record<string, never>;
export interface ListOffsetsRequest {
  topic: string;
  partitions: number[];
  position: OffsetPositionName;
  timestampMs: number;
  isolationLevel: IsolationLevelName;
}
export interface PartitionOffsetMessage {
  partition: number;
  offset: number;
  timestampMs?: number | undefined;
}
export interface ListOffsetsResponse {
  offsets: PartitionOffsetMessage[];
}
export type DescribeClusterRequest = Record<string, never>;
export interface DescribeClusterResponse {
  clusterId: string;
  nodes: NodeMessage[];
  brokerVersion: string;
  maxRequestBytes: number;
}

export interface ProduceRequest {
  topic: string;
  topicId: string;
  partition: number;
  acks: AcksName;
  batches: Buffer[];
  records: RecordMessage[];
  expectedOffset?: number | undefined;
  transactionalId: string;
  messageIds: string[];
}
export interface ProduceResponse {
  baseOffset: number;
  lastOffset: number;
  logAppendTimeMs: number;
  logStartOffset: number;
  offsets: number[];
  duplicateCount: number;
}
export interface InitProducerRequest {
  transactionalId: string;
  transactionTimeoutMs: number;
  producerId?: number | undefined;
  producerEpoch?: number | undefined;
}
export interface InitProducerResponse {
  producerId: number;
  producerEpoch: number;
}
export interface ProduceStreamRequest {
  correlationId: number;
  request: ProduceRequest;
}
export interface ProduceStreamResult {
  correlationId: number;
  response?: ProduceResponse | undefined;
  error?: StatusMessage | undefined;
}
export interface ProduceStreamResponse {
  results: ProduceStreamResult[];
}

export interface FetchPosition {
  topic: string;
  topicId: string;
  partition: number;
  offset: number;
  endOffset?: number | undefined;
}
export interface FetchRequest {
  positions: FetchPosition[];
  minBytes: number;
  maxWaitMs?: number | undefined;
  maxBytes: number;
  format: RecordFormatName;
  isolationLevel: IsolationLevelName;
}
export interface AbortedTransaction {
  producerId: number;
  firstOffset: number;
  lastOffset: number;
}
export interface FetchedPartition {
  topic: string;
  partition: number;
  highWatermark: number;
  logStartOffset: number;
  nextOffset: number;
  batches: Buffer;
  records: RecordMessage[];
  error?: StatusMessage | undefined;
  lastStableOffset: number;
  abortedTransactions: AbortedTransaction[];
}
export interface FetchResponse {
  partitions: FetchedPartition[];
}
export interface FetchStreamRequest {
  positions: FetchPosition[];
  maxBytes: number;
  format: RecordFormatName;
  isolationLevel: IsolationLevelName;
}
export interface FetchStreamResponse {
  partition: FetchedPartition;
}

/** google.rpc.Status with its details still packed (google.protobuf.Any keeps its snake-case name in protobufjs). */
export interface StatusMessage {
  code: number;
  message: string;
  details: { type_url: string; value: Buffer }[];
}
