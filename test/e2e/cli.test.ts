/** The commands of `tidelog` against a broker, as a user runs them: output, exit codes, pipes and Ctrl-C. */
import { cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect } from '../../src/client/client.js';
import type { RecordInput } from '../../src/client/record-input.js';
import { string, topic } from '../../src/client/serdes.js';
import { executed } from '../cli/in-process.js';
import { type Finished, type Process, type Server, tidelog, Workplace } from '../cli/support.js';
import { until } from '../support/until.js';

const workplace = new Workplace();
let server: Server;

beforeAll(async () => {
  // Some records here are of 2024: under the default of seven days the first check would delete them.
  server = await workplace.serve('data', '--log-retention-ms', '-1');
});

afterAll(() => workplace.clean());

/** A command that takes no input and needs no process of its own, against the broker of this file. */
function run(args: readonly string[]): Promise<Finished> {
  return runOn(server, args);
}

async function runOn({ address }: Server, args: readonly string[]): Promise<Finished> {
  const { code, stdout, line } = await executed(address, args);
  return { code, stdout, stderr: line === undefined ? '' : `${line}\n` };
}

/** A command as a process that is given its input. */
function piped(args: readonly string[], input: string | Buffer = ''): Promise<Finished> {
  return tidelog(args, input, { TIDELOG_BROKER: server.address });
}

function follow(args: readonly string[]): Process {
  return workplace.start(args, { TIDELOG_BROKER: server.address });
}

async function create(topic: string, ...options: string[]): Promise<void> {
  expect(await run(['topic', 'create', topic, ...options])).toMatchObject({ code: 0, stderr: '' });
}

/** One batch of records. */
async function produce(
  { address }: Server,
  name: string,
  ...records: readonly RecordInput<string, string>[]
): Promise<void> {
  await using client = await connect(address);
  await using producer = client.producer();
  await Promise.all(records.map((record) => producer.send(topic(name, { key: string(), value: string() }), record)));
}

function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Exit code 1, nothing but one line on standard error, and no stack. */
function expectFailure({ code, stderr }: Finished, ...parts: string[]): void {
  expect(stderr).toMatch(/^tidelog: [^\n]*\n$/);
  for (const part of parts) expect(stderr).toContain(part);
  expect(code).toBe(1);
}

describe.concurrent('topics', () => {
  test('are created, listed, described and deleted', async () => {
    const created = await run(['topic', 'create', 'crud', '--partitions', '3', '--config', 'segment.bytes=65536']);
    expect(created).toEqual({ code: 0, stdout: 'Created topic crud with 3 partitions.\n', stderr: '' });
    expect((await run(['topic', 'list'])).stdout).toMatch(
      /^NAME +PARTITIONS +TOPIC ID\n[\s\S]*crud +3 +[0-9a-f-]{36}\n/,
    );
    const described = await run(['topic', 'describe', 'crud']);
    expect(described.stdout).toMatch(/segment\.bytes +65536 +topic\n/);
    expect(described.stdout).toMatch(/\n +2 +0 +0 +0 +1 +0 +- +- +ok\n/);
    expect(await run(['topic', 'delete', 'crud'])).toMatchObject({ code: 0, stdout: 'Deleted topic crud.\n' });
    expectFailure(await run(['topic', 'describe', 'crud']), 'UNKNOWN_TOPIC_OR_PARTITION', '"crud"', 'topic create');
  });

  test('speak JSON when asked to', async () => {
    const created = await run(['topic', 'create', 'crud-json', '--partitions', '2', '--json']);
    expect(JSON.parse(created.stdout)).toMatchObject({ name: 'crud-json', partitionCount: 2 });
    const listed: unknown = JSON.parse((await run(['topic', 'list', '--json'])).stdout);
    expect(listed).toContainEqual(expect.objectContaining({ name: 'crud-json', partitionCount: 2 }));
    const described = await run(['topic', 'describe', 'crud-json', '--json']);
    expect(JSON.parse(described.stdout)).toMatchObject({
      partitions: [
        { partition: 0, highWatermark: 0, failureReason: null },
        { partition: 1, logEndOffset: 0 },
      ],
    });
    const deleted = await run(['topic', 'delete', 'crud-json', '--json']);
    expect(JSON.parse(deleted.stdout)).toEqual({ deleted: 'crud-json' });
  });
});

