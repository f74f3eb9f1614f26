/** The HTTP listener: health for load balancers and people. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Broker } from '../../broker/broker.js';
import type { Address } from '../../core/config-key.js';
import { addressUnavailable } from '../address-unavailable.js';

/** A request must have arrived whole after this long, in ms. */
const REQUEST_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 256;

export class HttpListener {
  readonly address: Address;
  readonly #server: Server;

  private constructor(server: Server, address: Address) {
    this.#server = server;
    this.address = address;
  }

  /** Binds and serves. @throws LogError ADDRESS_UNAVAILABLE */
  static async start(broker: Broker, listen: Address): Promise<HttpListener> {
    const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) =>
      respond(broker, request, response),
    );
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(addressUnavailable('HTTP', listen, error)));
      server.listen(listen.port, listen.host, resolve);
    });
    const bound = server.address();
    const port = typeof bound === 'object' && bound !== null ? bound.port : listen.port;
    return new HttpListener(server, { host: listen.host, port });
  }

  async stop(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

/**
 * GET /healthz: 200 while serving, 503 while stopping; partitions that take no appends are named in both, and so is
 * what keeps the metadata from being changed.
 */
function respond(broker: Broker, request: IncomingMessage, response: ServerResponse): void {
  const path = (request.url ?? '/').split('?', 1)[0];
  if (path !== '/healthz') {
    sendJson(response, 404, { error: `There is nothing at ${path}. Try /healthz.` });
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    sendJson(response, 405, { error: 'Use GET.' });
  } else {
    const failures = broker.topics.failures().map(({ topic, partition, error }) => ({
      topic,
      partition,
      reason: error.reason,
      message: error.message,
    }));
    const { metadataFailure } = broker;
    const metadata = metadataFailure && { reason: metadataFailure.reason, message: metadataFailure.message };
    const status = broker.draining ? 'NOT_SERVING' : 'SERVING';
    sendJson(response, broker.draining ? 503 : 200, { status, failures, metadata });
  }
}

function sendJson(response: ServerResponse, statusCode: number, body: object): void {
  response.statusCode = statusCode;
  response.setHeader('content-type', 'application/json; charset=utf-8');
  response.setHeader('cache-control', 'no-store');
  response.end(`${JSON.stringify(body)}\n`);
}
