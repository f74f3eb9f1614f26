/** The messages of transactions and producers, as `messages.ts` has those of the other services. */
import type { OffsetToCommitMessage, RefusedOffsetMessage } from './group-messages.js';

export type TransactionStateName =
  | 'TRANSACTION_STATE_UNSPECIFIED'
  | 'TRANSACTION_STATE_EMPTY'
  | 'TRANSACTION_STATE_ONGOING'
  | 'TRANSACTION_STATE_PREPARE_COMMIT'
  | 'TRANSACTION_STATE_PREPARE_ABORT'
  | 'TRANSACTION_STATE_COMPLETE_COMMIT'
  | 'TRANSACTION_STATE_COMPLETE_ABORT';

export interface AddOffsetsRequest {
  transactionalId: string;
  producerId: number;
  producerEpoch: number;
  groupId: string;
  memberId: string;
  memberEpoch: number;
  offsets: OffsetToCommitMessage[];
}
export interface AddOffsetsResponse {
  refused: RefusedOffsetMessage[];
}
export interface CommitRequest {
  transactionalId: string;
  producerId: number;
  producerEpoch: number;
}
export interface CommitResponse {
  producerId: number;
  producerEpoch: number;
}
export interface AbortRequest {
  transactionalId: string;
  producerId: number;
  producerEpoch: number;
}
export interface AbortResponse {
  producerId: number;
  producerEpoch: number;
}

export interface TransactionPartitionMessage {
  topic: string;
  topicId: string;
  partition: number;
}
export interface TransactionMessage {
  transactionalId: string;
  state: TransactionStateName;
  producerId: number;
  producerEpoch: number;
  timeoutMs: number;
  startTimeMs?: number | undefined;
  updateTimeMs: number;
  partitions: TransactionPartitionMessage[];
  groupIds: string[];
}
export interface ListTransactionsRequest {
  pageSize: number;
  pageToken: string;
  states: TransactionStateName[];
}
export interface ListTransactionsResponse {
  transactions: TransactionMessage[];
  nextPageToken: string;
}
export interface GetTransactionRequest {
  transactionalId: string;
}
export interface GetTransactionResponse {
  transaction: TransactionMessage;
}
export interface AbortTransactionRequest {
  transactionalId: string;
}
export interface AbortTransactionResponse {
  transaction: TransactionMessage;
}
export interface ListHangingTransactionsRequest {
  pageSize: number;
  pageToken: string;
}
export interface HangingTransactionMessage {
  topic: string;
  partition: number;
  producerId: number;
  producerEpoch: number;
  firstOffset: number;
}
export interface ListHangingTransactionsResponse {
  transactions: HangingTransactionMessage[];
  nextPageToken: string;
}
export interface DescribeProducersRequest {
  topic: string;
  partition: number;
  pageSize: number;
  pageToken: string;
}
export interface ProducerStateMessage {
  producerId: number;
  producerEpoch: number;
  lastSequence: number;
  lastTimestampMs: number;
  openTransactionFirstOffset?: number | undefined;
  openTransactionStartTimeMs?: number | undefined;
}
export interface DescribeProducersResponse {
  producers: ProducerStateMessage[];
  nextPageToken: string;
}
