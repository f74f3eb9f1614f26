/** Over Node.js's HTTP/2 alone: nothing takes what is received, so that it stays where it is counted. */
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, connect, createServer, type Http2Server } from 'node:http2';
import { type AddressInfo, connect as connectSocket, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { silentLogger } from '../../../src/core/logger.js';
import { ReceiveBudget } from '../../../src/listeners/grpc/receive-budget.js';
import { until } from '../../support/until.js';

const LIMIT = 200_000;
const WIDE = 1024 * 1024;
const SHORT = 64 * 1024;
const MAX_STREAMS = 10;
/** More changes of windows than Node.js lets a client leave unconfirmed. */
const CHANGES = 30;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

let server: Http2Server;
let budget: ReceiveBudget;
let client: ClientHttp2Session;

beforeEach(async () => {
  server = createServer({ settings: { initialWindowSize: WIDE } });
  budget = new ReceiveBudget({ limitBytes: LIMIT, windowBytes: WIDE, maxStreams: MAX_STREAMS, logger: silentLogger });
  server.on('session', (session) => budget.watch(session));
  server.on('stream', (stream) => {
    stream.on('error', () => undefined);
    if (stream.sentHeaders === undefined && !stream.destroyed) stream.respond({ ':status': 200 });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  client = connect(`http://127.0.0.1:${port()}`);
  await once(client, 'remoteSettings');
});

afterEach(async () => {
  client.destroy();
  server.close();
  await once(server, 'close');
});

function port(): number {
  return (server.address() as AddressInfo).port;
}

function send(bytes: number): ClientHttp2Stream {
  const stream = client.request({ ':method': 'POST' });
  stream.on('error', () => undefined);
  stream.write(Buffer.alloc(bytes));
  return stream;
}

function windowIs(bytes: number): Promise<void> {
  return until(() => client.remoteSettings.initialWindowSize === bytes, `the window is ${bytes}`);
}

test('what is received counts, until the stream is over', async () => {
  const streams = [send(10_000), send(20_000), send(30_000)];
  await until(() => budget.heldBytes === 60_000, 'all of it counts');
  streams[0]?.close();
  await until(() => budget.heldBytes === 50_000, 'one is over');
  client.destroy();
  await until(() => budget.heldBytes === 0, 'the connection is over');
});

test('at the limit the stream that holds most is reset, and counts no longer', async () => {
  const largest = send(50_000);
  await until(() => budget.heldBytes === 50_000, 'the first is there');
  const others = Array.from({ length: 4 }, () => send(40_000));
  await until(() => largest.destroyed, 'it is reset');
  expect(largest.rstCode).not.toBe(0);
  await until(() => budget.heldBytes === 160_000, 'the others are there');
  expect(others.some((stream) => stream.destroyed)).toBe(false);
});

test('windows shrink while there is little room, also those of later connections', async () => {
  const large = send(LIMIT / 2 + 10_000);
  await windowIs(SHORT);
  const later = connect(`http://127.0.0.1:${port()}`);
  await until(() => later.remoteSettings.initialWindowSize === SHORT, 'it is told');
  large.close();
  await windowIs(WIDE);
  later.destroy();
});

test('a client that confirms no settings stays connected however often windows change', async () => {
  const mute: Socket = connectSocket(port(), '127.0.0.1');
  let ended = false;
  mute.on('error', () => undefined);
  mute.on('close', () => {
    ended = true;
  });
  mute.resume();
  mute.write(Buffer.concat([PREFACE, EMPTY_SETTINGS]));
  await once(mute, 'data');
  for (let change = 0; change < CHANGES; change++) {
    const large = send(LIMIT / 2 + 10_000);
    await until(() => budget.heldBytes > LIMIT / 2, 'windows shrink');
    large.close();
    await until(() => budget.heldBytes === 0, 'windows grow');
  }
  await windowIs(WIDE);
  expect(ended).toBe(false);
  mute.destroy();
});

test('streams beyond the limit are reset, and their place is free again once others end', async () => {
  const streams = Array.from({ length: MAX_STREAMS }, () => send(10));
  await until(() => budget.heldBytes === 10 * MAX_STREAMS, 'all are there');
  const beyond = send(10);
  await until(() => beyond.destroyed, 'it is reset');
  expect(beyond.rstCode).not.toBe(0);
  streams[0]?.close();
  await until(() => budget.heldBytes === 10 * (MAX_STREAMS - 1), 'one is over');
  send(10);
  await until(() => budget.heldBytes === 10 * MAX_STREAMS, 'another takes its place');
});
