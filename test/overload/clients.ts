/** Clients that take all they can get of a broker: connections, answers that they do not read, requests without end. */
import type { ClientHttp2Stream } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { PROTO_DIR } from '../../src/rpc/proto.js';
import { PREFACE, SETTINGS } from '../support/http2-frames.js';
import { loadTypes, protoFilesUnder } from '../support/proto-types.js';
import { framed, RawConnection } from '../support/raw-http2.js';

const types = loadTypes(protoFilesUnder(join(PROTO_DIR, 'tidelog')));

/** A framed request of a type of package tidelog.v1. */
export function request(typeName: string, fields: object): Buffer {
  const type = types.lookupType(`tidelog.v1.${typeName}`);
  return framed(type.encode(type.fromObject(fields)).finish());
}

/** Something that is held until it is closed. */
export interface Held {
  close(): void;
}

/** A connection that says hello and nothing more. Resolves when the broker has answered or hung up. */
export async function idleConnection(address: string): Promise<Socket> {
  const [host, port] = address.split(':') as [string, string];
  const socket = connect(Number(port), host);
  socket.write(Buffer.concat([PREFACE, SETTINGS]));
  await new Promise<void>((resolve) => {
    socket.once('data', () => resolve());
    socket.once('close', () => resolve());
    // The broker may refuse it: 'close' follows.
    socket.on('error', () => undefined);
  });
  return socket;
}

function open(connection: RawConnection, path: string): ClientHttp2Stream {
  const stream = connection.session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc' });
  stream.on('error', () => undefined);
  return stream;
}

/** Streams of a topic, on one connection each, of which nothing is read. */
export async function slowReader(address: string, topic: string, streams = 1): Promise<Held> {
  const connection = await RawConnection.open(address);
  for (let count = 0; count < streams; count++) {
    const stream = open(connection, '/tidelog.v1.FetchService/FetchStream');
    stream.end(request('FetchStreamRequest', { positions: [{ topic }], maxBytes: 64 * 1024 * 1024 }));
    stream.pause();
  }
  return connection;
}

/** Requests of `bytes` of which the last byte never comes. */
export async function halfRequests(address: string, count: number, bytes: number): Promise<Held> {
  const connection = await RawConnection.open(address);
  const half = framed(Buffer.alloc(bytes - 1), { length: bytes });
  for (let each = 0; each < count; each++) open(connection, '/tidelog.v1.ProduceService/Produce').write(half);
  return connection;
}

/** Sends requests as fast as flow control lets it, whatever the answers are, on streams of one connection. */
export class Flood implements Held {
  readonly #connection: RawConnection;
  #sent = 0;
  #closed = false;

  private constructor(connection: RawConnection) {
    this.#connection = connection;
  }

  static async start(address: string, streams: number, message: Buffer): Promise<Flood> {
    const flood = new Flood(await RawConnection.open(address));
    for (let count = 0; count < streams; count++) flood.#pump(message);
    return flood;
  }

  /** Requests that flow control has taken so far. */
  get sent(): number {
    return this.#sent;
  }

  #pump(message: Buffer): void {
    const stream = open(this.#connection, '/tidelog.v1.ProduceService/ProduceStream');
    stream.resume();
    const send = (): void => {
      if (this.#closed || stream.destroyed) return;
      stream.write(message, () => {
        this.#sent++;
        send();
      });
    };
    send();
  }

  close(): void {
    this.#closed = true;
    this.#connection.close();
  }
}
