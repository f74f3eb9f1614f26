/** Carries out what the state machine asks for: one event of a transactional id at a time. */
import type { Clock } from '../../core/clock.js';
import { type LogError, toLogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { Completion } from './completion.js';
import { completionEffects, isPrepared, needsProducerId, newTransaction, transition } from './transaction.js';
import type { TransactionEntry } from './transaction-entry.js';
import { completedLater, notFlushed } from './transaction-errors.js';
import type { TransactionTable } from './transaction-table.js';
import {
  type TransactionEffect,
  type TransactionEvent,
  type TransactionNow,
  type TransactionOutcome,
  withProducerId,
} from './transaction-types.js';
import type { WorkUnderWay } from './work-under-way.js';

export interface TransactionRunnerOptions {
  readonly table: TransactionTable;
  readonly completion: Completion;
  readonly allocateProducerId: () => Promise<number>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly work: WorkUnderWay;
}

export class TransactionRunner {
  readonly #options: TransactionRunnerOptions;
  readonly #completing = new Set<Promise<void>>();

  constructor(options: TransactionRunnerOptions) {
    this.#options = options;
  }

  now(): TransactionNow {
    const { clock } = this.#options;
    return { monotonicMs: clock.monotonic(), wallMs: clock.now() };
  }

  /**
   * Applies an event, and again after the transaction is completed that it waits for.
   * @throws LogError why it could not be carried out: the state is as it was
   */
  async run(entry: TransactionEntry, event: TransactionEvent): Promise<TransactionOutcome> {
    for (;;) {
      const outcome = await this.apply(entry, event);
      if (outcome.kind !== 'waits') return outcome;
      await entry.completed();
    }
  }

  /** Applies an event once, after those that came before it. @throws LogError as `run` */
  async apply(entry: TransactionEntry, event: TransactionEvent): Promise<TransactionOutcome> {
    const { work, table } = this.#options;
    try {
      return await work.during(() => entry.exclusively(() => this.#apply(entry, event)));
    } finally {
      table.dropUnused(entry);
    }
  }

  async #apply(entry: TransactionEntry, event: TransactionEvent): Promise<TransactionOutcome> {
    const { table, allocateProducerId } = this.#options;
    entry.shard.check();
    let freshProducerId: number | undefined;
    while (freshProducerId === undefined && needsProducerId(entry.state, event)) {
      freshProducerId = await allocateProducerId();
    }
    const { state, outcome, effects } = transition(entry.state, withProducerId(event, freshProducerId), this.now());
    if (effects.length > 0) await this.#makeDurable(entry, effects);
    table.adopt(entry, state);
    if (effects.length > 0 && isPrepared(state)) this.complete(entry);
    return outcome;
  }

  /** Nothing is added to the transaction meanwhile. */
  async #makeDurable(entry: TransactionEntry, effects: readonly TransactionEffect[]): Promise<void> {
    entry.isChanging = true;
    try {
      await Promise.allSettled(entry.adding);
      for (const effect of effects) {
        if (effect.kind === 'flush') await this.#flush(entry, effect.partitions);
        if (effect.kind === 'persist') await entry.shard.persist(effect.transactionalId, effect.record);
      }
    } finally {
      entry.isChanging = false;
    }
  }

  async #flush(entry: TransactionEntry, partitions: Parameters<Completion['flush']>[0]): Promise<void> {
    try {
      await this.#options.completion.flush(partitions);
    } catch (error) {
      throw notFlushed(entry.transactionalId, error);
    }
  }

  /** Completes a decided transaction in the background. */
  complete(entry: TransactionEntry): void {
    const completing = this.#complete(entry).catch((error: unknown) => {
      throw this.#notCompleted(entry, error);
    });
    entry.complete(completing);
    this.#completing.add(completing);
    const forget = (): void => void this.#completing.delete(completing);
    completing.then(forget, forget);
  }

  async #complete(entry: TransactionEntry): Promise<void> {
    const { completion, table } = this.#options;
    const { transactionalId } = entry;
    await completion.run(transactionalId, completionEffects(entry.state));
    const { state, effects } = transition(entry.state, { kind: 'completed' }, this.now());
    table.adopt(entry, state);
    for (const effect of effects) if (effect.kind === 'persist') entry.shard.note(transactionalId, effect.record);
  }

  #notCompleted({ transactionalId }: TransactionEntry, cause: unknown): LogError {
    const error = toLogError(cause);
    if (error.reason === 'BROKER_DRAINING') return completedLater();
    this.#options.logger.error({ transactionalId, err: cause }, 'defect in the completion of a transaction');
    return error;
  }

  /** Removes a transactional id that is in the state it was chosen for. Resolves when that is durable. @throws LogError */
  async remove(entry: TransactionEntry): Promise<void> {
    const { table, work } = this.#options;
    const { state, transactionalId } = entry;
    const tombstone = async (): Promise<void> => {
      if (entry.state !== state) return;
      entry.isChanging = true;
      try {
        await entry.shard.persist(transactionalId, undefined);
        table.adopt(entry, newTransaction(transactionalId));
      } finally {
        entry.isChanging = false;
      }
    };
    await work.during(() => entry.exclusively(tombstone));
    table.dropUnused(entry);
  }

  /** Resolves when no transaction is being completed. */
  async close(): Promise<void> {
    while (this.#completing.size > 0) await Promise.allSettled(this.#completing);
  }
}
