/** What unary calls about groups and transactions weigh while they are open: sessions may be held for seconds, descriptions may be long. */
import type { ServerUnaryCall } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import { type BudgetsByKind, refuseBeyond } from './connection-budgets.js';
import { wireSizeOf } from './handlers.js';
import { untilTaken } from './unary-answers.js';

/**
 * Not counted, so that thousands of members can wait for news without taking the room of other calls, and sessions go on
 * while there is none.
 */
const LITTLE_BYTES = 4 * 1024;
/** What each message or number in a list weighs besides its bytes on the wire. */
const PART_BYTES = 128;

export interface CallContext {
  readonly broker: Pick<Broker, 'clock'>;
  readonly budgets: BudgetsByKind;
}

export interface GroupCallContext extends CallContext {
  readonly broker: Broker;
}

export interface Weights<Request, Response> {
  /** Messages and numbers in the lists of the request. */
  readonly parts: (request: Request) => number;
  /** Of the answer, in bytes. */
  readonly answer: (response: Response) => number;
  /** Whether the answer is given without room, too: the call has done something that cannot be done twice. */
  readonly alwaysAnswered?: boolean;
}

/**
 * Runs a call whose request and answer count against the budgets of unary calls until it is over, if they are large.
 * @throws LogError RESOURCE_LIMIT with RetryInfo when there is no room
 */
export async function counted<Request extends object, Response>(
  { broker, budgets }: CallContext,
  call: ServerUnaryCall<Request, Response>,
  weights: Weights<Request, Response>,
  work: () => Promise<Response>,
): Promise<Response> {
  const { request } = call;
  return await untilTaken(call, budgets.unary, broker.clock, async (budget, outgoing) => {
    const count = (bytes: number, refuse: boolean): void => {
      if (bytes <= LITTLE_BYTES) return;
      if (refuse) refuseBeyond(budget);
      outgoing.add(bytes);
    };
    count(wireSizeOf(request) + weights.parts(request) * PART_BYTES, true);
    const response = await work();
    count(weights.answer(response), weights.alwaysAnswered !== true);
    return response;
  });
}
