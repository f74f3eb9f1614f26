/** Transactions of one transactional id, one after the other. */
import { LogError, toLogError } from '../core/errors.js';
import { cancelled, closedError, onAbort, withOutcome } from './failures.js';
import type { TransactionalOffsets } from './group/transactional-offsets.js';
import type { ProducerIdentity } from './identity.js';
import { Producer, type ProducerContext } from './producer.js';
import { Transaction, TransactionWork } from './transaction.js';
import type { ResolvedTransactionalOptions } from './transaction-options.js';
import { TransactionSession } from './transaction-session.js';

/** How long `close` waits for the answer to the abort, in ms: the timeout does the same. */
const ABORT_LIMIT_MS = 3_000;

/** For the client's own use. */
export interface TransactionalContext extends Omit<ProducerContext, 'options' | 'transactional'> {
  readonly options: ResolvedTransactionalOptions;
  /** Consumers that are iterated over. */
  readonly working: ReadonlySet<TransactionalOffsets>;
}

export interface TransactionOptions {
  /** Gives the transaction up, which rejects with CANCELLED; not any more once its commit is under way. */
  readonly signal?: AbortSignal;
}

/** Consumers that are working on something, and how each goes back. */
type InHand = ReadonlyMap<TransactionalOffsets, () => void>;

/** What the function of a transaction was given, and what becomes of consumers if it aborts. */
interface Attempt {
  readonly work: TransactionWork;
  readonly identity: ProducerIdentity;
  readonly producer: Producer;
  /** When the transaction began. */
  readonly inHand: InHand;
}

/**
 * Sends records and commits offsets in transactions, made by `client.transactionalProducer`. Whoever uses its transactional
 * id next takes over: the transaction under way is aborted, and this producer can do nothing more.
 */
export class TransactionalProducer implements AsyncDisposable {
  readonly #context: TransactionalContext;
  readonly #session: TransactionSession;
  /** Consumers in whose loops transactions were committed without their offsets. */
  readonly #unrelated = new WeakSet<TransactionalOffsets>();
  /** Consumers whose offsets were in transactions, of other clients too. */
  readonly #named = new Set<TransactionalOffsets>();
  #producer: Producer;
  #current: TransactionWork | undefined;
  /** Settled when no transaction is under way. Never rejects. */
  #idle: Promise<void> = Promise.resolve();
  #isBusy = false;
  #closing: Promise<void> | undefined;

  /** Use `client.transactionalProducer()`. */
  constructor(context: TransactionalContext) {
    this.#context = context;
    this.#session = new TransactionSession(context.options, context);
    this.#producer = this.#makeProducer();
  }

  get transactionalId(): string {
    return this.#context.options.transactionalId;
  }

