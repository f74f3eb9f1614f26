/** TransactionService over the coordinator. */
import type { ServerUnaryCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { ProducerIdentity, TransactionCoordinatorApi } from '../../broker/transactions/coordinator-types.js';
import type {
  AbortRequest,
  AbortResponse,
  AddOffsetsRequest,
  AddOffsetsResponse,
  CommitRequest,
  CommitResponse,
} from '../../rpc/transaction-messages.js';
import { toOffsetsToCommit, toRefusedOffsets, weightOfCommit } from './commit-stream.js';
import type { BudgetsByKind } from './connection-budgets.js';
import { type CallContext, counted, type Weights } from './group-calls.js';
import { abortOnCancel, unary } from './handlers.js';
import { SharedWork } from './shared-work.js';

/** What is needed of the broker. */
export type TransactionBroker = Pick<Broker, 'clock' | 'logger' | 'topics'> & {
  readonly transactions: TransactionCoordinatorApi;
};

export interface TransactionCallContext extends CallContext {
  readonly broker: TransactionBroker;
}

type EndRequest = CommitRequest | AbortRequest;
type EndResponse = CommitResponse | AbortResponse;
type EndCall = ServerUnaryCall<EndRequest, EndResponse>;

/** What they answer cannot be asked for otherwise. */
const END: Weights<EndRequest, EndResponse> = { parts: () => 0, answer: () => 0, alwaysAnswered: true };

export function transactionHandlers(broker: TransactionBroker, budgets: BudgetsByKind): UntypedServiceImplementation {
  const { logger } = broker;
  const context: TransactionCallContext = { broker, budgets };
  const ends = new SharedWork<ProducerIdentity>();
  return {
    AddOffsets: unary(logger, (request: AddOffsetsRequest, call) =>
      budgets.unary.whileCharged(call.getPeer(), weightOfCommit(request), () => addOffsets(broker, request)),
    ),
    Commit: unary(logger, (_request: EndRequest, call: EndCall) => end(context, ends, call, true)),
    Abort: unary(logger, (_request: EndRequest, call: EndCall) => end(context, ends, call, false)),
  };
}

async function addOffsets(
  { transactions }: TransactionBroker,
  request: AddOffsetsRequest,
): Promise<AddOffsetsResponse> {
  const { transactionalId, producerId, producerEpoch, groupId, memberId, memberEpoch } = request;
  const offsets = toOffsetsToCommit(request.offsets);
  const command = { transactionalId, producerId, producerEpoch, groupId, memberId, memberEpoch, offsets };
  return { refused: toRefusedOffsets(await transactions.addOffsets(command)) };
}

/** May take as long as a partition is out of service; who gives up leaves the transaction to end by itself. */
async function end(
  context: TransactionCallContext,
  ends: SharedWork<ProducerIdentity>,
  call: EndCall,
  commit: boolean,
): Promise<EndResponse> {
  const { transactionalId, producerId, producerEpoch } = call.request;
  return await counted(context, call, END, async () => {
    const key = `${commit}/${producerId}/${producerEpoch}/${transactionalId}`;
    const producer = { transactionalId, producerId, producerEpoch };
    const next = await ends.wait(key, abortOnCancel(call), () => context.broker.transactions.end(producer, commit));
    return { producerId: next.producerId, producerEpoch: next.producerEpoch };
  });
}