describe.concurrent('topics that live', () => {
  /** Values at these times, one record each, in partition 0. */
  async function produceAt(name: string, ...times: string[]): Promise<void> {
    await produce(server, name, ...times.map((value) => ({ value, timestampMs: Date.parse(value), partition: 0 })));
  }

  test('are altered, and say what has changed and where each value comes from', async () => {
    const policy = ['--config', 'retention.ms=604800000', '--config', 'cleanup.policy=compact,delete'];
    await create('alter', '--partitions', '4', '--config', 'segment.ms=1000', ...policy);
    const changes = ['--config', 'retention.bytes=1073741824', '--config', '-segment.ms', '--partitions', '8'];
    expect(await run(['topic', 'alter', 'alter', ...changes])).toEqual({
      code: 0,
      stdout:
        'partitions: 4 -> 8\n' +
        'segment.ms: 1000 -> 604800000 (default)\n' +
        'retention.bytes: -1 -> 1073741824 (topic)\n',
      stderr: '',
    });
    const again = await run(['topic', 'alter', 'alter', ...changes]);
    expect(again).toMatchObject({ code: 0, stdout: 'Topic alter is like that already: nothing has changed.\n' });
    const described = await run(['topic', 'describe', 'alter']);
    expect(described.stdout).toMatch(/retention\.bytes +1073741824 +topic\n/);
    expect(described.stdout).toMatch(/cleanup\.policy +compact,delete +topic\n/);
    expect(described.stdout).toMatch(/segment\.ms +604800000 +default\n/);
    const json = await run(['topic', 'alter', 'alter', '--config', 'flush.ms=7', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({
      name: 'alter',
      partitionCount: 8,
      changes: [{ key: 'flush.ms', oldValue: '50', newValue: '7', source: 'topic' }],
    });
  });

  test('refuse what cannot be, and stay as they are', async () => {
    await create('alter-no', '--partitions', '3');
    expectFailure(await run(['topic', 'alter', 'alter-no', '--partitions', '2']), 'INVALID_PARTITIONS', '3', '2');
    expectFailure(
      await run(['topic', 'alter', 'alter-no', '--config', 'flush.ms=1', '--config', '-flush.sec']),
      'INVALID_CONFIG',
      'flush.sec',
    );
    const { stdout } = await run(['topic', 'describe', 'alter-no']);
    expect(stdout).toMatch(/flush\.ms +50 +default\n/);
    expectFailure(await run(['topic', 'alter', 'nowhere', '--partitions', '2']), 'UNKNOWN_TOPIC_OR_PARTITION');
  });

  test('take the values of the broker where they have none, and tell so', async () => {
    const own = await workplace.serve('own-defaults', '--log-retention-ms', '-1', '--log-cleanup-policy', 'compact');
    expect(await runOn(own, ['topic', 'create', 't', '--config', 'cleanup.policy=delete'])).toMatchObject({ code: 0 });
    const { stdout } = await runOn(own, ['topic', 'describe', 't']);
    expect(stdout).toMatch(/retention\.ms +-1 +broker\n/);
    expect(stdout).toMatch(/cleanup\.policy +delete +topic\n/);
    const reset = await runOn(own, ['topic', 'alter', 't', '--config', '-cleanup.policy']);
    expect(reset.stdout).toBe('cleanup.policy: delete -> compact (broker)\n');
    const stopped = await own.stop();
    const logged = jsonLines(stopped.stderr).find(({ msg }) => msg === 'topic configuration changed');
    expect(logged).toMatchObject({
      level: 'info',
      topic: 't',
      key: 'cleanup.policy',
      oldValue: 'delete',
      newValue: 'compact',
    });
  });

  test('show the times of what they hold', async () => {
    await create('times', '--partitions', '2');
    await produceAt('times', '2024-05-02T00:00:00Z', '2024-05-03T00:00:00Z');
    await produceAt('times', '2024-05-01T00:00:00Z');
    const { stdout } = await run(['topic', 'describe', 'times']);
    expect(stdout).toMatch(/OLDEST +NEWEST +STATE\n/);
    expect(stdout).toMatch(/\n +0 +0 +3 +3 +1 +\d+ +2024-05-0\dT00:00:00.000Z +2024-05-03T00:00:00.000Z +ok\n/);
    const { partitions } = JSON.parse((await run(['topic', 'describe', 'times', '--json'])).stdout) as {
      partitions: object[];
    };
    expect(partitions[0]).toMatchObject({ newestTimestamp: '2024-05-03T00:00:00.000Z' });
    expect(partitions[1]).toMatchObject({ oldestTimestamp: null, newestTimestamp: null });
  });

  test('lose records up to an offset or a time', async () => {
    await create('delete', '--partitions', '2');
    await produceAt('delete', '2024-05-01', '2024-05-02', '2024-05-03', '2024-05-04');
    const offset = await run(['topic', 'delete-records', 'delete', '--partition', '0', '--before-offset', '1']);
    expect(offset).toEqual({ code: 0, stdout: 'Partition 0 of delete begins at offset 1 now.\n', stderr: '' });
    expect((await run(['consume', 'delete', '--to', 'end'])).stdout).toBe('2024-05-02\n2024-05-03\n2024-05-04\n');
    const both = ['--partition', '1', '--partition', '0', '--before-time', '2024-05-03T00:00:00Z', '--json'];
    expect(JSON.parse((await run(['topic', 'delete-records', 'delete', ...both])).stdout)).toEqual([
      { partition: 1, logStartOffset: 0 },
      { partition: 0, logStartOffset: 2 },
    ]);
    const beyond = await run(['topic', 'delete-records', 'delete', '--partition', '0', '--before-offset', '9']);
    expectFailure(beyond, 'OFFSET_OUT_OF_RANGE', 'valid range is 2 to 4');
  });

  test('lose everything only when that is confirmed', async () => {
    await create('truncate', '--partitions', '2');
    await produceAt('truncate', '2024-05-01', '2024-05-02', '2024-05-03');
    const asked = await run(['topic', 'truncate-all', 'truncate']);
    expect(asked).toMatchObject({ code: 2, stdout: '' });
    expect(asked.stderr).toMatch(/^tidelog: this would delete everything in 2 partitions of topic truncate [^\n]*\n$/);
    for (const part of ['up to 3 records', '--yes']) expect(asked.stderr).toContain(part);
    expect((await run(['consume', 'truncate', '--to', 'end'])).stdout.split('\n')).toHaveLength(4);
    const done = await run(['topic', 'truncate-all', 'truncate', '--yes']);
    expect(done.stdout).toBe(
      'Partition 0 of truncate begins at offset 3 now.\nPartition 1 of truncate begins at offset 0 now.\n',
    );
    expect((await run(['consume', 'truncate', '--to', 'end'])).stdout).toBe('');
    await produceAt('truncate', '2024-05-04');
    expect((await run(['consume', 'truncate', '--to', 'end', '--format', 'json'])).stdout).toContain('"offset":3');
  });
});

describe.concurrent('produce and consume', () => {
  test('lines go in and come out, byte for byte, and standard error says where they went', async () => {
    await create('lines');
    const input = Buffer.concat([Buffer.from('one\n\ntwo '), Buffer.from([0xff, 0xfe]), Buffer.from('\nlast')]);
    const produced = await piped(['produce', 'lines'], input);
    expect(produced).toEqual({
      code: 0,
      stdout: '',
      stderr: '4 records delivered to lines (partition 0: 4)\n',
    });
    const output = await piped(['consume', 'lines', '--to', 'end']);
    expect(output).toEqual({ code: 0, stdout: `${input.toString('utf8')}\n`, stderr: '' });
    const [, , third] = jsonLines((await run(['consume', 'lines', '--to', 'end', '--format', 'json'])).stdout);
    expect(third).toMatchObject({
      offset: 2,
      key: null,
      valueBase64: Buffer.from('two \xff\xfe', 'latin1').toString('base64'),
    });
    expect(third).not.toHaveProperty('value');
  });

  test('a file with keys goes to the partitions of the keys, compressed or not', async () => {
    await create('keyed', '--partitions', '4');
    const file = workplace.path('keyed.txt');
    writeFileSync(file, Array.from({ length: 1000 }, (_, i) => `k${i % 10}=value ${i}\n`).join(''));
    const produceFile = async (codec: string): Promise<void> => {
      const options = ['--file', file, '--key-separator', '=', '--compression', codec, '--acks', 'written'];
      expect(await piped(['produce', 'keyed', ...options])).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/^1,000 records delivered/),
      });
    };
    await Promise.all(['none', 'gzip', 'snappy', 'lz4', 'zstd'].map(produceFile));
    // What was only written becomes visible once it is synced, which nobody waited for.
    await until(async () => {
      const { stdout } = await run(['consume', 'keyed', '--to', 'end']);
      return stdout.split('\n').length === 5001;
    }, 'all records are visible');
    const records = jsonLines((await run(['consume', 'keyed', '--to', 'end', '--format', 'json'])).stdout);
    const partitions = new Map<unknown, Set<unknown>>();
    for (const { key, partition } of records) {
      const known = partitions.get(key) ?? new Set();
      partitions.set(key, known.add(partition));
    }
    expect(partitions.size).toBe(10);
    for (const found of partitions.values()) expect(found.size).toBe(1);
  });

  test('what is consumed as JSON can be produced again', async () => {
    await create('json-a', '--partitions', '2');
    await create('json-b', '--partitions', '2');
    const lines = [
      { key: 'k', value: 'text', headers: { h: 'v' }, timestamp: '2020-01-01T00:00:00.000Z', partition: 1 },
      { key: null, value: null, timestamp: 1_600_000_000_000, partition: 0 },
      { keyBase64: '/w==', valueBase64: '/v8=', partition: 0 },
    ];
    const input = lines.map((line) => JSON.stringify(line)).join('\n');
    expect(await piped(['produce', 'json-a', '--format', 'json'], input)).toMatchObject({ code: 0 });
    const first = await run(['consume', 'json-a', '--to', 'end', '--format', 'json']);
    expect(await piped(['produce', 'json-b', '--format', 'json'], first.stdout)).toMatchObject({ code: 0 });
    const second = await run(['consume', 'json-b', '--to', 'end', '--format', 'json']);
    const sorted = (text: string): unknown[] =>
      jsonLines(text.replaceAll('json-b', 'json-a')).sort((a, b) => Number(a.partition) - Number(b.partition));
    expect(sorted(second.stdout)).toEqual(sorted(first.stdout));
    expect(jsonLines(first.stdout)).toContainEqual({
      topic: 'json-a',
      partition: 1,
      offset: 0,
      timestamp: '2020-01-01T00:00:00.000Z',
      key: 'k',
      value: 'text',
      headers: [{ key: 'h', value: 'v' }],
    });
  });

  test('a bad line ends produce with its number, and the lines before it are delivered', async () => {
    await create('bad-line');
    const produced = await piped(
      ['produce', 'bad-line', '--format', 'json'],
      '{"value":"a"}\n{"value":"b"}\n{oops\n{"value":"c"}\n',
    );
    expect(produced.code).toBe(1);
    const [summary, failure] = produced.stderr.split('\n');
    expect(summary).toBe('2 records delivered to bad-line (partition 0: 2)');
    expect(failure).toMatch(/^tidelog: INVALID_REQUEST: Line 3 of standard input is not a record: it is not JSON\./);
    expect((await run(['consume', 'bad-line', '--to', 'end'])).stdout).toBe('a\nb\n');
  });

  test('consume begins and ends at offsets, times and counts', async () => {
    await create('bounds', '--partitions', '2');
    const days = [1, 2, 3, 4, 5, 6];
    const timestampOf = (day: number): number => Date.UTC(2024, 4, day);
    await produce(
      server,
      'bounds',
      ...days.map((day) => ({ value: `d${day}`, timestampMs: timestampOf(day), partition: day % 2 })),
    );
    const values = async (...options: string[]): Promise<string[]> => {
      const { stdout, stderr } = await run(['consume', 'bounds', ...options]);
      expect(stderr).toBe('');
      return stdout.split('\n').slice(0, -1).sort();
    };
    expect(await values('--to', 'end')).toEqual(['d1', 'd2', 'd3', 'd4', 'd5', 'd6']);
    expect(await values('--from', '1', '--to', 'end')).toEqual(['d3', 'd4', 'd5', 'd6']);
    expect(await values('--from', '1', '--to', '2')).toEqual(['d3', 'd4']);
    expect(await values('--from', '2024-05-03', '--to', '2024-05-05T00:00:00Z')).toEqual(['d3', 'd4']);
    expect(await values('--partition', '1', '--to', 'end')).toEqual(['d1', 'd3', 'd5']);
    expect(await values('--partition', '0', '--partition', '1', '--to', 'end')).toHaveLength(6);
    expect(await values('--from', 'latest', '--to', 'end')).toEqual([]);
    expect(await values('--partition', '1', '--max', '2')).toEqual(['d1', 'd3']);
  });

  test('Ctrl-C ends a consumer that follows with 0, after it has printed everything', async () => {
    await create('tail');
    const consumer = follow(['consume', 'tail', '--from', 'latest']);
    // Without a line to wait for, the consumer is known to be reading once it prints what is produced again and again.
    await until(async () => {
      await produce(server, 'tail', { value: 'tick' });
      return consumer.stdout.includes('tick\n');
    }, 'the consumer follows');
    await produce(server, 'tail', { value: 'tock' });
    await consumer.printed('tock\n');
    consumer.child.kill('SIGINT');
    expect(await consumer.finished()).toMatchObject({ code: 0, stderr: '' });
  });

  test('Ctrl-C ends a producer with 130, after it has delivered what it had read', async () => {
    await create('interrupted');
    const producer = follow(['produce', 'interrupted']);
    producer.child.stdin.write('first\nsecond\nhalf a li');
    await until(
      async () => (await run(['consume', 'interrupted', '--to', 'end'])).stdout === 'first\nsecond\n',
      'the lines arrived',
    );
    producer.child.kill('SIGINT');
    expect(await producer.finished()).toMatchObject({
      code: 130,
      stderr: '2 records delivered to interrupted (partition 0: 2)\n',
    });
  });

  test('a closed pipe ends consume quietly with 0, though there is more to print', async () => {
    await create('pipe');
    const lines = Array.from({ length: 30_000 }, (_, i) => `${i} ${'x'.repeat(100)}\n`).join('');
    expect(await piped(['produce', 'pipe'], lines)).toMatchObject({ code: 0 });
    const consumer = follow(['consume', 'pipe']);
    await consumer.printed('\n');
    consumer.child.stdout.destroy();
    expect(await consumer.finished()).toMatchObject({ code: 0, stderr: '' });
  });
});

