/** Makes newly assigned partitions ready to be read. */
import { LogError, toLogError } from '../../core/errors.js';
import { backoffMs, DEFAULT_BACKOFF, sleep } from '../retry.js';
import type { Commits } from './commits.js';
import type { NoStartPosition, StartPosition } from './committed-offsets.js';
import type { ConsumerContext } from './context.js';
import type { Fetching } from './fetching.js';
import type { Holding } from './holding.js';

export interface StartingParts<K, V> {
  readonly context: ConsumerContext<K, V>;
  readonly commits: Commits;
  readonly fetching: Fetching<K, V>;
  readonly signal: AbortSignal;
}

/**
 * Finds where to begin while the listeners are told, commits positions that would not be found again, and begins to
 * fetch. A partition that is revoked meanwhile is not fetched, and one that was sought begins where it was told to.
 * @param told settled when the listeners are through
 * @throws LogError why one of them cannot begin; CANCELLED by the signal
 */
export async function startHoldings<K, V>(
  holdings: readonly Holding<K, V>[],
  told: Promise<void>,
  parts: StartingParts<K, V>,
): Promise<void> {
  let waiting = holdings;
  for (let attempts = 1; waiting.length > 0; attempts++) {
    waiting = await tryToStart(waiting, told, parts);
    if (waiting.length === 0) return;
    const { clock, random } = parts.context.runtime;
    await sleep(clock, backoffMs(attempts, DEFAULT_BACKOFF, random), parts.signal);
    waiting = waiting.filter(isStarting);
  }
}

/** While it is under way, nothing of these is let go: a position that must be committed first may be among them. */
async function tryToStart<K, V>(
  holdings: readonly Holding<K, V>[],
  told: Promise<void>,
  parts: StartingParts<K, V>,
): Promise<Holding<K, V>[]> {
  for (const holding of holdings) holding.take();
  try {
    const [starts] = await Promise.all([findStarts(holdings, parts), told]);
    return await begin(holdings, starts, parts);
  } finally {
    for (const holding of holdings) holding.release();
  }
}

type Starts = readonly (StartPosition | NoStartPosition | undefined)[];

/** Undefined where a seek has made the question moot. */
async function findStarts<K, V>(
  holdings: readonly Holding<K, V>[],
  { context, signal }: StartingParts<K, V>,
): Promise<Starts | LogError> {
  const asked = holdings.filter(({ progress }) => progress === undefined);
  if (asked.length === 0) return holdings.map(() => undefined);
  try {
    const found = await context.findStarts(
      asked.map(({ assigned }) => assigned),
      context.options,
      signal,
    );
    const byHolding = new Map(asked.map((holding, i) => [holding, found[i]]));
    return holdings.map((holding) => byHolding.get(holding));
  } catch (error) {
    // Told only once the listeners are through: their seek, or a revocation, may make it moot.
    return toLogError(error);
  }
}

/**
 * @returns those whose turn has not come: their topic is not there, for the time being or for ever, or a transaction has
 *   an offset of them that is not decided
 */
async function begin<K, V>(
  holdings: readonly Holding<K, V>[],
  starts: Starts | LogError,
  parts: StartingParts<K, V>,
): Promise<Holding<K, V>[]> {
  const unknown = holdings.filter(({ progress, phase }) => progress === undefined && phase !== 'gone');
  if (starts instanceof LogError && unknown.some(isStarting)) throw starts;
  const later: Holding<K, V>[] = [];
  const unsaved: Holding<K, V>[] = [];
  const found: Starts = starts instanceof LogError ? [] : starts;
  for (const holding of unknown) {
    const start = found[holdings.indexOf(holding)];
    if (start === undefined) continue;
    if ('error' in start) {
      if (start.temporary) later.push(holding);
      else if (isStarting(holding)) throw start.error;
      continue;
    }
    holding.beginAt(start.offset);
    if (start.commitNow) unsaved.push(holding);
    else holding.committedOffset = start.offset;
  }
  await save(unsaved, parts);
  const ready = holdings.filter((holding) => isStarting(holding) && holding.progress !== undefined);
  for (const holding of ready) holding.phase = 'reading';
  parts.fetching.start(ready);
  return later;
}

const NOT_HELD: ReadonlySet<string> = new Set(['FENCED_MEMBER_EPOCH', 'UNKNOWN_MEMBER_ID']);

/**
 * Before the first record is handed out: whoever begins after a crash would find a later position and skip records. Each
 * by itself, for a refusal of one says nothing about another; they share requests.
 */
async function save<K, V>(holdings: readonly Holding<K, V>[], parts: StartingParts<K, V>): Promise<void> {
  await Promise.all(holdings.map((holding) => saveOne(holding, parts)));
}

async function saveOne<K, V>(holding: Holding<K, V>, { context, commits, signal }: StartingParts<K, V>): Promise<void> {
  for (let failures = 1; holding.phase !== 'gone'; failures++) {
    try {
      await commits.commit([holding]);
      return;
    } catch (thrown) {
      const error = toLogError(thrown);
      if (error.reason === 'UNKNOWN_TOPIC_ID' || error.reason === 'UNKNOWN_TOPIC_OR_PARTITION') return;
      if (!error.retryable && !NOT_HELD.has(error.reason)) throw error;
      // The broker asks for the partition and takes no offset of it any more: to try on would keep it from others.
      if (holding.phase === 'revoking' && NOT_HELD.has(error.reason)) return;
      // Of one that is held no longer, a heartbeat will soon tell.
      const { clock, random } = context.runtime;
      await sleep(clock, backoffMs(failures, DEFAULT_BACKOFF, random, error), signal);
    }
  }
}

function isStarting({ phase }: Holding<unknown, unknown>): boolean {
  return phase === 'starting';
}
