/** Asks the broker what a group has committed. */
import type { LogError } from '../../core/errors.js';
import type { CommittedOffsetMessage, FetchOffsetsRequest, TopicPartitionsMessage } from '../../rpc/group-messages.js';
import type { Channel } from '../channel.js';
import { callFailure } from '../failures.js';
import { methods } from '../methods.js';
import type { ClientRuntime } from '../options.js';
import { DEFAULT_BACKOFF, withRetries } from '../retry.js';
import type { AssignedPartition } from './types.js';

/** Partitions that one request may ask for. */
const MAX_PARTITIONS = 10_000;
/**
 * Into about so many parts a question is divided to find the partitions that wait for a transaction; those that share a
 * part with one of them wait too.
 */
const UNDECIDED_PARTS = 64;

export interface FetchOffsetsContext {
  readonly channel: Pick<Channel, 'unary'>;
  readonly runtime: ClientRuntime;
  readonly requestTimeoutMs: number;
}

/** What was committed of a partition; `offset` is -1 when nothing was. */
export type CommittedOffset = CommittedOffsetMessage;

/**
 * What a group has committed. Failures that may pass are waited out: a coordinator that is still loading, and the end of a
 * transaction that is not decided.
 * @param topics none: everything that the group has committed
 * @param signal ends the wait with CANCELLED
 * @throws LogError INVALID_GROUP_ID, CANCELLED, and other failures that will not pass
 */
export async function fetchCommittedOffsets(
  groupId: string,
  topics: TopicPartitionsMessage[],
  context: FetchOffsetsContext,
  signal?: AbortSignal,
): Promise<CommittedOffset[]> {
  return (await untilDone(context.runtime, signal, () => fetchOnce(groupId, topics, context, signal))).offsets;
}

export interface OffsetsOfPartitions {
  readonly committed: readonly CommittedOffset[];
  /**
   * Partitions of which nothing is known, and why: UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, or UNSTABLE_OFFSET_COMMIT
   * (a transaction that is not decided has an offset of them).
   */
  readonly refused: ReadonlyMap<AssignedPartition, LogError>;
}

/**
 * What a group has committed of these partitions. Other failures that may pass are waited out.
 * @throws LogError INVALID_GROUP_ID, CANCELLED, and other failures of the group as a whole that will not pass
 */
export function fetchOffsetsOf(
  groupId: string,
  partitions: readonly AssignedPartition[],
  context: FetchOffsetsContext,
  signal: AbortSignal | undefined,
): Promise<OffsetsOfPartitions> {
  const divisibleAbove = Math.ceil(partitions.length / UNDECIDED_PARTS);
  return new OffsetsQuestion(groupId, context, signal, divisibleAbove).ask(inParts(partitions));
}

/** Partitions of one topic, at least one. */
export type Part = readonly AssignedPartition[];

/**
 * The broker refuses a question about too many partitions, and one about several of which one is gone or not decided: it
 * is then asked about fewer.
 */
class OffsetsQuestion {
  readonly #groupId: string;
  readonly #context: FetchOffsetsContext;
  readonly #signal: AbortSignal | undefined;
  readonly #divisibleAbove: number;

  constructor(groupId: string, context: FetchOffsetsContext, signal: AbortSignal | undefined, divisibleAbove: number) {
    this.#groupId = groupId;
    this.#context = context;
    this.#signal = signal;
    this.#divisibleAbove = divisibleAbove;
  }

  async ask(parts: readonly Part[]): Promise<OffsetsOfPartitions> {
    if (parts.length === 0) return { committed: [], refused: new Map() };
    const partitionCount = parts.reduce((count, { length }) => count + length, 0);
    if (partitionCount > MAX_PARTITIONS && parts.length > 1) return await this.#askInHalves(parts);
    const topics = parts.map(describeTopic);
    const fetch = () => fetchOnce(this.#groupId, topics, this.#context, this.#signal);
    try {
      const { offsets } = await untilDone(this.#context.runtime, this.#signal, fetch, (error) => !isUndecided(error));
      return { committed: offsets, refused: new Map() };
    } catch (thrown) {
      const error = callFailure(thrown);
      if (!isUndecided(error) && !isGone(error)) throw error;
      const isDivisible = isUndecided(error) && partitionCount > this.#divisibleAbove;
      if (parts.length > 1 || isDivisible) return await this.#askInHalves(parts);
      return { committed: [], refused: new Map(parts.flat().map((partition) => [partition, error])) };
    }
  }

  async #askInHalves(parts: readonly Part[]): Promise<OffsetsOfPartitions> {
    const [first, second] = inHalves(parts);
    const before = await this.ask(first);
    const after = await this.ask(second);
    return {
      committed: [...before.committed, ...after.committed],
      refused: new Map([...before.refused, ...after.refused]),
    };
  }
}

/** Halves of the parts, or of the only one. */
function inHalves(parts: readonly Part[]): [Part[], Part[]] {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) {
    const half = Math.ceil(only.length / 2);
    return [[only.slice(0, half)], [only.slice(half)]];
  }
  const half = Math.ceil(parts.length / 2);
  return [parts.slice(0, half), parts.slice(half)];
}

function fetchOnce(
  groupId: string,
  topics: TopicPartitionsMessage[],
  { channel, requestTimeoutMs: timeoutMs }: FetchOffsetsContext,
  signal: AbortSignal | undefined,
): Promise<{ readonly offsets: CommittedOffset[] }> {
  const request: FetchOffsetsRequest = { groupId, memberId: '', memberEpoch: 0, topics };
  return channel.unary(methods.fetchOffsets, request, { timeoutMs, signal });
}

/** Repeats for as long as the failure may pass: whoever does not want to wait that long aborts the signal. */
export function untilDone<T>(
  { clock, random }: ClientRuntime,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
  mayRepeat?: (error: LogError) => boolean,
): Promise<T> {
  const context = { clock, random, backoff: DEFAULT_BACKOFF, limitMs: Number.POSITIVE_INFINITY, signal };
  return withRetries(context, attempt, mayRepeat);
}

export function isGone({ reason }: LogError): boolean {
  return reason === 'UNKNOWN_TOPIC_OR_PARTITION' || reason === 'UNKNOWN_TOPIC_ID';
}

function isUndecided({ reason }: LogError): boolean {
  return reason === 'UNSTABLE_OFFSET_COMMIT';
}

function byTopic(partitions: readonly AssignedPartition[]): AssignedPartition[][] {
  const topics = new Map<string, AssignedPartition[]>();
  for (const partition of partitions) {
    const known = topics.get(partition.topicId);
    if (known === undefined) topics.set(partition.topicId, [partition]);
    else known.push(partition);
  }
  return [...topics.values()];
}

/** By topic, and no more of one than a request may ask for. */
export function inParts(partitions: readonly AssignedPartition[]): Part[] {
  return byTopic(partitions).flatMap(divided);
}

function divided(assigned: Part): Part[] {
  const count = Math.ceil(assigned.length / MAX_PARTITIONS);
  return Array.from({ length: count }, (_, i) => assigned.slice(i * MAX_PARTITIONS, (i + 1) * MAX_PARTITIONS));
}

function describeTopic(assigned: Part): TopicPartitionsMessage {
  const { topic, topicId } = assigned[0] as AssignedPartition;
  return { topic, topicId, partitions: assigned.map(({ partition }) => partition) };
}
