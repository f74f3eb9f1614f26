/** Options of transactional producers, their defaults and their checks. */
import { LogError } from '../core/errors.js';
import { type ProducerOptions, type ResolvedProducerOptions, resolveProducerOptions, wholeAtLeast } from './options.js';

/** Those of a producer. `lingerMs` is 0 by default: the end of a transaction waits for nothing. */
export interface TransactionalProducerOptions extends Omit<ProducerOptions, 'acks' | 'idempotent'> {
  /**
   * How long one transaction may take before it is aborted, in ms; at most the broker's `transaction.max.timeout.ms`. Default
   * 60,000.
   */
  readonly timeoutMs?: number;
}

export interface ResolvedTransactionalOptions {
  readonly transactionalId: string;
  readonly timeoutMs: number;
  readonly producer: ResolvedProducerOptions;
}

const DEFAULT_TIMEOUT_MS = 60_000;
/** What the wire carries. */
const MAX_TIMEOUT_MS = 0x7fff_ffff;

/** @throws LogError INVALID_REQUEST, INVALID_CONFIG */
export function resolveTransactionalOptions(
  transactionalId: string,
  options: TransactionalProducerOptions,
): ResolvedTransactionalOptions {
  if (typeof transactionalId !== 'string' || transactionalId === '') {
    throw new LogError('INVALID_REQUEST', 'A transactional producer needs a transactional id that is not empty.');
  }
  for (const name of ['acks', 'idempotent']) {
    if (!(name in options)) continue;
    throw new LogError('INVALID_CONFIG', `A transactional producer has no option ${name}: the commit is durable.`);
  }
  const { timeoutMs = DEFAULT_TIMEOUT_MS, ...rest } = options;
  if (wholeAtLeast('timeoutMs', 1, timeoutMs) > MAX_TIMEOUT_MS) {
    throw new LogError('INVALID_CONFIG', `The option timeoutMs is at most ${MAX_TIMEOUT_MS}, not ${timeoutMs}.`);
  }
  const producer = resolveProducerOptions({ lingerMs: 0, ...rest, acks: 'written', idempotent: true });
  return { transactionalId, timeoutMs, producer };
}
