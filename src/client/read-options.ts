/** What to read: options, their defaults and their checks. */
import { LogError } from '../core/errors.js';
import { toOffset } from '../core/types.js';
import { type Isolation, resolveIsolation } from './isolation.js';
import { atLeast } from './options.js';

export type { Isolation } from './isolation.js';

/** Messages that grpc-js takes from the wire before a paused reader makes it stop. */
export const TRANSPORT_MESSAGES = 16;

/**
 * Where reading begins: the log start offset, the end (see `isolation`), an offset (the same in every partition), the first
 * record at or after a time, or an offset for each partition.
 */
export type ReadFrom = 'earliest' | 'latest' | number | Date | Readonly<Record<number, number>>;

/**
 * Where reading ends: `end` is the end when reading begins (see `isolation`), a number an offset (exclusive), a Date the first
 * record at or after that time when reading begins (exclusive). Undefined: never, new records are awaited.
 */
export type ReadTo = 'end' | number | Date | undefined;

export interface ReadOptions {
  /** Default `earliest`. */
  readonly from?: ReadFrom;
  /** Default undefined: follow. */
  readonly to?: ReadTo;
  /** Default: those that `from` names, else all. */
  readonly partitions?: readonly number[];
  /**
   * What of transactions is read. The end is that of what is decided with `read_committed`: the last stable offset, which
   * an open transaction holds back; else the high watermark. Default `read_committed`.
   */
  readonly isolation?: Isolation;
  /** Ends the iteration with CANCELLED. */
  readonly signal?: AbortSignal;
  /** Bytes fetched ahead of the iteration at most. Default 16 MiB. */
  readonly maxBufferedBytes?: number;
  /** About how much one message of the broker holds, in bytes. Default 1 MiB. */
  readonly fetchBytes?: number;
  /** Whether the checksum of every batch is checked here too. Default true. */
  readonly verifyCrc?: boolean;
  /**
   * How long to go on trying without an answer before the last failure is thrown, in ms. Default: for ever when
   * following, 120,000 when `to` is set.
   */
  readonly retryTimeoutMs?: number;
}

export interface ResolvedReadOptions {
  readonly from: ReadFrom;
  readonly to: ReadTo;
  readonly partitions: readonly number[] | undefined;
  readonly isolation: Isolation;
  readonly signal: AbortSignal | undefined;
  readonly maxBufferedBytes: number;
  readonly fetchBytes: number;
  readonly verifyCrc: boolean;
  readonly retryTimeoutMs: number;
}

export const DEFAULT_MAX_BUFFERED_BYTES: number = 16 * 1024 * 1024;
export const DEFAULT_FETCH_BYTES: number = 1024 * 1024;
const DEFAULT_RETRY_TIMEOUT_MS = 120_000;

/** @throws LogError INVALID_REQUEST, INVALID_CONFIG */
export function resolveReadOptions(options: ReadOptions): ResolvedReadOptions {
  const from = options.from ?? 'earliest';
  checkFrom(from);
  checkTo(options.to);
  const named = isPerPartition(from) ? Object.keys(from).map(Number) : undefined;
  for (const partition of options.partitions ?? []) {
    if (named === undefined || named.includes(partition)) continue;
    throw new LogError('INVALID_REQUEST', `The option from names no offset for partition ${partition}.`);
  }
  const chosen = options.partitions ?? named;
  if (chosen?.length === 0) throw new LogError('INVALID_REQUEST', 'At least one partition must be read.');
  const fallback = options.to === undefined ? Number.MAX_VALUE : DEFAULT_RETRY_TIMEOUT_MS;
  return {
    from,
    to: options.to,
    partitions: chosen === undefined ? undefined : [...new Set(chosen)],
    isolation: resolveIsolation(options.isolation),
    signal: options.signal,
    maxBufferedBytes: atLeast('maxBufferedBytes', 1, options.maxBufferedBytes ?? DEFAULT_MAX_BUFFERED_BYTES),
    fetchBytes: Math.floor(atLeast('fetchBytes', 1, options.fetchBytes ?? DEFAULT_FETCH_BYTES)),
    verifyCrc: options.verifyCrc ?? true,
    retryTimeoutMs: atLeast('retryTimeoutMs', 0, options.retryTimeoutMs ?? fallback),
  };
}

export function isPerPartition(from: ReadFrom): from is Readonly<Record<number, number>> {
  return typeof from === 'object' && !(from instanceof Date);
}

function checkFrom(from: ReadFrom): void {
  if (from === 'earliest' || from === 'latest') return;
  if (typeof from === 'number') toOffset(from);
  else if (from instanceof Date) checkDate('from', from);
  else if (typeof from === 'object' && from !== null) for (const offset of Object.values(from)) toOffset(offset);
  else throw invalid('from', "'earliest', 'latest', an offset, a Date or an object of offsets by partition");
}

function checkTo(to: ReadTo): void {
  if (to === undefined || to === 'end') return;
  if (typeof to === 'number') toOffset(to);
  else if (to instanceof Date) checkDate('to', to);
  else throw invalid('to', "'end', an offset, a Date or undefined");
}

function checkDate(name: string, date: Date): void {
  if (Number.isNaN(date.getTime())) throw invalid(name, 'a valid Date');
}

function invalid(name: string, rule: string): LogError {
  return new LogError('INVALID_REQUEST', `The option ${name} is ${rule}.`);
}
