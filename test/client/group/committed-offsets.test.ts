/** Where a member begins to read: what was committed, the policy, or an error that says why neither will do. */
import { expect, test } from 'vitest';
import type { Admin, OffsetSpec } from '../../../src/client/admin.js';
import { Channel } from '../../../src/client/channel.js';
import type { ConsumeFrom } from '../../../src/client/consumer-options.js';
import {
  type CommittedOffsetsContext,
  type NoStartPosition,
  type StartPolicy,
  type StartPosition,
  startPositions,
} from '../../../src/client/group/committed-offsets.js';
import { type CommittedOffset, fetchCommittedOffsets } from '../../../src/client/group/fetch-offsets.js';
import type { AssignedPartition } from '../../../src/client/group/types.js';
import { LogError, type Reason } from '../../../src/core/errors.js';
import { type RecordingLogger, recordingLogger } from '../../support/recording-logger.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { SkippingClock } from '../support/skipping-clock.js';
import { ScriptedCoordinator, TOPIC_ID } from './support/scripted-coordinator.js';

/**
 * Each log holds the offsets 100 to 199, of which a transaction that is not decided has those from 190 on, and the first
 * record of the date that is asked for is 150.
 */
const LOG = { earliest: 100, lastStable: 190, latest: 200, dated: 150 };

interface Setting extends AsyncDisposable {
  readonly coordinator: ScriptedCoordinator;
  readonly clock: SkippingClock;
  readonly logger: RecordingLogger;
  readonly context: CommittedOffsetsContext;
  /** Of the topic that has the name now. */
  topicId: string;
  listed: OffsetSpec[];
  listFailure: LogError | undefined;
  /** Starts for the policy with what the coordinator has for partition 0. */
  start(from: ConsumeFrom | undefined, committed: Partial<CommittedOffset>): Promise<StartPosition | NoStartPosition>;
}

const policy = (from?: ConsumeFrom): StartPolicy => ({ from, isolation: 'read_committed' });

const assigned = (partition: number, topic = 'words', topicId = TOPIC_ID): AssignedPartition => ({
  topic,
  topicId,
  partition,
  assignmentEpoch: 1,
});

function committedOf(
  { topic, topicId, partition }: AssignedPartition,
  fields: Partial<CommittedOffset>,
): CommittedOffset {
  const none = {
    offset: -1,
    metadata: '',
    commitTimeMs: 0,
    topicCommitted: false,
    earlierTopicId: '',
    addedLater: false,
  };
  return { topic, topicId, partition, ...none, ...fields };
}

async function setUp(): Promise<Setting> {
  const coordinator = await ScriptedCoordinator.start();
  const clock = new SkippingClock();
  const logger = recordingLogger();
  const channel = new Channel(`127.0.0.1:${coordinator.port}`, 'tester', clock);
  const admin: Pick<Admin, 'listOffsets' | 'getTopic'> = {
    async listOffsets(_topic, spec, partitions = [], { isolation } = {}) {
      t.listed.push(spec);
      if (t.listFailure !== undefined) throw t.listFailure;
      const latest = isolation === 'read_committed' ? LOG.lastStable : LOG.latest;
      const offset = spec instanceof Date ? LOG.dated : spec === 'earliest' ? LOG.earliest : latest;
      return partitions.map((partition) => ({ partition, offset, timestampMs: undefined }));
    },
    async getTopic(name) {
      return { name, topicId: t.topicId, partitionCount: 1, internal: false, partitions: [], configs: [] };
    },
  };
  const runtime = { clock, logger, random: { next: () => 0.5, uuid: () => '' } };
  const t: Setting = {
    coordinator,
    clock,
    logger,
    context: { channel, admin, runtime, requestTimeoutMs: 30_000 },
    topicId: TOPIC_ID,
    listed: [],
    listFailure: undefined,
    async start(from, committed) {
      const starting = startPositions('billing', [assigned(0)], policy(from), t.context);
      (await coordinator.next('fetch')).answer({ offsets: [committedOf(assigned(0), committed)] });
      return (await starting)[0] as StartPosition | NoStartPosition;
    },
    async [Symbol.asyncDispose]() {
      coordinator.stop();
      channel.close();
    },
  };
  return t;
}

