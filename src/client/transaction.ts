/** A transaction as the function that makes it up sees it, and what the client knows of it. */
import { LogError } from '../core/errors.js';
import type { SendManyResult, SendResult } from './completions.js';
import { Consumer } from './consumer.js';
import {
  type Consumed,
  type ConsumerOffsets,
  Coverage,
  type TransactionalOffsets,
} from './group/transactional-offsets.js';
import type { Producer, SendOptions } from './producer.js';
import type { RecordInput } from './record-input.js';
import type { Topic } from './serdes.js';

/** Why a transaction cannot commit. */
interface Failure {
  readonly error: unknown;
}

/** For the client's own use. One transaction from its beginning until its end is known. */
export class TransactionWork {
  readonly #producer: Producer;
  readonly #coverages = new Map<TransactionalOffsets, Coverage>();
  readonly #calls = new Set<Promise<unknown>>();
  readonly #givenUp = new AbortController();
  #phase: 'open' | 'ending' | 'committing' | 'aborted' = 'open';
  #failure: Failure | undefined;
  /** Sends that are not settled. */
  #sending = 0;
  #hasSent = false;

  constructor(producer: Producer) {
    this.#producer = producer;
  }

  /** Aborts when the transaction is given up. */
  get signal(): AbortSignal {
    return this.#givenUp.signal;
  }

  /** Why the transaction cannot commit, if so. */
  get failure(): Failure | undefined {
    const error = this.#producer.failure;
    return this.#failure ?? (error === undefined ? undefined : { error });
  }

  /** Whether the broker has nothing of it, for certain. */
  get isEmpty(): boolean {
    return !this.#hasSent && this.#sending === 0 && this.coverages.every((coverage) => coverage.isEmpty);
  }

  /** Whether calls of `sendMany` wait for what their iterables yield. */
  get hasCalls(): boolean {
    return this.#calls.size > 0;
  }