  /**
   * Runs the function in a transaction. When it has returned, all that it has sent and all offsets that it has committed become
   * durable and visible together, and the result is the function's. When it throws, or anything it has sent was not
   * delivered, nothing does: the transaction is aborted, and consumers whose loop this is in hand out again what they have handed
   * out since the last commit. The first call takes the transactional id over from whoever has used it before.
   * @throws what the function threw; LogError what a send failed with; TRANSACTION_ABORTABLE (the time was over, the broker was
   *   started anew, or an administrator has aborted it), FENCED_MEMBER_EPOCH (a consumer has lost a partition),
   *   CONCURRENT_TRANSACTIONS (another one is under way), INVALID_TRANSACTION_TIMEOUT, CANCELLED, CLOSED: another transaction may
   *   be tried; PRODUCER_FENCED, INVALID_PRODUCER_ID_MAPPING: this producer is over; an error with the outcome
   *   `unknown`: nobody could tell in time whether it is committed
   */
  async transaction<T>(fn: (transaction: Transaction) => Promise<T> | T, options: TransactionOptions = {}): Promise<T> {
    if (this.#closing !== undefined) throw closedError('producer');
    if (this.#isBusy) {
      throw new LogError('CONCURRENT_TRANSACTIONS', 'A transaction of this producer is under way: one at a time.');
    }
    this.#isBusy = true;
    const transaction = this.#transact(fn, options.signal).finally(() => {
      this.#isBusy = false;
      this.#current = undefined;
    });
    const done = (): void => {};
    this.#idle = transaction.then(done, done);
    return transaction;
  }

  /**
   * Takes no new transactions, waits for the one under way, and aborts it when it takes longer than the limit. Never rejects;
   * idempotent.
   * @param options.timeoutMs default: the producer's `closeTimeoutMs`
   */
  close(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.timeoutMs ?? this.#context.options.producer.closeTimeoutMs);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #transact<T>(fn: (transaction: Transaction) => Promise<T> | T, signal: AbortSignal | undefined): Promise<T> {
    const inHand = this.#whatIsInHand();
    const identity = await this.#identity(inHand, signal);
    const producer = this.#producer;
    producer.begin(identity);
    const work = new TransactionWork(producer);
    this.#current = work;
    const attempt: Attempt = { work, identity, producer, inHand };
    const timer = this.#context.runtime.clock.setTimer(this.#context.options.timeoutMs, () =>
      work.giveUp(this.#late()),
    );
    const stopListening = onAbort(signal, () => work.giveUp(cancelledBefore(signal as AbortSignal)));
    let result: T;
    try {
      result = await this.#run(fn, attempt);
    } catch (error) {
      work.end('aborted');
      throw await this.#abort(attempt, error);
    } finally {
      timer.cancel();
      stopListening();
    }
    await this.#commit(attempt);
    return result;
  }

  async #identity(inHand: InHand, signal: AbortSignal | undefined): Promise<ProducerIdentity> {
    try {
      if (signal?.aborted) throw cancelledBefore(signal);
      return await orAborted(this.#session.identity(), signal);
    } catch (error) {
      this.#goBackAll(inHand);
      throw withOutcome(toLogError(error), 'none');
    }
  }

  /** Everything up to the point at which the transaction may be committed. */
  async #run<T>(fn: (transaction: Transaction) => Promise<T> | T, { work, identity, producer }: Attempt): Promise<T> {
    const givenUp = new Promise<never>((_, reject) => {
      work.signal.addEventListener('abort', () => reject(work.signal.reason), { once: true });
    });
    givenUp.catch(() => {});
    const running = (async () => fn(new Transaction(work, producer)))();
    running.catch(() => {});
    const result = await Promise.race([running, givenUp]);
    const prepared = Promise.all([work.settled(), this.#addOffsets(work, identity)]);
    prepared.catch(() => {});
    await Promise.race([prepared, givenUp]);
    if (work.failure !== undefined) throw work.failure.error;
    work.end('committing');
    return result;
  }

  async #addOffsets(work: TransactionWork, identity: ProducerIdentity): Promise<void> {
    for (const coverage of work.coverages) {
      try {
        await coverage.settled();
        await this.#session.addOffsets(identity, () => coverage.request(), work.signal);
      } catch (error) {
        throw work.fail(error);
      }
    }
  }

  async #commit(attempt: Attempt): Promise<void> {
    const { work, identity, inHand } = attempt;
    if (work.isEmpty) return;
    try {
      await this.#session.commit(identity);
    } catch (thrown) {
      const error = toLogError(thrown);
      if (error.outcome === 'none' && !error.retryable) throw await this.#abort(attempt, error);
      if (error.outcome === 'none') this.#goBack(attempt);
      else for (const coverage of work.coverages) coverage.unknown();
      this.#resolveSoon();
      throw error;
    }
    for (const coverage of work.coverages) coverage.committed();
    for (const offsets of work.consumers) this.#named.add(offsets);
    for (const offsets of inHand.keys()) if (!work.covers(offsets)) this.#unrelated.add(offsets);
  }

  /** @returns what the transaction is to fail with */
  async #abort(attempt: Attempt, error: unknown): Promise<unknown> {
    const { work, identity, producer } = attempt;
    const reason =
      error instanceof LogError ? error : new LogError('INVALID_TXN_STATE', 'The transaction was aborted.');
    producer.abandon(reason);
    if (work.hasCalls) this.#replaceProducer();
    if (!work.isEmpty) await this.#session.abort(identity).catch((failure) => this.#notAborted(failure));
    this.#goBack(attempt);
    if (!(error instanceof LogError) || error !== work.failure?.error) return error;
    // Whether one record arrived may be unknown; that none of them counts is not.
    return this.#session.over ?? withOutcome(error, 'none');
  }

  /** Ends what is not decided: whoever waits for it, readers and members of the group, need not wait for its timeout. */
  #resolveSoon(): void {
    if (this.#closing === undefined && this.#session.over === undefined) this.#session.identity().catch(() => {});
  }

  #notAborted(failure: LogError): void {
    const { logger } = this.#context.runtime;
    const { transactionalId } = this;
    const fields = { transactionalId, reason: failure.reason, error: failure.message };
    logger.warn(fields, 'a transaction could not be aborted: the broker does it when its time is over');
    this.#resolveSoon();
  }

  #goBack({ work, inHand }: Attempt): void {
    // It may have failed before it came to its offsets.
    if (work.coverages.every((coverage) => coverage.isEmpty)) this.#goBackAll(inHand);
    for (const coverage of work.coverages) coverage.aborted();
  }

  #goBackAll(inHand: InHand): void {
    // Of a consumer that no transaction has named yet, it may be none of this producer's business; but better a record that is
    // handed out twice than one that is passed over.
    for (const [offsets, goBack] of inHand) if (offsets.isBound || !this.#unrelated.has(offsets)) goBack();
  }

  #whatIsInHand(): InHand {
    const inHand = new Map<TransactionalOffsets, () => void>();
    for (const offsets of this.#named) if (!offsets.isActive) this.#named.delete(offsets);
    for (const offsets of new Set([...this.#context.working, ...this.#named])) {
      const goBack = offsets.inHand();
      if (goBack !== undefined) inHand.set(offsets, goBack);
    }
    return inHand;
  }

  #late(): LogError {
    const { timeoutMs, transactionalId } = this.#context.options;
    return new LogError(
      'TRANSACTION_ABORTABLE',
      `The transaction has taken longer than its timeout of ${timeoutMs} ms.`,
      {
        metadata: { transactional_id: transactionalId, timeout_ms: timeoutMs },
      },
    );
  }

  /** A `sendMany` waits for what its iterable yields, for ever perhaps: the next transaction does not wait with it. */
  #replaceProducer(): void {
    void this.#producer.close({ timeoutMs: 0 });
    this.#producer = this.#makeProducer();
  }

  #makeProducer(): Producer {
    const { options, ...context } = this.#context;
    const { transactionalId } = options;
    return new Producer({
      ...context,
      options: options.producer,
      transactional: { transactionalId },
      onClosed: () => {},
    });
  }

  async #close(timeoutMs: number): Promise<void> {
    const waited = new AbortController();
    const { clock } = this.#context.runtime;
    const giveUp = async (): Promise<void> => {
      await clock.sleep(timeoutMs, waited.signal);
      if (this.#current !== undefined && !this.#current.isOver) {
        this.#current.giveUp(closedError('producer'));
        await clock.sleep(ABORT_LIMIT_MS, waited.signal);
      }
      this.#session.close();
    };
    giveUp().catch(() => {}); // it need not
    await this.#idle;
    waited.abort();
    this.#session.close();
    await this.#producer.close({ timeoutMs: 0 });
    this.#context.onClosed();
  }
}

/** CANCELLED, and nothing is committed. */
function cancelledBefore(signal: AbortSignal): LogError {
  return withOutcome(cancelled(signal), 'none');
}

/** @throws LogError CANCELLED when the signal aborts first */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let stopListening = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stopListening = onAbort(signal, () => reject(cancelledBefore(signal)));
  });
  promise.catch(() => {});
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    stopListening();
  }
}
