/** Where a member begins to read the partitions that it was given. */
import { LogError } from '../../core/errors.js';
import type { CommittedOffsetMessage, FetchOffsetsRequest, TopicPartitionsMessage } from '../../rpc/group-messages.js';
import type { Admin, OffsetSpec } from '../admin.js';
import type { Channel } from '../channel.js';
import type { ConsumeFrom } from '../consumer-options.js';
import { callFailure } from '../failures.js';
import { methods } from '../methods.js';
import type { ClientRuntime } from '../options.js';
import { DEFAULT_BACKOFF, withRetries } from '../retry.js';
import type { AssignedPartition } from './types.js';

/** Partitions that one request may ask for. */
const MAX_PARTITIONS = 10_000;

export interface CommittedOffsetsContext {
  readonly channel: Pick<Channel, 'unary'>;
  readonly admin: Pick<Admin, 'listOffsets' | 'getTopic'>;
  readonly runtime: ClientRuntime;
  readonly requestTimeoutMs: number;
}

export interface StartPosition {
  readonly partition: AssignedPartition;
  /** The next offset to read. */
  readonly offset: number;
  /**
   * To be committed before anything else is done with the partition, letting it go included: it follows from the time at
   * which it was found, and whoever begins next would find another one and skip what lies between.
   */
  readonly commitNow: boolean;
}

/** Why a partition has no position to begin at. */
export interface NoStartPosition {
  readonly partition: AssignedPartition;
  readonly error: LogError;
  /** The topic was deleted, recreated or not: the broker will take the partition back. */
  readonly topicGone: boolean;
}

/** What was committed of a partition; `offset` is -1 when nothing was. */
export type CommittedOffset = CommittedOffsetMessage;

/**
 * What a group has committed. Failures that may pass are waited out, a coordinator that is still loading included.
 * @param topics none: everything that the group has committed
 * @param signal ends the wait with CANCELLED
 * @throws LogError INVALID_GROUP_ID, CANCELLED, and other failures that will not pass
 */
export async function fetchCommittedOffsets(
  groupId: string,
  topics: TopicPartitionsMessage[],
  context: Omit<CommittedOffsetsContext, 'admin'>,
  signal?: AbortSignal,
): Promise<CommittedOffset[]> {
  const { channel, requestTimeoutMs: timeoutMs } = context;
  const request: FetchOffsetsRequest = { groupId, memberId: '', memberEpoch: 0, topics };
  const fetch = () => channel.unary(methods.fetchOffsets, request, { timeoutMs, signal });
  return (await untilDone(context.runtime, signal, fetch)).offsets;
}

/**
 * Finds where to begin, for each partition by itself.
 * @param from undefined: the user has named none; then nothing but a group without offsets begins anywhere (at the
 *   earliest record), and whatever else has no valid offset is an error
 * @param signal ends the wait with CANCELLED
 * @returns an answer for each partition, in the order asked; errors are OFFSET_OUT_OF_RANGE (below the log start offset,
 *   with the valid range), LOG_TRUNCATED (above the high watermark, with the valid range), UNKNOWN_TOPIC_ID (the group
 *   has offsets of an earlier topic of that name only), UNKNOWN_TOPIC_OR_PARTITION, and other failures that will not pass
 * @throws LogError INVALID_GROUP_ID, CANCELLED, and other failures of the group as a whole that will not pass
 */
export async function startPositions(
  groupId: string,
  partitions: readonly AssignedPartition[],
  from: ConsumeFrom | undefined,
  context: CommittedOffsetsContext,
  signal?: AbortSignal,
): Promise<(StartPosition | NoStartPosition)[]> {
  if (partitions.length === 0) return [];
  const topics = byTopic(partitions).flatMap(inParts);
  const { committed, gone } = await fetchOfTopics(groupId, topics, context, signal);
  const resolver = new StartResolver(groupId, committed, from, context, signal);
  const resolved = await Promise.all(
    topics.map((assigned) => {
      const error = gone.get(assigned);
      return error === undefined ? resolver.resolve(assigned) : withoutPosition(assigned, error);
    }),
  );
  const starts = new Map(resolved.flat().map((start) => [start.partition, start]));
  return partitions.map((partition) => starts.get(partition) as StartPosition | NoStartPosition);
}

