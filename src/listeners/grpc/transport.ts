/**
 * What grpc-js (1.14) does not offer for servers and throughput and bounded memory need: flow-control windows, a bound on
 * how many messages a stream reads ahead, and the connections and streams below its calls. All reach into fields that
 * are not part of its API; this file is the only one that does, and `test/listeners/grpc/transport.test.ts` fails when a
 * new release breaks it.
 */
import {
  constants,
  type Http2Stream,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerOptions,
} from 'node:http2';
import type { Server } from '@grpc/grpc-js';

/** HTTP/2 flow-control window of each connection. The default of 64 KiB allows a fifth of the throughput. */
export const CONNECTION_WINDOW_BYTES: number = 4 * 1024 * 1024;

interface Http2Server {
  maxConnections: number;
  on(event: 'session', listener: (session: ServerHttp2Session) => void): void;
}

interface ServerInternals {
  commonServerOptions?: ServerOptions;
  http2Servers?: Map<Http2Server, unknown>;
}

/** Sets the window that streams of later-bound ports are granted. Call before `bindAsync`. False: no longer possible. */
export function widenStreamWindows(server: Server, windowBytes: number): boolean {
  const options = (server as unknown as ServerInternals).commonServerOptions;
  if (options === undefined) return false;
  options.settings = { ...options.settings, initialWindowSize: windowBytes };
  return true;
}

/**
 * Takes at most so many connections at once, more are closed as they come; tells of each. Call after `bindAsync`. False:
 * no longer possible.
 */
export function watchConnections(
  server: Server,
  maxConnections: number,
  onConnection: (session: ServerHttp2Session) => void,
): boolean {
  const servers = (server as unknown as ServerInternals).http2Servers;
  if (servers === undefined || servers.size === 0) return false;
  for (const http2Server of servers.keys()) {
    http2Server.maxConnections = maxConnections;
    http2Server.on('session', onConnection);
  }
  return true;
}

interface CallInternals {
  call?: { stream?: Http2Stream };
}

/** The stream that a call came on. Undefined: can no longer be found out. */
export function http2StreamOf(call: object): Http2Stream | undefined {
  return (call as CallInternals).call?.stream;
}

/** Clients of gRPC know this as RESOURCE_EXHAUSTED. Destroyed as well, so that what the stream holds goes at once. */
export function resetStream(stream: Http2Stream | undefined): void {
  stream?.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  stream?.destroy();
}

/**
 * Has the transport answer compressed messages with UNIMPLEMENTED. It would unpack them, each to as much as a thousand
 * times its size and many at once, before anything could count it; record batches are compressed by themselves.
 */
export function refuseCompression(headers: IncomingHttpHeaders): void {
  const encoding = headers['grpc-encoding'];
  if (encoding !== undefined && encoding !== 'identity') headers['grpc-encoding'] = `${encoding} (none is taken here)`;
}

interface ReadableInternals {
  _readableState?: { highWaterMark: number };
}

/**
 * Makes a stream of messages read one ahead instead of sixteen, so that what a paused stream holds is bounded by one
 * message. False: no longer possible.
 */
export function readOneAhead(call: NodeJS.ReadableStream): boolean {
  const state = (call as unknown as ReadableInternals)._readableState;
  if (state === undefined) return false;
  state.highWaterMark = 1;
  return true;
}
