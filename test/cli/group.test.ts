/** What the commands of `tidelog group` print, over a broker that answers as told. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Confirm } from '../../src/cli/confirm.js';
import { Interrupted } from '../../src/cli/failure.js';
import { LogError } from '../../src/core/errors.js';
import { FakeBroker } from '../client/support/fake-broker.js';
import { type Executed, executed } from './in-process.js';

let fake: FakeBroker;

beforeAll(async () => {
  fake = await FakeBroker.start();
});

afterAll(() => fake.stop());

/** @param confirm who sits at the terminal, if anybody */
function run(args: readonly string[], confirm?: Confirm): Promise<Executed> {
  return executed(fake.address, ['group', ...args], confirm);
}

const MEMBER_A = '6f0c1a52-0000-4000-8000-00000000000a';
const MEMBER_B = '6f0c1a52-0000-4000-8000-00000000000b';

const members = [
  {
    memberId: MEMBER_A,
    instanceId: 'w1',
    clientId: 'billing',
    host: '10.0.0.7',
    memberEpoch: 11,
    topics: ['a', 'b'],
    partitionCount: 2,
    away: true,
  },
  {
    memberId: MEMBER_B,
    clientId: 'billing',
    host: '10.0.0.8',
    memberEpoch: 12,
    topicPattern: '[ab].*',
    partitionCount: 1,
    away: false,
  },
];

const partitions = [
  {
    topic: 'a',
    topicId: 'ia',
    partition: 0,
    committedOffset: 120,
    logStartOffset: 0,
    highWatermark: 150,
    lag: 30,
    lagMs: 1234,
    memberId: MEMBER_A,
    commitTimeMs: 0,
  },
  {
    topic: 'a',
    topicId: 'ia',
    partition: 1,
    logStartOffset: 0,
    highWatermark: 1500,
    lag: 1500,
    lagMs: 172_800_000,
    memberId: MEMBER_B,
  },
  {
    topic: 'a',
    topicId: 'ia',
    partition: 2,
    committedOffset: 5,
    logStartOffset: 8,
    highWatermark: 8,
    lag: 3,
    commitTimeMs: 0,
  },
  {
    topic: 'b',
    topicId: 'ib',
    partition: 0,
    committedOffset: 9,
    logStartOffset: 0,
    highWatermark: 7,
    lag: 0,
    lagMs: 0,
    memberId: MEMBER_A,
    commitTimeMs: 0,
  },
  { topic: 'gone', topicId: 'ig', partition: 0, committedOffset: 4, commitTimeMs: 0, metadata: 'note' },
];

const group = {
  groupId: 'billing',
  state: 'GROUP_STATE_STABLE',
  epoch: 12,
  assignor: 'uniform',
  memberCount: 2,
  members,
  partitions,
};

test('groups are listed', async () => {
  fake.onGroups = () => ({ groups: [group, { ...group, groupId: 'b2', state: 'GROUP_STATE_EMPTY', memberCount: 0 }] });
  expect((await run(['list'])).stdout).toMatchInlineSnapshot(`
    "GROUP    STATE   EPOCH  MEMBERS  ASSIGNOR
    billing  stable     12        2  uniform
    b2       empty      12        0  uniform
    "
  `);
  expect(JSON.parse((await run(['list', '--json'])).stdout)[1]).toEqual({
    groupId: 'b2',
    state: 'empty',
    epoch: 12,
    assignor: 'uniform',
    memberCount: 0,
  });
  fake.onGroups = () => ({ groups: [] });
  expect((await run(['list'])).stdout).toBe('There are no groups.\n');
});

test('a group is described, and what cannot be read any more is warned of', async () => {
  fake.onGroups = () => ({ group });
  expect((await run(['describe', 'billing', '--members'])).stdout).toMatchInlineSnapshot(`
    "Group billing: stable, epoch 12, assignor uniform, 2 members

    TOPIC  PARTITION  COMMITTED  HIGH WATERMARK   LAG  LAG TIME  MEMBER                                       CLIENT ID  HOST
    a              0        120             150    30  1.2 s     6f0c1a52-0000-4000-8000-00000000000a (away)  billing    10.0.0.7
    a              1          -            1500  1500  2 d       6f0c1a52-0000-4000-8000-00000000000b         billing    10.0.0.8
    a              2          5               8     3  -         -                                            -          -
    b              0          9               7     0  0 s       6f0c1a52-0000-4000-8000-00000000000a (away)  billing    10.0.0.7
    gone           0          4               -     -  -         -                                            -          -

    Total lag: 1,533 records in 4 partitions, 2 d at most; unknown for 1 partition
    Warning: a-2 begins at offset 8: up to 3 records behind the committed offset were deleted.
    Warning: b-0 ends at offset 7, below the committed offset: its log was truncated.

    MEMBER                                       INSTANCE ID  CLIENT ID  HOST      EPOCH  PARTITIONS  SUBSCRIPTION
    6f0c1a52-0000-4000-8000-00000000000a (away)  w1           billing    10.0.0.7     11           2  a, b
    6f0c1a52-0000-4000-8000-00000000000b         -            billing    10.0.0.8     12           1  pattern [ab].*
    "
  `);
  fake.onGroups = () => ({
    group: { ...group, state: 'GROUP_STATE_EMPTY', memberCount: 0, members: [], partitions: [] },
  });
  expect((await run(['describe', 'billing', '--members'])).stdout).toMatchInlineSnapshot(`
    "Group billing: empty, epoch 12, assignor uniform, 0 members

    Nothing was committed, and no partition is owned.

    There are no members.
    "
  `);
});

