/** A connection to a broker and what can be done over it. */
import { LogError } from '../core/errors.js';
import type { TopicMessage } from '../rpc/messages.js';
import { Admin } from './admin.js';
import { Channel } from './channel.js';
import { Consumer } from './consumer.js';
import type { ConsumerOptions } from './consumer-options.js';
import { callFailure, closedError } from './failures.js';
import { CommitStreams } from './group/commit-stream.js';
import { consumerParts } from './group/consumer-parts.js';
import type { TransactionalOffsets } from './group/transactional-offsets.js';
import { MetadataCache } from './metadata-cache.js';
import { methods } from './methods.js';
import {
  type ConnectOptions,
  type ProducerOptions,
  type ResolvedConnectOptions,
  resolveConnectOptions,
  resolveProducerOptions,
} from './options.js';
import { Producer } from './producer.js';
import { type ReadOptions, resolveReadOptions } from './read-options.js';
import { TopicReader } from './reader.js';
import type { Topic } from './serdes.js';
import type { KeyOf, Subscribed, ValueOf } from './topic-pattern.js';
import { resolveTransactionalOptions, type TransactionalProducerOptions } from './transaction-options.js';
import { TransactionalProducer } from './transactional-producer.js';

/** Anything that the client made and must close with itself. */
interface Closable {
  close(): Promise<void>;
}

/**
 * A connected client. Cheap to share: all producers and readers use its one connection. Lost connections are made anew
 * by themselves.
 */
export class Client implements AsyncDisposable {
  readonly admin: Admin;
  readonly #channel: Channel;
  readonly #options: ResolvedConnectOptions;
  readonly #maxRequestBytes: number;
  readonly #metadata: MetadataCache;
  readonly #open = new Set<Closable>();
  readonly #consumers = new Set<Closable>();
  readonly #working = new Set<TransactionalOffsets>();
  readonly #transactionalProducers = new Set<Closable>();
  readonly #commitStreams: CommitStreams;
  #closing: Promise<void> | undefined;

  /** Use `connect`. */
  constructor(channel: Channel, options: ResolvedConnectOptions, maxRequestBytes: number) {
    this.#channel = channel;
    this.#options = options;
    this.#maxRequestBytes = maxRequestBytes;
    this.admin = new Admin(channel, options, options.requestTimeoutMs);
    const lookup = (name: string): Promise<TopicMessage> => this.admin.lookUpTopic(name);
    this.#metadata = new MetadataCache(lookup, options.clock, options.metadataMaxAgeMs);
    this.#commitStreams = new CommitStreams(channel, options.clock, options.requestTimeoutMs);
  }

  /**
   * Something to send records with. Close it, or the client, to be sure that everything was delivered.
   * @throws LogError INVALID_CONFIG, CLOSED
   */
  producer(options: ProducerOptions = {}): Producer {
    this.#throwIfClosed();
    const producer: Producer = new Producer({
      channel: this.#channel,
      runtime: this.#options,
      metadata: this.#metadata,
      options: resolveProducerOptions(options),
      requestTimeoutMs: this.#options.requestTimeoutMs,
      maxRequestBytes: this.#maxRequestBytes,
      onClosed: () => this.#open.delete(producer),
    });
    this.#open.add(producer);
    return producer;
  }

  /**
   * Something to send records and commit offsets in transactions with. Whoever used the transactional id before is shut
   * out with the first transaction.
   * @throws LogError INVALID_REQUEST (an empty id), INVALID_CONFIG, CLOSED
   */
  transactionalProducer(transactionalId: string, options: TransactionalProducerOptions = {}): TransactionalProducer {
    this.#throwIfClosed();
    const producer: TransactionalProducer = new TransactionalProducer({
      channel: this.#channel,
      runtime: this.#options,
      metadata: this.#metadata,
      options: resolveTransactionalOptions(transactionalId, options),
      requestTimeoutMs: this.#options.requestTimeoutMs,
      maxRequestBytes: this.#maxRequestBytes,
      working: this.#working,
      onClosed: () => this.#transactionalProducers.delete(producer),
    });
    this.#transactionalProducers.add(producer);
    return producer;
  }

