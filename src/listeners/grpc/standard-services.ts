/**
 * The standard services, health and reflection, from their libraries, which trust their clients. What stands between:
 * requests are small and decodable, texts fit into a header, answers wait for a client that does not take them.
 */
import { EventEmitter } from 'node:events';
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  sendUnaryData,
  UntypedHandleCall,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import { reflectedFiles } from '../../rpc/reflection.js';
import { statusText, toServiceError } from '../../rpc/status-codec.js';
import { guardDeserializer, RefusedRequest } from './handlers.js';
import type { ReceiveBudget } from './receive-budget.js';

/** Requests of these services hold little more than a name. */
const MAX_REQUEST_BYTES = 16 * 1024;

/** What is needed of a method's definition; the libraries bring versions of their own of the full type. */
interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly originalName?: string | undefined;
  readonly requestDeserialize: (bytes: Buffer) => unknown;
}

interface Registry {
  addService(service: Readonly<Record<string, Method>>, implementation: UntypedServiceImplementation): void;
}

/** Server reflection, of what proto/ describes. */
export function addReflection(server: Registry, received: ReceiveBudget): void {
  new ReflectionService(reflectedFiles()).addToServer(guardingRegistry(server, received));
}

/** The health service: SERVING for the whole broker, by the empty name, and for each of the services named. */
export function addHealth(
  server: Registry,
  received: ReceiveBudget,
  serviceNames: readonly string[],
): HealthImplementation {
  const names = ['', ...serviceNames];
  const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, 'SERVING'])));
  const registry = guardingRegistry(server, received);
  health.addToServer({
    addService(service, implementation): void {
      const watch = implementation.watch as handleServerStreamingCall<{ service: string }, { status: string }>;
      registry.addService(service, { ...implementation, watch: watchKnown(new Set(names), watch) });
    },
  });
  return health;
}

/** The library keeps an entry for every name that was ever watched: unknown ones are answered without it. */
function watchKnown(
  names: ReadonlySet<string>,
  watch: handleServerStreamingCall<{ service: string }, { status: string }>,
): handleServerStreamingCall<{ service: string }, { status: string }> {
  return (call) => {
    if (names.has(call.request.service)) watch(call);
    else call.write({ status: 'SERVICE_UNKNOWN' });
  };
}

/** Takes services as a grpc-js server does, and hands them on with guards around them. */
function guardingRegistry(server: Registry, received: ReceiveBudget): Registry {
  return {
    addService(service, implementation): void {
      const guardedService: Record<string, Method> = {};
      const guarded: UntypedServiceImplementation = {};
      for (const [name, method] of Object.entries(service)) {
        const handle = implementation[name] ?? implementation[method.originalName ?? name];
        if (handle === undefined) continue;
        const requestDeserialize = guardDeserializer(method.requestDeserialize, MAX_REQUEST_BYTES);
        guardedService[name] = { ...method, requestDeserialize };
        guarded[name] = guardHandler(method, handle, received);
      }
      server.addService(guardedService, guarded);
    },
  };
}

function guardHandler(method: Method, handle: UntypedHandleCall, received: ReceiveBudget): UntypedHandleCall {
  if (method.requestStream) return guardStreams(handle as handleBidiStreamingCall<unknown, object>, received);
  if (method.responseStream) return guardServerStream(handle as handleServerStreamingCall<unknown, unknown>);
  return guardUnary(handle as handleUnaryCall<unknown, unknown>);
}

function guardUnary(handle: handleUnaryCall<unknown, unknown>): handleUnaryCall<unknown, unknown> {
  return (call, callback) => {
    if (call.request instanceof RefusedRequest) {
      callback(toServiceError(call.request.error));
      return;
    }
    const answer: sendUnaryData<unknown> = (error, value) => {
      if (error === null) callback(null, value);
      else callback({ ...error, details: statusText(error.details ?? '') });
    };
    handle(call, answer);
  };
}

function guardServerStream(
  handle: handleServerStreamingCall<unknown, unknown>,
): handleServerStreamingCall<unknown, unknown> {
  return (call) => {
    if (call.request instanceof RefusedRequest) call.emit('error', toServiceError(call.request.error));
    else handle(call);
  };
}

/** Reads on only while the client takes the answers. */
function guardStreams(
  handle: handleBidiStreamingCall<unknown, object>,
  received: ReceiveBudget,
): handleBidiStreamingCall<unknown, object> {
  return (call) => {
    const onTaken = received.takerOf(call);
    const requests = Object.assign(new EventEmitter(), {
      write: (message: object): boolean => call.write(message),
      end: (): void => void call.end(),
    });
    call.on('drain', () => call.resume());
    call.on('end', () => requests.emit('end'));
    call.on('data', (message: object) => {
      onTaken(message);
      if (message instanceof RefusedRequest) {
        call.removeAllListeners('data');
        call.resume();
        call.emit('error', toServiceError(message.error));
        return;
      }
      requests.emit('data', message);
      if (call.writableNeedDrain) call.pause();
    });
    // All that these libraries use of a call.
    handle(requests as unknown as Parameters<typeof handle>[0]);
  };
}