test('a group as JSON holds everything, times in ISO 8601 and null for what there is not', async () => {
  fake.onGroups = () => ({ group });
  const described = JSON.parse((await run(['describe', 'billing', '--json'])).stdout);
  expect(described.members[0]).toEqual({ ...members[0], topicPattern: null });
  expect(described.members[1]).toEqual({ ...members[1], instanceId: null, topics: [] });
  expect(described.partitions[4]).toEqual({
    topic: 'gone',
    topicId: 'ig',
    partition: 0,
    committedOffset: 4,
    logStartOffset: null,
    highWatermark: null,
    lag: null,
    lagMs: null,
    memberId: null,
    metadata: 'note',
    commitTime: '1970-01-01T00:00:00.000Z',
  });
  expect(described.partitions[1]).toMatchObject({ committedOffset: null, commitTime: null });
});

test('a group is deleted, and one with members is refused in one line', async () => {
  fake.onGroups = () => ({});
  expect(await run(['delete', 'billing'])).toMatchObject({ code: 0, stdout: 'Deleted group billing.\n' });
  expect((await run(['delete', 'billing', '--json'])).stdout).toBe('{"deleted":"billing"}\n');
  fake.onGroups = () => {
    throw new LogError('NON_EMPTY_GROUP', 'Group billing has 2 members.\nStop them first.');
  };
  expect(await run(['delete', 'billing'])).toEqual({
    code: 1,
    stdout: '',
    line: 'tidelog: NON_EMPTY_GROUP: Group billing has 2 members. Stop them first.',
  });
});

interface ResetRequest {
  readonly topic: string;
  readonly partitions: readonly number[];
  readonly timestampMs?: number | null;
  readonly shiftBy?: number | null;
  readonly validateOnly: boolean;
}

/** Takes resets; the requests, in order. */
function takeResets(answer: object = {}): ResetRequest[] {
  const requests: ResetRequest[] = [];
  const moved = [
    { partition: 0, offsetBefore: 120, offsetAfter: 20, highWatermark: 150, memberId: MEMBER_A },
    { partition: 1, offsetAfter: 0, highWatermark: 1500, memberId: MEMBER_B },
    { partition: 2, offsetBefore: 0, offsetAfter: 8, highWatermark: 8 },
  ];
  fake.onGroups = (_method, request) => {
    requests.push(request as ResetRequest);
    return { partitions: moved, memberCount: 2, ...answer };
  };
  return requests;
}

const RESET = ['reset-offsets', 'billing', '--topic', 'a'];

test('a reset shows what would change and asks; yes does it', async () => {
  const requests = takeResets();
  const questions: string[] = [];
  const { code, stdout } = await run([...RESET, '--to', '20'], async (question) => {
    expect(requests.map(({ validateOnly }) => validateOnly)).toEqual([true]);
    questions.push(question);
    return true;
  });
  expect(code).toBe(0);
  expect(questions).toEqual(['Reset the offsets of 3 partitions of group billing?']);
  expect(requests.map(({ validateOnly }) => validateOnly)).toEqual([true, false]);
  expect(stdout).toMatchInlineSnapshot(`
    "TOPIC  PARTITION  CURRENT  NEW  CHANGE  LAG AFTER  OWNER
    a              0      120   20    -100        130  6f0c1a52-0000-4000-8000-00000000000a
    a              1        -    0       -       1500  6f0c1a52-0000-4000-8000-00000000000b
    a              2        0    8      +8          0  -

    To be read again: up to 100 records; skipped: up to 8 records.
    The group has 2 members: whoever owns one of these partitions drops what it holds of it without committing it, and goes on from the new offset.
    Reset the offsets of 3 partitions of group billing.
    "
  `);
});

