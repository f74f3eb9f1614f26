/** Producers and transactions as a partition knows them. */

/** What a reader sees of transactions. */
export type Isolation = 'read_uncommitted' | 'read_committed';

/** An aborted transaction in one partition. */
export interface AbortedTransaction {
  readonly producerId: number;
  /** Of its first batch. */
  readonly firstOffset: number;
  /** Of its ABORT marker. */
  readonly lastOffset: number;
}

/** A transaction whose marker is not in the log yet. */
export interface OpenTransaction {
  readonly producerId: number;
  /** The epoch under which its batches were sent. */
  readonly producerEpoch: number;
  readonly firstOffset: number;
  /** When its first batch came, or was found after a restart; ms since the epoch. */
  readonly sinceMs: number;
}

/** A producer that a partition remembers. */
export interface ProducerDescription {
  readonly producerId: number;
  readonly producerEpoch: number;
  /** -1: nothing was sent under this epoch. */
  readonly lastSequence: number;
  /** Of its last batch, ms since the epoch; -1 when it had none. */
  readonly lastTimestampMs: number;
  readonly openTransaction: OpenTransaction | undefined;
}

/** The end of a transaction, as a marker tells it. */
export interface TransactionEnd {
  readonly producerId: number;
  /** The epoch after the transaction: above that of its batches, so that a late one is fenced. */
  readonly producerEpoch: number;
  readonly commit: boolean;
  readonly coordinatorEpoch: number;
}
