/**
 * What grpc-js (1.14) does not offer for servers and throughput and bounded memory need: flow-control windows, and a
 * bound on how many messages a stream reads ahead. Both reach into fields that are not part of its API; this file is
 * the only one that does, and `test/listeners/grpc/transport.test.ts` fails when a new release breaks it.
 */
import type { ServerHttp2Session, ServerOptions } from 'node:http2';
import type { Server } from '@grpc/grpc-js';

/**
 * HTTP/2 flow-control window of each stream and of each connection. The default of 64 KiB allows a fifth of the
 * throughput; beyond 1 MiB little is gained.
 */
export const WINDOW_BYTES: number = 4 * 1024 * 1024;

interface ServerInternals {
  commonServerOptions?: ServerOptions;
  http2Servers?: Map<{ on(event: 'session', listener: (session: ServerHttp2Session) => void): void }, unknown>;
}

/** Sets the window that streams of later-bound ports are granted. Call before `bindAsync`. False: no longer possible. */
export function widenStreamWindows(server: Server): boolean {
  const options = (server as unknown as ServerInternals).commonServerOptions;
  if (options === undefined) return false;
  options.settings = { ...options.settings, initialWindowSize: WINDOW_BYTES };
  return true;
}

/** Widens the window of every connection to come. Call after `bindAsync`. False: no longer possible. */
export function widenConnectionWindows(server: Server): boolean {
  const servers = (server as unknown as ServerInternals).http2Servers;
  if (servers === undefined || servers.size === 0) return false;
  for (const http2Server of servers.keys()) {
    http2Server.on('session', (session) => session.setLocalWindowSize(WINDOW_BYTES));
  }
  return true;
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