  /**
   * The records of a topic, without a consumer group: iterate over the result, or over its `batches()`. Nothing happens
   * before the iteration begins; each iteration reads anew.
   * @throws LogError INVALID_REQUEST, INVALID_CONFIG, CLOSED
   */
  read<K, V>(topic: Topic<K, V>, options: ReadOptions = {}): TopicReader<K, V> {
    this.#throwIfClosed();
    return new TopicReader(topic, resolveReadOptions(options), {
      channel: this.#channel,
      runtime: this.#options,
      admin: this.admin,
      metadata: this.#metadata,
      open: this.#open,
    });
  }

  /**
   * Reads topics as a member of a consumer group: iterate over the result, over its `batches()`, or `run` a handler.
   * Nothing happens before that begins.
   * @throws LogError INVALID_REQUEST, INVALID_GROUP_ID, INVALID_CONFIG, CLOSED
   */
  consumer<K, V>(topics: Subscribed<K, V>, options: ConsumerOptions): Consumer<K, V>;
  /** The same with topics of different types: a record has those of one of them. */
  consumer<T extends Topic<unknown, unknown>>(
    topics: readonly T[],
    options: ConsumerOptions,
  ): Consumer<KeyOf<T>, ValueOf<T>>;
  consumer(topics: Subscribed<unknown, unknown>, options: ConsumerOptions): Consumer<unknown, unknown> {
    this.#throwIfClosed();
    const client = {
      channel: this.#channel,
      runtime: this.#options,
      admin: this.admin,
      clientId: this.#options.clientId,
      requestTimeoutMs: this.#options.requestTimeoutMs,
      commitStreams: this.#commitStreams,
      open: this.#consumers,
      working: this.#working,
      throwIfClosed: () => this.#throwIfClosed(),
    };
    return new Consumer(topics, options, consumerParts(client, options.group));
  }

  /**
   * Ends consumers (which commit what is finished and leave their groups), closes transactional producers (which wait for
   * the transaction under way), then other producers (which drain), ends readers, then closes the connection. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    // What consumers finish may still be produced from.
    await Promise.all([...this.#consumers].map((part) => part.close()));
    await Promise.all([...this.#transactionalProducers].map((part) => part.close()));
    await Promise.all([...this.#open].map((part) => part.close()));
    this.#commitStreams.close();
    this.admin.markClosed();
    this.#channel.close();
  }

  #throwIfClosed(): void {
    if (this.#closing !== undefined) throw closedError('client');
  }
}

/**
 * Connects to a broker and makes sure that one answers.
 * @param address `HOST:PORT`, `HOST` (port 7171), `[IPv6]:PORT` or `unix:PATH`
 * @throws LogError BROKER_UNAVAILABLE when no broker answers there, INVALID_REQUEST, INVALID_CONFIG, CANCELLED
 */
export async function connect(address: string, options: ConnectOptions = {}): Promise<Client> {
  const resolved = resolveConnectOptions(options);
  const { connectTimeoutMs, signal } = resolved;
  const channel = new Channel(address, resolved.clientId, resolved.clock);
  try {
    const cluster = await channel.unary(methods.describeCluster, {}, { timeoutMs: connectTimeoutMs, signal });
    return new Client(channel, resolved, cluster.maxRequestBytes);
  } catch (thrown) {
    channel.close();
    const error = callFailure(thrown);
    throw error.reason === 'CANCELLED' ? error : unavailable(channel.address, error);
  }
}

function unavailable(address: string, cause: LogError): LogError {
  const detail = cause.message.replace(/[.\s]+$/, '');
  return new LogError(
    'BROKER_UNAVAILABLE',
    `No Tidelog broker answers at ${address} (${detail}). Start one with \`tidelog serve\`, or check the address.`,
    { metadata: { address }, cause },
  );
}
