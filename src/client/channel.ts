/** One connection to a broker: the only place of the client that knows how gRPC calls are made. */
import {
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
} from '@grpc/grpc-js';
import type { Clock } from '../core/clock.js';
import { LogError } from '../core/errors.js';
import { callFailure, cancelled, onAbort, throwIfAborted } from './failures.js';
import type { Method } from './methods.js';

/** Port of a broker whose address names none. */
export const DEFAULT_PORT = 7171;
/**
 * What the peer may send before it must wait, per stream and per connection. The default of HTTP/2, 64 KiB, costs a
 * factor of 3 to 5 in throughput; beyond 4 MiB nothing is gained.
 */
const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024;
/** Largest message taken from a broker: one record batch of the largest sensible size. */
const MAX_RECEIVE_BYTES = 64 * 1024 * 1024;

function channelOptions(clientId: string): ChannelOptions {
  return {
    'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
    'grpc.max_receive_message_length': MAX_RECEIVE_BYTES,
    'grpc.max_send_message_length': -1,
    // The SDK retries itself: it knows which calls may be repeated and keeps the order.
    'grpc.enable_retries': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 5_000,
    // A peer that vanished without a word is noticed after 40 s.
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    // Each client owns its connection, so that closing the one never disturbs another.
    'grpc.use_local_subchannel_pool': 1,
    // A proxy for web traffic does not lead to brokers.
    'grpc.enable_http_proxy': 0,
    'grpc.enable_channelz': 0,
    'grpc.primary_user_agent': clientId,
  };
}

/**
 * `HOST`, `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH` as gRPC wants it.
 * @throws LogError INVALID_REQUEST
 */
export function parseAddress(address: string): string {
  if (/^unix:.+/.test(address)) return address;
  const match = /^(\[[0-9a-fA-F:.%a-z]+\]|[^\s:/[\]]+)(?::(\d{1,5}))?$/.exec(address);
  const port = match?.[2] === undefined ? DEFAULT_PORT : Number(match[2]);
  if (match === null || port < 1 || port > 65_535) {
    throw new LogError(
      'INVALID_REQUEST',
      `A broker's address is HOST:PORT without a scheme, as in localhost:${DEFAULT_PORT}; not ${JSON.stringify(address)}.`,
    );
  }
  return `${match[1]}:${port}`;
}

/**
 * Cancels a call, at whatever time. grpc-js does not carry out what is cancelled in the turn in which the call was made:
 * it tells its owner that the call is over, sends it all the same, and then nobody ever takes what the broker answers.
 * So it is cancelled once more when that turn is over.
 */
export function cancelCall(call: { cancel(): void }): void {
  call.cancel();
  setImmediate(() => call.cancel());
}

export interface CallLimits {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export class Channel {
  /** Normalized address, as error messages show it. */
  readonly address: string;
  readonly #clock: Clock;
  readonly #client: Client;

  constructor(address: string, clientId: string, clock: Clock) {
    this.address = parseAddress(address);
    this.#clock = clock;
    this.#client = new Client(this.address, credentials.createInsecure(), channelOptions(clientId));
  }

  /**
   * One unary call, not repeated.
   * @throws LogError what the broker answered; BROKER_UNAVAILABLE, CONNECTION_LOST, REQUEST_TIMED_OUT, CANCELLED
   */
  unary<Request, Response>(method: Method<Request, Response>, request: Request, limits: CallLimits): Promise<Response> {
    const { timeoutMs, signal } = limits;
    return new Promise((resolve, reject) => {
      throwIfAborted(signal);
      let ownFailure: LogError | undefined;
      const settle = (error: Error | null, response?: Response): void => {
        timer.cancel();
        stopListening();
        if (ownFailure !== undefined) reject(ownFailure);
        else if (error !== null) reject(callFailure(error));
        else resolve(response as Response);
      };
      const call: ClientUnaryCall = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        settle,
      );
      const abandon = (error: LogError): void => {
        ownFailure = error;
        cancelCall(call);
      };
      const timer = this.#clock.setTimer(timeoutMs, () => abandon(this.#timedOut(method.path, timeoutMs)));
      const stopListening = onAbort(signal, () => abandon(cancelled(signal as AbortSignal)));
    });
  }

  duplex<Request, Response>(method: Method<Request, Response>): ClientDuplexStream<Request, Response> {
    return this.#client.makeBidiStreamRequest(method.path, method.requestSerialize, method.responseDeserialize);
  }

  serverStream<Request, Response>(method: Method<Request, Response>, request: Request): ClientReadableStream<Response> {
    return this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
    );
  }

  close(): void {
    this.#client.close();
  }

  #timedOut(path: string, timeoutMs: number): LogError {
    const name = path.slice(path.lastIndexOf('/') + 1);
    return new LogError(
      'REQUEST_TIMED_OUT',
      `The broker at ${this.address} did not answer ${name} in ${timeoutMs} ms.`,
    );
  }
}
