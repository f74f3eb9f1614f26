/** What of the partitions held is fetched right now, and what happens when one of them cannot be read on. */
import { LogError, toLogError } from '../../core/errors.js';
import { FetchSession, type FetchSource } from '../fetch-session.js';
import { isUnknownTopic } from '../metadata-cache.js';
import { backoffMs, sleep } from '../retry.js';
import type { Commits } from './commits.js';
import type { ConsumerContext } from './context.js';
import type { Holding } from './holding.js';

/** Between attempts to read a topic that seems to be gone: the broker takes its partitions away when it is. */
const GONE_BACKOFF = { retryBackoffMs: 1_000, retryBackoffMaxMs: 30_000 };

/** Invariant: a holding has a source exactly while its session reads it, or has told that it cannot. */
export class Fetching<K, V> {
  readonly session: FetchSession;
  readonly #context: ConsumerContext<K, V>;
  readonly #commits: Commits;
  readonly #fail: (error: LogError) => void;
  readonly #stopped = new AbortController();

  /** @param fail called when reading cannot go on; must not throw */
  constructor(context: ConsumerContext<K, V>, commits: Commits, fail: (error: LogError) => void) {
    const { maxBufferedBytes, fetchBytes, isolation, retryTimeoutMs } = context.options;
    const options = { maxBufferedBytes, fetchBytes, isolation, retryTimeoutMs, changing: true };
    this.session = new FetchSession([], options, context);
    this.#context = context;
    this.#commits = commits;
    this.#fail = fail;
  }

  /** Fetches from each one's position on, unless it is paused, has no position yet, or another one is on its way. */
  start(holdings: Iterable<Holding<K, V>>): void {
    const sources: FetchSource[] = [];
    for (const holding of holdings) {
      const { progress, phase, assigned } = holding;
      if (progress === undefined || phase !== 'reading' || this.#context.paused.has(holding.key)) continue;
      if (this.#stopped.signal.aborted || holding.isSeeking || holding.source !== undefined) continue;
      const { topic, topicId, partition } = assigned;
      const source = { topic, topicId, partition, start: progress.position, end: undefined };
      holding.source = source;
      holding.fetchedTo = source.start;
      sources.push(source);
    }
    this.session.add(sources);
  }

  /** Hands out nothing more of these and drops what was fetched of them. */
  stop(holdings: Iterable<Holding<K, V>>): void {
    const sources: FetchSource[] = [];
    for (const holding of holdings) {
      if (holding.source !== undefined) sources.push(holding.source);
      holding.source = undefined;
    }
    this.session.remove(sources);
  }

  /** For good. */
  close(error: LogError): void {
    this.#stopped.abort();
    this.session.stop(error);
  }

  /** The session says that this partition cannot be read on. */
  refused(holding: Holding<K, V>, error: LogError): void {
    const handle = this.#isOutOfRange(error) ? this.#onOutOfRange(holding, error) : this.#onOther(holding, error);
    handle.catch((thrown) => {
      if (!this.#stopped.signal.aborted) this.#fail(toLogError(thrown));
    });
  }

  #isOutOfRange({ reason }: LogError): boolean {
    return reason === 'OFFSET_OUT_OF_RANGE' || reason === 'LOG_TRUNCATED';
  }

  async #onOther(holding: Holding<K, V>, error: LogError): Promise<void> {
    if (!isUnknownTopic(error)) throw error;
    const { runtime } = this.#context;
    holding.refusals++;
    const waitMs = backoffMs(holding.refusals, GONE_BACKOFF, runtime.random);
    runtime.logger.warn(
      { ...holding.topicPartition, reason: error.reason, error: error.message, waitMs },
      'a partition cannot be read: its topic seems to have been deleted',
    );
    await this.#restart(holding, () => sleep(runtime.clock, waitMs, this.#stopped.signal));
  }

  /** Retention or a truncation has overtaken the consumer, or somebody has sought a wrong offset. */
  async #onOutOfRange(holding: Holding<K, V>, error: LogError): Promise<void> {
    const { from, isolation } = this.#context.options;
    const position = Number(error.metadata.offset ?? holding.fetchedTo);
    const isBelow = position < Number(error.metadata.log_start_offset ?? 0);
    if (!isBelow) throw truncated(holding, error);
    if (from === undefined) throw overtaken(holding, error);
    await this.#restart(holding, async () => {
      const offset = await this.#context.findOffset(holding.assigned, from, isolation, this.#stopped.signal);
      return () => this.#skip(holding, offset, from);
    });
  }

  /** Reads on after `wait`, unless the partition was given another position, or is gone, meanwhile. */
  async #restart(holding: Holding<K, V>, wait: () => Promise<(() => Promise<void>) | void>): Promise<void> {
    const { source } = holding;
    const before = await wait();
    if (holding.source !== source) return;
    this.stop([holding]);
    await before?.();
    this.start([holding]);
  }

  async #skip(holding: Holding<K, V>, offset: number, from: unknown): Promise<void> {
    const position = holding.progress?.position ?? offset;
    this.#context.runtime.logger.warn(
      { ...holding.topicPartition, position, offset, from, skipped: offset - position },
      'records were deleted before they were consumed; reading goes on where the option from says',
    );
    holding.progress?.skipTo(offset);
    // The next one to begin would otherwise find another offset, and skip more.
    if (from !== 'earliest') await this.#commits.commitQuietly([holding]);
  }
}

function overtaken({ assigned: { topic, partition } }: Holding<unknown, unknown>, cause: LogError): LogError {
  const { offset, log_start_offset: start, high_watermark: end } = cause.metadata;
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Records of ${topic}-${partition} from offset ${offset} on were deleted before they were consumed; the valid range is ` +
      `${start} to ${end}. Name a policy with the option from, or reset the group's offsets.`,
    { metadata: cause.metadata, cause },
  );
}

function truncated({ assigned: { topic, partition } }: Holding<unknown, unknown>, cause: LogError): LogError {
  const { offset, log_start_offset: start, high_watermark: end } = cause.metadata;
  return new LogError(
    'LOG_TRUNCATED',
    `Offset ${offset} lies beyond the end of ${topic}-${partition}: what was read there is gone, or the offset was never ` +
      `valid. The valid range is ${start} to ${end}; reset the group's offsets.`,
    { metadata: cause.metadata, cause },
  );
}
