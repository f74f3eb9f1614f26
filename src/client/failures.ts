/** What went wrong on the client's side of the wire, as LogErrors. */
import { status as Code, type ServiceError } from '@grpc/grpc-js';
import { LogError, type Outcome } from '../core/errors.js';
import { fromServiceError } from '../rpc/status-codec.js';

/** The request never left: no connection, or the peer refused the stream before it looked at it. */
const NOT_SENT = /No connection established|Name resolution failed|Stream refused by server|Channel closed before/;
/** Codes that grpc-js makes up itself when a connection breaks; which one depends on how the peer's socket died. */
const BROKEN_CONNECTION: ReadonlySet<number> = new Set([Code.UNAVAILABLE, Code.CANCELLED]);
/** What grpc-js makes of a stream that was reset with ENHANCE_YOUR_CALM. */
const RESET_FOR_ROOM = /^Bandwidth exhausted or memory limit exceeded/;
/** What grpc-js appends for its own developers. */
const RESOLUTION_NOTE = /[.\s]*Resolution note:.*$/s;
const RESET = /RST_STREAM|ECONNRESET|EPIPE|socket hang up/;

function isTransportError(error: unknown): error is ServiceError {
  return error instanceof Error && typeof (error as Partial<ServiceError>).code === 'number';
}

/**
 * Anything that a gRPC call failed with, as a LogError. Tells a request that never left (BROKER_UNAVAILABLE: nothing
 * happened) from one whose answer was lost (CONNECTION_LOST: it may have been carried out).
 */
export function callFailure(thrown: unknown): LogError {
  const error = fromServiceError(thrown);
  const cause = error.cause;
  // An error that the broker itself reported carries its details and no transport error as its cause.
  if (thrown instanceof LogError || !isTransportError(cause)) return error;
  const detail = (cause.details || cause.message).replace(RESOLUTION_NOTE, '');
  if (cause.code === Code.UNIMPLEMENTED) {
    const message = `The broker is older than this client, and is to be updated: ${detail}`;
    return new LogError('INVALID_REQUEST', message, { cause });
  }
  if (NOT_SENT.test(detail)) {
    return new LogError('BROKER_UNAVAILABLE', `The broker cannot be reached: ${detail}`, { cause });
  }
  if (BROKEN_CONNECTION.has(cause.code) || (cause.code === Code.INTERNAL && RESET.test(detail))) {
    return new LogError('CONNECTION_LOST', `The connection to the broker was lost: ${detail}`, { cause });
  }
  if (cause.code === Code.RESOURCE_EXHAUSTED && detail.includes('larger than')) {
    return new LogError('MESSAGE_TOO_LARGE', `A message exceeds what may cross the wire: ${detail}`, { cause });
  }
  if (cause.code === Code.RESOURCE_EXHAUSTED && RESET_FOR_ROOM.test(detail)) {
    const message = 'The broker has reset the stream to make room for others.';
    return new LogError('RESOURCE_LIMIT', message, { cause, outcome: 'unknown' });
  }
  return error;
}

/** CANCELLED, with the signal's own reason as the cause. */
export function cancelled(signal: AbortSignal): LogError {
  return new LogError('CANCELLED', 'The operation was aborted by its signal.', { cause: signal.reason });
}

/** The same error, of which more, or less, is known. */
export function withOutcome(error: LogError, outcome: Outcome): LogError {
  if (error.outcome === outcome) return error;
  return new LogError(error.reason, error.message, { metadata: { ...error.metadata }, outcome, cause: error });
}

/** @throws LogError CANCELLED when the signal is aborted already */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(signal);
}

export function closedError(what: string): LogError {
  return new LogError('CLOSED', `The ${what} was closed.`);
}

/** Listeners by signal: many calls may share one signal, which warns of a leak beyond ten listeners of its own. */
const listenersOf = new WeakMap<AbortSignal, Set<() => void>>();

/** Runs `listener` once if the signal aborts; returns the function that takes the listener off again. */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (signal === undefined) return () => {};
  const listeners = listenersOf.get(signal) ?? listenTo(signal);
  // A wrapper, so that the same function may be registered twice.
  const entry = (): void => listener();
  listeners.add(entry);
  return () => {
    listeners.delete(entry);
  };
}

function listenTo(signal: AbortSignal): Set<() => void> {
  const listeners = new Set<() => void>();
  listenersOf.set(signal, listeners);
  signal.addEventListener(
    'abort',
    () => {
      const all = [...listeners];
      listeners.clear();
      for (const listener of all) listener();
    },
    { once: true },
  );
  return listeners;
}
