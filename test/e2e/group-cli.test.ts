/** `tidelog consume --group` and `tidelog group` against a broker, as a user runs them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import type { GroupDescription } from '../../src/client/admin-groups.js';
import { type Client, connect } from '../../src/client/client.js';
import { string, topic } from '../../src/client/serdes.js';
import { type Executed, executed } from '../cli/in-process.js';
import { type Process, Workplace } from '../cli/support.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { until } from '../support/until.js';

const workplace = new Workplace();
let broker: RunningBroker;
let client: Client;

beforeAll(async () => {
  // Some records here are of 2024: under the default of seven days the first check would delete them.
  broker = await startBroker({ storage: 'memory', topicDefaults: { 'retention.ms': -1 } });
  client = await connect(broker.address);
});

afterAll(async () => {
  await workplace.clean();
  await client.close();
  await broker.close();
});

/** A command that needs no process of its own. */
function run(...args: string[]): Promise<Executed> {
  return executed(broker.address, args);
}

async function succeed(...args: string[]): Promise<string> {
  const { code, stdout, line } = await run(...args);
  expect({ code, line }).toEqual({ code: 0, line: undefined });
  return stdout;
}

/** `tidelog consume` as a process. */
function consume(...args: string[]): Process {
  return workplace.start(['consume', ...args], { TIDELOG_BROKER: broker.address });
}

async function interrupt(consumer: Process): Promise<void> {
  consumer.child.kill('SIGINT');
  expect(await consumer.finished()).toMatchObject({ code: 0, stderr: '' });
}

/** One record for each value, of one day after the other from the first of May 2024 on. */
async function produce(name: string, partition: number, ...values: string[]): Promise<void> {
  await using producer = client.producer();
  const target = topic(name, { value: string() });
  const sent = values.map((value, day) => {
    const timestampMs = Date.UTC(2024, 4, day + 1);
    return producer.send(target, { value, partition, timestampMs });
  });
  await Promise.all(sent);
}

async function stable(group: string, memberCount: number): Promise<GroupDescription> {
  await until(async () => {
    const found = (await client.admin.listGroups()).find(({ groupId }) => groupId === group);
    return found?.state === 'stable' && found.memberCount === memberCount;
  }, `group ${group} is stable with ${memberCount} members`);
  return client.admin.getGroup(group);
}

async function committed(group: string): Promise<readonly (number | undefined)[]> {
  return (await client.admin.getGroup(group)).partitions.map(({ committedOffset }) => committedOffset);
}

