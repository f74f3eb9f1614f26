/** What bounds transactions. Times in ms. */
export interface TransactionConfig {
  /** The longest time that a producer may ask for (`transaction.max.timeout.ms`). */
  readonly maxTimeoutMs: number;
  /** How long a transactional id is kept that nobody uses (`transactional.id.expiration.ms`). */
  readonly idExpirationMs: number;
  /** Transactional ids (`transactional.ids.max`). */
  readonly maxIds: number;
  /** Partitions of the topic that keeps transactions, when it is created (`transaction.state.topic.num.partitions`). */
  readonly stateTopicPartitions: number;
}

/** Of a producer that names no time, as long as that is allowed. */
export const DEFAULT_TRANSACTION_TIMEOUT_MS = 60_000;