describe.concurrent('failures', () => {
  test.each([
    ['an unknown topic to write to', ['produce', 'nowhere'], ['UNKNOWN_TOPIC_OR_PARTITION', 'nowhere', 'topic create']],
    ['an unknown topic to read', ['consume', 'nowhere', '--to', 'end'], ['UNKNOWN_TOPIC_OR_PARTITION', 'nowhere']],
    ['a bad topic name', ['topic', 'create', 'a/b'], ['INVALID_TOPIC', 'a/b', 'letters']],
    [
      'an unknown topic configuration',
      ['topic', 'create', 'x', '--config', 'a=b'],
      ['INVALID_CONFIG', '"a"', 'segment.bytes'],
    ],
    [
      'a bad topic configuration',
      ['topic', 'create', 'x', '--config', 'segment.bytes=no'],
      ['INVALID_CONFIG', 'segment.bytes=no'],
    ],
    ['no broker', ['topic', 'list', '--broker', '127.0.0.1:1'], ['BROKER_UNAVAILABLE', '127.0.0.1:1', 'tidelog serve']],
    ['no such log file', ['log', 'dump', '/nowhere/0.log'], ['INVALID_REQUEST', '/nowhere/0.log']],
    ['no such data directory', ['log', 'verify', '/nowhere'], ['DATA_DIR_UNUSABLE', '/nowhere']],
  ])('%s: one line says what, where and what to do, and the exit code is 1', async (_, args, parts) => {
    expectFailure(await run(args), ...parts);
  });

  test('an unknown partition, an offset beyond the end and an input that is not there', async () => {
    await create('small');
    expectFailure(
      await run(['consume', 'small', '--partition', '9', '--to', 'end']),
      'UNKNOWN_TOPIC_OR_PARTITION',
      '9',
    );
    expectFailure(await run(['consume', 'small', '--from', '9', '--to', 'end']), 'OFFSET_OUT_OF_RANGE', '9');
    expectFailure(await piped(['produce', 'small', '--partition', '9'], 'x\n'), 'UNKNOWN_TOPIC_OR_PARTITION', '9');
    expectFailure(await run(['produce', 'small', '--file', '/nowhere']), 'There is no file /nowhere');
    expectFailure(await run(['produce', 'small', '--file', workplace.directory]), 'is a directory');
    expectFailure(await run(['topic', 'create', 'small']), 'TOPIC_ALREADY_EXISTS', 'small');
  });

  test('a record that is too large says how large it may be', async () => {
    await create('narrow', '--config', 'max.message.bytes=1000');
    expectFailure(await piped(['produce', 'narrow'], `${'x'.repeat(5000)}\n`), 'MESSAGE_TOO_LARGE', '1000');
  });
});