const DATE = new Date(1_000);
const EARLIER = '00000000-0000-4000-8000-00000000beef';

test.each<[string, ConsumeFrom | undefined, Partial<CommittedOffset>, number, boolean]>([
  ['goes on at what was committed', undefined, { offset: 120 }, 120, false],
  ['goes on at what was committed, whatever the policy', 'latest', { offset: 120 }, 120, false],
  ['goes on at the log start offset', undefined, { offset: 100 }, 100, false],
  ['goes on at the end', 'earliest', { offset: 200 }, 200, false],
  ['begins at the earliest record by default', undefined, {}, 100, false],
  ['begins at the earliest record', 'earliest', {}, 100, false],
  ['begins at the end of what is decided, which is committed at once', 'latest', {}, 190, true],
  ['begins at a time, which is committed at once', DATE, {}, 150, true],
  ['begins at the end beside partitions that were committed already', 'latest', { topicCommitted: true }, 190, true],
  ['reads a partition that was added later from its beginning', 'latest', { addedLater: true }, 100, false],
  [
    'reads an added partition from its beginning, earlier topics or not',
    DATE,
    { addedLater: true, topicCommitted: true, earlierTopicId: EARLIER },
    100,
    false,
  ],
])('a member %s (invariant 7)', async (_, from, committed, offset, commitNow) => {
  await using t = await setUp();
  expect(await t.start(from, committed)).toEqual({ partition: assigned(0), offset, commitNow });
  expect(t.logger.messages('warn')).toEqual([]);
});

test.each<[ConsumeFrom, Partial<CommittedOffset>, number, boolean]>([
  ['earliest', { offset: 60 }, 100, false],
  ['latest', { offset: 60 }, 190, true],
  [DATE, { offset: 60 }, 150, true],
  ['latest', { earlierTopicId: EARLIER }, 190, true],
  ['earliest', { earlierTopicId: EARLIER }, 100, false],
])(
  'a policy of %s that overrides offsets of no use (%j) is followed with a warning',
  async (from, committed, offset, commitNow) => {
    await using t = await setUp();
    expect(await t.start(from, committed)).toEqual({ partition: assigned(0), offset, commitNow });
    const [line] = t.logger.lines;
    expect(line?.level).toBe('warn');
    expect(line?.fields).toMatchObject({ group: 'billing', topic: 'words', partition: 0 });
    if (committed.offset !== undefined) expect(line?.fields.skipped).toBe(offset - committed.offset);
  },
);

test.each<[string, ConsumeFrom | undefined, Partial<CommittedOffset>, Reason]>([
  ['lies below the log', undefined, { offset: 99 }, 'OFFSET_OUT_OF_RANGE'],
  ['lies above the log', undefined, { offset: 201 }, 'LOG_TRUNCATED'],
  ['lies above the log, whatever the policy', 'earliest', { offset: 201 }, 'LOG_TRUNCATED'],
  ['was of an earlier topic', undefined, { earlierTopicId: EARLIER }, 'UNKNOWN_TOPIC_ID'],
])('a committed offset that %s is an error, never a silent jump (invariant 7)', async (_, from, committed, reason) => {
  await using t = await setUp();
  const start = (await t.start(from, committed)) as NoStartPosition;
  expect(start).toMatchObject({ temporary: false, error: { reason } });
  expect(start.error.message).toContain('tidelog group reset-offsets billing');
  const range = { log_start_offset: '100', high_watermark: '200', offset: String(committed.offset) };
  const about = reason === 'UNKNOWN_TOPIC_ID' ? { earlier_topic_id: EARLIER, topic_id: TOPIC_ID } : range;
  expect(start.error.metadata).toMatchObject({ group: 'billing', topic: 'words', partition: '0', ...about });
});

