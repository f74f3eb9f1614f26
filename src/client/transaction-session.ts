/** A transactional producer's conversation with the transaction coordinator. */
import { LogError, type Outcome, type Reason, toLogError } from '../core/errors.js';
import { fromStatusMessage } from '../rpc/status-codec.js';
import type { Channel } from './channel.js';
import { closedError, withOutcome } from './failures.js';
import type { GroupOffsets } from './group/transactional-offsets.js';
import type { ProducerIdentity } from './identity.js';
import { type Method, methods } from './methods.js';
import type { ClientRuntime } from './options.js';
import { type RetryContext, withRetries } from './retry.js';
import type { ResolvedTransactionalOptions } from './transaction-options.js';

export interface TransactionSessionContext {
  readonly channel: Pick<Channel, 'unary'>;
  readonly runtime: ClientRuntime;
  /** How long one request may take, in ms. */
  readonly requestTimeoutMs: number;
}

/** After these the producer can do nothing more. */
const OVER: ReadonlySet<Reason> = new Set(['PRODUCER_FENCED', 'INVALID_PRODUCER_ID_MAPPING']);

/** Offsets that one request may add. */
const MAX_OFFSETS = 10_000;

type EndMethod = Method<ProducerIdentity & { readonly transactionalId: string }, ProducerIdentity>;

/**
 * Invariants: a transaction begins with an identity that the coordinator has given out for it and nobody has used before; when the
 * end of one is not known, the next begins with InitProducer, which ends it; once the producer is over, nothing is sent any
 * more.
 */
export class TransactionSession {
  readonly #options: ResolvedTransactionalOptions;
  readonly #context: TransactionSessionContext;
  readonly #closing = new AbortController();
  /** For the next transaction. */
  #next: ProducerIdentity | undefined;
  /** Of the latest transaction, while it is not known how that has ended. */
  #unsure: ProducerIdentity | undefined;
  #initializing: Promise<ProducerIdentity> | undefined;
  #over: LogError | undefined;

  constructor(options: ResolvedTransactionalOptions, context: TransactionSessionContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Why nothing can be done any more, if so. */
  get over(): LogError | undefined {
    return this.#over;
  }

  /**
   * The identity for the next transaction, asked for if need be; several callers share what is under way.
   * @throws LogError PRODUCER_FENCED, INVALID_TRANSACTION_TIMEOUT, INVALID_REQUEST, CLOSED; what did not pass within
   *   `deliveryTimeoutMs`
   */
  identity(): Promise<ProducerIdentity> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    if (this.#next !== undefined) return Promise.resolve(this.#next);
    this.#initializing ??= this.#init().finally(() => {
      this.#initializing = undefined;
    });
    return this.#initializing;
  }

  /**
   * Adds offsets to the transaction; resolves when they are durable. The member's epoch is asked for before every attempt.
   * @throws LogError FENCED_MEMBER_EPOCH and others that an offset was refused with, TRANSACTION_ABORTABLE; what did not
   *   pass within `deliveryTimeoutMs`, or before the signal
   */
  async addOffsets(identity: ProducerIdentity, offsets: () => GroupOffsets, signal: AbortSignal): Promise<void> {
    const { transactionalId } = this.#options;
    const partitionCount = offsets().offsets.length;
    for (let from = 0; from < partitionCount; from += MAX_OFFSETS) {
      const { refused } = await withRetries(this.#retries(signal), () => {
        const group = offsets();
        const some = group.offsets.slice(from, from + MAX_OFFSETS);
        return this.#unary(methods.addOffsets, { transactionalId, ...identity, ...group, offsets: some }, signal);
      });
      const [first] = refused;
      if (first === undefined) continue;
      const { error } = first;
      if (error !== undefined && error !== null) throw fromStatusMessage(error);
      throw new LogError(
        'INTERNAL',
        `The broker refused an offset of ${first.topic}-${first.partition} without a reason.`,
      );
    }
  }

  /**
   * Resolves when the transaction is durable and visible.
   * @throws LogError what it was not committed for; with outcome `unknown` when nobody could tell in time
   */
  async commit(identity: ProducerIdentity): Promise<void> {
    await this.#end(methods.commit, identity, this.#options.producer.deliveryTimeoutMs);
  }

  /** @throws LogError what it failed with: the transaction is aborted all the same, sooner or later */
  async abort(identity: ProducerIdentity): Promise<void> {
    // What cannot be told now, the next InitProducer does, or the timeout.
    await this.#end(methods.abort, identity, this.#context.requestTimeoutMs);
  }

  /** What is under way fails with CLOSED. */
  close(): void {
    this.#closing.abort(closedError('producer'));
  }

  async #init(): Promise<ProducerIdentity> {
    const { transactionalId, timeoutMs } = this.#options;
    const base = { transactionalId, transactionTimeoutMs: timeoutMs };
    const request = this.#unsure === undefined ? base : { ...base, ...this.#unsure };
    try {
      this.#next = identityOf(await withRetries(this.#retries(), () => this.#unary(methods.initProducer, request)));
      this.#unsure = undefined;
      return this.#next;
    } catch (thrown) {
      throw this.#failure(thrown, 'none');
    }
  }

  async #end(method: EndMethod, identity: ProducerIdentity, limitMs: number): Promise<void> {
    const { transactionalId } = this.#options;
    let outcome: Outcome = 'none';
    this.#next = undefined;
    this.#unsure = identity;
    try {
      const answer = await withRetries(
        { ...this.#retries(), limitMs },
        () => this.#unary(method, { transactionalId, ...identity }),
        (error) => {
          if (error.outcome === 'unknown') outcome = 'unknown';
          return true;
        },
      );
      this.#next = identityOf(answer);
      this.#unsure = undefined;
    } catch (thrown) {
      throw this.#failure(thrown, outcome);
    }
  }

  /** @param before what is known of earlier attempts */
  #failure(thrown: unknown, before: Outcome): LogError {
    const error = toLogError(thrown);
    const outcome = error.outcome === 'unknown' ? 'unknown' : before;
    if (this.#closing.signal.aborted)
      return new LogError('CLOSED', 'The producer was closed.', { outcome, cause: error });
    // Said of a transaction that was aborted: no earlier attempt has committed it.
    if (error.reason === 'TRANSACTION_ABORTABLE' || error.reason === 'INVALID_TXN_STATE') return error;
    if (OVER.has(error.reason)) {
      this.#over = overBecause(error, this.#options.transactionalId, 'none');
      return outcome === 'none' ? this.#over : overBecause(error, this.#options.transactionalId, outcome);
    }
    return withOutcome(error, outcome);
  }

  #unary<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    signal?: AbortSignal,
  ): Promise<Response> {
    const timeoutMs = this.#context.requestTimeoutMs;
    return this.#context.channel.unary(method, request, { timeoutMs, signal: signal ?? this.#closing.signal });
  }

  #retries(signal: AbortSignal = this.#closing.signal): RetryContext {
    const { clock, random } = this.#context.runtime;
    const { producer } = this.#options;
    return { clock, random, backoff: producer, limitMs: producer.deliveryTimeoutMs, signal };
  }
}

function identityOf({ producerId, producerEpoch }: ProducerIdentity): ProducerIdentity {
  return { producerId, producerEpoch };
}

function overBecause(cause: LogError, transactionalId: string, outcome: Outcome): LogError {
  const taken = `Another producer with the transactional id ${transactionalId} has taken over: this one is to end.`;
  const message = cause.reason === 'PRODUCER_FENCED' ? taken : `${cause.message} This producer is to end.`;
  return new LogError(cause.reason, message, { metadata: { ...cause.metadata }, outcome, cause });
}
