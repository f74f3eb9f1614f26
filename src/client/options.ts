/** Options of the client and its parts, their defaults and their checks. */
import type { Codec } from '../batch/layout.js';
import { type Clock, systemClock } from '../core/clock.js';
import { LogError } from '../core/errors.js';
import { type Logger, silentLogger } from '../core/logger.js';
import { type Random, systemRandom } from '../core/random.js';
import { keyPartitioner, type Partitioner } from './partitioner.js';
import { DEFAULT_BACKOFF } from './retry.js';

const MIB = 1024 * 1024;

/** Time and chance, exchangeable in tests. */
export interface ClientRuntime {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export interface ConnectOptions {
  /** Name of this client in the broker's logs; printable ASCII without spaces. Default `tidelog-client`. */
  readonly clientId?: string;
  /** Abandons the attempt to connect. Has no effect afterwards. */
  readonly signal?: AbortSignal;
  /** Default: silent. pino and its like fit as they are. */
  readonly logger?: Logger;
  /** How long `connect` waits for the broker's first answer, in ms. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /**
   * How long one request may take, repetitions of safe requests included, and how long a produce request may stay
   * unanswered before its connection is given up, in ms. Default 30,000.
   */
  readonly requestTimeoutMs?: number;
  /**
   * How long what is known of a topic is relied on, in ms, at least 1,000: within this time producers, and readers that
   * follow, learn of partitions that were added. Default 300,000. Kafka's `metadata.max.age.ms`.
   */
  readonly metadataMaxAgeMs?: number;
  /** For tests: where time comes from. */
  readonly clock?: Clock;
  /** For tests: where chance comes from. */
  readonly random?: Random;
}

export interface ResolvedConnectOptions extends ClientRuntime {
  readonly clientId: string;
  readonly signal: AbortSignal | undefined;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly metadataMaxAgeMs: number;
}

export function resolveConnectOptions(options: ConnectOptions): ResolvedConnectOptions {
  const clientId = options.clientId ?? 'tidelog-client';
  if (!/^[\x21-\x7e]{1,255}$/.test(clientId)) {
    throw invalidOption('clientId', 'is 1 to 255 printable ASCII characters without spaces', clientId);
  }
  return {
    clientId,
    signal: options.signal,
    logger: options.logger ?? silentLogger,
    connectTimeoutMs: atLeast('connectTimeoutMs', 1, options.connectTimeoutMs ?? 10_000),
    requestTimeoutMs: atLeast('requestTimeoutMs', 1, options.requestTimeoutMs ?? 30_000),
    metadataMaxAgeMs: atLeast('metadataMaxAgeMs', 1_000, options.metadataMaxAgeMs ?? 5 * 60_000),
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
  };
}

/**
 * What an acknowledgement promises: `none` nothing, `written` that the record survives the death of the broker process,
 * `durable` that it survives power loss.
 */
export type Acks = 'none' | 'written' | 'durable';

export interface ProducerOptions {
  /** Default `durable`. */
  readonly acks?: Acks;
  /**
   * Whether repeated sends never duplicate a record, nor change the order within a partition. Default true, unless `acks`
   * is `none`, which does not go with it.
   */
  readonly idempotent?: boolean;
  /** How long a record may wait for others to share its batch, in ms. 0: until the end of the tick. Default 5. */
  readonly lingerMs?: number;
  /** A batch is sent when it has grown to this, uncompressed. A larger record has a batch of its own. Default 128 KiB. */
  readonly batchBytes?: number;
  /** Batches of one partition that may be unanswered at once; at most 5 when idempotent. Default 5. */
  readonly maxInFlight?: number;
  /** Codec of the batches. Default `none`. */
  readonly compression?: Codec;
  /** Bytes of records accumulated and unanswered, over all partitions, beyond which `send` waits. Default 32 MiB. */
  readonly bufferBytes?: number;
  /** Calls of `send` that may wait for room or metadata at once; more are refused with RESOURCE_LIMIT. Default 1,000,000. */
  readonly maxWaitingSends?: number;
  /** How long after its batch was closed a record may still be tried, in ms. Default 120,000. */
  readonly deliveryTimeoutMs?: number;
  /** Wait before the first repetition, in ms; doubles with each further one. Default 100. */
  readonly retryBackoffMs?: number;
  /** Longest wait between repetitions, in ms. Default 1,000. */
  readonly retryBackoffMaxMs?: number;
  /** Time that `close` leaves for what is under way, in ms. Default 30,000. */
  readonly closeTimeoutMs?: number;
  /** Default: murmur2 of the key as Kafka's Java client, sticky without a key. */
  readonly partitioner?: Partitioner;
}

export type ResolvedProducerOptions = Required<ProducerOptions>;

/** So many batches of a producer a partition remembers, to tell repetitions from new ones. */
const MAX_IDEMPOTENT_IN_FLIGHT = 5;

export function resolveProducerOptions(options: ProducerOptions): ResolvedProducerOptions {
  const acks = oneOf('acks', ['none', 'written', 'durable'], options.acks ?? 'durable');
  const idempotent = oneOf('idempotent', [true, false], options.idempotent ?? acks !== 'none');
  if (idempotent && acks === 'none') throw invalidOption('idempotent', 'does not go with acks none', idempotent);
  const maxInFlight = wholeAtLeast('maxInFlight', 1, options.maxInFlight ?? 5);
  if (idempotent && maxInFlight > MAX_IDEMPOTENT_IN_FLIGHT) {
    throw invalidOption('maxInFlight', `is at most ${MAX_IDEMPOTENT_IN_FLIGHT} when idempotent`, maxInFlight);
  }
  const batchBytes = atLeast('batchBytes', 1, options.batchBytes ?? 128 * 1024);
  const retryBackoffMs = atLeast('retryBackoffMs', 0, options.retryBackoffMs ?? DEFAULT_BACKOFF.retryBackoffMs);
  return {
    acks,
    idempotent,
    lingerMs: atLeast('lingerMs', 0, options.lingerMs ?? 5),
    batchBytes,
    maxInFlight,
    compression: oneOf('compression', ['none', 'gzip', 'snappy', 'lz4', 'zstd'], options.compression ?? 'none'),
    bufferBytes: atLeast('bufferBytes', 1, options.bufferBytes ?? 32 * MIB),
    maxWaitingSends: wholeAtLeast('maxWaitingSends', 1, options.maxWaitingSends ?? 1_000_000),
    deliveryTimeoutMs: atLeast('deliveryTimeoutMs', 1, options.deliveryTimeoutMs ?? 120_000),
    retryBackoffMs,
    retryBackoffMaxMs: atLeast(
      'retryBackoffMaxMs',
      retryBackoffMs,
      options.retryBackoffMaxMs ?? Math.max(retryBackoffMs, DEFAULT_BACKOFF.retryBackoffMaxMs),
    ),
    closeTimeoutMs: atLeast('closeTimeoutMs', 0, options.closeTimeoutMs ?? 30_000),
    partitioner: options.partitioner ?? keyPartitioner,
  };
}

function invalidOption(name: string, rule: string, value: unknown): LogError {
  return new LogError('INVALID_CONFIG', `The option ${name} ${rule}, not ${JSON.stringify(value) ?? String(value)}.`);
}

/** @throws LogError INVALID_CONFIG unless `value` is a finite number >= `least` */
export function atLeast(name: string, least: number, value: number): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < least) {
    throw invalidOption(name, `is a number of at least ${least}`, value);
  }
  return value;
}

/** @throws LogError INVALID_CONFIG unless `value` is a whole number >= `least` */
export function wholeAtLeast(name: string, least: number, value: number): number {
  if (!Number.isSafeInteger(value)) throw invalidOption(name, 'is a whole number', value);
  return atLeast(name, least, value);
}

/** @throws LogError INVALID_CONFIG unless `value` is one of `values` */
export function oneOf<T extends string | boolean>(name: string, values: readonly T[], value: T): T {
  if (!values.includes(value)) throw invalidOption(name, `is one of ${values.join(', ')}`, value);
  return value;
}
