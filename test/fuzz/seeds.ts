/** Valid requests of every method: what the mutations begin with. */
import { type BatchOptions, encodeBatch } from '../../src/batch/builder.js';

export const FUZZED_TOPIC = 'fuzzed';
export const COMPACTED_TOPIC = 'fuzzed-compacted';
/** Comes and goes. */
const VICTIM_TOPIC = 'victim';

const T0 = Date.UTC(2026, 0, 1);

function batchOf(count: number, options: BatchOptions = {}): Buffer {
  const records = Array.from({ length: count }, (_, index) => ({
    timestampMs: T0 + index,
    key: Buffer.from(`key-${index % 7}`),
    value: Buffer.from(`{"id":${index}}`),
    headers: [{ key: 'trace', value: Buffer.from('1') }],
  }));
  return encodeBatch(records, options);
}

const RECORD = {
  timestampMs: T0,
  key: Buffer.from('k'),
  value: Buffer.from('v'),
  headers: [{ key: 'h', value: Buffer.from('x') }],
};

/** Initialised before anything else, in this order: their producers have the ids from 0 on. */
export const TRANSACTIONAL_IDS: readonly string[] = ['fuzzed-0', 'fuzzed-1', 'fuzzed-2', 'fuzzed-3'];

/** What may go on in the first transactions of each. */
const PRODUCERS = TRANSACTIONAL_IDS.flatMap((transactionalId, producerId) =>
  [0, 1, 2].map((producerEpoch) => ({ transactionalId, producerId, producerEpoch })),
);

const TRANSACTIONAL: readonly object[] = PRODUCERS.map(({ transactionalId, producerId, producerEpoch }, index) => ({
  topic: FUZZED_TOPIC,
  partition: index % 4,
  acks: 2,
  transactionalId,
  batches: [batchOf(2, { producerId, producerEpoch, baseSequence: 0, transactional: true })],
}));

const PRODUCE: readonly object[] = [
  ...TRANSACTIONAL,
  { topic: FUZZED_TOPIC, partition: 0, batches: [batchOf(2, { producerId: 999, producerEpoch: 3, baseSequence: 7 })] },
  { topic: FUZZED_TOPIC, partition: 1, records: [RECORD, RECORD], messageIds: ['one', 'two'] },
  { topic: FUZZED_TOPIC, partition: 1, acks: 2, batches: [batchOf(3)] },
  { topic: FUZZED_TOPIC, partition: 0, acks: 3, batches: [batchOf(1), batchOf(2)] },
  { topic: FUZZED_TOPIC, partition: 2, acks: 1, records: [RECORD, { ...RECORD, key: undefined }] },
  { topic: COMPACTED_TOPIC, acks: 2, records: [RECORD, { ...RECORD, value: undefined }] },
  { topic: FUZZED_TOPIC, partition: 3, records: [RECORD], expectedOffset: 0 },
];

const POSITIONS: readonly object[] = [
  { topic: FUZZED_TOPIC, partition: 0, offset: 3, endOffset: 20 },
  { topic: COMPACTED_TOPIC, partition: 0, offset: 0, endOffset: 5 },
];

const FETCH: readonly object[] = [
  { positions: POSITIONS, minBytes: 1, maxWaitMs: 0, maxBytes: 4096, format: 1 },
  { positions: POSITIONS, maxWaitMs: 0, format: 2 },
  { positions: POSITIONS, maxWaitMs: 0, format: 2, isolationLevel: 1 },
  { positions: [{ topic: FUZZED_TOPIC, partition: 1, offset: 1 }], maxWaitMs: 0, isolationLevel: 2 },
  { positions: [{ topic: FUZZED_TOPIC, partition: 1, offset: 0 }], minBytes: 100_000_000, maxWaitMs: 5 },
];

const GROUP = { groupId: 'fuzzed-group', memberId: 'c0ffee00-0000-4000-8000-000000000001' };

