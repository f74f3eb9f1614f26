/** The services of transactions over a coordinator that answers as it is told. */
import type { TransactionCoordinatorApi } from '../../../src/broker/transactions/coordinator-types.js';
import { systemClock } from '../../../src/core/clock.js';
import { silentLogger } from '../../../src/core/logger.js';
import { budgetsByKind } from '../../../src/listeners/grpc/connection-budgets.js';
import { transactionAdminHandlers } from '../../../src/listeners/grpc/transaction-admin.js';
import { transactionHandlers } from '../../../src/listeners/grpc/transactions.js';
import { AdminService, TransactionService } from '../../../src/rpc/proto.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { openTopics } from '../../broker/support.js';
import { type Served, serve } from './serve-handlers.js';

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

/** The calls of transactions over such a coordinator, and a broker that has no topics. */
export async function serveTransactions(
  methods: Partial<TransactionCoordinatorApi>,
  totalBytes: number = 64 * MIB,
): Promise<Served> {
  const engine = openMemoryEngine();
  const topics = await openTopics(engine);
  const broker = { clock: systemClock, logger: silentLogger, topics, transactions: coordinator(methods) };
  const budgets = budgetsByKind({ streamBytes: 8 * MIB, connectionBytes: 32 * MIB, totalBytes });
  const served = await serve([
    [TransactionService, transactionHandlers(broker, budgets)],
    [AdminService, transactionAdminHandlers(broker, budgets)],
  ]);
  return {
    raw: served.raw,
    stop: async (): Promise<void> => {
      await served.stop();
      await topics.close();
      await engine.close();
    },
  };
}