  get coverages(): readonly Coverage[] {
    return [...this.#coverages.values()];
  }

  get consumers(): Iterable<TransactionalOffsets> {
    return this.#coverages.keys();
  }

  covers(offsets: TransactionalOffsets): boolean {
    return this.#coverages.has(offsets);
  }

  /**
   * @throws LogError why the transaction cannot commit; INVALID_TXN_STATE once the function has ended, which fails the
   *   transaction if it still can: somebody did not wait for what belongs to it
   */
  check(): void {
    if (this.isOver) throw late();
    if (this.#phase === 'ending') throw this.fail(late());
    if (this.failure !== undefined) throw this.failure.error;
  }

  /** @param isNothing whether the result says that there was nothing to send */
  async send<T>(send: () => Promise<T>, isNothing: (result: T) => boolean): Promise<T> {
    this.check();
    this.#sending++;
    try {
      const result = await send();
      this.#hasSent ||= !isNothing(result);
      return result;
    } catch (error) {
      this.#hasSent = true;
      throw this.fail(error);
    } finally {
      this.#sending--;
    }
  }

  track(call: Promise<unknown>): void {
    if (this.isOver) return;
    this.#calls.add(call);
    const forget = (): void => {
      this.#calls.delete(call);
    };
    call.then(forget, forget);
  }

  cover<K, V>(offsets: ConsumerOffsets, what: readonly Consumed<K, V>[]): void {
    this.check();
    const coverage = this.#coverages.get(offsets) ?? new Coverage(offsets);
    this.#coverages.set(offsets, coverage);
    try {
      for (const one of what) coverage.add(one);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** The transaction cannot commit any more. */
  fail<E>(error: E): E {
    this.#failure ??= { error };
    return error;
  }

  /** Fails all that is under way at once. */
  giveUp(error: LogError): void {
    if (this.isOver) return;
    this.fail(error);
    this.#producer.abandon(error);
    this.#givenUp.abort(error);
  }

  /** Nothing more can be added; resolves when everything sent is settled. */
  async settled(): Promise<void> {
    this.#phase = 'ending';
    await this.#producer.flush();
    if (this.#calls.size === 0) return;
    await Promise.allSettled([...this.#calls]);
    await this.#producer.flush();
  }

  /** Whether its end is decided, or asked for. */
  get isOver(): boolean {
    return this.isCommitting || this.#phase === 'aborted';
  }

  /** Whether its commit was asked for. */
  get isCommitting(): boolean {
    return this.#phase === 'committing';
  }

  /** It cannot be given up any more. */
  end(how: 'committing' | 'aborted'): void {
    this.#phase = how;
  }
}

/**
 * What a transaction is made of. All of it becomes visible together when the function has returned, or nothing does. Once the
 * function has ended, every method throws INVALID_TXN_STATE; if the commit is not under way yet, it is aborted for that.
 */
export class Transaction {
  readonly #work: TransactionWork;
  readonly #producer: Producer;

  /** Made by `TransactionalProducer.transaction`. */
  constructor(work: TransactionWork, producer: Producer) {
    this.#work = work;
    this.#producer = producer;
  }

  /** Aborts when the transaction is given up while the function runs, because its time is over for example. */
  get signal(): AbortSignal {
    return this.#work.signal;
  }

  /**
   * Sends one record in the transaction. Resolves when the broker has it; it becomes durable and visible with the commit. A
   * failure makes the whole transaction fail, whether the promise is looked at or not. What is sent too late for that is an
   * unhandled rejection unless it is looked at.
   * @throws LogError as `Producer.send`; INVALID_TXN_STATE; TRANSACTION_ABORTABLE (the transaction was aborted, by its timeout
   *   for example), PRODUCER_FENCED
   */
  send<K, V>(topic: Topic<K, V>, record: RecordInput<K, V>, options?: SendOptions): Promise<SendResult> {
    const send = () => this.#producer.send(topic, record, options);
    return this.#handled(this.#work.send(send, () => false));
  }

  /**
   * Sends many records in the transaction with one promise, which `transaction` waits for.
   * @throws LogError as `send` and `Producer.sendMany`; whatever the iterable throws
   */
  sendMany<K, V>(
    topic: Topic<K, V>,
    records: Iterable<RecordInput<K, V>> | AsyncIterable<RecordInput<K, V>>,
    options?: SendOptions,
  ): Promise<SendManyResult> {
    const send = () => this.#producer.sendMany(topic, records, options);
    const call = this.#work.send(send, ({ count }) => count === 0);
    this.#work.track(call);
    return this.#handled(call);
  }

  /**
   * Makes the end of these the consumer's committed offsets, if the transaction commits; of several of one partition, that
   * of the last. From the first call on, the consumer commits nothing by itself any more. After an abort it hands out again
   * what it has handed out of these partitions since the last commit: when that repeats itself, after up to a second.
   * @param what batches or records that this consumer has handed out, to a loop or to `run` with its concurrency of 1
   * @throws LogError FENCED_MEMBER_EPOCH (the partition is no longer this consumer's), INVALID_REQUEST (not of this consumer,
   *   handed out before a seek, below what a transaction has committed, one of several that are worked on at once),
   *   INVALID_TXN_STATE; all of them abort the transaction
   */
  commitOffsets<K, V>(consumer: Consumer<K, V>, what: Consumed<K, V> | readonly Consumed<K, V>[]): void {
    this.#work.cover(Consumer.offsetsOf(consumer), isList(what) ? what : [what]);
  }

  /**
   * A promise that nobody has to look at: its failure is the transaction's. When that commits already, the failure is nobody's, and a
   * record is lost of which the program believes that it was sent: that is not hushed up.
   */
  #handled<T>(promise: Promise<T>): Promise<T> {
    if (!this.#work.isCommitting) promise.catch(() => {});
    return promise;
  }
}

function late(): LogError {
  return new LogError(
    'INVALID_TXN_STATE',
    'The function of the transaction has ended: what belongs to it is to be awaited in there.',
  );
}

function isList<T extends object>(what: T | readonly T[]): what is readonly T[] {
  return Array.isArray(what);
}
