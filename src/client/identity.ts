/** Who a producer is to the broker: a producer id, which nobody else ever gets, and an epoch. */
import { assert } from '../core/assert.js';
import { LogError } from '../core/errors.js';
import type { Channel } from './channel.js';
import { closedError } from './failures.js';
import { methods } from './methods.js';
import type { ClientRuntime, ResolvedProducerOptions } from './options.js';
import { withRetries } from './retry.js';

/** The largest epoch that a batch can carry. */
export const MAX_PRODUCER_EPOCH = 0x7fff;

/** Compared by reference: what was numbered under one identity is not numbered under an equal one. */
export interface ProducerIdentity {
  readonly producerId: number;
  readonly producerEpoch: number;
}

/** The identity with the next epoch; undefined when there is none. */
export function bumped({ producerId, producerEpoch }: ProducerIdentity): ProducerIdentity | undefined {
  if (producerEpoch >= MAX_PRODUCER_EPOCH) return undefined;
  return { producerId, producerEpoch: producerEpoch + 1 };
}

export interface IdentitiesContext {
  readonly channel: Channel;
  readonly runtime: ClientRuntime;
  readonly options: ResolvedProducerOptions;
  /** How long one request may take, in ms. */
  readonly requestTimeoutMs: number;
  /** Under it the identity is given from outside, transaction by transaction. */
  readonly transactional?: { readonly transactionalId: string } | undefined;
}

/**
 * The identities of one producer, asked for when first needed. Lanes begin with the current one and raise its epoch on
 * their own. Invariants: one InitProducer is under way at most; an identity that was replaced never returns.
 */
export class Identities {
  readonly #context: IdentitiesContext;
  readonly #closing = new AbortController();
  #current: ProducerIdentity | undefined;
  #underWay: Promise<ProducerIdentity> | undefined;

  constructor(context: IdentitiesContext) {
    this.#context = context;
  }

  get transactional(): boolean {
    return this.#context.transactional !== undefined;
  }

  /** What a new lane begins with. */
  get current(): ProducerIdentity {
    assert(this.#current !== undefined, 'an identity is known before records are appended');
    return this.#current;
  }

  /** The batches of another transaction begin. */
  adopt(identity: ProducerIdentity): void {
    this.#current = identity;
  }

  /**
   * The current identity, asked for if need be; that is repeated while it may help, for `deliveryTimeoutMs`.
   * @throws LogError what InitProducer failed with last, CLOSED; INVALID_TXN_STATE outside of a transaction
   */
  async known(): Promise<ProducerIdentity> {
    if (this.#current !== undefined) return this.#current;
    if (this.transactional) throw new LogError('INVALID_TXN_STATE', 'No transaction has begun.');
    this.#underWay ??= this.#init().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  /** An identity with another producer id than this one, which is of no use any more. @throws LogError as `known` */
  renewed(lost: ProducerIdentity): Promise<ProducerIdentity> {
    if (this.#current?.producerId === lost.producerId) this.#current = undefined;
    return this.known();
  }

  /** Gives up what is under way. */
  close(): void {
    this.#closing.abort(closedError('producer'));
  }

  async #init(): Promise<ProducerIdentity> {
    const { channel, runtime, options, requestTimeoutMs } = this.#context;
    const { signal } = this.#closing;
    const retry = { ...runtime, backoff: options, limitMs: options.deliveryTimeoutMs, signal };
    const request = { transactionalId: '', transactionTimeoutMs: 0 };
    const limits = { timeoutMs: Math.min(requestTimeoutMs, options.deliveryTimeoutMs), signal };
    try {
      // An id whose answer was lost is never used: asking twice has no effect.
      const { producerId, producerEpoch } = await withRetries(retry, () =>
        channel.unary(methods.initProducer, request, limits),
      );
      this.#current = { producerId, producerEpoch };
      return this.#current;
    } catch (thrown) {
      throw signal.aborted ? signal.reason : thrown;
    }
  }
}