interface CommittedOfTopics {
  readonly committed: readonly CommittedOffset[];
  /** Topics that are not there any more, recreated or not, and what the broker says of them. */
  readonly gone: ReadonlyMap<readonly AssignedPartition[], LogError>;
}

/**
 * The broker refuses a question about too many partitions, and one about several topics when one of them is gone: it is
 * then asked about fewer.
 */
async function fetchOfTopics(
  groupId: string,
  topics: readonly (readonly AssignedPartition[])[],
  context: CommittedOffsetsContext,
  signal: AbortSignal | undefined,
): Promise<CommittedOfTopics> {
  const half = Math.ceil(topics.length / 2);
  const inHalves = async (): Promise<CommittedOfTopics> => {
    const before = await fetchOfTopics(groupId, topics.slice(0, half), context, signal);
    const after = await fetchOfTopics(groupId, topics.slice(half), context, signal);
    return { committed: [...before.committed, ...after.committed], gone: new Map([...before.gone, ...after.gone]) };
  };
  const [first, ...rest] = topics;
  if (first === undefined) return { committed: [], gone: new Map() };
  const partitionCount = topics.reduce((count, { length }) => count + length, 0);
  if (partitionCount > MAX_PARTITIONS && rest.length > 0) return await inHalves();
  try {
    const committed = await fetchCommittedOffsets(groupId, topics.map(describeTopic), context, signal);
    return { committed, gone: new Map() };
  } catch (thrown) {
    const error = callFailure(thrown);
    if (!isGone(error)) throw error;
    return rest.length === 0 ? { committed: [], gone: new Map([[first, error]]) } : await inHalves();
  }
}

/** Valid offsets of a partition: from its log start offset to its high watermark. */
interface Range {
  readonly logStartOffset: number;
  readonly highWatermark: number;
}

type Offsets = ReadonlyMap<number, number>;

class StartResolver {
  readonly #groupId: string;
  readonly #committed: ReadonlyMap<string, CommittedOffset>;
  readonly #from: ConsumeFrom | undefined;
  readonly #context: CommittedOffsetsContext;
  readonly #signal: AbortSignal | undefined;

  constructor(
    groupId: string,
    committed: readonly CommittedOffset[],
    from: ConsumeFrom | undefined,
    context: CommittedOffsetsContext,
    signal: AbortSignal | undefined,
  ) {
    this.#groupId = groupId;
    this.#committed = new Map(committed.map((offset) => [keyOf(offset), offset]));
    this.#from = from;
    this.#context = context;
    this.#signal = signal;
  }

  /** @param assigned of one topic, at least one */
  async resolve(assigned: readonly AssignedPartition[]): Promise<(StartPosition | NoStartPosition)[]> {
    try {
      const [earliest, latest, dated] = await Promise.all([
        this.#list(assigned, 'earliest'),
        this.#list(assigned, 'latest'),
        this.#from instanceof Date ? this.#list(assigned, this.#from) : undefined,
      ]);
      const starts = assigned.map((partition) => {
        const range = {
          logStartOffset: offsetOf(earliest, partition),
          highWatermark: offsetOf(latest, partition),
        };
        return this.#start(partition, range, dated && offsetOf(dated, partition));
      });
      return starts.some((start) => 'error' in start) ? await this.#unlessGone(assigned, starts) : starts;
    } catch (thrown) {
      const error = callFailure(thrown);
      if (error.reason === 'CANCELLED' || error.reason === 'CLOSED') throw error;
      return withoutPosition(assigned, error);
    }
  }

