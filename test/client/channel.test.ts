/** Calls of the client's channel against a plain gRPC server. */
import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Channel, cancelCall } from '../../src/client/channel.js';
import { methods } from '../../src/client/methods.js';
import { systemClock } from '../../src/core/clock.js';
import type { FetchStreamRequest, FetchStreamResponse } from '../../src/rpc/messages.js';
import { until } from '../support/until.js';

const server = new Server();
/** Calls that the server has been sent, and those of them that it holds for open. */
let arrived = 0;
const open = new Set<ServerWritableStream<FetchStreamRequest, FetchStreamResponse>>();
let channel: Channel;

beforeAll(async () => {
  const { fetchStream } = methods;
  server.addService(
    { fetchStream },
    {
      fetchStream: (call: ServerWritableStream<FetchStreamRequest, FetchStreamResponse>) => {
        arrived++;
        open.add(call);
        call.on('cancelled', () => open.delete(call));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  channel = new Channel(`127.0.0.1:${port}`, 'test', systemClock);
});

afterAll(() => {
  channel.close();
  server.forceShutdown();
});

function openStream(): ReturnType<typeof channel.serverStream<FetchStreamRequest, FetchStreamResponse>> {
  const request: FetchStreamRequest = {
    positions: [],
    maxBytes: 0,
    format: 'RECORD_FORMAT_BATCHES',
    isolationLevel: 'ISOLATION_LEVEL_READ_UNCOMMITTED',
  };
  const call = channel.serverStream(methods.fetchStream, request);
  call.on('error', () => {});
  call.resume();
  return call;
}

test('a cancelled call is over at the server too, however early it is cancelled', async () => {
  const first = openStream();
  await until(() => open.size === 1, 'the connection is made');
  for (let turns = 0; turns < 12; turns++) {
    const call = openStream();
    for (let i = 0; i < turns; i++) await Promise.resolve();
    cancelCall(call);
  }
  // Calls of one connection arrive in the order in which they were sent.
  const last = openStream();
  await until(() => arrived >= 2 && open.size === 2, 'only the first call and the last one are open');
  cancelCall(first);
  cancelCall(last);
  await until(() => open.size === 0, 'no call is open');
  expect(arrived).toBeGreaterThan(2);
});