const COMMITS: readonly object[] = [
  {
    ...GROUP,
    memberEpoch: 1,
    sequence: 1,
    offsets: [
      { topic: FUZZED_TOPIC, partition: 0, offset: 0, metadata: 'm', leaderEpoch: 1 },
      { topic: COMPACTED_TOPIC, partition: 0, offset: 0 },
    ],
  },
  { groupId: 'fuzzed-simple', offsets: [{ topic: FUZZED_TOPIC, partition: 1, offset: 0 }] },
];

/** By the path of the method. */
export const SEEDS: Readonly<Record<string, readonly object[]>> = {
  '/tidelog.v1.AdminService/CreateTopic': [
    { name: VICTIM_TOPIC, partitionCount: 2, configs: { 'retention.ms': '60000', 'cleanup.policy': 'compact' } },
    { name: 'another', partitionCount: 1, validateOnly: true },
  ],
  '/tidelog.v1.AdminService/GetTopic': [{ name: FUZZED_TOPIC }, { name: VICTIM_TOPIC }],
  '/tidelog.v1.AdminService/ListTopics': [
    { pageSize: 1, includeInternal: true },
    { pageSize: 2, pageToken: Buffer.from(FUZZED_TOPIC).toString('base64url') },
  ],
  '/tidelog.v1.AdminService/UpdateTopic': [
    { name: VICTIM_TOPIC, partitionCount: 3, setConfigs: { 'retention.bytes': '1000' }, resetConfigs: ['segment.ms'] },
    { name: FUZZED_TOPIC, setConfigs: { 'flush.ms': '10' }, validateOnly: true },
  ],
  '/tidelog.v1.AdminService/DeleteTopic': [{ name: VICTIM_TOPIC }],
  '/tidelog.v1.AdminService/ListOffsets': [
    { topic: FUZZED_TOPIC, partitions: [0, 1, 2], position: 2 },
    { topic: FUZZED_TOPIC, timestampMs: T0, isolationLevel: 2 },
    { topic: COMPACTED_TOPIC, position: 3 },
  ],
  '/tidelog.v1.AdminService/DeleteRecords': [
    { topic: FUZZED_TOPIC, partitions: [{ partition: 3, beforeOffset: 1 }] },
    { topic: FUZZED_TOPIC, partitions: [{ partition: 2, beforeTimeMs: T0 }] },
  ],
  '/tidelog.v1.AdminService/DescribeCluster': [{}],
  '/tidelog.v1.ProduceService/InitProducer': [
    {},
    { transactionalId: TRANSACTIONAL_IDS[3], transactionTimeoutMs: 10_000 },
    { transactionalId: TRANSACTIONAL_IDS[2], producerId: 2, producerEpoch: 0 },
  ],
  '/tidelog.v1.ProduceService/Produce': PRODUCE,
  '/tidelog.v1.ProduceService/ProduceStream': PRODUCE.map((request, index) => ({ correlationId: index + 1, request })),
  '/tidelog.v1.FetchService/Fetch': FETCH,
  '/tidelog.v1.FetchService/FetchStream': FETCH,
  '/tidelog.v1.AdminService/ListGroups': [{}, { pageSize: 1, pageToken: Buffer.from('fuzzed').toString('base64url') }],
  '/tidelog.v1.AdminService/GetGroup': [{ groupId: GROUP.groupId }, { groupId: 'fuzzed-simple' }],
  '/tidelog.v1.AdminService/DeleteGroup': [{ groupId: 'fuzzed-simple' }, { groupId: GROUP.groupId }],
  '/tidelog.v1.AdminService/ResetGroupOffsets': [
    { groupId: GROUP.groupId, topic: FUZZED_TOPIC, partitions: [0, 1], position: 1 },
    { groupId: 'fuzzed-reset', topic: COMPACTED_TOPIC, timestampMs: T0 },
    { groupId: 'fuzzed-reset', topic: FUZZED_TOPIC, shiftBy: -2, validateOnly: true },
  ],
  '/tidelog.v1.GroupService/JoinGroup': [
    { ...GROUP, clientId: 'fuzz', subscription: { topics: [FUZZED_TOPIC, COMPACTED_TOPIC] }, assignor: 'range' },
    {
      groupId: 'fuzzed-group',
      memberId: 'c0ffee00-0000-4000-8000-000000000002',
      instanceId: 'instance',
      subscription: { topicPattern: 'fuzzed.*' },
      sessionTimeoutMs: 10_000,
      rebalanceTimeoutMs: 5_000,
    },
  ],
  '/tidelog.v1.GroupService/Heartbeat': [
    { ...GROUP, memberEpoch: 1, owned: [{ topic: FUZZED_TOPIC, partitions: [0, 1, 2, 3] }], maxWaitMs: 5 },
    { ...GROUP, memberEpoch: 2, subscription: { topics: [FUZZED_TOPIC] } },
  ],
  '/tidelog.v1.GroupService/LeaveGroup': [
    { ...GROUP },
    { groupId: 'fuzzed-group', memberId: 'c0ffee00-0000-4000-8000-000000000002', temporary: true },
  ],
  '/tidelog.v1.GroupService/CommitOffsets': COMMITS,
  '/tidelog.v1.GroupService/CommitOffsetsStream': COMMITS.map((request, index) => ({ correlationId: index, request })),
  '/tidelog.v1.GroupService/FetchOffsets': [
    { groupId: 'fuzzed-simple' },
    { ...GROUP, memberEpoch: 1, topics: [{ topic: FUZZED_TOPIC, partitions: [0, 1, 2, 3] }] },
  ],
  '/tidelog.v1.TransactionService/AddOffsets': PRODUCERS.map((producer) => ({
    ...producer,
    groupId: 'fuzzed-simple',
    offsets: [{ topic: FUZZED_TOPIC, partition: 1, offset: 0, metadata: 'm' }],
  })),
  '/tidelog.v1.TransactionService/Commit': PRODUCERS,
  '/tidelog.v1.TransactionService/Abort': PRODUCERS,
  '/tidelog.v1.AdminService/ListTransactions': [
    { pageSize: 1, states: [1, 2] },
    { pageToken: Buffer.from(TRANSACTIONAL_IDS[1]!).toString('base64url') },
  ],
  '/tidelog.v1.AdminService/GetTransaction': [{ transactionalId: TRANSACTIONAL_IDS[0] }],
  '/tidelog.v1.AdminService/AbortTransaction': [{ transactionalId: TRANSACTIONAL_IDS[0] }],
  '/tidelog.v1.AdminService/ListHangingTransactions': [
    {},
    { pageSize: 1, pageToken: Buffer.from(FUZZED_TOPIC).toString('base64url') },
  ],
  '/tidelog.v1.AdminService/DescribeProducers': [
    { topic: FUZZED_TOPIC, partition: 1 },
    { topic: FUZZED_TOPIC, pageSize: 1, pageToken: Buffer.from('0').toString('base64url') },
  ],
  '/grpc.health.v1.Health/Check': [{ service: 'tidelog.v1.AdminService' }],
  '/grpc.health.v1.Health/Watch': [{ service: '' }],
  '/grpc.health.v1.Health/List': [{}],
  ...reflection('grpc.reflection.v1'),
  ...reflection('grpc.reflection.v1alpha'),
};

function reflection(packageName: string): Record<string, readonly object[]> {
  const requests = [
    { listServices: '' },
    { fileByFilename: 'tidelog/v1/topic.proto' },
    { fileContainingSymbol: 'tidelog.v1.AdminService' },
    { fileContainingExtension: { containingType: 'tidelog.v1.Topic', extensionNumber: 1 } },
    { allExtensionNumbersOfType: 'tidelog.v1.Topic' },
  ];
  return { [`/${packageName}.ServerReflection/ServerReflectionInfo`]: requests };
}
