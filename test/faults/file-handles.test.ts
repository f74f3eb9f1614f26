/**
 * Invariant 20 on a process that really may open no more: connections take every handle that the broker has left, and those
 * it gives back. Who was connected reads on, appends fail for want of a handle and for nothing else, and once
 * there are some again all is as before. Needs prlimit. What the clients did and saw ends in the history checker.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import path from 'node:path';
import { expect, test } from 'vitest';
import { connect, LogError, string, topic } from '../../src/index.js';
import { Server, Workplace } from '../cli/support.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { sendSingly } from '../history/recorded/loads.js';
import { readAll } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';
import { needs } from '../support/mounts.js';
import { Programme } from '../support/programme.js';
import { until } from '../support/until.js';

/** Of which Node.js itself takes about half. */
const MAX_HANDLES = 64;
const CONNECTIONS = 100;
/** Larger than half of a segment: each of them begins a file. */
const LARGE_BYTES = 10_000;
const PARTITIONS = [0, 1, 2, 3];
const orders = topic('orders', { value: string() });

/** Connections that come back whenever they are closed. */
class Crowd {
  readonly #address: string;
  readonly #sockets = new Set<Socket>();
  #stopped = false;

  constructor(address: string, count: number) {
    this.#address = address;
    for (let i = 0; i < count; i++) this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  #connect(): void {
    const [host, port] = this.#address.split(':') as [string, string];
    const socket = connectSocket(Number(port), host);
    this.#sockets.add(socket);
    // Being hung up on is what it is here for.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (!this.#stopped) this.#connect();
    });
    socket.resume();
  }
}

/** Why a send failed: the last answer of the broker, or that there was none in time, as on a busy machine. */
function reasonOf(error: unknown): string {
  if (!(error instanceof LogError)) return String(error);
  return error.cause instanceof LogError ? error.cause.reason : error.reason;
}

test('without free file handles readers read on, nothing is lost, and it heals without a restart (invariants 1, 20)', async (context) => {
  needs(context, { tools: ['prlimit'] });
  const programme = new Programme(context);
  const workplace = new Workplace();
  context.onTestFinished(() => workplace.clean());
  const dataDir = path.join(workplace.directory, 'data');
  const server = await Server.start(dataDir, '--log-level', 'error');
  context.onTestFinished(async () => void (await server.stop('SIGKILL')));
  // Only now: Node.js opens the files of many modules at once when a program starts.
  execFileSync('prlimit', ['--pid', String(server.process.child.pid), `--nofile=${MAX_HANDLES}`]);
  const client = await connect(server.address);
  context.onTestFinished(() => client.close());
  const configs = { 'segment.bytes': 16_384 };
  await client.admin.createTopic({ name: orders.name, partitions: PARTITIONS.length, configs });
  const history = new History();
  const recorded: RecordedTopic = { history, topic: orders, partitionCount: PARTITIONS.length };
  const failures: string[] = [];
  const send = async (process: string, goesOn: () => boolean): Promise<void> => {
    await using producer = client.producer({ lingerMs: 0, deliveryTimeoutMs: 2_000 });
    const onFailure = (error: unknown): void => void failures.push(reasonOf(error));
    const load = { partitions: PARTITIONS, window: 8, valueBytes: LARGE_BYTES, goesOn, onFailure };
    await sendSingly(recorded, producer, process, load);
  };
  await send('before', () => history.acks < 40);
  expect(failures).toEqual([]);

  const crowd = new Crowd(server.address, CONNECTIONS);
  context.onTestFinished(() => crowd.stop());
  const handles = `/proc/${server.process.child.pid}/fd`;
  await until(() => readdirSync(handles).length >= MAX_HANDLES, 'connections have taken every handle');
  let going = true;
  const during = send('during', () => going);
  for (let reading = 0; reading < 3; reading++) await readAll(recorded, client, `during-${reading}`);
  await until(() => failures.includes('RESOURCE_LIMIT'), 'an append was refused', 60_000);
  going = false;
  await during;
  programme.tried('refused appends', failures.length);
  const expected = new Set(['RESOURCE_LIMIT', 'PRECEDING_APPEND_FAILED', 'REQUEST_TIMED_OUT']);
  expect(failures.filter((reason) => !expected.has(reason))).toEqual([]);
  crowd.stop();

  const patient = client.producer({ deliveryTimeoutMs: 60_000 });
  const enough = history.acks + 40;
  const load = { partitions: PARTITIONS, window: 8, valueBytes: LARGE_BYTES, goesOn: () => history.acks < enough };
  failures.length = 0;
  await sendSingly(recorded, patient, 'healed', { ...load, onFailure: (error) => failures.push(reasonOf(error)) });
  expect(failures).toEqual([]);
  const health = (await (await fetch(`http://${server.http}/healthz`)).json()) as object;
  expect(health).toEqual({ status: 'SERVING', failures: [] });
  await readAll(recorded, client, 'last');
  expectNoViolations(history);
  programme.tried('acknowledged records', history.acks);
}, 120_000);
