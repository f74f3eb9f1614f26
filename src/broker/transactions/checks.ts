/** Whether what a caller sends is well formed, before anything is looked up. */
import type { ProducerIdentity } from './coordinator-types.js';
import { DEFAULT_TRANSACTION_TIMEOUT_MS } from './transaction-config.js';
import { invalidIdentity, invalidTimeout, invalidTransactionalId } from './transaction-errors.js';

const MAX_TRANSACTIONAL_ID = 249;
const MAX_EPOCH = 32_767;

/** A control character, or half of a surrogate pair, which UTF-8 could not keep. */
const UNUSABLE = /[\p{Cc}\p{Cs}]/u;

/** @throws LogError INVALID_REQUEST */
export function checkTransactionalId(transactionalId: string): void {
  const { length } = transactionalId;
  if (length >= 1 && length <= MAX_TRANSACTIONAL_ID && !UNUSABLE.test(transactionalId)) return;
  throw invalidTransactionalId(transactionalId, MAX_TRANSACTIONAL_ID);
}

/** @throws LogError INVALID_REQUEST */
export function checkIdentity(identity: ProducerIdentity): void {
  const { producerId, producerEpoch } = identity;
  const isId = Number.isSafeInteger(producerId) && producerId >= 0;
  if (isId && Number.isInteger(producerEpoch) && producerEpoch >= 0 && producerEpoch <= MAX_EPOCH) return;
  throw invalidIdentity(identity);
}

/** @returns the time that a transaction may take, in ms. @throws LogError INVALID_TRANSACTION_TIMEOUT */
export function checkTimeout(transactionalId: string, timeoutMs: number, maxMs: number): number {
  if (timeoutMs === 0) return Math.min(DEFAULT_TRANSACTION_TIMEOUT_MS, maxMs);
  if (Number.isInteger(timeoutMs) && timeoutMs >= 1 && timeoutMs <= maxMs) return timeoutMs;
  throw invalidTimeout(transactionalId, timeoutMs, maxMs);
}