  #start(partition: AssignedPartition, range: Range, datedOffset: number | undefined): StartPosition | NoStartPosition {
    const committed = this.#committed.get(keyOf(partition));
    if (committed !== undefined && committed.offset >= 0)
      return this.#goOn(partition, committed.offset, range, datedOffset);
    // Nothing in it lies before the group's start, whatever that was.
    if (committed?.addedLater) return { partition, offset: range.logStartOffset, commitNow: false };
    const earlierTopicId = committed?.earlierTopicId ?? '';
    // With others of the topic, the group has begun anew already.
    if (earlierTopicId === '' || committed?.topicCommitted) return this.#byPolicy(partition, range, datedOffset);
    if (this.#from === undefined) return refused(partition, earlierTopic(this.#groupId, partition, earlierTopicId));
    const fields = { ...this.#fields(partition), earlierTopicId };
    this.#context.runtime.logger.warn(fields, 'the group has offsets of an earlier topic of this name: it begins anew');
    return this.#byPolicy(partition, range, datedOffset);
  }

  #goOn(
    partition: AssignedPartition,
    offset: number,
    range: Range,
    datedOffset: number | undefined,
  ): StartPosition | NoStartPosition {
    if (offset > range.highWatermark) return refused(partition, aboveEnd(this.#groupId, partition, offset, range));
    if (offset >= range.logStartOffset) return { partition, offset, commitNow: false };
    if (this.#from === undefined) return refused(partition, belowStart(this.#groupId, partition, offset, range));
    const start = this.#byPolicy(partition, range, datedOffset);
    const fields = { ...this.#fields(partition), committedOffset: offset, startOffset: start.offset };
    const skipped = start.offset - offset;
    this.#context.runtime.logger.warn(
      { ...fields, skipped },
      'the committed offset is no longer in the log: it was skipped ahead',
    );
    return start;
  }

  #byPolicy(partition: AssignedPartition, range: Range, datedOffset: number | undefined): StartPosition {
    const from = this.#from ?? 'earliest';
    if (from === 'earliest') return { partition, offset: range.logStartOffset, commitNow: false };
    return { partition, offset: datedOffset ?? range.highWatermark, commitNow: true };
  }

  /** What looks like a wrong offset may be the right one of a topic whose name another one has now. */
  async #unlessGone(
    assigned: readonly AssignedPartition[],
    starts: readonly (StartPosition | NoStartPosition)[],
  ): Promise<(StartPosition | NoStartPosition)[]> {
    const { topic, topicId } = assigned[0] as AssignedPartition;
    const { admin, runtime } = this.#context;
    const found = await untilDone(runtime, this.#signal, () => admin.getTopic(topic, this.#callOptions()));
    if (found.topicId === topicId) return [...starts];
    const error = recreated(topic, topicId, found.topicId);
    return assigned.map((partition) => ({ partition, error, topicGone: true }));
  }

  async #list(assigned: readonly AssignedPartition[], spec: OffsetSpec): Promise<Offsets> {
    const { admin, runtime } = this.#context;
    const { topic } = assigned[0] as AssignedPartition;
    const partitions = assigned.map(({ partition }) => partition);
    const list = () => admin.listOffsets(topic, spec, partitions, this.#callOptions());
    const listed = await untilDone(runtime, this.#signal, list);
    return new Map(listed.map(({ partition, offset }) => [partition, offset]));
  }

  #callOptions(): { signal?: AbortSignal } {
    return this.#signal === undefined ? {} : { signal: this.#signal };
  }

  #fields({ topic, partition }: AssignedPartition): object {
    return { group: this.#groupId, topic, partition };
  }
}

/** Repeats for as long as the failure may pass: whoever does not want to wait that long aborts the signal. */
function untilDone<T>(runtime: ClientRuntime, signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
  const { clock, random } = runtime;
  return withRetries({ clock, random, backoff: DEFAULT_BACKOFF, limitMs: Number.POSITIVE_INFINITY, signal }, attempt);
}

function keyOf({ topicId, partition }: { readonly topicId: string; readonly partition: number }): string {
  return `${topicId}-${partition}`;
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

function inParts(assigned: readonly AssignedPartition[]): (readonly AssignedPartition[])[] {
  const count = Math.ceil(assigned.length / MAX_PARTITIONS);
  return Array.from({ length: count }, (_, i) => assigned.slice(i * MAX_PARTITIONS, (i + 1) * MAX_PARTITIONS));
}

function describeTopic(assigned: readonly AssignedPartition[]): TopicPartitionsMessage {
  const { topic, topicId } = assigned[0] as AssignedPartition;
  return { topic, topicId, partitions: assigned.map(({ partition }) => partition) };
}

function offsetOf(offsets: Offsets, { topic, partition }: AssignedPartition): number {
  const offset = offsets.get(partition);
  if (offset !== undefined) return offset;
  throw new LogError('INTERNAL', `The broker named no offset for partition ${partition} of topic ${topic}.`);
}

function withoutPosition(assigned: readonly AssignedPartition[], error: LogError): NoStartPosition[] {
  return assigned.map((partition) => ({ partition, error, topicGone: isGone(error) }));
}

function isGone({ reason }: LogError): boolean {
  return reason === 'UNKNOWN_TOPIC_OR_PARTITION' || reason === 'UNKNOWN_TOPIC_ID';
}

function refused(partition: AssignedPartition, error: LogError): NoStartPosition {
  return { partition, error, topicGone: false };
}

function rangeMetadata(
  { topic, partition }: AssignedPartition,
  group: string,
  offset: number,
  range: Range,
): Record<string, string | number> {
  const { logStartOffset, highWatermark } = range;
  return { group, topic, partition, offset, log_start_offset: logStartOffset, high_watermark: highWatermark };
}

function belowStart(group: string, partition: AssignedPartition, offset: number, range: Range): LogError {
  const name = `${partition.topic}-${partition.partition}`;
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Group ${group} has committed offset ${offset} of ${name}, which now begins at ${range.logStartOffset}: records that ` +
      'it has not read were deleted. Name a policy with the option from (earliest, latest or a Date), or choose where to ' +
      `go on with \`tidelog group reset-offsets ${group}\`. Valid are ${range.logStartOffset} to ${range.highWatermark}.`,
    { metadata: rangeMetadata(partition, group, offset, range) },
  );
}

function aboveEnd(group: string, partition: AssignedPartition, offset: number, range: Range): LogError {
  const name = `${partition.topic}-${partition.partition}`;
  return new LogError(
    'LOG_TRUNCATED',
    `Group ${group} has committed offset ${offset} of ${name}, which ends at ${range.highWatermark}: the log has lost ` +
      'records that were read, as after a restore from an older copy. Choose where to go on with ' +
      `\`tidelog group reset-offsets ${group}\`. Valid are ${range.logStartOffset} to ${range.highWatermark}.`,
    { metadata: rangeMetadata(partition, group, offset, range) },
  );
}

function earlierTopic(
  group: string,
  { topic, topicId, partition }: AssignedPartition,
  earlierTopicId: string,
): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_ID',
    `Topic ${topic} was deleted and created anew since group ${group} committed offsets of it, which mean nothing for ` +
      'the new one. Name where to begin with the option from (earliest, latest or a Date), or with ' +
      `\`tidelog group reset-offsets ${group}\`.`,
    { metadata: { group, topic, partition, topic_id: topicId, earlier_topic_id: earlierTopicId } },
  );
}

function recreated(topic: string, topicId: string, newTopicId: string): LogError {
  return new LogError('UNKNOWN_TOPIC_ID', `Topic ${topic} was deleted and created anew.`, {
    metadata: { topic, topic_id: newTopicId, requested_topic_id: topicId },
  });
}
