/** The gRPC listener: the services of Tidelog, health and reflection on one port. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { HealthImplementation } from 'grpc-health-check';
import type { Broker } from '../../broker/broker.js';
import { type Address, formatAddress } from '../../core/config-key.js';
import { AdminService, FetchService, GroupService, ProduceService, TransactionService } from '../../rpc/proto.js';
import { addressUnavailable } from '../address-unavailable.js';
import { adminHandlers } from './admin.js';
import { type BudgetLimits, budgetsByKind } from './connection-budgets.js';
import { fetchHandlers } from './fetch.js';
import { GroupSessions } from './groups.js';
import { guardRequests } from './handlers.js';
import { ProduceSessions } from './produce.js';
import { ReceiveBudget } from './receive-budget.js';
import { addHealth, addReflection } from './standard-services.js';
import { transactionHandlers } from './transactions.js';
import { CONNECTION_WINDOW_BYTES, watchConnections, widenStreamWindows } from './transport.js';

/** Calls open at once on one connection. */
const MAX_STREAMS_PER_CONNECTION = 1000;
/** Above request.max.bytes, up to this factor, a request is refused with a reason; beyond it by the transport. */
const HARD_LIMIT_FACTOR = 2;
/** What is received and waits for its turn may be as much as so many of the largest requests, whatever the budget is. */
const MIN_RECEIVED_REQUESTS = 4;
/** Of the bytes that a stream may have in flight, what it may send before it is read. */
const WINDOW_SHARE = 2;
const MIN_WINDOW_BYTES = 64 * 1024;
/** Answers are bounded where they are made. */
const NO_SEND_LIMIT = -1;

const SERVICE_NAMES = ['AdminService', 'ProduceService', 'FetchService', 'GroupService', 'TransactionService'].map(
  (name) => `tidelog.v1.${name}`,
);

export interface GrpcListenerOptions {
  readonly listen: Address;
  readonly maxRequestBytes: number;
  readonly budgets: BudgetLimits;
  /** Connections open at once. */
  readonly maxConnections: number;
  /** Calls open at once, on all connections. */
  readonly maxStreams: number;
}

export class GrpcListener {
  readonly address: Address;
  readonly #server: Server;
  readonly #health: HealthImplementation;
  readonly #sessions: readonly (ProduceSessions | GroupSessions)[];

  private constructor(
    server: Server,
    health: HealthImplementation,
    sessions: readonly (ProduceSessions | GroupSessions)[],
    address: Address,
  ) {
    this.#server = server;
    this.#health = health;
    this.#sessions = sessions;
    this.address = address;
  }

  /** Binds and serves. @throws LogError ADDRESS_UNAVAILABLE */
  static async start(broker: Broker, options: GrpcListenerOptions): Promise<GrpcListener> {
    const server = new Server({
      'grpc.max_receive_message_length': options.maxRequestBytes * HARD_LIMIT_FACTOR,
      'grpc.max_send_message_length': NO_SEND_LIMIT,
      'grpc.max_concurrent_streams': MAX_STREAMS_PER_CONNECTION,
      'grpc.enable_channelz': 0,
    });
    const budgets = budgetsByKind(options.budgets);
    const windowBytes = streamWindow(options.budgets.streamBytes);
    const { maxConnections, maxStreams } = options;
    const limitBytes = Math.max(options.budgets.totalBytes, options.maxRequestBytes * MIN_RECEIVED_REQUESTS);
    const received = new ReceiveBudget({ limitBytes, windowBytes, maxStreams, logger: broker.logger });
    const guard = (service: typeof AdminService): typeof AdminService =>
      guardRequests(service, options.maxRequestBytes);
    server.addService(guard(AdminService), adminHandlers(broker, budgets));
    const produce = new ProduceSessions(broker, budgets, received);
    server.addService(guard(ProduceService), produce.handlers());
    server.addService(guard(FetchService), fetchHandlers(broker, budgets));
    const groups = new GroupSessions(broker, budgets, received);
    server.addService(guard(GroupService), groups.handlers());
    server.addService(guard(TransactionService), transactionHandlers(broker, budgets));
    const health = addHealth(server, received, SERVICE_NAMES);
    addReflection(server, received);

    const widened = widenStreamWindows(server, windowBytes);
    const port = await bind(server, options.listen);
    const watched = watchConnections(server, maxConnections, (session) => {
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
      received.watch(session);
    });
    if (!watched || !widened) {
      broker.logger.warn(
        {},
        'this release of grpc-js does not let connections be bounded and flow-control windows be widened',
      );
    }
    const address = { host: options.listen.host, port };
    broker.advertise(address);
    return new GrpcListener(server, health, [produce, groups], address);
  }

  /** Health answers NOT_SERVING; streams of produce requests and commits end once everything they sent was answered. */
  drain(): void {
    for (const sessions of this.#sessions) sessions.drain();
    this.#health.setStatus('', 'NOT_SERVING');
    for (const name of SERVICE_NAMES) this.#health.setStatus(name, 'NOT_SERVING');
  }

  /** Waits at most until `deadline` for calls under way, then cuts them off. */
  async stop(deadline: Promise<void>): Promise<void> {
    const graceful = new Promise<void>((resolve) => {
      this.#server.tryShutdown(() => resolve());
    });
    await Promise.race([graceful, deadline]);
    this.#server.forceShutdown();
  }
}

/**
 * With 1 MiB instead of the 4 that the default gives, a stream costs 5 % more processor time. One that is not read on
 * holds it all.
 */
function streamWindow(streamBytes: number): number {
  return Math.min(Math.max(streamBytes / WINDOW_SHARE, MIN_WINDOW_BYTES), CONNECTION_WINDOW_BYTES);
}

async function bind(server: Server, listen: Address): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.bindAsync(formatAddress(listen), ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(addressUnavailable('gRPC', listen, error));
    });
  });
}
