/** What unary calls answer, counted until it is gone. */
import type { ByteBudget } from '../../core/byte-budget.js';
import type { Clock, Timer } from '../../core/clock.js';
import type { ConnectionBudgets } from './connection-budgets.js';
import { OutgoingBytes } from './outgoing-bytes.js';

/** An answer that nobody took by then is counted no longer. */
const MAX_UNTAKEN_MS = 60_000;

/** What is needed of a unary call. */
export interface AnsweredCall {
  getPeer(): string;
  once(event: 'cancelled', listener: () => void): unknown;
}

/**
 * Runs a unary call whose answer counts against the connection's and the broker's budget until the client has taken it:
 * as far as `work` counts it in `outgoing`. grpc-js says so by 'cancelled', which it emits at the end of every unary call;
 * it can miss a call that was cancelled before it was handled, so that the charge is taken off after a while in any case.
 */
export async function untilTaken<Response>(
  call: AnsweredCall,
  budgets: ConnectionBudgets,
  clock: Clock,
  work: (budget: ByteBudget, outgoing: OutgoingBytes) => Promise<Response>,
): Promise<Response> {
  const { budget, release } = budgets.acquire(call.getPeer());
  const outgoing = new OutgoingBytes(budget);
  let over = false;
  let timer: Timer | undefined;
  const finish = (): void => {
    if (over) return;
    over = true;
    timer?.cancel();
    outgoing.close();
    release();
  };
  call.once('cancelled', finish);
  try {
    const response = await work(budget, outgoing);
    if (!over) timer = clock.setTimer(MAX_UNTAKEN_MS, finish);
    return response;
  } catch (error) {
    finish();
    throw error;
  }
}
