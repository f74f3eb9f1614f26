/** The coordinator of all transactions of this broker: checks what is asked, finds the id, and answers by what is durable. */
import type { Clock } from '../../core/clock.js';
import { type LogError, toLogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { Partition } from '../../partition/partition.js';
import { checkGroupId } from '../groups/checks.js';
import type { GroupCoordinatorApi, RefusedOffset } from '../groups/coordinator-types.js';
import type { Topics } from '../topics.js';
import { checkIdentity, checkTimeout, checkTransactionalId } from './checks.js';
import { Completion } from './completion.js';
import type {
  AddOffsetsCommand,
  HangingTransaction,
  InitProducerCommand,
  ProducerIdentity,
  TransactionalProducer,
  TransactionCoordinatorApi,
  TransactionDescription,
  TransactionPartition,
  TransactionSummary,
} from './coordinator-types.js';
import { Deadlines } from './deadlines.js';
import { descriptionOf, summaryOf } from './descriptions.js';
import { IdExpiry } from './id-expiry.js';
import { isPrepared, recordOf, transition } from './transaction.js';
import type { TransactionConfig } from './transaction-config.js';
import type { TransactionEntry } from './transaction-entry.js';
import {
  concurrentTransactions,
  coordinatorDraining,
  loadInProgress,
  otherProducerId,
  tooManyIds,
  tooManyOpenPlaces,
  transactionAborted,
  transactionalIdNotFound,
} from './transaction-errors.js';
import { TransactionRunner } from './transaction-runner.js';
import { TransactionShards } from './transaction-shards.js';
import { TransactionTable } from './transaction-table.js';
import { isSameIdentity, partitionKeyOf, type TransactionEvent, type TransactionOutcome } from './transaction-types.js';
import { Upkeep } from './upkeep.js';
import { WorkUnderWay } from './work-under-way.js';

/** See `TransactionCoordinatorOptions.maxOpenPlaces`. */
const MAX_OPEN_PLACES = 1_000_000;

export interface TransactionCoordinatorOptions {
  readonly topics: Topics;
  readonly groups: Pick<GroupCoordinatorApi, 'addTransactionOffsets' | 'endTransaction' | 'pendingTransactions'>;
  /** An id that nobody ever had. */
  readonly allocateProducerId: () => Promise<number>;
  readonly config: TransactionConfig;
  /** Whether nothing can be missing of what was accepted before this start. */
  readonly startedClean: boolean;
  /** Partitions and groups of all open transactions together; default: 1,000,000. */
  readonly maxOpenPlaces?: number | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Made when the topics are loaded; reads its state in the background, completes what was decided and aborts what was not.
 * The broker drains it with everything else, and closes it before the groups and the topics.
 */
export class TransactionCoordinator implements TransactionCoordinatorApi {
  readonly #options: TransactionCoordinatorOptions;
  readonly #table = new TransactionTable();
  readonly #shards: TransactionShards;
  readonly #runner: TransactionRunner;
  readonly #upkeep: Upkeep;
  readonly #deadlines: Deadlines;
  readonly #expiry: IdExpiry;
  readonly #work = new WorkUnderWay();
  /** Nothing new is taken in. */
  #draining = false;
  /** Aborted when it closes: nothing waits any more. */
  readonly #stop = new AbortController();

  constructor(options: TransactionCoordinatorOptions) {
    const { topics, groups, clock, logger, config, allocateProducerId } = options;
    const { signal } = this.#stop;
    const table = this.#table;
    this.#options = options;
    this.#shards = new TransactionShards({
      topics,
      clock,
      logger,
      signal,
      partitionCount: config.stateTopicPartitions,
    });
    const completion = new Completion({ topics, groups, clock, logger, signal, work: this.#work });
    this.#runner = new TransactionRunner({ table, completion, allocateProducerId, clock, logger, work: this.#work });
    this.#upkeep = new Upkeep({
      ...options,
      table,
      shards: this.#shards,
      runner: this.#runner,
      maxTimeoutMs: config.maxTimeoutMs,
      signal,
    });
    this.#deadlines = new Deadlines({
      clock,
      open: () => table.open,
      expire: (entry) => this.#timeOut(entry),
    });
    this.#expiry = new IdExpiry({
      entries: () => table.entries(),
      expirationMs: config.idExpirationMs,
      remove: (entry) => this.#runner.remove(entry),
      clock,
      logger,
    });
  }

  async #timeOut(entry: TransactionEntry): Promise<void> {
    const { transactionalId, timeoutMs } = entry.state;
    const { kind } = await this.#runner.apply(entry, { kind: 'tick' });
    if (kind !== 'waits') return;
    this.#options.logger.info({ transactionalId, timeoutMs }, 'a transaction took too long and is aborted');
  }

  async initProducer({ transactionalId, timeoutMs: given, current }: InitProducerCommand): Promise<ProducerIdentity> {
    checkTransactionalId(transactionalId);
    const timeoutMs = checkTimeout(transactionalId, given, this.#options.config.maxTimeoutMs);
    if (current !== undefined) checkIdentity(current);
    this.#checkOpen();
    const shard = await this.#shards.findOrCreate(transactionalId);
    this.#checkOpen();
    shard.check();
    const { maxIds } = this.#options.config;
    if (!this.#table.has(transactionalId) && this.#table.size >= maxIds) throw tooManyIds(maxIds);
    const entry = this.#table.findOrMake(transactionalId, () => shard);
    entry.checkRoom();
    return identityOf(await this.#runner.run(entry, { kind: 'init', timeoutMs, current }));
  }

  enter(producer: TransactionalProducer, partition: Partition): void {
    const { transactionalId } = producer;
    this.#checkOpen();
    const entry = this.#find(producer);
    const where = placeOf(partition);
    const { status, identity, partitions } = entry.state;
    if (entry.recovering > 0) throw recoveryRefusal(entry, producer);
    if (entry.isChanging) throw concurrentTransactions(transactionalId, producer);
    const isPart = status === 'ongoing' && isSameIdentity(producer, identity) && partitions.has(partitionKeyOf(where));
    if (isPart) return;
    this.#checkRoom();
    this.#add(entry, { kind: 'enter', producer, partition: where });
  }

  /** @throws LogError RESOURCE_LIMIT */
  #checkRoom(): void {
    const { maxOpenPlaces = MAX_OPEN_PLACES } = this.#options;
    if (this.#table.openPlaces >= maxOpenPlaces) throw tooManyOpenPlaces(maxOpenPlaces);
  }

  /** Without an `await`. @throws LogError why it is refused */
  #add(entry: TransactionEntry, event: TransactionEvent): void {
    const { state, outcome } = transition(entry.state, event, this.#runner.now());
    if (outcome.kind === 'refused') throw outcome.error;
    const begins = entry.state.status !== 'ongoing';
    this.#table.adopt(entry, state);
    if (begins) this.#deadlines.note(entry);
  }

  async addOffsets(command: AddOffsetsCommand): Promise<readonly RefusedOffset[]> {
    checkTransactionalId(command.transactionalId);
    checkIdentity(command);
    checkGroupId(command.groupId);
    this.#checkOpen();
    const entry = this.#find(command);
    entry.checkRoom();
    try {
      const { refused } = await entry.exclusively(async () => this.#beginAdding(entry, command));
      return await refused;
    } finally {
      // It may have been removed while this waited for its turn.
      this.#table.dropUnused(entry);
    }
  }

  /** Without an `await`; what has begun is awaited by others. @throws LogError why it is refused */
  #beginAdding(
    entry: TransactionEntry,
    command: AddOffsetsCommand,
  ): { readonly refused: Promise<readonly RefusedOffset[]> } {
    const { transactionalId: _, ...offsets } = command;
    entry.shard.check();
    if (entry.recovering > 0) throw recoveryRefusal(entry, command);
    if (!entry.state.groups.has(command.groupId)) this.#checkRoom();
    this.#add(entry, { kind: 'add-offsets', producer: command, groupId: command.groupId });
    return { refused: this.#addToGroup(entry, offsets) };
  }

  #addToGroup(
    entry: TransactionEntry,
    command: Parameters<GroupCoordinatorApi['addTransactionOffsets']>[0],
  ): Promise<readonly RefusedOffset[]> {
    const { groups } = this.#options;
    const adding = this.#work.during(() => groups.addTransactionOffsets(command));
    entry.adding.add(adding);
    const forget = (): void => void entry.adding.delete(adding);
    adding.then(forget, forget);
    return adding;
  }

  async end(producer: TransactionalProducer, commit: boolean): Promise<ProducerIdentity> {
    checkTransactionalId(producer.transactionalId);
    checkIdentity(producer);
    this.#checkOpen();
    const entry = this.#find(producer);
    if (commit && isAboutToBeAborted(entry, producer)) throw recoveryRefusal(entry, producer);
    entry.checkRoom();
    return identityOf(await this.#runner.run(entry, { kind: 'end', producer, commit }));
  }

  async list(): Promise<readonly TransactionSummary[]> {
    this.#checkLoaded();
    const summaries: TransactionSummary[] = [];
    for (const { state } of this.#table.entries()) if (state.identity.producerId >= 0) summaries.push(summaryOf(state));
    return summaries;
  }

  async describe(transactionalId: string): Promise<TransactionDescription> {
    checkTransactionalId(transactionalId);
    this.#checkLoaded();
    return descriptionOf(this.#existing(transactionalId).state);
  }

  async abort(transactionalId: string): Promise<TransactionDescription> {
    checkTransactionalId(transactionalId);
    this.#checkOpen();
    const entry = this.#existing(transactionalId);
    const outcome = await this.#runner.apply(entry, { kind: 'abort' });
    if (outcome.kind === 'refused') throw outcome.error;
    // Not applied again: it would abort the next one.
    await entry.completed();
    return descriptionOf(entry.state);
  }

  async findHanging(): Promise<readonly HangingTransaction[]> {
    this.#checkLoaded();
    return await this.#upkeep.hanging();
  }

  /** @throws LogError TRANSACTIONAL_ID_NOT_FOUND, or why it is not known whether there is one */
  #existing(transactionalId: string): TransactionEntry {
    this.#shards.find(transactionalId)?.check();
    const entry = this.#table.get(transactionalId);
    if (entry === undefined) throw transactionalIdNotFound(transactionalId);
    return entry;
  }

  /** @throws LogError INVALID_PRODUCER_ID_MAPPING, or why it is not known whether there is such an id */
  #find(producer: TransactionalProducer): TransactionEntry {
    const { transactionalId } = producer;
    const entry = this.#table.get(transactionalId);
    if (entry === undefined) {
      this.#shards.find(transactionalId)?.check();
      throw otherProducerId(transactionalId, producer);
    }
    entry.shard.check();
    return entry;
  }

  #checkOpen(): void {
    if (this.#draining) throw coordinatorDraining();
    this.#checkLoaded();
  }

  #checkLoaded(): void {
    if (!this.#upkeep.isLoaded) throw loadInProgress();
  }

  /**
   * Takes nothing new in. Resolves when what was accepted is done, but for decided transactions that cannot be completed
   * for now: those are left to the next start. Groups are needed until then.
   */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#deadlines.close();
    this.#expiry.stop();
    this.#upkeep.stop();
    await this.#work.none();
  }

  /** Finishes what was accepted, as `drain` does, and what runs in the background. Idempotent. */
  async close(): Promise<void> {
    await this.drain();
    this.#stop.abort(coordinatorDraining());
    await Promise.all([this.#upkeep.close(), this.#expiry.close()]);
    await this.#runner.close();
    this.#noteSuspects();
    await this.#shards.close();
  }

  /** What was missing after an earlier start is so after the next one, though this stop is a clean one. */
  #noteSuspects(): void {
    for (const { state, shard, transactionalId } of this.#table.entries()) {
      if (state.suspect && state.status !== 'ongoing') shard.note(transactionalId, recordOf(state));
    }
  }
}

const PLACES = new WeakMap<Partition, TransactionPartition>();

/** One copy for all transactions. */
function placeOf(partition: Partition): TransactionPartition {
  let place = PLACES.get(partition);
  if (place === undefined) {
    place = { topic: partition.topic, topicId: partition.log.id.topicId, partition: partition.index };
    PLACES.set(partition, place);
  }
  return place;
}

/** @throws LogError why it was refused */
function identityOf(outcome: TransactionOutcome): ProducerIdentity {
  if (outcome.kind === 'refused') throw outcome.error;
  if (outcome.kind === 'answered') return outcome.identity;
  throw toLogError(new Error(`a call ended with ${outcome.kind}`));
}

/** What the producer has open was found after a restart. */
function isAboutToBeAborted({ state, recovering }: TransactionEntry, producer: TransactionalProducer): boolean {
  return recovering > 0 && !isPrepared(state) && isSameIdentity(producer, state.identity);
}

/** What the producer has open is about to be aborted, or something of its id before. */
function recoveryRefusal(entry: TransactionEntry, producer: TransactionalProducer): LogError {
  const { transactionalId } = producer;
  return isAboutToBeAborted(entry, producer)
    ? transactionAborted(transactionalId, producer, 'restart')
    : concurrentTransactions(transactionalId, producer);
}
