/** gRPC by hand over node:http2, for bytes that no gRPC client would send. */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import type { LogError } from '../../src/core/errors.js';
import { fromServiceError } from '../../src/rpc/status-codec.js';

const DETAILS_HEADER = 'grpc-status-details-bin';

/** Node.js holds its own clients to 10 MB of what was not sent yet. */
const SESSION_MEGABYTES = 1000;

/** How a call ended. */
export interface Answer {
  /** gRPC status code; undefined when the call was still open at its time limit, or was reset. */
  readonly code: number | undefined;
  readonly message: string;
  /** From the ErrorInfo of the status; undefined when it carries none. */
  readonly error: LogError | undefined;
  /** HTTP/2 error code that the stream was reset with by the broker; undefined when it was not. */
  readonly resetCode: number | undefined;
  /** Bytes of the response messages, with their frames. */
  readonly body: Buffer;
}

export interface CallOptions {
  /** The client cancels then, in ms. */
  readonly limitMs: number;
  readonly headers?: OutgoingHttpHeaders;
}

export interface FrameOptions {
  readonly compressed?: boolean;
  /** What the frame says that the message has, in bytes. */
  readonly length?: number;
}

/** A message with the five bytes that go before it. */
export function framed(
  message: Uint8Array,
  { compressed = false, length = message.length }: FrameOptions = {},
): Buffer {
  const frame = Buffer.alloc(5 + message.length);
  frame[0] = compressed ? 1 : 0;
  frame.writeUInt32BE(length, 1);
  frame.set(message, 5);
  return frame;
}

function errorOf(code: number, message: string, headers: IncomingHttpHeaders): LogError | undefined {
  const details = headers[DETAILS_HEADER];
  if (typeof details !== 'string') return undefined;
  const metadata = new Metadata();
  metadata.set(DETAILS_HEADER, Buffer.from(details, 'base64'));
  const carrier: Partial<ServiceError> = { code, details: message, metadata };
  return fromServiceError(Object.assign(new Error(message), carrier));
}

export class RawConnection {
  readonly session: ClientHttp2Session;

  private constructor(session: ClientHttp2Session) {
    this.session = session;
  }

  static async open(address: string): Promise<RawConnection> {
    const session = connect(`http://${address}`, { maxSessionMemory: SESSION_MEGABYTES });
    // A lost connection shows in the calls.
    session.on('error', () => undefined);
    await once(session, 'connect');
    return new RawConnection(session);
  }

  get usable(): boolean {
    return !this.session.closed && !this.session.destroyed;
  }

  /** Sends `body` as it is, says that nothing more will come, and waits for the status. */
  async call(path: string, body: Uint8Array, { limitMs, headers = {} }: CallOptions): Promise<Answer> {
    return await new Promise((resolve) => {
      const stream = this.session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
        ...headers,
      });
      let status: IncomingHttpHeaders = {};
      const parts: Buffer[] = [];
      const note = (received: IncomingHttpHeaders): void => {
        if (received['grpc-status'] !== undefined) status = received;
      };
      stream.on('response', note);
      stream.on('trailers', note);
      stream.on('data', (part: Buffer) => parts.push(part));
      // What went wrong is in the reset code.
      stream.on('error', () => undefined);
      const timer = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), limitMs);
      stream.on('close', () => {
        clearTimeout(timer);
        const code = status['grpc-status'] === undefined ? undefined : Number(status['grpc-status']);
        const message = decodeURIComponent(String(status['grpc-message'] ?? ''));
        const error = code === undefined ? undefined : errorOf(code, message, status);
        const reset = stream.rstCode === constants.NGHTTP2_NO_ERROR || stream.rstCode === constants.NGHTTP2_CANCEL;
        resolve({ code, message, error, resetCode: reset ? undefined : stream.rstCode, body: Buffer.concat(parts) });
      });
      stream.end(body);
    });
  }

  close(): void {
    this.session.destroy();
  }
}
