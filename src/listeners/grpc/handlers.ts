/** Wrappers that every handler goes through: a handler that throws must never end the process. */
import type {
  handleServerStreamingCall,
  handleUnaryCall,
  MethodDefinition,
  ServerUnaryCall,
  ServerWritableStream,
  ServiceDefinition,
  sendUnaryData,
} from '@grpc/grpc-js';
import { LogError, toLogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { fieldLimiter } from '../../rpc/field-count.js';
import { toServiceError } from '../../rpc/status-codec.js';

/** A request that could not be decoded or is too large; the handler wrappers answer with its error. */
export class RefusedRequest {
  readonly error: LogError;

  constructor(error: LogError) {
    this.error = error;
  }
}

/**
 * The service with deserializers that refuse instead of throwing, so that a malformed or oversized message is answered
 * with a reason of ours and not with a bare INTERNAL from the transport.
 */
export function guardRequests(service: ServiceDefinition, maxRequestBytes: number): ServiceDefinition {
  const guarded: Record<string, MethodDefinition<unknown, unknown>> = {};
  for (const [name, method] of Object.entries(service)) {
    const limitFields = fieldLimiter(method.path);
    const deserialize = (bytes: Buffer): unknown => {
      limitFields(bytes);
      return method.requestDeserialize(bytes);
    };
    guarded[name] = { ...method, requestDeserialize: guardDeserializer(deserialize, maxRequestBytes) };
  }
  return guarded;
}

const WIRE_SIZE: unique symbol = Symbol('size on the wire');

interface Sized {
  [WIRE_SIZE]?: number;
}

/** What a request had on the wire, in bytes. */
export function wireSizeOf(request: object): number {
  return (request as Sized)[WIRE_SIZE] ?? 0;
}

/** Refuses what is too large or does not decode. */
export function guardDeserializer(
  deserialize: (bytes: Buffer) => unknown,
  maxRequestBytes: number,
): (bytes: Buffer) => unknown {
  return (bytes) => {
    if (bytes.length > maxRequestBytes) return new RefusedRequest(tooLarge(bytes.length, maxRequestBytes));
    try {
      const request = deserialize(bytes);
      if (typeof request === 'object' && request !== null) (request as Sized)[WIRE_SIZE] = bytes.length;
      return request;
    } catch (error) {
      if (error instanceof LogError) return new RefusedRequest(error);
      const message = 'The request is not a valid message of this method.';
      return new RefusedRequest(new LogError('INVALID_REQUEST', message, { cause: error }));
    }
  };
}

function tooLarge(bytes: number, limit: number): LogError {
  return new LogError(
    'MESSAGE_TOO_LARGE',
    `The request has ${bytes} bytes; this broker takes at most ${limit} (request.max.bytes). Send smaller batches.`,
    { metadata: { request_bytes: bytes, max_request_bytes: limit } },
  );
}

/** What went wrong, for the answer; defects are logged, because their answer tells little. */
export function reportable(error: unknown, logger: Logger, method: string): LogError {
  const failure = toLogError(error);
  if (failure.reason === 'INTERNAL') logger.error({ method, err: error }, 'a request met a defect');
  return failure;
}

/** One for all: without a reason, each abort would make an error with a stack, of every call that simply ends. */
const CALL_OVER = new LogError('CANCELLED', 'The call is over.');

/** Aborted when the call is over, in particular when the client gives up waiting for its answer. */
export function abortOnCancel(call: {
  once(event: 'cancelled' | 'close', listener: () => void): unknown;
}): AbortSignal {
  const controller = new AbortController();
  const abort = (): void => controller.abort(CALL_OVER);
  call.once('cancelled', abort);
  call.once('close', abort);
  return controller.signal;
}

export function unary<Request, Response>(
  logger: Logger,
  handle: (request: Request, call: ServerUnaryCall<Request, Response>) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    const request: Request | RefusedRequest = call.request;
    if (request instanceof RefusedRequest) {
      callback(toServiceError(request.error));
      return;
    }
    handle(request, call).then(
      (response) => callback(null, response),
      (error: unknown) => callback(toServiceError(reportable(error, logger, call.getPath()))),
    );
  };
}

export function serverStream<Request, Response>(
  logger: Logger,
  handle: (request: Request, call: ServerWritableStream<Request, Response>) => Promise<void>,
): handleServerStreamingCall<Request, Response> {
  return (call: ServerWritableStream<Request, Response>): void => {
    const request: Request | RefusedRequest = call.request;
    if (request instanceof RefusedRequest) {
      call.emit('error', toServiceError(request.error));
      return;
    }
    handle(request, call).then(
      () => call.end(),
      (error: unknown) => call.emit('error', toServiceError(reportable(error, logger, call.getPath()))),
    );
  };
}
