/** A small TCP proxy between clients and a broker, whose connections can be cut, refused and slowed down. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** How a connection is cut: by a reset, which drops what is under way, or by an orderly end. */
export type Cut = 'reset' | 'end';

interface Connection {
  readonly client: Socket;
  readonly broker: Socket;
  readonly ended: AbortController;
}

/** Invariant: of a connection that is cut nothing is forwarded any more, in either direction. */
export class TcpProxy {
  readonly address: string;
  /** Held before each chunk is passed on, in ms. */
  delayMs = 0;
  /** Whether new connections are refused. */
  refuses = false;
  /** Connections cut so far. */
  cutCount = 0;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  #target: string;
  /** What may still pass before all connections are cut; undefined: no limit. */
  #limit: { bytes: number; readonly how: Cut } | undefined;

  private constructor(server: Server, target: string) {
    this.#server = server;
    this.#target = target;
    const { port } = server.address() as AddressInfo;
    this.address = `127.0.0.1:${port}`;
    server.on('connection', (client) => this.#accept(client));
  }

  /** @param target `HOST:PORT` that connections lead to */
  static async start(target: string): Promise<TcpProxy> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new TcpProxy(server, target);
  }

  /** New connections lead there from now on. */
  retarget(target: string): void {
    this.#target = target;
  }

  /** Cuts every connection. */
  cutAll(how: Cut): void {
    this.#limit = undefined;
    this.cutCount += this.#connections.size;
    for (const connection of [...this.#connections]) this.#end(connection, how);
  }

  /** Cuts every connection once this many more bytes have passed, both directions and all connections together. */
  cutAfter(bytes: number, how: Cut): void {
    this.#limit = { bytes, how };
  }

  async stop(): Promise<void> {
    this.cutAll('reset');
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(client: Socket): void {
    if (this.refuses) {
      client.resetAndDestroy();
      return;
    }
    const [host = '', port = ''] = this.#target.split(':');
    const broker = connect({ host, port: Number(port) });
    const connection = { client, broker, ended: new AbortController() };
    this.#connections.add(connection);
    for (const socket of [client, broker]) {
      socket.setNoDelay(true);
      // Whoever goes away takes the other side along.
      socket.on('error', () => this.#end(connection, 'reset'));
      socket.on('close', () => this.#end(connection, 'end'));
    }
    void this.#forward(connection, client, broker);
    void this.#forward(connection, broker, client);
  }

  async #forward(connection: Connection, from: Socket, to: Socket): Promise<void> {
    const chunks: AsyncIterable<Buffer> = from;
    try {
      for await (const chunk of chunks) await this.#pass(connection, chunk, to);
      this.#end(connection, 'end');
    } catch {
      this.#end(connection, 'reset');
    }
  }

  async #pass(connection: Connection, chunk: Buffer, to: Socket): Promise<void> {
    if (this.delayMs > 0) await sleep(this.delayMs);
    if (!this.#connections.has(connection)) return;
    const limit = this.#limit;
    const passing = limit === undefined ? chunk : chunk.subarray(0, limit.bytes);
    const hasRoom = to.write(passing);
    if (limit !== undefined) {
      limit.bytes -= passing.length;
      if (limit.bytes === 0) this.cutAll(limit.how);
    }
    if (!hasRoom) await once(to, 'drain', { signal: connection.ended.signal });
  }

  #end(connection: Connection, how: Cut): void {
    if (!this.#connections.delete(connection)) return;
    connection.ended.abort();
    for (const socket of [connection.client, connection.broker]) {
      if (how === 'reset') socket.resetAndDestroy();
      else socket.destroySoon();
    }
  }
}
