/**
 * The baseline for the network: a gRPC server that takes opaque messages on a stream and answers each, with the same
 * windows as the broker, and does nothing else. Prints its port.
 */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { BARE_METHOD, WINDOW_BYTES } from '../support/bare-grpc.js';

interface ServerInternals {
  commonServerOptions: { settings?: object };
  http2Servers: Map<
    { on(event: 'session', listener: (session: { setLocalWindowSize(n: number): void }) => void): void },
    unknown
  >;
}

const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.enable_channelz': 0 });
const internals = server as unknown as ServerInternals;
internals.commonServerOptions.settings = { initialWindowSize: WINDOW_BYTES };
server.addService(
  { stream: BARE_METHOD },
  {
    stream: (call: ServerDuplexStream<Buffer, Buffer>) => {
      const answer = Buffer.alloc(8);
      call.on('data', () => call.write(answer));
      call.on('end', () => call.end());
    },
  },
);
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  for (const http2Server of internals.http2Servers.keys()) {
    http2Server.on('session', (session) => session.setLocalWindowSize(WINDOW_BYTES));
  }
  process.stdout.write(`${port}\n`);
});
