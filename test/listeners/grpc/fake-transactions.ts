/** The services of transactions over a coordinator that answers as it is told. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { TransactionCoordinatorApi } from '../../../src/broker/transactions/coordinator-types.js';
import { systemClock } from '../../../src/core/clock.js';
import { silentLogger } from '../../../src/core/logger.js';
import { budgetsByKind } from '../../../src/listeners/grpc/connection-budgets.js';
import { guardRequests } from '../../../src/listeners/grpc/handlers.js';
import { transactionAdminHandlers } from '../../../src/listeners/grpc/transaction-admin.js';
import { transactionHandlers } from '../../../src/listeners/grpc/transactions.js';
import { AdminService, TransactionService } from '../../../src/rpc/proto.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { openTopics } from '../../broker/support.js';
import { RawClient } from './support.js';

const MIB = 1024 * 1024;

/** Every method that is not given fails the test. */
function coordinator(methods: Partial<TransactionCoordinatorApi>): TransactionCoordinatorApi {
  const unexpected = (): never => {
    throw new Error('this was not to be called');
  };
  return {
    initProducer: unexpected,
    enter: unexpected,
    addOffsets: unexpected,
    end: unexpected,
    list: unexpected,
    describe: unexpected,
    abort: unexpected,
    findHanging: unexpected,
    ...methods,
  };
}

export interface Served {
  readonly raw: RawClient;
  stop(): Promise<void>;
}

export async function serve(
  methods: Partial<TransactionCoordinatorApi>,
  totalBytes: number = 64 * MIB,
): Promise<Served> {
  const engine = openMemoryEngine();
  const topics = await openTopics(engine);
  const broker = { clock: systemClock, logger: silentLogger, topics, transactions: coordinator(methods) };
  const budgets = budgetsByKind({ streamBytes: 8 * MIB, connectionBytes: 32 * MIB, totalBytes });
  const server = new Server();
  server.addService(guardRequests(TransactionService, 8 * MIB), transactionHandlers(broker, budgets));
  server.addService(guardRequests(AdminService, 8 * MIB), transactionAdminHandlers(broker, budgets));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  const raw = new RawClient(`127.0.0.1:${port}`);
  return {
    raw,
    stop: async (): Promise<void> => {
      raw.close();
      server.forceShutdown();
      await topics.close();
      await engine.close();
    },
  };
}
