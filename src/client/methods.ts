/** The RPCs that the client calls, with the types of their messages. */
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import type {
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  CommitOffsetsStreamRequest,
  CommitOffsetsStreamResponse,
  DeleteGroupRequest,
  DeleteGroupResponse,
  FetchOffsetsRequest,
  FetchOffsetsResponse,
  GetGroupRequest,
  GetGroupResponse,
  HeartbeatRequest,
  HeartbeatResponse,
  JoinGroupRequest,
  JoinGroupResponse,
  LeaveGroupRequest,
  LeaveGroupResponse,
  ListGroupsRequest,
  ListGroupsResponse,
  ResetGroupOffsetsRequest,
  ResetGroupOffsetsResponse,
} from '../rpc/group-messages.js';
import type {
  CreateTopicRequest,
  CreateTopicResponse,
  DeleteRecordsRequest,
  DeleteRecordsResponse,
  DeleteTopicRequest,
  DeleteTopicResponse,
  DescribeClusterRequest,
  DescribeClusterResponse,
  FetchStreamRequest,
  FetchStreamResponse,
  GetTopicRequest,
  GetTopicResponse,
  InitProducerRequest,
  InitProducerResponse,
  ListOffsetsRequest,
  ListOffsetsResponse,
  ListTopicsRequest,
  ListTopicsResponse,
  ProduceStreamRequest,
  ProduceStreamResponse,
  UpdateTopicRequest,
  UpdateTopicResponse,
} from '../rpc/messages.js';
import { AdminService, FetchService, GroupService, ProduceService, TransactionService } from '../rpc/proto.js';
import type {
  AbortRequest,
  AbortResponse,
  AbortTransactionRequest,
  AbortTransactionResponse,
  AddOffsetsRequest,
  AddOffsetsResponse,
  CommitRequest,
  CommitResponse,
  DescribeProducersRequest,
  DescribeProducersResponse,
  GetTransactionRequest,
  GetTransactionResponse,
  ListHangingTransactionsRequest,
  ListHangingTransactionsResponse,
  ListTransactionsRequest,
  ListTransactionsResponse,
} from '../rpc/transaction-messages.js';

export type Method<Request, Response> = MethodDefinition<Request, Response>;

function method<Request, Response>(service: ServiceDefinition, name: string): Method<Request, Response> {
  const definition = service[name];
  if (definition === undefined) throw new Error(`The proto files define no method ${name}.`);
  return definition as Method<Request, Response>;
}

export const methods: {
  readonly createTopic: Method<CreateTopicRequest, CreateTopicResponse>;
  readonly getTopic: Method<GetTopicRequest, GetTopicResponse>;
  readonly listTopics: Method<ListTopicsRequest, ListTopicsResponse>;
  readonly updateTopic: Method<UpdateTopicRequest, UpdateTopicResponse>;
  readonly deleteRecords: Method<DeleteRecordsRequest, DeleteRecordsResponse>;
  readonly deleteTopic: Method<DeleteTopicRequest, DeleteTopicResponse>;
  readonly listOffsets: Method<ListOffsetsRequest, ListOffsetsResponse>;
  readonly describeCluster: Method<DescribeClusterRequest, DescribeClusterResponse>;
  readonly produceStream: Method<ProduceStreamRequest, ProduceStreamResponse>;
  readonly fetchStream: Method<FetchStreamRequest, FetchStreamResponse>;
  readonly listGroups: Method<ListGroupsRequest, ListGroupsResponse>;
  readonly getGroup: Method<GetGroupRequest, GetGroupResponse>;
  readonly deleteGroup: Method<DeleteGroupRequest, DeleteGroupResponse>;
  readonly resetGroupOffsets: Method<ResetGroupOffsetsRequest, ResetGroupOffsetsResponse>;
  readonly joinGroup: Method<JoinGroupRequest, JoinGroupResponse>;
  readonly heartbeat: Method<HeartbeatRequest, HeartbeatResponse>;
  readonly leaveGroup: Method<LeaveGroupRequest, LeaveGroupResponse>;
  readonly commitOffsets: Method<CommitOffsetsRequest, CommitOffsetsResponse>;
  readonly commitOffsetsStream: Method<CommitOffsetsStreamRequest, CommitOffsetsStreamResponse>;
  readonly fetchOffsets: Method<FetchOffsetsRequest, FetchOffsetsResponse>;
  readonly initProducer: Method<InitProducerRequest, InitProducerResponse>;
  readonly addOffsets: Method<AddOffsetsRequest, AddOffsetsResponse>;
  readonly commit: Method<CommitRequest, CommitResponse>;
  readonly abort: Method<AbortRequest, AbortResponse>;
  readonly listTransactions: Method<ListTransactionsRequest, ListTransactionsResponse>;
  readonly getTransaction: Method<GetTransactionRequest, GetTransactionResponse>;
  readonly abortTransaction: Method<AbortTransactionRequest, AbortTransactionResponse>;
  readonly listHangingTransactions: Method<ListHangingTransactionsRequest, ListHangingTransactionsResponse>;
  readonly describeProducers: Method<DescribeProducersRequest, DescribeProducersResponse>;
} = {
  createTopic: method(AdminService, 'CreateTopic'),
  getTopic: method(AdminService, 'GetTopic'),
  listTopics: method(AdminService, 'ListTopics'),
  updateTopic: method(AdminService, 'UpdateTopic'),
  deleteRecords: method(AdminService, 'DeleteRecords'),
  deleteTopic: method(AdminService, 'DeleteTopic'),
  listOffsets: method(AdminService, 'ListOffsets'),
  describeCluster: method(AdminService, 'DescribeCluster'),
  produceStream: method(ProduceService, 'ProduceStream'),
  fetchStream: method(FetchService, 'FetchStream'),
  listGroups: method(AdminService, 'ListGroups'),
  getGroup: method(AdminService, 'GetGroup'),
  deleteGroup: method(AdminService, 'DeleteGroup'),
  resetGroupOffsets: method(AdminService, 'ResetGroupOffsets'),
  joinGroup: method(GroupService, 'JoinGroup'),
  heartbeat: method(GroupService, 'Heartbeat'),
  leaveGroup: method(GroupService, 'LeaveGroup'),
  commitOffsets: method(GroupService, 'CommitOffsets'),
  commitOffsetsStream: method(GroupService, 'CommitOffsetsStream'),
  fetchOffsets: method(GroupService, 'FetchOffsets'),
  initProducer: method(ProduceService, 'InitProducer'),
  addOffsets: method(TransactionService, 'AddOffsets'),
  commit: method(TransactionService, 'Commit'),
  abort: method(TransactionService, 'Abort'),
  listTransactions: method(AdminService, 'ListTransactions'),
  getTransaction: method(AdminService, 'GetTransaction'),
  abortTransaction: method(AdminService, 'AbortTransaction'),
  listHangingTransactions: method(AdminService, 'ListHangingTransactions'),
  describeProducers: method(AdminService, 'DescribeProducers'),
};
