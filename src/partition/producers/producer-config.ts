/** What bounds what partitions remember of producers. */
export interface ProducerStateConfig {
  /** How long a producer is remembered that sends nothing, in ms (`producer.id.expiration.ms`). */
  readonly expirationMs: number;
  /** Producers that all partitions together remember (`producers.max`). */
  readonly maxProducers: number;
  /** Message ids that all partitions together remember (`message.ids.max`). */
  readonly maxMessageIds: number;
}