test('an offset that is out of range because the topic was recreated is no fault of the group', async () => {
  await using t = await setUp();
  t.topicId = EARLIER;
  expect(await t.start(undefined, { offset: 201 })).toMatchObject({
    temporary: true,
    error: { reason: 'UNKNOWN_TOPIC_ID', metadata: { requested_topic_id: TOPIC_ID, topic_id: EARLIER } },
  });
});

test('a topic that is gone leaves its partitions without a position, and no others', async () => {
  await using t = await setUp();
  const { listOffsets } = t.context.admin;
  const other = assigned(4, 'other', EARLIER);
  const admin: CommittedOffsetsContext['admin'] = {
    ...t.context.admin,
    listOffsets: async (topic, ...rest) => {
      if (topic === 'words') throw new LogError('UNKNOWN_TOPIC_OR_PARTITION', 'gone');
      return listOffsets(topic, ...rest);
    },
  };
  const starting = startPositions('billing', [assigned(1), other, assigned(0)], policy(undefined), {
    ...t.context,
    admin,
  });
  const fetch = await t.coordinator.next('fetch');
  expect(fetch.request).toEqual({
    groupId: 'billing',
    memberId: '',
    memberEpoch: 0,
    topics: [
      { topic: 'words', topicId: TOPIC_ID, partitions: [1, 0] },
      { topic: 'other', topicId: EARLIER, partitions: [4] },
    ],
  });
  fetch.answer({ offsets: [committedOf(other, { offset: 130 })] });
  const gone = { temporary: true, error: { reason: 'UNKNOWN_TOPIC_OR_PARTITION' } };
  expect(await starting).toMatchObject([
    { partition: assigned(1), ...gone },
    { partition: other, offset: 130, commitNow: false },
    { partition: assigned(0), ...gone },
  ]);
});

test('a topic that is gone before its offsets are asked for leaves its partitions without a position, and no others', async () => {
  await using t = await setUp();
  const refusals: Record<string, Reason> = { a: 'UNKNOWN_TOPIC_ID', d: 'UNKNOWN_TOPIC_OR_PARTITION' };
  const all = ['a', 'b', 'c', 'd'].map((topic, i) => assigned(0, topic, `00000000-0000-4000-8000-00000000000${i}`));
  let isOver = false;
  const starting = startPositions('billing', all, policy('earliest'), t.context).finally(() => {
    isOver = true;
  });
  while (!isOver) {
    await until(() => isOver || t.coordinator.arrived.fetch > 0, 'it asks');
    if (isOver) break;
    const fetch = await t.coordinator.next('fetch');
    t.coordinator.arrived.fetch = 0;
    const { topics } = fetch.request;
    const gone = topics.find(({ topic }) => refusals[topic] !== undefined);
    // As the broker does: one topic that is gone fails a question about several.
    if (gone !== undefined) fetch.fail(new LogError(refusals[gone.topic]!, 'deleted'));
    else
      fetch.answer({ offsets: topics.map((one) => committedOf(assigned(0, one.topic, one.topicId), { offset: 130 })) });
  }
  expect(await starting).toMatchObject([
    { partition: all[0], temporary: true, error: { reason: 'UNKNOWN_TOPIC_ID' } },
    { partition: all[1], offset: 130 },
    { partition: all[2], offset: 130 },
    { partition: all[3], temporary: true, error: { reason: 'UNKNOWN_TOPIC_OR_PARTITION' } },
  ]);
});

test('more partitions than a request takes are asked for in several', async () => {
  await using t = await setUp();
  const all = Array.from({ length: 21_000 }, (_, i) =>
    assigned(i % 12_000, i < 12_000 ? 'words' : 'other', i < 12_000 ? TOPIC_ID : EARLIER),
  );
  const starting = startPositions('billing', all, policy(undefined), t.context);
  let answered = 0;
  while (answered < all.length) {
    const fetch = await t.coordinator.next('fetch');
    const count = fetch.request.topics.reduce((sum, { partitions }) => sum + partitions.length, 0);
    expect(count).toBeLessThanOrEqual(10_000);
    answered += count;
    fetch.answer({ offsets: [] });
  }
  const starts = await starting;
  expect(starts.map(({ partition }) => partition)).toEqual(all);
  expect(starts.every((start) => 'offset' in start && start.offset === 100)).toBe(true);
});