test('what came out otherwise than planned is shown again', async () => {
  takeResets();
  const { stdout } = await run([...RESET, '--to', 'latest'], async () => {
    takeResets({ partitions: [{ partition: 0, offsetBefore: 150, offsetAfter: 160, highWatermark: 160 }] });
    return true;
  });
  expect(stdout).toMatch(
    /\na +0 +150 +160 +\+10 +0 +-\n[\s\S]*\nReset the offsets of 1 partition of group billing\.\n$/,
  );
});

test('a no, and Ctrl-C, change nothing', async () => {
  const requests = takeResets();
  const refused = await run([...RESET, '--to', '20'], async () => false);
  expect(refused).toMatchObject({ code: 1, line: 'tidelog: CANCELLED: Nothing was changed.' });
  const interrupted = await run([...RESET, '--to', '20'], async () => {
    throw new Interrupted();
  });
  expect(interrupted).toMatchObject({ code: 130, line: undefined });
  expect(requests.every(({ validateOnly }) => validateOnly)).toBe(true);
});

test('without a terminal, and with --json, the plan is shown and --yes asked for', async () => {
  const requests = takeResets();
  const blind = await run([...RESET, '--to', '20']);
  expect(blind).toMatchObject({ code: 2, line: expect.stringContaining('--yes') });
  expect(blind.stdout).toContain('TOPIC  PARTITION  CURRENT');
  const json = await run([...RESET, '--to', '20', '--json'], () => Promise.reject(new Error('it asked')));
  expect(json).toMatchObject({ code: 2, line: expect.stringContaining('--yes') });
  expect(JSON.parse(json.stdout)).toMatchObject({ applied: false });
  expect(requests.every(({ validateOnly }) => validateOnly)).toBe(true);
});

test('--dry-run only looks, whatever else is said', async () => {
  const requests = takeResets({ memberCount: 0, created: true });
  const { code, stdout } = await run([...RESET, '--shift-by', '-100', '--dry-run', '--yes']);
  expect(code).toBe(0);
  expect(stdout).toContain('The group does not exist: it would be created.\n');
  expect(requests).toHaveLength(1);
  expect(requests[0]).toMatchObject({ shiftBy: -100, validateOnly: true });
});

test('a reset as JSON tells every partition', async () => {
  takeResets({ memberCount: 0 });
  const { code, stdout } = await run([...RESET, '--to', 'latest', '--yes', '--json']);
  expect(code).toBe(0);
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({ group: 'billing', applied: true, created: false, memberCount: 0 });
  expect(result.partitions[2]).toEqual({
    topic: 'a',
    partition: 2,
    offsetBefore: 0,
    offsetAfter: 8,
    logStartOffset: 0,
    highWatermark: 8,
    memberId: null,
  });
});

test('a duration is counted back from now, once for all topics', async () => {
  const requests = takeResets();
  const before = Date.now();
  await run([...RESET, '--topic', 'b:2,1', '--to', '-1h', '--yes']);
  const after = Date.now();
  expect(requests.map(({ topic, partitions, validateOnly }) => [topic, partitions, validateOnly])).toEqual([
    ['a', [], true],
    ['b', [2, 1], true],
    ['a', [], false],
    ['b', [2, 1], false],
  ]);
  const times = new Set(requests.map(({ timestampMs }) => timestampMs));
  const [time] = times;
  expect(times.size).toBe(1);
  expect(time).toBeGreaterThanOrEqual(before - 3_600_000);
  expect(time).toBeLessThanOrEqual(after - 3_600_000);
});

test('of several topics none is reset when one cannot be, and what was reset is told when one fails later', async () => {
  const failing = (isFailing: (request: ResetRequest) => boolean): ResetRequest[] => {
    const requests = takeResets();
    const { onGroups } = fake;
    fake.onGroups = (method, request) => {
      if (isFailing(request as ResetRequest))
        throw new LogError('UNKNOWN_TOPIC_OR_PARTITION', 'There is no topic "b".');
      return onGroups(method, request);
    };
    return requests;
  };
  const both = [...RESET, '--topic', 'b', '--to', 'latest', '--yes'];
  const planned = failing(({ topic }) => topic === 'b');
  expect(await run(both)).toMatchObject({
    code: 1,
    line: 'tidelog: UNKNOWN_TOPIC_OR_PARTITION: There is no topic "b".',
  });
  expect(planned.some(({ validateOnly }) => !validateOnly)).toBe(false);
  failing(({ topic, validateOnly }) => topic === 'b' && !validateOnly);
  const { code, line } = await run(both);
  expect(code).toBe(1);
  expect(line).toContain('There is no topic "b". (topic b; the offsets of a have been reset.)');
});