describe.concurrent('a group', () => {
  test('prints, commits what it has printed when it is ended, and goes on from there (invariants 7, 8)', async () => {
    await client.admin.createTopic({ name: 'resume', partitions: 1 });
    await produce('resume', 0, 'a', 'b', 'c');
    const first = consume('resume', '--group', 'resume');
    await first.printed('a\nb\nc\n');
    await interrupt(first);
    expect(await committed('resume')).toEqual([3]);
    await produce('resume', 0, 'd', 'e', 'f');
    const second = await consume('resume', '--group', 'resume', '--max', '1').finished();
    expect(second).toEqual({ code: 0, stdout: 'd\n', stderr: '' });
    const described = await succeed('group', 'describe', 'resume', '--members');
    expect(described).toMatch(/^Group resume: empty, epoch \d+, assignor uniform, 0 members\n\n/);
    expect(described).toMatch(/\nresume +0 +4 +6 +2 +[\d,]+ d +- +- +-\n\nTotal lag: 2 records in 1 partition, /);
    expect(described).toMatch(/\nThere are no members\.\n$/);
  });

  test('Ctrl-C while no broker answers says what it waits for, and a second one ends it', async () => {
    await client.admin.createTopic({ name: 'cut', partitions: 1 });
    await produce('cut', 0, 'a');
    const proxy = await TcpProxy.start(broker.address);
    const consumer = workplace.start(['consume', 'cut', '--group', 'cut'], { TIDELOG_BROKER: proxy.address });
    await consumer.printed('a\n');
    proxy.refuses = true;
    proxy.cutAll('reset');
    consumer.child.kill('SIGINT');
    await until(() => consumer.stderr.includes('Ctrl-C again ends it at once'), 'it says so');
    consumer.child.kill('SIGINT');
    expect(await consumer.finished()).toMatchObject({ code: 130, stdout: 'a\n' });
    await proxy.stop();
  });

  test('whose output is closed leaves, and has committed nothing that nobody took', async () => {
    await client.admin.createTopic({ name: 'pipe', partitions: 1 });
    const target = topic('pipe', { value: string() });
    await using producer = client.producer();
    const values = Array.from({ length: 30_000 }, (_, i) => ({ value: `${i} ${'x'.repeat(100)}` }));
    await producer.sendMany(target, values);
    const consumer = consume('pipe', '--group', 'pipe');
    await consumer.printed('\n');
    consumer.child.stdout.destroy();
    expect(await consumer.finished()).toMatchObject({ code: 0, stderr: '' });
    const { memberCount, partitions } = await client.admin.getGroup('pipe');
    expect(memberCount).toBe(0);
    expect(partitions[0]?.committedOffset ?? 0).toBeLessThan(30_000);
  });

  test('shares its partitions and is reset while it lives, but not deleted (invariants 8, 9, 10)', async () => {
    await client.admin.createTopic({ name: 'live', partitions: 2 });
    await produce('live', 0, 'a', 'b');
    await produce('live', 1, 'c', 'd');
    const one = consume('live', '--group', 'live', '--instance-id', 'one');
    const two = consume('live', '--group', 'live');
    const printed = (): string => [...(one.stdout + two.stdout).replaceAll('\n', '')].sort().join('');
    const { members } = await stable('live', 2);
    expect(members.map(({ partitionCount }) => partitionCount)).toEqual([1, 1]);
    expect(members.map(({ instanceId }) => instanceId ?? 'none').sort()).toEqual(['none', 'one']);
    await until(() => printed() === 'abcd', 'the members have printed everything');
    expect(await succeed('group', 'list')).toMatch(/\nlive +stable +\d+ +2 +uniform\n/);
    const refused = await run('group', 'delete', 'live');
    expect(refused).toMatchObject({ code: 1, line: expect.stringMatching(/^tidelog: NON_EMPTY_GROUP: /) });

    const reset = ['group', 'reset-offsets', 'live', '--topic', 'live', '--to', 'earliest'];
    const plan = await run(...reset);
    expect(plan).toMatchObject({ code: 2, line: expect.stringMatching(/^tidelog: nothing was changed: add --yes/) });
    expect(plan.stdout).toMatch(/\nlive +0 +\S+ +0 +\S+ +2 +[0-9a-f-]{36}\nlive +1 +\S+ +0 +\S+ +2 +[0-9a-f-]{36}\n/);
    expect(await succeed(...reset, '--yes')).toContain('\nReset the offsets of 2 partitions of group live.\n');
    await until(() => printed() === 'aabbccdd', 'the members have printed everything once more');
    await interrupt(two);
    await interrupt(one);
    expect(printed()).toBe('aabbccdd');
    expect(await committed('live')).toEqual([2, 2]);
  });

  test('is reset to times, durations, offsets and by distances, and created where there is none', async () => {
    await client.admin.createTopic({ name: 'moved', partitions: 2 });
    await produce('moved', 0, 'd1', 'd2', 'd3', 'd4');
    await produce('moved', 1, 'd1', 'd2');
    const reset = async (...options: string[]): Promise<readonly (number | null)[][]> => {
      const output = await succeed('group', 'reset-offsets', 'moved', '--yes', '--json', ...options);
      const { partitions } = JSON.parse(output) as {
        partitions: { partition: number; offsetBefore: number | null; offsetAfter: number }[];
      };
      return partitions.map(({ partition, offsetBefore, offsetAfter }) => [partition, offsetBefore, offsetAfter]);
    };
    expect(await reset('--topic', 'moved', '--to', '2024-05-02T12:00:00Z')).toEqual([
      [0, null, 2],
      [1, null, 2],
    ]);
    expect(await reset('--topic', 'moved:0', '--shift-by', '-100')).toEqual([[0, 2, 0]]);
    expect(await reset('--topic', 'moved:1', '--to', '1')).toEqual([[1, 2, 1]]);
    expect(await reset('--topic', 'moved', '--to', 'current')).toEqual([
      [0, 0, 0],
      [1, 1, 1],
    ]);
    expect(await reset('--topic', 'moved', '--to', '-1h30m')).toEqual([
      [0, 0, 4],
      [1, 1, 2],
    ]);
    const beyond = await run('group', 'reset-offsets', 'moved', '--topic', 'moved', '--to', '3', '--yes');
    expect(beyond).toMatchObject({ code: 1, line: expect.stringContaining('OFFSET_OUT_OF_RANGE') });
    expect(await committed('moved')).toEqual([4, 2]);
    expect(await succeed('group', 'delete', 'moved')).toBe('Deleted group moved.\n');
    const gone = await run('group', 'describe', 'moved');
    expect(gone).toMatchObject({ code: 1, line: expect.stringMatching(/^tidelog: GROUP_ID_NOT_FOUND: .*moved/) });
  });

  test('begins where --from says, and at a topic that exists', async () => {
    await client.admin.createTopic({ name: 'begin', partitions: 1 });
    await produce('begin', 0, 'd1', 'd2', 'd3');
    const begin = ['begin', '--group', 'begin', '--format', 'json', '--max', '1', '--from', '2024-05-02'];
    const { stdout } = await consume(...begin).finished();
    expect(JSON.parse(stdout)).toMatchObject({ topic: 'begin', partition: 0, offset: 1, value: 'd2' });
    expect(await committed('begin')).toEqual([2]);
    const unknown = await consume('nowhere', '--group', 'begin').finished();
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('UNKNOWN_TOPIC_OR_PARTITION') });
  });
});