describe.concurrent('wrong usage', () => {
  test('exits with 2 and one line, a missing command with the help', async () => {
    const option = await tidelog(['consume', 'x', '--colour']);
    expect(option).toMatchObject({ code: 2, stdout: '' });
    expect(option.stderr).toMatch(/^tidelog: unknown option '--colour'\. Options of tidelog consume: [^\n]*\n$/);
    const missing = await tidelog([]);
    expect(missing).toMatchObject({ code: 2, stdout: '' });
    expect(missing.stderr).toContain('Usage: tidelog <command>');
  });

  test('help and version are no failures', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await tidelog(['version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
    expect(await tidelog(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
    for (const args of [['--help'], ['help', 'serve'], ['topic', 'create', '--help'], ['topic', 'alter', '--help']]) {
      const help = await tidelog(args);
      expect(help).toMatchObject({ code: 0, stderr: '' });
      expect(help.stdout).toContain('Usage: tidelog');
    }
  });
});

describe.concurrent('log files', () => {
  let stopped: Promise<string> | undefined;

  /** A data directory of its own for a test, with three batches in one partition; their only segment. */
  async function stoppedDirectory(name: string): Promise<string> {
    stopped ??= stoppedBroker();
    cpSync(await stopped, workplace.path(name), { recursive: true });
    const logs = path.join(workplace.path(name), 'logs');
    return path.join(logs, readdirSync(logs)[0] ?? '', '00000000000000000000.log');
  }

  /** The data directory that a broker has left. */
  async function stoppedBroker(): Promise<string> {
    const own = await workplace.serve('stopped');
    expect(await runOn(own, ['topic', 'create', 't'])).toMatchObject({ code: 0 });
    await produce(own, 't', { key: 'k', value: 'one' });
    await produce(own, 't', { value: 'two' }, { value: 'three' });
    await produce(own, 't', { value: 'four' });
    expect((await own.stop()).code).toBe(0);
    return workplace.path('stopped');
  }

  test('dump prints a line for each batch, and the records when asked to', async () => {
    const file = await stoppedDirectory('dump');
    const { code, stdout, stderr } = await tidelog(['log', 'dump', file]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.split('\n');
    expect(lines[1]).toMatch(
      /^offsets 1-2 {2}position \d+ {2}size \d+ {2}codec none {2}count 2 {2}timestamps \S+Z\.\.\S+Z {2}producer \d+\/0\/0 {2}.*crc [0-9a-f]{8} ok$/,
    );
    expect(lines[3]).toBe('3 intact batches, 4 records');
    const withRecords = await run(['log', 'dump', file, '--records']);
    const records = withRecords.stdout.split('\n').filter((line) => line.startsWith('  '));
    expect(records.map((line) => (JSON.parse(line) as { value: string }).value)).toEqual([
      'one',
      'two',
      'three',
      'four',
    ]);
    expect(await run(['log', 'verify', workplace.path('dump')])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(
        /^Checked 1 partition in .*: 1 segment, 3 batches, 4 records, [\d,]+ bytes\.\nNo corruption\.\n$/,
      ),
      stderr: '',
    });
  });

  test('a flipped byte in the middle is reported with file, position and offset, by dump and by verify', async () => {
    const file = await stoppedDirectory('flipped');
    const bytes = readFileSync(file);
    const secondBatch = bytes.readInt32BE(8) + 12;
    bytes[secondBatch + 70] = (bytes[secondBatch + 70] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const dumped = await run(['log', 'dump', file]);
    expect(dumped.stdout).toMatch(new RegExp(`\\noffsets 1-2 {2}position ${secondBatch} {2}size \\d+ {2}BAD: .*CRC`));
    expectFailure(dumped, 'CORRUPT_LOG', file, `byte ${secondBatch}`, 'offset 1');
    const verified = await run(['log', 'verify', workplace.path('flipped')]);
    expect(verified.stdout).toContain(`corrupt: ${file}, byte ${secondBatch}, offset 1: `);
    expectFailure(verified, 'CORRUPT_LOG', '1 problem', file);
  });

  test('a truncated file and a foreign one are refused', async () => {
    const file = await stoppedDirectory('truncated');
    truncateSync(file, readFileSync(file).length - 5);
    const dumped = await run(['log', 'dump', file]);
    expect(dumped.stdout).toContain('2 intact batches, 3 records');
    expectFailure(dumped, 'CORRUPT_LOG', 'truncated or damaged', 'offset 3');
    expectFailure(await run(['log', 'verify', workplace.path('truncated')]), 'CORRUPT_LOG');
    const foreign = workplace.path('foreign.log');
    writeFileSync(foreign, 'Nov 24 00:00:01 host app[1]: not ours\n'.repeat(20));
    expectFailure(await run(['log', 'dump', foreign]), 'INVALID_REQUEST', 'no log file');
  });

  test('a torn tail after a kill is a note of verify, not a failure', async () => {
    const own = await workplace.serve('torn');
    expect(await runOn(own, ['topic', 'create', 't'])).toMatchObject({ code: 0 });
    await produce(own, 't', { value: 'one' });
    await own.stop('SIGKILL');
    const logs = path.join(workplace.path('torn'), 'logs');
    const file = path.join(logs, readdirSync(logs)[0] ?? '', '00000000000000000000.log');
    const bytes = readFileSync(file);
    writeFileSync(file, Buffer.concat([bytes, Buffer.from([0, 0, 0, 0, 0, 0, 0, 1, 0, 0])]));
    const { code, stdout, stderr } = await run(['log', 'verify', workplace.path('torn')]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(`torn tail: ${file}, byte ${bytes.length}, 10 bytes`);
    expect(stdout).toContain('was not stopped cleanly');
  });
});
