/** Exponential back-off with jitter, and calls that are repeated while their error says that it may help. */
import type { Clock } from '../core/clock.js';
import type { LogError } from '../core/errors.js';
import type { Random } from '../core/random.js';
import { callFailure, cancelled } from './failures.js';

export interface BackoffOptions {
  /** Wait before the first repetition, in ms. */
  readonly retryBackoffMs: number;
  /** Longest wait, in ms. */
  readonly retryBackoffMaxMs: number;
}

export const DEFAULT_BACKOFF: BackoffOptions = { retryBackoffMs: 100, retryBackoffMaxMs: 1_000 };

/** Waits vary by this fraction in both directions, so that clients that failed together do not return together. */
const JITTER = 0.2;

/** Wait in ms before repetition number `failures` (from 1); never shorter than what the broker asked for. */
export function backoffMs(failures: number, options: BackoffOptions, random: Random, error?: LogError): number {
  // Beyond 2^30 the product could overflow to Infinity times 0; the largest wait is reached long before.
  const doubled = options.retryBackoffMs * 2 ** Math.min(failures - 1, 30);
  const wait = Math.min(doubled, options.retryBackoffMaxMs) * (1 - JITTER + 2 * JITTER * random.next());
  return Math.max(wait, error?.retryAfterMs ?? 0);
}

export interface RetryContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly backoff: BackoffOptions;
  /** No repetition begins later than this after the first try, in ms. */
  readonly limitMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Repeats `attempt` while it fails in a way that a repetition may cure.
 * @param mayRepeat whether the error allows it, beyond being retryable (a call with effects: only if there were none)
 * @throws LogError the last failure; CANCELLED when the signal aborts
 */
export async function withRetries<T>(
  context: RetryContext,
  attempt: () => Promise<T>,
  mayRepeat: (error: LogError) => boolean = () => true,
): Promise<T> {
  const startedAt = context.clock.monotonic();
  for (let failures = 1; ; failures++) {
    try {
      return await attempt();
    } catch (thrown) {
      const error = callFailure(thrown);
      if (!error.retryable || !mayRepeat(error)) throw error;
      const wait = backoffMs(failures, context.backoff, context.random, error);
      if (context.clock.monotonic() + wait - startedAt > context.limitMs) throw error;
      await sleep(context.clock, wait, context.signal);
    }
  }
}

/** `clock.sleep` that fails with CANCELLED instead of the signal's own reason. */
export async function sleep(clock: Clock, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await clock.sleep(delayMs, signal);
  } catch (thrown) {
    throw signal?.aborted ? cancelled(signal) : thrown;
  }
}
