/** Tidelog's SDK. The broker that runs inside a process is at `tidelog/broker`. */
export type { RecordHeader } from './batch/builder.js';
export type { Codec } from './batch/layout.js';
export type {
  Admin,
  ClusterDescription,
  ConfigValue,
  DeletedRecords,
  ListOffsetsOptions,
  NewTopic,
  OffsetSpec,
  PartitionDescription,
  PartitionOffset,
  RecordsToDelete,
  TopicDescription,
  TopicSummary,
  TopicUpdate,
} from './client/admin.js';
export type { CallOptions } from './client/admin-calls.js';
export type {
  GroupDescription,
  GroupMemberDescription,
  GroupOffsetReset,
  GroupOffsetResetResult,
  GroupPartitionDescription,
  GroupState,
  GroupSummary,
  PartitionOffsetReset,
  ResetTarget,
} from './client/admin-groups.js';
export type {
  HangingTransaction,
  ListTransactionsOptions,
  ProducerDescription,
  TransactionDescription,
  TransactionState,
  TransactionSummary,
} from './client/admin-transactions.js';
export { type Client, connect } from './client/client.js';
export type { PartitionRange, SendManyResult, SendResult } from './client/completions.js';
export type { CommittedPosition, Consumer, SeekTo } from './client/consumer.js';
export type {
  Assignor,
  ConsumeFrom,
  ConsumerOptions,
  HandlingOrder,
  RunOptions,
} from './client/consumer-options.js';
export type { ConsumedBatch } from './client/group/consumed.js';
export type { ConsumerEvent, PartitionsListener } from './client/group/consumer-events.js';
export type { Handler } from './client/group/runner.js';
export type { Consumed } from './client/group/transactional-offsets.js';
export type { TopicPartition } from './client/group/types.js';
export type { Isolation } from './client/isolation.js';
export { murmur2 } from './client/murmur2.js';
export type { Acks, ConnectOptions, ProducerOptions } from './client/options.js';
export { keyPartitioner, type Partitioner } from './client/partitioner.js';
export type { Producer, SendOptions } from './client/producer.js';
export type { ReadFrom, ReadOptions, ReadTo } from './client/read-options.js';
export type { TopicReader } from './client/reader.js';
export type { BatchCursor, ReadRecord, RecordBatch } from './client/record-batch.js';
export type { HeadersInput, RecordInput } from './client/record-input.js';
export {
  bytes,
  json,
  nullable,
  type Scratch,
  type Serde,
  string,
  type Topic,
  type TopicSerdes,
  topic,
} from './client/serdes.js';
export { type KeyOf, type Subscribed, type TopicPattern, topicPattern, type ValueOf } from './client/topic-pattern.js';
export type { Transaction } from './client/transaction.js';
export type { TransactionalProducerOptions } from './client/transaction-options.js';
export type { TransactionalProducer, TransactionOptions } from './client/transactional-producer.js';
export type { Clock, Timer } from './core/clock.js';
export { type ErrorMetadata, type GrpcCodeName, LogError, type Outcome, type Reason } from './core/errors.js';
export type { Logger } from './core/logger.js';
export type { Random } from './core/random.js';
