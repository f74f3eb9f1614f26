/** How to consume as a member of a group: options, their defaults and their checks. */
import { MAX_TIMER_MS } from '../core/clock.js';
import { LogError } from '../core/errors.js';
import { type Isolation, resolveIsolation } from './isolation.js';
import { atLeast, wholeAtLeast } from './options.js';
import { DEFAULT_FETCH_BYTES, DEFAULT_MAX_BUFFERED_BYTES } from './read-options.js';

/** Where a group begins that has committed nothing: the log start offset, the end (with `read_committed` that of what is decided), or a time. */
export type ConsumeFrom = 'earliest' | 'latest' | Date;

/** How the broker deals partitions out: evenly and with as few moves as possible, or in ranges topic by topic. */
export type Assignor = 'uniform' | 'range';

export interface ConsumerOptions {
  /** Id of the consumer group. */
  readonly group: string;
  /**
   * Where to begin in partitions of which the group has committed nothing, and in those whose committed offset is no longer
   * in the log. Without it the former begin at `earliest`, and the latter are an error: nothing is skipped unasked.
   */
  readonly from?: ConsumeFrom;
  /**
   * What of transactions is read: with `read_committed` nothing of an aborted one, and nothing behind one that is not decided.
   * Default `read_committed`.
   */
  readonly isolation?: Isolation;
  /** Ends the iteration, or `run`, with CANCELLED, after committing what is finished and leaving the group. */
  readonly signal?: AbortSignal;
  /**
   * Whether what the loop has finished is committed by itself: every `intervalMs` (default 5,000), when partitions go, and
   * at the end. Default true. With false only `commit` counts as finishing. That ends for good with the first transaction that
   * commits offsets of this consumer.
   */
  readonly autoCommit?: boolean | { readonly intervalMs?: number };
  /**
   * Makes a static member of this: a name, unique in the group, that outlives the process. Within its session it comes
   * back to the partitions it had.
   */
  readonly instanceId?: string;
  /** What most members want counts. Default: no preference. */
  readonly assignor?: Assignor;
  /** How long the broker waits for a sign of life before others get the partitions, in ms. Default: the broker's. */
  readonly sessionTimeoutMs?: number;
  /** How long giving partitions up may take, listeners included, in ms. Default: `maxPollIntervalMs`. */
  readonly rebalanceTimeoutMs?: number;
  /** How long one record or batch may be worked on before the consumer leaves the group, in ms. Default 300,000. */
  readonly maxPollIntervalMs?: number;
  /** Bytes fetched ahead of the iteration at most. Default 16 MiB. */
  readonly maxBufferedBytes?: number;
  /** About how much one message of the broker holds, in bytes. Default 1 MiB. */
  readonly fetchBytes?: number;
  /** Whether the checksum of every batch is checked here too. Default true. */
  readonly verifyCrc?: boolean;
  /** How long to go on fetching without an answer before the failure is thrown, in ms. Default: for ever. */
  readonly retryTimeoutMs?: number;
}

export interface ResolvedConsumerOptions {
  readonly group: string;
  readonly from: ConsumeFrom | undefined;
  readonly isolation: Isolation;
  readonly signal: AbortSignal | undefined;
  /** Undefined: only `commit` finishes records. */
  readonly autoCommitIntervalMs: number | undefined;
  readonly instanceId: string | undefined;
  readonly assignor: Assignor | undefined;
  /** 0: the broker's. */
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly maxPollIntervalMs: number;
  readonly maxBufferedBytes: number;
  readonly fetchBytes: number;
  readonly verifyCrc: boolean;
  readonly retryTimeoutMs: number;
}

const DEFAULT_AUTO_COMMIT_MS = 5_000;
const DEFAULT_MAX_POLL_MS = 300_000;

/** @throws LogError INVALID_REQUEST, INVALID_GROUP_ID, INVALID_CONFIG */
export function resolveConsumerOptions(options: ConsumerOptions): ResolvedConsumerOptions {
  const { group, from, instanceId } = options;
  if (typeof group !== 'string' || group === '') {
    throw new LogError('INVALID_GROUP_ID', 'The option group names the consumer group; it must not be empty.');
  }
  checkFrom(from);
  if (instanceId === '') throw new LogError('INVALID_REQUEST', 'The option instanceId must not be empty.');
  const maxPollIntervalMs = atLeast('maxPollIntervalMs', 1, options.maxPollIntervalMs ?? DEFAULT_MAX_POLL_MS);
  const rebalanceTimeoutMs = options.rebalanceTimeoutMs ?? Math.min(Math.ceil(maxPollIntervalMs), MAX_TIMER_MS);
  const intervalMs = autoCommitIntervalMs(options.autoCommit ?? true);
  return {
    group,
    from,
    isolation: resolveIsolation(options.isolation),
    signal: options.signal,
    autoCommitIntervalMs: intervalMs,
    instanceId,
    assignor: options.assignor,
    sessionTimeoutMs: wholeAtLeast('sessionTimeoutMs', 0, options.sessionTimeoutMs ?? 0),
    rebalanceTimeoutMs: wholeAtLeast('rebalanceTimeoutMs', 1, rebalanceTimeoutMs),
    maxPollIntervalMs,
    maxBufferedBytes: atLeast('maxBufferedBytes', 1, options.maxBufferedBytes ?? DEFAULT_MAX_BUFFERED_BYTES),
    fetchBytes: Math.floor(atLeast('fetchBytes', 1, options.fetchBytes ?? DEFAULT_FETCH_BYTES)),
    verifyCrc: options.verifyCrc ?? true,
    retryTimeoutMs: atLeast('retryTimeoutMs', 0, options.retryTimeoutMs ?? Number.MAX_VALUE),
  };
}

function autoCommitIntervalMs(given: boolean | { readonly intervalMs?: number }): number | undefined {
  if (given === false) return undefined;
  const intervalMs = given === true ? DEFAULT_AUTO_COMMIT_MS : (given.intervalMs ?? DEFAULT_AUTO_COMMIT_MS);
  return atLeast('autoCommit.intervalMs', 1, intervalMs);
}

function checkFrom(from: ConsumeFrom | undefined): void {
  if (from === undefined || from === 'earliest' || from === 'latest') return;
  if (from instanceof Date && !Number.isNaN(from.getTime())) return;
  throw new LogError('INVALID_REQUEST', "The option from of a consumer is 'earliest', 'latest' or a valid Date.");
}

/** In which order `run` has records handled: those of one partition, those of one key, or in none. */
export type HandlingOrder = 'partition' | 'key' | 'none';

export interface RunOptions {
  /** Handlers under way at once. Default 1. */
  readonly concurrency?: number;
  /**
   * Default `partition`: one at a time of each partition. `key`: records of one key in order, while others overtake them;
   * records without a key have no order. `none`: no order.
   */
  readonly orderedBy?: HandlingOrder;
}

export interface ResolvedRunOptions {
  readonly concurrency: number;
  readonly orderedBy: HandlingOrder;
}

/** @throws LogError INVALID_CONFIG, INVALID_REQUEST */
export function resolveRunOptions(options: RunOptions): ResolvedRunOptions {
  const orderedBy = options.orderedBy ?? 'partition';
  if (!['partition', 'key', 'none'].includes(orderedBy)) {
    throw new LogError('INVALID_REQUEST', "The option orderedBy is 'partition', 'key' or 'none'.");
  }
  return { concurrency: wholeAtLeast('concurrency', 1, options.concurrency ?? 1), orderedBy };
}