test('a coordinator that is loading is waited for, however long it takes', async () => {
  await using t = await setUp();
  const starting = startPositions('billing', [assigned(0)], policy(undefined), t.context);
  for (let tries = 1; tries <= 6; tries++) {
    (await t.coordinator.next('fetch')).fail(
      new LogError('COORDINATOR_LOAD_IN_PROGRESS', 'loading', { retryAfterMs: 7_000 }),
    );
    await until(() => {
      t.clock.skip(500);
      return t.coordinator.arrived.fetch > tries;
    }, 'it asks again');
  }
  (await t.coordinator.next('fetch')).answer({ offsets: [committedOf(assigned(0), { offset: 120 })] });
  expect(await starting).toMatchObject([{ offset: 120 }]);
});

test('offsets that cannot be listed for the time being are asked for again', async () => {
  await using t = await setUp();
  t.listFailure = new LogError('BROKER_UNAVAILABLE', 'restarting');
  const starting = t.start('latest', {});
  await until(() => t.listed.length === 3 && t.clock.timerCount === 3, 'it backs off');
  t.listFailure = undefined;
  t.clock.skip(1_000);
  expect(await starting).toMatchObject({ offset: 190 });
});

test('who reads what is not decided begins at the high watermark', async () => {
  await using t = await setUp();
  const policy: StartPolicy = { from: 'latest', isolation: 'read_uncommitted' };
  const starting = startPositions('billing', [assigned(0)], policy, t.context);
  (await t.coordinator.next('fetch')).answer({ offsets: [] });
  expect(await starting).toMatchObject([{ offset: 200, commitNow: true }]);
});

test('partitions whose offsets wait for a transaction are to be asked for again, and no others wait for it', async () => {
  await using t = await setUp();
  const undecided = new Set([3, 11]);
  const all = Array.from({ length: 16 }, (_, partition) => assigned(partition));
  let isOver = false;
  const starting = startPositions('billing', all, policy(), t.context).finally(() => {
    isOver = true;
  });
  let requests = 0;
  while (!isOver) {
    await until(() => isOver || t.coordinator.arrived.fetch > 0, 'it asks');
    if (isOver) break;
    const fetch = await t.coordinator.next('fetch');
    t.coordinator.arrived.fetch = 0;
    requests++;
    const partitions = fetch.request.topics.flatMap((one) => one.partitions);
    if (partitions.some((partition) => undecided.has(partition))) {
      fetch.fail(new LogError('UNSTABLE_OFFSET_COMMIT', 'not decided'));
    } else fetch.answer({ offsets: partitions.map((i) => committedOf(assigned(i), { offset: 130 })) });
  }
  const unknown = { temporary: true, error: { reason: 'UNSTABLE_OFFSET_COMMIT' } };
  expect(await starting).toMatchObject(
    all.map((partition) => ({ partition, ...(undecided.has(partition.partition) ? unknown : { offset: 130 }) })),
  );
  expect(requests).toBeLessThan(20);
});

test('the wait for a position ends with its signal', async () => {
  await using t = await setUp();
  const abort = new AbortController();
  const starting = startPositions('billing', [assigned(0)], policy(undefined), t.context, abort.signal);
  await t.coordinator.next('fetch');
  abort.abort();
  await rejection(starting, 'CANCELLED');
  expect(await startPositions('billing', [], policy(undefined), t.context)).toEqual([]);
});

test('a group that may not be asked for fails as a whole', async () => {
  await using t = await setUp();
  const fetching = fetchCommittedOffsets('', [], t.context);
  (await t.coordinator.next('fetch')).fail(new LogError('INVALID_GROUP_ID', 'empty'));
  await rejection(fetching, 'INVALID_GROUP_ID');
});
