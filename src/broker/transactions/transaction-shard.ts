/** One partition of the topic that keeps transactional ids. */
import type { Clock, Timer } from '../../core/clock.js';
import { LogError, toLogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { Partition } from '../../partition/partition.js';
import { loadState } from '../state-topic/state-loader.js';
import { StateWriter } from '../state-topic/state-writer.js';
import { decodeTransaction, encodeTransaction } from './records.js';
import { notWritten, outOfService } from './transaction-errors.js';
import { TRANSACTION_TOPIC } from './transaction-topic.js';
import type { StoredTransaction } from './transaction-types.js';

/** Between two attempts to read the partition, or to make durable what is in its log already. */
const RETRY_MS = 1000;
/** A record that nobody waits for is written after this at the latest, */
const NOTE_DELAY_MS = 500;
/** or when there are so many. */
const MAX_NOTES = 1000;

export interface TransactionShardOptions {
  readonly index: number;
  /** The partition as it is now. @throws LogError why it is out of service */
  readonly partition: () => Partition;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted when the coordinator closes. */
  readonly signal: AbortSignal;
}

/**
 * Invariant: what was written with an unknown outcome is written again until it is durable, or nothing of this partition is
 * served any more: a decision that the log may have is never taken back.
 */
export class TransactionShard {
  readonly #options: TransactionShardOptions;
  #writer: StateWriter | undefined;
  #failure: LogError | undefined;
  /** Records that nobody waits for, by transactional id. */
  readonly #notes = new Map<string, StoredTransaction>();
  #notesTimer: Timer | undefined;

  constructor(options: TransactionShardOptions) {
    this.#options = options;
  }

  /** Why nothing of this partition is served, if so: until the broker is started anew. */
  get failure(): LogError | undefined {
    return this.#failure;
  }

  /**
   * Reads what the partition keeps, as often as that takes. Never rejects: `failure` tells. What is read is of no use once
   * the signal is aborted.
   */
  async load(): Promise<ReadonlyMap<string, StoredTransaction>> {
    const { clock, signal } = this.#options;
    for (;;) {
      try {
        return await this.#read();
      } catch (error) {
        const failure = outOfService(this.#options.index, error);
        this.#report(failure, error);
        if (!failure.retryable || signal.aborted) {
          this.#failure = failure;
          return new Map();
        }
        await clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  #report(failure: LogError, cause: unknown): void {
    const { index, logger, signal } = this.#options;
    if (signal.aborted) return;
    const at = { topic: TRANSACTION_TOPIC, partition: index, reason: failure.reason, err: cause };
    logger.error(at, 'the transactional ids of a partition are out of service');
  }

  async #read(): Promise<ReadonlyMap<string, StoredTransaction>> {
    const { signal } = this.#options;
    signal.throwIfAborted();
    const partition = this.#options.partition();
    // What was written and not synced may be there later: it is to be there now, or not at all.
    await partition.log.flush(partition.logEndOffset);
    const stored = new Map<string, StoredTransaction>();
    await loadState(
      { ...this.#options, partition },
      {
        decode: decodeTransaction,
        apply: ({ transactionalId, value }) => {
          if (value === undefined) stored.delete(transactionalId);
          else stored.set(transactionalId, value);
        },
      },
    );
    this.#writer = new StateWriter({ ...this.#options, partition, notWritten, lost: () => undefined });
    return stored;
  }

  /** @throws LogError why nothing of this partition is served */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /**
   * Resolves when the record is durable.
   * @param value undefined: the transactional id is removed
   * @throws LogError with outcome none: nothing was written; else nothing of this partition is served any more
   */
  async persist(transactionalId: string, value: StoredTransaction | undefined): Promise<void> {
    const { clock, signal } = this.#options;
    this.#notes.delete(transactionalId);
    let mayBeThere = false;
    for (;;) {
      try {
        await this.#write(transactionalId, value);
        return;
      } catch (cause) {
        const error = toLogError(cause);
        mayBeThere ||= error.outcome !== 'none';
        if (!mayBeThere) throw error;
        if (!error.retryable || signal.aborted) throw this.#giveUp(error);
        await clock.sleep(RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  /**
   * Writes a record that nobody waits for, some time, unless another one of its id comes first: with or without it the log
   * tells the truth. So a producer that goes from one transaction to the next has one write for each of them.
   */
  note(transactionalId: string, value: StoredTransaction): void {
    this.#notes.set(transactionalId, value);
    if (this.#notes.size >= MAX_NOTES) this.#writeNotes();
    else this.#notesTimer ??= this.#options.clock.setTimer(NOTE_DELAY_MS, () => this.#writeNotes());
  }

  #writeNotes(): void {
    this.#notesTimer?.cancel();
    this.#notesTimer = undefined;
    const notes = [...this.#notes];
    this.#notes.clear();
    for (const [transactionalId, value] of notes) this.#write(transactionalId, value).catch(this.#lostNote);
  }

  readonly #lostNote = (error: unknown): void => {
    const { logger, index } = this.#options;
    const facts = { topic: TRANSACTION_TOPIC, partition: index, reason: toLogError(error).reason };
    logger.debug(facts, 'the completion of a transaction is not on record; a restart completes it once more');
  };

  async #write(transactionalId: string, value: StoredTransaction | undefined): Promise<void> {
    this.check();
    if (this.#writer === undefined) throw new LogError('INTERNAL', 'A shard is written to before it is read.');
    await this.#writer.write({ records: [encodeTransaction(transactionalId, value)], apply: () => undefined });
  }

  #giveUp(error: LogError): LogError {
    this.#failure ??= outOfService(this.#options.index, error);
    this.#report(this.#failure, error);
    return error;
  }

  /** Writes what is to be written some time. Resolves when everything that was written is durable, or lost. */
  async close(): Promise<void> {
    this.#writeNotes();
    await this.#writer?.settled().catch(() => undefined);
  }
}
