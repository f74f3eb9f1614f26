/** `tidelog serve` as a process: what it prints, how it stops, and why it may not start. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { connect, string, topic } from '../../src/index.js';
import { type Finished, type Server, tidelog, Workplace } from '../cli/support.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { sendSingly } from '../history/recorded/loads.js';
import { readAll } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';
import { until } from '../support/until.js';

const workplace = new Workplace();

afterAll(() => workplace.clean());

const EPHEMERAL = ['--listen', '127.0.0.1:0', '--http', '127.0.0.1:0'];
const words = topic('words', { value: string() });

function cleanMarker(name: string): boolean {
  return existsSync(path.join(workplace.path(name), '.clean_shutdown'));
}

function refuseToServe(name: string, ...flags: string[]): Promise<Finished> {
  return tidelog(['serve', '--data-dir', workplace.path(name), ...EPHEMERAL, ...flags]);
}

function expectOneLine({ stdout, stderr }: Finished, ...parts: string[]): void {
  expect(stderr).toMatch(/^tidelog: [^\n]*\n$/);
  for (const part of parts) expect(stderr).toContain(part);
  expect(stdout).toBe('');
}

describe('a start', () => {
  test('says on one line where it listens and where its data is, and answers /healthz', async () => {
    const server = await workplace.serve('start');
    expect(server.process.stdout).toMatch(
      /^tidelog \S+ is serving gRPC on 127\.0\.0\.1:\d+ and HTTP on 127\.0\.0\.1:\d+, data in \/.*\/start\n$/,
    );
    const response = await fetch(`http://${server.http}/healthz`);
    expect(await response.json()).toEqual({ status: 'SERVING', failures: [] });
    const { code, stderr } = await server.stop();
    expect(code).toBe(0);
    for (const line of stderr.trim().split('\n')) expect(JSON.parse(line)).toMatchObject({ level: 'info' });
  });

  test('takes its configuration from a file, and flags override it', async () => {
    const file = workplace.path('tidelog.json');
    writeFileSync(file, JSON.stringify({ 'default.partitions': 5, 'log.level': 'trace' }));
    const server = await workplace.serve('file', '--config', file, '--log-level', 'error');
    const client = await connect(server.address);
    expect((await client.admin.createTopic({ name: 'words' })).partitionCount).toBe(5);
    await client.close();
    expect(await server.stop()).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('a start is refused', () => {
  test('with 1 when the port is in use', async () => {
    const server = await workplace.serve('port');
    const gRpc = await refuseToServe('port-2', '--listen', server.address);
    expect(gRpc.code).toBe(1);
    expectOneLine(gRpc, 'ADDRESS_UNAVAILABLE', server.address, 'choose another address');
    const http = await refuseToServe('port-2', '--http', server.http);
    expect(http.code).toBe(1);
    expectOneLine(http, 'ADDRESS_UNAVAILABLE', server.http);
    // What was opened for the attempt was left in order.
    expect(cleanMarker('port-2')).toBe(true);
  });

  test('with 1 when another broker uses the data directory, naming its process', async () => {
    const server = await workplace.serve('locked');
    const refused = await refuseToServe('locked');
    expect(refused.code).toBe(1);
    expectOneLine(refused, 'DATA_DIR_LOCKED', `process ${server.process.child.pid}`, workplace.path('locked'));
  });

  test('with 1 when the data directory is a file, or of a newer format', async () => {
    writeFileSync(workplace.path('file-not-directory'), '');
    const file = await refuseToServe('file-not-directory');
    expect(file.code).toBe(1);
    expectOneLine(file, 'DATA_DIR_UNUSABLE', 'file-not-directory');
    mkdirSync(workplace.path('newer'));
    writeFileSync(path.join(workplace.path('newer'), 'meta.json'), '{"formatVersion":99}');
    const newer = await refuseToServe('newer');
    expect(newer.code).toBe(1);
    expectOneLine(newer, 'UNSUPPORTED_FORMAT', '99');
  });

  test('with 2 when the configuration is wrong', async () => {
    const value = await refuseToServe('config', '--request-max-bytes', 'much');
    expect(value.code).toBe(2);
    expectOneLine(value, 'INVALID_CONFIG', 'request.max.bytes=much', '--request-max-bytes', 'whole number');
    const missing = await refuseToServe('config', '--config', '/nowhere.json');
    expect(missing.code).toBe(2);
    expectOneLine(missing, 'no configuration file /nowhere.json');
    const file = workplace.path('unknown-key.json');
    writeFileSync(file, '{"data.directory": "/x"}');
    const unknown = await refuseToServe('config', '--config', file);
    expect(unknown.code).toBe(2);
    expectOneLine(unknown, '"data.directory"', file, 'data.dir');
    const variable = await tidelog(['serve', ...EPHEMERAL], '', { TIDELOG_DATADIR: '/x' });
    expect(variable.code).toBe(2);
    expectOneLine(variable, 'TIDELOG_DATADIR', 'TIDELOG_DATA_DIR');
    expect(existsSync(workplace.path('config'))).toBe(false);
  });
});

describe('a stop', () => {
  /** Sends until the broker refuses. */
  async function sendUntilRefused(server: Server, recorded: RecordedTopic): Promise<void> {
    await using client = await connect(server.address);
    const producer = client.producer({ lingerMs: 0, deliveryTimeoutMs: 1000, maxInFlight: 5 });
    let refused = false;
    const onFailure = (): void => {
      refused = true;
    };
    await sendSingly(recorded, producer, 'producer', {
      partitions: [0],
      window: 50,
      goesOn: () => !refused,
      onFailure,
    });
  }

  test('under load ends with 0, loses nothing acknowledged, and the next start finds all in order (invariants 1, 4, 6)', async () => {
    const server = await workplace.serve('load');
    const admin = await connect(server.address);
    await admin.admin.createTopic({ name: 'words' });
    await admin.close();
    const history = new History();
    const recorded: RecordedTopic = { history, topic: words, partitionCount: 1 };
    const load = sendUntilRefused(server, recorded);
    await until(() => history.acks >= 500, '500 records are acknowledged');
    const { code, stderr } = await server.stop();
    await load;
    expect(code).toBe(0);
    expect(stderr).toContain('stopped cleanly');
    expect(cleanMarker('load')).toBe(true);

    const again = await workplace.serve('load', '--log-level', 'debug');
    const lines = again.process.stderr.trim().split('\n');
    expect(lines.some((line) => line.includes('"clean":true'))).toBe(true);
    expect(again.process.stderr).not.toMatch(/scan/);
    const client = await connect(again.address);
    await readAll(recorded, client, 'last');
    await client.close();
    expectNoViolations(history);
    expect((await again.stop('SIGINT')).code).toBe(0);
  });

  test('by a second signal is at once, and leaves no clean marker', async () => {
    const server = await workplace.serve('twice');
    const client = await connect(server.address);
    await client.admin.createTopic({ name: 'words' });
    const producer = client.producer();
    await producer.send(words, { value: 'one' });
    // A process that is suspended gets both signals together, so that the second finds the first being carried out.
    const { child } = server.process;
    child.kill('SIGSTOP');
    child.kill('SIGTERM');
    child.kill('SIGINT');
    child.kill('SIGCONT');
    const { code } = await server.process.finished();
    await client.close();
    expect([130, 143]).toContain(code);
    expect(cleanMarker('twice')).toBe(false);
  });

  test('while a consumer follows and a connection idles takes less than ten seconds', async () => {
    const server = await workplace.serve('followed');
    const client = await connect(server.address);
    await client.admin.createTopic({ name: 'words' });
    const reading = (async () => {
      for await (const _ of client.read(words, { from: 'latest' }));
    })().catch(() => undefined);
    await until(async () => (await client.admin.listTopics()).length === 1, 'the broker answers');
    const started = performance.now();
    expect((await server.stop()).code).toBe(0);
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(cleanMarker('followed')).toBe(true);
    await client.close();
    await reading;
  });
});
